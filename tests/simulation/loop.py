"""An event loop without waiting: its time jumps to the next timer as soon as nothing is left to do now.

Invariant: what happens in what order is decided by the program that runs on it and by nothing else. The hashes of
tasks and futures, which decide the order of sets of them, are serial numbers; there are no threads and no files.
"""

import asyncio
import gc
import itertools
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar

_T = TypeVar("_T")

MAX_TURNS = 100_000
"""Of the loop at one instant."""


class Stalled(Exception):
    """Nothing will ever happen again, and somebody still waits."""


class _Future(asyncio.Future[Any]):
    def __init__(self, loop: "VirtualLoop") -> None:
        super().__init__(loop=loop)
        self._serial = next(loop.serials)

    def __hash__(self) -> int:
        return self._serial


class _Task(asyncio.Task[Any]):
    def __init__(
        self, work: Coroutine[Any, Any, Any], *, loop: "VirtualLoop", name: str | None, context: Context | None
    ) -> None:
        self._serial = next(loop.serials)
        super().__init__(work, loop=loop, name=name or f"task-{self._serial}", context=context)

    def __hash__(self) -> int:
        return self._serial


class VirtualLoop(asyncio.BaseEventLoop):
    """`asyncio`'s own loop over a selector that selects nothing and moves the time."""

    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self.serials = itertools.count(1)
        self._now_seconds = 0.0
        self._turns = 0
        self._clock_resolution = 1e-9
        self._selector = self  # asks `select`, with the time until the next timer
        self.complaints: list[str] = []
        """What nobody has looked at: errors of tasks and callbacks."""
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_seconds

    def select(self, timeout: float | None) -> tuple[()]:
        """Let the time until the next timer pass."""
        if timeout is None:
            raise Stalled("no task can go on, and no timer is set")
        self._turns += 1
        if timeout > 0:
            self._now_seconds = self._scheduled[0].when()
            self._turns = 0
        elif self._turns > MAX_TURNS:
            raise Stalled("the loop turns and turns, and no time passes")
        return ()

    def _process_events(self, _: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is asleep."""

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(self)

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        assert asyncio.iscoroutine(coro)
        return _Task(coro, loop=self, name=None if name is None else str(name), context=context)

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.complaints.append(f"{context['message']}: {error!r}" if error else str(context["message"]))


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """A search for garbage in the middle of a run costs a fifth of the time, and may close things at any moment."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()


def run(work: Callable[[VirtualLoop], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine to its end on a loop of its own."""
    with _garbage_kept():
        loop = VirtualLoop()
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(work(loop))
        finally:
            asyncio.set_event_loop(None)
            loop.close()
