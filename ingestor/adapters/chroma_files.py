"""The files of a local Chroma database: how much of the disk the index of each collection takes.

Invariant: nothing is written, and a database that a server has open is read beside it as any reader may.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

DATABASE_FILE = "chroma.sqlite3"
_SEGMENTS = "SELECT collection, id FROM segments WHERE scope = 'VECTOR'"
_BUSY_SECONDS = 5.0


def index_bytes(folder: Path) -> Mapping[str, int]:
    """Bytes of the index of every collection, by Chroma's id; texts and metadata of all share one database.

    A collection without an index on the disk yet has 0. Empty where the database cannot be read, or has other tables.
    """
    database = folder / DATABASE_FILE
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", _BUSY_SECONDS, uri=True)
        ) as opened:
            segments = opened.execute(_SEGMENTS).fetchall()
    except sqlite3.Error:
        return {}
    return {collection: _size_bytes(folder / segment) for collection, segment in segments}


def _size_bytes(folder: Path) -> int:
    found = 0
    # Chroma replaces its files while it works.
    with contextlib.suppress(FileNotFoundError):
        for file in folder.iterdir():
            found += file.stat().st_size
    return found
