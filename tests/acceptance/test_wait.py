"""`ingestor wait` ends when files are searchable as they are now, and says of the others why they are not."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.adapters.ledger import SqliteLedger
from ingestor.core.model import Change, Priority
from tests.daemon import Daemon, Finished, Site, provider_settings
from tests.embedding_server import EmbeddingServer, Fault, FaultKind

BINARY = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("wait"), provider_settings(server)) as site:
        (site.root / "ingestor.toml").write_text('[watch]\nexclude = ["drafts/"]\n', encoding="utf-8")
        for name in ("one.txt", "two.txt", "three.txt", "folder/four.txt", "folder/deep/five.txt", "drafts/no.txt"):
            file = site.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"The file {name} as it was at first.", encoding="utf-8")
        (site.folder / "link.txt").symlink_to("one.txt")
        yield site


@pytest.fixture(scope="module")
def daemon(site: Site) -> Daemon:
    return site.start("run").wait_ready()


def wait(site: Site, *paths: str | Path, code: int = 0, seconds: float = 60.0) -> Finished:
    done = site.command("wait", "--json", "--timeout-seconds", str(seconds), *map(str, paths))
    assert done.code == code, (done.out, done.err)
    return done


def states(done: Finished) -> dict[str, str]:
    return {each["path"]: each["state"] for each in done.json()["paths"]}


def is_found(site: Site, question: str, words: str) -> bool:
    return any(words in hit["document"] for hit in site.command("query", question, "--json").json())


# Before any daemon: the tests of this file run in their order.


def test_without_a_daemon_it_ends_soon_and_says_what_to_run(site: Site) -> None:
    done = wait(site, site.folder / "one.txt", code=4)
    assert "ingestor run" in done.err
    assert states(done) == {"one.txt": "waiting"}
    assert done.json()["is_attended"] is False
    assert not site.data_dir.exists()


@pytest.mark.usefixtures("daemon")
def test_a_file_that_was_just_written_is_found_when_the_wait_ends(site: Site) -> None:
    for number in range(2):
        text = f"Heron number {number} stands in the reeds."
        (site.folder / "one.txt").write_text(text, encoding="utf-8")
        assert states(wait(site, site.folder / "one.txt")) == {"one.txt": "searchable"}
        assert is_found(site, text, text)


@pytest.mark.usefixtures("daemon")
def test_a_folder_means_every_file_below_and_a_path_may_be_relative_to_the_watched_folder(site: Site) -> None:
    assert states(wait(site, "folder")) == {"folder/four.txt": "searchable", "folder/deep/five.txt": "searchable"}
    assert states(wait(site, site.folder)).keys() >= {"one.txt", "two.txt", "folder/deep/five.txt"}
    assert not {path for path in states(wait(site, site.folder)) if path.startswith("drafts")}
    plain = site.command("wait", "watched_dir")
    assert plain.code == 0
    assert plain.out.startswith("5 searchable; ")


@pytest.mark.usefixtures("daemon")
def test_a_file_that_is_gone_is_waited_for_until_its_records_are_gone(site: Site) -> None:
    file = site.folder / "two.txt"
    assert states(wait(site, file)) == {"two.txt": "searchable"}
    file.unlink()
    assert states(wait(site, file)) == {"two.txt": "gone"}
    records = site.command("get", "--source", "two.txt", "--json")
    assert "two.txt" not in records.out


@pytest.mark.usefixtures("daemon")
def test_a_problem_is_told_with_its_reason(site: Site) -> None:
    file = site.folder / "binary.txt"
    file.write_bytes(BINARY)
    done = wait(site, file, site.folder / "three.txt", code=3)
    assert states(done) == {"binary.txt": "problem", "three.txt": "searchable"}
    assert "binary" in done.json()["paths"][0]["reason"]
    assert "binary.txt" in done.err
    file.write_text("Mended.", encoding="utf-8")
    assert states(wait(site, file)) == {"binary.txt": "searchable"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("watched_dir/drafts/no.txt", "the pattern 'drafts/' of watch.exclude"),
        ("watched_dir/drafts", "the pattern 'drafts/' of watch.exclude"),
        ("watched_dir/.hidden", "the pattern '.*' that is built in"),
        ("watched_dir/link.txt", "watch.follow_symlinks is off"),
        ("ingestor.toml", "outside of the watched folder"),
        ("never-there.txt", "no file never-there.txt"),
        ("", "a path is empty"),
    ],
    ids=["excluded", "excluded-folder", "hidden", "link", "outside", "unknown", "empty"],
)
def test_a_path_that_never_will_be_searchable_is_refused_with_what_leaves_it_out(
    site: Site, path: str, words: str
) -> None:
    (site.folder / ".hidden").write_text("x", encoding="utf-8")
    done = wait(site, site.root / path if path.startswith("ing") else path, code=2)
    assert words in done.err
    assert not done.out


@pytest.mark.usefixtures("daemon")
def test_a_wait_that_takes_too_long_names_what_is_missing_and_why(site: Site, server: EmbeddingServer) -> None:
    server.inject(*[Fault(FaultKind.STATUS, status=503) for _ in range(50)])
    try:
        file = site.folder / "later.txt"
        file.write_text("A text that the provider does not take just now.", encoding="utf-8")
        done = wait(site, file, code=4, seconds=2)
        assert states(done) == {"later.txt": "waiting"}
        assert done.json()["is_attended"] is True
        assert "later.txt" in done.err
    finally:
        while server.next_fault() is not None:
            continue


def test_an_entry_that_is_equal_and_queued_all_the_same_is_waited_for(site: Site, daemon: Daemon) -> None:
    wait(site, site.folder / "three.txt")
    assert daemon.terminate() == 0
    with contextlib.closing(SqliteLedger(site.data_dir / "ledger.sqlite3")) as ledger:
        ledger.enqueue(["three.txt"], Change("", Priority.LIVE, time.time(), time.time()))
    assert states(wait(site, site.folder / "three.txt", code=4)) == {"three.txt": "waiting"}
    (site.folder / "one.txt").touch()
    assert states(wait(site, site.folder / "one.txt", code=4)) == {"one.txt": "waiting"}
    site.sync()
    everything = states(wait(site, site.folder))
    assert set(everything.values()) == {"searchable"}


def test_a_file_that_takes_the_place_of_another_with_its_size_and_time_is_waited_for(site: Site) -> None:
    file = site.folder / "three.txt"
    before = file.stat()
    file.write_text(file.read_text("utf-8").replace("first", "FIRST"), encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert states(wait(site, file, code=4)) == {"three.txt": "waiting"}


def test_a_file_that_is_gone_while_it_is_queued_is_waited_for_with_its_folder(site: Site) -> None:
    site.sync()
    with contextlib.closing(SqliteLedger(site.data_dir / "ledger.sqlite3")) as ledger:
        ledger.enqueue(["folder/brief.txt"], Change("", Priority.LIVE, time.time(), time.time()))
    found = states(wait(site, site.folder / "folder", code=4))
    assert found == {
        "folder/four.txt": "searchable",
        "folder/deep/five.txt": "searchable",
        "folder/brief.txt": "waiting",
    }
    site.sync()
    assert set(states(wait(site, site.folder / "folder")).values()) == {"searchable"}


def test_a_daemon_that_begins_just_now_is_waited_for(site: Site) -> None:
    (site.folder / "fresh.txt").write_text("Written while nobody was at work.", encoding="utf-8")
    daemon = site.start("run")
    assert states(wait(site, site.folder / "fresh.txt")) == {"fresh.txt": "searchable"}
    assert daemon.terminate() == 0
