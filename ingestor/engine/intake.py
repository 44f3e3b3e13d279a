"""Intake: from what a look or a comparison has seen to rows of the queue.

What is seen of a path in work is compared with what its task goes by, never dropped because the ledger does not know
the path yet: see `InWork`. What is gone goes first, because it is not to be found any more and costs no call; but for
files that were renamed, whose documents go on under the new path: these wait until the new path had its turn.

Invariant: after a path was taken in, it is queued, or in work by a task that goes by what was seen, or its entry is
what was seen.
"""

from collections.abc import Collection, Mapping

from ingestor.core.model import UNKNOWN_STAT, Change, Glance, Identity, Priority, Version, identity_of
from ingestor.engine.in_work import InWork
from ingestor.engine.tally import Tally
from ingestor.ports import Lane, Ledger, Runtime

MAX_ARRIVALS = 50_000
"""Files that have turned up of late, among which one that is gone is looked for."""
_AFTER_SECONDS = 0.001
"""Renamed files are queued so long behind the paths they were renamed to."""
_UNKNOWN = identity_of(UNKNOWN_STAT.version)


class Intake:
    """Queues what differs; the loop alone uses it."""

    def __init__(self, ledger: Ledger, lane: Lane, runtime: Runtime, *, tally: Tally, in_work: InWork) -> None:
        self._ledger = ledger
        self._lane = lane
        self._runtime = runtime
        self._tally = tally
        self._in_work = in_work
        self._arrivals: dict[Identity, str] = {}
        """Where they turned up last."""

    async def take_present(
        self, found: Mapping[str, Version], priority: Priority, *, beside: Collection[Glance] = ()
    ) -> None:
        """Queue paths that are there and differ, with their versions; `beside` are documents that the same look misses.

        Those that such a document may have been renamed to are live changes: until they had their turn, it is found
        under its old path.
        """
        for path, version in found.items():
            identity = identity_of(version)
            self._arrivals.pop(identity, None)
            self._arrivals[identity] = path
        while len(self._arrivals) > MAX_ARRIVALS:
            del self._arrivals[next(iter(self._arrivals))]
        missed = {identity_of(version) for version, _, _ in beside}
        renamed = {path for path, version in found.items() if identity_of(version) in missed} if missed else set()
        await self._queue(renamed, Priority.LIVE)
        await self._queue(found.keys() - renamed, priority)

    async def take_gone(self, found: Mapping[str, Glance | None], *, pause_seconds: float) -> None:
        """Queue paths that are gone, with what the ledger says of them: None where it has no document of theirs.

        What is present has to be taken in before. Where that may be yet to come, because a rename is two hints, they
        are due after a pause. Of a document that a lost ledger has left to the collection nobody knows the file: any
        that turned up may be it, so that it goes last.
        """
        unknown = {path for path, glance in found.items() if glance and identity_of(glance[0]) == _UNKNOWN}
        renamed = {path for path, glance in found.items() if glance and self._is_elsewhere(path, glance)} - unknown
        await self._queue(found.keys() - renamed - unknown, Priority.GONE, pause_seconds=pause_seconds)
        for paths, priority in ((renamed, Priority.LIVE), (unknown, Priority.BACKFILL)):
            await self._queue(paths, priority, pause_seconds=pause_seconds, after_seconds=_AFTER_SECONDS)
        for path in found:
            if (turn := self._in_work.get(path)) is not None:
                turn.cut_short()

    def _is_elsewhere(self, path: str, glance: Glance) -> bool:
        """Whether the file of a document has turned up at another path."""
        return self._arrivals.get(identity_of(glance[0]), path) != path

    async def _queue(
        self,
        paths: Collection[str],
        priority: Priority,
        *,
        pause_seconds: float = 0.0,
        after_seconds: float = 0.0,
    ) -> None:
        if not paths:
            return
        for path in paths:
            if (turn := self._in_work.get(path)) is not None:
                turn.is_queued_again = True
        now_seconds = self._runtime.now_seconds()
        change = Change(
            path="",
            priority=priority,
            enqueued_seconds=now_seconds + after_seconds,
            not_before_seconds=now_seconds + pause_seconds,
        )
        self._tally.expected += await self._lane.run(self._ledger.enqueue, sorted(paths), change)
