"""Time as the operating system has it."""

import asyncio
import time


class SystemClock:
    """`ports.Clock` over the real clocks."""

    def now_seconds(self) -> float:
        """See `ports.Clock.now_seconds`."""
        return time.time()

    def monotonic_seconds(self) -> float:
        """See `ports.Clock.monotonic_seconds`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock.sleep`."""
        await asyncio.sleep(seconds)
