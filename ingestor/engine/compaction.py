"""Compaction: a collection copied into a fresh one while work goes on, and put in its place.

Theory of operation
-------------------
The records are copied in pages small enough that a file dropped meanwhile waits for one of them only. What is written
during that time is noted, and taken again until little is left. Then the writers pause: what is left is taken, the
records of others are looked at once more, the ids of both are compared, and the names are switched. Only that last part
stands in anybody's way.

Invariant: nothing is embedded, and the collection that serves is written to by nobody but the writers. Until the switch
is begun a death leaves a copy that is of no use and is deleted; after that the switch is completed by whoever comes
next. The ledger speaks of records by their ids, which stay, so that the same ledger goes on.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import structlog

from ingestor.core.compacting import is_due
from ingestor.core.errors import ServiceUnavailable, TransientError
from ingestor.engine.pipeline import Pipeline
from ingestor.engine.writer import Writer
from ingestor.ports import Lane

PAGE_RECORDS = 100
"""Records that are copied in one go: a live change waits for them, a fifth of a second."""
FEW_RECORDS = 200
"""So many are left for the pause of the writers."""
ROUNDS = 10
"""How often what was written meanwhile is taken before the writers pause, however much is left."""
LAST_LOOKS = 3
CHECK_SECONDS = 5.0
RETRY_SECONDS = 60.0
GRACE_SECONDS = 3_600.0
"""How long a collection that was replaced is kept: clients that opened it before go on reading it."""

_log = structlog.get_logger(__name__)


class Copy(Protocol):
    """A copy of the collection that serves. Blocking; called on Chroma's lane. Raises `ServiceUnavailable`."""

    @property
    def tombstones(self) -> int:
        """Records that were taken and deleted again."""

    def begin(self) -> list[str]:
        """Make it anew, empty; the ids of the records there are to take."""

    def take(self, ids: Sequence[str]) -> set[str]:
        """Let it hold these records as they are now, or no longer; the ids of those that are not ours."""

    def differences(self) -> set[str]:
        """Ids that only one of both collections holds."""


async def replaced(copy: Copy, lane: Lane, switch: Callable[[], None], writers: Sequence[Writer] = ()) -> int:
    """Fill the copy beside the writers, and switch, on the lane, while they pause; returns how many records it has.

    Raises `ServiceUnavailable`, also when somebody else writes to the collection without end.
    """
    for writer in writers:
        writer.note_ids()
    try:
        ids = await lane.run(copy.begin)
        foreign = await _take(copy, lane, ids)
        for _ in range(ROUNDS):
            async with _paused(writers):
                left = _noted(writers)
            left |= await lane.run(copy.differences)
            foreign |= await _take(copy, lane, left)
            if len(left) <= FEW_RECORDS:
                break
        async with _paused(writers):
            left = _noted(writers) | foreign | await lane.run(copy.differences)
            for _ in range(LAST_LOOKS):
                await _take(copy, lane, left)
                left = await lane.run(copy.differences)
                if not left:
                    break
            else:
                message = f"{len(left)} records of the collection were changed by somebody else while it was copied"
                raise ServiceUnavailable(message, remedy="end other programs that write to it")
            await lane.run(switch)
        return len(ids)
    finally:
        for writer in writers:
            writer.forget_ids()


async def _take(copy: Copy, lane: Lane, ids: Collection[str]) -> set[str]:
    foreign: set[str] = set()
    listed = list(ids)
    for start in range(0, len(listed), PAGE_RECORDS):
        foreign |= await lane.run(copy.take, listed[start : start + PAGE_RECORDS])
    return foreign


def _noted(writers: Iterable[Writer]) -> set[str]:
    return set[str]().union(*(writer.note_ids() for writer in writers))


@asynccontextmanager
async def _paused(writers: Iterable[Writer]) -> AsyncIterator[None]:
    """No group is under way, and none begins."""
    async with AsyncExitStack() as stack:
        for writer in writers:
            await stack.enter_async_context(writer.turn)
        yield


class Compactor:
    """Looks after the index of one collection while the pipelines that write to it run.

    What was replaced is kept for `GRACE_SECONDS`, until the next compaction, or until the next start.

    `switch` puts the copy in the place of the collection, has all ledgers speak of it, and the pipelines' sinks open
    it. `retire` deletes what was replaced before. `count_index` tells how many records the index holds, deleted ones
    included; None where that cannot be told. All three block, and are called on Chroma's lane.
    """

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        pipelines: Sequence[Pipeline],
        copy: Copy,
        *,
        switch: Callable[[], None],
        retire: Callable[[], object],
        count_index: Callable[[], int | None],
        max_ratio: float,
    ) -> None:
        self._pipelines = pipelines
        self._copy = copy
        self._switch = switch
        self._retire = retire
        self._count_index = count_index
        self._max_ratio = max_ratio
        self._lane = pipelines[0].services.sink_lane
        self._runtime = pipelines[0].runtime
        self._retire_at_seconds: float | None = 0.0

    async def run(self) -> None:
        """Compact whenever it is due, until cancelled. Raises `CollectionLost`."""
        is_counted = False
        while True:
            try:
                await self._retire_in_time()
                if not is_counted:
                    await self._count()
                    is_counted = True
                if await self.is_due():
                    await self.compact()
            except TransientError as error:
                _log.warning("compaction.put_off", reason=str(error), remedy=error.remedy)
                await self._runtime.sleep(RETRY_SECONDS)
            await self._runtime.sleep(CHECK_SECONDS)

    async def is_due(self) -> bool:
        """Whether the index holds too many deleted records."""
        tombstones = sum([await pipeline.tombstones() for pipeline in self._pipelines])
        if not is_due(0, tombstones, self._max_ratio):
            return False
        return is_due(await self._pipelines[0].count(), tombstones, self._max_ratio)

    async def compact(self) -> None:
        """Copy and switch; the collection that was replaced is kept for a while."""
        tombstones = sum([await pipeline.tombstones() for pipeline in self._pipelines])
        began_seconds = self._runtime.monotonic_seconds()
        _log.info("compaction.began", tombstones=tombstones)
        await self._lane.run(self._retire)
        records = await replaced(self._copy, self._lane, self._switch, [each.writer for each in self._pipelines])
        await self._note(self._copy.tombstones)
        ended_seconds = self._runtime.monotonic_seconds()
        _log.info(
            "compaction.ended", records=records, tombstones=tombstones, seconds=round(ended_seconds - began_seconds, 3)
        )
        self._retire_at_seconds = ended_seconds + GRACE_SECONDS

    async def _count(self) -> None:
        """Believe the index rather than what was counted, where it can be asked: a ledger may have been lost."""
        elements = await self._lane.run(self._count_index)
        if elements is not None:
            await self._note(max(0, elements - await self._pipelines[0].count()))

    async def _note(self, tombstones: int) -> None:
        for pipeline in self._pipelines:
            await pipeline.set_tombstones(tombstones if pipeline is self._pipelines[0] else 0)

    async def _retire_in_time(self) -> None:
        """Delete what was replaced before the start at once, what is replaced now after the grace."""
        if self._retire_at_seconds is not None and self._runtime.monotonic_seconds() >= self._retire_at_seconds:
            await self._lane.run(self._retire)
            self._retire_at_seconds = None
