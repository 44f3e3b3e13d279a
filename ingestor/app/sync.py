"""`sync`: the folder made the collection, once.

Where Chroma is ours it gets a server of its own: in this process each of its calls would hold the interpreter's lock,
and nothing could be read, cut or embedded meanwhile.

Invariant: the server lives no longer than the sync, and is started again when it dies or hangs. The next start ends
the server of a sync that was killed.
"""

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from ingestor.adapters import chroma_client, openai_embedder
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.app.collection import SERVER_HOST, announce, hold, open_collections, serve
from ingestor.app.costing import hold_costly
from ingestor.app.embedder import currency_of, price_of
from ingestor.app.parts import folders_of, pipelines_of, sourced
from ingestor.app.waits import merged, reason_of
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import Outcome, ServiceWait, Usage
from ingestor.core.profiles import PROVIDERS
from ingestor.engine.pipeline import Pipeline, running
from ingestor.engine.tally import Tally
from ingestor.ports import Totals
from ingestor.settings import Settings

PROGRESS_SECONDS = 0.2
SUPERVISE_SECONDS = 1.0
_DOCUMENTS = ("added", "changed", "renamed", "deleted", "unchanged", "problems")
_CHUNKS = ("embedded", "reused", "retagged", "dropped")


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far a sync is; counts."""

    documents: int
    documents_expected: int
    chunks: int
    texts_embedded: int
    size_bytes: int
    """Size of the documents that are done."""
    tokens: int
    cost: str
    """What the tokens cost at the price of today, for people; empty where they cost nothing, or nobody knows."""
    waits_for: str
    """What work waits for just now, for people; empty while it goes on."""


@dataclass(slots=True)
class Scanned:
    """What a comparison of the folders could not tell."""

    unreadable: int = 0
    """Folders that could not be listed."""
    away: str = ""
    """Why a whole source could not be compared."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a sync has done; `as_json` is what `ingestor sync --json` prints."""

    documents: Mapping[str, int]
    chunks: Mapping[str, int]
    sources: Mapping[str, Mapping[str, int]]
    """Both by the name of the source, where there are several."""
    embedding: Mapping[str, int]
    seconds: float
    outage: str
    """What an outside service said last, when documents still wait for it."""
    held_deletions: int
    """Deletions that wait for `ingestor approve`."""
    waits: Sequence[ServiceWait]
    """What documents wait for that could not be done."""

    def as_json(self) -> dict[str, Any]:
        """Documents, chunks, both by source, embedding, held deletions, waits, seconds."""
        return {
            "documents": dict(self.documents),
            "chunks": dict(self.chunks),
            **({"sources": dict(self.sources)} if self.sources else {}),
            "embedding": dict(self.embedding),
            "held_deletions": self.held_deletions,
            "waits": [asdict(wait) for wait in self.waits],
            "seconds": self.seconds,
        }


async def sync(
    settings: Settings, tell: Callable[[SyncProgress], None], *, only_queued: bool = False, takes_over: bool = False
) -> Report:
    """Make the collection equal to the folder, once; `only_queued` works on what is queued without a scan.

    One that `takes_over` claims the collections whosever they are.
    """
    began_seconds = time.monotonic()
    async with AsyncExitStack() as stack:
        folders_of(settings)
        instance = hold(settings, "sync", stack)
        sinks, server = await _opened(settings, instance, stack, takes_over=takes_over)
        await asyncio.to_thread(hold_costly, settings, sinks)
        pipelines = await stack.enter_async_context(pipelines_of(sourced(settings, sinks)))
        scanned = Scanned()
        revived = asyncio.Event()
        async with running(pipelines) as tasks:
            beside = [tasks.create_task(_tell(pipelines, settings.each(), tell))]
            if server is not None:
                beside.append(tasks.create_task(_supervise(server, pipelines, revived)))
            if only_queued:
                await work_off(pipelines)
            else:
                scanned = await work_through(pipelines)
            while server is not None and await _has_come_back(server, pipelines, revived):
                await work_off(pipelines)
            for task in beside:
                task.cancel()
        for pipeline in pipelines:
            await pipeline.account.tell()
        tell(progress_of(pipelines, settings.each()))
        totals = [await pipeline.totals() for pipeline in pipelines]
        held = sum([len(await pipeline.held()) for pipeline in pipelines])
        return _report(pipelines, totals, scanned, held, time.monotonic() - began_seconds)


async def _opened(
    settings: Settings, instance: Instance, stack: AsyncExitStack, *, takes_over: bool
) -> tuple[dict[str, ChromaSink], ChromaServer | None]:
    """Open the collections, on a server of its own where Chroma is ours."""
    # The server comes up while its client is imported.
    importing = ThreadPoolExecutor(1)
    stack.callback(importing.shutdown, wait=False)
    loading = asyncio.get_running_loop().run_in_executor(importing, chroma_client.load)
    is_remote = not PROVIDERS[settings.embedding.provider].is_in_process
    if is_remote and not (settings.data_dir / settings.ledger_file).exists():
        # Nothing is known yet, so that there will be something to embed: read and cut while it waits for no import.
        importing.submit(openai_embedder.load)
    server = serve(settings, stack, is_anywhere=True)
    await loading
    if server is None:
        return await asyncio.to_thread(open_collections, settings, None, stack, takes_over=takes_over), None
    record = InstanceRecord(os.getpid(), "sync", "", 0.0, SERVER_HOST, server.port)
    sinks = await asyncio.to_thread(open_collections, settings, record, stack, takes_over=takes_over)
    announce(instance, settings, "sync", served=True, port=server.port)
    return sinks, server


