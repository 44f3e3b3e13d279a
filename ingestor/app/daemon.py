"""`run`: the daemon, from settings to an end by signal."""

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import TypeVar

import structlog

from ingestor.adapters import chroma_client
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.ending_signals import ending_signals
from ingestor.adapters.instance import InstanceRecord
from ingestor.adapters.notify import Notifier
from ingestor.adapters.runtime import SystemRuntime
from ingestor.app.collection import SERVER_HOST, announce, endpoint, hold, open_client, open_collections, serve
from ingestor.app.compaction import compactors_of
from ingestor.app.line import line_of
from ingestor.app.live import Front, Live
from ingestor.app.parts import folders_of, pipelines_of, sourced
from ingestor.app.rebuild import rebuild_beside
from ingestor.app.searching import Searchers
from ingestor.core.errors import ServiceUnavailable
from ingestor.engine.daemon import Daemon
from ingestor.engine.news import happens_within
from ingestor.settings import Settings

CONNECT_PAUSE_SECONDS = 5.0
"""Pause of a daemon between two attempts to reach a Chroma server that is elsewhere."""

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


async def run(
    settings: Settings, *, is_rebuild: bool = False, takes_over: bool = False, front: Front | None = None
) -> None:
    """Follow the folders until SIGINT, SIGTERM or SIGHUP, and let others reach what is known of it through `front`.

    With `is_rebuild` collections of other settings are rebuilt meanwhile, and followed after the switch. One that
    `takes_over` claims the collections whosever they are.
    """
    async with AsyncExitStack() as stack:
        notifier = Notifier()
        stop = _stop_signal()
        live = Live(settings, stop)
        folders_of(settings)
        instance = hold(settings, "run", stack)
        # The server comes up while its client is imported; what is imported by two threads at once may be seen half.
        importing = ThreadPoolExecutor(1)
        stack.callback(importing.shutdown, wait=False)
        loading = asyncio.get_running_loop().run_in_executor(importing, chroma_client.load)
        http_url = ""
        if front is not None:
            http_url = await stack.enter_async_context(front(live, importing))
            announce(instance, settings, "run", served=False, http_url=http_url)
        server = await asyncio.to_thread(serve, settings, stack)
        await loading
        if is_rebuild:
            async with AsyncExitStack() as beside:
                client = await _reached(open_client, live, beside, stop, server, notifier=notifier)
                if client is not None:
                    announce(instance, settings, "run", served=True, http_url=http_url)
                    live.is_rebuilding = True
                    await rebuild_beside(settings, client, stop, notifier, server, takes_over=takes_over)
                    live.is_rebuilding = False
        opening = partial(open_collections, takes_over=takes_over)
        sinks = await _reached(opening, live, stack, stop, server, notifier=notifier)
        if sinks is None:
            return
        announce(instance, settings, "run", served=True, http_url=http_url)
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
        searchers = Searchers(sources, pipelines, instance.record)
        stack.push_async_callback(searchers.close)
        live.come_up(lines, searchers)
        stack.callback(stop.set)  # whatever it ends by, nothing can be asked from here on
        await Daemon(
            lines, notifier, SystemRuntime(), supervise=supervise, beside=[each.run for each in compactors]
        ).run(stop)
    _log.info("daemon.stopped")


async def _reached(  # noqa: PLR0913 - what is opened, and who is told while it cannot be
    opening: Callable[[Settings, InstanceRecord | None, AsyncExitStack | ExitStack], _T],
    live: Live,
    stack: AsyncExitStack,
    stop: asyncio.Event,
    server: ChromaServer | None,
    *,
    notifier: Notifier,
) -> _T | None:
    """Open the collection, or its database, waiting for a server that is elsewhere; None when told to stop meanwhile.

    A server of our own that dies just now is started again; raises `ServiceUnavailable` when it dies too often.
    """
    settings = live.settings
    record = InstanceRecord(os.getpid(), "run", "", 0.0, SERVER_HOST, settings.chroma.port)
    while not stop.is_set():
        try:
            return await asyncio.to_thread(opening, settings, record, stack)
        except ServiceUnavailable as error:
            _log.error("chroma.unreachable", reason=str(error), remedy=error.remedy)
            live.trouble = error.sentence
            notifier.status(error.sentence)
            await happens_within(stop, CONNECT_PAUSE_SECONDS)
            if server is not None:
                await asyncio.to_thread(server.ensure)
    return None


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, *ending_signals()):
        loop.add_signal_handler(number, stop.set)
    return stop
