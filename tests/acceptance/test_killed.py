"""SIGKILL in the middle of work: the next start converges, and hardly anything is paid for twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.core.chunking import Cutter
from tests.checker import expected_texts
from tests.daemon import Daemon, Site, assert_equal, eventually, lives, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

FILES = 300
CONCURRENCY = 4
BATCH_INPUTS = 8
DIMENSIONS = 64
IN_FLIGHT = CONCURRENCY * BATCH_INPUTS


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, latency_seconds=0.1) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    settings = provider_settings(
        server, EMBEDDING__MAX_CONCURRENCY=CONCURRENCY, EMBEDDING__MAX_BATCH_INPUTS=BATCH_INPUTS
    )
    with Site(tmp_path, settings) as site:
        for number in range(FILES):
            file = site.folder / f"shelf-{number % 7}" / f"book-{number}.md"
            file.parent.mkdir(exist_ok=True)
            sentences = [f"Sentence {place} of book {number} is like no other sentence." for place in range(45)]
            file.write_text(f"# Book {number}\n\n" + " ".join(sentences) + "\n", encoding="utf-8")
        yield site


def unique_texts(site: Site) -> set[str]:
    return {text for texts in expected_texts(site.folder, Cutter()).values() for text in texts}


def kill_when(daemon: Daemon, server: EmbeddingServer, texts: int) -> None:
    """Kill the daemon as soon as so many texts have been embedded."""
    eventually(lambda: server.texts >= texts, lambda: f"only {server.texts} texts embedded:\n{daemon.log()[-2_000:]}")
    assert daemon.process.poll() is None, daemon.log()
    daemon.kill()


def test_killed_twice_in_the_first_ingest_then_synced(site: Site, server: EmbeddingServer) -> None:
    unique = unique_texts(site)
    kills = (60, len(unique) // 2)
    for texts in kills:
        kill_when(site.start("run"), server, texts)
        eventually(lambda: not site.servers(), lambda: "the server outlived its daemon")

    report = site.sync()

    assert not site.servers()
    rows = site.at_rest()
    assert_equal(site.folder, rows, dimensions=DIMENSIONS)
    assert {row.text for row in rows} == unique
    assert report["documents"]["problems"] == 0
    assert 0 < report["embedding"]["texts"] < len(unique)
    assert server.texts <= len(unique) + len(kills) * IN_FLIGHT
    assert server.counters.repeated_texts <= len(kills) * IN_FLIGHT
    texts_before = server.texts
    site.sync()
    assert server.texts == texts_before


def test_killed_in_a_sync_and_in_a_mass_edit_then_run_again(site: Site, server: EmbeddingServer) -> None:
    unique = unique_texts(site)
    kill_when(site.start("sync"), server, len(unique) // 3)
    first = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.wait_equal()
    for number, file in enumerate(sorted(site.folder.rglob("*.md"))):
        if number % 3 == 0:
            file.write_text(file.read_text(encoding="utf-8") + f"\nEdited as number {number}.\n", encoding="utf-8")
        elif number % 3 == 1:
            file.rename(file.with_name(f"renamed-{file.name}"))
        else:
            file.unlink()
    unique |= unique_texts(site)

    (former,) = site.servers()
    kill_when(first, server, server.texts + 20)
    second = site.start("run").wait_ready()

    with site.reading() as collection:
        collection.dimensions = DIMENSIONS
        rows = collection.wait_equal()
    assert not lives(former)
    assert len(site.servers()) == 1
    assert len({row.source for row in rows}) == FILES - FILES // 3
    assert server.counters.repeated_texts <= 2 * IN_FLIGHT
    assert server.texts <= len(unique) + 2 * IN_FLIGHT
    assert second.terminate() == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
