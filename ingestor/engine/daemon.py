"""The daemon: everything that runs for as long as the process does, and its orderly end.

Invariant: a part that dies ends the process with its error (crash-only: the service manager starts it again, and the
reconcile heals); a signal ends it within the grace, with what is in work finished, or abandoned in a state that heals.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from ingestor.core.counting import counted
from ingestor.core.errors import MACHINE, TransientError
from ingestor.engine.following import NOT_NOW, Follower
from ingestor.engine.patrol import Patrol
from ingestor.engine.pipeline import Pipeline, running
from ingestor.ports import Runtime, Watch

STATE_NOTE = "daemon_state"
BEAT_SECONDS = 1.0
SUPERVISE_SECONDS = 1.0
STUCK_SECONDS = 20.0
"""How long Chroma may fail at everything before it is started again, whether it looks alive or not: its database may
be stuck, as after a full disk. The next time is four times as late."""
IN_STEP = "the collection equals the folder"
LOOKING = "what has changed is being looked at"
"""What is said of a folder, for people, when nothing is to be done, and when that is not known yet."""
GRACE_SECONDS = 5.0
"""How long documents in work may go on after a signal."""

_log = structlog.get_logger(__name__)


class ServiceNotifier(Protocol):
    """The service manager."""

    @property
    def watchdog_seconds(self) -> float | None:
        """Within how many seconds it wants a sign of life."""

    def ready(self) -> None:
        """The daemon serves."""

    def alive(self) -> None:
        """The daemon's loop turns."""

    def status(self, sentence: str) -> None:
        """What it does."""

    def stopping(self) -> None:
        """It is on its way out."""


@dataclass(eq=False, slots=True)
class Line:
    """One source that is followed: the way of its documents from the watch into the collection."""

    pipeline: Pipeline
    follower: Follower
    watch: Watch
    told_state: str = ""
    """What was last noted of it for other processes."""

    @property
    def is_behind(self) -> bool:
        """Whether something is to be done, or to be looked at, before the collection equals the folder."""
        return not self.pipeline.worker.is_idle or self.follower.is_behind

    def compared(self, *, of_several: bool) -> asyncio.Event:
        """What is set once its folder has been compared. Of several, one whose disk is away keeps nobody waiting."""
        return self.follower.begun if of_several else self.follower.reconciled


