"""The pipeline: the parts of the engine, put together for one source and one collection.

Invariant: before anything is planned, the ledger speaks of the collection that is there: a ledger that was lost is
rebuilt from the collection, and a collection that was lost makes every record doubtful.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from ingestor.core.adopting import audited, entries_from_records, forgotten
from ingestor.core.backoff import Backoff
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Usage
from ingestor.engine.embedding import Embedding
from ingestor.engine.following import Follower
from ingestor.engine.lane import Lane
from ingestor.engine.reading import Reader
from ingestor.engine.reconcile import Reconciler
from ingestor.engine.sync import Protocol
from ingestor.engine.tally import Tally
from ingestor.engine.worker import Worker
from ingestor.engine.writer import Writer
from ingestor.ports import Clock, Embedder, Ledger, Sink, Source, Totals, VectorStore, Watch

COLLECTION_NOTE = "collection_id"
FOREIGN_NOTE = "foreign_records"
"""How many records of the collection are not ours, as last counted."""
EMBEDDING_RETRY = Backoff(first_seconds=0.5, max_seconds=20.0, max_attempts=6)
"""Attempts of one embedding call: about half a minute, before its documents are queued for later."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """The adapters that a pipeline runs on."""

    source: Source
    reader: Reader
    ledger: Ledger
    vectors: VectorStore
    embedder: Embedder
    sink: Sink
    clock: Clock
    estimate_tokens: Callable[[str], int]


class Pipeline:
    """Queue in, records out."""

    def __init__(self, parts: Parts, *, rescan_seconds: float, limit: DeletionLimit) -> None:
        self._parts = parts
        self._rescan_seconds = rescan_seconds
        self.tally = Tally()
        self._ledger_lane = Lane("ledger")
        self._vectors_lane = Lane("vectors")
        self._sink_lane = Lane("chroma")
        self.embedding = Embedding(
            parts.embedder,
            parts.vectors,
            self._vectors_lane,
            parts.clock,
            backoff=EMBEDDING_RETRY,
            estimate_tokens=parts.estimate_tokens,
        )
        self._told_usage = Usage()
        self._writer = Writer(Protocol(parts.ledger, self._ledger_lane, parts.sink, self._sink_lane))
        self.worker = Worker(
            parts.source,
            parts.reader,
            parts.ledger,
            self._ledger_lane,
            embedding=self.embedding,
            writer=self._writer,
            clock=parts.clock,
            tally=self.tally,
            model=parts.embedder.recipe.model,
            rescan_seconds=rescan_seconds,
        )
        self.reconciler = Reconciler(
            parts.source,
            parts.ledger,
            self._ledger_lane,
            parts.clock,
            tally=self.tally,
            cutting=parts.reader.cutting,
            limit=limit,
        )

    def follower(self, watch: Watch, *, quiet_seconds: float, rules_file: str) -> Follower:
        """Make the part that follows a watch."""
        return Follower(
            self._parts.source,
            watch,
            self.reconciler,
            self._parts.ledger,
            self._ledger_lane,
            clock=self._parts.clock,
            tally=self.tally,
            cutting=self._parts.reader.cutting,
            quiet_seconds=quiet_seconds,
            rescan_seconds=self._rescan_seconds,
            rules_file=rules_file,
            wake=self.worker.wake,
        )

    async def prepare(self) -> None:
        """Make the ledger and the collection speak of the same thing. The caller holds the instance lock."""
        ledger = self._parts.ledger
        await self._ledger_lane.run(ledger.release_all)
        collection_id = self._parts.sink.collection_id
        noted = await self._ledger_lane.run(ledger.note, COLLECTION_NOTE)
        if noted == collection_id:
            await self._audit()
            return
        if noted is None:
            records = await self._sink_lane.run(lambda: list(self._parts.sink.owned()))
            entries = entries_from_records(records)
            await self._ledger_lane.run(ledger.mark, entries)
            if entries:
                _log.warning("ledger.rebuilt", documents=len(entries), records=len(records))
        else:
            await self._ledger_lane.run(ledger.rewrite, forgotten)
            _log.warning("collection.replaced", was=noted, now=collection_id)
        await self._ledger_lane.run(ledger.set_note, COLLECTION_NOTE, collection_id)

    async def _audit(self) -> None:
        """Compare all ids and metadata with the ledger, when the number of records is not what it should be.

        It is not after a crash, after a backup was restored, or after somebody has added or deleted records by hand.
        """
        ledger, sink = self._parts.ledger, self._parts.sink
        foreign = int(await self._ledger_lane.run(ledger.note, FOREIGN_NOTE) or 0)
        totals = await self._ledger_lane.run(ledger.totals)
        count = await self._sink_lane.run(sink.count)
        if count == totals.chunks + foreign:
            return
        records = await self._sink_lane.run(lambda: list(sink.owned()))
        entries = await self._ledger_lane.run(lambda: ledger.entries(ledger.glances()))
        corrected = await asyncio.to_thread(audited, entries.values(), records)
        await self._ledger_lane.run(ledger.mark, corrected)
        await self._ledger_lane.run(ledger.set_note, FOREIGN_NOTE, str(count - len(records)))
        _log.info(
            "collection.audited",
            records=count,
            expected=totals.chunks + foreign,
            foreign=count - len(records),
            corrected_documents=len(corrected),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.TaskGroup]:
        """Run embedding and writing for the time of the block; a part that dies ends the block with its error."""
        async with asyncio.TaskGroup() as tasks:
            served = [tasks.create_task(self.embedding.run()), tasks.create_task(self._writer.run())]
            yield tasks
            for task in served:
                task.cancel()

    async def tell_usage(self) -> None:
        """Add what was spent since the last call to the ledger's counters."""
        usage = self.embedding.usage
        spent = usage - self._told_usage
        if spent != Usage():
            self._told_usage = usage
            await self._ledger_lane.run(self._parts.ledger.add_usage, spent)

    async def set_note(self, name: str, value: str) -> None:
        """Keep a note in the ledger."""
        await self._ledger_lane.run(self._parts.ledger.set_note, name, value)

    async def totals(self) -> Totals:
        """What the ledger counts."""
        return await self._ledger_lane.run(self._parts.ledger.totals)

    async def close(self) -> None:
        """Let calls that run finish, and let go of the threads."""
        lanes = {"vectors": self._vectors_lane, "chroma": self._sink_lane, "ledger": self._ledger_lane}
        for name, lane in lanes.items():
            if not lane.close():
                _log.warning("lane.left_behind", lane=name, reason="a call did not end in time; its document heals")
        await self._parts.embedder.close()
