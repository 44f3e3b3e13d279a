"""An embedding line that runs, over any embedder, with doubles for what lies around it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from ingestor.core.backoff import Backoff
from ingestor.core.pacing import Allowance
from ingestor.engine.account import Account
from ingestor.engine.embedding import Embedding
from ingestor.engine.pace import Pace
from ingestor.ports import Embedder, Runtime
from tests.doubles_ledger import MemoryLedger, MemoryVectors

UNLIMITED = Allowance()


@dataclass(slots=True)
class Line:
    """The line, and the doubles around it."""

    embedding: Embedding
    account: Account
    pace: Pace
    ledger: MemoryLedger
    vectors: MemoryVectors

    async def ask(self, *texts: str) -> int:
        """Get the vectors of a document's texts; returns how many of them cost something."""
        with self.embedding.announced():
            request = await self.embedding.request(texts)
        vectors = await request.vectors()
        assert len(vectors) == len(texts)
        return request.embedded

    async def ask_each(self, texts: Sequence[str]) -> list[int | BaseException]:
        """Ask for each text as a document of its own; what became of each."""
        return await asyncio.gather(*(self.ask(text) for text in texts), return_exceptions=True)


@asynccontextmanager
async def running(  # noqa: PLR0913 - what a test may want otherwise
    embedder: Embedder,
    runtime: Runtime,
    retry: Backoff,
    *,
    allowance: Allowance = UNLIMITED,
    ledger: MemoryLedger | None = None,
    vectors: MemoryVectors | None = None,
    estimate_tokens: Callable[[str], int] = len,
) -> AsyncIterator[Line]:
    """A line that serves for the time of the block; its embedder is closed with it."""
    lane, ledger_lane = runtime.lane("vectors"), runtime.lane("ledger")
    ledger = MemoryLedger() if ledger is None else ledger
    vectors = MemoryVectors() if vectors is None else vectors
    account = Account(ledger, ledger_lane, runtime, tokens_per_day=allowance.tokens_per_day)
    pace = Pace(runtime, retry, allowance, max_calls=embedder.max_concurrency)
    embedding = Embedding(embedder, vectors, lane, runtime, pace=pace, account=account, estimate_tokens=estimate_tokens)
    task = asyncio.create_task(embedding.run())
    try:
        yield Line(embedding, account, pace, ledger, vectors)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        lane.close()
        ledger_lane.close()
        await embedder.close()
