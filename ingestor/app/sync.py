"""`sync`: the folder made the collection, once."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from ingestor.app.collection import hold, open_collection
from ingestor.app.parts import folder_of, pipeline_of
from ingestor.core.model import Outcome
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import Totals
from ingestor.settings import Settings

PROGRESS_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far a sync is; counts."""

    documents: int
    documents_expected: int
    chunks: int
    texts_embedded: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a sync has done; `as_json` is what `ingestor sync --json` prints."""

    documents: Mapping[str, int]
    chunks: Mapping[str, int]
    embedding: Mapping[str, int]
    seconds: float
    outage: str
    """What an outside service said last, when documents still wait for it."""
    held_deletions: int
    """Deletions that wait for `ingestor approve`."""

    def as_json(self) -> dict[str, Any]:
        """Documents, chunks, embedding, held deletions, seconds."""
        return {
            "documents": dict(self.documents),
            "chunks": dict(self.chunks),
            "embedding": dict(self.embedding),
            "held_deletions": self.held_deletions,
            "seconds": self.seconds,
        }


async def sync(settings: Settings, tell: Callable[[SyncProgress], None], *, only_queued: bool = False) -> Report:
    """Make the collection equal to the folder, once; `only_queued` works on what is queued without a scan."""
    began_seconds = time.monotonic()
    async with AsyncExitStack() as stack:
        source = folder_of(settings)
        hold(settings, "sync", stack)
        sink = await asyncio.to_thread(open_collection, settings, None, stack)
        pipeline = await stack.enter_async_context(pipeline_of(settings, source, sink))
        unreadable = 0
        async with pipeline.running() as tasks:
            telling = tasks.create_task(_tell(pipeline, tell))
            if only_queued:
                await pipeline.worker.run(until_idle=True)
            else:
                unreadable = await work_through(pipeline)
            telling.cancel()
        await pipeline.account.tell()
        tell(_progress(pipeline))
        totals = await pipeline.totals()
        return _report(pipeline, totals, unreadable, time.monotonic() - began_seconds)


async def work_through(pipeline: Pipeline) -> int:
    """Compare the whole folder, and do what there is to do; returns how many folders could not be listed."""
    unreadable = (await pipeline.reconciler.reconcile()).unreadable
    await pipeline.worker.run(until_idle=True)
    if pipeline.reconciler.held:
        # What was renamed meanwhile is not missing any more.
        await pipeline.reconciler.reconcile()
        await pipeline.worker.run(until_idle=True)
    return unreadable


async def _tell(pipeline: Pipeline, tell: Callable[[SyncProgress], None]) -> None:
    while True:
        tell(_progress(pipeline))
        await asyncio.sleep(PROGRESS_SECONDS)


def _progress(pipeline: Pipeline) -> SyncProgress:
    tally = pipeline.tally
    return SyncProgress(
        documents=tally.finished,
        documents_expected=tally.expected,
        chunks=tally.embedded + tally.reused + tally.retagged + tally.dropped,
        texts_embedded=pipeline.account.usage.texts,
    )


def _report(pipeline: Pipeline, totals: Totals, unreadable: int, seconds: float) -> Report:
    tally = pipeline.tally
    counts = {outcome: tally.documents[outcome] for outcome in Outcome}
    touched = counts[Outcome.ADDED] + counts[Outcome.CHANGED] + counts[Outcome.RENAMED]
    return Report(
        documents={
            "added": counts[Outcome.ADDED],
            "changed": counts[Outcome.CHANGED],
            "renamed": counts[Outcome.RENAMED],
            "deleted": counts[Outcome.DELETED],
            "unchanged": max(0, totals.documents - touched),
            "problems": totals.problems + totals.retrying + unreadable,
        },
        chunks={
            "embedded": tally.embedded,
            "reused": tally.reused,
            "retagged": tally.retagged,
            "dropped": tally.dropped,
        },
        embedding=asdict(pipeline.account.usage),
        seconds=round(seconds, 3),
        outage=tally.outage if totals.retrying else "",
        held_deletions=pipeline.reconciler.held,
    )
