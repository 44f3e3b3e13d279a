"""The worker: takes changes from the queue, finds out what the folder holds now, and makes Chroma hold the same.

Theory of operation
-------------------
Every change is a task of its own: look, read, cut (on threads), plan, wait for vectors, hand over to the one writer.
Texts of all tasks meet in `Embedding`, their writes in `Writer`. Wherever tasks wait, live changes go before the
backfill, and leave it a share.

A document belongs to one task at a time: its id is *claimed* from planning until its write has ended. A new path adopts
the document of a path that is gone (a rename), so a path that is gone waits until the present paths leased before it
have been planned, and then for whoever has its document: mostly nothing is left to do but to acknowledge it. Paths that
are gone are leased many at once (a folder was renamed), so those of a lease are looked at together, in one call each.
Ledger answers come back in the order of the calls (`Lane`), so an entry that was read before a rival committed is seen
before the rival lets go of its claim: a claim that is free means that the entry is current.

Invariant: a change leaves the queue in the very transaction that says what Chroma holds, or not at all. A fault of one
document never stops another; what failed is a Problem, or is queued with its reason.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import structlog

from ingestor.core.backoff import Backoff
from ingestor.core.errors import (
    BudgetSpent,
    ChromaUnavailable,
    DocumentError,
    TransientError,
    UnconvertibleDocument,
    UncuttableDocument,
    UndecodableDocument,
    UnstableDocument,
)
from ingestor.core.fingerprint import document_id_of
from ingestor.core.latency import waited_seconds
from ingestor.core.model import UNKNOWN_STAT, Change, Entry, Outcome, Plan, Priority, Problem, Stage, Stat, Text
from ingestor.core.planning import plan_document, plan_problem, plan_removal, plan_uncut
from ingestor.core.waits import bounded_wait_seconds
from ingestor.engine.budget import Budget
from ingestor.engine.embedding import Embedding
from ingestor.engine.news import happens_within
from ingestor.engine.reading import Reader
from ingestor.engine.sync import Write
from ingestor.engine.tally import Tally
from ingestor.engine.writer import Writer
from ingestor.ports import Lane, Ledger, Runtime, Source

MAX_DOCUMENTS = 1024
"""Documents in work at once."""
LIVE_ROOM = 64
"""Places besides, for live changes that come while all are taken."""
MIN_ROOM = 128
"""Free places before more changes are leased: a lease is a transaction, and one a document would cost too much."""
MAX_BYTES = {Priority.LIVE: 16 * 1024 * 1024, Priority.BACKFILL: 48 * 1024 * 1024}
"""Bytes of the files in work at once. Each kind has its own, so that a live change does not wait for the backfill."""
MAX_READS = 4
"""Files of the backfill that are read, cut and planned at once."""
MAX_LIVE_READS = 8
"""Live ones: some of them wait for the ledger, which waits for the disk; `MAX_BYTES` bounds what they hold."""
POLL_SECONDS = 1.0
"""How often the queue is looked at for what another process queued (`ingestor retry`)."""
CLOCK_STEP_SECONDS = 5.0
"""The wall clock was set back when it falls behind by more; less is the daily work of NTP."""
IDLE_SECONDS = 2.0
"""A run until idle still waits for what is due within this time."""

RETRY_NOTE = "retry_asked_seconds"
"""When somebody last asked for a retry, in whichever process, since the epoch."""
RETRY = Backoff(first_seconds=5.0, max_seconds=300.0, max_attempts=8)
"""After an outside service failed. When the attempts are used up, the next one comes with the next rescan."""
REST = Backoff(first_seconds=0.25, max_seconds=30.0, max_attempts=12)
"""After a file changed while it was read, or its document was in another task's hands."""

_STAGES: dict[type[DocumentError], Stage] = {
    UndecodableDocument: Stage.DECODE,
    UnconvertibleDocument: Stage.DECODE,
    UncuttableDocument: Stage.CUT,
}
"""Stages that are one step for the worker."""

