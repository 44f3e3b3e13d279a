"""The writer: brings documents that are ready together into groups, and has the protocol carry them out.

Invariant: one group at a time; whoever hands in a write learns whether it was carried out.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ingestor.core.errors import IngestorError, RejectedByChroma
from ingestor.engine.sync import Protocol, Write

MAX_GROUP_RECORDS = 500
"""Records of one group; a larger document is a group of its own."""
MAX_WAITING = 256


@dataclass(frozen=True, slots=True)
class _HandedIn:
    write: Write
    done: "asyncio.Future[None]"

    @property
    def records(self) -> int:
        plan = self.write.plan
        return len(plan.embed) + len(plan.retag) + len(plan.drop)


class Writer:
    """Takes all that is ready whenever it is free: a lone document goes at once, many go together."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._waiting: asyncio.Queue[_HandedIn] = asyncio.Queue(MAX_WAITING)

    async def write(self, write: Write) -> None:
        """Have a write carried out; raises what the ports raise, with the document left unfinished in the ledger."""
        handed_in = _HandedIn(write, asyncio.get_running_loop().create_future())
        await self._waiting.put(handed_in)
        await handed_in.done

    async def run(self) -> None:
        """Carry out writes until cancelled."""
        kept: _HandedIn | None = None
        while True:
            group = [kept or await self._waiting.get()]
            kept = None
            records = group[0].records
            while not self._waiting.empty():
                following = self._waiting.get_nowait()
                if records + following.records > MAX_GROUP_RECORDS:
                    kept = following
                    break
                group.append(following)
                records += following.records
            await self._carry_out(group)

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
