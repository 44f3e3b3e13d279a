"""The guard: keeps the set of deletions that are held back, and judges what a comparison misses.

Invariant: what is to be held is in the ledger before anything else that the same comparison has found is queued.
"""

from collections.abc import Mapping, Sequence

import structlog

from ingestor.core.guarding import NO_DELETIONS, DeletionLimit, Holding, Verdict, judged
from ingestor.core.model import Glance, Snapshot
from ingestor.ports import Lane, Ledger, Runtime

APPROVED_NOTE = "approved_deletions"
"""Not empty when somebody has approved of deletions that no comparison has queued yet."""
KNOWN_NOTE = "held_known"
"""How many documents were known when the first of the paths was held that are held now."""
FORMER_NOTE = "held_deletions"
"""Of a ledger that was upgraded: how many deletions waited for approval, when it was not noted which."""
REMEDY = (
    "see that the folder is what it should be (mounted, complete), then run `ingestor approve`;"
    " `ingestor approve --list` names them"
)

_log = structlog.get_logger(__name__)


def holding_in(ledger: Ledger) -> Holding:
    """What a ledger holds back."""
    return Holding(ledger.held(), int(ledger.note(KNOWN_NOTE) or 0))


class Guard:
    """Judges for one source."""

    def __init__(self, ledger: Ledger, lane: Lane, runtime: Runtime, limit: DeletionLimit) -> None:
        self._ledger = ledger
        self._lane = lane
        self._runtime = runtime
        self._limit = limit
        self.held = 0
        """Deletions that wait for approval, as of the last comparison."""

    async def is_approved(self) -> bool:
        """Whether somebody has approved of deletions since the folder was last compared."""
        return bool(await self._lane.run(self._ledger.note, APPROVED_NOTE))

    async def judge(
        self, below: str, snapshot: Snapshot, glances: Mapping[str, Glance], gone: Sequence[str]
    ) -> Sequence[str] | None:
        """Those of the paths that are gone at or below a folder, which may be deleted; the others are held from now on.

        None when so much is missing from a part of the folder that only a comparison of the whole can tell.
        """
        was_held = False
        if not below:
            # Before the set is read: an approval that comes later is met by the next comparison.
            await self._clear(APPROVED_NOTE)
            was_held = await self._clear(FORMER_NOTE)
        holding = await self._lane.run(holding_in, self._ledger)
        if not gone and not holding.paths:
            self.held = 0
            return gone
        documents = None
        if below:
            totals = await self._lane.run(self._ledger.totals)
            documents = totals.documents + totals.problems
        limit = NO_DELETIONS if was_held else self._limit
        verdict = await self._runtime.in_thread(judged, gone, glances, snapshot, holding, limit, documents=documents)
        if below and verdict.joins:
            return None
        await self._keep(verdict)
        return verdict.free

    async def _keep(self, verdict: Verdict) -> None:
        if verdict.back:
            await self._lane.run(self._ledger.hold_no_more, verdict.back)
        if verdict.joins:
            if not verdict.stays:
                await self._lane.run(self._ledger.set_note, KNOWN_NOTE, str(verdict.known))
            await self._lane.run(self._ledger.hold, verdict.joins)
        held = verdict.held
        if len(held) > self.held:
            news = (*verdict.joins, *held)
            _log.error("deletions.held_back", missing=len(held), known=verdict.known, example=news[0], remedy=REMEDY)
        self.held = len(held)

    async def _clear(self, note: str) -> bool:
        found = bool(await self._lane.run(self._ledger.note, note))
        if found:
            await self._lane.run(self._ledger.set_note, note, "")
        return found