_CARRIED_OUT = frozenset({Outcome.ADDED, Outcome.CHANGED, Outcome.RENAMED, Outcome.DELETED})
"""Outcomes after which the collection is what somebody has waited for."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Task:
    """A change, what a first look at its path has found, and the plans it has to wait for."""

    change: Change
    stat: Stat | None
    error: DocumentError | TransientError | None
    planned: "asyncio.Future[None]"
    claim: "_Claim"
    removed: Entry | None = None
    """Of a path that is gone: the entry that goes with it, claimed."""
    stage: Stage = Stage.READ
    """How far it has come."""

    @property
    def path(self) -> str:
        return self.change.path

    @property
    def is_gone(self) -> bool:
        return self.stat is None and self.error is None


class Worker:
    """Processes changes; `Embedding.run` and `Writer.run` must be running."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        source: Source,
        reader: Reader,
        ledger: Ledger,
        ledger_lane: Lane,
        *,
        embedding: Embedding,
        writer: Writer,
        runtime: Runtime,
        tally: Tally,
        model: str,
        source_name: str,
        rescan_seconds: float,
    ) -> None:
        self._source = source
        self._reader = reader
        self._ledger = ledger
        self._ledger_lane = ledger_lane
        self._embedding = embedding
        self._writer = writer
        self._runtime = runtime
        self._tally = tally
        self._model = model
        self._source_name = source_name
        self._rescan_seconds = rescan_seconds
        self._claims: dict[str, _Held] = {}
        self._wanted: dict[str, str] = {}
        """Document id -> the new path that waits for it, until a turn of that path ends and is not postponed."""
        self._unplanned: set[asyncio.Future[None]] = set()
        self.in_work = 0
        """How many documents are in work."""
        self._budgets = {priority: Budget(limit_bytes) for priority, limit_bytes in MAX_BYTES.items()}
        self._reads = {
            Priority.LIVE: asyncio.Semaphore(MAX_LIVE_READS),
            Priority.BACKFILL: asyncio.Semaphore(MAX_READS),
        }
        # A conversion may take a minute, on a thread that text files need as well; one is kept for live changes.
        self._conversions = {
            Priority.LIVE: asyncio.Semaphore(1),
            Priority.BACKFILL: asyncio.Semaphore(max(1, reader.max_conversions - 1)),
        }
        self._news = asyncio.Event()
        self._has_live_news = False
        self._clock_lead_seconds = runtime.now_seconds() - runtime.monotonic_seconds()
        self._is_stopping = False
        self._is_queue_empty = False
        self._outage_stage = Stage.READ
        self._heeded_seconds = runtime.now_seconds()
        """When somebody last asked for a retry that this process knows of."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in work, and nothing was queued when the queue was looked at last."""
        return self._is_queue_empty and not self.in_work and not self._news.is_set()

    def stop(self) -> None:
        """Take no more changes: `run` returns when those in work have ended."""
        self._is_stopping = True
        self._news.set()

    def wake(self) -> None:
        """Say that the queue has something new."""
        self._has_live_news = True
        self._news.set()

    async def run(self, *, until_idle: bool = False) -> None:
        """Work until cancelled, or until nothing is in work and nothing will be due for `IDLE_SECONDS`."""
        async with asyncio.TaskGroup() as tasks:
            while not self._is_stopping:
                self._news.clear()
                room = MAX_DOCUMENTS - self.in_work
                is_full = room < MIN_ROOM
                if is_full:
                    room += LIVE_ROOM
                    if room <= 0 or not self._has_live_news:
                        await self._news.wait()  # the end of a task is news
                        continue
                self._has_live_news = False
                await self._see_that_clock_is_not_set_back()
                leased = await self._lease(tasks, room, live_only=is_full)
                if is_full or leased == room:
                    continue
                due_seconds = await self._due_seconds()
                self._is_queue_empty = due_seconds == float("inf")
                if until_idle and not self.in_work and due_seconds > IDLE_SECONDS:
                    return
                await happens_within(self._news, min(due_seconds, POLL_SECONDS))

    async def _lease(self, tasks: asyncio.TaskGroup, room: int, *, live_only: bool) -> int:
        """Begin work on at most `room` changes; returns on how many."""
        now_seconds = self._runtime.now_seconds()
        changes = await self._ledger_lane.run(self._ledger.lease, room, now_seconds, live_only=live_only)
        if not changes:
            return 0
        if self._embedding.next_call_seconds is not None:
            await self._heed_retry()
        looks = await self._runtime.in_thread(self._look, [change.path for change in changes])
        loop = asyncio.get_running_loop()
        leased = [
            _Task(change, stat, error, loop.create_future(), _Claim(self._claims, change.path))
            for change, (stat, error) in zip(changes, looks, strict=True)
        ]
        self.in_work += len(leased)
        present = [task for task in leased if not task.is_gone]
        self._unplanned.update(task.planned for task in present)
        for task in present:
            tasks.create_task(self._work(task))
        if len(present) < len(leased):
            gone = [task for task in leased if task.is_gone]
            tasks.create_task(self._work_on_gone(tasks, gone, tuple(self._unplanned)))
        return len(leased)

    async def _heed_retry(self) -> None:
        """Have the provider asked now if somebody has asked for a retry since it wanted to be left alone."""
        asked_seconds = await self._ledger_lane.run(self._ledger.note, RETRY_NOTE)
        if asked_seconds is not None and float(asked_seconds) > self._heeded_seconds:
            self._heeded_seconds = float(asked_seconds)
            self._embedding.release()
            _log.info("embedding.released")

    def _look(self, paths: Sequence[str]) -> list[tuple[Stat | None, DocumentError | TransientError | None]]:
        looks: list[tuple[Stat | None, DocumentError | TransientError | None]] = []
        for path in paths:
            try:
                looks.append((self._source.look(path), None))
            except (DocumentError, TransientError) as error:
                looks.append((None, error))
        return looks

    async def _see_that_clock_is_not_set_back(self) -> None:
        """Times in the queue are those of the wall clock, because they outlive the process."""
        lead_seconds = self._runtime.now_seconds() - self._runtime.monotonic_seconds()
        if lead_seconds < self._clock_lead_seconds - CLOCK_STEP_SECONDS:
            _log.warning("clock.set_back", seconds=round(self._clock_lead_seconds - lead_seconds, 1))
            await self._ledger_lane.run(self._ledger.make_due, self._runtime.now_seconds())
        self._clock_lead_seconds = lead_seconds

    async def _due_seconds(self) -> float:
        due = await self._ledger_lane.run(self._ledger.next_due_seconds)
        return float("inf") if due is None else max(0.0, due - self._runtime.now_seconds())

    async def _work(self, task: _Task) -> None:
        try:
            try:
                async with self._budgets[task.change.priority].taken(task.stat.size_bytes if task.stat else 0):
                    await self._process_or_set_aside(task)
            finally:
                task.claim.leave_all()
            self._want_no_more(task.path)
        except TransientError as error:
            await self._postpone(task, error)
        finally:
            self._planned(task)
            self.in_work -= 1
            self._news.set()

    async def _work_on_gone(
        self, tasks: asyncio.TaskGroup, gone: Sequence[_Task], rivals: Collection["asyncio.Future[None]"]
    ) -> None:
        """Acknowledge what was renamed, or was never known; the others get a task each once their claim is had."""
        if rivals:
            await asyncio.wait(rivals)
        looked_at, waiting = list(gone), dict[_Task, asyncio.Future[None]]()
        while looked_at:
            paths = [task.path for task in looked_at]
            looks = await self._runtime.in_thread(self._look, paths)
            try:
                known = await self._ledger_lane.run(self._ledger.entries, paths)
            except TransientError as error:
                known, looks = {}, [(None, error)] * len(paths)
            # Nothing is awaited until all that is free is claimed: from here on no rival can make the entries stale.
            unknown: list[_Task] = []
            for task, look in zip(looked_at, looks, strict=True):
                entry = known.get(task.path)
                task.error = self._obstacle(task.path, look, entry)
                if task.error is None and entry is None:
                    unknown.append(task)
                elif task.error is None and entry is not None and not task.claim.try_take(entry):
                    waiting[task] = self._claims[entry.document_id].left
                else:
                    task.removed = entry
                    tasks.create_task(self._work(task))
            if unknown:
                await self._finish_unknown(unknown)
            if waiting:
                await asyncio.wait(set(waiting.values()), return_when=asyncio.FIRST_COMPLETED)
            looked_at = [task for task, left in waiting.items() if left.done()]
            for task in looked_at:
                del waiting[task]

    def _obstacle(
        self, path: str, look: tuple[Stat | None, DocumentError | TransientError | None], entry: Entry | None
    ) -> DocumentError | TransientError | None:
        """Why nothing may be concluded now from a path's having been gone at its lease."""
        stat, error = look
        if stat is not None or isinstance(error, DocumentError):
            return UnstableDocument(f"{path} has come back while it was taken for deleted")
        if error is None and entry is not None and entry.document_id in self._wanted:
            return UnstableDocument(f"{path} was renamed to {self._wanted[entry.document_id]}")
        return error

    async def _finish_unknown(self, gone: Sequence[_Task]) -> None:
        try:
            await self._acknowledge([task.change for task in gone])
            for task in gone:
                self._want_no_more(task.path)
        except TransientError as error:
            for task in gone:
                await self._postpone(task, error)
        finally:
            self.in_work -= len(gone)
            self._news.set()

    async def _process_or_set_aside(self, task: _Task) -> None:
        began_seconds = self._runtime.monotonic_seconds()
        try:
            if task.error is not None:
                raise task.error
            await self._process(task, began_seconds)
        except DocumentError as error:
            task.claim.leave_all()
            ((_, hidden),) = await self._runtime.in_thread(self._look, [task.path])
            if isinstance(hidden, DocumentError):
                # Its folder may not be entered. That is the folder's problem, told by the reconcile; what is not known
                # of the file is no reason to take its records away.
                await self._acknowledge([task.change])
                return
            await self._set_aside(task, error, began_seconds)

    async def _process(self, task: _Task, began_seconds: float) -> None:
        if task.removed is not None:
            task.stage = Stage.WRITE
            await self._write(Write(plan_removal(task.removed), (), task.change), began_seconds)
            return
        if self._reader.lacks(task.path):
            # What it says is not known, and what was indexed of it stays.
            await self._acknowledge([task.change])
            return
        is_live = task.change.is_live
        turns = self._conversions if self._reader.converts(task.path) else self._reads
        with self._embedding.announced(is_live=is_live):
            # Until its texts are in the line: those behind it must not crowd the lanes that live changes need, too.
            async with turns[task.change.priority]:
                plan = await self._plan_present(task.path, task.claim)
                task.stage = Stage.EMBED
                request = await self._embedding.request([record.text for record in plan.embed], is_live=is_live)
        self._planned(task)
        write = Write(plan, await request.vectors(), task.change)
        task.stage = Stage.WRITE
        await self._write(write, began_seconds, embedded=request.embedded)

    async def _plan_present(self, path: str, claim: "_Claim") -> Plan:
        text = await self._runtime.in_thread(self._reader.text_of, path)
        before = await self._before(text, claim)
        cutting = self._reader.cutting
        if before and (plan := plan_uncut(path, text.stat, text.content_hash, before, cutting=cutting)):
            return plan
        document = await self._runtime.in_thread(self._reader.document_of, text)
        return plan_document(
            document,
            before,
            document_id=before.document_id if before else self._new_id(),
            cutting=cutting,
            model=self._model,
            now_seconds=self._runtime.now_seconds(),
        )

    def _new_id(self) -> str:
        return document_id_of(self._source_name, self._runtime.new_id())

    async def _before(self, text: Text, claim: "_Claim") -> Entry | None:
        kin = await self._ledger_lane.run(self._ledger.kin, text.path, text.stat, text.content_hash)
        for entry in kin:
            if entry.path == text.path:
                claim.take(entry)
                return entry
        # All free ones are claimed before anything is awaited: from here on no rival can make them stale.
        free = [entry for entry in kin if claim.try_take(entry)]
        looks = await self._runtime.in_thread(self._look, [entry.path for entry in free])
        gone = [entry for entry, look in zip(free, looks, strict=True) if look == (None, None)]
        for entry in free:
            if entry not in gone[:1]:
                claim.leave(entry)
        busy = [entry for entry in kin if entry not in free and entry.stat.inode == text.stat.inode]
        if busy and not gone:
            # It was renamed while an edit of it is being written: until this path has its turn again, the old path's
            # being gone must not be taken for a deletion.
            self._wanted[busy[0].document_id] = text.path
            message = f"{text.path} is the renamed form of a document that is being written"
            raise UnstableDocument(message)
        return gone[0] if gone else None

    async def _set_aside(self, task: _Task, error: DocumentError, began_seconds: float) -> None:
        known = await self._ledger_lane.run(self._ledger.entries, [task.path])
        before = known.get(task.path)
        if before is not None:
            task.claim.take(before)
        earlier = before.problem if before else None
        now_seconds = self._runtime.now_seconds()
        problem = Problem(
            stage=_STAGES.get(type(error), task.stage),
            kind=type(error).__name__,
            reason=str(error),
            remedy=error.remedy,
            attempts=earlier.attempts + 1 if earlier else 1,
            since_seconds=earlier.since_seconds if earlier else now_seconds,
        )
        plan = plan_problem(
            task.path,
            before,
            problem,
            stat=task.stat or UNKNOWN_STAT,
            document_id=before.document_id if before else self._new_id(),
        )
        await self._write(Write(plan, (), task.change), began_seconds)

    async def _postpone(self, task: _Task, error: TransientError) -> None:
        change = task.change
        is_outage = not isinstance(error, UnstableDocument)
        # Nothing was attempted that could have failed when the day's budget is spent.
        attempts = change.attempts + (not isinstance(error, BudgetSpent))
        pause_seconds = self._pause_seconds(error, attempts)
        now_seconds = self._runtime.now_seconds()
        self._tally.postponed[type(error).__name__] += 1
        problem = Problem(
            stage=task.stage,
            kind=type(error).__name__,
            reason=str(error),
            remedy=error.remedy,
            attempts=attempts,
            since_seconds=change.problem.since_seconds if change.problem else now_seconds,
            next_try_seconds=now_seconds + pause_seconds,
        )
        if isinstance(error, ChromaUnavailable) and self._tally.chroma_fails_since_seconds is None:
            self._tally.chroma_fails_since_seconds = self._runtime.monotonic_seconds()
        if is_outage:
            self._tally.outage = error.sentence
            self._outage_stage = task.stage
            _log.warning(
                "document.postponed",
                path=change.path,
                reason=str(error),
                remedy=error.remedy,
                pause_seconds=round(pause_seconds, 1),
            )
        postponed = replace(change, attempts=attempts, problem=problem, not_before_seconds=now_seconds + pause_seconds)
        await self._ledger_lane.run(self._ledger.release, [postponed])

    def _pause_seconds(self, error: TransientError, attempts: int) -> float:
        if isinstance(error, BudgetSpent):
            return error.retry_after_seconds or self._rescan_seconds
        if isinstance(error, UnstableDocument) and attempts == 1 and error.retry_after_seconds is not None:
            return error.retry_after_seconds
        backoff = REST if isinstance(error, UnstableDocument) else RETRY
        if backoff.is_exhausted(attempts):
            return max(self._rescan_seconds, bounded_wait_seconds(error.retry_after_seconds, is_quota=True) or 0.0)
        jitter = self._runtime.fraction()
        return backoff.pause_seconds(attempts, jitter, error.retry_after_seconds)

    async def _write(self, write: Write, began_seconds: float, *, embedded: int = 0) -> None:
        await self._writer.write(write)
        plan = write.plan
        tally = self._tally
        if plan.touches_chroma:
            tally.chroma_fails_since_seconds = tally.chroma_away_since_seconds = None
        tally.finished += 1
        tally.size_bytes += plan.after.stat.size_bytes if plan.after else 0
        tally.documents[plan.outcome] += 1
        tally.embedded += embedded
        tally.reused += len(plan.embed) - embedded
        tally.retagged += len(plan.retag)
        tally.dropped += len(plan.drop)
        if plan.outcome in _CARRIED_OUT:
            stat = plan.after.stat if plan.after else None
            tally.waits[write.change.priority].add(waited_seconds(write.change, stat, self._runtime.now_seconds()))
        if tally.outage and self._is_over(plan, embedded):
            tally.outage = ""
            await self._ledger_lane.run(self._ledger.hasten, self._runtime.now_seconds())
        self._tell(plan, embedded, self._runtime.monotonic_seconds() - began_seconds)

    def _is_over(self, plan: Plan, embedded: int) -> bool:
        """Whether what was just done shows that the service that failed is back."""
        match self._outage_stage:
            case Stage.EMBED:
                return embedded > 0
            case Stage.WRITE:
                return plan.touches_chroma
            case _:
                return True

    def _tell(self, plan: Plan, embedded: int, seconds: float) -> None:
        entry = plan.after or plan.before
        fields = {
            "path": plan.path,
            "document_id": entry.document_id if entry else "",
            "outcome": plan.outcome.value,
            "embedded": embedded,
            "reused": len(plan.embed) - embedded,
            "retagged": len(plan.retag),
            "dropped": len(plan.drop),
            "seconds": round(seconds, 3),
        }
        if plan.outcome is Outcome.PROBLEM and plan.after and plan.after.problem:
            problem = plan.after.problem
            _log.warning("document.problem", **fields, kind=problem.kind, reason=problem.reason, remedy=problem.remedy)
        elif plan.outcome is Outcome.UNCHANGED and not plan.touches_chroma:
            _log.debug("document.unchanged", **fields)
        else:
            _log.info("document.synced", **fields)

    async def _acknowledge(self, changes: Sequence[Change]) -> None:
        await self._ledger_lane.run(self._ledger.commit, [], changes)
        self._tally.finished += len(changes)

    def _want_no_more(self, path: str) -> None:
        for document_id in [wanted for wanted, by in self._wanted.items() if by == path]:
            del self._wanted[document_id]

    def _planned(self, task: _Task) -> None:
        self._unplanned.discard(task.planned)
        if not task.planned.done():
            task.planned.set_result(None)


