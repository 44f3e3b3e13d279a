"""What is missing from a folder is gone only where the folder is the one that was compared."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ingestor.core.errors import MACHINE, ServiceUnavailable
from ingestor.core.model import Change, Priority, Snapshot
from ingestor.engine.pipeline import Pipeline
from tests.world import World


@asynccontextmanager
async def working(world: World) -> AsyncIterator[Pipeline]:
    """A process that has indexed what is there."""
    pipeline = world.pipeline()
    try:
        await pipeline.prepare()
        async with pipeline.running():
            await pipeline.reconcile()
            await pipeline.worker.run(until_idle=True)
            yield pipeline
    finally:
        await pipeline.close()


def unmount(world: World) -> None:
    """Leave the mount point alone."""
    world.folder.delete("")
    world.folder.disk = "the mount point"


def mount(world: World) -> None:
    world.folder.disk = "the disk"
    for name in ("a", "b"):
        world.folder.write(f"{name}.md", name.encode())


def hint(world: World, pipeline: Pipeline, path: str) -> None:
    now_seconds = pipeline.runtime.now_seconds()
    change = Change("", Priority.LIVE, enqueued_seconds=now_seconds, not_before_seconds=now_seconds)
    world.ledger.enqueue([path], change)


@pytest.fixture
def world() -> World:
    made = World()
    mount(made)
    return made


async def test_what_is_queued_when_a_disk_goes_and_leaves_its_mount_point_is_not_taken_for_deleted(
    world: World,
) -> None:
    async with working(world) as pipeline:
        whole = world.records()
        unmount(world)
        hint(world, pipeline, "a.md")
        await pipeline.worker.run(until_idle=True)
        assert world.records() == whole
        problem = world.ledger.queue["a.md"].problem
        assert problem is not None
        assert (problem.service, problem.kind) == (MACHINE, "ServiceUnavailable")
        mount(world)
        await pipeline.hasten(MACHINE)
        await pipeline.worker.run(until_idle=True)
        assert world.records() == whole
        assert not world.ledger.queue
    assert len(world.embedded_texts()) == 2


async def test_a_comparison_of_a_part_judges_nothing_of_another_disk(world: World) -> None:
    async with working(world) as pipeline:
        whole = world.records()
        unmount(world)
        with pytest.raises(ServiceUnavailable, match="another one"):
            await pipeline.reconciler.reconcile_parts(["a.md"])
        await pipeline.worker.run(until_idle=True)
        assert world.records() == whole


async def test_while_another_disk_is_compared_nothing_that_it_lacks_is_taken_for_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.approves = False
    world.limit = type(world.limit)(max_ratio=0.5, min_documents=1)
    async with working(world) as pipeline:
        whole, may_go_on = world.records(), asyncio.Event()
        loop, scan = asyncio.get_running_loop(), world.folder.scan

        def slow(below: str = "") -> Snapshot:
            found = scan(below)
            asyncio.run_coroutine_threadsafe(may_go_on.wait(), loop).result(10)
            return found

        monkeypatch.setattr(world.folder, "scan", slow)
        unmount(world)
        comparing = asyncio.create_task(pipeline.reconcile())
        await asyncio.sleep(0.05)
        hint(world, pipeline, "a.md")
        await pipeline.worker.run(until_idle=True)
        assert world.records() == whole
        may_go_on.set()
        await comparing
        assert world.waiting() == {"a.md", "b.md"}
        await pipeline.worker.run(until_idle=True)
        assert world.records() == whole


async def test_before_a_process_has_compared_anything_nothing_is_taken_for_deleted_while_it_compares(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.sync()
    world.embedder.is_closed = False
    whole = world.records()
    pipeline = world.pipeline()
    may_go_on, loop, scan = asyncio.Event(), asyncio.get_running_loop(), world.folder.scan

    def slow(below: str = "") -> Snapshot:
        found = scan(below)
        asyncio.run_coroutine_threadsafe(may_go_on.wait(), loop).result(10)
        return found

    monkeypatch.setattr(world.folder, "scan", slow)
    await pipeline.prepare()
    unmount(world)
    async with pipeline.running():
        comparing = asyncio.create_task(pipeline.reconcile())
        await asyncio.sleep(0.05)
        hint(world, pipeline, "a.md")
        await pipeline.worker.run(until_idle=True)
        assert world.records() == whole
        may_go_on.set()
        await comparing
    await pipeline.close()


async def test_where_a_comparison_has_seen_another_disk_what_it_lacks_goes(world: World) -> None:
    async with working(world) as pipeline:
        unmount(world)
        world.folder.write("b.md", b"b")
        await pipeline.reconcile()
        await pipeline.worker.run(until_idle=True)
        assert world.records() == world.expected() == [("b.md", "b", 1)]


async def test_what_waits_for_the_model_when_the_disk_goes_stays(world: World) -> None:
    gate = asyncio.Event()
    async with working(world) as pipeline:
        whole = world.records()
        world.embedder.gate = gate
        world.folder.write("a.md", b"another a")
        hint(world, pipeline, "a.md")
        working_on = asyncio.create_task(pipeline.worker.run(until_idle=True))
        async with asyncio.timeout(10):
            while not world.embedder.in_flight:
                await asyncio.sleep(0.005)
        unmount(world)
        gate.set()
        await working_on
        assert [path for path, _, _ in world.records()] == [path for path, _, _ in whole]
