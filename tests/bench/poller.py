"""The outside client that polls: it tells when a record is queryable, and what Chroma and the endpoint cost alone.

Invariant: nothing of the product runs here. A record counts as queryable when a search for its vector names its file.
One that Chroma holds, and whose vector its index does not find, is told as `Unreachable`: the write was done.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from time import perf_counter

import httpx
import numpy as np
from chromadb.api import ClientAPI
from chromadb.errors import InternalError
from numpy.typing import NDArray

from tests.bench.services import DIMENSIONS, MODEL
from tests.checker import COLLECTION, client_of
from tests.embedding_server import vector_of

PATIENCE_SECONDS = 60.0
STALL_SECONDS = 300.0
"""A collection that has not grown for so long will not grow any more."""
UNREACHABLE_SECONDS = 5.0
"""A record that is held for so long without being found will not be."""
_NEAREST = 3
_PAGE_RECORDS = 5_000
_FLOOR = "floor"


class Unreachable(Exception):
    """Chroma holds a record, and a search for its own vector does not find it."""


class Poller:
    """Asks the Chroma server on a port; made by `polling`."""

    def __init__(self, client: ClientAPI) -> None:
        self._client = client
        self._collection = client.get_collection(COLLECTION, embedding_function=None)

    def found(self, wanted: dict[str, str]) -> list[str]:
        """Which of the files, with their texts, a search finds now."""
        if not wanted:
            return []
        try:
            answer = self._collection.query(
                query_embeddings=vectors(wanted.values()),
                n_results=_NEAREST,
                include=["metadatas"],
            )
        except InternalError:
            return []  # Chroma looks rows up after the ids, and fails when one of them was deleted in between
        assert answer["metadatas"] is not None
        return [
            source
            for source, nearest in zip(wanted, answer["metadatas"], strict=True)
            # A record that is being deleted has no metadata any more.
            if any(metadata is not None and metadata["source"] == source for metadata in nearest)
        ]

    def wait_found(self, source: str, text: str, *, pause_seconds: float = 0.005) -> float:
        """Wait until a search finds a file; returns when the answer was there, by `perf_counter`.

        Raises `Unreachable`.
        """
        began_seconds = perf_counter()
        while not self.found({source: text}):
            waited_seconds = perf_counter() - began_seconds
            if waited_seconds > UNREACHABLE_SECONDS and self.is_unreachable(source, text):
                raise Unreachable(source)
            if waited_seconds > PATIENCE_SECONDS:
                message = f"{source} is not queryable within {PATIENCE_SECONDS:g} s"
                raise TimeoutError(message)
            time.sleep(pause_seconds)
        return perf_counter()

    def is_unreachable(self, source: str, text: str) -> bool:
        """Whether there is a record of a file, and a search does not find it even so."""
        return self.is_held(source) and not self.found({source: text})

    def is_held(self, source: str) -> bool:
        """Whether there is a record of a file, found by a search or not."""
        return bool(self._collection.get(where={"source": source}, limit=1, include=[])["ids"])

    def count(self) -> int:
        """How many records the collection holds."""
        return int(self._collection.count())

    def counts(self, records: int, *, pause_seconds: float = 0.2) -> Iterator[int]:
        """The count, again and again, until it has reached so many records; raises when it stands still."""
        last = -1
        grown_at_seconds = perf_counter()
        while True:
            counted = self.count()
            yield counted
            if counted >= records:
                return
            if counted > last:
                last, grown_at_seconds = counted, perf_counter()
            elif perf_counter() > grown_at_seconds + STALL_SECONDS:
                message = f"the collection stands at {counted} of {records} records"
                raise TimeoutError(message)
            time.sleep(pause_seconds)

    def sources(self) -> set[str]:
        """The files that have a record."""
        found: set[str] = set()
        places = 0
        while True:
            page = self._collection.get(limit=_PAGE_RECORDS, offset=places, include=["metadatas"])
            found.update(str(metadata["source"]) for metadata in page["metadatas"] or [])
            places += len(page["ids"])
            if len(page["ids"]) < _PAGE_RECORDS:
                return found

    def make_floor(self, synced: int, pending: int) -> None:
        """Copy so many of our records into a collection beside ours, on the same server, for `floor_seconds`.

        The first ones are to fill Chroma's `sync_threshold`, so that they are in the graph on the disk; the others are
        applied again with every write, until there are enough of them.
        """
        floor = self._client.create_collection(
            _FLOOR, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        for start, stop in ((0, synced), (synced, synced + pending)):
            page = self._collection.get(limit=stop - start, offset=start, include=["documents", "metadatas"])
            texts = page["documents"] or []
            assert len(texts) == stop - start, f"our collection has no {stop} records"
            floor.add(page["ids"], vectors(texts), page["metadatas"], texts)

    def floor_seconds(self, name: str, text: str) -> float:
        """How long one `add` of one record like ours takes, and one search that finds it."""
        floor = self._client.get_collection(_FLOOR, embedding_function=None)
        (metadata,) = floor.get(limit=1, include=["metadatas"])["metadatas"] or []
        asked = vectors([text])
        began_seconds = perf_counter()
        floor.add([name], asked, [{**metadata, "source": name}], [text])
        answer = floor.query(query_embeddings=asked, n_results=_NEAREST, include=["metadatas"])
        ended_seconds = perf_counter()
        assert name in answer["ids"][0]
        return ended_seconds - began_seconds


def vectors(texts: Iterable[str]) -> NDArray[np.float32]:
    """What the endpoint answers for texts: shape (texts, dimensions)."""
    return np.stack([vector_of(text, DIMENSIONS) for text in texts])


def call_seconds(client: httpx.Client, base_url: str, text: str) -> float:
    """How long an embedding call with one text takes, to a client that may have its connection already."""
    began_seconds = perf_counter()
    client.post(f"{base_url}/embeddings", json={"model": MODEL, "input": [text]}).raise_for_status()
    return perf_counter() - began_seconds


@contextlib.contextmanager
def polling(port: int) -> Iterator[Poller]:
    """Poll the Chroma server on a port."""
    with client_of(port) as client:
        yield Poller(client)
