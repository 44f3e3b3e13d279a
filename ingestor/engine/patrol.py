"""The patrol: looks after the collection while the daemon runs, because others may write to it, too.

Each minute it confirms that the collection bears its name, and that it holds as many records as the ledger says; once
after the start, every `rescan_seconds` and whenever the number is not right it compares all ids, texts and metadata.

Invariant: nothing that somebody deletes, adds, restores or alters lasts longer than `rescan_seconds`, vectors excepted:
comparing these takes as long as writing them, and is left to `ingestor verify`.
"""

import asyncio

import structlog

from ingestor.core.errors import TransientError
from ingestor.engine.following import Follower
from ingestor.engine.pipeline import Pipeline

ROUND_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class Patrol:
    """Runs beside the work; what it finds is mended by a reconcile."""

    def __init__(self, pipeline: Pipeline, follower: Follower) -> None:
        self._pipeline = pipeline
        self._follower = follower
        self._audited_at_seconds: float | None = None

    async def run(self) -> None:
        """Go round until cancelled. Raises `CollectionLost`."""
        await self._follower.reconciled.wait()
        began_seconds = asyncio.get_running_loop().time()
        pause_seconds = min(ROUND_SECONDS, self._pipeline.rescan_seconds)
        while True:
            try:
                await self._go_round(began_seconds)
            except TransientError as error:
                _log.warning("patrol.put_off", reason=str(error), pause_seconds=pause_seconds)
            await asyncio.sleep(pause_seconds)

    async def _go_round(self, began_seconds: float) -> None:
        await self._pipeline.confirm()
        now_seconds = asyncio.get_running_loop().time()
        last_seconds = began_seconds if self._audited_at_seconds is None else self._audited_at_seconds
        is_due = now_seconds - last_seconds >= self._pipeline.rescan_seconds
        if not is_due:
            # Beside a backfill an audit would only be in the way, and no number is right for long.
            if not await self._pipeline.is_idle():
                return
            if self._audited_at_seconds is not None and not await self._pipeline.auditor.is_count_off():
                return
        found = await self._pipeline.auditor.audit()
        self._audited_at_seconds = now_seconds
        if found.corrections:
            await self._pipeline.correct(found)
            self._follower.rescan("the collection is not what was written")
