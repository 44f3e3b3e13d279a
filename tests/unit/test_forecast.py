"""A forecast says what a sync then does, whatever was done to the folder."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.core.errors import UnreadableDocument
from ingestor.core.estimating import Packing
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Change, Content, Outcome, Priority, Problem, Stage
from ingestor.engine.forecast import MAX_EXAMPLES, Forecast, Forecaster
from ingestor.engine.pipeline import Pipeline
from ingestor.engine.reading import Reader
from tests.doubles_folder import MemoryFolder
from tests.world import World, decode

PATHS = ("a.md", "b.txt", "笔记/丙.txt", "d.py")
LINES = ("one", "two", "three", "四")
BINARY = b"\0binary"


def forecast(world: World, *, is_collection_lost: bool = False) -> Forecast:
    forecaster = Forecaster(
        world.folder,
        Reader(world.folder, decode, world.cutter),
        world.ledger,
        lambda keys: [key for key in keys if key in world.vectors.held],
        recipe=world.embedder.recipe,
        packing=Packing(max_inputs=world.embedder.max_batch_inputs, max_tokens=10**6),
        limit=world.limit_now,
        estimate_tokens=len,
        is_collection_lost=is_collection_lost,
    )
    return forecaster.forecast(lambda _done, _total: None)


def assert_done(told: Forecast, pipeline: Pipeline, world: World, sent: int) -> None:
    """What was told is what was done."""
    tally, totals = pipeline.tally, world.ledger.totals()
    touched = tally.documents[Outcome.ADDED] + tally.documents[Outcome.CHANGED] + tally.documents[Outcome.RENAMED]
    assert (
        told.files.added,
        told.files.changed,
        told.files.renamed,
        told.files.deleted,
        told.files.unchanged,
        told.files.problems,
    ) == (
        tally.documents[Outcome.ADDED],
        tally.documents[Outcome.CHANGED],
        tally.documents[Outcome.RENAMED],
        tally.documents[Outcome.DELETED],
        totals.documents - touched,
        totals.problems + totals.retrying,
    )
    assert (told.chunks.added, told.chunks.retagged, told.chunks.dropped, told.chunks.total) == (
        tally.embedded + tally.reused,
        tally.retagged,
        tally.dropped,
        totals.chunks,
    )
    assert told.texts.paid == sent


def texts() -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(LINES), max_size=4).map(lambda lines: "\n".join(lines).encode())


def operations() -> st.SearchStrategy[tuple[str, str, str, bytes]]:
    return st.tuples(
        st.sampled_from(["write", "write", "spoil", "touch", "rename", "copy", "delete", "forget"]),
        st.sampled_from(PATHS),
        st.sampled_from(PATHS),
        texts(),
    )


def carry_out(world: World, operation: str, path: str, other: str, raw: bytes) -> None:
    is_there = path in world.folder.scan().files
    match operation:
        case "write":
            # Named after its path, so that two documents are alike only when one was copied: which of several that are
            # alike goes on under a new path is luck.
            world.folder.write(path, path.encode() + b"\n" + raw)
        case "spoil":
            world.folder.write(path, BINARY)
        case "touch" if is_there:
            world.folder.touch(path)
        case "rename" if is_there and path != other:
            world.folder.rename(path, other)
        case "copy" if is_there and path != other:
            world.folder.write(other, world.folder.read(path).raw)
        case "delete":
            world.folder.delete(path)
        case "forget" if world.vectors.held:
            del world.vectors.held[min(world.vectors.held)]
        case _:
            pass


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.lists(operations(), max_size=2), st.sampled_from([False, False, True])), max_size=5))
async def test_a_sync_does_what_was_told(
    steps: list[tuple[list[tuple[str, str, str, bytes]], bool]],
) -> None:
    world = World()
    for path in PATHS[:2]:
        world.folder.write(path, f"{path}\none\ntwo".encode())
    await world.sync()
    for operations_of_step, is_collection_lost in steps:
        for operation in operations_of_step:
            carry_out(world, *operation)
        if is_collection_lost:
            world.sink.make_again()
        sent = len(world.embedded_texts())
        told = forecast(world, is_collection_lost=is_collection_lost)
        pipeline = await world.sync()
        assert_done(told, pipeline, world, len(world.embedded_texts()) - sent)
    assert forecast(world).files.read == 0


async def test_what_is_queued_is_told_though_the_folder_does_not_differ() -> None:
    world = World()
    world.folder.write("a.md", b"one\ntwo")
    world.folder.write("b.md", b"three")
    await world.sync()
    fault = Problem(Stage.EMBED, "ServiceUnavailable", "away", "wait", attempts=3, since_seconds=1.0)
    world.ledger.enqueue(
        ["a.md", "never-there.md"], Change("", Priority.LIVE, time.time(), time.time() + 900, 3, fault)
    )
    told = forecast(world)
    assert (told.files.read, told.files.retried, told.files.unchanged) == (1, 1, 2)
    assert told.chunks.kept == told.chunks.total == 3


async def test_a_known_problem_is_tried_again_when_its_file_changes_and_not_before() -> None:
    world = World()
    world.folder.write("a.md", BINARY)
    await world.sync()
    told = forecast(world)
    assert (told.files.read, told.files.retried, told.files.problems, told.obstacles) == (0, 0, 1, ())
    world.folder.write("a.md", b"text")
    told = forecast(world)
    assert (told.files.read, told.files.retried, told.files.problems, told.files.changed) == (1, 1, 0, 1)


async def test_too_many_deletions_are_told_as_held_back_until_they_are_approved_of() -> None:
    world = World()
    world.approves = False
    for number in range(4):
        world.folder.write(f"{number}.md", f"text {number}".encode())
    await world.sync()
    for number in range(3):
        world.folder.delete(f"{number}.md")
    told = forecast(world)
    assert (told.held_deletions, told.files.deleted, told.files.unchanged, told.chunks.dropped) == (3, 0, 4, 0)
    await world.sync()
    assert (world.approve(), forecast(world).held_deletions) == (3, 0)
    told = forecast(world)
    assert (told.held_deletions, told.files.deleted, told.files.unchanged, told.chunks.dropped) == (0, 3, 1, 3)


async def test_deletions_are_not_held_back_that_renames_explain() -> None:
    world = World()
    world.approves = False
    for number in range(4):
        world.folder.write(f"{number}.md", f"text {number}".encode())
    await world.sync()
    for number in range(3):
        # Not by its inode: only its content shows that it was moved.
        world.folder.delete(f"{number}.md")
        if number:
            world.folder.write(f"moved/{number}.md", f"text {number}".encode())
    told = forecast(world)
    assert (told.held_deletions, told.files.renamed, told.files.deleted) == (1, 2, 0)
    await world.sync()
    assert (world.waiting(), forecast(world).held_deletions) == ({"0.md"}, 1)


async def test_what_lies_in_a_folder_that_cannot_be_listed_stays_and_the_folder_is_told() -> None:
    world = World()
    world.folder.write("笔记/丙.txt", b"one")
    world.folder.write("a.md", b"two")
    await world.sync()
    world.folder.unreadable["笔记"] = "cannot be listed"
    told = forecast(world)
    assert (told.files.deleted, told.files.unchanged, told.files.problems, told.files.unreadable_folders) == (
        0,
        2,
        1,
        1,
    )
    assert [(each.kind, each.examples) for each in told.obstacles] == [("UnreadableFolder", ("笔记",))]


async def test_a_queued_file_whose_folder_may_not_be_entered_is_left_as_it_is() -> None:
    world = World()
    world.folder.write("a/b.md", b"one")
    await world.sync()
    world.ledger.enqueue(["a/b.md"], Change("", Priority.LIVE, time.time(), time.time()))
    world.folder.unreadable["a"] = "may not be entered"
    told = forecast(world)
    assert (told.files.read, told.files.unchanged, told.chunks.kept) == (0, 1, 1)


class ClosingFolder(MemoryFolder):
    """Its folder `a` may not be entered any more once something was read."""

    def read(self, path: str) -> Content:
        self.unreadable["a"] = "may not be entered"
        raise UnreadableDocument(path)


def test_a_file_whose_folder_may_not_be_entered_is_no_problem_of_its_own() -> None:
    world = World()
    world.folder = ClosingFolder()
    world.folder.write("a/b.md", b"one")
    assert forecast(world).obstacles == ()
    world.folder.rename("a", "c")
    assert [(each.kind, each.examples) for each in forecast(world).obstacles] == [
        ("UnreadableFolder", ("a",)),
        ("UnreadableDocument", ("c/b.md",)),
    ]


async def test_one_document_that_is_gone_is_the_former_form_of_one_new_file_only() -> None:
    world = World()
    world.folder.write("a.md", b"one")
    await world.sync()
    world.folder.write("b.md", b"one")
    world.folder.write("c.md", b"one")
    world.folder.delete("a.md")
    told = forecast(world)
    assert (told.files.renamed, told.files.added, told.files.deleted, told.texts.paid) == (1, 1, 0, 0)


def test_a_file_that_changes_under_the_read_is_told_and_its_document_left_as_it_is() -> None:
    world = World()
    world.folder.write("a.md", b"one")
    world.folder.unsettled.add("a.md")
    told = forecast(world)
    assert (told.files.problems, told.files.added, told.chunks.added) == (1, 0, 0)
    assert [each.kind for each in told.obstacles] == ["UnstableDocument"]


def test_the_first_few_names_of_many_problems_are_told() -> None:
    world = World()
    for number in range(MAX_EXAMPLES + 2):
        world.folder.write(f"{number}.bin", BINARY)
    (obstacle,) = forecast(world).obstacles
    assert (obstacle.count, len(obstacle.examples)) == (MAX_EXAMPLES + 2, MAX_EXAMPLES)


def test_equal_texts_of_several_files_are_paid_for_once_and_by_the_first() -> None:
    world = World()
    world.folder.write("a.md", b"one\ntwo\none")
    world.folder.write("b.txt", b"two\nthree")
    told = forecast(world)
    assert (told.texts.paid, told.texts.known, told.chunks.added) == (3, 0, 5)
    assert {kind.value: (counts.chunks, counts.texts) for kind, counts in told.kinds.items()} == {
        "markdown": (3, 2),
        "prose": (2, 1),
    }


def test_progress_goes_up_to_all_files() -> None:
    world = World()
    for path in PATHS:
        world.folder.write(path, b"one")
    told: list[tuple[int, int]] = []
    Forecaster(
        world.folder,
        Reader(world.folder, decode, world.cutter),
        None,
        lambda _: (),
        recipe=world.embedder.recipe,
        packing=Packing(max_inputs=1, max_tokens=1),
        limit=DeletionLimit(0.5, 4),
        estimate_tokens=len,
    ).forecast(lambda done, total: told.append((done, total)))
    assert told == [(done, len(PATHS)) for done in range(len(PATHS) + 1)]


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_a_forecast_leaves_ledger_and_vectors_as_they_are(*, is_indexed: bool) -> None:
    world = World()
    world.folder.write("a.md", b"one")
    if is_indexed:
        await world.sync()
        world.folder.write("a.md", b"one\ntwo")
    ledger = world.ledger
    before = (dict(ledger.documents), dict(ledger.queue), dict(ledger.notes), ledger.usage, set(world.vectors.held))
    forecast(world)
    assert before == (
        dict(ledger.documents),
        dict(ledger.queue),
        dict(ledger.notes),
        ledger.usage,
        {*world.vectors.held},
    )
