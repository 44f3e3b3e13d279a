"""A runtime whose time moves only when somebody sleeps, and whose chance is always the same."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ingestor.adapters.runtime import SystemRuntime, ThreadLane

_P = ParamSpec("_P")
_T = TypeVar("_T")


class FakeRuntime:
    """`ports.Runtime`; `slept_seconds` lists the pauses that were asked for. Ids and threads are real."""

    def __init__(self, now_seconds: float = 1_700_000_000.0) -> None:
        self._started_seconds = now_seconds
        self._passed_seconds = 0.0
        self._real = SystemRuntime()
        self.slept_seconds: list[float] = []

    def now_seconds(self) -> float:
        return self._started_seconds + self._passed_seconds

    def monotonic_seconds(self) -> float:
        return self._passed_seconds

    def advance(self, seconds: float) -> None:
        self._passed_seconds += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept_seconds.append(seconds)
        self._passed_seconds += seconds
        await asyncio.sleep(0)

    def fraction(self) -> float:
        return 0.5

    def new_id(self) -> str:
        return self._real.new_id()

    async def in_thread(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self._real.in_thread(call, *args, **kwargs)

    def lane(self, name: str) -> ThreadLane:
        return self._real.lane(name)
