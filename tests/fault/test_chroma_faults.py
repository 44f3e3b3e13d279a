"""Chroma that hangs, dies, is away, or loses the collection, under a daemon that runs.

Invariant of every test: the collection equals the folder in the end, and no text was paid for twice.
"""

import contextlib
import itertools
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.adapters import chroma_server
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.core.chunking import Cutter
from ingestor.core.errors import ServiceUnavailable
from tests.checker import COLLECTION, client_of, expected_texts
from tests.daemon import Daemon, Site, assert_equal, converged, eventually, free_port, lives, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

CONCURRENCY = 2
BATCH_INPUTS = 8
DIMENSIONS = 64
ANSWER_SECONDS = "2"
"""After how long the daemon gives a call of Chroma up."""


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, latency_seconds=0.1) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, provider: EmbeddingServer) -> Iterator[Site]:
    settings = provider_settings(
        provider,
        EMBEDDING__MAX_CONCURRENCY=CONCURRENCY,
        EMBEDDING__MAX_BATCH_INPUTS=BATCH_INPUTS,
        CHROMA__TIMEOUT_SECONDS=ANSWER_SECONDS,
    )
    with Site(tmp_path, settings) as made:
        drop(made, "first", 10)
        yield made


@pytest.fixture
def elsewhere(site: Site, tmp_path: Path) -> Iterator[ChromaServer]:
    """A server that is not the daemon's; not started."""
    site.settings |= {"INGESTOR_CHROMA__MODE": "http", "INGESTOR_CHROMA__HOST": "127.0.0.1"}
    server = ChromaServer(tmp_path / "elsewhere", site.port)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid_of(server), signal.SIGCONT)
        server.stop()


def drop(site: Site, name: str, count: int) -> None:
    """Put files with texts of their own into the folder, one chunk each."""
    for number in range(count):
        file = site.folder / f"{name}-{number}.txt"
        file.write_text(f"The {name} file with the number {number} tells of {name}.\n", encoding="utf-8")


def drop_then(site: Site, name: str, provider: EmbeddingServer, strike: Callable[[], None]) -> None:
    """Drop files, and strike when a part of them has been embedded: the rest is on its way, or being written."""
    before = provider.texts
    drop(site, name, 12 * BATCH_INPUTS)
    eventually(lambda: provider.texts >= before + 4 * BATCH_INPUTS, lambda: f"only {provider.texts - before} embedded")
    strike()


def pid_of(server: ChromaServer) -> int:
    assert server.pid is not None
    return server.pid


def wait_for_event(daemon: Daemon, name: str, count: int = 1) -> None:
    eventually(
        lambda: daemon.process.poll() is not None or len(daemon.events(name)) >= count,
        lambda: f"not {count} times {name}:\n{daemon.log()[-3_000:]}",
    )


def texts_of(site: Site) -> int:
    return sum(len(texts) for texts in expected_texts(site.folder, Cutter()).values())


def assert_paid_once(provider: EmbeddingServer, texts: int) -> None:
    """Every text was sent in exactly one request, so that there are no more requests than texts either."""
    told = provider.snapshot()
    assert (told["texts"], told["repeated_texts"], told["requests"]) == (texts, 0, told["calls"])


def test_a_managed_server_that_hangs_for_a_while_dies_in_mid_write_and_hangs_for_good(
    site: Site, provider: EmbeddingServer
) -> None:
    daemon = site.start("run").wait_ready()
    converged(site, daemon, DIMENSIONS)
    (first,) = site.servers()

    os.kill(first, signal.SIGSTOP)
    drop(site, "while-it-hangs", 5)
    wait_for_event(daemon, "service.away")
    os.kill(first, signal.SIGCONT)
    converged(site, daemon, DIMENSIONS)

    drop_then(site, "in-mid-write", provider, lambda: os.kill(site.servers()[0], signal.SIGKILL))
    converged(site, daemon, DIMENSIONS)
    (second,) = site.servers()
    assert second != first
    assert "died (code -9)" in daemon.events("chroma.restarted")[-1]["reason"]

    os.kill(second, signal.SIGSTOP)
    drop(site, "while-it-hangs-for-good", 5)
    (site.folder / "first-0.txt").write_text("This one was edited meanwhile.\n", encoding="utf-8")
    (site.folder / "first-1.txt").unlink()
    (site.folder / "first-2.txt").rename(site.folder / "renamed.txt")
    eventually(lambda: not lives(second), lambda: f"the hung server was left alone:\n{daemon.log()[-3_000:]}")
    converged(site, daemon, DIMENSIONS)
    (third,) = site.servers()
    assert "heartbeats unanswered" in daemon.events("chroma.restarted")[-1]["reason"]

    os.kill(third, signal.SIGSTOP)
    assert daemon.terminate() == 0
    assert not site.servers(), "a server that hangs outlived its daemon"
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    assert_paid_once(provider, texts_of(site) + 2)  # the text that was edited, and the one that was deleted


def test_a_server_elsewhere_that_is_down_at_the_start_dies_in_mid_write_and_hangs(
    site: Site, provider: EmbeddingServer, elsewhere: ChromaServer
) -> None:
    daemon = site.start("run")
    wait_for_event(daemon, "chroma.unreachable")
    told = site.command("status", "--json")
    assert told.code == 0, told.err
    assert told.json()["daemon"]["pid"] == daemon.pid
    assert provider.requests == 0, "nothing is paid for before it can be written"
    elsewhere.start()
    daemon.wait_ready()
    converged(site, daemon, DIMENSIONS)

    drop_then(site, "in-mid-write", provider, lambda: os.kill(pid_of(elsewhere), signal.SIGKILL))
    wait_for_event(daemon, "service.away")
    assert elsewhere.ensure()
    converged(site, daemon, DIMENSIONS)

    told_before = len(daemon.events("service.away"))
    os.kill(pid_of(elsewhere), signal.SIGSTOP)
    drop(site, "while-it-hangs", 5)
    wait_for_event(daemon, "service.away", told_before + 1)
    os.kill(pid_of(elsewhere), signal.SIGCONT)
    rows = converged(site, daemon, DIMENSIONS)

    assert len(rows) == texts_of(site)
    assert_paid_once(provider, texts_of(site))
    assert daemon.terminate() == 0


