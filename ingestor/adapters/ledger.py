"""The ledger: what Chroma holds, what is queued, what went wrong; one SQLite file.

Invariant: a method that returns is one transaction that outlives the process. What says which records Chroma holds is
on the disk by then (WAL, synchronous=FULL), with everything before it. A machine that loses its power may lose what
came after that of what was queued, leased, given back, acknowledged without a plan and counted (synchronous=NORMAL): a
comparison of the folder finds again what was queued, and what is worked on twice comes out the same.

Paths are BLOBs (`os.fsencode`), because a file name is bytes. Inode and device numbers are unsigned 64-bit numbers and
are stored as the signed number with the same bits.
"""

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import Insert, insert

from ingestor.adapters.ledger_faults import damaged, lost, unusable
from ingestor.adapters.ledger_listing import at_or_below, matching, service_of
from ingestor.adapters.ledger_schema import SCHEMA_NOTE, SCHEMA_VERSION, refuse_other
from ingestor.core.errors import DeletionHeld
from ingestor.core.listing import Listed, Listing, State, Wanted
from ingestor.core.model import Change, Entry, Glance, Plan, Priority, Problem, ServiceWait, Stage, Stat, Usage
from ingestor.core.planning import settled
from ingestor.ports import BACKFILL_SHARE, Totals

_BUSY_TIMEOUT_SECONDS = 30
_PAGE_PATHS = 10_000
"""Paths a statement names at most: SQLite takes 32,766 variables."""
_PAGE_ROWS = 1_000
"""Rows that are written at once: each takes half a kilobyte of memory until then."""
_KIN = 16
_WORD = 1 << 64
_FULL, _NORMAL = "FULL", "NORMAL"
"""`PRAGMA synchronous`: a commit waits for the disk, or for the kernel alone, which a killed process does not harm."""
PRIORITIES = {Priority.GONE: -1, Priority.LIVE: 0, Priority.BACKFILL: 1}
"""The more urgent, the less."""
_PRIORITY_OF = {number: priority for priority, number in PRIORITIES.items()}

_Form = TypeVar("_Form", bound=Sized)

_tables = sa.MetaData()

