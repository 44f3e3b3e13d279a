"""Death at a chosen moment: just before, or just after, any call to the outside."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from tests.doubles_embedder import HashEmbedder
from tests.doubles_ledger import MemoryLedger, MemoryVectors
from tests.doubles_sink import MemorySink
from tests.world import World


class Crash(BaseException):
    """The process dies."""


class Mortal:
    """Wraps a double: the process dies just before, or just after, the n-th call of all wrapped doubles."""

    def __init__(self, inner: object, fate: "Fate") -> None:
        self._inner = inner
        self._fate = fate

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the double has
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        if asyncio.iscoroutinefunction(found):

            async def awaited(*args: object, **kwargs: object) -> object:
                with self._fate.call(name):
                    return await found(*args, **kwargs)

            return awaited

        def called(*args: object, **kwargs: object) -> object:
            with self._fate.call(name):
                return found(*args, **kwargs)

        return called


class Fate:
    """Death before or after the n-th call; with `of`, calls of that name alone are counted."""

    def __init__(self, dies_at: int, *, is_after: bool, of: str = "") -> None:
        self.is_dead = False
        self._left = dies_at
        self._is_after = is_after
        self._of = of

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """One call to the outside; raises `Crash` when the process dies at it, or has died already."""
        if self.is_dead:
            raise Crash
        self._left -= not self._of or name == self._of
        is_last = self._left == 0 and (not self._of or name == self._of)
        if is_last and not self._is_after:
            self.is_dead = True
            raise Crash
        yield
        if is_last:
            self.is_dead = True
            raise Crash


@contextmanager
def mortal(world: World, fate: Fate) -> Iterator[None]:
    """Let the processes of this block die as fate has it; what they leave behind stays."""
    immortal = (world.ledger, world.sink, world.vectors, world.embedder)
    world.ledger = cast("MemoryLedger", Mortal(world.ledger, fate))
    world.sink = cast("MemorySink", Mortal(world.sink, fate))
    world.vectors = cast("MemoryVectors", Mortal(world.vectors, fate))
    world.embedder = cast("HashEmbedder", Mortal(world.embedder, fate))
    try:
        yield
    finally:
        world.ledger, world.sink, world.vectors, world.embedder = immortal
