"""Records read and written by hand, beside a daemon and without one: no sync, patrol or repair ever touches them."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingestor.core.fingerprint import is_owned
from tests.checker import Row, differences, served
from tests.daemon import KEY, Finished, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer, vector_of

pytestmark = pytest.mark.slow

DIMENSIONS = 8


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, api_key=KEY) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, provider: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(provider)) as site:
        (site.folder / "harbour.md").write_text("A harbour at dawn.\n")
        (site.folder / "law.md").write_text("海洋划界争端提交仲裁\n")
        yield site


def done(site: Site, *arguments: str, code: int = 0) -> Finished:
    finished = site.command(*arguments)
    assert finished.code == code, finished.err
    assert "Warning" not in finished.err, finished.err
    return finished


def told(site: Site, *arguments: str) -> Any:  # noqa: ANN401 - whatever the command prints
    return done(site, *arguments, "--json").json()


def refused(site: Site, *arguments: str) -> str:
    finished = done(site, *arguments, code=2)
    assert finished.err.count("\n") == 1, finished.err
    return finished.err


def parted(rows: list[Row]) -> tuple[list[Row], dict[str, Row]]:
    """The records of files, and those that were made by hand."""
    owned = [row for row in rows if is_owned(row.id, row.metadata)]
    return owned, {row.id: row for row in rows if row not in owned}


def test_hand_made_records_live_beside_a_daemon_that_looks_after_the_files_alone(
    site: Site, provider: EmbeddingServer
) -> None:
    site.settings["INGESTOR_WATCH__RESCAN_SECONDS"] = "1"  # scans and audits go on all the time
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        (law,) = [row for row in reading.wait_equal() if row.source == "law.md"]
    before = provider.texts

    added = told(site, "add", "--document", "A pier.", "--document", "An anchor.", "--metadata", '{"by": "Ada"}')
    pier, anchor = added["ids"]
    assert uuid.UUID(pier).version == 4
    assert added["embedding"]["texts"] == provider.texts - before == 2

    # What belongs to a file is not to be changed, nor anything that was named together with it.
    pointing = refused(site, "delete", "--id", pier, "--id", law.id, "--yes")
    assert "belongs to law.md - edit that file; nothing was changed" in pointing
    told(site, "update", "--id", pier, "--document", "A jetty.", "--metadata", '{"by": null, "for": "boats"}')

    rounds = len(daemon.events("folder.reconciled"))
    (site.folder / "law.md").write_text("海洋划界争端\n")
    (site.folder / "harbour.md").unlink()
    with served(site.port) as rows:
        eventually(lambda: not differences(site.folder, parted(rows())[0]), lambda: str(rows()))
        eventually(lambda: len(daemon.events("folder.reconciled")) > rounds + 2, daemon.log)
        _, by_hand = parted(rows())
    assert daemon.terminate() == 0
    assert not daemon.events("collection.corrected")
    assert {id_: (row.text, row.metadata) for id_, row in by_hand.items()} == {
        pier: ("A jetty.", {"for": "boats"}),
        anchor: ("An anchor.", {"by": "Ada"}),
    }
    assert by_hand[pier].embedding == pytest.approx(vector_of("A jetty.", DIMENSIONS).tolist(), abs=1e-5)

    # Nor does what is done when nothing runs: a lost ledger, a sync, a repair.
    for part in site.data_dir.glob("ledger.sqlite3*"):
        part.unlink()
    paid = provider.texts
    site.sync()
    mended = told(site, "verify", "--repair")
    assert (mended["is_sound"], mended["foreign_records"], provider.texts) == (True, 2, paid)
    owned, kept = parted(site.at_rest())
    assert not differences(site.folder, owned)
    assert {id_: (row.text, row.metadata) for id_, row in kept.items()} == {
        id_: (row.text, row.metadata) for id_, row in by_hand.items()
    }


def test_texts_come_from_options_files_and_standard_input_before_anything_was_indexed(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_bytes("合同于五月到期。\n".encode("gb18030"))
    written = done(site, "add", "--document", "One.", "--file", str(tmp_path / "note.txt"), "--id", "a", "--id", "b")
    assert written.out == "2 records written\n"
    page = told(site, "get", "--id", "b", "--include", "documents,embeddings")
    (record,) = page["records"]
    assert record["document"] == "合同于五月到期。"
    assert len(record["embedding"]) == DIMENSIONS
    assert "metadata" not in record
    assert "already: 'a'" in refused(site, "add", "--document", "Two.", "--id", "a")
    assert "standard input" in refused(site, "add", "--document", "-", "--file", "-")
    assert "this cannot be undone" in refused(site, "delete", "--id", "a")
    site.sync()
    assert told(site, "count")["count"] == 4
