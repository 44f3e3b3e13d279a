"""Census: what there is in a ledger by kind, counted beside the process that works with it.

Invariant: reads alone, over a connection of its own that is open no longer than a count: it keeps no writer waiting,
and sees what is at the path, whatever has become of the file meanwhile.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ingestor.adapters.ledger import DAY_TOKENS, PRIORITIES, TOMBSTONES
from ingestor.adapters.ledger_faults import UNUSABLE_REMEDY
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import Priority

_BUSY_TIMEOUT_SECONDS = 2.0
_DOCUMENTS = """
SELECT json_extract(problem, '$.kind'), count(*), sum(chunks) FROM documents GROUP BY 1
"""
_QUEUE = """
SELECT priority, is_leased, problem IS NOT NULL, count(*), min(enqueued_seconds) FROM queue GROUP BY 1, 2, 3
"""
_COUNTER = "SELECT value FROM counters WHERE name = ?"


class Waiting(StrEnum):
    """What a change in the queue waits for."""

    WAITING = "waiting"
    """Its turn."""
    IN_WORK = "in_work"
    """The end of the work on it."""
    RETRYING = "retrying"
    """The next attempt, after one that has failed."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Changes of one kind."""

    changes: int = 0
    since_seconds: float | None = None
    """When the oldest one was queued, since the epoch; None when there is none."""

    def __add__(self, other: "Backlog") -> "Backlog":
        since = [backlog.since_seconds for backlog in (self, other) if backlog.since_seconds is not None]
        return Backlog(self.changes + other.changes, min(since, default=None))


@dataclass(frozen=True, slots=True)
class Census:
    """One source as its ledger has it."""

    documents: int
    """Those without a Problem."""
    chunks: int
    problems: Mapping[str, int]
    """Documents with a Problem, by the name of its error class."""
    queue: Mapping[tuple[Priority, Waiting], Backlog]
    """Every kind is there."""
    tombstones: int
    tokens_today: int


def census_of(path: Path, today: str) -> Census:
    """Count what a ledger has; `today` is as `Ledger.tokens_on` wants it.

    Raises `ServiceUnavailable` when the file cannot be read just now, or is no ledger.
    """
    try:
        address = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, timeout=_BUSY_TIMEOUT_SECONDS, uri=True)) as connection:
            connection.execute("BEGIN")
            return _counted(connection, today)
    except sqlite3.Error as error:
        raise ServiceUnavailable(f"the ledger {path} cannot be read: {error}", remedy=UNUSABLE_REMEDY) from error


def _counted(connection: sqlite3.Connection, today: str) -> Census:
    documents, chunks = 0, 0
    problems = Counter[str]()
    for kind, count, its_chunks in connection.execute(_DOCUMENTS):
        chunks += its_chunks
        if kind is None:
            documents = count
        else:
            problems[kind] += count
    priority_of = {number: priority for priority, number in PRIORITIES.items()}
    queue = {(priority, waiting): Backlog() for priority in Priority for waiting in Waiting}
    for number, is_leased, has_failed, count, since_seconds in connection.execute(_QUEUE):
        waiting = Waiting.IN_WORK if is_leased else Waiting.RETRYING if has_failed else Waiting.WAITING
        queue[priority_of[number], waiting] += Backlog(count, since_seconds)
    counters = [connection.execute(_COUNTER, (name,)).fetchone() for name in (TOMBSTONES, DAY_TOKENS + today)]
    tombstones, tokens_today = (row[0] if row else 0 for row in counters)
    return Census(documents, chunks, dict(problems), queue, tombstones, tokens_today)
