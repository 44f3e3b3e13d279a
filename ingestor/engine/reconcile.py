"""Reconcile: queue every path that differs between the folder and the ledger.

Runs at start, every `rescan_seconds`, after any doubt about events, and for a subtree when a folder came, went or
moved.

Invariant: after a reconcile and an empty queue, the ledger describes the folder as the scan saw it. A folder that
cannot be listed, or a root that is missing, deletes nothing.
"""

import asyncio
import json
from dataclasses import dataclass, replace

import structlog

from ingestor.core.model import Change, Priority
from ingestor.core.reconciling import difference
from ingestor.engine.lane import Lane
from ingestor.engine.tally import Tally
from ingestor.ports import Clock, Ledger, Source

LAST_RECONCILE_NOTE = "last_reconcile"
_AFTER_SECONDS = 0.001
"""Paths that are gone are queued behind those that are new, so that a rename is seen as one."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Counts of one reconcile."""

    present: int
    gone: int
    same: int
    skipped: int
    unreadable: int
    seconds: float


class Reconciler:
    """Compares and queues; carries nothing out itself."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self, source: Source, ledger: Ledger, lane: Lane, clock: Clock, *, tally: Tally, cutting: str
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._lane = lane
        self._clock = clock
        self._tally = tally
        self._cutting = cutting

    async def reconcile(self, below: str = "", *, priority: Priority = Priority.BACKFILL) -> Reconciled:
        """Compare the folder, or the part of it at or below a path, with the ledger, and queue what differs.

        Raises `ServiceUnavailable` when the root is missing.
        """
        began_seconds = self._clock.monotonic_seconds()
        snapshot = await asyncio.to_thread(self._source.scan, below)
        glances = await self._lane.run(self._ledger.glances, below)
        found = await asyncio.to_thread(difference, snapshot, glances, self._cutting)
        now_seconds = self._clock.now_seconds()
        change = Change(path="", priority=priority, enqueued_seconds=now_seconds, not_before_seconds=now_seconds)
        queued = await self._lane.run(self._ledger.enqueue, found.present, change)
        behind = replace(change, enqueued_seconds=now_seconds + _AFTER_SECONDS)
        queued += await self._lane.run(self._ledger.enqueue, found.gone, behind)
        self._tally.expected += queued
        reconciled = Reconciled(
            present=len(found.present),
            gone=len(found.gone),
            same=found.same,
            skipped=len(snapshot.skipped),
            unreadable=len(snapshot.unreadable),
            seconds=round(self._clock.monotonic_seconds() - began_seconds, 3),
        )
        for path, reason in snapshot.unreadable.items():
            _log.warning("folder.unreadable", path=path, reason=reason)
        if not below:
            self._tally.unchanged = found.same
            await self._keep(reconciled, now_seconds)
        return reconciled

    async def _keep(self, reconciled: Reconciled, now_seconds: float) -> None:
        fields = {
            "at_seconds": now_seconds,
            "present": reconciled.present,
            "gone": reconciled.gone,
            "same": reconciled.same,
            "skipped": reconciled.skipped,
            "unreadable": reconciled.unreadable,
            "seconds": reconciled.seconds,
        }
        await self._lane.run(self._ledger.set_note, LAST_RECONCILE_NOTE, json.dumps(fields))
        _log.info("folder.reconciled", **{key: value for key, value in fields.items() if key != "at_seconds"})
