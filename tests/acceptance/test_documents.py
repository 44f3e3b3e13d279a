"""PDF and office files in the folder of the installed command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import documents
from tests.checker import belongs
from tests.daemon import Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

BOMB = documents.docx("<w:p><w:r><w:t>" + "word " * (40 << 20) + "</w:t></w:r></w:p>")
ONLY_HTML = {"INGESTOR_CONVERT__FORMATS": "html"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with EmbeddingServer(dimensions=16) as server, Site(tmp_path, provider_settings(server)) as site:
        yield site


def found(site: Site, where: dict[str, object]) -> list[dict[str, Any]]:
    """The records that a search with a filter finds."""
    done = site.command("query", "anything", "-n", "50", "--json", "--where", json.dumps(where))
    assert done.code == 0, done.err
    hits: list[dict[str, Any]] = done.json()
    return hits


def test_a_pdf_is_found_by_its_page_follows_its_edits_and_goes_and_a_bomb_stops_nobody(site: Site) -> None:
    pdf = site.folder / "灯塔.pdf"
    pdf.write_bytes(documents.pdf([["# 灯塔 lamps", "first words"], ["第二页 ships"], ["third"]]))
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        eventually(lambda: len(reading.rows()) == 3, daemon.log)
        (hit,) = found(site, {"page": 2})
        assert hit["document"] == "第二页 ships"
        told = hit["metadata"]
        assert (told["source"], told["file_type"], told["title"]) == ("灯塔.pdf", "application/pdf", "灯塔 lamps")
        assert (told["start_line"], told["heading"]) == (5, "灯塔 lamps")
        document_id = told["document_id"]

        pdf.write_bytes(documents.pdf([["# 灯塔 lamps", "first words"], ["the second page is another one"]]))
        eventually(lambda: len(reading.rows()) == 2, daemon.log)
        (hit,) = found(site, {"page": 2})
        assert (hit["document"], hit["metadata"]["document_id"]) == ("the second page is another one", document_id)

        (site.folder / "bomb.docx").write_bytes(BOMB)
        (site.folder / "locked.pdf").write_bytes(b"%PDF-1.7 and no more")
        (site.folder / "note.txt").write_text("a note beside a bomb", encoding="utf-8")
        (site.folder / "page.html").write_text("<title>Home</title><p>some <b>bold</b> words", encoding="utf-8")
        (site.folder / "no.pdf").write_text("a text with the ending of another format", encoding="utf-8")
        eventually(lambda: len(reading.rows()) == 5 and len(daemon.events("document.problem")) == 2, daemon.log)
        texts = {row.source: row for row in reading.rows()}
        assert texts["page.html"].text == "# Home\n\nsome **bold** words"
        assert "page" not in texts["note.txt"].metadata
        assert texts["no.pdf"].text == "a text with the ending of another format"
        problems = site.command("problems", "--json").json()
        assert {each["path"]: each["kind"] for each in problems} == {
            "bomb.docx": "UnconvertibleDocument",
            "locked.pdf": "UnconvertibleDocument",
        }

        pdf.unlink()
        eventually(lambda: "灯塔.pdf" not in {row.source for row in reading.rows()}, daemon.log)
    assert daemon.terminate() == 0, daemon.log()


def test_what_cannot_be_converted_is_told_once_and_what_was_indexed_of_it_stays_until_its_file_goes(site: Site) -> None:
    (site.folder / "a.txt").write_text("a text", encoding="utf-8")
    (site.folder / "p.html").write_text("<p>plain", encoding="utf-8")
    for name in ("b.pdf", "c.pdf"):
        (site.folder / name).write_bytes(documents.pdf([[f"words of {name}"]]))
    site.sync(INGESTOR_CONVERT__FORMATS="html")
    assert {row.source for row in site.at_rest()} == {"a.txt", "p.html"}
    assert site.command("status", "--json").json()["last_reconcile"]["unconverted"] == 2
    told = " ".join(site.command("status").out.split())
    assert "left out 2 files that nothing here converts to text: pip install 'ingestor[documents]'" in told
    assert site.command("problems", "--json", **ONLY_HTML).json() == []

    site.sync()
    assert {row.source for row in site.at_rest()} == {"a.txt", "p.html", "b.pdf", "c.pdf"}, "the next start takes them"
    assert "left out" not in site.command("status").out

    (site.folder / "b.pdf").write_bytes(documents.pdf([["other words"]]))
    (site.folder / "c.pdf").unlink()
    planned = site.command("plan", "--json", **ONLY_HTML).json()
    assert (planned["documents"]["deleted"], planned["documents"]["left_out"]) == (1, 1)
    done = site.command("sync", **ONLY_HTML)
    assert done.code == 0
    assert done.err.count("files.unconverted") == 1
    assert "pip install 'ingestor[documents]'" in done.err
    kept = {row.source: row.text for row in site.at_rest()}
    assert kept == {"a.txt": "a text", "p.html": "plain", "b.pdf": "words of b.pdf"}, "unknown is not gone"

    site.sync()
    assert {row.source: row.text for row in site.at_rest() if belongs(row.source)}["b.pdf"] == "other words"


def compared(site: Site, **settings: str) -> tuple[int, int]:
    """How many documents a sync finds different, and how many of their texts it pays for."""
    done = site.command("sync", "--json", **settings)
    assert done.code == 0, done.err
    (told,) = [line for line in done.err.splitlines() if "folder.reconciled" in line]
    return json.loads(told)["present"], done.json()["chunks"]["embedded"]


def test_another_version_of_the_converter_plans_what_it_converts_once_more_and_never_again(site: Site) -> None:
    (site.folder / "a.txt").write_text("a text", encoding="utf-8")
    (site.folder / "b.pdf").write_bytes(documents.pdf([["words of b"]]))
    page = "<p>some <b>bold</b> words"
    (site.folder / "c.html").write_text(page, encoding="utf-8")
    assert compared(site) == (3, 3)

    told = site.root / "elsewhere/kreuzberg-99.0.dist-info/METADATA"
    told.parent.mkdir(parents=True)
    told.write_text("Metadata-Version: 2.1\nName: kreuzberg\nVersion: 99.0\n", encoding="utf-8")
    site.settings["PYTHONPATH"] = str(site.root / "elsewhere")
    assert compared(site) == (2, 0), "once, and nothing is paid"
    assert compared(site) == (0, 0), "and never again"

    # As where the extra is missing: a page of the web is the text that it is.
    assert compared(site, INGESTOR_CONVERT__FORMATS="pdf") == (1, 1)
    assert {row.text for row in site.at_rest()} == {"a text", "words of b", page}
    assert compared(site) == (1, 0), "the vector of what it said is there still"
    assert {row.text for row in site.at_rest()} == {"a text", "words of b", "some **bold** words"}


def test_a_daemon_that_cannot_convert_a_file_keeps_what_it_has_of_it_when_it_changes(site: Site) -> None:
    pdf = site.folder / "b.pdf"
    pdf.write_bytes(documents.pdf([["words of b"]]))
    site.sync()
    site.settings |= ONLY_HTML
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        pdf.write_bytes(documents.pdf([["other words"]]))
        (site.folder / "beacon.txt").write_text("a beacon", encoding="utf-8")
        eventually(lambda: len(reading.rows()) == 2, daemon.log)
        assert {row.text for row in reading.rows()} == {"a beacon", "words of b"}
        pdf.unlink()
        eventually(lambda: len(reading.rows()) == 1, daemon.log)
    assert daemon.terminate() == 0, daemon.log()
