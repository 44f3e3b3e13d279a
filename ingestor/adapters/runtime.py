"""The process as the engine sees it: real time, chance, ids and threads."""

import asyncio
import contextlib
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_CLOSE_SECONDS = 2.0
"""How long a lane that is closed may take to finish what it was asked for."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_Errand = tuple["asyncio.Future[Any]", Callable[[], Any]]


class ThreadLane:
    """`ports.Lane` over a daemon thread: a call that hangs cannot keep the process alive."""

    def __init__(self, name: str) -> None:
        self._errands: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See `ports.Lane.run`."""
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._errands.put((future, lambda: call(*args, **kwargs)))
        return await future

    def close(self) -> bool:
        """See `ports.Lane.close`."""
        self._errands.put(None)
        self._thread.join(_CLOSE_SECONDS)
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


class SystemRuntime:
    """`ports.Runtime` over the operating system."""

    def now_seconds(self) -> float:
        """See `ports.Clock.now_seconds`."""
        return time.time()

    def monotonic_seconds(self) -> float:
        """See `ports.Clock.monotonic_seconds`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock.sleep`."""
        await asyncio.sleep(seconds)

    def fraction(self) -> float:
        """See `ports.Runtime.fraction`."""
        return random.random()  # noqa: S311 - spreads retries and scans, guards nothing

    def new_id(self) -> str:
        """See `ports.Runtime.new_id`."""
        return uuid.uuid4().hex

    async def in_thread(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See `ports.Runtime.in_thread`."""
        return await asyncio.to_thread(call, *args, **kwargs)

    def lane(self, name: str) -> ThreadLane:
        """See `ports.Runtime.lane`."""
        return ThreadLane(name)


def _deliver(future: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: object) -> None:
    def settle_unless_cancelled() -> None:
        if not future.done():
            settle(outcome)

    # A loop that was closed meanwhile has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(settle_unless_cancelled)
