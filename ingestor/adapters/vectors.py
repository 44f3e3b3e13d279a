"""The vector store: vectors that were paid for, by the text that they were paid for.

Invariant: it only saves money. Nothing is wrong when it is empty, deleted or damaged, be it while it is open: a damaged
file is put aside and a new one begun, and a vector that is not what was put is not there. Above its size, the vectors
that were not used for longest go. What `put` has returned for survives a killed process, unless the file cannot be
written: then it is kept in memory until it can, and until then `see_room` says so, so that nobody pays for more; what
is held in memory is bounded by the calls that were on their way.
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog

from ingestor.adapters.disk_room import see_room
from ingestor.core.errors import ServiceUnavailable
from ingestor.ports import Vector

_ROW_BYTES = 512
"""What a vector takes besides its numbers: key, checksum, indexes."""
_WRITTEN = 3
"""Times that a row is on the disk at most: in the write-ahead log, in the file, and in what its pages leave empty."""
_BUSY_TIMEOUT_SECONDS = 30
_PAGE_KEYS = 10_000
"""Keys a statement names at most: SQLite takes 32,766 variables."""
DEFAULT_MAX_BYTES = 1024**3
_EVICTED_ROWS = 16
"""Vectors that go at once."""
_ROOM = 16
"""One part in so many of the whole is made free when it is full, so that not every `put` has to make room."""
_MAX_USES = 100_000
"""Uses remembered until the file is written; of more, the older ones are forgotten."""
_PUT = "INSERT OR REPLACE INTO vectors (key, vector, checksum) VALUES (?, ?, ?)"
_USE = "INSERT INTO uses (key, turn) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET turn = excluded.turn"

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class SqliteVectors:
    """`ports.VectorStore` over a SQLite file. Use from one thread."""

    def __init__(self, path: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._used: dict[bytes, None] = {}
        """Keys that were asked for and found since the file was last written, the latest last."""
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        """Device and inode of the open file: another one may lie at the path by now, or none."""
        self._unkept: dict[bytes, Vector] = {}
        self._with_file(lambda connection: self._write(connection, ()))

    def close(self) -> None:
        """Let go of the file."""
        if self._used or self._unkept:
            try:
                self._with_file(lambda connection: self._write(connection, self._rows()))
            except ServiceUnavailable as error:
                _log.warning("vectors.not_kept", waiting=len(self._unkept), reason=str(error), remedy=error.remedy)
        self._let_go()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """See `ports.VectorStore.get`."""
        wanted = list(dict.fromkeys(keys))
        found = self._with_file(lambda connection: _read(connection, wanted))
        for key in found:
            self._used.pop(key, None)
            self._used[key] = None
        for key in list(islice(self._used, max(0, len(self._used) - _MAX_USES))):
            del self._used[key]
        found.update({key: self._unkept[key] for key in wanted if key in self._unkept})
        return found

    def see_room(self, vectors: int, dimensions: int) -> None:
        """See `ports.VectorStore.see_room`."""
        see_room(self._path, vectors * (4 * dimensions + _ROW_BYTES) * _WRITTEN)
        self._keep()

    def known(self, keys: Iterable[bytes]) -> set[bytes]:
        """Which of the keys are there; this is no use of them."""
        wanted = list(dict.fromkeys(keys))
        return self._with_file(lambda connection: set(_read(connection, wanted)))

    def forget(self, keys: Iterable[bytes]) -> int:
        """Delete vectors, and rewrite the file so that nothing of them is left in it; returns how many there were."""
        named = [(key,) for key in keys]

        def delete(connection: sqlite3.Connection) -> int:
            with connection:
                gone = connection.executemany("DELETE FROM vectors WHERE key = ?", named).rowcount if named else 0
                connection.executemany("DELETE FROM uses WHERE key = ?", named)
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return gone

        return self._with_file(delete)

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """See `ports.VectorStore.put`."""
        self._unkept.update(vectors)
        try:
            self._keep()
        except ServiceUnavailable as error:
            # They were paid for: they are handed on all the same, and not lost as long as this process lives.
            _log.warning("vectors.not_kept", waiting=len(self._unkept), reason=str(error), remedy=error.remedy)

    def _keep(self) -> None:
        if self._unkept:
            self._with_file(lambda connection: self._write(connection, self._rows()))
            self._unkept.clear()

    def _rows(self) -> list[tuple[bytes, bytes, int]]:
        rows = []
        for key, vector in self._unkept.items():
            raw = np.asarray(vector, dtype="<f4").tobytes()
            rows.append((key, raw, _checksum(key, raw)))
        return rows

    def _write(self, connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes, int]]) -> None:
        used = [*self._used, *(key for key, _, _ in rows)]
        with connection:
            if used:
                (turn,) = connection.execute("SELECT coalesce(max(turn), 0) FROM uses").fetchone()
                connection.executemany(_USE, [(key, turn + place) for place, key in enumerate(used, 1)])
                connection.executemany(_PUT, rows)
            gone = self._make_room(connection) if _live_bytes(connection) > self._max_bytes else 0
        self._used.clear()
        if gone:
            # As a script: by itself, Python carries out the first step of it only, which frees one page.
            connection.executescript("PRAGMA incremental_vacuum")
            _log.info("vectors.made_room", gone=gone, max_bytes=self._max_bytes)

    def _make_room(self, connection: sqlite3.Connection) -> int:
        """Let the vectors go that were not used for longest; returns how many."""
        gone = 0
        while _live_bytes(connection) > self._max_bytes - self._max_bytes // _ROOM:
            keys = connection.execute("SELECT key FROM uses ORDER BY turn LIMIT ?", (_EVICTED_ROWS,)).fetchall()
            if not keys:
                break
            connection.executemany("DELETE FROM vectors WHERE key = ?", keys)
            connection.executemany("DELETE FROM uses WHERE key = ?", keys)
            gone += len(keys)
        return gone

    def _with_file(self, call: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run a call on the file that lies at the path, whatever has become of the one that was there."""
        try:
            try:
                return call(self._connected())
            except sqlite3.DatabaseError as error:
                # The classes below it stand for what may pass: a lock, a full disk, permissions.
                if type(error) is not sqlite3.DatabaseError:
                    raise
                self._put_aside(error)
                return call(self._connected())
        except (sqlite3.DatabaseError, OSError) as error:
            message = f"the vector store {self._path} cannot be used: {error}"
            remedy = "free disk space or check its permissions; the file may be deleted at any time"
            raise ServiceUnavailable(message, remedy=remedy) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity != _identity(self._path):
            _log.warning("vectors.gone", path=str(self._path), reason="the file was deleted or replaced; begun anew")
            self._let_go()
        if self._connection is None:
            if not self._path.exists():
                # Left by another file of that name; SQLite would share the index with who still has that one open.
                for companion in _companions(self._path):
                    companion.unlink(missing_ok=True)
            self._connection = _open(self._path)
            self._identity = _identity(self._path)
        return self._connection

    def _put_aside(self, error: sqlite3.Error) -> None:
        self._let_go()
        aside = self._path.with_name(self._path.name + ".damaged")
        for file, away in zip((self._path, *_companions(self._path)), (aside, *_companions(aside)), strict=True):
            if file.exists():
                file.replace(away)
        _log.warning("vectors.damaged", path=str(self._path), moved_to=str(aside), reason=str(error))


