"""A budget of bytes: bounds what documents in work hold in memory.

Invariant: what is taken never exceeds the limit, except by one taker that alone wants more than the whole of it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """A semaphore that counts bytes. Takers are served in their order, so that a large one is not starved."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, wanted_bytes: int) -> AsyncIterator[None]:
        """Hold bytes for the time of the block."""
        async with self._turn:
            while self._taken_bytes and self._taken_bytes + wanted_bytes > self._limit_bytes:
                self._freed.clear()
                await self._freed.wait()
            self._taken_bytes += wanted_bytes
        try:
            yield
        finally:
            self._taken_bytes -= wanted_bytes
            self._freed.set()
