"""The pipeline: the parts of the engine, put together for one source and one collection.

Pipelines of one process share what must not be had twice (`Services`): Chroma and the vector store have one thread
each, and a model has one line of calls, one rate and one budget, whoever asks for vectors.

Invariant: before anything is planned, the ledger speaks of the collection that is there: a ledger that was lost is
rebuilt from the collection, and a collection that was lost makes every record doubtful.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog

from ingestor.core.auditing import forgotten
from ingestor.core.backoff import Backoff
from ingestor.core.errors import CHROMA, ServiceUnavailable, TransientError
from ingestor.core.guarding import DeletionLimit
from ingestor.core.owning import BEAT_SECONDS
from ingestor.core.pacing import Allowance
from ingestor.engine.account import Account
from ingestor.engine.embedding import Embedding
from ingestor.engine.following import Follower
from ingestor.engine.gate import Gate
from ingestor.engine.guard import holding_in
from ingestor.engine.in_work import InWork
from ingestor.engine.intake import Intake
from ingestor.engine.looking import Looker
from ingestor.engine.measured import MeasuredEmbedder, MeasuredSink
from ingestor.engine.pace import Pace
from ingestor.engine.patience import PATIENCE_SECONDS, Patience, PatientLane
from ingestor.engine.reading import Reader
from ingestor.engine.reconcile import Reconciled, Reconciler
from ingestor.engine.sync import Protocol
from ingestor.engine.tally import Tally
from ingestor.engine.verify import Audit, Auditor
from ingestor.engine.worker import Worker
from ingestor.engine.writer import Writer
from ingestor.ports import Embedder, Lane, Ledger, Runtime, Sink, Source, Totals, VectorStore, Watch

COLLECTION_NOTE = "collection_id"
EMBEDDING_RETRY = Backoff(first_seconds=0.5, max_seconds=20.0, max_attempts=6)
"""Attempts of one embedding call: about half a minute, before its documents are queued for later."""

_UNLIMITED = Allowance()

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
    runtime: Runtime
    estimate_tokens: Callable[[str], int]
    name: str = ""
    """Of the source, where there are several: the documents of two sources may share a collection."""
    endpoint: str = "the embedding model"
    """What gives vectors, as messages name it: the URL of an endpoint, or a model of this machine."""
    is_sampled: bool = False
    """Whether the model may become another one behind its name, and is watched for that."""


@dataclass(frozen=True, slots=True)
class Services:
    """What pipelines of one process share."""

    embedder: Embedder
    calls: MeasuredEmbedder
    """The same one, as `embedding` asks it."""
    embedding: Embedding
    gate: Gate
    pace: Pace
    account: Account
    vectors_lane: Lane
    sink_lane: Lane


class Pipeline:
    """Queue in, records out. `beside` are pipelines of this process that were made before, and are closed after it.

    What it spends is counted by the ledger of `counts_with`, one of these; None: by its own.
    """

    def __init__(  # noqa: PLR0913 - the settings of a source, named one by one
        self,
        parts: Parts,
        *,
        rescan_seconds: float,
        limit: DeletionLimit,
        allowance: Allowance = _UNLIMITED,
        beside: "Sequence[Pipeline]" = (),
        counts_with: "Pipeline | None" = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._parts = parts
        self.name = parts.name
        self.runtime = parts.runtime
        self.rescan_seconds = rescan_seconds
        self.tally = Tally()
        self._ledger_lane = PatientLane(parts.runtime.lane("ledger"), Patience(parts.runtime, patience_seconds))
        self._owned_lanes: dict[str, Lane] = {"ledger": self._ledger_lane}
        same = [other.services for other in beside if other.services.embedder is parts.embedder]
        self.has_own_model = not same
        """Whether it is the first one of those that share its model."""
        self.services: Services = (
            same[0]
            if same
            else self._new_services(allowance, beside[0].services if beside else None, counts_with or self)
        )
        self.account, self.embedding = self.services.account, self.services.embedding
        self._vectors_lane, self._sink_lane = self.services.vectors_lane, self.services.sink_lane
        self.sink = MeasuredSink(parts.sink, parts.runtime)
        looker = Looker(parts.source, parts.runtime, cutting=parts.reader.cutting)
        self.in_work = InWork()
        self._intake = Intake(parts.ledger, self._ledger_lane, parts.runtime, tally=self.tally, in_work=self.in_work)
        self.writer = Writer(Protocol(parts.ledger, self._ledger_lane, self.sink, self._sink_lane), looker)
        self.worker = Worker(
            looker,
            parts.reader,
            parts.ledger,
            self._ledger_lane,
            in_work=self.in_work,
            embedding=self.embedding,
            writer=self.writer,
            runtime=parts.runtime,
            tally=self.tally,
            model=parts.embedder.recipe.model,
            source_name=parts.name,
            owner_tag=parts.sink.ours.tag,
            rescan_seconds=rescan_seconds,
        )
        self.auditor = Auditor(
            parts.source,
            parts.reader,
            parts.ledger,
            self._ledger_lane,
            sink=self.sink,
            sink_lane=self._sink_lane,
            vectors=parts.vectors,
            vectors_lane=self._vectors_lane,
            runtime=parts.runtime,
            recipe=parts.embedder.recipe,
            source_name=parts.name,
        )
        self._neighbours: Sequence[Pipeline] = ()
        self._is_first = True
        self.reconciler = Reconciler(
            parts.source,
            parts.ledger,
            self._ledger_lane,
            parts.runtime,
            looker=looker,
            tally=self.tally,
            in_work=self.in_work,
            intake=self._intake,
            cutting=parts.reader.cutting,
            limit=limit,
        )

    def _new_services(self, allowance: Allowance, shared: Services | None, counts_with: "Pipeline") -> Services:
        parts = self._parts
        if shared is None:
            self._owned_lanes |= {name: parts.runtime.lane(name) for name in ("vectors", "chroma")}
        vectors_lane = shared.vectors_lane if shared else self._owned_lanes["vectors"]
        account = counts_with.new_account(allowance.tokens_per_day)
        calls = MeasuredEmbedder(parts.embedder, parts.runtime, parts.endpoint)
        pace = Pace(parts.runtime, EMBEDDING_RETRY, allowance, max_calls=parts.embedder.max_concurrency)
        embedding = Embedding(
            calls,
            parts.vectors,
            vectors_lane,
            parts.runtime,
            pace=pace,
            account=account,
            estimate_tokens=parts.estimate_tokens,
            held=lambda: gate.held(),  # noqa: PLW0108 - the gate is made below: it needs what embeds
        )
        sample = embedding.sample if parts.is_sampled else None
        gate = Gate(parts.ledger, self._ledger_lane, parts.runtime, parts.embedder.recipe, sample)
        sink_lane = shared.sink_lane if shared else self._owned_lanes["chroma"]
        return Services(parts.embedder, calls, embedding, gate, pace, account, vectors_lane, sink_lane)

    def new_account(self, tokens_per_day: int | None) -> Account:
        """An account of what is spent that the ledger of this source keeps."""
        return Account(
            self._parts.ledger,
            self._ledger_lane,
            self.runtime,
            telling_lane=self._ledger_lane.impatient,
            tokens_per_day=tokens_per_day,
        )

    def follower(self, watch: Watch, *, quiet_seconds: float, rules_file: str) -> Follower:
        """Make the part that follows a watch."""
        follower = Follower(
            self._parts.source,
            watch,
            self.reconciler,
            self._parts.ledger,
            self._ledger_lane,
            runtime=self.runtime,
            tally=self.tally,
            in_work=self.in_work,
            intake=self._intake,
            cutting=self._parts.reader.cutting,
            quiet_seconds=quiet_seconds,
            rescan_seconds=self.rescan_seconds,
            rules_file=rules_file,
            wake=self.worker.wake,
        )
        self.worker.rest_seconds = follower.rest_seconds
        return follower

    def share_collection(self, neighbours: "Sequence[Pipeline]", *, is_first: bool) -> None:
        """Know the other sources of this collection. The first one looks after what no source has written."""
        self._neighbours = neighbours
        self._is_first = is_first
        self.auditor.share_collection([other.auditor for other in neighbours], is_first=is_first)

    async def prepare(self) -> None:
        """Make the ledger and the collection speak of the same thing. The caller holds the instance lock."""
        ledger = self._parts.ledger
        await self._ledger_lane.run(ledger.release_all)
        collection_id = self._parts.sink.collection_id
        noted = await self._ledger_lane.run(ledger.note, COLLECTION_NOTE)
        if noted == collection_id:
            if await self.auditor.is_off():
                await self.correct(await self.auditor.audit(is_alone=True))
            return
        if noted is None:
            found = await self.auditor.audit(is_alone=True)
            adopted = await self.auditor.amend(found)
            if adopted:
                _log.warning("ledger.rebuilt", documents=adopted, records=found.records)
        else:
            await self._ledger_lane.run(ledger.rewrite, forgotten)
            await self.set_tombstones(0)
            _log.warning("collection.replaced", was=noted, now=collection_id)
            if await self.count():
                await self.correct(await self.auditor.audit(is_alone=True))
        await self._ledger_lane.run(ledger.set_note, COLLECTION_NOTE, collection_id)

    async def correct(self, audit: Audit) -> int:
        """Let the ledger say what an audit found; returns how many documents the next reconcile finds different."""
        corrected = await self.auditor.amend(audit)
        kinds = Counter(finding.kind.value for finding in audit.findings)
        _log.info(
            "collection.audited",
            records=audit.records,
            foreign=audit.foreign,
            corrected_documents=corrected,
            found=dict(kinds),
        )
        return corrected

    async def confirm(self) -> None:
        """Raise `CollectionLost` when the collection does not bear its name any more.

        Raises `ForeignCollection` when somebody else has taken it over, and `ServiceUnavailable` where Chroma does not
        answer; then it is taken for away until it does.
        """
        try:
            await self._sink_lane.run(self.sink.confirm)
        except ServiceUnavailable as error:
            self.tally.chroma_away = error.sentence
            if self.tally.chroma_away_since_seconds is None:
                self.tally.chroma_away_since_seconds = self.runtime.monotonic_seconds()
            raise
        self.tally.chroma_away_since_seconds = None

    async def is_idle(self) -> bool:
        """Whether nothing is in work and nothing is queued that this collection is for."""
        for pipeline in (self, *self._neighbours):
            if pipeline.worker.in_work or await pipeline.queued():
                return False
        return True

    @property
    def outage(self) -> str:
        """What work, or whoever asks, has to wait for, as it was said last; empty when there is nothing."""
        away = self.tally.chroma_away if self.is_chroma_away else ""
        return self.storage_outage or self.tally.outage or away or self.embedding.complaint

    @property
    def storage_outage(self) -> str:
        """Why nothing can be kept on our own disk just now; empty when it can."""
        error = self._ledger_lane.patience.error
        return error.sentence if error else self.embedding.storage_outage

    def wait_for_ledger(self) -> None:
        """From now on wait for the ledger however long its disk is full or fails: without it nothing can be done."""
        self._ledger_lane.patience.most_seconds = float("inf")

    @property
    def next_call_seconds(self) -> float | None:
        """When a provider that documents wait for is asked again, since the epoch; None when it may be asked now."""
        return self.embedding.next_call_seconds if self.tally.outage or self.embedding.complaint else None

    @property
    def is_chroma_away(self) -> bool:
        """Whether Chroma did not answer when it was looked after last."""
        return self.tally.chroma_away_since_seconds is not None

    @property
    def chroma_fails_since_seconds(self) -> float | None:
        """Since when Chroma has written nothing that it was asked to, by the monotonic clock; None when it does."""
        return self.tally.chroma_fails_since_seconds

    def chroma_stuck_seconds(self) -> float:
        """For how long Chroma has written nothing that it was asked to; 0 when it does."""
        return self._passed_seconds(self.tally.chroma_fails_since_seconds)

    def chroma_failing_seconds(self) -> float:
        """For how long Chroma has done nothing that it was asked, or has not answered; 0 when it does."""
        return max(self._passed_seconds(self.tally.chroma_away_since_seconds), self.chroma_stuck_seconds())

    def _passed_seconds(self, since_seconds: float | None) -> float:
        return 0.0 if since_seconds is None else self.runtime.monotonic_seconds() - since_seconds

    async def hasten(self, service: str = CHROMA) -> None:
        """Have what waits for a service tried again now: it is back."""
        await self._ledger_lane.run(self._parts.ledger.hasten, self.runtime.now_seconds(), service)
        self.worker.wake()

    async def queued(self) -> int:
        """How many paths are queued or in work anywhere, but for those that are retried later."""
        waiting = await self._ledger_lane.run(self._parts.ledger.waiting)
        return sum(1 for problem in waiting.values() if problem is None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.TaskGroup]:
        """Run embedding and writing for the time of the block; a part that dies ends the block with its error."""
        async with running([self]) as tasks:
            yield tasks

    @contextmanager
    def named_in_logs(self) -> Iterator[None]:
        """Where there are several sources, what is logged within, and by tasks that begin within, bears its name."""
        with structlog.contextvars.bound_contextvars(**({"source": self.name} if self.name else {})):
            yield

    async def reconcile(self) -> Reconciled:
        """Compare the whole folder with the ledger, and queue what differs. Raises what the reconciler raises."""
        with self.named_in_logs():
            return await self.reconciler.reconcile()

    async def run_services(self) -> None:
        """Embed and write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            with self.named_in_logs():
                tasks.create_task(self.writer.run())
            if self.has_own_model:
                tasks.create_task(self.embedding.run())
            if self._is_first:
                with self.named_in_logs():
                    tasks.create_task(self._keep_collection())

    async def _keep_collection(self) -> None:
        """Say again and again that this process works on the collection. Raises `CollectionLost`, `ForeignCollection`.

        While Chroma is away nobody else is told either that the collection is free.
        """
        is_told = False
        while True:
            await self.runtime.sleep(BEAT_SECONDS)
            try:
                await self._sink_lane.run(self.sink.keep)
            except TransientError as error:
                if not is_told:
                    _log.warning("collection.not_kept", reason=str(error), remedy=error.remedy)
                is_told = True
            else:
                is_told = False

    async def open_embedder(self) -> None:
        """Get the model ready for its first call, as far as that takes neither money nor much memory."""
        await self._parts.embedder.open()

    async def watch_model(self) -> None:
        """See that it is the same model still, until cancelled; of several that share it, the first one does."""
        if self.has_own_model:
            await self.services.gate.watch_model()

    async def set_note(self, name: str, value: str) -> None:
        """Keep a note in the ledger."""
        await self._ledger_lane.run(self._parts.ledger.set_note, name, value)

    async def count(self) -> int:
        """How many records the collection holds, those of others included."""
        return await self._sink_lane.run(self.sink.count)

    async def tombstones(self) -> int:
        """How many records were deleted since the index was made."""
        return await self._ledger_lane.run(self._parts.ledger.tombstones)

    async def set_tombstones(self, count: int) -> None:
        """Count tombstones from there."""
        await self._ledger_lane.run(self._parts.ledger.set_tombstones, count)

    async def totals(self) -> Totals:
        """What the ledger counts."""
        return await self._ledger_lane.run(self._parts.ledger.totals)

    async def held(self) -> Collection[str]:
        """The paths whose deletion waits for approval."""
        return (await self._ledger_lane.run(holding_in, self._parts.ledger)).waiting

    async def close(self) -> None:
        """Let calls that run finish, and let go of the threads."""
        for name, lane in reversed(self._owned_lanes.items()):
            if not lane.close():
                _log.warning("lane.left_behind", lane=name, reason="a call did not end in time; its document heals")
        if self.has_own_model:
            await self._parts.embedder.close()


@asynccontextmanager
async def running(pipelines: Sequence[Pipeline]) -> AsyncIterator[asyncio.TaskGroup]:
    """Run embedding and writing for the time of the block; a part that dies ends the block with its error.

    To be given all that share a model, or only the one that was made first would get vectors.
    """
    async with asyncio.TaskGroup() as tasks:
        served = [tasks.create_task(pipeline.run_services()) for pipeline in pipelines]
        yield tasks
        for task in served:
            task.cancel()
