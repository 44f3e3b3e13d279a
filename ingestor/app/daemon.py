"""`run`: the daemon, from settings to an end by signal."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from ingestor.adapters import chroma_client
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.ending_signals import ending_signals
from ingestor.adapters.instance import LIFE, InstanceRecord
from ingestor.adapters.notify import Notifier
from ingestor.adapters.runtime import SystemRuntime
from ingestor.app.collection import SERVER_HOST, announce, endpoint, hold, open_client, open_collections, serve
from ingestor.app.compaction import compactors_of
from ingestor.app.costing import hold_costly
from ingestor.app.line import line_of
from ingestor.app.live import STARTING, Front, Live
from ingestor.app.parts import Sourced, folders_of, pipelines_of, sourced
from ingestor.app.rebuild import rebuild_beside
from ingestor.app.searching import Searchers
from ingestor.app.suggesting import first_suggestions
from ingestor.core.errors import TransientError
from ingestor.core.shortage import shortage
from ingestor.engine.daemon import Daemon
from ingestor.engine.news import happens_within
from ingestor.engine.pipeline import Pipeline
from ingestor.settings import Settings

_UNREACHABLE, _WAITING = "chroma.unreachable", "start.waiting"
"""How it is logged that something is away."""
PAUSE_SECONDS = 2.0
"""Pause of a daemon that comes up between two attempts to open what is away."""

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


async def run(
    settings: Settings, *, is_rebuild: bool = False, takes_over: bool = False, front: Front | None = None
) -> None:
    """Follow the folders until SIGINT, SIGTERM or SIGHUP, and let others reach what is known of it through `front`.

    With `is_rebuild` collections of other settings are rebuilt meanwhile, and followed after the switch. One that
    `takes_over` claims the collections whosever they are. What passes - a disk that is full, a server that does not
    answer or come up - is waited out.
    """
    async with AsyncExitStack() as stack:
        opening = _Opening(Live(settings, _stop_signal()), Notifier(), stack)
        with suppress(_ToldToStop):
            await _follow(opening, settings, is_rebuild=is_rebuild, takes_over=takes_over, front=front)
    _log.info("daemon.stopped")


async def _follow(
    opening: "_Opening", settings: Settings, *, is_rebuild: bool, takes_over: bool, front: Front | None
) -> None:
    live, stack = opening.live, opening.stack
    folders_of(settings)
    instance = await opening.waited(lambda opened: asyncio.to_thread(hold, settings, "run", opened))
    # The server comes up while its client is imported; what is imported by two threads at once may be seen half.
    importing = ThreadPoolExecutor(1)
    stack.callback(importing.shutdown, wait=False)
    loading = asyncio.get_running_loop().run_in_executor(importing, chroma_client.load)
    http_url = await stack.enter_async_context(front(live, importing)) if front is not None else ""

    async def announced(_: AsyncExitStack, *, served: bool) -> None:
        announce(instance, settings, "run", served=served, http_url=http_url)

    if http_url:
        await opening.waited(partial(announced, served=False))
    opening.server = await opening.waited(lambda opened: asyncio.to_thread(serve, settings, opened, attempts=1))
    await loading
    record = InstanceRecord(os.getpid(), "run", "", 0.0, SERVER_HOST, settings.chroma.port)

    async def connected(
        opens: Callable[[Settings, InstanceRecord | None, AsyncExitStack], _T], opened: AsyncExitStack
    ) -> _T:
        return await asyncio.to_thread(opens, settings, record, opened)

    if is_rebuild:
        async with AsyncExitStack() as beside:
            client = await opening.waited(partial(connected, open_client), beside, event=_UNREACHABLE)
            await opening.waited(partial(announced, served=True))
            live.is_rebuilding = True
            await rebuild_beside(settings, client, live.stop, opening.notifier, opening.server, takes_over=takes_over)
            live.is_rebuilding = False
    claimed = partial(open_collections, takes_over=takes_over)
    sinks = await opening.waited(partial(connected, claimed), event=_UNREACHABLE)
    await opening.waited(partial(announced, served=True))
    _log.info(
        "daemon.started",
        folder=", ".join(str(each.watch_dir) for each in settings.each()),
        collection=", ".join(sinks),
        chroma=endpoint(settings, instance.record),
    )

    async def weighed(_: AsyncExitStack) -> None:
        await asyncio.to_thread(hold_costly, settings, sinks)

    await opening.waited(weighed)
    for suggestion in await asyncio.to_thread(first_suggestions, settings):
        _log.warning("folder.suggestion", suggestion=suggestion)

    async def joined(opened: AsyncExitStack) -> tuple[list[Sourced], list[Pipeline]]:
        sources = sourced(settings, sinks)
        return sources, await opened.enter_async_context(pipelines_of(sources, patience_seconds=0.0))

    sources, pipelines = await opening.waited(joined)
    lines = [line_of(each.settings, pipeline) for each, pipeline in zip(sources, pipelines, strict=True)]
    compactors = compactors_of(sources, pipelines)
    searchers = Searchers(sources, pipelines, instance.record)
    stack.push_async_callback(searchers.close)
    live.come_up(lines, searchers)
    stack.callback(live.stop.set)  # whatever it ends by, nothing can be asked from here on
    daemon = Daemon(
        lines,
        opening.notifier,
        SystemRuntime(),
        supervise=opening.server.ensure if opening.server else None,
        beside=[each.run for each in compactors],
        life=LIFE,
    )
    await daemon.run(live.stop)


class _ToldToStop(Exception):
    """A signal came while the daemon was coming up."""


@dataclass(eq=False, slots=True)
class _Opening:
    """Opens, one after another, what a daemon needs, and waits for what is away."""

    live: Live
    notifier: Notifier
    stack: AsyncExitStack
    """Closes what was opened when the daemon ends."""
    server: ChromaServer | None = None
    """Of our own, from when it has come up: started again when it dies."""

    async def waited(
        self,
        opened_by: Callable[[AsyncExitStack], Awaitable[_T]],
        stack: AsyncExitStack | None = None,
        *,
        event: str = _WAITING,
    ) -> _T:
        """Open something until the end of `stack`, however long that takes; an attempt that fails leaves nothing open.

        Raises `_ToldToStop`, and what passes by itself never.
        """
        told = ""
        while not self.live.stop.is_set():
            try:
                if told and self.server is not None:
                    await asyncio.to_thread(self.server.ensure)
                async with AsyncExitStack() as opened:
                    found = await opened_by(opened)
                    (stack or self.stack).push_async_callback(opened.pop_all().aclose)
            except (TransientError, OSError) as error:
                passing = error if isinstance(error, TransientError) else shortage(error)
                if passing is None:
                    raise
                if passing.sentence != told:
                    _log.error(event, reason=str(passing), remedy=passing.remedy)
                told = self.live.trouble = passing.sentence
                self.notifier.status(told)
                await happens_within(self.live.stop, PAUSE_SECONDS)
            else:
                self.live.trouble = STARTING
                return found
        raise _ToldToStop


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, *ending_signals()):
        loop.add_signal_handler(number, stop.set)
    return stop
