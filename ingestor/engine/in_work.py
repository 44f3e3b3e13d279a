"""In work: the paths that tasks have, before they have a document, too, and what of the folder each task goes by.

A path in work is not what the ledger says of it, and not yet what its task will make of it. Whoever has looked at the
folder therefore compares with what the task goes by. Where that is something else, the path is queued again, so that
another turn follows the one that is under way; where it is gone, the task need not even wait for its vectors.

Invariant: a path is registered from before its first look until the ledger has its outcome. The loop alone uses this,
so that a verdict holds until the next `await`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import TypeAlias

from ingestor.core.model import Stat, Version
from ingestor.core.paths import is_at_or_below

Seen: TypeAlias = tuple[Version, str] | None
"""What was seen of a path: its version and the name of what is attached to it; None when nothing was there."""


class _Sight(Enum):
    AHEAD = "ahead"
    """Its task will look at the file later than anybody who asks now has looked."""
    UNKNOWN = "unknown"
    """Its task is looking, or goes by nothing that could be compared."""


def seen(stat: Stat | None) -> Seen:
    """What a look has seen."""
    return None if stat is None else (stat.version, stat.attached)


class Overtaken(Exception):
    """The folder holds something else than a task goes by; nothing of it was written, or what was written is noted."""

    def __init__(self, path: str, *, is_gone: bool) -> None:
        super().__init__(path)
        self.is_gone = is_gone


class Turn:
    """One turn of a path: what its task goes by, and whether it may be cut short just now."""

    __slots__ = ("_goes_by", "_is_cut_short", "_scope", "ended", "is_queued_again", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_queued_again = False
        """Whether somebody saw something else than the task goes by: the change stays in the queue after this turn."""
        self.ended = asyncio.Event()
        self._goes_by: Seen | _Sight = _Sight.AHEAD
        self._scope: asyncio.Timeout | None = None
        self._is_cut_short = False

    def looks_now(self) -> None:
        """Say that the task is about to look at the file: what others see meanwhile may be newer."""
        self._goes_by = _Sight.UNKNOWN

    def goes_by(self, found: Seen) -> None:
        """Say what the task goes by from now on."""
        self._goes_by = found

    def misses(self, found: Seen) -> bool:
        """Whether the task goes, or may go, by something else than what was seen just now."""
        if self._goes_by is _Sight.AHEAD:
            # It will see that for itself; but nothing is prepared for a file that is gone.
            return found is None
        return self._goes_by is _Sight.UNKNOWN or self._goes_by != found

    @asynccontextmanager
    async def preparing(self) -> AsyncIterator[None]:
        """Let the block be cut short: it ends with `Overtaken` then. Calls that it waits for end by themselves."""
        try:
            async with asyncio.timeout(None) as self._scope:
                if self._is_cut_short:
                    raise Overtaken(self.path, is_gone=True)
                yield
        except TimeoutError as error:
            if self._is_cut_short:
                raise Overtaken(self.path, is_gone=True) from error
            raise
        finally:
            self._scope = None

    def cut_short(self) -> None:
        """End what is being prepared for a file that is gone; what is being written is not touched."""
        self._is_cut_short = True
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())


class InWork:
    """The turns of one source that are under way."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def paths(self) -> frozenset[str]:
        """The paths in work now."""
        return frozenset(self._turns)

    async def begin(self, path: str) -> Turn:
        """Register a path as soon as its turn before has ended.

        The ledger gives a path back to the queue before its task has run on from that call, so that it may be leased
        again a moment too early; two turns at once would let go of each other's claims.
        """
        while (before := self._turns.get(path)) is not None:
            await before.ended.wait()
        turn = self._turns[path] = Turn(path)
        return turn

    def end(self, turn: Turn) -> None:
        """The ledger has the outcome."""
        del self._turns[turn.path]
        turn.ended.set()

    def get(self, path: str) -> Turn | None:
        """The turn of a path, if it has one."""
        return self._turns.get(path)

    def at_or_below(self, folder: str) -> list[Turn]:
        """The turns of a folder or a file."""
        return [turn for path, turn in self._turns.items() if is_at_or_below(path, folder)]
