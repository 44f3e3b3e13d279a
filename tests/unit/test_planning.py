"""What has to change in Chroma for one document."""

from dataclasses import replace

import pytest

from ingestor.core.fingerprint import chunk_fingerprint, text_fingerprint_of
from ingestor.core.model import DAMAGED, Chunk, Document, Entry, Metadata, Outcome, Plan, Problem, Stage, Stat
from ingestor.core.planning import doubtful_entry, plan_document, plan_problem, plan_removal, plan_uncut

STAT = Stat(size_bytes=10, mtime_ns=1_700_000_000_000_000_000, ctime_ns=1, device=1, inode=7)


def document(*texts: str, path: str = "a.md", content_hash: str = "h1", stat: Stat = STAT) -> Document:
    chunks = tuple(Chunk(text, start_line=number, end_line=number) for number, text in enumerate(texts, start=1))
    return Document(path, stat, content_hash, "text/markdown", "A", chunks)


def planned(found: Document, before: Entry | None = None) -> Plan:
    document_id = before.document_id if before else "d1"
    return plan_document(found, before, document_id=document_id, cutting="c1", model="m", now_seconds=1.0)


def entry_of(plan: Plan) -> Entry:
    assert plan.after is not None
    return plan.after


def texts(plan: Plan) -> list[str]:
    return [record.text for record in plan.embed]


def retagged(plan: Plan) -> list[str]:
    known = {chunk_fingerprint(text): text for text in ("one", "two", "three")}
    return [known[text_fingerprint_of(retag.id)] for retag in plan.retag]


def changes(plan: Plan) -> list[Metadata | None]:
    """What differs, record by record; None where all of the metadata is to be replaced."""
    return [None if retag.is_whole else retag.metadata for retag in plan.retag]


def test_a_new_document_embeds_every_chunk_and_nothing_else() -> None:
    plan = planned(document("one", "two"))
    assert plan.outcome is Outcome.ADDED
    assert texts(plan) == ["one", "two"]
    assert (plan.retag, plan.drop) == ((), ())
    assert [record.id for record in plan.embed] == [f"d1:{chunk_fingerprint(text)}" for text in ("one", "two")]


def test_equal_chunks_of_a_document_get_numbered_ids() -> None:
    ids = [record.id for record in planned(document("same", "same", "same")).embed]
    fingerprint = chunk_fingerprint("same")
    assert ids == [f"d1:{fingerprint}", f"d1:{fingerprint}:2", f"d1:{fingerprint}:3"]


def test_an_unchanged_document_plans_nothing() -> None:
    before = entry_of(planned(document("one", "two")))
    plan = planned(document("one", "two"), before)
    assert plan.outcome is Outcome.UNCHANGED
    assert not plan.touches_chroma


def test_an_edit_embeds_the_new_chunk_drops_the_old_and_retags_the_rest() -> None:
    before = entry_of(planned(document("one", "two", "three")))
    plan = planned(document("one", "TWO", "three", content_hash="h2"), before)
    assert plan.outcome is Outcome.CHANGED
    assert texts(plan) == ["TWO"]
    assert retagged(plan) == ["one", "three"]
    assert plan.drop == (f"d1:{chunk_fingerprint('two')}",)


def test_a_touch_retags_and_embeds_nothing() -> None:
    before = entry_of(planned(document("one")))
    touched = replace(STAT, mtime_ns=STAT.mtime_ns + 5_000_000_000)
    plan = planned(document("one", stat=touched), before)
    assert plan.outcome is Outcome.UNCHANGED
    assert (plan.embed, plan.drop) == ((), ())
    assert retagged(plan) == ["one"]


def test_a_rename_keeps_the_document_id_and_only_retags() -> None:
    before = entry_of(planned(document("one", "two")))
    plan = planned(document("one", "two", path="b/c.md"), before)
    assert plan.outcome is Outcome.RENAMED
    assert (plan.embed, plan.drop) == ((), ())
    assert {retag.metadata["source"] for retag in plan.retag} == {"b/c.md"}
    assert entry_of(plan).document_id == before.document_id