class Daemon:
    """Follows the sources until told to stop.

    `supervise` blocks and keeps an outside service alive, each second; it is given a complaint about the service, or
    "", and tells whether the service was started again. What is `beside` runs for as long as the daemon, from when
    the folders have been compared. `life` names this process to those who read what it notes of its state.
    """

    def __init__(  # noqa: PLR0913 - what it runs, beside what, and for whom
        self,
        lines: Sequence[Line],
        notifier: ServiceNotifier,
        runtime: Runtime,
        *,
        supervise: Callable[[str], bool] | None = None,
        beside: Sequence[Callable[[], Awaitable[None]]] = (),
        life: str = "",
    ) -> None:
        self._lines = lines
        self._pipelines = [line.pipeline for line in lines]
        self._notifier = notifier
        self._runtime = runtime
        self._supervise = supervise
        self._beside = beside
        self._life = life
        self._patrols = [Patrol(line.pipeline, line.follower) for line in lines]

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; raises the error of a part that died."""
        for pipeline in self._pipelines:
            pipeline.wait_for_ledger()
        async with running(self._pipelines) as tasks:
            work, others = set[asyncio.Task[None]](), list[asyncio.Task[None]]()
            for line, patrol in zip(self._lines, self._patrols, strict=True):
                with line.pipeline.named_in_logs():
                    work.add(tasks.create_task(self._work(line)))
                    others += (tasks.create_task(line.follower.run()), tasks.create_task(patrol.run()))
            others += [
                tasks.create_task(self._beat()),
                tasks.create_task(self._keep_states()),
                tasks.create_task(self._look_for_room()),
                tasks.create_task(self._supervise_service()),
                tasks.create_task(self._announce_ready()),
                *(tasks.create_task(self._later(each.watch_model)) for each in self._pipelines),
                *(tasks.create_task(self._later(each)) for each in self._beside),
            ]
            await stop.wait()
            self._notifier.stopping()
            for line in self._lines:
                line.pipeline.worker.stop()
                line.follower.begun.set()
            _log.info("daemon.stopping", in_work=sum(pipeline.worker.in_work for pipeline in self._pipelines))
            await asyncio.wait(work, timeout=GRACE_SECONDS)
            for task in (*work, *others):
                task.cancel()
        for pipeline in self._pipelines:
            await pipeline.account.tell()

    async def _work(self, line: Line) -> None:
        # What an earlier process has left in the queue may have been renamed since: its new path is queued by the
        # first comparison, and until then its being gone must not be taken for a deletion.
        await line.follower.begun.wait()
        await line.pipeline.worker.run()

    async def _announce_ready(self) -> None:
        await self._compared()
        await self._keep_state()
        self._notifier.ready()
        _log.info("daemon.ready", watching=", ".join(dict.fromkeys(line.watch.mode for line in self._lines)))
        for pipeline in self._pipelines:
            try:
                await pipeline.open_embedder()
            except Exception as error:  # noqa: BLE001 - the first call meets whatever it is again, and decides what it means
                _log.warning("embedding.not_open", reason=f"{type(error).__name__}: {error}")

    async def _later(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._compared()
        await work()

    async def _compared(self) -> None:
        """Wait until the folders have been compared."""
        for line in self._lines:
            await line.compared(of_several=len(self._lines) > 1).wait()

    async def _beat(self) -> None:
        while True:
            if self._notifier.watchdog_seconds is not None:
                self._notifier.alive()
            self._notifier.status(self._doing())
            pause_seconds = min(BEAT_SECONDS, (self._notifier.watchdog_seconds or BEAT_SECONDS * 2) / 2)
            await self._runtime.sleep(pause_seconds)

    def _doing(self) -> str:
        """What it does, for people; of several sentences that fit, the one that asks most of them."""
        for line in self._lines:
            if (watching := line.follower.watching).startswith(NOT_NOW):
                return f"the folder is watched {watching}"
        waiting = sum(pipeline.tally.expected - pipeline.tally.finished for pipeline in self._pipelines)
        outage = next((pipeline.outage for pipeline in self._pipelines if pipeline.outage), "")
        # The tally tells how much about: a path may be expected once and finished twice, or taken out of the queue.
        waiting = max(waiting, sum(pipeline.worker.in_work for pipeline in self._pipelines))
        if waiting > 0 and not all(pipeline.worker.is_idle for pipeline in self._pipelines):
            doing = counted(waiting, "1 change to do", f"{waiting} changes to do")
            return f"{doing}, waiting: {outage}" if outage else doing
        if not all(line.compared(of_several=len(self._lines) > 1).is_set() for line in self._lines):
            return "the folder is compared for the first time"
        if held := sum(pipeline.reconciler.held for pipeline in self._pipelines):
            return counted(held, "1 deletion waits for approval", f"{held} deletions wait for approval")
        if outage:
            return outage
        return LOOKING if any(line.is_behind for line in self._lines) else IN_STEP

    async def _keep_states(self) -> None:
        # Apart from the beat: a disk that is full or hangs is no reason to take the loop for dead.
        while True:
            await self._keep_state()
            await self._runtime.sleep(BEAT_SECONDS)

    async def _keep_state(self) -> None:
        for line in self._lines:
            await line.pipeline.account.tell()
            state = json.dumps(
                {
                    "life": self._life,
                    "watching": line.follower.watching,
                    "outage": line.pipeline.outage,
                    "is_behind": line.is_behind,
                    "restless": list(line.follower.restless),
                    "next_call_seconds": _minute_of(line.pipeline.next_call_seconds),
                }
            )
            # Written when it changes only: an idle daemon leaves the disk alone.
            if state != line.told_state:
                await line.pipeline.set_note(STATE_NOTE, state)
                line.told_state = state

    async def _look_for_room(self) -> None:
        """Have what waits for room on the disk tried again as soon as there is some."""
        while True:
            await self._runtime.sleep(BEAT_SECONDS)
            # Those that share a model share its vectors.
            if any([await pipeline.embedding.has_room_again() for pipeline in self._pipelines]):
                for pipeline in self._pipelines:
                    await pipeline.hasten(MACHINE)

    async def _supervise_service(self) -> None:
        if self._supervise is None:
            return
        patience_seconds, told = STUCK_SECONDS, ""
        while True:
            await self._runtime.sleep(SUPERVISE_SECONDS)
            failing_seconds = max(pipeline.chroma_stuck_seconds() for pipeline in self._pipelines)
            complaint = ""
            if not failing_seconds:
                patience_seconds = STUCK_SECONDS
            elif failing_seconds >= patience_seconds:
                complaint = f"it has failed at all it was asked for {failing_seconds:.0f} s"
                patience_seconds *= 4
            try:
                was_restarted = await self._runtime.in_thread(self._supervise, complaint)
                told = ""
                if was_restarted:
                    for patrol in self._patrols:
                        patrol.doubt()
                    for pipeline in self._pipelines:
                        await pipeline.hasten()
            except TransientError as error:
                if str(error) != told:
                    _log.error("service.down", reason=str(error), remedy=error.remedy)
                told = str(error)
                await self._runtime.sleep(error.retry_after_seconds or SUPERVISE_SECONDS)


def _minute_of(seconds: float | None) -> float | None:
    """The full minute by which a moment has come: a clock that is put right by a moment makes no other state of it."""
    return None if seconds is None else 60.0 * math.ceil(seconds / 60)
