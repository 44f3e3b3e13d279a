"""Reconcile: queue every path that differs between the folder and the ledger.

Runs at start, every `rescan_seconds`, after any doubt about events, and for a subtree when a folder came, went or
moved.

Invariant: after a reconcile and an empty queue, the ledger describes the folder as the scan saw it. A folder that
cannot be listed, or a root that is missing, deletes nothing; nor does a scan that misses more than `DeletionLimit`
allows (`Guard`), until somebody approves of it or the files come back.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Glance, Priority, Snapshot
from ingestor.core.paths import is_at_or_below, is_below_any
from ingestor.core.reconciling import difference
from ingestor.core.settling import GONE_SECONDS
from ingestor.engine.guard import Guard
from ingestor.engine.in_work import InWork, Seen
from ingestor.engine.intake import Intake
from ingestor.engine.looking import Looker
from ingestor.engine.tally import Tally
from ingestor.ports import Lane, Ledger, Runtime, Source

LAST_RECONCILE_NOTE = "last_reconcile"
UNREADABLE_NOTE = "unreadable_folders"
"""Folders that could not be listed, with their reasons, as JSON; the first `MAX_TOLD` of them."""
MAX_TOLD = 100
"""What is left out is told path by path, but no more than this at once."""
CONVERTER_REMEDY = "pip install 'ingestor[documents]', and name their formats in convert.formats, then start again"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Counts of one reconcile."""

    present: int
    gone: int
    same: int
    held: int
    """Deletions that wait for approval; they are not queued, and none of `gone`."""
    skipped: int
    unconverted: int
    """Files that nothing here can convert to text."""
    unreadable: int
    seconds: float


_Compared: TypeAlias = tuple[Reconciled, Mapping[str, Glance | None]]
"""Counts, and what is gone."""


