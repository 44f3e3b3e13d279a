"""The journal of Chroma's own database: SQLite's write-ahead log, which makes writing a third faster.

Chroma commits each call twice and syncs each commit; a write-ahead log makes a commit one append and one sync, where
the rollback journal takes several writes and syncs. Chroma leaves SQLite's `synchronous` at FULL, so that what it has
acknowledged survives the loss of power as before: https://www.sqlite.org/pragma.html#pragma_synchronous

Invariant: the journal is changed while nobody has the database open. Changed under a live connection pool of Chroma's,
it makes the next write fail with "file is not a database".
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import structlog

from ingestor.adapters.folder_lock import DATABASE_FILE

_VERSIONS = slice(18, 20)
"""File format write and read version in the header: https://www.sqlite.org/fileformat.html#file_format_version_numbers"""
_WRITE_AHEAD = b"\x02\x02"
_TIMEOUT_SECONDS = 1.0

_log = structlog.get_logger(__name__)


def write_ahead(folder: Path) -> bool:
    """Give the database in `folder` a write-ahead log; it is made, empty, when it is missing. Whether it has one now.

    The caller holds the lock of the folder. A file system or a database that allows no change is told in the log and
    left as it is: writing is slower then, and no less safe.
    """
    file = folder / DATABASE_FILE
    if has_write_ahead(file):
        return True
    try:
        with closing(sqlite3.connect(file, timeout=_TIMEOUT_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        _log.warning("chroma.journal_kept", reason=str(error), path=str(file))
        return False
    return has_write_ahead(file)


def has_write_ahead(file: Path) -> bool:
    """Whether a database says of itself that it has a write-ahead log."""
    try:
        with file.open("rb") as opened:
            return opened.read(_VERSIONS.stop)[_VERSIONS] == _WRITE_AHEAD
    except OSError:
        return False  # whoever opens the database tells why it cannot be read
