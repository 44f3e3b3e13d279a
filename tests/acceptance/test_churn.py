"""Texts that are edited over and over: the index is copied afresh beside the work, and searches stay what they were."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import chromadb
import numpy as np
import pytest
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings as ChromaSettings
from chromadb.errors import InternalError, NotFoundError

from ingestor.adapters.chroma_cleaning import index_elements
from ingestor.adapters.chroma_faults import finds_no_id
from ingestor.core.chunking import Cutter
from tests.checker import expected_texts
from tests.daemon import Daemon, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 64
DOCUMENTS = 17
PARAGRAPHS = 24
ROUNDS = 3
RATIO = 0.5
CUTTER = Cutter(64)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    settings = provider_settings(server, CHUNK__MAX_TOKENS=64, CHROMA__MAX_TOMBSTONE_RATIO=RATIO)
    with Site(tmp_path, settings) as site:
        yield site


def write(site: Site, generation: int) -> set[str]:
    """Write every document anew; returns its texts."""
    for number in range(DOCUMENTS):
        paragraphs = [
            f"Paragraph {place} of book {number}, edition {generation}, " + f"tells of {place * number} things " * 8
            for place in range(PARAGRAPHS)
        ]
        (site.folder / f"book-{number}.md").write_text("\n\n".join(paragraphs) + "\n")
    return {text for texts in expected_texts(site.folder, CUTTER).values() for text in texts}


class Asking:
    """Somebody who asks all the time, by the name of the collection and by a handle that is never opened again."""

    def __init__(self, port: int, vector: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> None:
        self._client = chromadb.HttpClient(port=port, settings=ChromaSettings(anonymized_telemetry=False))
        self._vector = vector
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[int] = []
        self.gaps = 0
        """Times when no collection had the name, however long: two renames are two calls."""
        self.errors: list[Exception] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        kept = self._client.get_collection("documents", embedding_function=None)
        is_gap = False
        while not self._stop.wait(0.02):
            try:
                try:
                    current = self._client.get_collection("documents", embedding_function=None)
                except NotFoundError:
                    self.gaps += not is_gap
                    is_gap = True
                    continue
                is_gap = False
                for collection in (kept, current):
                    self.answers.append(self._found(collection))
                if current.id != kept.id:
                    kept = current
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
                self.errors.append(error)

    def _found(self, collection: Collection) -> int:
        """How many records are found. A compaction is not to blame where a find is deleted at that moment."""
        try:
            return len(collection.query(query_embeddings=self._vector[np.newaxis, :], n_results=10)["ids"][0])
        except InternalError as error:
            if not finds_no_id(error):
                raise
        return len(collection.query(query_embeddings=self._vector[np.newaxis, :], n_results=10)["ids"][0])


def unreachable(port: int) -> list[str]:
    """Records that a search for their own vector does not find."""
    client = chromadb.HttpClient(port=port, settings=ChromaSettings(anonymized_telemetry=False))
    collection = client.get_collection("documents", embedding_function=None)
    held = collection.get(include=["embeddings"])
    vectors = np.asarray(held["embeddings"], dtype=np.float32)
    lost = []
    for start in range(0, len(held["ids"]), 100):
        found = collection.query(query_embeddings=vectors[start : start + 100], n_results=10)["ids"]
        lost += [id_ for id_, near in zip(held["ids"][start : start + 100], found, strict=True) if id_ not in near]
    return lost


def converge(site: Site, daemon: Daemon) -> None:
    assert daemon.process.poll() is None, daemon.log()[-3_000:]
    with site.reading() as reading:
        reading.wait_equal(cutter=CUTTER)


def test_a_daemon_compacts_beside_its_work_and_loses_and_pays_nothing(site: Site, server: EmbeddingServer) -> None:
    texts = write(site, 0)
    daemon = site.start("run").wait_ready()
    converge(site, daemon)
    with Asking(site.port, np.ones(DIMENSIONS, dtype=np.float32)) as asking:
        for generation in range(1, ROUNDS + 1):
            texts |= write(site, generation)
            converge(site, daemon)
        eventually(lambda: daemon.events("compaction.ended"), lambda: daemon.log()[-2_000:])
    assert not daemon.events("compaction.put_off")
    assert not asking.errors
    assert asking.answers
    assert set(asking.answers) == {10}
    assert asking.gaps <= len(daemon.events("compaction.ended"))
    assert server.texts == len(texts)

    converge(site, daemon)
    assert not unreachable(site.port)
    elements = index_elements(site.chroma_path, "documents")
    assert elements is not None
    # What was deleted while it was copied is in the new index, too.
    assert elements <= len(texts) - 500, "the index has let go of what was deleted"
    told = site.command("status", "--json").json()
    assert told["tombstones"] <= elements
    assert daemon.terminate() == 0

    # What was replaced goes with the next start, its files with it.
    daemon = site.start("run").wait_ready()
    eventually(lambda: len(list(site.chroma_path.glob("*/header.bin"))) == 1, lambda: daemon.log()[-2_000:])
    assert daemon.terminate() == 0
    assert site.command("verify").code == 0
