"""`verify`: folder, ledger and collection compared, and mended."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from ingestor.app.collection import hold, indexed, open_collections
from ingestor.app.parts import folder_of, pipelines_of, sourced
from ingestor.app.sync import usage_of, work_through
from ingestor.core.model import Usage
from ingestor.engine.pipeline import Pipeline, running
from ingestor.engine.verify import Audit
from ingestor.settings import Settings

REPAIR_ROUNDS = 3
"""Repairs of one `verify`: what is mended may show what it had hidden, and work may go on meanwhile."""
DRAIN_PAUSE_SECONDS = 0.5
DRAIN_SECONDS = 60.0
"""How long a repair waits for a daemon that does not get on."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found of a source at first, and what was left in the end: the same where nothing was repaired."""

    source: str
    """Its name; empty for the only one."""
    first: Audit
    last: Audit


@dataclass(frozen=True, slots=True)
class Verified:
    """Every source, and what the repair has cost in this process; beside a daemon the daemon counts."""

    sources: Sequence[Verification]
    usage: Usage
    seconds: float

    @property
    def is_sound(self) -> bool:
        """Whether all agree in the end."""
        return all(each.last.is_sound for each in self.sources)


@dataclass(frozen=True, slots=True)
class _How:
    is_alone: bool
    """Nobody else is at work."""
    is_repair: bool


async def verify(settings: Settings, *, is_repair: bool) -> Verified:
    """Compare folders, ledgers and collections; `is_repair` mends what differs and compares again.

    Beside a daemon the daemon does what there is to do; without one it is done here.
    """
    began_seconds = time.monotonic()
    async with AsyncExitStack() as stack:
        for each in settings.each():
            folder_of(each)
        daemon = indexed(settings)
        if daemon is None:
            hold(settings, "verify", stack)
        sinks = await asyncio.to_thread(open_collections, settings, daemon, stack)
        pipelines = await stack.enter_async_context(pipelines_of(sourced(settings, sinks), is_prepared=False))
        how = _How(is_alone=daemon is None, is_repair=is_repair)
        found = [await _verify(pipeline, pipelines, how) for pipeline in pipelines]
        for pipeline in pipelines:
            await pipeline.account.tell()
        return Verified(found, usage_of(pipelines), round(time.monotonic() - began_seconds, 3))


async def _verify(pipeline: Pipeline, pipelines: Sequence[Pipeline], how: _How) -> Verification:
    is_alone = how.is_alone
    found = first = await pipeline.auditor.audit(is_deep=True, is_alone=is_alone)
    for _ in range(REPAIR_ROUNDS if how.is_repair else 0):
        if found.is_sound:
            break
        await pipeline.correct(found)
        if is_alone:
            await pipeline.prepare()
            async with running(pipelines):
                await work_through([pipeline])
        else:
            await pipeline.reconcile()
            await _drained(pipeline)
        found = await pipeline.auditor.audit(is_deep=True, is_alone=is_alone)
    return Verification(pipeline.name, first, found)


async def _drained(pipeline: Pipeline) -> None:
    """Wait until the daemon has done what is queued, but for what it retries later; not longer than it gets on."""
    left, quiet_seconds = await pipeline.queued(), 0.0
    while left and quiet_seconds < DRAIN_SECONDS:
        await asyncio.sleep(DRAIN_PAUSE_SECONDS)
        before, left = left, await pipeline.queued()
        quiet_seconds = 0.0 if left < before else quiet_seconds + DRAIN_PAUSE_SECONDS
