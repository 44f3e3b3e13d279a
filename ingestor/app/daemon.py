"""`run`: the daemon, from settings to an end by signal."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import structlog

from ingestor.adapters import chroma_client
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.instance import InstanceRecord
from ingestor.adapters.notify import Notifier
from ingestor.adapters.rules import RULES_FILE
from ingestor.adapters.watcher import Watcher
from ingestor.app.collection import SERVER_HOST, announce, endpoint, hold, open_collections, serve
from ingestor.app.parts import folder_of, path_below, pipelines_of, sourced
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.paths import is_at_or_below
from ingestor.engine.daemon import Daemon, Line
from ingestor.engine.news import happens_within
from ingestor.engine.pipeline import Pipeline
from ingestor.settings import Settings

CONNECT_PAUSE_SECONDS = 5.0
"""Pause of a daemon between two attempts to reach a Chroma server that is elsewhere."""

_log = structlog.get_logger(__name__)


async def run(settings: Settings) -> None:
    """Follow the folder until SIGINT or SIGTERM."""
    async with AsyncExitStack() as stack:
        notifier = Notifier()
        stop = _stop_signal()
        for each in settings.each():
            folder_of(each, may_be_away=len(settings.sources) > 1)
        instance = hold(settings, "run", stack)
        # The server comes up while its client is imported.
        loading = asyncio.get_running_loop().run_in_executor(None, chroma_client.load)
        server = serve(settings, stack)
        await loading
        sinks = await _reached(settings, stack, stop, server)
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
        lines = [_line(each.settings, pipeline) for each, pipeline in zip(sources, pipelines, strict=True)]
        await Daemon(lines, notifier, supervise=server.ensure if server else None).run(stop)
    _log.info("daemon.stopped")


def _line(settings: Settings, pipeline: Pipeline) -> Line:
    """What follows a source."""
    ours = (settings.data_dir, settings.chroma_path)
    left_out = [below for folder in ours if (below := path_below(settings.watch_dir, folder))]
    watch = Watcher(
        settings.watch_dir,
        polling=settings.watch.polling,
        follow_symlinks=settings.watch.follow_symlinks,
        ignore=lambda path: any(is_at_or_below(path, folder) for folder in left_out),
    )
    follower = pipeline.follower(watch, quiet_seconds=settings.watch.quiet_seconds, rules_file=RULES_FILE)
    return Line(pipeline, follower, watch)


async def _reached(
    settings: Settings, stack: AsyncExitStack, stop: asyncio.Event, server: ChromaServer | None
) -> dict[str, ChromaSink] | None:
    """Open the collections, waiting for a server that is elsewhere; None when told to stop meanwhile.

    A server of our own that dies just now is started again; raises `ServiceUnavailable` when it dies too often.
    """
    record = InstanceRecord(os.getpid(), "run", "", 0.0, SERVER_HOST, settings.chroma.port)
    while not stop.is_set():
        try:
            return await asyncio.to_thread(open_collections, settings, record, stack)
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
