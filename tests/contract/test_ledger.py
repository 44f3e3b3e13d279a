"""The contract of `ports.Ledger`, over the in-memory double and over SQLite."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestor.adapters.ledger import SqliteLedger, note_in
from ingestor.core.errors import DeletionHeld, LedgerCorrupt, LedgerLost
from ingestor.core.model import Change, Entry, Outcome, Plan, Priority, Problem, ServiceWait, Stage, Stat, Usage
from ingestor.ports import Ledger
from tests.doubles_ledger import MemoryLedger

STAT = Stat(size_bytes=10, mtime_ns=5, ctime_ns=6, device=2**63 + 1, inode=2**64 - 1)
AWAY = Problem(
    Stage.EMBED, "ServiceUnavailable", "away", "wait", attempts=1, since_seconds=5.0, service="http://localhost:1/v1"
)
PROBLEM = Problem(Stage.DECODE, "UndecodableDocument", "binary", "convert it", attempts=1, since_seconds=1.0)
NOW = Change("", Priority.BACKFILL, enqueued_seconds=1.0, not_before_seconds=0.0)
UNDECODABLE_NAME = os.fsdecode(b"caf\xe9.txt")


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    real = SqliteLedger(tmp_path / "ledger.sqlite3")
    yield real
    real.close()


def entry(path: str, document_id: str = "", **fields: object) -> Entry:
    made = Entry(path, document_id or f"id-{path}", STAT, f"hash-{path}", "c1", {f"id-{path}:1": "t1"})
    return replace(made, **fields)  # type: ignore[arg-type]  # a test names the fields it means


def added(*entries: Entry) -> list[Plan]:
    return [Plan(each.path, Outcome.ADDED, None, each) for each in entries]


def leased(ledger: Ledger, now_seconds: float = 10.0) -> list[str]:
    return [change.path for change in ledger.lease(100, now_seconds)]


def test_what_is_committed_comes_back_as_it_was(ledger: Ledger) -> None:
    whole = entry("a/b.md", doubtful=frozenset({"x"}), problem=PROBLEM)
    ledger.commit(added(whole, entry(UNDECODABLE_NAME, "d9", content_hash="h", tags={})), [])
    assert ledger.entries(["a/b.md", "missing"]) == {"a/b.md": whole}
    assert ledger.entries([UNDECODABLE_NAME])[UNDECODABLE_NAME].path == UNDECODABLE_NAME


def test_glances_say_what_a_reconcile_needs(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("b", doubtful=frozenset({"x"})), entry("c", tags={"r": ""})), [])
    sound, unfinished = (STAT.version, "c1", False), (STAT.version, "c1", True)
    assert ledger.glances() == {"a": sound, "b": unfinished, "c": unfinished}
    assert ledger.glances_of(["b", "zzz"]).keys() == {"b"}


def test_glances_below_a_folder_are_those_at_or_below_it(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("a/x"), entry("a/y/z"), entry("ab"), entry("a.txt"), entry("b")), [])
    assert ledger.glances("a").keys() == {"a", "a/x", "a/y/z"}


def test_an_entry_moves_with_its_document_id(ledger: Ledger) -> None:
    before = entry("old", "d1")
    ledger.commit(added(before), [])
    after = replace(before, path="new")
    ledger.commit([Plan("new", Outcome.RENAMED, before, after)], [])
    assert ledger.glances().keys() == {"new"}


def test_tombstones_are_counted_with_what_marks_them_until_they_are_set(ledger: Ledger) -> None:
    assert ledger.tombstones() == 0
    ledger.mark([entry("a")], 3)
    ledger.mark([entry("b")], 4)
    ledger.mark([entry("c")])
    assert ledger.tombstones() == 7
    ledger.set_tombstones(2)
    ledger.mark([entry("a")], 1)
    assert ledger.tombstones() == 3


def test_a_removed_document_is_forgotten(ledger: Ledger) -> None:
    gone = entry("a")
    ledger.commit(added(gone, entry("b")), [])
    ledger.commit([Plan("a", Outcome.DELETED, gone, None)], [])
    assert ledger.glances().keys() == {"b"}


def test_entries_are_found_by_their_documents(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("b"), entry("c")), [])
    (first,) = ledger.entries(["a"]).values()
    assert ledger.entries_of([first.document_id, "unknown"]) == [first]
    assert ledger.entries_of([]) == []
    ids = [each.document_id for each in ledger.entries(["a", "b", "c"]).values()]
    assert {each.path for each in ledger.entries_of(ids)} == {"a", "b", "c"}


def test_some_entries_are_those_after_an_offset(ledger: Ledger) -> None:
    ledger.commit(added(*(entry(f"path-{number}") for number in range(7))), [])
    pages = [ledger.some(offset, 3) for offset in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert {each.path for page in pages for each in page} == {f"path-{number}" for number in range(7)}


def test_kin_of_a_known_path_is_its_own_entry_alone(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("b")), [])
    assert [each.path for each in ledger.kin("a", STAT, "hash-b")] == ["a"]


def test_kin_of_a_new_path_has_the_same_inode_and_size_or_else_the_same_content(ledger: Ledger) -> None:
    other = replace(STAT, inode=77)
    ledger.commit(added(entry("a"), entry("b", stat=other), entry("c", stat=replace(other, inode=78))), [])
    assert [each.path for each in ledger.kin("new", other, "hash-c")] == ["b"]
    assert [each.path for each in ledger.kin("new", replace(STAT, inode=99), "hash-c")] == ["c"]
    assert ledger.kin("new", replace(STAT, inode=99), "other") == []


def test_an_empty_file_has_no_kin_but_itself(ledger: Ledger) -> None:
    empty = replace(STAT, size_bytes=0)
    ledger.commit(added(entry("a", stat=empty)), [])
    assert ledger.kin("new", empty, "hash-a") == []
    assert [each.path for each in ledger.kin("a", empty, "hash-a")] == ["a"]


def test_the_queue_has_one_row_a_path_with_the_more_urgent_of_both(ledger: Ledger) -> None:
    assert ledger.enqueue(["a", "b"], replace(NOW, not_before_seconds=100.0)) == 2
    assert ledger.enqueue(["b", "c"], replace(NOW, priority=Priority.LIVE)) == 1
    assert leased(ledger) == ["b", "c"]
    assert leased(ledger, 100.0) == ["a"]


def test_live_changes_are_leased_before_the_backfill_and_older_ones_first(ledger: Ledger) -> None:
    ledger.enqueue(["old"], NOW)
    ledger.enqueue(["older"], replace(NOW, enqueued_seconds=0.5))
    ledger.enqueue(["live"], replace(NOW, priority=Priority.LIVE, enqueued_seconds=9.0))
    assert leased(ledger) == ["live", "older", "old"]
    assert leased(ledger) == []


def test_a_live_change_is_leased_before_ten_thousand_that_wait(ledger: Ledger) -> None:
    ledger.enqueue([f"{number}.md" for number in range(10_000)], NOW)
    ledger.enqueue(["live"], replace(NOW, priority=Priority.LIVE, enqueued_seconds=9.0))
    assert [change.path for change in ledger.lease(1, 10.0)] == ["live"]


def test_live_changes_alone_are_leased_when_they_alone_are_asked_for(ledger: Ledger) -> None:
    ledger.enqueue(["old"], NOW)
    assert ledger.lease(10, 10.0, least=Priority.LIVE) == []
    ledger.enqueue(["late"], replace(NOW, priority=Priority.LIVE, not_before_seconds=50.0))
    ledger.enqueue(["live 1", "live 2"], replace(NOW, priority=Priority.LIVE))
    assert len(ledger.lease(1, 10.0, least=Priority.LIVE)) == 1
    assert len(ledger.lease(10, 10.0, least=Priority.LIVE)) == 1
    assert leased(ledger) == ["old"]


def test_what_is_gone_is_leased_before_live_changes_and_alone_when_it_alone_is_asked_for(ledger: Ledger) -> None:
    ledger.enqueue(["live"], replace(NOW, priority=Priority.LIVE))
    ledger.enqueue(["gone"], replace(NOW, priority=Priority.GONE, enqueued_seconds=9.0))
    ledger.enqueue(["late"], replace(NOW, priority=Priority.GONE, not_before_seconds=50.0))
    assert ledger.next_due_seconds(least=Priority.GONE) == 0.0
    assert [change.path for change in ledger.lease(10, 10.0, least=Priority.GONE)] == ["gone"]
    assert ledger.next_due_seconds(least=Priority.GONE) == 50.0
    assert leased(ledger) == ["live"]
    ledger.enqueue(["late"], replace(NOW, priority=Priority.BACKFILL))
    assert [change.priority for change in ledger.lease(10, 10.0)] == [Priority.GONE], "the more urgent of both"


def test_a_path_that_is_queued_can_be_urged_and_no_other_one_comes_in_by_that(ledger: Ledger) -> None:
    ledger.urge(["a"], NOW)
    ledger.enqueue(["a", "b"], replace(NOW, not_before_seconds=100.0))
    (change,) = ledger.lease(1, 100.0)
    ledger.urge(["a", "b", "c"], replace(NOW, priority=Priority.GONE, not_before_seconds=5.0))
    assert [change.path for change in ledger.lease(10, 10.0, least=Priority.GONE)] == ["b"]
    ledger.commit([], [change])
    assert leased(ledger, 100.0) == ["a"], "it was heard of while it was worked on"


def test_a_change_that_is_given_back_may_be_more_urgent_and_never_less(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    (change,) = ledger.lease(1, 10.0)
    ledger.release([replace(change, priority=Priority.GONE)])
    (change,) = ledger.lease(1, 10.0, least=Priority.GONE)
    ledger.release([replace(change, priority=Priority.BACKFILL)])
    assert [change.path for change in ledger.lease(1, 10.0, least=Priority.GONE)] == ["a"]


def test_the_backfill_has_its_share_of_a_lease_however_many_live_changes_wait(ledger: Ledger) -> None:
    ledger.enqueue([f"live {number}" for number in range(20)], replace(NOW, priority=Priority.LIVE))
    ledger.enqueue(["old"], NOW)
    assert [change.is_live for change in ledger.lease(8, 10.0)] == [True] * 7 + [False]
    ledger.enqueue([f"old {number}" for number in range(20)], NOW)
    assert [change.is_live for change in ledger.lease(8, 10.0)] == [True] * 6 + [False] * 2
    assert sum(not change.is_live for change in ledger.lease(20, 10.0)) == 13, "places that no live one wants"


def test_a_lease_takes_no_more_than_asked_for(ledger: Ledger) -> None:
    ledger.enqueue(["a", "b", "c"], NOW)
    assert len(ledger.lease(2, 10.0)) == 2
    assert len(ledger.lease(2, 10.0)) == 1


def test_a_lease_of_which_nobody_has_heard_is_given_to_the_next_who_asks(ledger: Ledger) -> None:
    ledger.enqueue(["a", "b", "c"], NOW)
    assert len(ledger.lease(3, 10.0)) == 3
    assert ledger.lease(3, 10.0) == [], "whoever does not say what is in work lets every lease stand"
    assert sorted(change.path for change in ledger.lease(3, 10.0, in_work={"b"})) == ["a", "c"]
    assert ledger.lease(3, 10.0, in_work={"a", "b", "c"}) == []
    assert ledger.totals().in_flight == 3


def test_what_is_not_in_work_is_free_although_it_is_not_due(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    ledger.lease(1, 10.0)
    assert ledger.lease(1, -1.0, in_work=()) == []
    assert ledger.totals().in_flight == 0
    assert ledger.next_due_seconds() == NOW.not_before_seconds


def test_an_acknowledged_change_leaves_the_queue(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    (change,) = ledger.lease(1, 10.0)
    ledger.commit([], [change])
    assert ledger.next_due_seconds() is None
    assert ledger.totals().in_flight == 0


def test_a_path_hinted_at_while_it_was_worked_on_stays_queued(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    (change,) = ledger.lease(1, 10.0)
    ledger.enqueue(["a"], replace(NOW, priority=Priority.LIVE))
    assert leased(ledger) == [], "it is still worked on"
    ledger.commit([], [change])
    assert leased(ledger) == ["a"]


def test_a_released_change_waits_with_its_problem(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    (change,) = ledger.lease(1, 10.0)
    ledger.release([replace(change, attempts=1, problem=PROBLEM, not_before_seconds=50.0)])
    assert ledger.next_due_seconds() == 50.0
    assert ledger.problems() == [("a", PROBLEM)]
    assert ledger.totals().retrying == 1
    (again,) = ledger.lease(1, 50.0)
    assert (again.attempts, again.problem) == (1, PROBLEM)


def test_a_hint_that_came_meanwhile_makes_a_released_change_due(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    (change,) = ledger.lease(1, 10.0)
    ledger.enqueue(["a"], NOW)
    ledger.release([replace(change, attempts=7, problem=PROBLEM, not_before_seconds=5000.0)])
    (again,) = ledger.lease(1, 10.0)
    assert again.attempts == 0


def test_a_new_hint_makes_a_waiting_change_due(ledger: Ledger) -> None:
    ledger.enqueue(["a"], replace(NOW, not_before_seconds=5000.0))
    ledger.enqueue(["a"], NOW)
    assert leased(ledger) == ["a"]


def test_hasten_makes_due_what_waits_for_a_service(ledger: Ledger) -> None:
    ledger.enqueue(["waits", "other", "unstable", "later"], NOW)
    changes = ledger.lease(4, 10.0)
    problems = {"waits": AWAY, "other": replace(AWAY, service="Chroma"), "unstable": PROBLEM, "later": None}
    ledger.release([replace(each, problem=problems[each.path], not_before_seconds=900.0) for each in changes])
    ledger.hasten(10.0, AWAY.service)
    (change,) = ledger.lease(9, 10.0)
    assert (change.path, change.problem) == ("waits", None)
    assert [wait.service for wait in ledger.totals().waits] == ["Chroma"]
    assert [path for path, _ in ledger.problems()] == ["unstable"]


def test_what_waits_for_a_service_is_no_problem_and_told_once(ledger: Ledger) -> None:
    ledger.enqueue([f"{number:03}" for number in range(499)] + ["unstable", "queued"], NOW)
    changes = [each for each in ledger.lease(999, 10.0) if each.path != "queued"]
    problems = [
        PROBLEM
        if each.path == "unstable"
        else replace(AWAY, reason=f"away {number}", since_seconds=5.0 + number, next_try_seconds=90.0 + number)
        for number, each in enumerate(sorted(changes, key=lambda each: each.path))
    ]
    ledger.release(
        [
            replace(each, problem=problem, not_before_seconds=90.0)
            for each, problem in zip(sorted(changes, key=lambda each: each.path), problems, strict=True)
        ]
    )
    assert ledger.problems() == [("unstable", PROBLEM)]
    totals = ledger.totals()
    assert (totals.retrying, totals.problems) == (1, 0)
    assert totals.waits == (ServiceWait(AWAY.service, 499, "away 498", AWAY.remedy, 5.0, 90.0),)
    assert ledger.waiting()["000"] == problems[0]


def test_leases_of_a_dead_process_are_void(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    assert leased(ledger) == ["a"]
    ledger.release_all()
    assert leased(ledger) == ["a"]


def test_totals_count_documents_chunks_queue_problems_and_usage(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("b", tags={"r1": "t", "r2": "t"}), entry("c", tags={}, problem=PROBLEM)), [])
    ledger.enqueue(["x", "y"], NOW)
    ledger.lease(1, 10.0)
    ledger.add_usage(Usage(1, 2, 3, 4, 5, 6), "2026-11-23")
    ledger.add_usage(Usage(1, 1, 1), "2026-11-24")
    totals = ledger.totals()
    assert (totals.documents, totals.chunks, totals.problems) == (2, 3, 1)
    assert (totals.queued, totals.in_flight) == (1, 1)
    assert totals.usage == Usage(2, 3, 4, 4, 5, 6)


def test_tokens_are_counted_by_the_day(ledger: Ledger) -> None:
    assert ledger.tokens_on("2026-11-23") == 0
    for day, tokens in (("2026-11-23", 3), ("2026-11-23", 4), ("2026-11-24", 5)):
        ledger.add_usage(Usage(tokens=tokens), day)
    assert [ledger.tokens_on(f"2026-11-{day}") for day in (22, 23, 24)] == [0, 7, 5]


def test_every_entry_can_be_rewritten(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("b")), [])
    ledger.rewrite(lambda each: replace(each, tags={}, cutting="none"))
    assert {cutting for _, cutting, _ in ledger.glances().values()} == {"none"}
    assert ledger.totals().chunks == 0


def test_notes_are_kept_by_name(ledger: Ledger) -> None:
    assert ledger.note("n") is None
    ledger.set_note("n", "1")
    ledger.set_note("n", "2")
    assert ledger.note("n") == "2"


def test_more_paths_than_a_statement_can_name(ledger: Ledger) -> None:
    paths = [f"p{number}" for number in range(40_000)]
    assert ledger.enqueue(paths, NOW) == len(paths)
    assert ledger.entries(paths) == {}
    assert ledger.glances_of(paths) == {}


def test_a_second_opener_sees_what_the_first_has_written(tmp_path: Path) -> None:
    first = SqliteLedger(tmp_path / "ledger.sqlite3")
    first.commit(added(entry("a")), [])
    second = SqliteLedger(tmp_path / "ledger.sqlite3")
    assert second.glances().keys() == {"a"}
    second.enqueue(["a"], NOW)
    assert leased(first) == ["a"]
    first.close()
    second.close()


def test_a_file_that_is_no_ledger_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(LedgerCorrupt, match=r"ledger\.sqlite3") as caught:
        SqliteLedger(path)
    assert "move the file away" in caught.value.remedy


def test_two_documents_cannot_have_one_path(ledger: Ledger) -> None:
    ledger.commit(added(entry("a", "d1")), [])
    with pytest.raises(Exception, match=r"UNIQUE|two documents"):
        ledger.mark([entry("a", "d2")])


def test_an_entry_is_amended_only_if_it_still_is_what_was_seen(ledger: Ledger) -> None:
    seen, changed = entry("a"), entry("b")
    ledger.commit(added(seen, changed), [])
    ledger.mark([replace(changed, doubtful=frozenset({"x"}))])
    new = entry("new", "d1")
    amendments = [
        (seen, replace(seen, tags={"r": ""})),
        (changed, replace(changed, tags={"r": ""})),
        (None, new),
        (None, entry("a", "d2")),
        (None, entry("elsewhere", changed.document_id)),
        (entry("lost"), entry("lost", tags={})),
    ]
    assert ledger.amend(amendments) == ["a", "new"]
    assert ledger.entries(["a", "b", "new", "elsewhere", "lost"]) == {
        "a": replace(seen, tags={"r": ""}),
        "b": replace(changed, doubtful=frozenset({"x"})),
        "new": new,
    }


def test_an_entry_whose_path_is_in_work_is_not_amended(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("b")), [])
    ledger.enqueue(["a"], NOW)
    assert leased(ledger) == ["a"]
    ledger.enqueue(["b"], NOW)
    assert ledger.amend([(entry("a"), entry("a", tags={})), (entry("b"), entry("b", tags={}))]) == ["b"]


def test_what_waits_is_told_with_its_reason_whether_it_is_leased_or_not(ledger: Ledger) -> None:
    assert ledger.waiting() == {}
    ledger.enqueue(["a", "b"], NOW)
    (change, _) = ledger.lease(2, 10.0)
    ledger.release([replace(change, problem=PROBLEM)])
    assert ledger.waiting() == {change.path: PROBLEM} | dict.fromkeys({"a", "b"} - {change.path})


def test_times_that_a_clock_set_back_has_made_senseless_are_made_due(ledger: Ledger) -> None:
    ledger.enqueue(["late"], replace(NOW, not_before_seconds=5_000.0))
    ledger.enqueue(["soon"], replace(NOW, not_before_seconds=5.0))
    assert leased(ledger, 20.0) == ["soon"]
    ledger.make_due(20.0)
    assert leased(ledger, 20.0) == ["late"]


def test_a_start_makes_all_due(ledger: Ledger) -> None:
    ledger.enqueue(["leased"], NOW)
    ledger.enqueue(["late"], replace(NOW, not_before_seconds=5_000.0, problem=PROBLEM))
    assert leased(ledger) == ["leased"]
    ledger.release_all()
    assert sorted(leased(ledger)) == ["late", "leased"]


def test_what_is_taken_out_of_the_queue_is_not_leased_any_more(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    assert leased(ledger) == ["a"]
    ledger.enqueue(["b", "c"], NOW)
    ledger.dequeue(["a", "b", "unknown"])
    assert ledger.waiting().keys() == {"a", "c"}
    assert leased(ledger) == ["c"]


def test_what_is_held_back_is_a_set_that_approval_goes_by(ledger: Ledger) -> None:
    ledger.commit(
        added(entry("a"), entry("b"), entry("c"), entry(UNDECODABLE_NAME, "d", content_hash="h", tags={})), []
    )
    ledger.hold(["c", "b", UNDECODABLE_NAME])
    ledger.hold(["a"])
    assert ledger.held() == {"a": False, "b": False, "c": False, UNDECODABLE_NAME: False}
    assert ledger.approve(["a", "c", "unknown"]) == 2
    assert ledger.approve(["a"]) == 0, "it was approved before"
    ledger.hold(["a", "b"])
    assert ledger.held() == {"a": True, "b": False, "c": True, UNDECODABLE_NAME: False}
    ledger.hold_no_more(["a", UNDECODABLE_NAME, "unknown"])
    assert ledger.held() == {"b": False, "c": True}
    ledger.hold([])
    ledger.hold_no_more([])
    assert ledger.approve([]) == 0


def test_a_deletion_that_is_held_back_does_not_begin_until_it_is_approved(ledger: Ledger) -> None:
    ledger.commit(added(entry("a"), entry("b")), [])
    ledger.hold(["b"])
    with pytest.raises(DeletionHeld, match="b is held back"):
        ledger.mark([entry("a", doubtful=frozenset({"id-a:1"}))], 1, ["a", "b"])
    assert (ledger.entries(["a"])["a"], ledger.tombstones(), ledger.held()) == (entry("a"), 0, {"b": False})
    ledger.approve(["b"])
    ledger.mark([], 0, ["a", "b"])
    ledger.mark([], 0, ["a", "b"])


def test_a_deletion_that_has_begun_is_held_back_no_more(ledger: Ledger) -> None:
    ledger.commit(added(entry("a")), [])
    ledger.mark([entry("a", doubtful=frozenset({"id-a:1"}))], 1, ["a"])
    ledger.hold(["a"])
    assert ledger.held() == {"a": True}
    ledger.mark([], 0, ["a"])
    ledger.commit([Plan("a", Outcome.DELETED, entry("a"), None)], [])
    assert ledger.held() == {}


def test_what_a_commit_speaks_of_is_held_back_no_more(ledger: Ledger) -> None:
    known = [entry("gone"), entry("back"), entry("renamed"), entry("other"), entry("gone again")]
    ledger.commit(added(*known), [])
    ledger.hold(["gone", "back", "renamed", "other", "gone again"])
    moved = replace(known[2], path="new name")
    ledger.commit(
        [
            Plan("gone", Outcome.DELETED, known[0], None),
            Plan("back", Outcome.UNCHANGED, known[1], known[1]),
            Plan("new name", Outcome.RENAMED, known[2], moved),
            Plan("gone again", Outcome.CHANGED, known[4], known[4]),
        ],
        [replace(NOW, path="back")],
    )
    assert ledger.held() == {"gone again": False, "other": False}


def test_what_is_held_back_leaves_the_queue_unless_it_is_in_work(ledger: Ledger) -> None:
    ledger.enqueue(["a"], NOW)
    assert leased(ledger) == ["a"]
    ledger.enqueue(["b", "c"], NOW)
    ledger.hold(["a", "b"])
    assert ledger.waiting().keys() == {"a", "c"}


def test_what_is_held_back_goes_on_under_another_path_by_its_content_alone(ledger: Ledger) -> None:
    ledger.commit(added(entry("old", content_hash="h")), [])
    assert [each.path for each in ledger.kin("new", STAT, "another")] == ["old"]
    ledger.hold(["old"])
    assert ledger.kin("new", STAT, "another") == []
    assert [each.path for each in ledger.kin("new", STAT, "h")] == ["old"]
    assert [each.path for each in ledger.kin("old", STAT, "another")] == ["old"]
    ledger.approve(["old"])
    assert [each.path for each in ledger.kin("new", STAT, "another")] == ["old"]


def test_what_is_held_back_outlives_the_process_and_is_approved_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger, beside = SqliteLedger(path), SqliteLedger(path)
    ledger.hold(f"{number}.txt" for number in range(25_000))
    assert beside.approve(f"{number}.txt" for number in range(24_000)) == 24_000
    assert sum(ledger.held().values()) == 24_000
    ledger.close()
    beside.hold_no_more(f"{number}.txt" for number in range(24_999))
    assert beside.held() == {"24999.txt": False}
    beside.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("tags", b"\xff\xfe"),
        ("tags", "{broken"),
        ("tags", "[]"),
        ("doubtful", "7"),
        ("problem", "{}"),
        ("problem", '{"stage": "nowhere"}'),
    ],
)
def test_damage_inside_a_value_is_told_as_damage(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = SqliteLedger(path)
    ledger.commit(added(entry("a", problem=PROBLEM)), [])
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE documents SET {column} = CAST(? AS TEXT)", [value])  # noqa: S608 - names of columns
    connection.close()
    with pytest.raises(LedgerCorrupt, match="is damaged") as caught:
        ledger.entries(["a"])
    assert "move the file away" in caught.value.remedy
    ledger.close()


DURABLE: dict[str, Callable[[SqliteLedger], object]] = {
    "mark": lambda ledger: ledger.mark([entry("a")]),
    "commit": lambda ledger: ledger.commit(added(entry("a")), [replace(NOW, path="a")]),
    "amend": lambda ledger: ledger.amend([(None, entry("b"))]),
    "hasten": lambda ledger: ledger.hasten(1.0, "Chroma"),
    "release_all": lambda ledger: ledger.release_all(),
    "make_due": lambda ledger: ledger.make_due(1.0),
    "dequeue": lambda ledger: ledger.dequeue(["b"]),
    "hold": lambda ledger: ledger.hold(["b"]),
    "hold_no_more": lambda ledger: ledger.hold_no_more(["b"]),
    "approve": lambda ledger: ledger.approve(["b"]),
    "rewrite": lambda ledger: ledger.rewrite(lambda each: each),
    "set_note": lambda ledger: ledger.set_note("name", "value"),
}


@pytest.mark.parametrize("name", DURABLE)
def test_all_but_what_is_queued_leased_given_back_and_counted_waits_for_the_disk(tmp_path: Path, name: str) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3")
    levels: list[int] = []

    def note_level(connection: sa.Connection) -> None:
        # Asked of SQLite itself, within the transaction that is about to be committed.
        driver = connection.connection.dbapi_connection
        assert driver is not None
        levels.append(driver.cursor().execute("PRAGMA synchronous").fetchone()[0])

    sa.event.listen(sa.Engine, "commit", note_level)
    try:
        ledger.enqueue(["a", "b"], NOW)
        assert len(ledger.lease(1, 10.0)) == 1
        ledger.add_usage(Usage(tokens=1), "2026-11-23")
        ledger.release([replace(NOW, path="a")])
        ledger.commit([], [replace(NOW, path="a")])
        DURABLE[name](ledger)
        ledger.enqueue(["c"], NOW)
    finally:
        sa.event.remove(sa.Engine, "commit", note_level)
        ledger.close()
    normal, full = 1, 2
    assert levels == [*[normal] * 5, full, normal]


def test_to_find_nothing_to_lease_waits_for_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestor.adapters.ledger._BUSY_TIMEOUT_SECONDS", 0)
    path = tmp_path / "ledger.sqlite3"
    ledger = SqliteLedger(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert ledger.lease(10, 10.0) == []
    other.close()
    ledger.close()


def test_of_a_removed_document_no_byte_is_left_in_a_file_that_was_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = SqliteLedger(path)
    gone = entry("a-name-that-tells-something.md")
    ledger.commit(added(gone, *(entry(f"other-{number}") for number in range(50))), [])
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA secure_delete = OFF")  # as SQLite is built elsewhere
        plain.execute("DELETE FROM documents WHERE document_id = ?", (gone.document_id,))
    plain.close()
    assert any(gone.path.encode() in file.read_bytes() for file in tmp_path.iterdir())
    ledger.rewrite_file()
    assert not any(gone.path.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert len(ledger.glances()) == 50
    ledger.close()


def test_a_note_is_read_from_a_ledger_alone_and_no_file_is_changed(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.sqlite3", tmp_path / "other.sqlite3"
    ledger = SqliteLedger(path)
    ledger.set_note("name", "told")
    assert (note_in(path, "name"), note_in(path, "none")) == ("told", None)
    ledger.close()
    other.write_bytes(b"something else")
    assert (note_in(other, "name"), note_in(tmp_path / "missing", "name")) == (None, None)
    assert other.read_bytes() == b"something else"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("is_replaced", [False, True], ids=["deleted", "replaced"])
def test_a_file_that_is_taken_from_under_a_ledger_is_noticed_by_the_next_call(
    tmp_path: Path, *, is_replaced: bool
) -> None:
    path, other = tmp_path / "ledger.sqlite3", tmp_path / "other.sqlite3"
    ledger = SqliteLedger(path)
    ledger.enqueue(["a"], NOW)
    if is_replaced:
        SqliteLedger(other).close()
        other.replace(path)
    else:
        path.unlink()
    for call in (lambda: ledger.lease(1, 10.0), lambda: ledger.enqueue(["b"], NOW), lambda: ledger.note("x")):
        with pytest.raises(LedgerLost, match="was deleted or replaced while it was in use"):
            call()
    ledger.close()
