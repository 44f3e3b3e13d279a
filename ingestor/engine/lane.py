"""A lane: one thread that owns something that must not be used from two (SQLite, the Chroma client).

Invariant: calls run one after another, in the order in which they were asked for, and their results come back in that
order. The worker's claims rely on it. The thread is a daemon thread: a call that hangs cannot keep the process alive.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_Errand = tuple["asyncio.Future[Any]", Callable[[], Any]]


class Lane:
    """Runs blocking calls on a thread of its own."""

    def __init__(self, name: str) -> None:
        self._errands: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call and wait for its result. A cancelled wait does not stop the call: its effect may still happen."""
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._errands.put((future, lambda: call(*args, **kwargs)))
        return await future

    def close(self, timeout_seconds: float = 2.0) -> bool:
        """Let the calls that were asked for finish; False when they did not in time, and are left behind."""
        self._errands.put(None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (errand := self._errands.get()) is not None:
            future, call = errand
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and reaches it
                _deliver(future, future.set_exception, error)
            else:
                _deliver(future, future.set_result, result)


def _deliver(future: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: object) -> None:
    def settle_unless_cancelled() -> None:
        if not future.done():
            settle(outcome)

    # A loop that was closed meanwhile has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(settle_unless_cancelled)
