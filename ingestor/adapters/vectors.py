"""The vector store: vectors that were paid for, by the text that they were paid for.

Invariant: it only saves money. Nothing is wrong when it is empty, deleted or damaged: a damaged file is put aside and a
new one begun. What `put` has returned for survives a killed process.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import structlog

from ingestor.core.errors import ServiceUnavailable
from ingestor.ports import Vector

_BUSY_TIMEOUT_SECONDS = 30
_PAGE_KEYS = 10_000
"""Keys a statement names at most: SQLite takes 32,766 variables."""

_log = structlog.get_logger(__name__)


class SqliteVectors:
    """`ports.VectorStore` over a SQLite file. Use from one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise self._unusable(error) from error
            aside = path.with_name(path.name + ".damaged")
            path.replace(aside)
            _log.warning("vectors.damaged", path=str(path), moved_to=str(aside), reason=str(error))
            self._connection = self._open()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """See `ports.VectorStore.get`."""
        found: dict[bytes, Vector] = {}
        everything = list(keys)
        with self._faults_named():
            for start in range(0, len(everything), _PAGE_KEYS):
                page = everything[start : start + _PAGE_KEYS]
                marks = ",".join("?" * len(page))
                query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"  # noqa: S608 - only question marks
                for key, vector in self._connection.execute(query, page):
                    found[key] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
        return found

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """See `ports.VectorStore.put`."""
        rows = [(key, np.asarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()]
        with self._faults_named(), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors (key, vector) VALUES (?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_SECONDS, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # a lost tail after a power cut costs money, not truth
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> ServiceUnavailable:
        message = f"the vector store {self._path} cannot be used: {error}"
        remedy = "free disk space or check its permissions; the file may be deleted while ingestor is stopped"
        return ServiceUnavailable(message, remedy=remedy)
