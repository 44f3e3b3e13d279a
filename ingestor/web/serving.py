"""Serving: uvicorn, as one part of a process among others."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from ingestor.app.live import Live
from ingestor.engine.news import happens_within
from ingestor.web.application import application_of
from ingestor.web.connection import Connection, hush
from ingestor.web.events import Streams

_TICK_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 2
"""How long answers that are on their way may take at the end."""


class Server(uvicorn.Server):
    """uvicorn without signal handlers and access log, which ends at once, and wakes an idle process once a second."""

    def __init__(self, live: Live) -> None:
        self._ending = asyncio.Event()
        self._streams = Streams()
        application = application_of(live, self._streams)
        hush()
        super().__init__(
            uvicorn.Config(
                application,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,  # what it has to say goes where everything goes
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    @property
    def is_ending(self) -> bool:
        """Whether it was told to."""
        return self._ending.is_set()

    def end(self) -> None:
        """Accept nobody any more, and end when answers that are on their way have been given."""
        self._ending.set()
        self._streams.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals: they are the daemon's."""
        yield

    async def main_loop(self) -> None:
        """Go on until told to end. uvicorn's own loop would wake the process ten times a second."""
        while not self.is_ending:
            await self.on_tick(0)
            await happens_within(self._ending, _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, without uvicorn's pause where nobody is connected."""
        if self.server_state.connections:
            await super().shutdown(sockets)
        else:
            for each in self.servers:
                each.close()