class Reconciler:
    """Compares and queues; carries nothing out itself."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        source: Source,
        ledger: Ledger,
        lane: Lane,
        runtime: Runtime,
        *,
        looker: Looker,
        tally: Tally,
        in_work: InWork,
        intake: Intake,
        cutting: str,
        limit: DeletionLimit,
    ) -> None:
        self._source = source
        self._looker = looker
        self._ledger = ledger
        self._lane = lane
        self._runtime = runtime
        self._tally = tally
        self._in_work = in_work
        self._intake = intake
        self._cutting = cutting
        self._guard = Guard(ledger, lane, runtime, limit)
        self._told_left_out: frozenset[str] = frozenset()
        self._told_unconverted: frozenset[str] = frozenset()
        self._unreadable: Mapping[str, str] = {}
        self.last: Reconciled | None = None
        """What the last comparison of the whole folder has found."""
        self.last_at_seconds = 0.0
        """When it ended, since the epoch."""

    @property
    def held(self) -> int:
        """Deletions that wait for approval."""
        return self._guard.held

    async def is_approved(self) -> bool:
        """Whether somebody has approved of deletions since the folder was last compared."""
        return await self._guard.is_approved()

    async def reconcile(self) -> Reconciled:
        """Compare the folder with the ledger, and queue what differs.

        Raises `ServiceUnavailable` when the root is missing.
        """
        reconciled, gone = await self._reconcile("", Priority.BACKFILL)
        await self._intake.take_gone(gone, pause_seconds=0.0)
        return reconciled

    async def reconcile_parts(self, folders: Collection[str]) -> None:
        """Compare the parts of the folder at or below some paths, because something has just happened to them.

        What is gone from one may have come to another, so it is queued when all of them have been compared. A part that
        misses too much has the whole folder compared: only that tells a folder renamed from one deleted.
        """
        gone: dict[str, Glance | None] = {}
        for folder in sorted(folders):
            gone |= (await self._reconcile(folder, Priority.LIVE))[1]
        await self._intake.take_gone(gone, pause_seconds=GONE_SECONDS)

    async def _reconcile(self, below: str, priority: Priority) -> _Compared:
        """Compare a part, and queue what is present and differs; returns what is gone besides, unless it is held."""
        if below:
            return await self._compare(below, priority)
        async with self._looker.comparing():
            return await self._compare("", priority)

    async def _compare(self, below: str, priority: Priority) -> _Compared:
        """As `_reconcile`, at a place that is known.

        The folder is scanned first, and the ledger is asked then, so that what was committed in between is compared
        with an older look: at worst it is looked at once more. A path in work at that moment is judged by its turn at
        once, before anything else is awaited: the entry that its task is about to commit is not among the glances.
        """
        began_seconds = self._runtime.monotonic_seconds()
        snapshot = await self._runtime.in_thread(self._source.scan, below)
        glances = await self._lane.run(self._ledger.glances, below)
        in_work = self._seen_in_work(below, snapshot)
        found = await self._runtime.in_thread(difference, snapshot, glances, self._cutting)
        if below and found.gone:
            await self._looker.see_that_it_is_the_same()
        free = await self._guard.judge(below, snapshot, glances, found.gone)
        if free is None:
            return await self._reconcile("", priority)
        now_seconds = self._runtime.now_seconds()
        files = snapshot.files
        overtaken = {path for path, turn_misses in in_work.items() if turn_misses}
        present = {path: files[path] for path in found.present if in_work.get(path, True)}
        present |= {path: files[path] for path in overtaken if path in files}
        gone: dict[str, Glance | None] = {path: None for path in overtaken if path not in files and path not in glances}
        gone |= {path: glances[path] for path in free if in_work.get(path, True)}
        beside = [glance for glance in gone.values() if glance]
        await self._intake.take_present(present, priority, beside=beside)
        reconciled = Reconciled(
            present=len(found.present),
            gone=len(free),
            same=found.same,
            held=self.held,
            skipped=len(snapshot.skipped),
            unconverted=len(snapshot.unconverted),
            unreadable=len(snapshot.unreadable),
            seconds=round(self._runtime.monotonic_seconds() - began_seconds, 3),
        )
        self._tally.present += reconciled.present
        self._tally.gone += reconciled.gone
        for path, reason in snapshot.unreadable.items():
            _log.warning("folder.unreadable", path=path, reason=reason)
        self._tell_left_out(snapshot)
        if not below:
            self._told_left_out = frozenset(snapshot.skipped)
            self._tell_unconverted(snapshot.unconverted)
            self._tally.unchanged = found.same
            self._tally.compared.add(reconciled.seconds)
            self.last, self.last_at_seconds = reconciled, now_seconds
            await self._keep(reconciled, now_seconds)
        await self._keep_unreadable(below, snapshot.unreadable)
        return reconciled, gone

    def _seen_in_work(self, below: str, snapshot: Snapshot) -> Mapping[str, bool]:
        """The paths that are in work just now, and whether their tasks miss what the scan has seen of them."""
        found: dict[str, bool] = {}
        for turn in self._in_work.at_or_below(below):
            path = turn.path
            if path in snapshot.unconverted or is_below_any(path, snapshot.unreadable):
                continue
            version = snapshot.files.get(path)
            seen: Seen = None if version is None else (version, snapshot.attached.get(path, ""))
            found[path] = turn.misses(seen)
        return found

    async def _keep_unreadable(self, below: str, found: Mapping[str, str]) -> None:
        others = {path: reason for path, reason in self._unreadable.items() if not is_at_or_below(path, below)}
        unreadable = others | dict(found)
        if unreadable != self._unreadable or not below:
            self._unreadable = unreadable
            told = dict(sorted(unreadable.items())[:MAX_TOLD])
            await self._lane.run(self._ledger.set_note, UNREADABLE_NOTE, json.dumps(told))

    def _tell_left_out(self, snapshot: Snapshot) -> None:
        """Say what does not count and why, each path once; a link that is no text is nobody's problem."""
        news = sorted(snapshot.skipped.keys() - self._told_left_out)
        for path in news[:MAX_TOLD]:
            _log.info("path.left_out", path=path, reason=snapshot.skipped[path])
        if len(news) > MAX_TOLD:
            _log.info("paths.left_out", more=len(news) - MAX_TOLD)
        self._told_left_out |= snapshot.skipped.keys()

    def _tell_unconverted(self, paths: frozenset[str]) -> None:
        """Say once how many files are not looked into, and say it again when more have come."""
        if paths - self._told_unconverted:
            _log.warning("files.unconverted", count=len(paths), example=min(paths), remedy=CONVERTER_REMEDY)
        self._told_unconverted = paths

    async def _keep(self, reconciled: Reconciled, now_seconds: float) -> None:
        fields = {
            "at_seconds": now_seconds,
            "present": reconciled.present,
            "gone": reconciled.gone,
            "same": reconciled.same,
            "held": reconciled.held,
            "skipped": reconciled.skipped,
            "unconverted": reconciled.unconverted,
            "unreadable": reconciled.unreadable,
            "seconds": reconciled.seconds,
        }
        await self._lane.run(self._ledger.set_note, LAST_RECONCILE_NOTE, json.dumps(fields))
        _log.info("folder.reconciled", **{key: value for key, value in fields.items() if key != "at_seconds"})
