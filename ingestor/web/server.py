"""The server: the life of the HTTP interface, inside a process that has other things to do.

Invariant: it listens before Chroma is reached, and answers until everything else has ended; signals stay the daemon's;
when it ends unasked, so does the process.
"""

import asyncio
import importlib
import socket
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from ingestor.app.live import Live
from ingestor.core.errors import ServiceUnavailable
from ingestor.web.listening import listen, url_of

if TYPE_CHECKING:
    from ingestor.web.serving import Server

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def front(live: Live, importing: Executor) -> AsyncIterator[str]:
    """See `app.live.Front`."""
    sockets = listen(live.settings.http)
    url = url_of(live.settings.http, sockets)
    try:
        async with asyncio.TaskGroup() as tasks:
            making = asyncio.get_running_loop().run_in_executor(importing, _made, live)
            serving = tasks.create_task(_serve(making, sockets))
            _log.info("http.listening", url=url)
            yield url
            if making.done() and not making.cancelled():
                making.result().end()
            else:
                serving.cancel()
    finally:
        for each in sockets:
            each.close()


async def _serve(making: "asyncio.Future[Server]", sockets: list[socket.socket]) -> None:
    server = await making
    await server.serve(sockets)
    if not server.is_ending:
        raise ServiceUnavailable(
            "the HTTP server has ended by itself", remedy="start again, and report what the log says"
        )


def _made(live: Live) -> "Server":
    server: Server = importlib.import_module("ingestor.web.serving").Server(live)
    return server
