"""The patrol: looks after the collection while the daemon runs, because others may write to it, too.

Each minute it confirms that the collection bears its name and has its owner, and that it holds as many records as the
ledger says and, of a sample, the same; once after the start, every `rescan_seconds`, whenever these are not right and
after Chroma was started again it compares all ids, texts and metadata: a server whose disk was full has been seen to
acknowledge writes that it never kept.

Invariant: nothing that somebody deletes, adds, restores or alters lasts longer than `rescan_seconds`, vectors excepted:
comparing these takes as long as writing them, and is left to `ingestor verify`.
"""

import asyncio

import structlog

from ingestor.core.errors import TransientError
from ingestor.engine.following import Follower
from ingestor.engine.news import happens_within
from ingestor.engine.pipeline import Pipeline

ROUND_SECONDS = 60.0
DOUBT_SECONDS = 2.0
"""Pause between two rounds while what Chroma holds is in doubt, and work is under way."""
AWAY_SECONDS = 2.0
"""Pause between two rounds while Chroma does not answer, or fails at what it is to write: what waits for it, deletions
above all, is tried again as soon as it is back, and not when its own pause is over, which may be as long as the outage.
"""

_log = structlog.get_logger(__name__)


class Patrol:
    """Runs beside the work; what it finds is mended by a reconcile."""

    def __init__(self, pipeline: Pipeline, follower: Follower) -> None:
        self._pipeline = pipeline
        self._follower = follower
        self._audited_at_seconds: float | None = None
        self._doubt = asyncio.Event()
        self._heeded_since_seconds: float | None = None
        """Since when Chroma had failed at writes when what waits for it was hastened last."""

    def doubt(self) -> None:
        """Say that Chroma may not hold what it has acknowledged: compare as soon as no work is under way."""
        self._doubt.set()

    async def run(self) -> None:
        """Go round until cancelled. Raises `CollectionLost`, `ForeignCollection`."""
        await self._follower.reconciled.wait()
        began_seconds = self._pipeline.runtime.monotonic_seconds()
        pause_seconds = min(ROUND_SECONDS, self._pipeline.rescan_seconds)
        while True:
            was_away = self._pipeline.is_chroma_away
            try:
                await self._go_round(began_seconds)
            except TransientError as error:
                if not (was_away and self._pipeline.is_chroma_away):
                    _log.warning("patrol.put_off", reason=str(error), remedy=error.remedy)
            if self._pipeline.is_chroma_away:
                await self._pipeline.runtime.sleep(min(pause_seconds, AWAY_SECONDS))
            elif self._doubt.is_set():
                await self._pipeline.runtime.sleep(min(pause_seconds, DOUBT_SECONDS))
            else:
                await self._rest(pause_seconds)

    async def _rest(self, seconds: float) -> None:
        """Wait for the next round, which is soon when Chroma begins to fail at writes."""
        until_seconds = self._pipeline.runtime.monotonic_seconds() + seconds
        while (left_seconds := until_seconds - self._pipeline.runtime.monotonic_seconds()) > 0:
            if await happens_within(self._doubt, min(left_seconds, AWAY_SECONDS)) or self._is_news_of_failure:
                return

    @property
    def _is_news_of_failure(self) -> bool:
        return self._pipeline.chroma_fails_since_seconds not in (None, self._heeded_since_seconds)

    async def _hasten(self, *, was_away: bool) -> None:
        """Have what waits for Chroma tried now that it has answered.

        Once in each row of failures, unless it did not answer meanwhile: it may answer and fail at every write all the
        same, and then the pauses of what waits are what spares it.
        """
        if was_away or self._is_news_of_failure:
            self._heeded_since_seconds = self._pipeline.chroma_fails_since_seconds
            await self._pipeline.hasten()

    async def _go_round(self, began_seconds: float) -> None:
        was_away = self._pipeline.is_chroma_away
        await self._pipeline.confirm()
        await self._hasten(was_away=was_away)
        now_seconds = self._pipeline.runtime.monotonic_seconds()
        last_seconds = began_seconds if self._audited_at_seconds is None else self._audited_at_seconds
        is_due = now_seconds - last_seconds >= self._pipeline.rescan_seconds
        if not is_due:
            # Beside a backfill an audit would only be in the way, and no number is right for long.
            if not await self._pipeline.is_idle():
                return
            is_trusted = self._audited_at_seconds is not None and not self._doubt.is_set()
            if is_trusted and not await self._pipeline.auditor.is_off():
                return
        self._doubt.clear()  # what raises doubt from now on is a reason for another round
        found = await self._pipeline.auditor.audit()
        self._audited_at_seconds = now_seconds
        if found.corrections:
            await self._pipeline.correct(found)
            self._follower.rescan("the collection is not what was written")
