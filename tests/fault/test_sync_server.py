"""The Chroma server of a sync: what happens to it, and to the sync with it."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 64
CONCURRENCY = 2
BATCH_INPUTS = 4
FILES = 120


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell starts what it puts in the background with SIGINT ignored, and so would all be that we start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, latency_seconds=0.2) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, provider: EmbeddingServer) -> Iterator[Site]:
    settings = provider_settings(
        provider, EMBEDDING__MAX_CONCURRENCY=CONCURRENCY, EMBEDDING__MAX_BATCH_INPUTS=BATCH_INPUTS
    )
    with Site(tmp_path, settings) as made:
        for number in range(FILES):
            (made.folder / f"page-{number}.txt").write_text(f"What page {number} says.\n", encoding="utf-8")
        yield made


def record_of(site: Site) -> dict[str, object]:
    """What the process at work tells of itself; nothing before it does."""
    try:
        told: dict[str, object] = json.loads((site.data_dir / "instance.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return told


def is_served(site: Site) -> bool:
    return bool(record_of(site).get("chroma_port"))


def wait_until(daemon: Daemon, site: Site, moment: str, provider: EmbeddingServer) -> None:
    reached: dict[str, Callable[[], bool]] = {
        "its server was launched": (site.chroma_path / "chroma_server.json").exists,
        "the collection was opened": lambda: is_served(site),
        "work had begun": lambda: provider.texts >= 2 * BATCH_INPUTS,
    }
    eventually(lambda: reached[moment]() or daemon.process.poll() is not None, lambda: f"{moment}? {daemon.log()}")
    assert daemon.process.poll() is None, daemon.log()


def ended(daemon: Daemon) -> int:
    return daemon.process.wait(60)


def kill(site: Site) -> None:
    (server,) = site.servers()
    os.kill(server, signal.SIGKILL)


def test_a_sync_that_is_killed_at_any_moment_takes_its_server_with_it(site: Site, provider: EmbeddingServer) -> None:
    for moment in ("its server was launched", "the collection was opened", "work had begun"):
        sync = site.start("sync")
        wait_until(sync, site, moment, provider)
        sync.kill()
        eventually(lambda: not site.servers(), sync.log)

    report = site.sync()

    assert not site.servers()
    assert report["documents"]["problems"] == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    # Each of the three loses what was in flight, and what had just been answered and was not kept yet.
    assert provider.counters.repeated_texts <= 3 * 2 * CONCURRENCY * BATCH_INPUTS


def test_a_server_that_dies_under_a_sync_is_started_again_and_nothing_is_lost(
    site: Site, provider: EmbeddingServer
) -> None:
    sync = site.start("sync")
    wait_until(sync, site, "work had begun", provider)
    kill(site)
    eventually(lambda: sync.events("chroma.restarted") or sync.process.poll() is not None, sync.log)
    assert provider.texts < FILES, "it is started again when it dies, not when all else has been done"

    assert ended(sync) == 0, sync.log()

    assert len(sync.events("chroma.restarted")) == 1
    assert not site.servers()
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    assert provider.counters.repeated_texts == 0


def test_a_server_that_dies_again_and_again_ends_the_sync_and_the_next_one_heals(
    site: Site, provider: EmbeddingServer
) -> None:
    sync = site.start("sync")
    wait_until(sync, site, "work had begun", provider)
    killed: set[int] = set()
    while sync.process.poll() is None:
        for pid in set(site.servers()) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    assert sync.process.returncode == 4, sync.log()
    assert "the Chroma server" in sync.log().splitlines()[-1]
    assert "Traceback" not in sync.log()
    assert not site.servers()
    assert site.sync()["documents"]["problems"] == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    assert provider.counters.repeated_texts <= CONCURRENCY * BATCH_INPUTS


def test_a_sync_needs_no_port_of_its_own_and_is_queried_while_it_works(site: Site, provider: EmbeddingServer) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        sync = site.start("sync")
        wait_until(sync, site, "work had begun", provider)
        port = record_of(site)["chroma_port"]
        # However long the commands take on a busy machine, the sync has more to wait for.
        provider.latency_seconds = 2.0

        asked = site.command("query", "what page 1 says")
        status = json.loads(site.command("status", "--json").out)

        provider.latency_seconds = 0.2
        assert asked.code == 0, asked.err
        assert port != site.port
        assert sync.process.poll() is not None or status["chroma"] == f"http://127.0.0.1:{port}"
        assert ended(sync) == 0, sync.log()
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_sync_that_is_interrupted_takes_its_server_with_it(
    site: Site, provider: EmbeddingServer, number: signal.Signals
) -> None:
    for moment in ("its server was launched", "work had begun"):
        sync = site.start("sync")
        wait_until(sync, site, moment, provider)
        sync.process.send_signal(number)
        assert ended(sync) == 128 + number
        assert not site.servers(), sync.log()
        assert "Traceback" not in sync.log()
    site.sync()
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
