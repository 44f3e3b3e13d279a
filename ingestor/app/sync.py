"""`sync`: the folder made the collection, once.

Where Chroma is ours it gets a server of its own: in this process each of its calls would hold the interpreter's lock,
and nothing could be read, cut or embedded meanwhile.

Invariant: the server lives no longer than the sync, and is started again when it dies or hangs. The next start ends
the server of a sync that was killed.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from ingestor.adapters import chroma_client, openai_embedder
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.app.collection import SERVER_HOST, announce, hold, open_collection, serve
from ingestor.app.parts import folder_of, pipeline_of
from ingestor.core.model import Outcome
from ingestor.core.profiles import LOCAL
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import Totals
from ingestor.settings import Settings

PROGRESS_SECONDS = 0.2
SUPERVISE_SECONDS = 1.0


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
        instance = hold(settings, "sync", stack)
        sink, server = await _opened(settings, instance, stack)
        pipeline = await stack.enter_async_context(pipeline_of(settings, source, sink))
        unreadable = 0
        revived = asyncio.Event()
        async with pipeline.running() as tasks:
            beside = [tasks.create_task(_tell(pipeline, tell))]
            if server is not None:
                beside.append(tasks.create_task(_supervise(server, pipeline, revived)))
            if only_queued:
                await pipeline.worker.run(until_idle=True)
            else:
                unreadable = await work_through(pipeline)
            while server is not None and await _has_come_back(server, pipeline, revived):
                await pipeline.worker.run(until_idle=True)
            for task in beside:
                task.cancel()
        await pipeline.account.tell()
        tell(progress_of(pipeline))
        totals = await pipeline.totals()
        return _report(pipeline, totals, unreadable, time.monotonic() - began_seconds)


async def _opened(
    settings: Settings, instance: Instance, stack: AsyncExitStack
) -> tuple[ChromaSink, ChromaServer | None]:
    """Open the collection, on a server of its own where Chroma is ours."""
    # The server comes up while its client is imported.
    importing = ThreadPoolExecutor(1)
    stack.callback(importing.shutdown, wait=False)
    loading = asyncio.get_running_loop().run_in_executor(importing, chroma_client.load)
    if settings.embedding.provider != LOCAL and not (settings.data_dir / settings.ledger_file).exists():
        # Nothing is known yet, so that there will be something to embed: read and cut while it waits for no import.
        importing.submit(openai_embedder.load)
    server = serve(settings, stack, is_anywhere=True)
    await loading
    if server is None:
        return await asyncio.to_thread(open_collection, settings, None, stack), None
    record = InstanceRecord(os.getpid(), "sync", "", 0.0, SERVER_HOST, server.port)
    sink = await asyncio.to_thread(open_collection, settings, record, stack)
    announce(instance, settings, "sync", served=True, port=server.port)
    return sink, server


async def _supervise(server: ChromaServer, pipeline: Pipeline, revived: asyncio.Event) -> None:
    """Keep the server alive. Raises `ServiceUnavailable` when it dies too often or does not come back."""
    while True:
        await asyncio.sleep(SUPERVISE_SECONDS)
        if await asyncio.to_thread(server.ensure):
            revived.set()
            await pipeline.hasten()


async def _has_come_back(server: ChromaServer, pipeline: Pipeline, revived: asyncio.Event) -> bool:
    """Whether the server was started again since it was last asked: what had failed is due then, and is work again."""
    if not (await asyncio.to_thread(server.ensure) or revived.is_set()):
        return False
    revived.clear()
    await pipeline.hasten()
    return True


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
        tell(progress_of(pipeline))
        await asyncio.sleep(PROGRESS_SECONDS)


def progress_of(pipeline: Pipeline) -> SyncProgress:
    """How far a pipeline is."""
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
