"""The audit over doubles: every way in which folder, ledger and collection may disagree is found, and heals."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from ingestor.core.auditing import Kind
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.fingerprint import document_id_of, owner_tag_of
from ingestor.core.model import Change, Priority
from ingestor.core.owning import Ours
from ingestor.engine import verify as verify_module
from ingestor.engine.pipeline import COLLECTION_NOTE, Pipeline
from ingestor.engine.verify import Audit
from tests.world import World

Harm = Callable[[World], None]


@pytest.fixture
def world() -> World:
    made = World()
    made.folder.write("a.md", b"one\ntwo\nthree")
    made.folder.write("sub/b.md", b"four\nfive\nsame\nsame")
    made.folder.write("c.md", b"six\nsame")
    made.folder.write("empty.md", b"")
    made.folder.write("binary.bin", b"\0")
    return made


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "LOOK_PAUSE_SECONDS", 0.05)


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[Pipeline]:
    getattr(world.embedder, "_inner", world.embedder).is_closed = False
    pipeline = world.pipeline()
    try:
        yield pipeline
    finally:
        await pipeline.close()


async def audited(world: World, *, is_deep: bool = True) -> Audit:
    async with opened(world) as pipeline:
        return await pipeline.auditor.audit(is_deep=is_deep, is_alone=True)


async def repaired(world: World) -> None:
    async with opened(world) as pipeline, pipeline.running():
        found = await pipeline.auditor.audit(is_deep=True, is_alone=True)
        await pipeline.correct(found)
        await pipeline.reconciler.reconcile()
        await pipeline.worker.run(until_idle=True)


def an_id(world: World, path: str, number: int = 0) -> str:
    return sorted(id_ for id_, held in world.sink.held.items() if (held.metadata or {}).get("source") == path)[number]


def other(world: World, id_: str, **changes: object) -> None:
    world.sink.held[id_] = replace(world.sink.held[id_], **changes)  # type: ignore[arg-type]  # fields of `Held`


def lose_a_record(world: World) -> None:
    del world.sink.held[an_id(world, "a.md")]


def leave_an_orphan(world: World) -> None:
    held = world.sink.held[an_id(world, "a.md")]
    metadata = dict(held.metadata or {}) | {"document_id": "ghost", "source": "never/was.md"}
    world.sink.held["ghost:1"] = replace(held, metadata=metadata)


def leave_an_orphan_of_a_document(world: World) -> None:
    id_ = an_id(world, "a.md")
    world.sink.held[f"{id_.partition(':')[0]}:{'0' * 32}"] = world.sink.held[id_]


def leave_a_duplicate(world: World) -> None:
    id_ = an_id(world, "a.md")
    held = world.sink.held[id_]
    metadata = dict(held.metadata or {}) | {"document_id": "ghost"}
    world.sink.held[f"ghost:{id_.partition(':')[2]}"] = replace(held, metadata=metadata)


def lead_an_orphan_astray(world: World) -> None:
    leave_an_orphan(world)
    held = world.sink.held["ghost:1"]
    other(world, "ghost:1", metadata=dict(held.metadata or {}) | {"source": "../../etc/passwd"})


def alter_a_text(world: World) -> None:
    other(world, an_id(world, "sub/b.md"), document="somebody else's")


def alter_a_vector(world: World) -> None:
    id_ = an_id(world, "sub/b.md")
    other(world, id_, vector=np.roll(world.sink.held[id_].vector, 1))


def alter_metadata(world: World) -> None:
    id_ = an_id(world, "c.md")
    other(world, id_, metadata=dict(world.sink.held[id_].metadata or {}) | {"start_line": 99})


def hide_a_record(world: World) -> None:
    world.sink.hidden.add(an_id(world, "c.md"))


def change_a_file_behind_its_stat(world: World) -> None:
    stat, _ = world.folder._contents["a.md"]
    world.folder._contents["a.md"] = (stat, b"one\nTWO\nthree")


def forget_a_document(world: World) -> None:
    (document_id,) = (each.document_id for each in world.ledger.documents.values() if each.path == "c.md")
    del world.ledger.documents[document_id]


def add_a_file(world: World) -> None:
    world.folder.write("new.md", b"one\nsix")


def delete_a_file(world: World) -> None:
    world.folder.delete("c.md")


def begin_a_write(world: World) -> None:
    (entry,) = (each for each in world.ledger.documents.values() if each.path == "c.md")
    world.ledger.documents[entry.document_id] = replace(entry, doubtful=frozenset({f"{entry.document_id}:x"}))


HARMS: dict[Harm, set[tuple[Kind, str]]] = {
    lose_a_record: {(Kind.MISSING, "a.md")},
    leave_an_orphan: {(Kind.ORPHANED, "never/was.md")},
    leave_an_orphan_of_a_document: {(Kind.ORPHANED, "a.md")},
    leave_a_duplicate: {(Kind.DUPLICATE, "a.md")},
    lead_an_orphan_astray: {(Kind.ORPHANED, "ghost")},
    alter_a_text: {(Kind.ALTERED, "sub/b.md")},
    alter_a_vector: {(Kind.ALTERED, "sub/b.md")},
    alter_metadata: {(Kind.WRONG_METADATA, "c.md")},
    hide_a_record: {(Kind.UNREACHABLE, "c.md")},
    change_a_file_behind_its_stat: {(Kind.OUTDATED, "a.md")},
    forget_a_document: {(Kind.ORPHANED, "c.md"), (Kind.OUTDATED, "c.md")},
    add_a_file: {(Kind.OUTDATED, "new.md")},
    delete_a_file: {(Kind.GONE, "c.md")},
    begin_a_write: {(Kind.UNFINISHED, "c.md")},
}


async def test_where_all_agree_nothing_is_found_and_nothing_is_written(world: World) -> None:
    await world.sync()
    world.sink.put_foreign("theirs", next(iter(world.sink.held.values())).vector, {"document_id": "doc-7"})
    world.sink.calls.clear()
    found = await audited(world)
    assert (found.is_sound, found.findings) == (True, ())
    assert (found.documents, found.records, found.foreign, found.unchecked_vectors) == (5, 9, 1, 0)
    assert world.sink.writes == []


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
async def test_a_harm_is_found_by_its_name_and_repaired_without_an_embedding(world: World, harm: Harm) -> None:
    await world.sync()
    world.sink.put_foreign("theirs", next(iter(world.sink.held.values())).vector, {"document_id": "doc-7"})
    paid = len(world.embedded_texts())
    harm(world)

    found = await audited(world)
    assert not found.is_sound
    assert {(finding.kind, finding.path) for finding in found.findings} == HARMS[harm]

    await repaired(world)
    foreign = world.sink.held.pop("theirs")
    assert world.records() == world.expected()
    assert not world.sink.hidden & world.sink.held.keys()
    fresh = World()
    fresh.folder = world.folder
    await fresh.sync()
    vectors = {held.document: held.vector.tolist() for held in fresh.sink.held.values()}
    assert all(held.vector.tolist() == vectors[held.document] for held in world.sink.held.values())
    assert set(world.embedded_texts()[paid:]) <= {"TWO"}, "only a text that is new is paid for"

    world.sink.held["theirs"] = foreign
    world.sink.calls.clear()
    assert (await audited(world)).is_sound
    await repaired(world)
    assert world.sink.writes == [], "a second repair has nothing to do"


@pytest.mark.parametrize("seed", range(12))
async def test_many_harms_at_once_heal(world: World, seed: int) -> None:
    chosen = random.Random(seed)
    for number in range(20):
        world.folder.write(f"more/{number}.md", "\n".join(f"{number} {chosen.random()}" for _ in range(4)).encode())
    await world.sync()
    for harm in chosen.choices(list(HARMS), k=6):
        try:
            harm(world)
        except (IndexError, ValueError, KeyError):
            continue  # an earlier harm has taken away what this one needs
    for id_ in chosen.sample(sorted(world.sink.held), 12):
        match chosen.randrange(4):
            case 0:
                del world.sink.held[id_]
            case 1:
                other(world, id_, document=f"altered {id_}")
            case 2:
                other(world, id_, metadata=dict(world.sink.held[id_].metadata or {}) | {"chunk": -1, "more": "x"})
            case _:
                world.sink.hidden.add(id_)
    await repaired(world)
    await repaired(world)  # what was unfinished or outdated hid what an audit can tell only of a settled document
    assert world.records() == world.expected()
    assert not world.sink.hidden & world.sink.held.keys()
    assert (await audited(world)).is_sound


async def test_an_unreachable_record_keeps_its_vector_though_the_vector_store_is_lost(world: World) -> None:
    await world.sync()
    paid = len(world.embedded_texts())
    world.vectors.held.clear()
    hide_a_record(world)
    found = await audited(world)
    assert found.unchecked_vectors == 9
    await repaired(world)
    assert world.records() == world.expected()
    assert not world.sink.hidden & world.sink.held.keys()
    assert len(world.embedded_texts()) == paid


async def test_a_shallow_audit_asks_neither_folder_nor_vectors(world: World) -> None:
    await world.sync()
    for harm in (add_a_file, hide_a_record, alter_a_vector):
        harm(world)
    world.folder.reads.clear()
    assert (await audited(world, is_deep=False)).is_sound
    assert world.folder.reads == []
    for harm in (alter_a_text, alter_metadata, leave_an_orphan):
        harm(world)
    kinds = {finding.kind for finding in (await audited(world, is_deep=False)).findings}
    assert kinds == {Kind.ALTERED, Kind.WRONG_METADATA, Kind.ORPHANED}


async def test_files_that_are_gone_by_the_hundred_wait_for_approval_in_a_repair_too(world: World) -> None:
    world.approves = False
    await world.sync()
    for path in ("a.md", "sub", "c.md", "empty.md", "binary.bin"):
        world.folder.delete(path)
    world.folder.write("other.md", b"seven")
    lose_a_record(world)
    before = len(world.sink.held)
    await repaired(world)
    assert len(world.sink.held) == before + 1, "the new file came, and nothing went"
    assert Kind.GONE in {finding.kind for finding in (await audited(world)).findings}


async def test_what_waits_in_the_queue_is_counted_and_not_judged(world: World) -> None:
    await world.sync()
    world.folder.write("a.md", b"one\nTWO\nthree")
    world.ledger.enqueue(["a.md"], Change("", Priority.LIVE, 1.0, time.time() + 3600))
    async with opened(world) as pipeline:
        found = await pipeline.auditor.audit(is_deep=True)
    assert (found.is_sound, found.findings, found.waiting) == (False, (), frozenset({"a.md"}))


async def test_a_disagreement_that_passes_is_none(world: World) -> None:
    await world.sync()
    add_a_file(world)
    lose_a_record(world)
    async with opened(world) as pipeline, opened(world) as beside:
        auditing = asyncio.create_task(beside.auditor.audit(is_deep=True))
        async with pipeline.running(), asyncio.timeout(20):
            found = await pipeline.auditor.audit(is_alone=True)
            await pipeline.correct(found)
            await pipeline.reconciler.reconcile()
            await pipeline.worker.run(until_idle=True)
            assert (await auditing).is_sound


async def test_a_document_that_changed_meanwhile_is_not_corrected(world: World) -> None:
    await world.sync()
    alter_metadata(world)
    async with opened(world) as pipeline:
        found = await pipeline.auditor.audit(is_alone=True)
        (entry,) = (each for each in world.ledger.documents.values() if each.path == "c.md")
        world.ledger.documents[entry.document_id] = replace(entry, content_hash="another")
        assert await pipeline.auditor.amend(found) == 0


async def test_a_collection_out_of_reach_is_an_error_and_no_finding(world: World) -> None:
    await world.sync()
    world.sink.fail("read", ServiceUnavailable("Chroma is away"))
    with pytest.raises(ServiceUnavailable):
        await audited(world)


async def test_an_older_state_with_as_many_records_is_found(world: World) -> None:
    await world.sync()
    backup = dict(world.sink.held)
    world.folder.write("a.md", b"one\nTWO\nthree")
    await world.sync()
    world.sink.held = backup
    async with opened(world) as pipeline:
        assert await pipeline.auditor.is_off()
    kinds = {finding.kind for finding in (await audited(world, is_deep=False)).findings}
    assert kinds == {Kind.MISSING, Kind.ORPHANED, Kind.WRONG_METADATA}
    await repaired(world)
    assert world.records() == world.expected()


def replace_by_unknown(world: World) -> None:
    """As many records of documents that nobody knows, in place of those that are there."""
    for id_ in list(world.sink.held):
        held = world.sink.held.pop(id_)
        document_id = "unknown" + id_.partition(":")[0]
        metadata = dict(held.metadata or {}) | {"document_id": document_id}
        world.sink.held[f"{document_id}:{id_.partition(':')[2]}"] = replace(held, metadata=metadata)


def replace_by_records_by_hand(world: World) -> None:
    for number, id_ in enumerate(list(world.sink.held)):
        world.sink.put_foreign(f"note-{number}", world.sink.held.pop(id_).vector)


@pytest.mark.parametrize("harm", [replace_by_unknown, replace_by_records_by_hand])
async def test_as_many_records_with_another_content_are_noticed_at_the_start(world: World, harm: Harm) -> None:
    await world.sync()
    texts = len(world.embedded_texts())
    harm(world)
    await world.sync()
    assert {held for held in world.records() if held[0] != "note"} >= set(world.expected())
    assert len(world.embedded_texts()) == texts
    by_hand = {id_ for id_ in world.sink.held if id_.startswith("note-")}
    assert len(world.sink.held) == len(world.expected()) + len(by_hand)
    world.sink.calls.clear()
    await world.sync()
    assert ("ids", 0) not in world.sink.calls, "and all is compared once only"


async def test_a_record_of_nobodys_in_place_of_one_of_others_is_noticed(world: World) -> None:
    await world.sync()
    world.sink.put_foreign("note", next(iter(world.sink.held.values())).vector)
    await world.sync()
    del world.sink.held["note"]
    leave_an_orphan(world)
    await world.sync()
    assert world.records() == world.expected(), "although no record is missing, and the number is right"


async def test_a_sample_of_many_records_shows_that_they_are_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "SAMPLE", 20)
    for number in range(400):
        world.folder.write(f"many/{number}.md", f"text {number}".encode())
    await world.sync()
    async with opened(world) as pipeline:
        for _ in range(20):
            assert not await pipeline.auditor.is_off(), "wherever it is looked"
        assert max(size for verb, size in world.sink.calls if verb == "read") <= 300
        replace_by_unknown(world)
        assert await pipeline.auditor.is_off()


TAGGED = Ours("a" * 8, frozenset({"f" * 8}))


def leave_a_stray_of(world: World, tag: str) -> str:
    held = next(iter(world.sink.held.values()))
    document_id = document_id_of("", "ghost", tag)
    metadata = dict(held.metadata or {}) | {"document_id": document_id, "source": "never/was.md"}
    world.sink.held[f"{document_id}:1"] = replace(held, metadata=metadata)
    return f"{document_id}:1"


@pytest.mark.parametrize(("tag", "is_foreign"), [("a" * 8, False), ("f" * 8, False), ("", False), ("b" * 8, True)])
async def test_records_of_unknown_owners_are_never_adopted_or_deleted(
    world: World, tag: str, *, is_foreign: bool
) -> None:
    world.sink.ours = TAGGED
    await world.sync()
    assert all(owner_tag_of(document_id) == TAGGED.tag for document_id in world.ledger.documents)
    stray = leave_a_stray_of(world, tag)
    assert (await audited(world)).foreign == int(is_foreign)
    await world.sync()
    assert (stray in world.sink.held) is is_foreign
    world.ledger = type(world.ledger)()
    stray = leave_a_stray_of(world, tag)
    texts = len(world.embedded_texts())
    await world.sync()
    assert (stray in world.sink.held) is is_foreign
    assert len(world.sink.held) == len(world.expected()) + is_foreign
    assert len(world.embedded_texts()) == texts, "a lost ledger costs nothing"


async def test_a_collection_that_was_taken_over_becomes_this_folder(world: World) -> None:
    world.sink.ours = Ours("f" * 8)
    await world.sync()
    world.sink.ours = TAGGED
    other_folder = World()
    other_folder.sink, other_folder.vectors = world.sink, world.vectors
    other_folder.ledger.set_note(COLLECTION_NOTE, "another collection, before")
    other_folder.folder.write("new.md", b"one\nseven")
    await other_folder.sync()
    await other_folder.sync()
    assert other_folder.records() == other_folder.expected()
    assert len(world.sink.held) == 2
