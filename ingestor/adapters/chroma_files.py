"""The files of a local Chroma database: what they tell of a collection, and how much of the disk its index takes.

Invariant: nothing is written, and a database that a server has open is read beside it as any reader may.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import Scalar

DATABASE_FILE = "chroma.sqlite3"
_SEGMENTS = "SELECT collection, id FROM segments WHERE scope = 'VECTOR'"
_COLLECTION = "SELECT id, dimension, config_json_str, schema_str FROM collections WHERE name = ?"
_METADATA = "SELECT key, str_value, int_value, float_value, bool_value FROM collection_metadata WHERE collection_id = ?"
_RECORDS = (
    "SELECT count(*) FROM embeddings WHERE segment_id IN"
    " (SELECT id FROM segments WHERE scope = 'METADATA' AND collection = ?)"
)
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A collection as the database tells of it."""

    id: str
    metadata: Mapping[str, Scalar]
    dimensions: int
    """0 until there is a vector."""
    space: str
    """The distance; empty where it cannot be told."""
    records: int


def stored_collection(folder: Path, name: str) -> Stored | None:
    """The collection of this name in the default database; None when there is none, or no database.

    Raises `ServiceUnavailable` when the database cannot be read, or has other tables.
    """
    if not (folder / DATABASE_FILE).is_file():
        return None
    try:
        with _opened(folder) as opened:
            row = opened.execute(_COLLECTION, [name]).fetchone()
            if row is None:
                return None
            identity, dimensions, *configurations = row
            metadata = {
                key: next((value for value in values if value is not None), "")
                for key, *values in opened.execute(_METADATA, [identity])
            }
            (records,) = opened.execute(_RECORDS, [identity]).fetchone()
    except sqlite3.Error as error:
        message = f"the Chroma database {folder / DATABASE_FILE} cannot be read: {error}"
        raise ServiceUnavailable(message, remedy="see whether its disk is well, and who else has it open") from error
    space = next(filter(None, (_space(json.loads(told or "{}")) for told in configurations)), "")
    return Stored(identity, metadata, dimensions or 0, space, records)


def _space(configuration: Mapping[str, Any]) -> str:
    """The distance in a configuration, of a collection or of what is in its schema the column of vectors."""
    index = configuration.get("hnsw") or {}
    for key in ("keys", "#embedding", "float_list", "vector_index", "config"):
        configuration = configuration.get(key) or {}
    return str(index.get("space") or configuration.get("space") or "")


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    database = folder / DATABASE_FILE
    # A reader of a database without its log would make one, and could not take it away again.
    is_whole = not database.with_name(f"{DATABASE_FILE}-wal").exists()
    uri = f"{database.absolute().as_uri()}?mode=ro{'&immutable=1' if is_whole else ''}"
    with contextlib.closing(sqlite3.connect(uri, _BUSY_SECONDS, uri=True)) as opened:
        yield opened


def index_bytes(folder: Path) -> Mapping[str, int]:
    """Bytes of the index of every collection, by Chroma's id; texts and metadata of all share one database.

    A collection without an index on the disk yet has 0. Empty where the database cannot be read, or has other tables.
    """
    try:
        with _opened(folder) as opened:
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
