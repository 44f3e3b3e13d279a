"""The model that a collection was built with, while the settings name another one already.

Invariant: that it cannot be had stops nobody. What needs it waits as for a provider that is away, and the reason is
told once.
"""

from collections.abc import Sequence

import structlog

from ingestor.core.errors import FatalError, ServiceUnavailable
from ingestor.core.model import Recipe, Usage
from ingestor.ports import Embedder, Vectors

RETRY_SECONDS = 3600.0
"""After so long a model that could not be had is asked again."""

_log = structlog.get_logger(__name__)


class FormerEmbedder:
    """`ports.Embedder` over the model of the old recipe; `embedder` is None, with a reason, when there is none."""

    def __init__(self, recipe: Recipe, embedder: Embedder | None, reason: str = "") -> None:
        self.recipe = recipe
        self._embedder = embedder
        self._reason = reason
        self._is_told = False
        self.max_batch_inputs = 1 if embedder is None else embedder.max_batch_inputs
        self.max_batch_tokens = 1 if embedder is None else embedder.max_batch_tokens
        self.max_concurrency = 1 if embedder is None else embedder.max_concurrency

    async def open(self) -> None:
        """Nothing: the first call opens what is not open."""

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """See `ports.Embedder.embed`; what would be fatal is `ServiceUnavailable`."""
        if self._embedder is None:
            raise self._absent(self._reason)
        try:
            return await self._embedder.embed(texts)
        except FatalError as error:
            raise self._absent(error.sentence) from error

    async def close(self) -> None:
        """See `ports.Embedder.close`."""
        if self._embedder is not None:
            await self._embedder.close()

    def _absent(self, reason: str) -> ServiceUnavailable:
        name = f"{self.recipe.provider}/{self.recipe.model}"
        message = f"the model {name} of the collection that is served cannot be had: {reason}"
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "rebuild.model_absent",
                reason=message,
                consequence="deletions and renames are followed; new and changed texts are found after the switch",
            )
        return ServiceUnavailable(message, retry_after_seconds=RETRY_SECONDS)