def _open(path: Path) -> sqlite3.Connection:
    is_new = not path.exists()
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_SECONDS, check_same_thread=False)
    connection.text_factory = bytes  # in a damaged row anything may turn up, and is told by its checksum
    try:
        if is_new:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # can be chosen only while nothing is in it
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # a lost tail after a power cut costs money, not truth
        connection.execute(
            "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER)"
        )
        if "checksum" not in {name.decode() for _, name, *_ in connection.execute("PRAGMA table_info(vectors)")}:
            connection.execute("ALTER TABLE vectors ADD COLUMN checksum INTEGER")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'uses'").fetchone():
            with connection:
                # Apart from the vectors: to write down a use must not write the vector again.
                connection.execute("CREATE TABLE uses (key BLOB PRIMARY KEY, turn INTEGER) WITHOUT ROWID")
                connection.execute("CREATE INDEX uses_by_turn ON uses (turn)")
                connection.execute("INSERT INTO uses SELECT key, 0 FROM vectors")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _read(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Vector]:
    found: dict[bytes, Vector] = {}
    for start in range(0, len(keys), _PAGE_KEYS):
        page = keys[start : start + _PAGE_KEYS]
        marks = ",".join("?" * len(page))
        query = f"SELECT key, vector, checksum FROM vectors WHERE key IN ({marks})"  # noqa: S608 - only question marks
        for key, raw, checksum in connection.execute(query, page):
            # SQLite does not notice when a part of a value is not what was written: a query would find nonsense.
            if isinstance(raw, bytes) and checksum in {None, _checksum(key, raw)}:
                found[key] = np.frombuffer(raw, dtype="<f4").astype(np.float32)
            else:
                _log.warning("vectors.vector_damaged", key=key.hex())
    return found


def _live_bytes(connection: sqlite3.Connection) -> int:
    """Size of what the file holds, without pages that are free."""
    (pages,), (free,), (page_bytes,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_bytes)


def _checksum(key: bytes, raw: bytes) -> int:
    return zlib.crc32(raw, zlib.crc32(key))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _companions(path: Path) -> tuple[Path, Path]:
    """Write-ahead log and its index."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
