"""How a daemon is started and ended: with streams closed, beside a terminal, on folders of its own, by every signal."""

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import COMMAND, Daemon, Finished, Site, eventually, free_port, lives, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

ENDED_SECONDS = 5.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with EmbeddingServer() as server, Site(tmp_path, provider_settings(server)) as site:
        write(site, "first")
        yield site


def write(site: Site, name: str) -> None:
    (site.folder / f"{name}.txt").write_text(f"The {name} file.", encoding="utf-8")


def started(site: Site, script: str, log: Path, **streams: int) -> Daemon:
    """A daemon that a shell starts in its own place, with the redirections of `script`."""
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", COMMAND],
        cwd=site.root,
        env=site.environment(),
        stdin=given["stdin"],
        stdout=given["stdout"],
        stderr=given["stderr"],
    )
    daemon = Daemon(process, log)
    site._running.append(daemon)
    return daemon


def assert_follows(site: Site, name: str) -> None:
    """What is written now is found, and the ledger says so."""
    write(site, name)
    with site.reading() as collection:
        collection.wait_equal()


def reachable(site: Site, daemon: Daemon) -> None:
    def is_equal() -> bool:
        assert daemon.process.poll() is None, f"ended with {daemon.process.returncode}"
        return site.command("wait", "watched_dir", "--timeout-seconds", "20").code == 0

    eventually(is_equal, lambda: "nothing is indexed")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_nobody_and_no_file_gets_their_numbers(site: Site, closed: str) -> None:
    daemon = started(site, f'exec "$1" run {closed}', site.root / "none")
    reachable(site, daemon)
    for number in range(3):
        opened = Path(f"/proc/{daemon.pid}/fd/{number}").readlink()
        assert str(opened) == "/dev/null", "whatever prints would write into it"
    assert_follows(site, "second")
    assert daemon.terminate() == 0

    done = subprocess.run(
        ["sh", "-c", f'exec "$1" sync {closed}', "sh", COMMAND], cwd=site.root, env=site.environment(), check=False
    )
    assert done.returncode == 0


def test_a_log_that_cannot_be_written_ends_nobody(site: Site) -> None:
    with Path("/dev/full").open("wb") as full:
        daemon = started(site, 'exec "$1" run', site.root / "none", stderr=full.fileno())
    reachable(site, daemon)
    assert_follows(site, "second")
    assert daemon.terminate() == 0


def test_a_closed_terminal_ends_a_daemon_in_order(site: Site) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(site.root)
        os.execve(COMMAND, [str(COMMAND), "run"], site.environment())  # noqa: S606 - the command itself, on our terminal
    eventually(lambda: site.servers() and site.command("wait", "watched_dir").code == 0, lambda: "not ready")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not site.servers()


def test_sighup_is_sigterm_but_for_who_was_told_to_ignore_it(site: Site) -> None:
    daemon = site.start("run").wait_ready()
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.process.wait(60) == 0
    assert daemon.events("daemon.stopped")
    assert not site.servers()

    kept = started(site, 'trap "" HUP; exec "$1" run', site.root / "none")
    reachable(site, kept)
    kept.process.send_signal(signal.SIGHUP)
    assert_follows(site, "second")
    assert kept.terminate() == 0


def test_a_daemon_that_is_killed_takes_its_server_with_it_and_the_next_one_starts(site: Site) -> None:
    daemon = site.start("run").wait_ready()
    (server,) = site.servers()
    daemon.kill()
    eventually(lambda: not lives(server), lambda: "the server outlived its daemon", ENDED_SECONDS)
    second = site.start("run").wait_ready()
    assert_follows(site, "second")
    assert second.terminate() == 0


def refused(site: Site, **settings: str) -> list[Finished]:
    return [site.command(*command, **settings) for command in (("run",), ("sync",), ("plan",))]


def test_a_watched_folder_that_is_the_data_folder_is_refused(site: Site) -> None:
    link = site.root / "link"
    link.symlink_to(site.folder)
    for name in ("watched_dir", "link", "watched_dir/../watched_dir"):
        for done in refused(site, INGESTOR_DATA_DIR=name):
            assert done.code == 2
            assert "is the data folder, where ingestor keeps its own files" in done.err
    assert [file.name for file in site.folder.iterdir()] == ["first.txt"]


def test_a_watched_folder_in_chromas_folder_is_refused(site: Site) -> None:
    site.sync()
    (site.chroma_path / "texts").mkdir()
    for watched in (site.chroma_path, site.chroma_path / "texts"):
        for done in refused(site, INGESTOR_WATCH_DIR=str(watched)):
            assert done.code == 2
            assert "lies in Chroma's folder" in done.err


def test_folders_of_ours_inside_the_watched_one_are_left_out_and_texts_inside_the_data_folder_are_not(
    site: Site,
) -> None:
    site.settings |= {"INGESTOR_DATA_DIR": str(site.folder / "ours"), "INGESTOR_CHROMA__PATH": str(site.folder / "db")}
    daemon = site.start("run").wait_ready()
    time.sleep(2.0)  # its own writes would be seen by now
    assert {event["path"] for event in daemon.events("document.synced")} == {"first.txt"}
    assert not daemon.events("document.problem")
    assert daemon.terminate() == 0

    inside = site.root / "data"
    (inside / "texts").mkdir(parents=True)
    (inside / "texts" / "kept.txt").write_text("A text in the data folder.", encoding="utf-8")
    with EmbeddingServer() as server:
        site.settings = provider_settings(server)
        done = site.command(
            "sync",
            "--json",
            INGESTOR_DATA_DIR=str(inside),
            INGESTOR_WATCH_DIR=str(inside / "texts"),
            INGESTOR_CHROMA__PORT=str(free_port()),
        )
    assert done.json()["documents"]["added"] == 1