def wait_until_lost(daemon: Daemon) -> None:
    """Wait until the daemon has ended because the collection is another's, with a line that says so."""
    assert daemon.process.wait(60) == 4
    *_, line = daemon.log().splitlines()
    assert line.startswith("error: the collection")
    assert "by somebody else" in line
    assert "without an embedding call" in line
    assert "Traceback" not in daemon.log()


def test_a_collection_that_somebody_deletes_or_renames_is_filled_again_for_nothing(
    site: Site, provider: EmbeddingServer, elsewhere: ChromaServer
) -> None:
    elsewhere.start()
    first = site.start("run").wait_ready()
    converged(site, first, DIMENSIONS)
    with client_of(site.port) as client:
        client.delete_collection(COLLECTION)
    drop(site, "after-the-deletion", 1)
    wait_until_lost(first)
    site.settings["INGESTOR_WATCH__RESCAN_SECONDS"] = "1"
    second = site.start("run").wait_ready()
    rows = converged(site, second, DIMENSIONS)
    assert_paid_once(provider, texts_of(site))

    # An idle daemon notices it, too: it writes to the renamed collection otherwise, which it knows by its id.
    with client_of(site.port) as client:
        client.get_collection(COLLECTION, embedding_function=None).modify(name="taken-away")
    wait_until_lost(second)
    (site.folder / "first-1.txt").unlink()
    third = site.start("run").wait_ready()
    converged(site, third, DIMENSIONS)
    with client_of(site.port) as client:
        assert client.get_collection("taken-away", embedding_function=None).count() == len(rows)
    assert_paid_once(provider, texts_of(site) + 1)
    assert third.terminate() == 0


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChromaServer]:
    """A server whose heartbeat is waited for a moment only."""
    monkeypatch.setattr(chroma_server, "_HEARTBEAT_TIMEOUT_SECONDS", 0.2)
    server = ChromaServer(tmp_path / "chroma", free_port())
    try:
        yield server
    finally:
        server.stop()


def test_a_server_is_restarted_only_when_it_owes_heartbeat_after_heartbeat(
    supervised: ChromaServer,
) -> None:
    supervised.start()
    pid = pid_of(supervised)
    os.kill(pid, signal.SIGSTOP)
    assert [supervised.ensure() for _ in range(4)] == [False] * 4
    os.kill(pid, signal.SIGCONT)
    eventually(supervised._answers, lambda: "it does not answer any more")
    assert not supervised.ensure()

    os.kill(pid, signal.SIGSTOP)
    assert [supervised.ensure() for _ in range(5)] == [False] * 4 + [True]

    assert not lives(pid)
    assert not supervised.ensure()


def test_a_server_whose_database_is_stuck_is_one_that_hangs(
    supervised: ChromaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a write-ahead log, reading goes on whoever is stuck writing.
    monkeypatch.setattr(chroma_server, "write_ahead", lambda _: False)
    supervised.start()
    # As after a full disk, when a lock is held that nobody lets go of.
    lock = sqlite3.connect(supervised.path / "chroma.sqlite3", isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        assert supervised._answers(chroma_server._READY)
        faults = [supervised._fault() for _ in range(5)]
    finally:
        lock.close()
    assert faults[:4] == [None] * 4
    assert "heartbeats unanswered" in str(faults[4])
    eventually(supervised._answers, lambda: "it does not answer any more")


BUSY = """
import http.server, signal, sys
class Beat(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
def work(*_):
    while True:
        pass
signal.signal(signal.SIGUSR1, work)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Beat).serve_forever()
"""


def test_a_server_that_is_too_busy_to_answer_is_given_much_longer(
    supervised: ChromaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_server, "_COMMAND", BUSY)
    monkeypatch.setattr(chroma_server, "_BUSY_SILENT_CHECKS", 8)
    supervised.start()
    pid = pid_of(supervised)
    os.kill(pid, signal.SIGUSR1)

    checks = next(number for number in itertools.count(1) if supervised.ensure())

    assert checks >= 8
    assert not lives(pid)


def test_a_server_that_is_stopped_while_it_is_restarted_does_not_come_back(
    supervised: ChromaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised.start()
    os.kill(pid_of(supervised), signal.SIGKILL)
    eventually(lambda: not supervised.poll(), lambda: "it lives")
    launching, stopping = threading.Event(), threading.Event()
    refuse = supervised._refuse_taken_port

    def refuse_slowly() -> None:
        launching.set()
        assert stopping.wait(60)
        refuse()

    monkeypatch.setattr(supervised, "_refuse_taken_port", refuse_slowly)
    errors: list[BaseException] = []

    def restart() -> None:
        try:
            supervised.ensure()
        except ServiceUnavailable as error:
            errors.append(error)

    restarting = threading.Thread(target=restart)
    restarting.start()
    assert launching.wait(60)
    ending = threading.Thread(target=supervised.stop)
    ending.start()
    eventually(supervised._is_stopping.is_set, lambda: "it was not told")
    stopping.set()
    restarting.join(60)
    ending.join(60)

    assert "told to stop" in str(errors[0])
    assert supervised.pid is None
    assert not supervised.ensure()
