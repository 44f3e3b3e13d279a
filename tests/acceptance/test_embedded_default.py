"""What a first user meets: the installed command, no settings, the embedded model, the samples."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checker import Row, belongs, document_ids, fingerprint
from tests.daemon import Site, assert_equal, eventually, lives

SAMPLES = Path(__file__).parents[2] / "watched_dir"
DISPUTES = {"新闻/海洋划界仲裁.md", "新闻/停火谈判.txt", "trade-dispute.md"}
OTHERS = {"cup-final.txt", "orbital-telescope.md", "新闻/城市马拉松.txt", "新闻/月球背面.md"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, {}) as site:
        shutil.copytree(SAMPLES, site.folder, dirs_exist_ok=True)
        yield site


def ranks(site: Site, question: str) -> dict[str, int]:
    """Best rank of every source, from 1."""
    done = site.command("query", question, "--json", "--limit", "50")
    assert done.code == 0, done.err
    best: dict[str, int] = {}
    for rank, hit in enumerate(done.json(), 1):
        best.setdefault(hit["source"], rank)
    return best


def assert_disputes_first(found: dict[str, int]) -> None:
    assert found.keys() >= DISPUTES | OTHERS
    assert max(found[source] for source in DISPUTES) < min(found[source] for source in OTHERS), found


def records_of(rows: list[Row], source: str) -> set[str]:
    return {row.id for row in rows if row.source == source}


def test_the_samples_are_found_by_meaning_and_the_folder_is_followed_until_sigterm(site: Site) -> None:
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        first = collection.wait_equal()
        assert set(document_ids(first)) == {f for f in DISPUTES | OTHERS | {"README.md"} if belongs(f)}
        assert_disputes_first(ranks(site, "国际争端"))
        assert_disputes_first(ranks(site, "disputes between countries"))

        # Dropped in.
        ferry = site.folder / "渡轮停航.txt"
        ferry.write_text("台风来临，海峡渡轮全部停航，旅客改乘火车。\n", encoding="utf-8")
        collection.wait_equal()
        assert ranks(site, "渡轮为什么停航")["渡轮停航.txt"] == 1

        # Edited.
        cup = site.folder / "cup-final.txt"
        cup.write_text(cup.read_text(encoding="utf-8") + "\nThe trophy left on the night train.\n", encoding="utf-8")
        edited = collection.wait_equal()
        assert document_ids(edited)["cup-final.txt"] == document_ids(first)["cup-final.txt"]

        # Renamed: the document stays itself, and so do its records.
        cup.rename(site.folder / "新闻" / "final.txt")
        renamed = collection.wait_equal()
        assert document_ids(renamed)["新闻/final.txt"] == document_ids(edited)["cup-final.txt"]
        assert records_of(renamed, "新闻/final.txt") == records_of(edited, "cup-final.txt")

        # Moved out, and deleted.
        ferry.rename(site.root / "elsewhere.txt")
        assert "渡轮停航.txt" not in document_ids(collection.wait_equal())
        (site.folder / "README.md").unlink()
        last = collection.wait_equal()
        assert "README.md" not in document_ids(last)

    status = json.loads(site.command("status", "--json").out)
    assert status["daemon"]["pid"] == daemon.pid
    assert status["documents"] == len(document_ids(last))
    assert status["chunks"] == len(last)
    assert (status["queued"], status["in_flight"], status["problems"]) == (0, 0, 0)
    assert status["watching"] == "inotify"
    assert status["chroma"] == f"http://127.0.0.1:{site.port}"

    # One instance a data folder.
    for command in ("run", "sync"):
        second = site.command(command)
        assert second.code == 5, second.err
        (line,) = second.err.splitlines()
        assert line.startswith("error: ")
        assert str(daemon.pid) in line

    (server,) = site.servers()
    assert daemon.terminate() == 0, daemon.log()
    assert not lives(server)
    assert not site.servers()
    assert "Traceback" not in daemon.log()
    assert not daemon.events("watch.restarting")
    assert_equal(site.folder, site.at_rest())
    assert json.loads(site.command("status", "--json").out)["daemon"] is None


def test_after_a_sync_another_one_writes_nothing_and_query_needs_no_daemon(site: Site) -> None:
    first = site.sync()
    assert first["documents"]["added"] == 8
    assert first["embedding"]["texts"] == first["chunks"]["embedded"] > 0
    before = site.at_rest()
    assert_equal(site.folder, before)

    second = site.sync()

    assert second["documents"] == {**first["documents"], "added": 0, "unchanged": 8}
    assert set(second["chunks"].values()) == {0}
    assert set(second["embedding"].values()) == {0}
    assert fingerprint(site.at_rest()) == fingerprint(before)
    assert_disputes_first(ranks(site, "国际争端"))
    assert not site.servers()


def test_what_changed_while_nothing_ran_is_found_at_the_next_start(site: Site) -> None:
    site.sync()
    before = site.at_rest()
    (site.folder / "cup-final.txt").rename(site.folder / "final.txt")
    (site.folder / "README.md").unlink()
    shutil.copy2(site.folder / "trade-dispute.md", site.folder / "copy.md")
    os.utime(site.folder / "orbital-telescope.md")

    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        after = collection.wait_equal()

    assert document_ids(after)["final.txt"] == document_ids(before)["cup-final.txt"]
    eventually(
        lambda: len(daemon.events("document.synced")) == 4, lambda: f"unexpected: {daemon.events('document.synced')}"
    )
    assert sum(event["embedded"] for event in daemon.events("document.synced")) == 0
    assert daemon.terminate() == 0
