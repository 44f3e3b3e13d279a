"""Measured ports: each does what the one behind it does, and counts how long its calls took and how they failed.

Invariant: a measured port is as good as the port behind it; its numbers may be looked at from any thread at any time.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ingestor.core.auditing import Held
from ingestor.core.errors import CHROMA, IngestorError
from ingestor.core.latency import Spread
from ingestor.core.model import Hit, Recipe, Record, Retag, Usage
from ingestor.core.owning import Ours
from ingestor.ports import Clock, Embedder, Sink, Vector, Vectors

OPERATIONS = (
    "add",
    "retag",
    "drop",
    "search",
    "count",
    "ids",
    "page",
    "read",
    "unreachable",
    "confirm",
    "keep",
    "reopen",
)
"""What a sink is asked for."""


class Failures(Counter[str]):
    """How often calls of a service failed, by the name of the error class; what they raise names the service."""

    def __init__(self, clock: Clock, service: str) -> None:
        super().__init__()
        self._clock = clock
        self._service = service

    @contextmanager
    def counted(self, spread: Spread) -> Iterator[None]:
        """Measure a call, whatever its end; one that was cancelled has not failed."""
        began_seconds = self._clock.monotonic_seconds()
        try:
            yield
        except Exception as error:
            self[type(error).__name__] += 1
            if isinstance(error, IngestorError):
                error.service = self._service
            raise
        finally:
            spread.add(self._clock.monotonic_seconds() - began_seconds)


class MeasuredEmbedder:
    """`ports.Embedder` over another one."""

    def __init__(self, embedder: Embedder, clock: Clock, service: str) -> None:
        self._embedder = embedder
        self.seconds = Spread()
        self.failures = Failures(clock, service)

    @property
    def recipe(self) -> Recipe:
        """See `ports.Embedder.recipe`."""
        return self._embedder.recipe

    @property
    def max_batch_inputs(self) -> int:
        """See `ports.Embedder.max_batch_inputs`."""
        return self._embedder.max_batch_inputs

    @property
    def max_batch_tokens(self) -> int:
        """See `ports.Embedder.max_batch_tokens`."""
        return self._embedder.max_batch_tokens

    @property
    def max_concurrency(self) -> int:
        """See `ports.Embedder.max_concurrency`."""
        return self._embedder.max_concurrency

    async def open(self) -> None:
        """See `ports.Embedder.open`."""
        await self._embedder.open()

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """See `ports.Embedder.embed`."""
        with self.failures.counted(self.seconds):
            return await self._embedder.embed(texts)

    async def close(self) -> None:
        """See `ports.Embedder.close`."""
        await self._embedder.close()


class MeasuredSink:
    """`ports.Sink` over another one."""

    def __init__(self, sink: Sink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self.seconds = {operation: Spread() for operation in OPERATIONS}
        self.failures = Failures(clock, CHROMA)

    def beside(self, sink: Sink) -> "MeasuredSink":
        """Measure another way to the same collection, and count its calls here."""
        other = MeasuredSink(sink, self._clock)
        other.seconds, other.failures = self.seconds, self.failures
        return other

    @property
    def collection_id(self) -> str:
        """See `ports.Sink.collection_id`."""
        return self._sink.collection_id

    @property
    def ours(self) -> Ours:
        """See `ports.Sink.ours`."""
        return self._sink.ours

    def add(self, records: Sequence[Record], vectors: Vectors | Sequence[Vector]) -> None:
        """See `ports.Sink.add`."""
        with self.failures.counted(self.seconds["add"]):
            self._sink.add(records, vectors)

    def retag(self, retags: Sequence[Retag]) -> None:
        """See `ports.Sink.retag`."""
        with self.failures.counted(self.seconds["retag"]):
            self._sink.retag(retags)

    def drop(self, ids: Sequence[str]) -> None:
        """See `ports.Sink.drop`."""
        with self.failures.counted(self.seconds["drop"]):
            self._sink.drop(ids)

    def search(
        self,
        vector: Vector,
        limit: int,
        where: Mapping[str, Any] | None,
        where_document: Mapping[str, Any] | None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """See `ports.Sink.search`."""
        with self.failures.counted(self.seconds["search"]):
            return self._sink.search(vector, limit, where, where_document, ids)

    def count(self) -> int:
        """See `ports.Sink.count`."""
        with self.failures.counted(self.seconds["count"]):
            return self._sink.count()

    def ids(self) -> list[str]:
        """See `ports.Sink.ids`."""
        with self.failures.counted(self.seconds["ids"]):
            return self._sink.ids()

    def page(self, offset: int, limit: int) -> dict[str, Mapping[str, Any]]:
        """See `ports.Sink.page`."""
        with self.failures.counted(self.seconds["page"]):
            return self._sink.page(offset, limit)

    def read(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Held]:
        """See `ports.Sink.read`."""
        with self.failures.counted(self.seconds["read"]):
            return self._sink.read(ids, with_vectors=with_vectors)

    def unreachable(self, ids: Sequence[str], vectors: Vectors) -> list[str]:
        """See `ports.Sink.unreachable`."""
        with self.failures.counted(self.seconds["unreachable"]):
            return self._sink.unreachable(ids, vectors)

    def confirm(self) -> None:
        """See `ports.Sink.confirm`."""
        with self.failures.counted(self.seconds["confirm"]):
            self._sink.confirm()

    def keep(self) -> None:
        """See `ports.Sink.keep`."""
        with self.failures.counted(self.seconds["keep"]):
            self._sink.keep()

    def reopen(self) -> None:
        """See `ports.Sink.reopen`."""
        with self.failures.counted(self.seconds["reopen"]):
            self._sink.reopen()
