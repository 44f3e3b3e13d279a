"""The schema of the ledger: its number, and the steps that bring an older ledger to the one of this program.

Theory of operation
-------------------
A ledger bears the number of its schema in its notes. A step brings it from one number to the next, in one transaction
together with the new number, and a copy of the file as it was lies beside it before the step is committed. The copy is
made while the transaction keeps every writer out: it has all that was ever committed under the old number.

Only the holder of the instance lock upgrades, because a process of an older version that is at work does not know what
becomes of its tables. A process that only looks takes the lock for that moment, or waits for the holder.

Invariant: a ledger has the schema whose number it bears, whole, whenever the process or the machine dies; the next
start goes on from there. Copies of the last upgrade are kept, those of earlier ones go when it begins.

A step is never changed once a version with it was published. It knows the tables as they were then: no names, types or
helpers of today's ledger.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import structlog

from ingestor.adapters.durability import sync_file, sync_folder
from ingestor.adapters.ledger_faults import damaged, faults_named
from ingestor.core.errors import ConfigError

SCHEMA_NOTE = "schema_version"
_BUSY_SECONDS = 30.0
_PRIVATE = 0o600
_UNFINISHED = (".copying", ".copying-journal")
"""What the names of a copy that is not whole, and of SQLite's file beside it, end with."""
_NUMBER = "SELECT value FROM notes WHERE name = 'schema_version'"
_SET_NUMBER = "UPDATE notes SET value = ? WHERE name = 'schema_version'"

Step = Callable[[sqlite3.Connection], None]
"""Changes the tables within a transaction that is not its own."""

_log = structlog.get_logger(__name__)


def _name_held_deletions(connection: sqlite3.Connection) -> None:
    """1 to 2: deletions that wait for approval are a set of paths, where only their number was known."""
    connection.execute(
        "CREATE TABLE held (path BLOB NOT NULL, is_approved BOOLEAN NOT NULL, PRIMARY KEY (path))",
    )
    # It spoke of a number: which files were meant cannot be told any more.
    connection.execute("DELETE FROM notes WHERE name = 'approved_deletions'")
    # What waits for a service names it from now on. It is tried at the next start, and names it then.
    connection.execute('UPDATE queue SET problem = NULL WHERE problem NOT LIKE \'%"kind": "UnstableDocument"%\'')


STEPS: tuple[Step, ...] = (_name_held_deletions,)
SCHEMA_VERSION = 1 + len(STEPS)


def is_behind(path: Path) -> bool:
    """Whether there is a ledger at `path` of an older schema than this program's; it is not changed.

    False for what cannot be read: whoever opens it says why. Raises `ConfigError` when it is of a newer schema.
    """
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(_NUMBER).fetchone()
    except sqlite3.Error:
        return False
    number = _parsed(path, found[0]) if found else SCHEMA_VERSION
    _refuse_newer(path, number, SCHEMA_VERSION)
    return number < SCHEMA_VERSION


def upgrade(path: Path, steps: Sequence[Step] = STEPS) -> None:
    """Bring a ledger to the schema that the steps lead to; the caller holds the instance lock.

    Raises `ConfigError` when it is of a newer schema, `LedgerCorrupt`, and `ServiceUnavailable` when it cannot be done
    now; where there is no space for a copy, or for a step, that step is not done.
    """
    with faults_named(path), closing(_opened(path)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        if _number(path, connection, steps) <= len(steps):
            _drop(copy for copy in copies(path) if not copy.name.endswith(_ending(steps)))
        while _number(path, connection, steps) <= len(steps):
            # Nobody writes from here on, and nobody upgrades: what is copied is what the step finds.
            connection.execute("BEGIN IMMEDIATE")
            try:
                _take_step(path, connection, steps)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _take_step(path: Path, connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    number = _number(path, connection, steps)
    if number > len(steps):
        return  # another process was faster
    copy = _copied(path, f"{path.name}.schema-{number}{_ending(steps)}")
    steps[number - 1](connection)
    connection.execute(_SET_NUMBER, [str(number + 1)])
    _log.info("ledger.upgraded", ledger=path.name, was=number, schema=number + 1, copy=copy.name)


def copies(path: Path) -> list[Path]:
    """What an upgrade has kept of a ledger."""
    return sorted(path.parent.glob(f"{path.name}.schema-*"))


def drop_copies(path: Path) -> None:
    """Delete what upgrades have kept of a ledger, and what one that was killed has left; idempotent."""
    _drop(copies(path))
    _drop(_unfinished(path))


def refuse_other(path: Path, told: str | None) -> None:
    """Raise `ConfigError` unless `told`, what a ledger says, is the number of this program's schema."""
    number = _parsed(path, told)
    _refuse_newer(path, number, SCHEMA_VERSION)
    if number < SCHEMA_VERSION:
        message = (
            f"the ledger {path} has schema version {number}, and an older ingestor is at work with it;"
            f" this program needs {SCHEMA_VERSION}"
        )
        remedy = "restart that one with this version: it upgrades the ledger, and keeps a copy"
        raise ConfigError(message, remedy=remedy)


def _refuse_newer(path: Path, number: int, known: int) -> None:
    if number <= known:
        return
    message = f"the ledger {path} has schema version {number}, this program knows {known} at most"
    remedy = "run the version of ingestor that wrote it, or a newer one"
    kept = [copy for copy in copies(path) if copy.name.startswith(f"{path.name}.schema-{known}-")]
    if kept:
        copy = kept[0].name
        remedy = f"run the version of ingestor that wrote it, or put {copy} in its place, kept from before the upgrade"
    raise ConfigError(message, remedy=remedy)


def _number(path: Path, connection: sqlite3.Connection, steps: Sequence[Step]) -> int:
    found = connection.execute(_NUMBER).fetchone()
    number = _parsed(path, found[0] if found else None)
    _refuse_newer(path, number, 1 + len(steps))
    return number


def _parsed(path: Path, told: str | None) -> int:
    if told is None or not told.isdecimal() or int(told) < 1:
        raise damaged(path, f"{told!r} is no schema version")
    return int(told)


def _copied(path: Path, name: str) -> Path:
    """Copy a ledger whose writers are kept out; the copy is whole, on the disk, and for its owner alone."""
    copy = path.with_name(name)
    fresh = _unfinished(path)[0]
    _drop(_unfinished(path))
    try:
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _PRIVATE))
        with closing(_opened(path)) as source:
            source.execute("VACUUM INTO ?", [str(fresh)])
        sync_file(fresh)
        fresh.replace(copy)
        sync_folder(path.parent)
    except BaseException:
        _drop(_unfinished(path))  # it may be what has filled the disk
        raise
    return copy


def _unfinished(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in _UNFINISHED]


def _ending(steps: Sequence[Step]) -> str:
    """What the names of the copies end with that an upgrade by these steps keeps."""
    return f"-before-{1 + len(steps)}"


def _drop(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
