"""The daemon: everything that runs for as long as the process does, and its orderly end.

Invariant: a part that dies ends the process with its error (crash-only: the service manager starts it again, and the
reconcile heals); a signal ends it within the grace, with what is in work finished, or abandoned in a state that heals.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Protocol

import structlog

from ingestor.core.errors import TransientError
from ingestor.engine.following import Follower
from ingestor.engine.patrol import Patrol
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import Watch

STATE_NOTE = "daemon_state"
BEAT_SECONDS = 1.0
SUPERVISE_SECONDS = 1.0
STUCK_SECONDS = 20.0
"""How long Chroma may fail at everything before it is started again, whether it looks alive or not: its database may
be stuck, as after a full disk. The next time is four times as late."""
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


class Daemon:
    """Follows the folder until told to stop.

    `supervise` blocks and keeps an outside service alive, each second; it is given a complaint about the service, or
    "", and tells whether the service was started again.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        follower: Follower,
        watch: Watch,
        notifier: ServiceNotifier,
        *,
        supervise: Callable[[str], bool] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._follower = follower
        self._watch = watch
        self._notifier = notifier
        self._supervise = supervise
        self._patrol = Patrol(pipeline, follower)
        self._told_state = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; raises the error of a part that died."""
        async with self._pipeline.running() as tasks:
            work = tasks.create_task(self._pipeline.worker.run())
            others = [
                tasks.create_task(self._follower.run()),
                tasks.create_task(self._patrol.run()),
                tasks.create_task(self._beat()),
                tasks.create_task(self._supervise_service()),
                tasks.create_task(self._announce_ready()),
            ]
            await stop.wait()
            self._notifier.stopping()
            self._pipeline.worker.stop()
            _log.info("daemon.stopping", in_work=self._pipeline.worker.in_work)
            await asyncio.wait({work}, timeout=GRACE_SECONDS)
            for task in (work, *others):
                task.cancel()
        await self._pipeline.account.tell()

    async def _announce_ready(self) -> None:
        await self._follower.reconciled.wait()
        await self._keep_state()
        self._notifier.ready()
        _log.info("daemon.ready", watching=self._watch.mode)
        try:
            await self._pipeline.open_embedder()
        except Exception as error:  # noqa: BLE001 - the first call meets whatever it is again, and decides what it means
            _log.warning("embedding.not_open", reason=f"{type(error).__name__}: {error}")

    async def _beat(self) -> None:
        while True:
            if self._notifier.watchdog_seconds is not None:
                self._notifier.alive()
            tally = self._pipeline.tally
            waiting = tally.expected - tally.finished
            self._notifier.status(f"{waiting} changes to do" if waiting > 0 else "the collection equals the folder")
            await self._keep_state()
            pause_seconds = min(BEAT_SECONDS, (self._notifier.watchdog_seconds or BEAT_SECONDS * 2) / 2)
            await asyncio.sleep(pause_seconds)

    async def _keep_state(self) -> None:
        state = json.dumps({"watching": self._follower.watching, "outage": self._pipeline.tally.outage})
        try:
            await self._pipeline.account.tell()
            # Written when it changes only: an idle daemon leaves the disk alone.
            if state != self._told_state:
                await self._pipeline.set_note(STATE_NOTE, state)
                self._told_state = state
        except TransientError as error:
            _log.warning("daemon.state_not_kept", reason=str(error), remedy=error.remedy)

    async def _supervise_service(self) -> None:
        if self._supervise is None:
            return
        patience_seconds = STUCK_SECONDS
        while True:
            await asyncio.sleep(SUPERVISE_SECONDS)
            failing_seconds = self._pipeline.chroma_failing_seconds()
            complaint = ""
            if not failing_seconds:
                patience_seconds = STUCK_SECONDS
            elif failing_seconds >= patience_seconds:
                complaint = f"it has failed at all it was asked for {failing_seconds:.0f} s"
                patience_seconds *= 4
            try:
                if await asyncio.to_thread(self._supervise, complaint):
                    self._patrol.doubt()
                    await self._pipeline.hasten()
            except TransientError as error:
                _log.error("service.down", reason=str(error), remedy=error.remedy)
                await asyncio.sleep(error.retry_after_seconds or SUPERVISE_SECONDS)