_documents = sa.Table(
    "documents",
    _tables,
    sa.Column("document_id", sa.Text, primary_key=True),
    sa.Column("path", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("ctime_ns", sa.BigInteger, nullable=False),
    sa.Column("device", sa.BigInteger, nullable=False),
    sa.Column("inode", sa.BigInteger, nullable=False, index=True),
    sa.Column("is_regular", sa.Boolean, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False, index=True),
    sa.Column("cutting", sa.Text, nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("doubtful", sa.Text, nullable=False),
    sa.Column("is_unfinished", sa.Boolean, nullable=False),
    sa.Column("problem", sa.Text),
)

_queue = sa.Table(
    "queue",
    _tables,
    sa.Column("path", sa.LargeBinary, primary_key=True),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("enqueued_seconds", sa.Float, nullable=False),
    sa.Column("not_before_seconds", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("problem", sa.Text),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("is_leased", sa.Boolean, nullable=False),
    sa.Index("queue_order", "is_leased", "priority", "enqueued_seconds"),
)

_held = sa.Table(
    "held",
    _tables,
    sa.Column("path", sa.LargeBinary, primary_key=True),
    sa.Column("is_approved", sa.Boolean, nullable=False),
)

_counters = sa.Table(
    "counters",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

_notes = sa.Table(
    "notes",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

DAY_TOKENS = "tokens of "
"""What the counter of a day's tokens is named by, before the day."""
TOMBSTONES = "tombstones"
_UNREADABLE = ("Could not decode", "malformed JSON")
"""How SQLite and its client begin when a text of a row is no text any more: an operational error, by its class."""

_GLANCE = (
    _documents.c.path,
    _documents.c.inode,
    _documents.c.size_bytes,
    _documents.c.mtime_ns,
    _documents.c.ctime_ns,
    sa.type_coerce(_documents.c.is_regular, sa.Integer),
    _documents.c.cutting,
    sa.type_coerce(_documents.c.is_unfinished, sa.Integer),
)


# Asked for every document that is read: to build a statement takes many times as long as to carry it out.
_NEAR = (
    sa.select(_documents)
    .where(
        sa.or_(
            _documents.c.path == sa.bindparam("at"),
            sa.and_(
                _documents.c.inode == sa.bindparam("inode"),
                _documents.c.size_bytes == sa.bindparam("size"),
                # An inode that is used again must not take what is held back for the file that has it now.
                sa.or_(
                    _documents.c.content_hash == sa.bindparam("content"),
                    ~sa.exists().where(_held.c.path == _documents.c.path, _held.c.is_approved.is_(False)),
                ),
            ),
        )
    )
    .limit(_KIN)
)
_ALIKE = sa.select(_documents).where(_documents.c.content_hash == sa.bindparam("content")).limit(_KIN)
_DUE = (
    sa.select(_queue)
    .where(
        _queue.c.is_leased.is_(False),
        _queue.c.priority == sa.bindparam("priority"),
        _queue.c.not_before_seconds <= sa.bindparam("now"),
    )
    .order_by(_queue.c.enqueued_seconds)
    .limit(sa.bindparam("most"))
)
_LEASED = sa.select(_queue.c.path).where(_queue.c.is_leased)
_LEASE = sa.update(_queue).where(_queue.c.path == sa.bindparam("at")).values(is_leased=True)
_GIVE_BACK = sa.update(_queue).where(_queue.c.path == sa.bindparam("at")).values(is_leased=False)

_NEW_COUNT: Insert = insert(_counters)
_COUNT = _NEW_COUNT.on_conflict_do_update(
    index_elements=[_counters.c.name], set_={"value": _counters.c.value + _NEW_COUNT.excluded.value}
)


class SqliteLedger:
    """`ports.Ledger` over a SQLite file. Use from one thread; other processes may read it at the same time.

    Raises `ConfigError` for a ledger of another schema: one that is older is to be upgraded first (`ledger_schema`).
    Every call raises `LedgerLost` when the file at its path is not the one that is open: what is written there, no
    other process and no later start would see.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        """Device and inode of the file that is open; None before it is."""
        self._engine = sa.create_engine(
            f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
        )
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        with self._reading() as connection:
            is_new = not sa.inspect(connection).has_table(_notes.name)
        if is_new:
            with self._writing() as connection:
                _tables.create_all(connection)
                _upsert_note(connection, SCHEMA_NOTE, str(SCHEMA_VERSION))
        refuse_other(path, self.note(SCHEMA_NOTE))
        self._file = self._file_now()

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def glances(self, below: str = "") -> dict[str, Glance]:
        """See `ports.Ledger.glances`."""
        query = sa.select(*_GLANCE)
        if below:
            query = query.where(at_or_below(_documents.c.path, below))
        with self._reading() as connection:
            return _glances(connection.execute(query))

    def glances_of(self, paths: Iterable[str]) -> dict[str, Glance]:
        """See `ports.Ledger.glances_of`."""
        found: dict[str, Glance] = {}
        with self._reading() as connection:
            for page in _pages(paths):
                query = sa.select(*_GLANCE).where(_documents.c.path.in_([os.fsencode(path) for path in page]))
                found.update(_glances(connection.execute(query)))
        return found

    def entries(self, paths: Iterable[str]) -> dict[str, Entry]:
        """See `ports.Ledger.entries`."""
        found: dict[str, Entry] = {}
        with self._reading() as connection:
            for page in _pages(paths):
                query = sa.select(_documents).where(_documents.c.path.in_([os.fsencode(path) for path in page]))
                for row in connection.execute(query):
                    entry = _entry(row)
                    found[entry.path] = entry
        return found

    def entries_of(self, document_ids: Iterable[str]) -> list[Entry]:
        """See `ports.Ledger.entries_of`."""
        found: list[Entry] = []
        with self._reading() as connection:
            for page in _pages(document_ids):
                rows = connection.execute(sa.select(_documents).where(_documents.c.document_id.in_(page)))
                found += map(_entry, rows)
        return found

    def some(self, offset: int, limit: int) -> list[Entry]:
        """See `ports.Ledger.some`."""
        query = sa.select(_documents).order_by(_documents.c.document_id).limit(limit).offset(offset)
        with self._reading() as connection:
            return list(map(_entry, connection.execute(query)))

    def kin(self, path: str, stat: Stat, content_hash: str) -> list[Entry]:
        """See `ports.Ledger.kin`."""
        same_file = {
            "at": os.fsencode(path),
            "inode": _signed(stat.inode),
            "size": stat.size_bytes,
            "content": content_hash,
        }
        with self._reading() as connection:
            found = [_entry(row) for row in connection.execute(_NEAR, same_file)]
            own = [entry for entry in found if entry.path == path]
            if own or not stat.size_bytes:
                return own
            return found or [_entry(row) for row in connection.execute(_ALIKE, {"content": content_hash})]

    def mark(self, entries: Sequence[Entry], dropped: int = 0, removed: Sequence[str] = ()) -> None:
        """See `ports.Ledger.mark`."""
        with self._writing() as connection:
            _begin_removal(connection, removed)
            _put_entries(connection, entries)
            if dropped:
                connection.execute(_COUNT, [{"name": TOMBSTONES, "value": dropped}])

    def tombstones(self) -> int:
        """See `ports.Ledger.tombstones`."""
        return self._counter(TOMBSTONES)

    def set_tombstones(self, count: int) -> None:
        """See `ports.Ledger.set_tombstones`."""
        with self._writing() as connection:
            connection.execute(sa.delete(_counters).where(_counters.c.name == TOMBSTONES))
            connection.execute(_COUNT, [{"name": TOMBSTONES, "value": count}])

    def amend(self, corrections: Sequence[tuple[Entry | None, Entry]]) -> list[str]:
        """See `ports.Ledger.amend`."""
        columns = _documents.c
        amended: list[Entry] = []
        with self._writing() as connection:
            for before, after in corrections:
                path = os.fsencode(after.path)
                is_this = sa.or_(columns.document_id == after.document_id, columns.path == path)
                known = [_entry(row) for row in connection.execute(sa.select(_documents).where(is_this))]
                is_in_work = sa.select(_queue).where(sa.and_(_queue.c.path == path, _queue.c.is_leased))
                if known == ([] if before is None else [before]) and connection.execute(is_in_work).first() is None:
                    amended.append(after)
            _put_entries(connection, amended)
        return [entry.path for entry in amended]

    def commit(self, plans: Sequence[Plan], changes: Sequence[Change]) -> None:
        """See `ports.Ledger.commit`."""
        with self._writing(_FULL if plans else _NORMAL) as connection:
            gone = [plan.before.document_id for plan in plans if plan.after is None and plan.before is not None]
            for page in _pages(gone):
                connection.execute(sa.delete(_documents).where(_documents.c.document_id.in_(page)))
            _put_entries(connection, [plan.after for plan in plans if plan.after is not None])
            _hold_no_more(connection, settled(plans, changes))
            if changes:
                named = [_named(change) for change in changes]
                same = sa.and_(_queue.c.path == sa.bindparam("at"), _queue.c.generation == sa.bindparam("seen"))
                connection.execute(sa.delete(_queue).where(same), named)
                connection.execute(_GIVE_BACK, [{"at": row["at"]} for row in named])

    def enqueue(self, paths: Iterable[str], change: Change) -> int:
        """See `ports.Ledger.enqueue`."""
        columns = _queue.c
        statement = insert(_queue)
        statement = statement.on_conflict_do_update(
            index_elements=[columns.path],
            set_={
                "priority": sa.func.min(columns.priority, statement.excluded.priority),
                "enqueued_seconds": sa.func.min(columns.enqueued_seconds, statement.excluded.enqueued_seconds),
                "not_before_seconds": sa.func.min(columns.not_before_seconds, statement.excluded.not_before_seconds),
                "generation": columns.generation + 1,
            },
        )
        pages = list(_pages(paths, _PAGE_ROWS))
        if not pages:
            return 0
        with self._writing(_NORMAL) as connection:
            before = _count(connection, _queue)
            for page in pages:
                connection.execute(statement, [_queue_row(path, change) for path in page])
            return _count(connection, _queue) - before

    def urge(self, paths: Iterable[str], change: Change) -> None:
        """See `ports.Ledger.urge`."""
        columns = _queue.c
        rows = [{"at": os.fsencode(path)} for path in paths]
        if not rows:
            return
        statement = (
            sa.update(_queue)
            .where(columns.path == sa.bindparam("at"))
            .values(
                priority=sa.func.min(columns.priority, PRIORITIES[change.priority]),
                not_before_seconds=sa.func.min(columns.not_before_seconds, change.not_before_seconds),
                generation=columns.generation + 1,
            )
        )
        with self._reading() as connection:
            if not _count(connection, _queue):
                return
        with self._writing(_NORMAL) as connection:
            connection.execute(statement, rows)

    def lease(
        self,
        limit: int,
        now_seconds: float,
        *,
        least: Priority = Priority.BACKFILL,
        in_work: Collection[str] | None = None,
    ) -> list[Change]:
        """See `ports.Ledger.lease`."""
        wanted = [priority for priority in Priority if PRIORITIES[priority] <= PRIORITIES[least]]
        # To look costs no lock, and mostly there is nothing.
        with self._reading() as connection:
            leased = [] if in_work is None else [row.path for row in connection.execute(_LEASED)]
            void = [{"at": path} for path in leased if os.fsdecode(path) not in (in_work or ())]
            if not void and not any(_due(connection, priority, 1, now_seconds) for priority in wanted):
                return []
        with self._writing(_NORMAL) as connection:
            if void:
                connection.execute(_GIVE_BACK, void)
            due = {priority: _due(connection, priority, limit, now_seconds) for priority in wanted}
            backfill = due.pop(Priority.BACKFILL, [])
            urgent = [row for priority in Priority for row in due.get(priority, ())]
            urgent = urgent[: limit - min(len(backfill), limit // BACKFILL_SHARE)]
            rows = [*urgent, *backfill[: limit - len(urgent)]]
            if rows:
                connection.execute(_LEASE, [{"at": row.path} for row in rows])
        return [_change(row) for row in rows]

    def release(self, changes: Sequence[Change]) -> None:
        """See `ports.Ledger.release`."""
        if not changes:
            return
        is_hinted_again = _queue.c.generation != sa.bindparam("seen", type_=sa.BigInteger)
        # A path that was hinted at again meanwhile is due as the new hint says: its file may be a different one now.
        statement = (
            sa.update(_queue)
            .where(_queue.c.path == sa.bindparam("at"))
            .values(
                is_leased=False,
                priority=sa.func.min(_queue.c.priority, sa.bindparam("as_urgent")),
                attempts=sa.case((is_hinted_again, 0), else_=sa.bindparam("tried")),
                problem=sa.bindparam("why"),
                not_before_seconds=sa.case(
                    (is_hinted_again, _queue.c.not_before_seconds), else_=sa.bindparam("not_before")
                ),
            )
        )
        rows = [
            _named(change)
            | {
                "as_urgent": PRIORITIES[change.priority],
                "tried": change.attempts,
                "why": _dump_problem(change.problem),
                "not_before": change.not_before_seconds,
            }
            for change in changes
        ]
        with self._writing(_NORMAL) as connection:
            connection.execute(statement, rows)

    def hasten(self, now_seconds: float, service: str) -> None:
        """See `ports.Ledger.hasten`."""
        at_once = sa.func.min(_queue.c.not_before_seconds, now_seconds)
        with self._writing() as connection:
            waits = sa.update(_queue).where(service_of(_queue.c.problem) == service)
            connection.execute(waits.values(not_before_seconds=at_once, problem=None))

    def release_all(self) -> None:
        """See `ports.Ledger.release_all`."""
        with self._writing() as connection:
            connection.execute(sa.update(_queue).values(is_leased=False, not_before_seconds=0.0))

    def make_due(self, now_seconds: float) -> None:
        """See `ports.Ledger.make_due`."""
        waits = _queue.c.not_before_seconds > now_seconds
        with self._writing() as connection:
            connection.execute(sa.update(_queue).where(waits).values(not_before_seconds=now_seconds))

    def dequeue(self, paths: Iterable[str]) -> None:
        """See `ports.Ledger.dequeue`."""
        with self._writing() as connection:
            for page in _pages(paths):
                is_idle = sa.and_(
                    _queue.c.path.in_([os.fsencode(path) for path in page]), _queue.c.is_leased.is_(False)
                )
                connection.execute(sa.delete(_queue).where(is_idle))

    def held(self) -> dict[str, bool]:
        """See `ports.Ledger.held`."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(_held).order_by(_held.c.path))
            return {os.fsdecode(row.path): row.is_approved for row in rows}

    def hold(self, paths: Iterable[str]) -> None:
        """See `ports.Ledger.hold`."""
        encoded = [os.fsencode(path) for path in paths]
        if not encoded:
            return
        statement = insert(_held).on_conflict_do_nothing(index_elements=[_held.c.path])
        is_idle = sa.and_(_queue.c.path == sa.bindparam("at"), _queue.c.is_leased.is_(False))
        with self._writing() as connection:
            connection.execute(statement, [{"path": path, "is_approved": False} for path in encoded])
            # What was queued for another reason, such as an edit, would find its file gone.
            connection.execute(sa.delete(_queue).where(is_idle), [{"at": path} for path in encoded])

    def hold_no_more(self, paths: Iterable[str]) -> None:
        """See `ports.Ledger.hold_no_more`."""
        with self._writing() as connection:
            _hold_no_more(connection, paths)

    def approve(self, paths: Iterable[str]) -> int:
        """See `ports.Ledger.approve`."""
        approved = 0
        with self._writing() as connection:
            for page in _pages(paths):
                statement = sa.update(_held).where(_waits_at(page)).values(is_approved=True)
                approved += connection.execute(statement).rowcount
        return approved

    def next_due_seconds(self, *, least: Priority = Priority.BACKFILL) -> float | None:
        """See `ports.Ledger.next_due_seconds`."""
        is_wanted = sa.and_(_queue.c.is_leased.is_(False), _queue.c.priority <= PRIORITIES[least])
        query = sa.select(sa.func.min(_queue.c.not_before_seconds)).where(is_wanted)
        with self._reading() as connection:
            found: float | None = connection.execute(query).scalar()
        return found

    def waiting(self) -> dict[str, Problem | None]:
        """See `ports.Ledger.waiting`."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(_queue.c.path, _queue.c.problem))
            return {os.fsdecode(row.path): _load_problem(row.problem) for row in rows}

    def problems(self) -> list[tuple[str, Problem]]:
        """See `ports.Ledger.problems`."""
        with self._reading() as connection:
            found = {
                os.fsdecode(row.path): problem
                for table in (_documents, _queue)
                for row in connection.execute(
                    sa.select(table.c.path, table.c.problem).where(service_of(table.c.problem) == "")
                )
                if (problem := _load_problem(row.problem)) is not None
            }
        return sorted(found.items())

    def listing(self, wanted: Wanted, is_of_type: Callable[[str], bool], limit: int, offset: int) -> Listing:
        """Some of the documents and queued files that are wanted, by path; for people, beside whoever works."""
        with self._reading() as connection:
            found = matching(connection, _documents, _queue, wanted, is_of_type)
            total = connection.execute(sa.select(sa.func.count()).select_from(found)).scalar_one()
            page = sa.select(found).order_by(found.c.path).limit(limit).offset(offset)
            return Listing(total, [_listed(row) for row in connection.execute(page)])

    def totals(self) -> Totals:
        """See `ports.Ledger.totals`."""
        with self._reading() as connection:
            is_sound = _documents.c.problem.is_(None)
            chunks = connection.execute(sa.select(sa.func.coalesce(sa.func.sum(_documents.c.chunks), 0))).scalar_one()
            counters = {row.name: row.value for row in connection.execute(sa.select(_counters))}
            return Totals(
                documents=_count(connection, _documents, is_sound),
                chunks=chunks,
                queued=_count(connection, _queue, _queue.c.is_leased.is_(False)),
                in_flight=_count(connection, _queue, _queue.c.is_leased.is_(True)),
                problems=_count(connection, _documents, sa.not_(is_sound)),
                retrying=_count(connection, _queue, service_of(_queue.c.problem) == ""),
                usage=Usage(**{name: counters.get(name, 0) for name in asdict(Usage())}),
                waits=_waits(connection),
            )

    def rewrite(self, change: Callable[[Entry], Entry]) -> None:
        """See `ports.Ledger.rewrite`."""
        with self._writing() as connection:
            _put_entries(connection, [change(_entry(row)) for row in connection.execute(sa.select(_documents))])

    def rewrite_file(self) -> None:
        """Rewrite the file so that nothing is left in it of rows that were deleted; nobody else may have it open."""
        with self._faults_named(), self._engine.connect() as connection:
            plain = connection.connection.driver_connection
            if plain is not None:
                plain.execute("VACUUM")
                plain.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def add_usage(self, usage: Usage, day: str) -> None:
        """See `ports.Ledger.add_usage`."""
        counted = {**asdict(usage), DAY_TOKENS + day: usage.tokens}
        with self._writing(_NORMAL) as connection:
            connection.execute(_COUNT, [{"name": name, "value": value} for name, value in counted.items()])

    def tokens_on(self, day: str) -> int:
        """See `ports.Ledger.tokens_on`."""
        return self._counter(DAY_TOKENS + day)

    def note(self, name: str) -> str | None:
        """See `ports.Ledger.note`."""
        with self._reading() as connection:
            return _note(connection, name)

    def set_note(self, name: str, value: str) -> None:
        """See `ports.Ledger.set_note`."""
        with self._writing() as connection:
            _upsert_note(connection, name, value)

    def _counter(self, name: str) -> int:
        query = sa.select(_counters.c.value).where(_counters.c.name == name)
        with self._reading() as connection:
            found: int = connection.execute(query).scalar() or 0
        return found

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._faults_named(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self, synchronous: str = _FULL) -> Iterator[sa.Connection]:
        # BEGIN IMMEDIATE: a transaction that reads first and writes then could not wait for another process's lock.
        with self._faults_named(), self._engine.connect() as plain:
            connection = plain.execution_options(ingestor_writes=True, ingestor_synchronous=synchronous)
            with connection.begin():
                yield connection

    def _file_now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(self._path, error) from error
        return status.st_dev, status.st_ino

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        if self._file is not None and self._file_now() != self._file:
            raise lost(self._path)
        try:
            yield
        except sa.exc.OperationalError as error:
            if str(error.orig).startswith(_UNREADABLE):
                raise damaged(self._path, error.orig) from error
            raise unusable(self._path, error.orig) from error
        except sa.exc.DatabaseError as error:
            if isinstance(error.orig, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise damaged(self._path, error.orig) from error
        except _Unreadable as error:
            raise damaged(self._path, error) from error


def note_in(file: Path, name: str) -> str | None:
    """A note in a file that may be a ledger, which is not changed; None when it has none, or is none."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    except sqlite3.Error:
        return None
    return str(found[0]) if found else None


class _Unreadable(Exception):
    """A row that holds something else than what was written: SQLite does not notice damage inside a value."""


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin` alone
    connection.execute("PRAGMA journal_mode=WAL")


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("ingestor_writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    # Said for every transaction anew, and before it: within one it cannot be changed.
    connection.exec_driver_sql(f"PRAGMA synchronous={options['ingestor_synchronous']}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _pages(values: Iterable[str], size: int = _PAGE_PATHS) -> Iterator[list[str]]:
    everything = list(values)
    for start in range(0, len(everything), size):
        yield everything[start : start + size]


def _count(connection: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()


def _due(connection: sa.Connection, priority: Priority, limit: int, now_seconds: float) -> list[sa.Row[Any]]:
    wanted = {"priority": PRIORITIES[priority], "now": now_seconds, "most": limit}
    return list(connection.execute(_DUE, wanted))


def _waits(connection: sa.Connection) -> tuple[ServiceWait, ...]:
    service = service_of(_queue.c.problem)
    since, next_try = (
        sa.func.coalesce(sa.func.min(sa.func.json_extract(_queue.c.problem, f"$.{name}")), 0.0)
        for name in ("since_seconds", "next_try_seconds")
    )
    query = sa.select(service, sa.func.count(), since, next_try).where(service != "").group_by(service)
    return tuple(_wait(connection, row) for row in connection.execute(query.order_by(service)))


def _wait(connection: sa.Connection, row: Sequence[Any]) -> ServiceWait:
    service, documents, since_seconds, next_try_seconds = row
    latest = (
        sa.select(_queue.c.problem)
        .where(service_of(_queue.c.problem) == service)
        .order_by(sa.func.json_extract(_queue.c.problem, "$.next_try_seconds").desc())
        .limit(1)
    )
    problem = _load_problem(connection.execute(latest).scalar_one())
    reason, remedy = (problem.reason, problem.remedy) if problem else ("", "")
    return ServiceWait(service, documents, reason, remedy, since_seconds, next_try_seconds)


def _note(connection: sa.Connection, name: str) -> str | None:
    found: str | None = connection.execute(sa.select(_notes.c.value).where(_notes.c.name == name)).scalar()
    return found


def _upsert_note(connection: sa.Connection, name: str, value: str) -> None:
    statement = insert(_notes).values(name=name, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=[_notes.c.name], set_={"value": value}))


def _put_entries(connection: sa.Connection, entries: Sequence[Entry]) -> None:
    if not entries:
        return
    statement = insert(_documents)
    replaced = {column.name: column for column in statement.excluded if column.name != "document_id"}
    connection.execute(
        statement.on_conflict_do_update(index_elements=[_documents.c.document_id], set_=replaced),
        [_document_row(entry) for entry in entries],
    )


def _begin_removal(connection: sa.Connection, paths: Sequence[str]) -> None:
    """Let deletions begin, unless they are held back; what has begun is held back no more."""
    for page in _pages(paths):
        refused = connection.execute(sa.select(_held.c.path).where(_waits_at(page)).limit(1)).scalar()
        if refused is not None:
            raise DeletionHeld(f"the deletion of {os.fsdecode(refused)} is held back", remedy="run `ingestor approve`")
        statement = insert(_held).on_conflict_do_nothing(index_elements=[_held.c.path])
        connection.execute(statement, [{"path": os.fsencode(path), "is_approved": True} for path in page])


def _waits_at(paths: Iterable[str]) -> sa.ColumnElement[bool]:
    """Whether the deletion of one of some paths waits for approval."""
    return sa.and_(_held.c.path.in_([os.fsencode(path) for path in paths]), _held.c.is_approved.is_(False))


def _hold_no_more(connection: sa.Connection, paths: Iterable[str]) -> None:
    for page in _pages(paths):
        connection.execute(sa.delete(_held).where(_held.c.path.in_([os.fsencode(path) for path in page])))


def _signed(number: int) -> int:
    return (number + _WORD // 2) % _WORD - _WORD // 2


def _document_row(entry: Entry) -> dict[str, Any]:
    stat = entry.stat
    return {
        "document_id": entry.document_id,
        "path": os.fsencode(entry.path),
        "size_bytes": stat.size_bytes,
        "mtime_ns": stat.mtime_ns,
        "ctime_ns": stat.ctime_ns,
        "device": _signed(stat.device),
        "inode": _signed(stat.inode),
        "is_regular": stat.is_regular,
        "content_hash": entry.content_hash,
        "cutting": entry.cutting,
        "chunks": len(entry.tags),
        "tags": json.dumps(dict(entry.tags), separators=(",", ":")),
        "doubtful": json.dumps(sorted(entry.doubtful), separators=(",", ":")),
        "is_unfinished": entry.is_unfinished,
        "problem": _dump_problem(entry.problem),
    }


def _glances(rows: Iterable[Sequence[Any]]) -> dict[str, Glance]:
    # Nothing is called for a row that need not be: a comparison of everything reads a hundred thousand of them.
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    return {
        path.decode(encoding, errors): ((inode % _WORD, size, mtime, ctime, regular == 1), cutting, unfinished == 1)
        for path, inode, size, mtime, ctime, regular, cutting, unfinished in rows
    }


def _entry(row: sa.Row[Any]) -> Entry:
    tags, doubtful = _load(row.tags, dict), _load(row.doubtful, list)
    return Entry(
        path=os.fsdecode(row.path),
        document_id=row.document_id,
        stat=Stat(row.size_bytes, row.mtime_ns, row.ctime_ns, row.device % _WORD, row.inode % _WORD, row.is_regular),
        content_hash=row.content_hash,
        cutting=row.cutting,
        tags=tags,
        doubtful=frozenset(doubtful),
        problem=_load_problem(row.problem),
    )


def _listed(row: sa.Row[Any]) -> Listed:
    problem = _load_problem(row.problem)
    service = problem.service if problem else ""
    problem = None if service else problem
    sound = State.QUEUED if row.is_queued else State.INDEXED
    return Listed(
        path=os.fsdecode(row.path),
        document_id=row.document_id,
        chunks=row.chunks,
        size_bytes=row.size_bytes,
        modified_seconds=None if row.mtime_ns is None else row.mtime_ns / 1e9,
        state=sound if problem is None else State.PROBLEM,
        problem=problem,
        waits_for=service,
    )


def _queue_row(path: str, change: Change) -> dict[str, Any]:
    return {
        "path": os.fsencode(path),
        "priority": PRIORITIES[change.priority],
        "enqueued_seconds": change.enqueued_seconds,
        "not_before_seconds": change.not_before_seconds,
        "attempts": change.attempts,
        "problem": _dump_problem(change.problem),
        "generation": change.generation,
        "is_leased": False,
    }


def _change(row: sa.Row[Any]) -> Change:
    return Change(
        path=os.fsdecode(row.path),
        priority=_PRIORITY_OF[row.priority],
        enqueued_seconds=row.enqueued_seconds,
        not_before_seconds=row.not_before_seconds,
        attempts=row.attempts,
        problem=_load_problem(row.problem),
        generation=row.generation,
    )


def _named(change: Change) -> dict[str, Any]:
    return {"at": os.fsencode(change.path), "seen": change.generation}


def _dump_problem(problem: Problem | None) -> str | None:
    return None if problem is None else json.dumps(asdict(problem))


def _load_problem(text: str | None) -> Problem | None:
    if text is None:
        return None
    fields = _load(text, dict)
    try:
        return Problem(**{**fields, "stage": Stage(fields["stage"])})
    except (KeyError, TypeError, ValueError) as error:
        raise _Unreadable(f"a problem of {sorted(fields)}") from error


def _load(text: str, form: type[_Form]) -> _Form:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _Unreadable(f"{text[:40]!r} is no JSON") from error
    if not isinstance(found, form):
        raise _Unreadable(f"{text[:40]!r} is JSON of another type than {form.__name__}")
    return found
