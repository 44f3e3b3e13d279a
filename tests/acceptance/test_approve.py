"""A folder that is suddenly empty: nothing is deleted until somebody says so."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checker import document_ids
from tests.daemon import Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

NAMES = {"one.txt", "two.txt", "three.txt"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with EmbeddingServer(dimensions=64) as server, Site(tmp_path, provider_settings(server)) as made:
        for name in NAMES:
            (made.folder / name).write_text(f"This is {name}.\n", encoding="utf-8")
        made.sync()
        yield made


def empty(site: Site) -> None:
    shutil.rmtree(site.folder)
    site.folder.mkdir()


def test_a_sync_of_an_empty_folder_waits_for_approval(site: Site) -> None:
    empty(site)
    held = site.command("sync", "--json")
    assert held.code == 3
    assert held.json()["held_deletions"] == 3
    assert "ingestor approve" in held.err
    assert document_ids(site.at_rest()).keys() == NAMES
    assert site.command("status", "--json").json()["held_deletions"] == 3

    assert site.command("approve", "--json").json() == {"approved": 3}
    assert site.sync()["documents"]["deleted"] == 3
    assert site.at_rest() == []
    assert site.command("approve").out == "nothing is held back\n"


def test_a_daemon_carries_out_what_was_approved(site: Site) -> None:
    empty(site)
    daemon = site.start("run").wait_ready()
    eventually(lambda: site.command("status", "--json").json()["held_deletions"] == 3, daemon.log)
    (site.folder / "new.txt").write_text("Everything else goes on.\n", encoding="utf-8")
    with site.reading() as reading:
        eventually(lambda: document_ids(reading.rows()).keys() == {*NAMES, "new.txt"}, daemon.log)
        assert site.command("approve").code == 0
        reading.wait_equal()
    assert daemon.terminate() == 0
