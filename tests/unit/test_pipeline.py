"""The pipeline over doubles: whatever happens to folder and process, Chroma ends up equal to the folder."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.backoff import Backoff
from ingestor.core.errors import CHROMA, RateLimited, ServiceUnavailable, UnreadableDocument, UnstableDocument
from ingestor.core.model import Change, Chunk, Content, Entry, Outcome, Plan, Priority, Retag, Stat
from ingestor.engine import pipeline as pipeline_module
from ingestor.engine import worker as worker_module
from ingestor.engine.guard import APPROVED_NOTE
from ingestor.engine.reconcile import UNREADABLE_NOTE
from tests.doubles_embedder import HashEmbedder
from tests.doubles_folder import MemoryFolder
from tests.doubles_ledger import MemoryLedger
from tests.doubles_sink import MemorySink
from tests.mortal import Crash, Fate, mortal
from tests.world import LineCutter, World


@pytest.fixture
def world() -> World:
    made = World()
    made.folder.write("a.md", b"one\ntwo\nthree")
    made.folder.write("sub/b.md", b"four\nfive")
    made.folder.write("sub/deep/c.md", b"six")
    return made


async def test_a_sync_makes_chroma_hold_the_folder(world: World) -> None:
    tally = (await world.sync()).tally
    assert world.records() == world.expected()
    assert tally.documents == {Outcome.ADDED: 3}
    assert tally.embedded == 6


async def test_a_second_sync_neither_embeds_nor_writes(world: World) -> None:
    await world.sync()
    world.sink.calls.clear()
    tally = (await world.sync()).tally
    assert world.sink.writes == []
    assert len(world.embedded_texts()) == 6
    assert tally.unchanged == 3


async def test_an_edit_costs_only_what_changed(world: World) -> None:
    await world.sync()
    world.folder.write("a.md", b"one\nTWO\nthree")
    tally = (await world.sync()).tally
    assert world.records() == world.expected()
    assert world.embedded_texts()[6:] == ["TWO"]
    assert (tally.embedded, tally.retagged, tally.dropped) == (1, 2, 1)


async def test_a_renamed_folder_keeps_its_documents_and_costs_nothing(world: World) -> None:
    await world.sync()
    ids = set(world.sink.held)
    world.folder.rename("sub", "moved")
    tally = (await world.sync()).tally
    assert world.records() == world.expected()
    assert tally.documents == {Outcome.RENAMED: 2}
    assert set(world.sink.held) == ids
    assert len(world.embedded_texts()) == 6


async def test_what_was_moved_or_touched_is_not_even_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.sync()
    cut: list[str] = []
    cut_whole = world.cutter.cut

    def counted_cut(text: str, file_name: str) -> tuple[str, tuple[Chunk, ...]]:
        cut.append(file_name)
        return cut_whole(text, file_name)

    world.folder.rename("sub", "moved")
    world.folder.write("a.md", world.folder.read("a.md").raw)
    monkeypatch.setattr(world.cutter, "cut", counted_cut)
    tally = (await world.sync()).tally
    assert not cut
    assert tally.documents == {Outcome.RENAMED: 2, Outcome.UNCHANGED: 1}
    monkeypatch.undo()
    assert world.records() == world.expected()


async def test_paths_that_were_renamed_away_wait_for_their_documents_and_leave_the_queue_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        world.folder.write(f"sub/{number}.md", f"text {number}".encode())
    await world.sync()
    old_paths = {path for path in world.ledger.glances() if path.startswith("sub/")}
    world.folder.rename("sub", "moved")
    asked = Counter[str]()
    acknowledged: list[int] = []
    are_seen = threading.Event()
    commit, retag, entries = world.ledger.commit, world.sink.retag, world.ledger.entries

    def counted_commit(plans: Sequence[Plan], changes: Sequence[Change]) -> None:
        acknowledged.extend([len(changes)] if not plans else [])
        commit(plans, changes)

    def slow_retag(retags: Sequence[Retag]) -> None:
        assert are_seen.wait(10), "the paths that are gone are looked at while the new ones are being written"
        retag(retags)

    def seen_entries(paths: Iterable[str]) -> dict[str, Entry]:
        wanted = set(paths)
        found = entries(wanted)
        if len(wanted) > 1 and wanted <= old_paths:
            asked["entries"] += 1
            are_seen.set()
        return found

    monkeypatch.setattr(world.ledger, "commit", counted_commit)
    monkeypatch.setattr(world.sink, "retag", slow_retag)
    monkeypatch.setattr(world.ledger, "entries", seen_entries)
    monkeypatch.setattr(world.ledger, "release", count(asked, "release", world.ledger.release))
    tally = (await world.sync()).tally
    assert world.records() == world.expected()
    assert tally.documents == {Outcome.RENAMED: 52}
    assert asked["release"] == 0, "nobody is turned away"
    assert sum(acknowledged) == 52
    assert len(acknowledged) < 10
    assert asked["entries"] < 10
    assert (tally.finished, world.ledger.waiting()) == (104, {})


async def test_a_copy_is_a_document_of_its_own_and_costs_nothing(world: World) -> None:
    await world.sync()
    world.folder.write("copy.md", b"one\ntwo\nthree")
    tally = (await world.sync()).tally
    assert world.records() == world.expected()
    assert tally.documents == {Outcome.ADDED: 1}
    assert (tally.embedded, tally.reused) == (0, 3)


async def test_a_file_renamed_while_its_edit_is_being_written_keeps_its_document(world: World) -> None:
    await world.sync()
    ids = {str(held.metadata["document_id"]) for held in world.sink.held.values() if held.metadata}
    gate = threading.Event()
    drop = world.sink.drop

    def slow_drop(dropped: Sequence[str]) -> None:
        drop(dropped)
        assert gate.wait(10)

    world.sink.drop = slow_drop  # type: ignore[assignment,method-assign]  # Chroma is done, the ledger does not know
    world.folder.write("a.md", b"one\nTWO\nthree")
    syncing = asyncio.create_task(world.sync())
    async with asyncio.timeout(10):
        while ("a.md", "TWO", 2) not in world.records() or len(world.records()) > 6:
            await asyncio.sleep(0.005)
    world.folder.rename("a.md", "b.md")
    now_seconds = time.time()
    world.ledger.enqueue(["b.md"], Change("", Priority.LIVE, now_seconds, now_seconds))
    world.ledger.enqueue(["a.md"], Change("", Priority.LIVE, now_seconds + 0.001, now_seconds))
    await asyncio.sleep(1.2)
    gate.set()
    await syncing
    assert world.records() == world.expected()
    assert {str(held.metadata["document_id"]) for held in world.sink.held.values() if held.metadata} == ids


async def test_a_renamed_file_is_not_taken_for_deleted_while_its_new_path_has_another_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "REST", Backoff(first_seconds=0.5, max_seconds=0.5, max_attempts=12))
    await world.sync()
    ids = {str(held.metadata["document_id"]) for held in world.sink.held.values() if held.metadata}
    is_written, is_read_again = threading.Event(), threading.Event()
    drop, look, read = world.sink.drop, world.folder.look, world.folder.read
    reads: Counter[str] = Counter()

    def slow_drop(dropped: Sequence[str]) -> None:
        drop(dropped)
        assert is_written.wait(10)

    def slow_look(path: str) -> Stat | None:
        if path == "a.md" and is_written.is_set() and threading.current_thread() is not threading.main_thread():
            looks.append(path)
            if len(looks) == 3:  # after those at the commit of the edit and at the lease; the decision follows this one
                assert is_read_again.wait(10)
        return look(path)

    def slow_read(path: str) -> Content:
        reads[path] += 1
        if path == "b.md" and reads[path] == 2:
            is_read_again.set()
            time.sleep(0.5)
        return read(path)

    looks: list[str] = []
    monkeypatch.setattr(world.sink, "drop", slow_drop)
    monkeypatch.setattr(world.folder, "look", slow_look)
    monkeypatch.setattr(world.folder, "read", slow_read)
    world.folder.write("a.md", b"one\nTWO\nthree")
    syncing = asyncio.create_task(world.sync())
    async with asyncio.timeout(10):
        while ("a.md", "TWO", 2) not in world.records() or len(world.records()) > 6:
            await asyncio.sleep(0.005)
    world.folder.rename("a.md", "b.md")
    now_seconds = time.time()
    world.ledger.enqueue(["b.md"], Change("", Priority.LIVE, now_seconds, now_seconds))
    async with asyncio.timeout(10):
        while not any(problem.kind == "UnstableDocument" for _, problem in world.ledger.problems()):
            await asyncio.sleep(0.005)
    world.ledger.enqueue(["a.md"], Change("", Priority.LIVE, now_seconds + 0.001, now_seconds))
    is_written.set()
    await syncing
    assert is_read_again.is_set()
    assert world.records() == world.expected()
    assert {str(held.metadata["document_id"]) for held in world.sink.held.values() if held.metadata} == ids


async def test_two_files_that_swap_their_names(world: World) -> None:
    await world.sync()
    world.folder.rename("a.md", "tmp.md")
    world.folder.rename("sub/b.md", "a.md")
    world.folder.rename("tmp.md", "sub/b.md")
    await world.sync()
    assert world.records() == world.expected()
    assert len(world.embedded_texts()) == 6


async def test_deleted_files_leave_no_record(world: World) -> None:
    await world.sync()
    world.folder.delete("sub")
    await world.sync()
    assert world.records() == world.expected()
    assert world.ledger.glances().keys() == {"a.md"}


async def test_deleted_and_restored_costs_nothing(world: World) -> None:
    await world.sync()
    world.folder.delete("a.md")
    await world.sync()
    world.folder.write("a.md", b"one\ntwo\nthree")
    await world.sync()
    assert world.records() == world.expected()
    assert len(world.embedded_texts()) == 6


async def test_a_missing_root_deletes_nothing(world: World) -> None:
    await world.sync()
    held = world.records()
    world.folder.is_missing = True
    with pytest.RaisesGroup(ServiceUnavailable):
        await world.sync()
    assert world.records() == held


async def test_an_unreadable_folder_deletes_nothing_below_it(world: World) -> None:
    await world.sync()
    held = world.records()
    world.folder.unreadable["sub"] = "Permission denied"
    await world.sync()
    assert world.records() == held


@pytest.fixture
def guarded(world: World) -> World:
    """A world in which somebody has to approve of many deletions."""
    world.approves = False
    for number in range(6):
        world.folder.write(f"more/{number}.md", f"text {number}".encode())
    return world


async def test_a_folder_that_is_suddenly_empty_deletes_nothing(guarded: World) -> None:
    await guarded.sync()
    held = guarded.records()
    for path in ("a.md", "sub", "more"):
        guarded.folder.delete(path)
    assert (await guarded.sync()).reconciler.held == 9
    assert guarded.records() == held
    assert len(guarded.waiting()) == 9


async def test_more_deletions_than_the_limit_wait_and_everything_else_goes_on(guarded: World) -> None:
    await guarded.sync()
    held = guarded.records()
    guarded.folder.delete("more")
    guarded.folder.write("a.md", b"one\nTWO\nthree")
    assert (await guarded.sync()).reconciler.held == 6
    assert len(guarded.records()) == len(held)
    assert ("a.md", "TWO", 2) in guarded.records()


async def test_as_many_deletions_as_the_limit_allows_happen(guarded: World) -> None:
    await guarded.sync()
    for number in range(4):
        guarded.folder.delete(f"more/{number}.md")
    assert (await guarded.sync()).reconciler.held == 0
    assert guarded.records() == guarded.expected()


async def test_approved_deletions_happen_once(guarded: World) -> None:
    await guarded.sync()
    guarded.folder.delete("more")
    await guarded.sync()
    assert guarded.approve() == 6
    assert (await guarded.sync()).reconciler.held == 0
    assert guarded.records() == guarded.expected()
    assert (guarded.ledger.held(), guarded.ledger.notes[APPROVED_NOTE]) == ({}, "")


async def test_files_that_come_back_need_no_approval(guarded: World) -> None:
    await guarded.sync()
    guarded.folder.rename("more", ".hidden")
    assert (await guarded.sync()).reconciler.held == 6
    guarded.folder.rename(".hidden", "more")
    assert (await guarded.sync()).reconciler.held == 0
    assert guarded.records() == guarded.expected()
    assert guarded.ledger.held() == {}


async def test_a_renamed_folder_is_not_taken_for_deletions(guarded: World) -> None:
    await guarded.sync()
    guarded.folder.rename("more", "moved")
    pipeline = await guarded.sync()
    assert pipeline.reconciler.held == 0
    assert pipeline.tally.documents == {Outcome.RENAMED: 6}
    assert guarded.records() == guarded.expected()


async def test_a_binary_file_is_a_problem_and_stops_nobody(world: World) -> None:
    world.folder.write("bad.md", b"\0\0")
    await world.sync()
    assert world.records() == world.expected()
    ((path, problem),) = world.ledger.problems()
    assert (path, problem.kind, problem.remedy) == ("bad.md", "UndecodableDocument", "convert it to text")


async def test_a_file_that_turns_binary_leaves_no_stale_record_and_comes_back(world: World) -> None:
    await world.sync()
    world.folder.write("a.md", b"\0")
    await world.sync()
    assert world.records() == world.expected()
    world.folder.write("a.md", b"one\nagain")
    await world.sync()
    assert world.records() == world.expected()
    assert world.ledger.problems() == []


async def test_a_problem_is_not_tried_again_until_the_file_changes(world: World) -> None:
    world.folder.write("bad.md", b"\0")
    await world.sync()
    world.folder.reads.clear()
    await world.sync()
    assert world.folder.reads == []


class Panic(BaseException):
    """What a panic of a compiled splitter comes as: no Exception."""


@pytest.mark.parametrize("fault", [Panic("index out of bounds"), ValueError("a fault of ours")])
async def test_a_fault_of_ours_in_one_document_stops_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    cut = world.cutter.cut

    def faulty(text: str, file_name: str, pages: Sequence[int]) -> tuple[str, tuple[Chunk, ...]]:
        if file_name == "b.md":
            raise fault
        return cut(text, file_name, pages)

    monkeypatch.setattr(world.cutter, "cut", faulty)
    await world.sync()
    assert {path for path, _, _ in world.records()} == {"a.md", "sub/deep/c.md"}
    ((path, problem),) = world.ledger.problems()
    assert (path, problem.kind, problem.stage.value) == ("sub/b.md", "UncuttableDocument", "cut")


async def test_a_text_that_the_model_refuses_makes_its_document_a_problem(world: World) -> None:
    world.embedder = HashEmbedder(max_batch_inputs=16, rejects=["poison"])
    world.folder.write("bad.md", b"fine\npoison")
    await world.sync()
    assert {path for path, _, _ in world.records()} == {"a.md", "sub/b.md", "sub/deep/c.md"}
    ((path, problem),) = world.ledger.problems()
    assert (path, problem.kind, problem.stage.value) == ("bad.md", "RejectedByModel", "embed")


async def test_a_file_that_changes_under_the_read_is_read_again(world: World) -> None:
    world.folder.read_faults["a.md"] = UnstableDocument("it changed")
    await world.sync()
    assert world.records() == world.expected()


async def test_a_file_in_the_making_is_read_again_when_its_reader_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "REST", Backoff(first_seconds=3600.0, max_seconds=3600.0, max_attempts=12))
    world.folder.read_faults["a.md"] = UnstableDocument("it is being written", retry_after_seconds=0.01)
    await world.sync()
    assert world.records() == world.expected()


async def test_documents_wait_while_chroma_is_away_and_nothing_is_paid_twice(world: World) -> None:
    world.sink.fail("add", ServiceUnavailable("Chroma is away"), times=100)
    tally = (await world.sync()).tally
    assert tally.outage
    assert world.ledger.problems() == []
    (wait,) = world.ledger.totals().waits
    assert (wait.service, wait.documents, wait.reason) == (CHROMA, 3, "Chroma is away")
    world.sink._faults.clear()
    await world.sync()
    assert world.records() == world.expected()
    assert world.ledger.totals().waits == ()
    assert len(world.embedded_texts()) == 6


async def test_only_the_service_that_failed_ends_the_wait_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "EMBEDDING_RETRY", Backoff(0.001, 0.001, max_attempts=1))
    await world.sync()
    world.embedder.faults.append(ServiceUnavailable("the endpoint is away"))
    world.folder.write("new.md", b"seven")
    await world.sync()
    world.folder.delete("a.md")
    tally = (await world.sync()).tally
    assert tally.documents[Outcome.DELETED] == 1
    assert world.ledger.waiting() == {}, "a sync tries again at once"
    assert world.records() == world.expected()


async def test_a_deletion_does_not_hasten_what_waits_for_the_endpoint(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "EMBEDDING_RETRY", Backoff(0.001, 0.001, max_attempts=1))
    await world.sync()
    world.embedder.faults.extend(ServiceUnavailable("the endpoint is away") for _ in range(9))
    world.folder.write("new.md", b"seven")
    world.folder.delete("a.md")
    await world.sync()
    assert len(world.embedder.faults) == 8, "one attempt, and no second one because of the deletion"
    ((path, problem),) = world.ledger.waiting().items()
    assert problem is not None
    assert (path, problem.stage.value, problem.service) == ("new.md", "embed", "the embedding model")


@pytest.mark.parametrize("fault", ["endpoint", "chroma"])
async def test_an_outage_is_told_once_however_many_documents_wait_and_once_more_when_it_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(pipeline_module, "EMBEDDING_RETRY", Backoff(0.001, 0.001, max_attempts=1))
    monkeypatch.setattr(worker_module, "RETRY", Backoff(0.01, 0.01, max_attempts=1000))
    for number in range(99):
        world.folder.write(f"f{number}.md", f"text {number}".encode())
    if fault == "endpoint":
        world.embedder.faults.extend(RateLimited("come again later", retry_after_seconds=61.0) for _ in range(50))
    else:
        world.sink.fail("add", ServiceUnavailable("Chroma is away"), times=30)
    with capture_logs() as logs:
        await world.sync()
        waits = world.ledger.totals().waits
        world.embedder.faults.clear()
        world.sink._faults.clear()
    told = [log for log in logs if log["log_level"] in {"warning", "error"}]
    assert [log["event"] for log in told] == ["service.away"]
    assert world.ledger.problems() == []
    if fault == "endpoint":
        (wait,) = waits
        assert (wait.service, wait.documents) == ("the embedding model", 102)
    else:
        assert [log["event"] for log in logs if log["event"].startswith("service.")] == ["service.away", "service.back"]
    await world.sync()
    assert world.records() == world.expected()
    assert world.ledger.totals().waits == ()


def count(asked: Counter[str], name: str, call: Callable[..., object]) -> Callable[..., object]:
    def counted(*args: object, **kwargs: object) -> object:
        asked[name] += 1
        return call(*args, **kwargs)

    return counted


async def test_a_full_house_waits_instead_of_asking_again_and_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MAX_DOCUMENTS", 8)
    monkeypatch.setattr(worker_module, "MIN_ROOM", 4)
    for number in range(40):
        world.folder.write(f"{number}.md", f"text {number}".encode())
    asked = Counter[str]()
    for name in ("lease", "next_due_seconds"):
        call = getattr(world.ledger, name)
        monkeypatch.setattr(world.ledger, name, count(asked, name, call))
    gate = asyncio.Event()
    world.embedder = HashEmbedder(gate=gate)
    syncing = asyncio.create_task(world.sync())
    await asyncio.sleep(0.5)
    assert asked["lease"] == 2, "all places are taken, nobody has left, and nothing is live"
    gate.set()
    await syncing
    assert world.records() == world.expected()
    assert asked["lease"] < 43, "changes are leased several at a time"
    assert asked["next_due_seconds"] < 10


async def test_a_write_whose_answer_was_lost_is_neither_doubled_nor_dropped(world: World) -> None:
    world.sink.fail("add", ServiceUnavailable("the answer was lost"), is_after=True)
    await world.sync()
    await world.sync()
    assert world.records() == world.expected()


async def test_a_changed_chunker_plans_every_document_again(world: World) -> None:
    await world.sync()
    world.cutter = LineCutter("other lines")
    world.sink.calls.clear()
    tally = (await world.sync()).tally
    assert tally.documents == {Outcome.UNCHANGED: 3}
    assert world.sink.writes == []


async def test_a_lost_ledger_is_rebuilt_from_the_collection(world: World) -> None:
    await world.sync()
    held = dict(world.sink.held)
    world.ledger = MemoryLedger()
    world.sink.calls.clear()
    await world.sync()
    assert world.sink.held.keys() == held.keys()
    assert len(world.embedded_texts()) == 6
    assert {verb for verb, _ in world.sink.calls} <= {"ids", "read", "count"}


async def test_a_lost_ledger_and_a_changed_folder(world: World) -> None:
    await world.sync()
    world.ledger = MemoryLedger()
    world.folder.delete("a.md")
    world.folder.write("sub/b.md", b"four\nFIVE")
    world.folder.write("new.md", b"seven")
    await world.sync()
    assert world.records() == world.expected()


async def test_a_lost_collection_is_filled_again_from_the_vector_store(world: World) -> None:
    await world.sync()
    world.sink = MemorySink()
    world.sink._collection_id = "another"
    await world.sync()
    assert world.records() == world.expected()
    assert len(world.embedded_texts()) == 6


def some_ids(world: World, count: int) -> list[str]:
    return sorted(world.sink.held)[:count]


async def test_records_that_somebody_deleted_are_added_again_at_the_next_start(world: World) -> None:
    await world.sync()
    for id_ in some_ids(world, 3):
        del world.sink.held[id_]
    await world.sync()
    assert world.records() == world.expected()
    assert len(world.embedded_texts()) == 6


async def test_an_older_state_of_the_collection_is_brought_up_to_date(world: World) -> None:
    await world.sync()
    backup = dict(world.sink.held)
    world.folder.write("a.md", b"one\nTWO\nthree\nmore")
    world.folder.delete("sub/b.md")
    world.folder.write("new.md", b"seven\neight")
    await world.sync()
    world.sink.held = backup
    await world.sync()
    assert world.records() == world.expected()
    assert set(world.embedded_texts()[6:]) == {"TWO", "more", "seven", "eight"}, "each paid for once"


async def test_records_of_ours_that_nobody_knows_are_dropped(world: World) -> None:
    await world.sync()
    (known, *_) = some_ids(world, 1)
    held = world.sink.held[known]
    for id_, source in (("ghost:1", "never/was.md"), ("ghost:2", "a.md")):
        metadata = dict(held.metadata or {}) | {"document_id": "ghost", "source": source}
        world.sink.held[id_] = type(held)(held.document, metadata, held.vector)
    await world.sync()
    assert world.records() == world.expected()
    assert world.sink.held.keys() == set(some_ids(world, 6))


async def test_records_added_by_hand_are_counted_once_and_left_alone(world: World) -> None:
    await world.sync()
    world.sink.put_foreign("mine", next(iter(world.sink.held.values())).vector, {"note": "by hand"})
    await world.sync()
    world.sink.calls.clear()
    await world.sync()
    assert {verb for verb, _ in world.sink.calls} == {"count", "page", "read"}, "no second look at every record"
    assert "mine" in world.sink.held


async def test_records_that_are_not_ours_are_left_alone(world: World) -> None:
    vector = (await world.embedder.embed(["by hand"]))[0][0]
    world.sink.put_foreign("mine", vector, {"note": "by hand"})
    await world.sync()
    world.folder.delete("sub")
    await world.sync()
    assert "mine" in world.sink.held


async def test_a_rename_that_was_taken_back_after_a_crash_in_the_middle_of_it(world: World) -> None:
    await world.sync()
    before = {id_: dict(held.metadata or {}) for id_, held in world.sink.held.items()}
    world.folder.rename("a.md", "b.md")
    with mortal(world, Fate(1, is_after=True, of="retag")), suppress(BaseExceptionGroup, Crash):
        await world.sync()
    assert {held.metadata["source"] for held in world.sink.held.values() if held.metadata} >= {"b.md"}
    world.folder.rename("b.md", "a.md")
    await world.sync()
    after = {id_: dict(held.metadata or {}) for id_, held in world.sink.held.items()}
    assert [fields.pop("ingested_at") for fields in (*before.values(), *after.values())]
    assert after == before


def deaths() -> Iterator[tuple[int, bool]]:
    for dies_at in range(1, 60):
        yield dies_at, False
        yield dies_at, True


def edited(world: World) -> None:
    """An edit, a rename, a deletion, a copy and a new file, at once."""
    world.folder.write("a.md", b"one\nTWO\nthree\nthree")
    world.folder.rename("sub/b.md", "renamed.md")
    world.folder.delete("sub/deep")
    world.folder.write("copy.md", b"four\nfive")
    world.folder.write("new.md", b"seven\neight")


@pytest.mark.parametrize("revert", [False, True], ids=["as-is", "reverted-while-dead"])
@pytest.mark.parametrize("phase", ["first sync", "edits"])
async def test_a_crash_at_any_outside_call_heals(phase: str, *, revert: bool) -> None:
    survived = 0
    for dies_at, is_after in deaths():
        world = World()
        world.folder.write("a.md", b"one\ntwo\nthree")
        world.folder.write("sub/b.md", b"four\nfive")
        world.folder.write("sub/deep/c.md", b"six")
        if phase == "edits":
            await world.sync()
            edited(world)
        fate = Fate(dies_at, is_after=is_after)
        with mortal(world, fate), suppress(BaseExceptionGroup, Crash):
            await world.sync()
        if not fate.is_dead:
            break
        survived += 1
        if revert:
            world.folder.write("a.md", b"one\ntwo\nthree")
            world.folder.delete("new.md")
        await world.sync()
        assert world.records() == world.expected(), f"died {'after' if is_after else 'before'} call {dies_at}"
        world.sink.calls.clear()
        await world.sync()
        assert world.sink.writes == [], "a healed collection needs nothing more"
    assert survived > 20


async def test_what_was_queued_for_another_reason_waits_too_while_deletions_are_held_back(world: World) -> None:
    await world.sync()
    before = world.records()
    world.approves = False
    world.folder.write("a.md", b"one\nTWO\nthree")
    later = time.time() + 1.0
    world.ledger.enqueue(["a.md"], Change("", Priority.LIVE, 1.0, later))
    for path in ("a.md", "sub"):
        world.folder.delete(path)
    pipeline = world.pipeline()
    async with pipeline.running():
        await pipeline.reconciler.reconcile()
        await pipeline.worker.run(until_idle=True)
    await pipeline.close()
    assert world.ledger.waiting() == {}
    assert world.records() == before


async def test_deletions_that_are_held_back_are_told_once_for_so_many(world: World) -> None:
    await world.sync()
    world.approves = False
    for path in ("a.md", "sub"):
        world.folder.delete(path)
    pipeline = world.pipeline()
    with capture_logs() as told:
        await pipeline.reconciler.reconcile()
        await pipeline.reconciler.reconcile()
        world.folder.write("a.md", b"one")
        await pipeline.reconciler.reconcile()
    await pipeline.close()
    held = [line["missing"] for line in told if line["event"] == "deletions.held_back"]
    assert held == sorted(set(held), reverse=True)
    assert held


async def test_a_clock_that_is_set_back_starves_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now_seconds = SystemRuntime.now_seconds
    monkeypatch.setattr(SystemRuntime, "now_seconds", lambda self: now_seconds(self) + 3600)
    pipeline = world.pipeline()
    await pipeline.prepare()
    await pipeline.reconciler.reconcile()  # queued for an hour ahead, as it will turn out
    monkeypatch.undo()
    async with pipeline.running():
        await pipeline.worker.run(until_idle=True)
    await pipeline.close()
    assert world.records() == world.expected()


async def test_folders_that_cannot_be_listed_are_noted_until_they_can(world: World) -> None:
    world.folder.unreadable = {"sub": "Permission denied"}
    await world.sync()
    assert json.loads(world.ledger.notes[UNREADABLE_NOTE]) == {"sub": "Permission denied"}
    world.folder.unreadable = {}
    await world.sync()
    assert json.loads(world.ledger.notes[UNREADABLE_NOTE]) == {}


@pytest.mark.parametrize("is_read_first", [False, True], ids=["looked-at", "read"])
async def test_a_file_whose_folder_was_closed_keeps_its_records(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_read_first: bool
) -> None:
    await world.sync()
    before = world.records()
    world.folder.write("sub/b.md", b"four\nFIVE")
    now_seconds = time.time()
    world.ledger.enqueue(["sub/b.md"], Change("", Priority.LIVE, now_seconds, now_seconds))

    def close(_: str) -> NoReturn:
        world.folder.unreadable = {"sub": "Permission denied"}
        raise UnreadableDocument("Permission denied")

    if is_read_first:
        monkeypatch.setattr(world.folder, "read", close)
    else:
        world.folder.unreadable = {"sub": "Permission denied"}
    await world.work([])
    assert world.records() == before
    assert (world.ledger.problems(), world.ledger.waiting()) == ([], {})
    monkeypatch.undo()
    world.folder.unreadable = {}
    await world.sync()
    assert world.records() == world.expected()


@pytest.mark.parametrize("change", ["mode", "edit", "both", "sidecar"])
async def test_a_file_that_may_not_be_read_keeps_its_records_and_comes_back_for_nothing(
    world: World, change: str
) -> None:
    """Unknown is not gone, for a file as for a folder."""
    world.folder.write("a.md.meta.json", b'{"team": "red"}')
    await world.sync()
    before, held = world.records(), dict(world.sink.held)
    world.folder.closed.add("a.md")
    world.folder.touch("a.md")
    if change in {"edit", "both"}:
        world.folder.write("a.md", b"one\nTWO\nthree")
    if change == "sidecar":
        world.folder.delete("a.md.meta.json")
    await world.sync()
    assert world.records() == before
    assert world.sink.held == held
    ((path, problem),) = world.ledger.problems()
    assert (path, problem.kind) == ("a.md", "UnreadableDocument")
    world.folder.reads.clear()
    await world.sync()
    assert "a.md" not in world.folder.reads, "it is not tried again until it changes"
    world.folder.closed.clear()
    world.folder.touch("a.md")
    await world.sync()
    assert world.records() == world.expected()
    assert world.ledger.problems() == []
    assert len(world.embedded_texts()) == 6 + (change in {"edit", "both"})
    teams = {(held.metadata or {}).get("team") for held in world.sink.held.values() if held.document == "one"}
    assert teams == {None if change == "sidecar" else "red"}


async def test_a_file_that_may_not_be_read_and_goes_takes_its_records_with_it(world: World) -> None:
    await world.sync()
    world.folder.closed.add("a.md")
    world.folder.touch("a.md")
    await world.sync()
    world.folder.delete("a.md")
    await world.sync()
    assert world.records() == world.expected()
    assert world.ledger.problems() == []


class StuckFolder(MemoryFolder):
    """Reads of files whose name begins with "old" wait until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.may_read = threading.Event()

    def read(self, path: str) -> Content:
        assert not path.startswith("old") or self.may_read.wait(20)
        return super().read(path)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("stuck", ["places", "reads", "bytes"])
