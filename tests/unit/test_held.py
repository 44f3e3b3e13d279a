"""What is held back from deletion stays, whatever happens beside it, until it is approved or its files are back."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.auditing import forgotten
from ingestor.core.model import Change, Outcome, Priority, Record
from ingestor.engine.guard import FORMER_NOTE
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import Vector, Vectors
from tests.world import World

OLD = {f"old/{number}" for number in range(6)}
NEW = {f"new/{number}" for number in range(6)}


def write(world: World, paths: set[str]) -> None:
    for path in paths:
        world.folder.write(path, f"text of {path}".encode())


def sources(world: World) -> set[str]:
    return {source for source, _, _ in world.records()}


@pytest.fixture
async def replaced() -> World:
    """Six files were indexed, and six others have taken their place since."""
    world = World()
    write(world, OLD)
    await world.sync()
    world.approves = False
    world.folder.delete("old")
    write(world, NEW)
    await world.sync()
    return world


async def worked(world: World, *parts: str) -> Pipeline:
    """A process that has heard of something in parts of the folder."""
    pipeline = world.pipeline()
    await pipeline.prepare()
    async with pipeline.running():
        await pipeline.reconciler.reconcile_parts(parts)
        await pipeline.worker.run(until_idle=True)
    await pipeline.close()
    return pipeline


async def test_as_many_new_files_do_not_let_the_old_ones_go(replaced: World) -> None:
    assert (sources(replaced), replaced.waiting()) == (OLD | NEW, OLD)
    for _ in range(3):
        pipeline = await replaced.sync()
        assert (sources(replaced), replaced.waiting(), pipeline.reconciler.held) == (OLD | NEW, OLD, 6)


async def test_new_files_that_have_the_inodes_and_sizes_of_the_old_ones_are_not_taken_for_them() -> None:
    world = World()
    write(world, OLD)
    await world.sync()
    world.approves = False
    for number in range(6):
        world.folder.rename(f"old/{number}", f"new/{number}")
        world.folder.write(f"new/{number}", f"text of new/{number}".encode())
    await world.sync()
    assert (sources(world), world.waiting()) == (OLD | NEW, OLD)


async def test_whatever_queues_a_held_path_it_stays(replaced: World) -> None:
    await replaced.work(sorted(OLD))
    replaced.ledger.enqueue(OLD, Change("", Priority.BACKFILL, 0.0, 0.0))
    await replaced.sync()
    await worked(replaced, "old", "old/1", "")
    assert (sources(replaced), replaced.waiting(), replaced.ledger.waiting()) == (OLD | NEW, OLD, {})


async def test_a_path_that_was_in_work_when_it_was_held_stays() -> None:
    world = World()
    write(world, OLD)
    await world.sync()
    world.approves = False
    world.folder.delete("old")
    now_seconds = SystemRuntime().now_seconds()
    world.ledger.enqueue(OLD, Change("", Priority.LIVE, now_seconds, now_seconds))
    pipeline = world.pipeline()
    leased = world.ledger.lease(9, now_seconds + 1)
    await pipeline.reconciler.reconcile()
    world.ledger.release(leased)
    async with pipeline.running():
        await pipeline.worker.run(until_idle=True)
    await pipeline.close()
    assert (sources(world), world.ledger.waiting()) == (OLD, {})


async def test_a_path_whose_edit_was_being_written_when_it_was_held_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    write(world, OLD)
    await world.sync()
    world.approves = False
    for path in OLD:
        world.folder.write(path, f"edited {path}".encode())
    add = world.sink.add

    def lose_all_meanwhile(records: Sequence[Record], vectors: Vectors | Sequence[Vector]) -> None:
        add(records, vectors)
        world.folder.delete("old")
        world.ledger.hold(OLD)  # as a comparison that has run meanwhile

    monkeypatch.setattr(world.sink, "add", lose_all_meanwhile)
    await world.sync()
    monkeypatch.undo()
    await world.sync()
    assert (sources(world), world.waiting(), world.ledger.waiting()) == (OLD, OLD, {})


async def test_live_deletions_of_other_files_go_on(replaced: World) -> None:
    replaced.folder.delete("new/0")
    await replaced.work(["new/0"])
    assert sources(replaced) == OLD | NEW - {"new/0"}
    replaced.folder.delete("new/1")
    await worked(replaced, "new")
    assert (sources(replaced), replaced.waiting()) == (OLD | NEW - {"new/0", "new/1"}, OLD)


async def test_what_a_comparison_misses_besides_is_held_with_it(replaced: World) -> None:
    replaced.folder.delete("new/0")
    await replaced.sync()
    assert (sources(replaced), replaced.waiting()) == (OLD | NEW, OLD | {"new/0"})


async def test_files_that_are_back_are_held_no_more_and_the_rest_is(replaced: World) -> None:
    back = OLD - {"old/0"}
    write(replaced, back)
    await replaced.sync()
    assert (sources(replaced), replaced.waiting()) == (OLD | NEW, {"old/0"})
    await replaced.sync()
    assert sources(replaced) == OLD | NEW
    replaced.folder.write("elsewhere", b"text of old/0")
    pipeline = await replaced.sync()
    assert pipeline.tally.documents == {Outcome.RENAMED: 1}
    assert (sources(replaced), replaced.waiting()) == (back | NEW | {"elsewhere"}, set())


async def test_approval_is_of_what_was_shown_and_what_goes_missing_then_is_judged_anew(replaced: World) -> None:
    assert replaced.approve() == 6
    for number in range(4):
        replaced.folder.delete(f"new/{number}")
    await replaced.sync()
    lost = {f"new/{number}" for number in range(4)}
    assert (sources(replaced), replaced.waiting()) == (NEW, lost)
    assert replaced.approve() == 4
    await replaced.sync()
    assert (sources(replaced), replaced.ledger.held()) == (NEW - lost, {})


async def test_part_of_what_is_held_can_be_approved(replaced: World) -> None:
    assert replaced.ledger.approve(["old/0", "old/1"]) == 2
    await replaced.sync()
    assert (sources(replaced), len(replaced.waiting())) == (OLD - {"old/0", "old/1"} | NEW, 4)


async def test_an_audit_and_its_repair_leave_what_is_held(replaced: World) -> None:
    pipeline = replaced.pipeline()
    await pipeline.prepare()
    await pipeline.correct(await pipeline.auditor.audit(is_deep=True, is_alone=True))
    await pipeline.close()
    await replaced.sync()
    assert (sources(replaced), replaced.waiting()) == (OLD | NEW, OLD)


async def test_a_collection_that_is_not_trusted_any_more_keeps_what_is_held(replaced: World) -> None:
    replaced.ledger.rewrite(forgotten)
    await replaced.sync()
    assert (sources(replaced), replaced.waiting()) == (OLD | NEW, OLD)


async def test_what_an_upgraded_ledger_held_back_is_held_still() -> None:
    """It had noted how many, and not which."""
    world = World()
    write(world, OLD | NEW)
    await world.sync()
    world.approves = False
    world.folder.delete("old")
    world.ledger.set_note(FORMER_NOTE, "6")
    await world.sync()
    assert (sources(world), world.waiting()) == (OLD | NEW, OLD)
    await world.sync()
    assert (sources(world), world.waiting()) == (OLD | NEW, OLD)


async def test_a_start_says_what_is_held_and_says_more_when_it_becomes_more(replaced: World) -> None:
    pipeline = replaced.pipeline()
    with capture_logs() as told:
        await pipeline.reconciler.reconcile()
        await pipeline.reconciler.reconcile()
        replaced.folder.delete("new/0")
        await pipeline.reconciler.reconcile()
    await pipeline.close()
    lines = [line for line in told if line["event"] == "deletions.held_back"]
    assert [(line["missing"], line["example"]) for line in lines] == [(6, "old/0"), (7, "new/0")]


async def test_a_suddenly_empty_small_folder_stays_held_when_something_is_added() -> None:
    world = World()
    write(world, {"a", "b", "c"})
    await world.sync()
    world.approves = False
    for path in ("a", "b", "c"):
        world.folder.delete(path)
    await world.sync()
    write(world, {"d"})
    for _ in range(2):
        await world.sync()
        assert (sources(world), world.waiting()) == ({"a", "b", "c", "d"}, {"a", "b", "c"})
