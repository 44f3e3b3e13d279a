"""The writer: brings documents that are ready together into groups, and has the protocol carry them out.

Chroma is what takes time, so that the ledger is not to keep it waiting: while Chroma is at a group, the group before
is committed, and the one behind is marked if it is full already. Which documents a group has is not settled before
Chroma is free: a live change waits for one group, never for two.

Between the read of a file and its commit lie the time in the line, the embedding call, and Chroma. So the paths of a
group are looked at twice, all in one call off the loop: just before the group is marked, so that nothing is written of
a file that is known to be gone or another one by then; and just before it is committed, so that only what the folder
holds at the commit is acknowledged. What changes after the second look is seen by a hint or a comparison, which finds
the path in work, or finds what was committed.

Invariant: Chroma has one group at a time, and no write before it was marked; none is committed before Chroma has it.
Whoever hands in a write learns whether it was carried out, and whether its file is still what was written. What waits
is bounded by what the worker has in work.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from ingestor.core.errors import DeletionHeld, IngestorError, RejectedByChroma
from ingestor.core.model import Priority
from ingestor.core.precedence import Precedence
from ingestor.core.reconciling import Standing
from ingestor.engine.in_work import Overtaken
from ingestor.engine.looking import Looker
from ingestor.engine.sync import Protocol, Write
from ingestor.ports import BACKFILL_SHARE, MAX_GROUP_RECORDS

SHORT_GROUP_RECORDS = 128
"""Records up to which the backfill fills a group while live changes come: they wait for the group before their own."""
SHORT_GROUPS = 16
"""Groups that are short after the last live change. A small group costs Chroma more a record than a large one."""


@dataclass(slots=True, eq=False)
class _HandedIn:
    write: Write
    done: "asyncio.Future[Standing]"
    is_marked: bool = False

    @property
    def records(self) -> int:
        plan = self.write.plan
        return len(plan.embed) + len(plan.retag) + len(plan.drop)


class Writer:
    """Takes all that is ready whenever Chroma is free, live changes first: a lone document goes at once, many together.

    `run` must be running.
    """

    def __init__(self, protocol: Protocol, looker: Looker) -> None:
        self._protocol = protocol
        self._looker = looker
        self._waiting: Precedence[asyncio.Future[Standing], _HandedIn] = Precedence(BACKFILL_SHARE)
        self._news = asyncio.Event()
        self._short_groups = 0
        """How many of the next groups are short."""
        self._marking = asyncio.Lock()
        self._is_applying = False
        """Whether Chroma is at a group."""
        self._news_ahead = asyncio.Event()
        self._applied: list[_HandedIn] = []
        self._is_applied = asyncio.Event()
        self.turn = asyncio.Lock()
        """Held while Chroma is at a group; who holds it keeps the next one waiting."""
        self._noted: set[str] | None = None
        """Ids of records that were written since they were last asked for; None while nobody asks."""

    async def write(self, write: Write) -> Standing:
        """Have a write carried out; returns whether its file was still what was written when that was committed.

        Raises `Overtaken` when it was not carried out, because its file is gone or another one; and what the ports
        raise, with the document left unfinished in the ledger.
        """
        handed_in = _HandedIn(write, asyncio.get_running_loop().create_future())
        if write.change.priority is Priority.GONE:
            self._waiting.put_back({handed_in.done: handed_in}, is_live=True)
        else:
            self._waiting.put(handed_in.done, handed_in, is_live=write.change.is_live)
        self._news.set()
        self._news_ahead.set()
        return await handed_in.done

    def note_ids(self) -> set[str]:
        """Note the ids of records that are written from now on; gives those noted since it was called last.

        While `turn` is held, what was written of them has reached Chroma, or has failed.
        """
        noted, self._noted = self._noted, set()
        return noted or set()

    def forget_ids(self) -> None:
        """Note no ids any more."""
        self._noted = None

    async def run(self) -> None:
        """Carry out writes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mark_ahead())
            tasks.create_task(self._commit())
            while True:
                self._news.clear()
                if self._waiting:
                    await self._carry_out(self._next_group())
                else:
                    await self._news.wait()

    def _next_group(self) -> list[_HandedIn]:
        self._short_groups = SHORT_GROUPS if self._waiting.has_live else max(0, self._short_groups - 1)
        return self._waiting.take(self._next_length())

    def _next_length(self) -> int:
        """How many of those that wait are the next group."""
        is_short = self._waiting.has_live or self._short_groups
        records = length = 0
        for handed_in in self._waiting:
            records += handed_in.records
            most = SHORT_GROUP_RECORDS if is_short and not handed_in.write.change.is_live else MAX_GROUP_RECORDS
            if length and records > most:
                break
            length += 1
        return length

    async def _carry_out(self, group: Sequence[_HandedIn]) -> None:
        try:
            group = await self._without_overtaken(group)
            if not group:
                return
            async with self._marking:
                await self._mark(group)
            self._is_applying = True
            self._news_ahead.set()
            async with self.turn:
                self._note(group)
                await self._protocol.apply([handed_in.write for handed_in in group])
        except (RejectedByChroma, DeletionHeld) as error:
            if len(group) == 1:
                _settle(group, error)
                return
            # What is refused must not take the other documents with it: each goes alone.
            for handed_in in group:
                await self._carry_out([handed_in])
        except IngestorError as error:
            _settle(group, error)
        else:
            self._applied += group
            self._is_applied.set()
        finally:
            self._is_applying = False

    async def _without_overtaken(self, group: Sequence[_HandedIn]) -> Sequence[_HandedIn]:
        """Those of a group that are to be written; the tasks of the others learn at once that they are overtaken."""
        standings = await self._looker.standings([handed_in.write.plan for handed_in in group])
        current: list[_HandedIn] = []
        for handed_in, found in zip(group, standings, strict=True):
            if _is_to_be_written(handed_in.write, found):
                current.append(handed_in)
            elif not handed_in.done.done():
                path = handed_in.write.plan.path
                handed_in.done.set_exception(Overtaken(path, is_gone=found is Standing.GONE))
        return current

    def _note(self, group: Sequence[_HandedIn]) -> None:
        if self._noted is not None:
            for handed_in in group:
                plan = handed_in.write.plan
                self._noted.update(plan.drop, plan.replace, (record.id for record in plan.embed))
                self._noted.update(retag.id for retag in plan.retag)

    async def _mark(self, group: Sequence[_HandedIn]) -> None:
        unmarked = [handed_in for handed_in in group if not handed_in.is_marked]
        if unmarked:
            await self._protocol.mark([handed_in.write for handed_in in unmarked])
        for handed_in in unmarked:
            handed_in.is_marked = True

    async def _mark_ahead(self) -> None:
        """Mark what would be the next group while Chroma is at one, but only when more than that waits.

        What is marked and goes later than was thought, because of a live change, is merely unfinished for longer.
        """
        while True:
            await self._news_ahead.wait()
            self._news_ahead.clear()
            length = self._next_length() if self._is_applying else 0
            if length and length < len(self._waiting):
                async with self._marking:
                    # A ledger that fails now is asked again when their turn comes, and they are told what it says then.
                    with suppress(IngestorError):
                        await self._mark(list(islice(self._waiting, length)))

    async def _commit(self) -> None:
        """Commit all that Chroma has, whenever the ledger is free."""
        while True:
            await self._is_applied.wait()
            self._is_applied.clear()
            group, self._applied = self._applied, []
            writes = [handed_in.write for handed_in in group]
            try:
                standings = await self._looker.standings([write.plan for write in writes])
                left = {
                    write.change
                    for write, found in zip(writes, standings, strict=True)
                    if found is not Standing.AS_PLANNED
                }
                await self._protocol.commit(writes, left)
            except IngestorError as error:
                _settle(group, error)
            else:
                for handed_in, found in zip(group, standings, strict=True):
                    if not handed_in.done.done():  # else its task was cancelled meanwhile
                        handed_in.done.set_result(found)


def _is_to_be_written(write: Write, found: Standing) -> bool:
    """Whether a write is carried out, given what a look at its path has just found.

    What cannot be looked at is not taken for gone, nor for another one; but what has no file that could be looked at is
    not made less of, neither by a removal nor by a problem that takes its records.
    """
    is_removal = write.plan.after is None
    match found:
        case Standing.AS_PLANNED:
            return True
        case Standing.GONE:
            return False
        case Standing.CHANGED:
            return write.is_overdue and not is_removal
        case Standing.UNKNOWN:
            return not is_removal and (bool(write.plan.embed) or not write.plan.drop)


def _settle(group: Sequence[_HandedIn], error: IngestorError) -> None:
    for handed_in in group:
        if not handed_in.done.done():  # else its task was cancelled meanwhile
            handed_in.done.set_exception(error)