async def _supervise(server: ChromaServer, pipelines: Sequence[Pipeline], revived: asyncio.Event) -> None:
    """Keep the server alive. Raises `ServiceUnavailable` when it dies too often or does not come back."""
    while True:
        await asyncio.sleep(SUPERVISE_SECONDS)
        if await asyncio.to_thread(server.ensure):
            revived.set()
            for pipeline in pipelines:
                await pipeline.hasten()


async def _has_come_back(server: ChromaServer, pipelines: Sequence[Pipeline], revived: asyncio.Event) -> bool:
    """Whether the server was started again since it was last asked: what had failed is due then, and is work again."""
    if not (await asyncio.to_thread(server.ensure) or revived.is_set()):
        return False
    revived.clear()
    for pipeline in pipelines:
        await pipeline.hasten()
    return True


async def work_through(pipelines: Sequence[Pipeline]) -> Scanned:
    """Compare the folders, and do what there is to do.

    Raises `ServiceUnavailable` when the folder of the only source is away; of several, the others are done.
    """
    scanned = Scanned()
    for pipeline in pipelines:
        try:
            scanned.unreadable += (await pipeline.reconcile()).unreadable
        except ServiceUnavailable as error:
            if len(pipelines) == 1:
                raise
            scanned.away = error.sentence
    await work_off(pipelines)
    return scanned


async def work_off(pipelines: Sequence[Pipeline]) -> None:
    """Do what is queued."""
    async with asyncio.TaskGroup() as tasks:
        for pipeline in pipelines:
            with pipeline.named_in_logs():
                tasks.create_task(pipeline.worker.run(until_idle=True))


def usage_of(pipelines: Sequence[Pipeline]) -> Usage:
    """What embedding has cost in this process; sources with the same model have one account."""
    accounts = {id(pipeline.account): pipeline.account for pipeline in pipelines}
    return sum((account.usage for account in accounts.values()), Usage())


async def _tell(
    pipelines: Sequence[Pipeline], sources: Sequence[Settings], tell: Callable[[SyncProgress], None]
) -> None:
    while True:
        tell(progress_of(pipelines, sources))
        await asyncio.sleep(PROGRESS_SECONDS)


def progress_of(pipelines: Sequence[Pipeline], sources: Sequence[Settings]) -> SyncProgress:
    """How far pipelines are; `sources` are the settings of each."""
    tallies = [pipeline.tally for pipeline in pipelines]
    usage = usage_of(pipelines)
    waiting = [
        pipeline.storage_outage or pipeline.embedding.waits_for() or pipeline.tally.outage for pipeline in pipelines
    ]
    return SyncProgress(
        documents=sum(tally.finished for tally in tallies),
        documents_expected=sum(tally.expected for tally in tallies),
        chunks=sum(tally.embedded + tally.reused + tally.retagged + tally.dropped for tally in tallies),
        texts_embedded=usage.texts,
        size_bytes=sum(tally.size_bytes for tally in tallies),
        tokens=usage.tokens,
        cost=_cost(pipelines, sources),
        waits_for=next(filter(None, waiting), ""),
    )


def _cost(pipelines: Sequence[Pipeline], sources: Sequence[Settings]) -> str:
    """What this process has spent, by currency."""
    chosen = {
        id(pipeline.account): (pipeline.account.usage.tokens, source.embedding)
        for pipeline, source in zip(pipelines, sources, strict=True)
    }
    amounts: defaultdict[str, float] = defaultdict(float)
    for tokens, embedding in chosen.values():
        amounts[currency_of(embedding)] += (price_of(embedding) or 0.0) * tokens / 1_000_000
    return ", ".join(f"{amount:.4f} {currency}".rstrip() for currency, amount in amounts.items() if amount)


def _report(
    pipelines: Sequence[Pipeline], totals: Sequence[Totals], scanned: Scanned, held: int, seconds: float
) -> Report:
    each = {
        pipeline.name: _counts(pipeline.tally, its_totals)
        for pipeline, its_totals in zip(pipelines, totals, strict=True)
    }
    counts = sum(each.values(), Counter[str]())
    documents = {name: counts[name] for name in _DOCUMENTS}
    documents["problems"] += scanned.unreadable
    waits = merged(wait for its in totals for wait in its.waits)
    return Report(
        documents=documents,
        chunks={name: counts[name] for name in _CHUNKS},
        sources={} if len(each) == 1 else {name: dict(found) for name, found in each.items()},
        embedding=asdict(usage_of(pipelines)),
        seconds=round(seconds, 3),
        outage=next(filter(None, [scanned.away, *map(reason_of, waits)]), ""),
        held_deletions=held,
        waits=waits,
    )


def _counts(tally: Tally, totals: Totals) -> Counter[str]:
    """What became of the documents and chunks of a source."""
    counts = Counter[str]()
    for outcome in Outcome:
        counts[outcome.value] = tally.documents[outcome]
    touched = tally.documents[Outcome.ADDED] + tally.documents[Outcome.CHANGED] + tally.documents[Outcome.RENAMED]
    counts["unchanged"] = max(0, totals.documents - touched)
    counts["problems"] = totals.problems + totals.retrying
    for name in _CHUNKS:
        counts[name] = getattr(tally, name)
    return counts
