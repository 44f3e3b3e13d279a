"""Files that change while they are in work, under a real daemon: none that is gone stays, and nobody says otherwise."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.checker import Row, differences, shown
from tests.daemon import Daemon, Reading, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

FILES = 500
CALL_SECONDS = 0.4
PASSING = "the word of the day is sparrow"
FOUND_NO_MORE_SECONDS = 5.0


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(latency_seconds=CALL_SECONDS, max_inputs=10) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    # One call after the other: the first ingest takes as long as it takes a real model.
    with Site(tmp_path, provider_settings(server, EMBEDDING__MAX_CONCURRENCY=2)) as site:
        yield site


def write(folder: Path, name: str, text: str = "") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text or f"What {name} says is said by no other file.\n", encoding="utf-8")
    return file


def at_rest(site: Site, daemon: Daemon, reading: Reading, *, seconds: float = 120.0) -> Sequence[Row]:
    """The collection as it is when the daemon says for the first time that it is in step."""
    rows: list[Row] = []

    def is_in_step() -> bool:
        assert daemon.process.poll() is None, daemon.log()[-3_000:]
        return "in step: the collection equals the folder" in site.command("status").out

    eventually(is_in_step, lambda: site.command("status").out, seconds)
    rows[:] = reading.rows()
    return rows


def test_a_hundred_of_five_hundred_that_go_during_the_first_ingest_are_gone_when_it_ends(
    site: Site, server: EmbeddingServer
) -> None:
    """Deleted, renamed, replaced by a folder or by a link, edited and left out: in step means equal."""
    for number in range(FILES):
        write(site.folder, f"part-{number // 100}/{number:03}.md")
    daemon = site.start("run").wait_ready()
    eventually(lambda: server.counters.texts >= FILES // 5, lambda: daemon.log()[-2_000:])
    part = site.folder / "part-4"
    for number in range(400, 430):
        (part / f"{number}.md").unlink()
    for number in range(430, 450):
        (part / f"{number}.md").rename(part / f"{number}-renamed.md")
    for number in range(450, 460):
        (part / f"{number}.md").unlink()
        write(part, f"{number}.md/inside.md")
    for number in range(460, 470):
        (part / f"{number}.md").unlink()
        (part / f"{number}.md").symlink_to("400.md")
    for number in range(470, 480):
        write(part, f"{number}.md", f"What {number} says now is something else.\n")
    (part / ".ingestorignore").write_text("48*.md\n", encoding="utf-8")
    shutil.rmtree(site.folder / "part-3")
    with site.reading() as reading:
        rows = at_rest(site, daemon, reading)
        left_out = {f"part-4/{number}.md" for number in range(480, 490)}
        found = differences(site.folder, rows, wanted=lambda path: path not in left_out and path.endswith(".md"))
        assert not found, shown(found)
    assert site.command("problems", "--json").json() == []
    assert server.counters.repeated_texts == 0, "nothing is paid for twice"
    assert daemon.terminate() == 0


def test_a_file_that_goes_within_its_embedding_call_is_never_found(site: Site, server: EmbeddingServer) -> None:
    write(site.folder, "else.md")
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        at_rest(site, daemon, reading)
        calls = server.counters.requests
        secret = write(site.folder, "s.txt", f"{PASSING}\n")
        eventually(lambda: server.counters.requests > calls, lambda: daemon.log()[-2_000:])
        secret.unlink()
        until_seconds = time.monotonic() + 3 * CALL_SECONDS
        while time.monotonic() < until_seconds:
            assert not [row.text for row in reading.rows() if PASSING in row.text]
        rows = at_rest(site, daemon, reading)
        assert {row.source for row in rows} == {"else.md"}
    assert daemon.terminate() == 0


def test_what_is_deleted_is_found_no_more_however_many_files_wait_for_the_model(
    site: Site, server: EmbeddingServer
) -> None:
    for number in range(40):
        write(site.folder, f"old-{number}.md")
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        at_rest(site, daemon, reading)
        for number in range(1_500):
            write(site.folder, f"new/{number}.md")
        eventually(lambda: server.counters.texts >= 80, lambda: daemon.log()[-2_000:])
        for number in range(40):
            (site.folder / f"old-{number}.md").unlink()
        began_seconds = time.monotonic()
        eventually(
            lambda: not [row.source for row in reading.rows() if row.source.startswith("old-")],
            lambda: site.command("status").out,
        )
        took_seconds = time.monotonic() - began_seconds
    assert server.counters.texts < 1_500, "the others are still on their way"
    # What it takes in fact is a second; the bound is that of the promise, on a machine that has other work to do.
    assert took_seconds < FOUND_NO_MORE_SECONDS + 2 * CALL_SECONDS
    daemon.kill()
