"""Paths in work: one turn at a time, whatever the order in which the answers of the ledger are heard of."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.model import Change, Plan, Priority
from ingestor.engine.in_work import InWork
from tests.world import World

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def test_a_turn_begins_when_the_one_before_has_ended() -> None:
    in_work = InWork()
    first = await in_work.begin("a")
    other = await in_work.begin("b")
    second = asyncio.create_task(in_work.begin("a"))
    await asyncio.sleep(0)
    assert in_work.get("a") is first
    in_work.end(other)
    await asyncio.sleep(0)
    assert not second.done()
    in_work.end(first)
    assert in_work.get("a") is None
    turn = await second
    assert in_work.get("a") is turn
    in_work.end(turn)
    assert len(in_work) == 0


class TogetherLane:
    """A lane on which the answer of a commit is heard of together with that of the next lease that finds something."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Event] = []

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        await asyncio.sleep(0)
        answer = call(*args, **kwargs)
        name = getattr(call, "__name__", "")
        if name == "commit":
            heard = asyncio.Event()
            self._waiting.append(heard)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await heard.wait()
        elif name == "lease" and answer:
            while self._waiting:
                self._waiting.pop().set()
        return answer

    def close(self) -> bool:
        return True


class TogetherRuntime(SystemRuntime):
    """A runtime whose ledger answers two calls at once."""

    def lane(self, _: str) -> TogetherLane:  # type: ignore[override]  # another lane, and just as good
        return TogetherLane()


async def test_a_path_that_is_leased_again_before_its_task_hears_of_its_commit_has_one_turn_at_a_time() -> None:
    world = World()
    world.folder.write("a", b"one")
    commit = world.ledger.commit
    hints = 0

    def hinted_at_meanwhile(plans: list[Plan], changes: list[Change]) -> None:
        nonlocal hints
        if changes and hints < 3:
            hints += 1
            world.ledger.enqueue(["a"], Change("", Priority.LIVE, enqueued_seconds=0.0, not_before_seconds=0.0))
        commit(plans, changes)
        pipeline.worker.wake()

    hinted_at_meanwhile.__name__ = "commit"
    world.ledger.commit = hinted_at_meanwhile  # type: ignore[method-assign,assignment]
    pipeline = world.pipeline(runtime=TogetherRuntime())
    try:
        await pipeline.prepare()
        async with pipeline.running():
            await pipeline.reconciler.reconcile()
            async with asyncio.timeout(20):
                await pipeline.worker.run(until_idle=True)
    finally:
        await pipeline.close()
    assert hints == 3
    assert world.records() == world.expected()


async def test_a_path_that_got_the_document_it_wanted_and_is_gone_is_deleted() -> None:
    """Its turn never ended well: the file was gone before the rename was written, which the ledger knew of by then."""
    world = World()
    world.folder.write("a", b"one")
    await world.sync()
    (entry,) = world.ledger.documents.values()
    world.folder.delete("a")
    pipeline = world.pipeline()
    pipeline.worker._wanted[entry.document_id] = "a"
    try:
        await pipeline.prepare()
        world.ledger.enqueue(["a"], Change("", Priority.GONE, enqueued_seconds=0.0, not_before_seconds=0.0))
        async with pipeline.running():
            async with asyncio.timeout(20):
                await pipeline.worker.run(until_idle=True)
    finally:
        await pipeline.close()
    assert world.records() == []
    assert not world.ledger.queue
