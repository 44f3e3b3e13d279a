"""`verify`: folder, ledger and collection compared, and mended."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from ingestor.app.collection import hold, indexed, open_collection
from ingestor.app.parts import folder_of, pipeline_of
from ingestor.app.sync import work_through
from ingestor.core.model import Usage
from ingestor.engine.pipeline import Pipeline
from ingestor.engine.verify import Audit
from ingestor.settings import Settings

REPAIR_ROUNDS = 3
"""Repairs of one `verify`: what is mended may show what it had hidden, and work may go on meanwhile."""
DRAIN_PAUSE_SECONDS = 0.5
DRAIN_SECONDS = 60.0
"""How long a repair waits for a daemon that does not get on."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found at first, and what was left in the end: the same where nothing was to be repaired."""

    first: Audit
    last: Audit
    usage: Usage
    """What the repair has cost in this process; beside a daemon the daemon counts."""
    seconds: float


async def verify(settings: Settings, *, is_repair: bool) -> Verification:
    """Compare folder, ledger and collection; `is_repair` mends what differs and compares again.

    Beside a daemon the daemon does what there is to do; without one it is done here.
    """
    began_seconds = time.monotonic()
    async with AsyncExitStack() as stack:
        source = folder_of(settings)
        running = indexed(settings)
        if running is None:
            hold(settings, "verify", stack)
        sink = await asyncio.to_thread(open_collection, settings, running, stack)
        pipeline = await stack.enter_async_context(pipeline_of(settings, source, sink, is_prepared=False))
        found = first = await pipeline.auditor.audit(is_deep=True, is_alone=running is None)
        for _ in range(REPAIR_ROUNDS if is_repair else 0):
            if found.is_sound:
                break
            await pipeline.correct(found)
            if running is None:
                await pipeline.prepare()
                async with pipeline.running():
                    await work_through(pipeline)
            else:
                await pipeline.reconciler.reconcile()
                await _drained(pipeline)
            found = await pipeline.auditor.audit(is_deep=True, is_alone=running is None)
        await pipeline.account.tell()
        return Verification(first, found, pipeline.account.usage, round(time.monotonic() - began_seconds, 3))


async def _drained(pipeline: Pipeline) -> None:
    """Wait until the daemon has done what is queued, but for what it retries later; not longer than it gets on."""
    left, quiet_seconds = await pipeline.queued(), 0.0
    while left and quiet_seconds < DRAIN_SECONDS:
        await asyncio.sleep(DRAIN_PAUSE_SECONDS)
        before, left = left, await pipeline.queued()
        quiet_seconds = 0.0 if left < before else quiet_seconds + DRAIN_PAUSE_SECONDS
