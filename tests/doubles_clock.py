"""A clock that moves only when somebody sleeps."""

import asyncio


class FakeClock:
    """`ports.Clock`; `slept_seconds` lists the pauses that were asked for."""

    def __init__(self, now_seconds: float = 1_700_000_000.0) -> None:
        self._started_seconds = now_seconds
        self._passed_seconds = 0.0
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
