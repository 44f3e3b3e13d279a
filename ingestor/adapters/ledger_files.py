"""Ledgers as files: copied, put in the place of each other, deleted.

A ledger in use is never renamed or replaced as a file: another process that has it open would go on with the old file,
its write-ahead log and its locks, and damage both. SQLite copies the pages instead, in one transaction of the target.

Invariant: a ledger of its name is whole, the old one or the new one, whenever the process or the machine dies.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from ingestor.adapters.durability import sync_file, sync_folder
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.ledger_faults import faults_named
from ingestor.adapters.ledger_schema import drop_copies
from ingestor.core.errors import IngestorError, ServiceUnavailable

BUSY_SECONDS = 30.0
"""How long another process may lock a ledger that is to be replaced."""
_PAUSE_SECONDS = 0.1
_SIDE_FILES = ("-wal", "-shm", "-journal")
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
_COUNTERS = "SELECT name, value FROM counters"
_RAISE_COUNTER = (
    "INSERT INTO counters (name, value) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
)
_SET_NOTE = "INSERT INTO notes (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


class LedgerFiles:
    """The ledgers of a data folder, by file name.

    Raises `ServiceUnavailable` when the disk is full or another process locks a ledger for long, `LedgerCorrupt`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, name: str, of: str) -> str | None:
        """The note `of` in the ledger `name`, "" when it has none; None when there is no such ledger."""
        path = self._folder / name
        if not path.is_file():
            return None
        with faults_named(path), closing(_opened(path)) as found:
            # Right after its making, a ledger that a copy fills is empty.
            is_begun = found.execute(_HAS_TABLE, ["notes"]).fetchone()
            note = found.execute("SELECT value FROM notes WHERE name = ?", [of]).fetchone() if is_begun else None
        return str(note[0]) if note else ""

    def set_note(self, name: str, of: str, value: str) -> None:
        """Keep a note in a ledger."""
        with faults_named(self._folder / name), closing(_opened(self._folder / name)) as found, found:
            found.execute(_SET_NOTE, [of, value])

    def copy(
        self, name: str, target: str, notes: Mapping[str, str], change: Callable[[SqliteLedger], None] | None = None
    ) -> None:
        """Make `target`, or make it anew: what the ledger `name` holds, with notes of its own and changed by `change`.

        Nobody else may have `target` open.
        """
        fresh = self._folder / f"{target}.new"
        _unlink(fresh)
        try:
            self._make(fresh, self._folder / name, notes, change)
        except IngestorError:
            _unlink(fresh)  # it may be what has filled the disk
            raise
        _unlink(self._folder / target)
        with faults_named(fresh):
            sync_file(fresh)
            fresh.replace(self._folder / target)
            sync_folder(self._folder)

    def take(self, name: str, target: str) -> None:
        """Let `target` hold what the ledger `name` holds, in one transaction; others may have it open.

        Counters of what was spent never fall: of both ledgers, the higher one stays.
        """
        with faults_named(self._folder / target), closing(_opened(self._folder / target)) as taken:
            with closing(_opened(self._folder / name)) as source:
                if taken.execute(_HAS_TABLE, ["counters"]).fetchone():
                    source.executemany(_RAISE_COUNTER, taken.execute(_COUNTERS).fetchall())
                    source.commit()
            _back_up(self._folder / name, taken)

    def drop(self, name: str) -> None:
        """Delete a ledger and what upgrades have kept of it; idempotent. Nobody else may have it open."""
        _unlink(self._folder / name)
        drop_copies(self._folder / name)
        sync_folder(self._folder)

    def _make(
        self, fresh: Path, path: Path, notes: Mapping[str, str], change: Callable[[SqliteLedger], None] | None
    ) -> None:
        with faults_named(path), closing(_opened(fresh)) as made:
            _back_up(path, made)
            made.executemany(_SET_NOTE, notes.items())
            made.commit()
        if change is not None:
            with closing(SqliteLedger(fresh)) as ledger:
                change(ledger)
        with faults_named(fresh), closing(_opened(fresh)) as made:
            made.execute("PRAGMA journal_mode=DELETE")  # all of it in one file, which may be renamed


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS)


def _back_up(path: Path, target: sqlite3.Connection) -> None:
    """Copy all pages, in one transaction; sqlite3 itself would wait for a lock without end."""
    give_up_seconds = time.monotonic() + BUSY_SECONDS

    def see_that_it_ends(status: int, _left: int, _pages: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() > give_up_seconds:
            raise ServiceUnavailable(
                f"the ledger {path.name} cannot be copied: another process locks it", remedy="end that process"
            )

    with closing(_opened(path)) as source:
        source.backup(target, progress=see_that_it_ends, sleep=_PAUSE_SECONDS)


def _unlink(path: Path) -> None:
    # The database goes first: a log that finds none is discarded, while one that is lost takes content with it.
    for end in ("", *_SIDE_FILES):
        path.with_name(path.name + end).unlink(missing_ok=True)
