"""What has to change in Chroma for one document."""

from dataclasses import replace

from ingestor.core.fingerprint import chunk_fingerprint
from ingestor.core.model import DAMAGED, Chunk, Document, Entry, Outcome, Plan, Problem, Stage, Stat
from ingestor.core.planning import doubtful_entry, plan_document, plan_problem, plan_removal

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
    assert [record.text for record in plan.retag] == ["one", "three"]
    assert plan.drop == (f"d1:{chunk_fingerprint('two')}",)


def test_a_touch_retags_and_embeds_nothing() -> None:
    before = entry_of(planned(document("one")))
    touched = replace(STAT, mtime_ns=STAT.mtime_ns + 5_000_000_000)
    plan = planned(document("one", stat=touched), before)
    assert plan.outcome is Outcome.UNCHANGED
    assert (plan.embed, plan.drop) == ((), ())
    assert [record.text for record in plan.retag] == ["one"]


def test_a_rename_keeps_the_document_id_and_only_retags() -> None:
    before = entry_of(planned(document("one", "two")))
    plan = planned(document("one", "two", path="b/c.md"), before)
    assert plan.outcome is Outcome.RENAMED
    assert (plan.embed, plan.drop) == ((), ())
    assert {record.metadata["source"] for record in plan.retag} == {"b/c.md"}
    assert entry_of(plan).document_id == before.document_id


def test_a_doubtful_record_that_is_wanted_is_added_and_retagged() -> None:
    begun = doubtful_entry(planned(document("one", "two")))
    plan = planned(document("one", "two"), begun)
    assert texts(plan) == ["one", "two"]
    assert [record.text for record in plan.retag] == ["one", "two"]


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
    assert [record.metadata["source"] for record in back.retag] == ["a.md"]


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
    assert [record.changes for record in plan.retag] == [{"source": "new/a.md"}] * 2


def test_a_touched_file_changes_its_time_and_an_edit_what_hangs_on_its_content() -> None:
    before = entry_of(planned(document("one")))
    (touched,) = planned(document("one", stat=replace(STAT, mtime_ns=1_800_000_000_000_000_000)), before).retag
    assert touched.changes == {"last_modified": "2027-01-15T08:00:00+00:00"}
    (edited,) = planned(document("one", "two", content_hash="h2", stat=replace(STAT, size_bytes=14)), before).retag
    assert edited.changes == {"content_hash": "h2", "file_size": 14}


def test_what_differs_is_told_only_where_the_tag_proves_it() -> None:
    before = entry_of(planned(document("one", "two")))
    one, two = before.tags
    moved = document("two", "one", path="b.md")
    assert [record.changes for record in planned(moved, before).retag] == [None, None], "their lines differ, too"
    renamed = document("one", "two", path="b.md")
    forgotten = replace(before, tags={one: "", two: before.tags[two]})
    assert [record.changes is None for record in planned(renamed, forgotten).retag] == [True, False]
    doubtful = replace(before, doubtful=frozenset({two}))
    assert [record.changes is None for record in planned(renamed, doubtful).retag] == [False, True]
    begun = doubtful_entry(planned(renamed, before))
    assert [record.changes for record in planned(document("one", "two"), begun).retag] == [None, None]


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