@dataclass(frozen=True, slots=True)
class _Held:
    """Which path has a document, and what is settled when it lets go of it."""

    path: str
    left: "asyncio.Future[None]"


class _Claim:
    """What one task holds of the documents that all tasks may want."""

    def __init__(self, claims: dict[str, _Held], path: str) -> None:
        self._claims = claims
        self._path = path
        self._held: set[str] = set()

    def try_take(self, entry: Entry) -> bool:
        """Claim a document; False when another path has it."""
        held = self._claims.get(entry.document_id)
        if held is None:
            left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._claims[entry.document_id] = _Held(self._path, left)
            self._held.add(entry.document_id)
        return held is None or held.path == self._path

    def take(self, entry: Entry) -> None:
        """Claim a document; raises `UnstableDocument` when another path has it."""
        if not self.try_take(entry):
            message = f"{self._path} is being renamed to {self._claims[entry.document_id].path}"
            raise UnstableDocument(message)

    def leave(self, entry: Entry) -> None:
        """Let go of one document."""
        self._held.remove(entry.document_id)
        self._settle(entry.document_id)

    def leave_all(self) -> None:
        """Let go of everything that was claimed."""
        for document_id in self._held:
            self._settle(document_id)
        self._held.clear()

    def _settle(self, document_id: str) -> None:
        left = self._claims.pop(document_id).left
        if not left.done():
            left.set_result(None)
