"""Compaction beside the writers: nothing is lost, doubled or embedded, whatever is written meanwhile."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from ingestor.adapters.runtime import ThreadLane
from ingestor.core.errors import ChromaUnavailable, CollectionLost, ServiceUnavailable
from ingestor.core.fingerprint import is_owned
from ingestor.engine import compaction
from ingestor.engine.compaction import Compactor, replaced
from ingestor.engine.pipeline import Pipeline
from tests.doubles_sink import Held, MemorySink
from tests.world import World

LINES = 250


class MemoryCopy:
    """A copy of a `MemorySink`; `between` is called after every page, as if somebody was at work meanwhile."""

    def __init__(self, sink: MemorySink, between: Callable[[int], None] = lambda _: None) -> None:
        self.sink = sink
        self.held: dict[str, Held] = {}
        self.tombstones = 0
        self.pages = 0
        self.retired = 0
        self._between = between

    def begin(self) -> list[str]:
        self.held, self.tombstones = {}, 0
        return list(self.sink.held)

    def take(self, ids: Sequence[str]) -> set[str]:
        for id_ in ids:
            self.tombstones += self.held.pop(id_, None) is not None
            if id_ in self.sink.held:
                self.held[id_] = self.sink.held[id_]
        self.pages += 1
        self._between(self.pages)
        return {id_ for id_ in ids if id_ in self.held and not is_owned(id_, self.held[id_].metadata)}

    def differences(self) -> set[str]:
        return self.held.keys() ^ self.sink.held.keys()

    def switch(self) -> None:
        self.sink.held = self.held
        self.sink.reopen()

    def retire(self) -> None:
        self.retired += 1


@pytest.fixture
async def world() -> World:
    made = World()
    for name in ("a", "b", "c"):
        made.folder.write(f"{name}.md", "\n".join(f"{name} {line}" for line in range(LINES)).encode())
    await made.sync()
    made.embedder.is_closed = False
    return made


def compactor(pipeline: Pipeline, copy: MemoryCopy, elements: int | None = None, ratio: float = 1.0) -> Compactor:
    return Compactor(
        [pipeline], copy, switch=copy.switch, retire=copy.retire, count_index=lambda: elements, max_ratio=ratio
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_added_renamed_edited_and_dropped_meanwhile_is_in_the_copy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "PAGE_RECORDS", 10)
    texts = len(world.embedded_texts())
    pipeline = world.pipeline()
    await pipeline.prepare()

    def change(page: int) -> None:
        time.sleep(0.005)  # so that work goes on between two pages
        if page == 2:
            world.folder.write("new.md", b"came\nmeanwhile")
            world.folder.write("a.md", "\n".join(f"a {line}" for line in range(LINES // 2)).encode())
        if page == 3 * LINES // 10 - 20:  # all of it has been copied
            world.folder.rename("b.md", "renamed.md")
            world.sink.put_foreign("by hand", world.sink.held[next(iter(world.sink.held))].vector, {"note": "one"})
        if page == 6:
            world.folder.delete("c.md")
            world.folder.write("later.md", b"came\nlater")

    copy = MemoryCopy(world.sink, change)
    async with pipeline.running():
        copying = asyncio.create_task(compactor(pipeline, copy).compact())
        while not copying.done():
            await pipeline.reconciler.reconcile()
            await pipeline.worker.run(until_idle=True)
            await asyncio.sleep(0)
        await copying
        world.sink.put_foreign("by hand", world.sink.held["by hand"].vector, {"note": "two"})
        await pipeline.reconciler.reconcile()
        await pipeline.worker.run(until_idle=True)
    await pipeline.close()
    assert world.sink.held is copy.held
    del world.sink.held["by hand"]
    assert world.records() == world.expected()
    assert len(world.embedded_texts()) == texts + 4 - 1, "what came twice was embedded once"
    assert copy.retired == 1


async def test_a_record_of_somebody_else_that_changes_meanwhile_is_looked_at_again(world: World) -> None:
    vector = next(iter(world.sink.held.values())).vector
    world.sink.held = {"by hand": Held(None, {"note": "one"}, vector), **world.sink.held}

    def change(page: int) -> None:
        if page == 2:
            world.sink.put_foreign("by hand", vector, {"note": "two"})

    copy = MemoryCopy(world.sink, change)
    pipeline = world.pipeline()
    await compactor(pipeline, copy).compact()
    await pipeline.close()
    assert world.sink.held["by hand"].metadata == {"note": "two"}


async def test_a_writer_waits_for_the_switch_and_goes_on_with_the_new_collection(world: World) -> None:
    pipeline = world.pipeline()
    await pipeline.prepare()
    before = world.sink.collection_id
    async with pipeline.running():
        world.folder.write("late.md", b"late")
        async with pipeline.writer.turn:
            await pipeline.reconciler.reconcile()
            working = asyncio.create_task(pipeline.worker.run(until_idle=True))
            await asyncio.sleep(0.05)
            assert "late.md" not in {path for path, _, _ in world.records()}
        await working
        await compactor(pipeline, MemoryCopy(world.sink)).compact()
    await pipeline.close()
    assert world.sink.collection_id != before
    assert world.records() == world.expected()


async def test_somebody_who_never_stops_writing_keeps_the_collection_as_it_is(world: World) -> None:
    vector = next(iter(world.sink.held.values())).vector
    copy = MemoryCopy(world.sink, lambda page: world.sink.put_foreign(f"by hand {page}", vector))
    held = world.sink.held
    lane = ThreadLane("chroma")
    with pytest.raises(ServiceUnavailable, match="changed by somebody else"):
        await replaced(copy, lane, copy.switch)
    lane.close()
    assert world.sink.held is held


async def test_tombstones_are_counted_before_they_are_made_and_lead_to_a_copy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(compaction, "GRACE_SECONDS", 0.05)
    pipeline = world.pipeline()
    await pipeline.prepare()
    copy = MemoryCopy(world.sink)
    watching = compactor(pipeline, copy, elements=3 * LINES)
    running = asyncio.create_task(watching.run())
    async with pipeline.running():
        for generation in range(4):
            assert not await watching.is_due()
            assert await pipeline.tombstones() == generation * LINES
            world.folder.write("a.md", "\n".join(f"a {generation} {line}" for line in range(LINES)).encode())
            await pipeline.reconciler.reconcile()
            await pipeline.worker.run(until_idle=True)
        await until(lambda: world.sink.held is copy.held)
        await until(lambda: world.ledger.dropped == copy.tombstones)
        await until(lambda: copy.retired == 3)  # before the start, before the copy, after the grace
    running.cancel()
    await pipeline.close()
    assert world.records() == world.expected()


async def test_a_lost_count_is_taken_from_the_index_and_a_fault_puts_a_copy_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(compaction, "RETRY_SECONDS", 0.01)
    pipeline = world.pipeline()
    await pipeline.prepare()
    copy = MemoryCopy(world.sink)
    world.sink.fail("reopen", ChromaUnavailable("away"))
    running = asyncio.create_task(compactor(pipeline, copy, elements=3 * LINES + 2_000).run())
    await until(lambda: world.ledger.dropped == 0 and world.sink.held is copy.held and copy.retired >= 3)
    running.cancel()
    await pipeline.close()
    assert world.records() == world.expected()


async def test_a_collection_that_is_lost_ends_the_compactor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "CHECK_SECONDS", 0.0)
    world.sink.delete_collection()
    pipeline = world.pipeline()
    with pytest.raises(CollectionLost):
        await compactor(pipeline, MemoryCopy(world.sink), elements=10).run()
    await pipeline.close()
