"""Chroma's folder on the disk: what of it is in use, and getting rid of the rest.

Chroma keeps what was deleted: the graph of a collection never lets go of a record, a deleted collection leaves the
folder of its graph behind, its lists (`embedding_metadata_array`) stay and turn up again in records made later, and
freed pages of the database keep their bytes. Its own `chroma vacuum` sees to the last of these only.

Invariant: a folder is removed only when it is named as Chroma names them, the database knows no such segment, and
nothing but an index lies in it; a row only when what it belongs to is gone. `cleaned` is called by whoever holds the
lock of the folder, while nobody has the database open; `remove_orphans` may have others beside it; the rest only looks.
"""

import os
import re
import shutil
import sqlite3
import struct
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from ingestor.adapters.folder_lock import DATABASE_FILE
from ingestor.core.errors import ServiceUnavailable

_SEGMENT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INDEX_SUFFIXES = frozenset({".bin", ".pickle"})
_HEADER_FILE = "header.bin"
_HEADER = struct.Struct("<iQQQQ")
"""Version, offset, room, elements, bytes of each: how hnswlib begins the header of a graph that it keeps."""
_LENGTH_BYTES = 4
_TIMEOUT_SECONDS = 10.0
_GRAPHS = "SELECT id FROM segments WHERE scope = 'VECTOR' AND collection IN (SELECT id FROM collections WHERE name = ?)"
_ORPHANS = (
    "DELETE FROM embeddings_queue WHERE substr(topic, -36) NOT IN (SELECT id FROM collections)",
    "DELETE FROM embeddings WHERE segment_id NOT IN (SELECT id FROM segments)",
    "DELETE FROM embedding_metadata WHERE id NOT IN (SELECT id FROM embeddings)",
    "DELETE FROM embedding_metadata_array WHERE id NOT IN (SELECT id FROM embeddings)",
    "DELETE FROM embedding_fulltext_search WHERE rowid NOT IN (SELECT id FROM embeddings)",
    "DELETE FROM max_seq_id WHERE segment_id NOT IN (SELECT id FROM segments)",
    "DELETE FROM segment_metadata WHERE segment_id NOT IN (SELECT id FROM segments)",
    "DELETE FROM collection_metadata WHERE collection_id NOT IN (SELECT id FROM collections)",
)
"""In this order: each finds what those before it have made an orphan. A topic ends with the id of its collection."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was found to belong to nothing, and is gone."""

    folders: int
    rows: int


def size_bytes(folder: Path) -> int:
    """Size of all files at or below a folder; one that vanishes meanwhile counts nothing."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found += Path(place, name).lstat().st_size
            except FileNotFoundError:
                continue
    return found


def index_elements(folder: Path, name: str) -> int | None:
    """How many records the graph of a collection holds, deleted ones included, as it was last written to the disk.

    None where that cannot be told: there is no database, or no such collection in it, or no graph yet.
    """
    for place in _graphs(folder, name):
        with suppress(OSError, struct.error):  # not written yet, or written just now: it cannot be told
            return _header(place)[0]
    return None


def remove_orphans(folder: Path) -> int:
    """Remove the folders of graphs that the database does not know any more; returns how many.

    The database may be open elsewhere: Chroma makes the folder of a graph after its segment, and it is in this order
    that both are looked at. Nothing is removed when the database cannot be asked.
    """
    places = [place for place in folder.glob("*") if _is_graph(place)]
    try:
        with closing(_looked_at(folder)) as connection:
            known = _segments(connection)
    except sqlite3.Error:
        return 0
    gone = [place for place in places if place.name not in known]
    for place in gone:
        shutil.rmtree(place)
    return len(gone)


def cleaned(folder: Path) -> Cleaned:
    """Get rid of all that belongs to nothing any more, in rows and folders, and of the bytes of what was deleted.

    A death on the way leaves a sound database; running it again completes. Raises `ServiceUnavailable` when the
    database cannot be changed, because its disk is full for one: nothing is lost then.
    """
    file = folder / DATABASE_FILE
    if not file.is_file():
        return Cleaned(0, 0)
    try:
        with closing(sqlite3.connect(file, timeout=_TIMEOUT_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            rows = sum(connection.execute(statement).rowcount for statement in _ORPHANS)
            connection.execute("INSERT INTO embedding_fulltext_search(embedding_fulltext_search) VALUES ('optimize')")
            connection.execute("COMMIT")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            known = _segments(connection)
    except sqlite3.Error as error:
        raise ServiceUnavailable(
            f"the Chroma database {file} cannot be cleaned: {error}",
            remedy="free disk space (as much as the database takes), then run the command again; nothing is lost",
        ) from error
    gone = [place for place in folder.iterdir() if place.name not in known and _is_graph(place)]
    for place in gone:
        shutil.rmtree(place)
    for segment in known:
        _blank_room(folder / segment)
    return Cleaned(len(gone), rows)


def _blank_room(place: Path) -> None:
    """Overwrite the room for records to come: a graph is written with whatever lay in the memory that it took.

    A graph overwrites it by itself before it is used.
    """
    try:
        elements, element_bytes = _header(place)
    except (OSError, struct.error):
        return  # not written yet
    for name, used_bytes in (("data_level0.bin", elements * element_bytes), ("length.bin", elements * _LENGTH_BYTES)):
        with suppress(FileNotFoundError), (place / name).open("r+b") as file:
            room_bytes = file.seek(0, os.SEEK_END) - used_bytes
            file.seek(used_bytes)
            file.write(bytes(max(0, room_bytes)))


def _header(place: Path) -> tuple[int, int]:
    """How many records a graph holds, deleted ones included, and the bytes of each."""
    _, _, _, elements, element_bytes = _HEADER.unpack_from((place / _HEADER_FILE).read_bytes())
    return elements, element_bytes


def _is_graph(place: Path) -> bool:
    """Whether a folder is named as those of graphs are, and holds nothing else."""
    if not _SEGMENT.fullmatch(place.name) or place.is_symlink() or not place.is_dir():
        return False
    return all(inner.is_file() and inner.suffix in _INDEX_SUFFIXES for inner in place.iterdir())


def _graphs(folder: Path, name: str) -> list[Path]:
    """Where a collection has its graph; nothing when the database cannot be asked."""
    try:
        with closing(_looked_at(folder)) as connection:
            return [folder / found for (found,) in connection.execute(_GRAPHS, (name,))]
    except sqlite3.Error:
        return []


def _segments(connection: sqlite3.Connection) -> set[str]:
    return {found for (found,) in connection.execute("SELECT id FROM segments")}


def _looked_at(folder: Path) -> sqlite3.Connection:
    """Read-only, so that nothing is done to a database that another process has open."""
    address = f"{(folder / DATABASE_FILE).absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, timeout=_TIMEOUT_SECONDS)
