"""`run`: the daemon, from settings to an end by signal."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import TypeVar

import structlog

from ingestor.adapters import chroma_client
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.instance import InstanceRecord
from ingestor.adapters.notify import Notifier
from ingestor.app.collection import SERVER_HOST, announce, endpoint, hold, open_client, open_collections, serve
from ingestor.app.compaction import compactors_of
from ingestor.app.line import line_of
from ingestor.app.parts import folders_of, pipelines_of, sourced
from ingestor.app.rebuild import rebuild_beside
from ingestor.core.errors import ServiceUnavailable
from ingestor.engine.daemon import Daemon
from ingestor.engine.news import happens_within
from ingestor.settings import Settings

CONNECT_PAUSE_SECONDS = 5.0
"""Pause of a daemon between two attempts to reach a Chroma server that is elsewhere."""

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


async def run(settings: Settings, *, is_rebuild: bool = False) -> None:
    """Follow the folders until SIGINT or SIGTERM.

    With `is_rebuild` collections of other settings are rebuilt meanwhile, and followed after the switch.
    """
    async with AsyncExitStack() as stack:
        notifier = Notifier()
        stop = _stop_signal()
        folders_of(settings)
        instance = hold(settings, "run", stack)
        # The server comes up while its client is imported.
        loading = asyncio.get_running_loop().run_in_executor(None, chroma_client.load)
        server = serve(settings, stack)
        await loading
        if is_rebuild:
            async with AsyncExitStack() as beside:
                client = await _reached(open_client, settings, beside, stop, server)
                if client is not None:
                    announce(instance, settings, "run", served=True)
                    await rebuild_beside(settings, client, stop, notifier, server)
        sinks = await _reached(open_collections, settings, stack, stop, server)
        if sinks is None:
            return
        announce(instance, settings, "run", served=True)
        _log.info(
            "daemon.started",
            folder=", ".join(str(each.watch_dir) for each in settings.each()),
            collection=", ".join(sinks),
            chroma=endpoint(settings, instance.record),
        )
        sources = sourced(settings, sinks)
        pipelines = await stack.enter_async_context(pipelines_of(sources))
        lines = [line_of(each.settings, pipeline) for each, pipeline in zip(sources, pipelines, strict=True)]
        compactors = compactors_of(sources, pipelines)
        supervise = server.ensure if server else None
        await Daemon(lines, notifier, supervise=supervise, beside=[each.run for each in compactors]).run(stop)
    _log.info("daemon.stopped")


async def _reached(
    opening: Callable[[Settings, InstanceRecord | None, AsyncExitStack | ExitStack], _T],
    settings: Settings,
    stack: AsyncExitStack,
    stop: asyncio.Event,
    server: ChromaServer | None,
) -> _T | None:
    """Open the collection, or its database, waiting for a server that is elsewhere; None when told to stop meanwhile.

    A server of our own that dies just now is started again; raises `ServiceUnavailable` when it dies too often.
    """
    record = InstanceRecord(os.getpid(), "run", "", 0.0, SERVER_HOST, settings.chroma.port)
    while not stop.is_set():
        try:
            return await asyncio.to_thread(opening, settings, record, stack)
        except ServiceUnavailable as error:
            _log.error("chroma.unreachable", reason=str(error), remedy=error.remedy)
            await happens_within(stop, CONNECT_PAUSE_SECONDS)
            if server is not None:
                await asyncio.to_thread(server.ensure)
    return None


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
