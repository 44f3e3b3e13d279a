"""The double of the embedding model: in memory, instant, deterministic, counting, and able to fail on demand."""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from ingestor.core.errors import RejectedByModel, ServiceUnavailable
from ingestor.core.model import Recipe, Usage
from ingestor.ports import Vectors
from tests.embedding_server import DEFAULT_DIMENSIONS, tokens_of, vector_of


class HashEmbedder:
    """Vectors of character n-grams behind the port `Embedder`, the same as the embedding server's.

    `calls` holds the texts of every call that succeeded, `attempts` those of every call. `faults` are raised by coming
    calls, one each. A call with a text that holds one of `rejects` is refused. With `gate`, calls wait until it is set.
    """

    def __init__(  # noqa: PLR0913  # one argument for each thing a test may want otherwise
        self,
        recipe: Recipe | None = None,
        *,
        max_batch_inputs: int = 16,
        max_batch_tokens: int = 8_192,
        max_concurrency: int = 4,
        rejects: Collection[str] = (),
        gate: asyncio.Event | None = None,
    ) -> None:
        self._recipe = recipe or Recipe(provider="double", model="hash", dimensions=DEFAULT_DIMENSIONS)
        self.max_batch_inputs = max_batch_inputs
        self.max_batch_tokens = max_batch_tokens
        self.max_concurrency = max_concurrency
        self.rejects = tuple(rejects)
        self.gate = gate
        self.faults: deque[Exception] = deque()
        self.attempts: list[tuple[str, ...]] = []
        self.calls: list[tuple[str, ...]] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.openings = 0
        self.open_faults: deque[Exception] = deque()
        self.is_closed = False
        self.counts_tokens = True

    @property
    def recipe(self) -> Recipe:
        """What decides the vectors."""
        return self._recipe

    @property
    def texts(self) -> list[str]:
        """Every text that was embedded, in order, as often as it was."""
        return [text for call in self.calls for text in call]

    async def open(self) -> None:
        """Count, or raise the next fault of opening."""
        self.openings += 1
        if self.open_faults:
            raise self.open_faults.popleft()

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """Embed the exact texts, or raise the next fault."""
        if self.is_closed:
            raise ServiceUnavailable("the double is closed")
        if not texts:
            return np.empty((0, self._recipe.dimensions), dtype=np.float32), Usage()
        self.attempts.append(tuple(texts))
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
        finally:
            self.in_flight -= 1
        if self.faults:
            raise self.faults.popleft()
        for marker in self.rejects:
            if any(marker in text for text in texts):
                raise RejectedByModel(f"the double refuses texts with {marker!r}")
        if not self._recipe.dimensions:
            self._recipe = replace(self._recipe, dimensions=DEFAULT_DIMENSIONS)
        self.calls.append(tuple(texts))
        vectors = np.stack([vector_of(text, self._recipe.dimensions) for text in texts])
        return vectors, Usage(requests=1, texts=len(texts), tokens=tokens_of(texts) if self.counts_tokens else 0)

    async def close(self) -> None:
        """Refuse later calls."""
        self.is_closed = True
