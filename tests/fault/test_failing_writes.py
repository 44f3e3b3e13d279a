"""The n-th write of each file fails, once or from then on, with ENOSPC and with EIO: the same process heals all.

The oracle knows nothing of what failed: the daemon lives, the collection equals the folder, and no text was paid for
twice. `FAILING_WRITES_MOST=200 pytest tests/fault/test_failing_writes.py` tries every n up to that.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, Site, converged, eventually, provider_settings
from tests.embedding_server import EmbeddingServer
from tests.failing_writes import FailingWrites, failing_library, failing_writes

__all__ = ["failing_library"]
pytestmark = pytest.mark.slow

DIMENSIONS = 64
OUTAGE_SECONDS = 2.5
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
MOST = int(os.environ.get("FAILING_WRITES_MOST", "0"))
EVERY = [(nth, lasts) for nth in range(1, MOST + 1) for lasts in (False, True)]
AT_WORK = EVERY or [(1, False), (2, False), (3, True), (5, False), (8, True), (13, False)]
AT_CHROMA = EVERY or AT_WORK[:3]
"""Which write fails, and whether all that follow fail, too. What Chroma fails at is tried again after five seconds."""
STARTS = [(nth, error) for nth in range(1, MOST + 1) for error in ERRORS] or [
    (1, "ENOSPC"),
    (1, "EIO"),
    (2, "ENOSPC"),
    (3, "EIO"),
]
OURS = ["ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm", "vectors.sqlite3", "vectors.sqlite3-wal"]
CHROMAS = ["chroma.sqlite3", "chroma.sqlite3-wal", "*.bin"]
STATES = ["instance.*", "chroma_server.*", "*.lock"]


class Watched:
    """A daemon whose writes fail when they are told to, and a folder that changes under it."""

    def __init__(self, site: Site, server: EmbeddingServer, writes: FailingWrites) -> None:
        self.site = site
        self.server = server
        self.writes = writes
        self.daemon: Daemon | None = None
        self.rounds = 0
        self.texts = 0

    def start(self) -> Daemon:
        self.daemon = self.site.start("run")
        return self.daemon

    def change(self) -> None:
        """A file comes, one is edited, one goes."""
        self.rounds += 1
        for name in (f"new{self.rounds}.txt", "edited.txt"):
            (self.site.folder / name).write_text(f"Round {self.rounds} says of {name} what it says.", encoding="utf-8")
        self.texts += 2
        (self.site.folder / f"new{self.rounds - 1}.txt").unlink(missing_ok=True)

    def assert_equal(self, told: str) -> None:
        assert self.daemon is not None
        converged(self.site, self.daemon, DIMENSIONS, seconds=120.0)
        assert self.daemon.process.poll() is None, f"{told}: it ended\n{self.daemon.log()[-3_000:]}"
        assert "Traceback" not in self.daemon.log(), f"{told}: {self.daemon.log()[-5_000:]}"
        assert self.server.counters.repeated_texts == 0, f"{told}: a text was paid for twice"
        assert self.server.texts <= self.texts, told

    def live_through(self, name: str, nth: int, error: str, *, lasts: bool) -> bool:
        """Change the folder while a write fails; whether there were so many writes."""
        told = f"write {nth} of {name}, {error}{', and all that follow' if lasts else ''}"
        self.writes.fail(name, nth, ERRORS[error], lasts=lasts)
        self.change()
        if lasts:
            with contextlib.suppress(pytest.fail.Exception):
                eventually(lambda: self.writes.failed, lambda: "nothing is written", 5.0)
            time.sleep(OUTAGE_SECONDS)
            self.writes.heal()
        self.assert_equal(told)
        self.writes.heal()
        return self.writes.failed > 0


@pytest.fixture
def watched(tmp_path: Path, failing_library: Path) -> Iterator[Watched]:
    with (
        EmbeddingServer(dimensions=DIMENSIONS) as server,
        failing_writes(failing_library, tmp_path) as writes,
        Site(tmp_path, provider_settings(server, CHROMA__TIMEOUT_SECONDS=5) | writes.environment) as site,
    ):
        yield Watched(site, server, writes)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", [*OURS, *CHROMAS])
def test_a_daemon_at_work_heals_whichever_write_fails(watched: Watched, name: str, error: str) -> None:
    watched.change()
    watched.start().wait_ready()
    watched.assert_equal("nothing failed")
    failed = 0
    for nth, lasts in AT_CHROMA if name in CHROMAS else AT_WORK:
        if not watched.live_through(name, nth, error, lasts=lasts):
            break
        failed += 1
    # The others are written when they are made, or when a log has grown long.
    assert failed or not name.endswith("-wal"), "nothing was tried: the file has another name by now"
    assert watched.daemon is not None
    assert watched.daemon.terminate() == 0
    assert watched.server.texts == watched.texts


@pytest.mark.parametrize("name", [*OURS, *CHROMAS[:2], *STATES])
def test_a_daemon_that_comes_up_heals_whichever_write_fails(watched: Watched, name: str) -> None:
    failed = 0
    for nth, error in STARTS:
        # From nothing: also what makes the files is written.
        shutil.rmtree(watched.site.data_dir, ignore_errors=True)
        for file in watched.site.folder.iterdir():
            file.unlink()
        watched.change()
        watched.writes.fail(name, nth, ERRORS[error], lasts=False)
        daemon = watched.start().wait_ready()
        watched.assert_equal(f"write {nth} of {name} at the start, {error}")
        failed += watched.writes.failed
        watched.writes.heal()
        assert daemon.terminate() == 0
        assert watched.server.texts == watched.texts
    assert failed, "nothing was tried: the file has another name by now"
