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


OLD = {f"old_{number:03}.txt" for number in range(130)}
NEW = {f"new_{number:03}.txt" for number in range(130)}


def written(site: Site, names: set[str]) -> None:
    for name in names:
        (site.folder / name).write_text(f"This is {name}.\n", encoding="utf-8")


@pytest.fixture
def replaced(tmp_path: Path) -> Iterator[Site]:
    """Where 130 files were indexed, and 130 others have taken their place while nothing ran."""
    with EmbeddingServer(dimensions=64) as server, Site(tmp_path, provider_settings(server)) as made:
        written(made, OLD)
        made.sync()
        empty(made)
        written(made, NEW)
        yield made


def test_what_is_held_back_stays_whatever_is_added_and_run_until_just_that_is_approved(replaced: Site) -> None:
    site = replaced
    for _ in range(2):
        held = site.command("sync", "--json")
        assert (held.code, held.json()["held_deletions"], held.json()["documents"]["deleted"]) == (3, 130, 0)
        assert "ingestor approve" in held.err
        assert document_ids(site.at_rest()).keys() == OLD | NEW
    assert site.command("retry").code == 0
    for options in ((), ("--repair",)):
        verified = site.command("verify", *options)
        assert verified.code == 3
        assert "130 deletions are held back until `ingestor approve`" in verified.out
        assert "--repair" not in verified.out, "which does not mend what is held"
    told = site.command("status", "--json").json()
    assert (told["held_deletions"], told["held_examples"]) == (130, sorted(OLD)[:3])
    assert "130 deletions" in site.command("status").out
    assert "held back" in site.command("plan").out
    daemon = site.start("run").wait_ready()
    assert site.command("retry").code == 0
    (site.folder / "new_000.txt").unlink()
    with site.reading() as reading:
        eventually(lambda: document_ids(reading.rows()).keys() == OLD | NEW - {"new_000.txt"}, daemon.log)
    assert daemon.terminate() == 0

    listed = site.command("approve", "--list")
    assert (listed.code, set(listed.out.split())) == (0, OLD)
    assert [each["path"] for each in site.command("approve", "--list", "--json").json()] == sorted(OLD)
    approved = site.command("approve").out
    assert approved.startswith("130 deletions approved; the next `ingestor sync`")
    assert "old_000.txt\nold_001.txt\nold_002.txt\nand 127 more" in approved
    assert site.command("approve").out == "nothing is held back\n"
    for name in NEW:
        (site.folder / name).unlink(missing_ok=True)
    held = site.command("sync", "--json")
    assert (held.code, held.json()["held_deletions"]) == (3, 129)
    assert document_ids(site.at_rest()).keys() == NEW - {"new_000.txt"}


def test_what_came_back_or_was_renamed_is_held_back_no_more_and_the_rest_stays(replaced: Site) -> None:
    site = replaced
    site.sync(code=3)
    back, rest = set(sorted(OLD)[:100]), set(sorted(OLD)[100:])
    written(site, back)
    assert site.sync(code=3)["held_deletions"] == 30
    (site.folder / "renamed.txt").write_text(f"This is {min(rest)}.\n", encoding="utf-8")
    assert site.sync(code=3)["held_deletions"] == 29
    assert document_ids(site.at_rest()).keys() == back | (rest - {min(rest)}) | NEW | {"renamed.txt"}
    written(site, rest)
    assert site.sync()["held_deletions"] == 0


def test_a_rebuild_keeps_what_is_held_back_and_does_not_switch_until_it_is_approved(replaced: Site) -> None:
    site = replaced
    site.sync(code=3)
    site.settings["INGESTOR_EMBEDDING__DIMENSIONS"] = "32"
    rebuilt = site.command("rebuild", "--yes")
    assert rebuilt.code == 3, (rebuilt.out, rebuilt.err)
    assert "130 deletions wait for `ingestor approve`" in rebuilt.out + rebuilt.err
    assert site.command("approve", "--json").json() == {"approved": 130}
    rebuilt = site.command("rebuild", "--yes")
    assert rebuilt.code == 0, (rebuilt.out, rebuilt.err)
    assert document_ids(site.at_rest()).keys() == NEW