def test_a_doubtful_record_that_is_wanted_is_added_and_retagged() -> None:
    begun = doubtful_entry(planned(document("one", "two")))
    plan = planned(document("one", "two"), begun)
    assert texts(plan) == ["one", "two"]
    assert retagged(plan) == ["one", "two"]


def test_a_doubtful_record_that_is_not_wanted_any_more_is_dropped() -> None:
    before = entry_of(planned(document("one", "two")))
    begun = doubtful_entry(planned(document("one", "TWO", content_hash="h2"), before))
    reverted = planned(document("one", "two"), begun)
    assert texts(reverted) == ["two"], "its delete may have happened"
    assert reverted.drop == (f"d1:{chunk_fingerprint('TWO')}",), "its add may have happened"


def test_a_retag_that_was_begun_is_retagged_again_after_a_revert() -> None:
    before = entry_of(planned(document("one")))
    begun = doubtful_entry(planned(document("one", path="b.md"), before))
    assert begun.is_unfinished
    back = planned(document("one", path="a.md"), begun)
    assert [retag.metadata["source"] for retag in back.retag] == ["a.md"]


def test_what_is_begun_is_doubtful_until_it_ends() -> None:
    plan = planned(document("one"))
    begun = doubtful_entry(plan)
    assert begun.doubtful == {record.id for record in plan.embed}
    assert begun.is_unfinished
    assert not entry_of(plan).is_unfinished


def test_a_document_that_is_gone_drops_known_and_doubtful_records() -> None:
    before = entry_of(planned(document("one", "two")))
    begun = doubtful_entry(planned(document("one", "TWO", content_hash="h2"), before))
    plan = plan_removal(begun)
    assert plan.after is None
    assert set(plan.drop) == {f"d1:{chunk_fingerprint(text)}" for text in ("one", "two", "TWO")}


def test_a_problem_drops_the_records_and_keeps_the_document_id() -> None:
    before = entry_of(planned(document("one")))
    problem = Problem(Stage.DECODE, "UndecodableDocument", "binary", "", attempts=1, since_seconds=0.0)
    plan = plan_problem("a.md", before, problem, stat=STAT, document_id="d1")
    assert plan.outcome is Outcome.PROBLEM
    assert plan.drop == (f"d1:{chunk_fingerprint('one')}",)
    assert entry_of(plan).document_id == "d1"
    assert entry_of(plan).tags == {}


def test_metadata_has_what_readers_of_other_frameworks_expect() -> None:
    (record,) = planned(document("one", path="notes/a.md")).embed
    assert dict(record.metadata) == {
        "source": "notes/a.md",
        "file_name": "a.md",
        "file_type": "text/markdown",
        "file_size": 10,
        "last_modified": "2023-11-14T22:13:20+00:00",
        "content_hash": "h1",
        "document_id": "d1",
        "chunk": 0,
        "start_line": 1,
        "end_line": 1,
        "title": "A",
        "heading": "",
        "embedding_model": "m",
        "ingested_at": "1970-01-01T00:00:01+00:00",
    }


def test_the_time_of_ingestion_alone_is_no_reason_to_write() -> None:
    before = entry_of(planned(document("one")))
    later = plan_document(document("one"), before, document_id="d1", cutting="c1", model="m", now_seconds=99_999_999.0)
    assert not later.touches_chroma


def test_a_file_time_that_no_calendar_has_is_held_at_its_ends() -> None:
    (record,) = planned(document("one", stat=replace(STAT, mtime_ns=1 << 62))).embed
    assert str(record.metadata["last_modified"]) > "2100"
    (record,) = planned(document("one", stat=replace(STAT, mtime_ns=-(1 << 70)))).embed
    assert str(record.metadata["last_modified"]).startswith("0001-01-01")


def test_a_renamed_folder_changes_the_source_of_its_records_and_nothing_else() -> None:
    before = entry_of(planned(document("one", "two", path="old/a.md")))
    plan = planned(document("one", "two", path="new/a.md"), before)
    assert changes(plan) == [{"source": "new/a.md"}] * 2


