"""What is counted in a ledger beside the process that works with it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.ledger_census import Backlog, Waiting, census_of
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import UNKNOWN_STAT, Change, Entry, Outcome, Plan, Priority, Problem, Stage, Usage

PROBLEM = Problem(Stage.DECODE, "UndecodableDocument", "binary", "convert it", attempts=1, since_seconds=1.0)
TODAY = "2026-11-24"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger ü#.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    with closing(SqliteLedger(path)) as ledger:
        yield ledger


def commit(ledger: SqliteLedger, name: str, chunks: int, problem: Problem | None = None) -> None:
    tags = {f"{name}:{number}": "t" for number in range(chunks)}
    entry = Entry(name, name, UNKNOWN_STAT, "", "", tags, problem=problem)
    ledger.commit([Plan(name, Outcome.ADDED, None, entry)], [])


def test_a_new_ledger_has_nothing_of_any_kind(ledger: SqliteLedger, path: Path) -> None:
    census = census_of(path, TODAY)
    assert (census.documents, census.chunks, census.tombstones, census.tokens_today) == (0, 0, 0, 0)
    assert census.problems == {}
    assert census.queue == {(priority, waiting): Backlog() for priority in Priority for waiting in Waiting}
    assert ledger.totals().documents == 0


def test_documents_are_counted_as_the_totals_do_and_problems_by_kind(ledger: SqliteLedger, path: Path) -> None:
    commit(ledger, "a", 3)
    commit(ledger, "b", 2)
    commit(ledger, "c", 1, PROBLEM)
    commit(ledger, "d", 0, PROBLEM)
    commit(ledger, "e", 0, replace(PROBLEM, kind="OversizeDocument"))
    census, totals = census_of(path, TODAY), ledger.totals()
    assert (census.documents, census.chunks) == (totals.documents, totals.chunks) == (2, 6)
    assert census.problems == {"UndecodableDocument": 2, "OversizeDocument": 1}


def test_the_queue_is_counted_by_priority_and_by_what_a_change_waits_for(ledger: SqliteLedger, path: Path) -> None:
    live = Change("", Priority.LIVE, enqueued_seconds=5.0, not_before_seconds=0.0)
    ledger.enqueue(["leased"], replace(live, enqueued_seconds=4.0))
    (leased,) = ledger.lease(1, 10.0)
    ledger.enqueue(["failed"], live)
    (failed,) = ledger.lease(1, 10.0)
    ledger.release([replace(failed, problem=PROBLEM)])
    ledger.enqueue(["waits", "waits too"], replace(live, enqueued_seconds=7.0))
    ledger.enqueue(["old"], replace(live, priority=Priority.BACKFILL, enqueued_seconds=1.0))
    queue = {kind: backlog for kind, backlog in census_of(path, TODAY).queue.items() if backlog.changes}
    assert leased.path == "leased"
    assert queue == {
        (Priority.LIVE, Waiting.IN_WORK): Backlog(1, 4.0),
        (Priority.LIVE, Waiting.RETRYING): Backlog(1, 5.0),
        (Priority.LIVE, Waiting.WAITING): Backlog(2, 7.0),
        (Priority.BACKFILL, Waiting.WAITING): Backlog(1, 1.0),
    }


def test_work_on_what_has_failed_is_work(ledger: SqliteLedger, path: Path) -> None:
    live = Change("", Priority.LIVE, enqueued_seconds=5.0, not_before_seconds=0.0)
    ledger.enqueue(["a"], replace(live, problem=PROBLEM))
    ledger.enqueue(["b"], replace(live, enqueued_seconds=3.0))
    ledger.lease(2, 10.0)
    assert census_of(path, TODAY).queue[Priority.LIVE, Waiting.IN_WORK] == Backlog(2, 3.0)


def test_tombstones_and_the_tokens_of_the_day_are_told(ledger: SqliteLedger, path: Path) -> None:
    ledger.set_tombstones(7)
    ledger.add_usage(Usage(tokens=40), TODAY)
    ledger.add_usage(Usage(tokens=2), "2026-11-23")
    census = census_of(path, TODAY)
    assert (census.tombstones, census.tokens_today) == (7, 40)


def test_a_writer_that_is_at_work_keeps_no_count_waiting(ledger: SqliteLedger, path: Path) -> None:
    commit(ledger, "a", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("DELETE FROM documents")
        assert census_of(path, TODAY).documents == 1


def test_a_file_that_is_missing_is_not_made_and_one_that_is_no_ledger_is_told(path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be read"):
        census_of(path, TODAY)
    assert not path.exists()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(ServiceUnavailable, match="cannot be read"):
        census_of(path, TODAY)
