"""A process as the engine sees it, every moment of which is decided by a seed.

A call on a thread begins, has its effect at one virtual instant, and gives its answer at a later one; other things
happen before, between and after. A process that has died starts nothing any more. What was running then may have had
its effect or not, and what another process carries out may still have it later.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, ParamSpec, Protocol, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

EPOCH_SECONDS = 1_700_000_000.0
"""Wall-clock time at virtual 0."""
TOGETHER = 0.2
"""How often the answer of a call that waits behind another one comes at the very moment of that one's."""


class Weather(Protocol):
    """How long calls take just now."""

    def delays(self, service: str) -> tuple[float, float]:
        """Seconds from the start of a call on a thread of that name to its effect, and from there to its answer."""

    def orphaned(self, service: str, effect: Callable[[], None]) -> None:
        """A call was running on that thread when its process died: let it have its effect or not."""


@dataclass(eq=False, slots=True)
class _Errand:
    call: Callable[[], Any]
    answer: "asyncio.Future[Any]"
    value: Any = None
    error: BaseException | None = None
    has_happened: bool = False

    def happen(self) -> None:
        """Have the effect."""
        self.has_happened = True
        try:
            self.value = self.call()
        except BaseException as error:  # noqa: BLE001 - it is the caller's, and reaches it
            self.error = error

    def settle(self) -> None:
        """Give the answer."""
        if self.answer.done():
            return  # nobody waits for it any more
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.value)


@dataclass(eq=False, slots=True)
class SimulatedLane:
    """`ports.Lane`: one call after another, in the order in which they were asked for."""

    runtime: "SimulatedRuntime"
    name: str
    _waiting: deque[_Errand] = field(default_factory=deque)
    _running: _Errand | None = None

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See `ports.Lane.run`."""
        self.runtime.see_that_it_lives()
        errand = _Errand(partial(call, *args, **kwargs), self.runtime.loop.create_future())
        self._waiting.append(errand)
        if self._running is None:
            self._next()
        found: _T = await errand.answer
        return found

    def close(self) -> bool:
        """See `ports.Lane.close`: what was asked for is done, at once."""
        while self._running is not None:
            if not self._running.has_happened:
                self._running.happen()
            self._running.settle()
            self._running = self._waiting.popleft() if self._waiting else None
        return True

    def die(self) -> None:
        """The process has died: what was running has happened or not, and nothing else will."""
        errand, self._running = self._running, None
        self._waiting.clear()
        if errand is not None and not errand.has_happened:
            self.runtime.weather.orphaned(self.name, errand.happen)

    def _next(self) -> None:
        self._running = self._waiting.popleft() if self._waiting else None
        if self._running is not None:
            before_seconds, _ = self.runtime.weather.delays(self.name)
            self.runtime.loop.call_later(before_seconds, self._happen, self._running)

    def _happen(self, errand: _Errand) -> None:
        if self._running is not errand:
            return  # the process died, or the lane was closed
        errand.happen()
        _, after_seconds = self.runtime.weather.delays(self.name)
        self.runtime.loop.call_later(after_seconds, self._answer, errand)

    def _answer(self, errand: _Errand) -> None:
        if self._running is errand:
            errand.settle()
            while self._waiting and self.runtime.chance.random() < TOGETHER:
                # The loop was held up: several answers are there before anybody goes on from one of them.
                behind = self._waiting.popleft()
                behind.happen()
                behind.settle()
            self._next()


class SimulatedRuntime:
    """`ports.Runtime` of one process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Random, weather: Weather) -> None:
        self.loop = loop
        self.chance = chance
        self.weather = weather
        self.is_dead = False
        self._lanes: list[SimulatedLane] = []

    def now_seconds(self) -> float:
        """See `ports.Clock.now_seconds`."""
        return EPOCH_SECONDS + self.loop.time()

    def monotonic_seconds(self) -> float:
        """See `ports.Clock.monotonic_seconds`."""
        return self.loop.time()

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock.sleep`."""
        self.see_that_it_lives()
        await asyncio.sleep(seconds)

    def fraction(self) -> float:
        """See `ports.Runtime.fraction`."""
        return self.chance.random()

    def new_id(self) -> str:
        """See `ports.Runtime.new_id`."""
        return f"{self.chance.getrandbits(128):032x}"

    async def in_thread(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See `ports.Runtime.in_thread`."""
        self.see_that_it_lives()
        errand = _Errand(partial(call, *args, **kwargs), self.loop.create_future())
        before_seconds, after_seconds = self.weather.delays("thread")
        self.loop.call_later(before_seconds, self._happen, errand, after_seconds)
        found: _T = await errand.answer
        return found

    def _happen(self, errand: _Errand, after_seconds: float) -> None:
        if not self.is_dead:
            errand.happen()
            self.loop.call_later(after_seconds, errand.settle)

    def lane(self, name: str) -> SimulatedLane:
        """See `ports.Runtime.lane`."""
        lane = SimulatedLane(self, name)
        self._lanes.append(lane)
        return lane

    def see_that_it_lives(self) -> None:
        """End whoever goes on in a process that has died."""
        if self.is_dead:
            raise asyncio.CancelledError

    def die(self) -> None:
        """End at this instant."""
        self.is_dead = True
        for lane in self._lanes:
            lane.die()
