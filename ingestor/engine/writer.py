"""The writer: brings documents that are ready together into groups, and has the protocol carry them out.

Invariant: one group at a time; whoever hands in a write learns whether it was carried out. What waits is bounded by
what the worker has in work.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ingestor.core.errors import IngestorError, RejectedByChroma
from ingestor.core.precedence import Precedence
from ingestor.engine.sync import Protocol, Write
from ingestor.ports import BACKFILL_SHARE

MAX_GROUP_RECORDS = 500
"""Records of one group; a larger document is a group of its own."""
SHORT_GROUP_RECORDS = 128
"""Records up to which the backfill fills a group while live changes come: they wait for the group before their own."""
SHORT_GROUPS = 16
"""Groups that are short after the last live change. A small group costs Chroma more a record than a large one."""


@dataclass(frozen=True, slots=True)
class _HandedIn:
    write: Write
    done: "asyncio.Future[None]"

    @property
    def records(self) -> int:
        plan = self.write.plan
        return len(plan.embed) + len(plan.retag) + len(plan.drop)


class Writer:
    """Takes all that is ready whenever it is free, live changes first: a lone document goes at once, many together."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._waiting: Precedence[asyncio.Future[None], _HandedIn] = Precedence(BACKFILL_SHARE)
        self._news = asyncio.Event()
        self._short_groups = 0
        """How many of the next groups are short."""

    async def write(self, write: Write) -> None:
        """Have a write carried out; raises what the ports raise, with the document left unfinished in the ledger."""
        handed_in = _HandedIn(write, asyncio.get_running_loop().create_future())
        self._waiting.put(handed_in.done, handed_in, is_live=write.change.is_live)
        self._news.set()
        await handed_in.done

    async def run(self) -> None:
        """Carry out writes until cancelled."""
        while True:
            self._news.clear()
            if self._waiting:
                await self._carry_out(self._next_group())
            else:
                await self._news.wait()

    def _next_group(self) -> list[_HandedIn]:
        self._short_groups = SHORT_GROUPS if self._waiting.has_live else max(0, self._short_groups - 1)
        records = length = 0
        for handed_in in self._waiting:
            records += handed_in.records
            is_short = self._short_groups and not handed_in.write.change.is_live
            if length and records > (SHORT_GROUP_RECORDS if is_short else MAX_GROUP_RECORDS):
                break
            length += 1
        return self._waiting.take(length)

    async def _carry_out(self, group: Sequence[_HandedIn]) -> None:
        try:
            await self._protocol.write([handed_in.write for handed_in in group])
        except RejectedByChroma as error:
            if len(group) == 1:
                _settle(group, error)
                return
            # One refused record must not take the other documents with it: each goes alone.
            for handed_in in group:
                await self._carry_out([handed_in])
        except IngestorError as error:
            _settle(group, error)
        else:
            _settle(group, None)


def _settle(group: Sequence[_HandedIn], error: IngestorError | None) -> None:
    for handed_in in group:
        if handed_in.done.done():
            continue  # its task was cancelled meanwhile
        if error is None:
            handed_in.done.set_result(None)
        else:
            handed_in.done.set_exception(error)
