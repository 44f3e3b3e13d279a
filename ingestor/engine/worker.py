"""The worker: takes changes from the queue, finds out what the folder holds now, and makes Chroma hold the same.

Theory of operation
-------------------
Every change is a task of its own: look, read, cut (on threads), plan, wait for vectors, hand over to the one writer.
Texts of all tasks meet in `Embedding`, their writes in `Writer`. Wherever tasks wait, live changes go before the
backfill, and leave it a share.

A path belongs to one task at a time, before it has a document, too: its row of the queue is *leased*, and its `Turn` is
registered in `InWork` from before its first look until the ledger has its outcome. The folder goes on changing
meanwhile, so three things see to it that the last state wins:

- What a hint or a comparison sees of a path in work is compared with what its task goes by, never with the ledger,
  which does not know yet. Where that differs the row grows its generation, and stays in the queue after this turn. For
  a file that is gone the task need not wait for its vectors either: it is cut short, unless it is being written.
- The writer looks again just before a write and just before its commit. A file that is gone, or another one by then, is
  not written, or is committed as what Chroma holds and not acknowledged: the task gives it back for another turn
  (`Overtaken`). A file that is overtaken twice in a row is written all the same, so that one that never rests is found.
- Between the last look and the commit nothing looks, but whoever does so then finds the path in work, or finds the
  committed entry; see `Intake`.

A document belongs to one task at a time: its id is *claimed* from planning until its write has ended. A new path adopts
the document of a path that is gone (a rename), so a path that is gone waits until the present paths leased before it
that it may have been renamed to have been planned, but not for long, and then for whoever has its document: mostly
nothing is left to do but to acknowledge it. Paths that are gone are leased many at once (a folder was renamed), so
those of a lease are looked at together, in one call each. They go before all others, and have places of their own: what
is deleted is not to be found any more, however many files wait for the model.

Ledger answers come back in the order of the calls (`Lane`), so an entry that was read before a rival committed is seen
before the rival lets go of its claim: a claim that is free means that the entry is current.

Invariant: a change leaves the queue in the very transaction that says what Chroma holds, or not at all. A fault of one
document never stops another; what failed is a Problem, or is queued with its reason.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import structlog

from ingestor.core.backoff import Backoff
from ingestor.core.errors import (
    CHROMA,
    BudgetSpent,
    ChromaUnavailable,
    DeletionHeld,
    DocumentError,
    TransientError,
    UnconvertibleDocument,
    UncuttableDocument,
    Undecided,
    UndecodableDocument,
    UnstableDocument,
)
from ingestor.core.fingerprint import document_id_of
from ingestor.core.latency import waited_seconds
from ingestor.core.model import UNKNOWN_STAT, Change, Entry, Outcome, Plan, Priority, Problem, Stage, Stat, Text
from ingestor.core.planning import plan_document, plan_problem, plan_removal, plan_uncut, plan_unknown
from ingestor.core.reconciling import Standing
from ingestor.core.settling import GONE_SECONDS
from ingestor.core.waits import bounded_wait_seconds
from ingestor.engine.budget import Budget
from ingestor.engine.embedding import Embedding
from ingestor.engine.in_work import InWork, Overtaken, Turn, seen
from ingestor.engine.looking import Look, Looker
from ingestor.engine.news import happens_within
from ingestor.engine.reading import Reader
from ingestor.engine.sync import Write
from ingestor.engine.tally import Tally
from ingestor.engine.writer import Writer
from ingestor.ports import Lane, Ledger, Runtime

MAX_DOCUMENTS = 1024
"""Documents in work at once."""
LIVE_ROOM = 64
"""Places besides, for live changes that come while all are taken."""
GONE_ROOM = 256
"""Places besides these, for what is gone: it waits for no call of the model, and must not wait behind those that do."""
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
RIVAL_SECONDS = 2.0
"""How long a path that is gone waits for the plans of files that it may have been renamed to."""
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
    turn: Turn
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
        looker: Looker,
        reader: Reader,
        ledger: Ledger,
        ledger_lane: Lane,
        *,
        in_work: InWork,
        embedding: Embedding,
        writer: Writer,
        runtime: Runtime,
        tally: Tally,
        model: str,
        source_name: str,
        owner_tag: str,
        rescan_seconds: float,
    ) -> None:
        self._looker = looker
        self._reader = reader
        self._ledger = ledger
        self._ledger_lane = ledger_lane
        self._embedding = embedding
        self._writer = writer
        self._runtime = runtime
        self._tally = tally
        self._model = model
        self._source_name = source_name
        self._owner_tag = owner_tag
        self._rescan_seconds = rescan_seconds
        self._turns = in_work
        self._overtaken = Counter[str]()
        """How often in a row a path was another one, or gone, before its turn had ended."""
        self._claims: dict[str, _Held] = {}
        self._wanted: dict[str, str] = {}
        """Document id -> the new path that waits for it, until a turn of that path ends and is not postponed."""
        self._unplanned: dict[asyncio.Future[None], Stat] = {}
        """Of present paths whose plans are not made yet: what settles then, and what was seen of the file."""
        self.rest_seconds: Callable[[str], float] = lambda _: 0.0
        """How much longer a file is left alone that changes again and again; who follows the folder knows."""
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
        self._away_stages: dict[str, Stage] = {}
        """Where on its way a document last failed for want of a service, by the service."""
        self._told_away: dict[str, float] = {}
        """Since when services are away that the log was told of here, by the monotonic clock."""
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
                if self._news.is_set():
                    self._is_queue_empty = False  # until it was looked at
                self._news.clear()
                least, room = self._room()
                self._has_live_news = False
                await self._see_that_clock_is_not_set_back()
                if room and await self._lease(tasks, room, least) == room:
                    continue
                due_seconds = await self._due_seconds(least) if room else float("inf")
                self._is_queue_empty = least is Priority.BACKFILL and due_seconds == float("inf")
                if self.is_idle:
                    # What waited may be gone, or was had without the service that it waited for.
                    await self._are_back(list(self._away_stages))
                if until_idle and not self.in_work and due_seconds > IDLE_SECONDS:
                    return
                await self._wait_for_news(least, min(due_seconds, POLL_SECONDS))

    def _room(self) -> tuple[Priority, int]:
        """How many more changes may be begun, and how urgent they have to be.

        What is gone is done in no time, and is not to be found any more: when documents that wait for the model have
        taken all places, those of live changes included, there are still places for it.
        """
        room = MAX_DOCUMENTS - self.in_work
        if room >= MIN_ROOM:
            return Priority.BACKFILL, room
        if room + LIVE_ROOM > 0:
            return Priority.LIVE, room + LIVE_ROOM
        return Priority.GONE, max(0, room + LIVE_ROOM + GONE_ROOM)

    async def _wait_for_news(self, least: Priority, seconds: float) -> None:
        """Wait until there may be something to begin, which the end of one task is not while the house is full."""
        until_seconds = self._runtime.monotonic_seconds() + seconds
        while await happens_within(self._news, until_seconds - self._runtime.monotonic_seconds()):
            if least is Priority.BACKFILL or self._is_stopping or self._has_live_news:
                return
            if MAX_DOCUMENTS - self.in_work >= MIN_ROOM:
                return
            self._news.clear()

    async def _lease(self, tasks: asyncio.TaskGroup, room: int, least: Priority) -> int:
        """Begin work on at most `room` changes; returns on how many."""
        now_seconds = self._runtime.now_seconds()
        # Nobody else leases, and every path of the lease before is registered by now.
        in_work = self._turns.paths
        changes = await self._ledger_lane.run(self._ledger.lease, room, now_seconds, least=least, in_work=in_work)
        if not changes:
            return 0
        self._is_queue_empty = False
        if self._embedding.next_call_seconds is not None:
            await self._heed_retry()
        # Between the lease and this line a path is taken for queued. Nothing is lost by that: whatever was seen of it
        # by now, the look that follows sees, too.
        turns = [await self._turns.begin(change.path) for change in changes]
        looks = await self._looker.looks([change.path for change in changes])
        loop = asyncio.get_running_loop()
        leased = [
            _Task(change, stat, error, loop.create_future(), _Claim(self._claims, change.path), turn)
            for change, turn, (stat, error) in zip(changes, turns, looks, strict=True)
        ]
        self.in_work += len(leased)
        present = [task for task in leased if not task.is_gone]
        self._unplanned.update((task.planned, task.stat or UNKNOWN_STAT) for task in present)
        for task in present:
            tasks.create_task(self._work(task))
        if len(present) < len(leased):
            tasks.create_task(self._work_on_gone(tasks, [task for task in leased if task.is_gone]))
        return len(leased)

    async def _heed_retry(self) -> None:
        """Have the provider asked now if somebody has asked for a retry since it wanted to be left alone."""
        asked_seconds = await self._ledger_lane.run(self._ledger.note, RETRY_NOTE)
        if asked_seconds is not None and float(asked_seconds) > self._heeded_seconds:
            self._heeded_seconds = float(asked_seconds)
            self._embedding.release()
            _log.info("embedding.released")

    async def _see_that_clock_is_not_set_back(self) -> None:
        """Times in the queue are those of the wall clock, because they outlive the process."""
        lead_seconds = self._runtime.now_seconds() - self._runtime.monotonic_seconds()
        if lead_seconds < self._clock_lead_seconds - CLOCK_STEP_SECONDS:
            _log.warning("clock.set_back", seconds=round(self._clock_lead_seconds - lead_seconds, 1))
            await self._ledger_lane.run(self._ledger.make_due, self._runtime.now_seconds())
        self._clock_lead_seconds = lead_seconds

    async def _due_seconds(self, least: Priority) -> float:
        due = await self._ledger_lane.run(self._ledger.next_due_seconds, least=least)
        return float("inf") if due is None else max(0.0, due - self._runtime.now_seconds())

    async def _work(self, task: _Task) -> None:
        """One turn of a path; by its end the change has left the queue, or waits in it for another turn."""
        try:
            try:
                async with AsyncExitStack() as held:
                    await self._process_or_set_aside(task, held)
            finally:
                task.claim.leave_all()
            self._finished(task)
        except Overtaken as overtaken:
            await self._look_again(task, is_gone=overtaken.is_gone)
        except TransientError as error:
            await self._postpone(task, error)
        finally:
            self._planned(task)
            self._turns.end(task.turn)
            self.in_work -= 1
            self._news.set()

    async def _work_on_gone(self, tasks: asyncio.TaskGroup, gone: Sequence[_Task]) -> None:
        """Acknowledge what was renamed, or was never known; the others get a task each once their claim is had.

        A document may have been renamed to a file that is being read just now. So this waits until the files of the
        same size that were leased before are planned, which claims what they adopt; but not for long: a file that takes
        its time to be read must not keep what is deleted findable, and costs nothing when it comes too late.
        """
        await self._wait_for_rivals([task.path for task in gone])
        looked_at, waiting = list(gone), dict[_Task, asyncio.Future[None]]()
        while looked_at:
            known = await self._look_for_obstacles(looked_at)
            # Nothing is awaited until all that is free is claimed: from here on no rival can make the entries stale.
            unknown: list[_Task] = []
            for task in looked_at:
                entry = known.get(task.path)
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

    async def _look_for_obstacles(self, gone: Sequence[_Task]) -> Mapping[str, Entry]:
        """Look at paths that were gone at their lease, and set the errors of the tasks; returns the entries."""
        paths = [task.path for task in gone]
        for task in gone:
            task.turn.looks_now()
        looks = await self._looker.looks(paths)
        try:
            known = await self._ledger_lane.run(self._ledger.entries, paths)
        except TransientError as error:
            known, looks = {}, [(None, error)] * len(paths)
        for task, look in zip(gone, looks, strict=True):
            task.error = self._obstacle(task.path, look, known.get(task.path))
            if task.error is None:
                task.turn.goes_by(None)
        return known

    async def _wait_for_rivals(self, paths: Sequence[str]) -> None:
        if not self._unplanned:
            return
        try:
            known = await self._ledger_lane.run(self._ledger.entries, paths)
        except TransientError:
            return  # it is asked again, and that failure is told
        sizes = {entry.stat.size_bytes for entry in known.values()}
        # A lost ledger has left documents to the collection, which does not know their files: any may be one of them.
        is_any = any(entry.stat.version == UNKNOWN_STAT.version for entry in known.values())
        rivals = [planned for planned, stat in self._unplanned.items() if is_any or stat.size_bytes in sizes]
        if rivals:
            await asyncio.wait(rivals, timeout=RIVAL_SECONDS)

    def _obstacle(self, path: str, look: Look, entry: Entry | None) -> DocumentError | TransientError | None:
        """Why nothing may be concluded now from a path's having been gone at its lease."""
        stat, error = look
        if stat is not None or isinstance(error, DocumentError):
            return UnstableDocument(f"{path} has come back while it was taken for deleted")
        wanted_by = self._wanted.get(entry.document_id, path) if entry else path
        # A path that has got the document that it wanted, and is gone before its turn could end, waits for nobody.
        if error is None and wanted_by != path:
            return UnstableDocument(f"{path} was renamed to {wanted_by}")
        return error

    async def _finish_unknown(self, gone: Sequence[_Task]) -> None:
        try:
            await self._acknowledge([task.change for task in gone])
            for task in gone:
                self._finished(task)
        except TransientError as error:
            for task in gone:
                await self._postpone(task, error)
        finally:
            for task in gone:
                self._turns.end(task.turn)
            self.in_work -= len(gone)
            self._news.set()

    async def _process_or_set_aside(self, task: _Task, held: AsyncExitStack) -> None:
        began_seconds = self._runtime.monotonic_seconds()
        try:
            if task.error is not None:
                raise task.error
            await self._process(task, held, began_seconds)
        except DocumentError as error:
            task.claim.leave_all()
            ((_, hidden),) = await self._looker.looks([task.path])
            if isinstance(hidden, DocumentError):
                # Its folder may not be entered. That is the folder's problem, told by the reconcile; what is not known
                # of the file is no reason to take its records away.
                await self._acknowledge([task.change])
                return
            await self._set_aside(task, error, began_seconds)

    async def _process(self, task: _Task, held: AsyncExitStack, began_seconds: float) -> None:
        if task.removed is not None:
            task.stage = Stage.WRITE
            try:
                await self._write(Write(plan_removal(task.removed), (), task.change), began_seconds)
            except DeletionHeld:
                # It is in the set of those that wait for approval, where comparisons find it again.
                await self._acknowledge([task.change])
            return
        if self._reader.lacks(task.path):
            # What it says is not known, and what was indexed of it stays.
            await self._acknowledge([task.change])
            return
        # All that is before the write may take as long as the model likes, and is in vain once the file is gone.
        async with task.turn.preparing():
            size_bytes = task.stat.size_bytes if task.stat else 0
            await held.enter_async_context(self._budgets[_kind_of(task.change)].taken(size_bytes))
            write, embedded = await self._prepare(task)
        task.stage = Stage.WRITE
        await self._write(write, began_seconds, embedded=embedded)

    async def _prepare(self, task: _Task) -> tuple[Write, int]:
        """Read, cut and plan a file, and wait for its vectors; also gives how many texts were put into the line."""
        is_live = task.change.is_live
        turns = self._conversions if self._reader.converts(task.path) else self._reads
        with self._embedding.announced(is_live=is_live):
            # Until its texts are in the line: those behind it must not crowd the lanes that live changes need, too.
            async with turns[_kind_of(task.change)]:
                plan = await self._plan_present(task)
                task.stage = Stage.EMBED
                request = await self._embedding.request([record.text for record in plan.embed], is_live=is_live)
        self._planned(task)
        vectors = await request.vectors()
        return Write(plan, vectors, task.change, is_overdue=self._is_overdue(task.path)), request.embedded

    async def _plan_present(self, task: _Task) -> Plan:
        path = task.path
        task.turn.looks_now()
        text = await self._runtime.in_thread(self._reader.text_of, path)
        task.turn.goes_by(seen(text.stat))
        before = await self._before(text, task.claim)
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
        return document_id_of(self._source_name, self._runtime.new_id(), self._owner_tag)

    async def _before(self, text: Text, claim: "_Claim") -> Entry | None:
        kin = await self._ledger_lane.run(self._ledger.kin, text.path, text.stat, text.content_hash)
        for entry in kin:
            if entry.path == text.path:
                claim.take(entry)
                return entry
        # All free ones are claimed before anything is awaited: from here on no rival can make them stale.
        free = [entry for entry in kin if claim.try_take(entry)]
        looks = await self._looker.looks([entry.path for entry in free])
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
        stat = task.stat or UNKNOWN_STAT
        if before is not None and error.is_unknown:
            plan = plan_unknown(before, problem, stat=stat, cutting=self._reader.cutting)
        else:
            document_id = before.document_id if before else self._new_id()
            plan = plan_problem(task.path, before, problem, stat=stat, document_id=document_id)
        task.turn.goes_by(seen(task.stat))
        await self._write(Write(plan, (), task.change, is_overdue=self._is_overdue(task.path)), began_seconds)

    def _is_overdue(self, path: str) -> bool:
        """Whether a file is written although it has changed again: it did so before, or is not looked at again soon."""
        return path in self._overtaken or self.rest_seconds(path) > 0

    async def _look_again(self, task: _Task, *, is_gone: bool) -> None:
        """Give a change back, because its path is another one, or gone, by now.

        It is somebody's live change from here on. It is due at once, but with growing pauses while that happens again
        and again, and not before a file that changes all the time has rested; a path that is gone waits, as always, for
        the one that it may have been renamed to.
        """
        times = self._overtaken[task.path]
        self._overtaken[task.path] += 1
        pause_seconds = GONE_SECONDS if is_gone else self.rest_seconds(task.path)
        if REST.is_exhausted(times):
            pause_seconds = max(pause_seconds, self._rescan_seconds)
        elif times:
            pause_seconds = max(pause_seconds, REST.pause_seconds(times, self._runtime.fraction(), None))
        again = replace(
            task.change,
            priority=Priority.GONE if is_gone else Priority.LIVE,
            attempts=0,
            problem=None,
            not_before_seconds=self._runtime.now_seconds() + pause_seconds,
        )
        _log.debug("document.overtaken", path=task.path, is_gone=is_gone, times=times + 1)
        await self._ledger_lane.run(self._ledger.release, [again])
        self._has_live_news = True

    async def _postpone(self, task: _Task, error: TransientError) -> None:
        change = task.change
        # Nothing was attempted that could have failed.
        attempts = change.attempts + (not isinstance(error, BudgetSpent | Undecided))
        pause_seconds = self._pause_seconds(error, attempts)
        now_seconds = self._runtime.now_seconds()
        self._tally.postponed[type(error).__name__] += 1
        problem = Problem(
            stage=task.stage,
            kind=type(error).__name__,
            reason=str(error),
            remedy=error.remedy,
            attempts=attempts,
            since_seconds=_since_seconds(change, error.service, now_seconds),
            next_try_seconds=now_seconds + pause_seconds,
            service=error.service,
        )
        if isinstance(error, ChromaUnavailable) and self._tally.chroma_fails_since_seconds is None:
            self._tally.chroma_fails_since_seconds = self._runtime.monotonic_seconds()
        if error.service:
            self._note_outage(error, task.stage)
        _log.debug("document.postponed", path=change.path, reason=str(error), pause_seconds=round(pause_seconds, 1))
        postponed = replace(change, attempts=attempts, problem=problem, not_before_seconds=now_seconds + pause_seconds)
        await self._ledger_lane.run(self._ledger.release, [postponed])

    def _note_outage(self, error: TransientError, stage: Stage) -> None:
        """Say once that a service is away, however many documents wait for it."""
        service = error.service
        if service not in self._tally.outages and not (stage is Stage.EMBED and self._embedding.is_down):
            self._told_away[service] = self._runtime.monotonic_seconds()
            _log.warning("service.away", service=service, reason=str(error), remedy=error.remedy)
        self._tally.outages.pop(service, None)
        self._tally.outages[service] = error.sentence
        self._away_stages[service] = stage

    async def _see_what_is_back(self, plan: Plan, embedded: int) -> None:
        """Let what waits for a service be tried at once when what was just done shows that it is back."""
        await self._are_back(
            [service for service, stage in self._away_stages.items() if _is_proof(plan, embedded, stage)]
        )

    async def _are_back(self, services: Sequence[str]) -> None:
        # Nothing is awaited before all of them are noted: another task may see the same.
        for service in services:
            del self._tally.outages[service], self._away_stages[service]
            if service == CHROMA:
                self._tally.chroma_fails_since_seconds = None
            if (since_seconds := self._told_away.pop(service, None)) is not None:
                seconds = self._runtime.monotonic_seconds() - since_seconds
                _log.info("service.back", service=service, seconds=round(seconds, 1))
        for service in services:
            await self._ledger_lane.run(self._ledger.hasten, self._runtime.now_seconds(), service)

    def _pause_seconds(self, error: TransientError, attempts: int) -> float:
        if isinstance(error, BudgetSpent | Undecided):
            return error.retry_after_seconds or self._rescan_seconds
        if isinstance(error, UnstableDocument) and attempts == 1 and error.retry_after_seconds is not None:
            return error.retry_after_seconds
        backoff = REST if isinstance(error, UnstableDocument) else RETRY
        if backoff.is_exhausted(attempts):
            return max(self._rescan_seconds, bounded_wait_seconds(error.retry_after_seconds, is_quota=True) or 0.0)
        jitter = self._runtime.fraction()
        return backoff.pause_seconds(attempts, jitter, error.retry_after_seconds)

    async def _write(self, write: Write, began_seconds: float, *, embedded: int = 0) -> None:
        standing = await self._writer.write(write)
        plan = write.plan
        tally = self._tally
        if plan.touches_chroma:
            tally.chroma_fails_since_seconds = tally.chroma_away_since_seconds = None
        tally.size_bytes += plan.after.stat.size_bytes if plan.after else 0
        tally.documents[plan.outcome] += 1
        tally.embedded += embedded
        tally.reused += len(plan.embed) - embedded
        tally.retagged += len(plan.retag)
        tally.dropped += len(plan.drop)
        if plan.outcome in _CARRIED_OUT and standing is Standing.AS_PLANNED:
            stat = plan.after.stat if plan.after else None
            tally.waits[write.change.priority].add(waited_seconds(write.change, stat, self._runtime.now_seconds()))
        await self._see_what_is_back(plan, embedded)
        self._tell(plan, embedded, self._runtime.monotonic_seconds() - began_seconds)
        if standing is not Standing.AS_PLANNED:
            raise Overtaken(plan.path, is_gone=standing is Standing.GONE)

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

    def _finished(self, task: _Task) -> None:
        """The ledger has acknowledged the change, unless something newer was heard of its path."""
        self._tally.finished += not task.turn.is_queued_again
        self._overtaken.pop(task.path, None)
        self._want_no_more(task.path)

    def _want_no_more(self, path: str) -> None:
        for document_id in [wanted for wanted, by in self._wanted.items() if by == path]:
            del self._wanted[document_id]

    def _planned(self, task: _Task) -> None:
        self._unplanned.pop(task.planned, None)
        if not task.planned.done():
            task.planned.set_result(None)


def _kind_of(change: Change) -> Priority:
    """Whose places a change takes: what is gone takes none of its own when it turns out to be there."""
    return Priority.LIVE if change.is_live else Priority.BACKFILL


@dataclass(frozen=True, slots=True)
class _Held:
    """Which path has a document, and what is settled when it lets go of it."""

    path: str
    left: "asyncio.Future[None]"


def _is_proof(plan: Plan, embedded: int, stage: Stage) -> bool:
    """Whether what was just done shows that a service is back for whose want that stage failed."""
    match stage:
        case Stage.EMBED:
            return embedded > 0
        case Stage.WRITE:
            return plan.touches_chroma
        case _:
            return True


def _since_seconds(change: Change, service: str, now_seconds: float) -> float:
    """Since when a change fails for want of a service, or for a reason of its own."""
    is_the_same = change.problem is not None and change.problem.service == service
    return change.problem.since_seconds if change.problem and is_the_same else now_seconds


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