def test_a_touched_file_changes_its_time_and_an_edit_what_hangs_on_its_content() -> None:
    before = entry_of(planned(document("one")))
    touched = planned(document("one", stat=replace(STAT, mtime_ns=1_800_000_000_000_000_000)), before)
    assert changes(touched) == [{"last_modified": "2027-01-15T08:00:00+00:00"}]
    edited = planned(document("one", "two", content_hash="h2", stat=replace(STAT, size_bytes=14)), before)
    assert changes(edited) == [{"content_hash": "h2", "file_size": 14}]


def test_what_differs_is_told_only_where_the_tag_proves_it() -> None:
    before = entry_of(planned(document("one", "two")))
    one, two = before.tags
    moved = document("two", "one", path="b.md")
    assert changes(planned(moved, before)) == [None, None], "their lines differ, too"
    renamed = document("one", "two", path="b.md")
    forgotten = replace(before, tags={one: "", two: before.tags[two]})
    assert changes(planned(renamed, forgotten)) == [None, {"source": "b.md", "file_name": "b.md"}]
    doubtful = replace(before, doubtful=frozenset({two}))
    assert changes(planned(renamed, doubtful)) == [{"source": "b.md", "file_name": "b.md"}, None]
    begun = doubtful_entry(planned(renamed, before))
    assert changes(planned(document("one", "two"), begun)) == [None, None]


MOVED = document("one", "two", "one", path="new/a.md", stat=replace(STAT, ctime_ns=2))
TOUCHED = document("one", "two", "one", stat=replace(STAT, mtime_ns=1_800_000_000_000_000_000))


def uncut(found: Document, before: Entry, cutting: str = "c1") -> Plan | None:
    return plan_uncut(found.path, found.stat, found.content_hash, before, cutting=cutting)


@pytest.mark.parametrize(
    "found", [MOVED, TOUCHED, document("one", "two", "one")], ids=["moved", "touched", "as it was"]
)
def test_what_was_moved_or_touched_is_planned_without_cutting_as_it_is_with_it(found: Document) -> None:
    before = entry_of(planned(document("one", "two", "one")))
    assert uncut(found, before) == planned(found, before)


@pytest.mark.parametrize(
    "found",
    [
        document("one", content_hash="h2"),
        document("one", path="new/b.md"),
        document("one", path="new/a.txt"),
    ],
    ids=["another text", "another name", "another kind"],
)
def test_what_may_have_other_chunks_has_to_be_cut(found: Document) -> None:
    assert uncut(found, entry_of(planned(document("one")))) is None


def test_what_chroma_is_not_known_to_hold_has_to_be_cut() -> None:
    before = entry_of(planned(document("one", "two")))
    one, two = before.tags
    problem = Problem(Stage.DECODE, "UndecodableDocument", "binary", "", attempts=1, since_seconds=0.0)
    assert uncut(MOVED, before) is not None
    assert uncut(MOVED, before, cutting="c2") is None
    assert uncut(MOVED, replace(before, doubtful=frozenset({two}))) is None
    assert uncut(MOVED, replace(before, problem=problem)) is None
    for tag in ("", DAMAGED, "0" * len(before.tags[one])):
        assert uncut(MOVED, replace(before, tags=dict(before.tags) | {one: tag})) is None
    assert uncut(MOVED, doubtful_entry(planned(MOVED, before))) is None


def test_a_damaged_record_is_dropped_before_it_is_added_again() -> None:
    sound = entry_of(planned(document("one", "two")))
    one, two = sound.tags
    plan = planned(document("one", "two"), replace(sound, tags=dict(sound.tags) | {one: DAMAGED}))
    assert (plan.replace, texts(plan), plan.retag, plan.drop) == ((one,), ["one"], (), ())
    assert plan.after == sound
    begun = doubtful_entry(plan)
    assert (begun.tags[one], begun.doubtful, begun.is_unfinished) == (DAMAGED, frozenset({one}), True)
    again = planned(document("one", "two"), begun)
    assert (again.replace, texts(again), again.retag) == ((one,), ["one"], ()), "after a crash at any point"
    gone = planned(document("two"), begun)
    assert (gone.replace, gone.embed, gone.drop) == ((), (), (one,))
    assert entry_of(gone).tags.keys() == {two}