async def test_a_live_change_waits_for_nothing_that_the_backfill_has_taken(
    world: World, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    if stuck == "places":
        monkeypatch.setattr(worker_module, "MAX_DOCUMENTS", 4)
        monkeypatch.setattr(worker_module, "MIN_ROOM", 2)
    if stuck == "bytes":
        monkeypatch.setattr(worker_module, "MAX_BYTES", dict.fromkeys(Priority, 12))
    folder = world.folder = StuckFolder()
    for number in range(20):
        folder.write(f"old {number}.md", f"old text {number}".encode())
    pipeline = world.pipeline()
    await pipeline.prepare()
    await pipeline.reconciler.reconcile()
    async with pipeline.running() as tasks:
        working = tasks.create_task(pipeline.worker.run(until_idle=True))
        await until(lambda: pipeline.worker.in_work >= worker_module.MAX_DOCUMENTS or stuck != "places")
        await asyncio.sleep(0.05)
        folder.write("live.md", b"a live text")
        now_seconds = time.time()
        world.ledger.enqueue(["live.md"], Change("", Priority.LIVE, now_seconds, now_seconds))
        pipeline.worker.wake()
        await until(lambda: len(world.sink.held) == 1)
        assert world.records() == [("live.md", "a live text", 1)]
        await until(lambda: stuck != "places" or pipeline.worker.in_work == worker_module.MAX_DOCUMENTS)
        folder.may_read.set()
        await working
    await pipeline.close()
    assert world.records() == world.expected()


async def test_live_changes_beyond_the_places_kept_for_them_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "MAX_DOCUMENTS", 4)
    monkeypatch.setattr(worker_module, "MIN_ROOM", 2)
    monkeypatch.setattr(worker_module, "LIVE_ROOM", 3)
    gate = asyncio.Event()
    world.embedder = HashEmbedder(gate=gate)
    for number in range(20):
        world.folder.write(f"{number}.md", f"text {number}".encode())
    pipeline = world.pipeline()
    await pipeline.prepare()
    await pipeline.reconciler.reconcile()
    async with pipeline.running() as tasks:
        working = tasks.create_task(pipeline.worker.run(until_idle=True))
        await until(lambda: pipeline.worker.in_work == 4)
        now_seconds = time.time()
        world.ledger.enqueue([f"{n}.md" for n in range(20)], Change("", Priority.LIVE, now_seconds, now_seconds))
        for _ in range(5):
            pipeline.worker.wake()
            await asyncio.sleep(0.02)
        assert pipeline.worker.in_work == 7
        gate.set()
        await working
    await pipeline.close()
    assert world.records() == world.expected()


async def test_a_lone_change_is_leased_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Counter[str]()
    monkeypatch.setattr(world.ledger, "lease", count(asked, "lease", world.ledger.lease))
    gate = asyncio.Event()
    world.embedder = HashEmbedder(gate=gate)
    now_seconds = time.time()
    world.ledger.enqueue(["a.md"], Change("", Priority.LIVE, now_seconds, now_seconds))
    pipeline = world.pipeline()
    async with pipeline.running() as tasks:
        working = tasks.create_task(pipeline.worker.run(until_idle=True))
        await until(lambda: bool(world.embedder.attempts))
        assert asked["lease"] == 1, "fewer came than there was room for: no others are due"
        gate.set()
        await working
    await pipeline.close()
