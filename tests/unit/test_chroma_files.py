"""What the files of a Chroma database tell, without a file more or less for having been asked."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ingestor.adapters.chroma_files import DATABASE_FILE, Stored, index_bytes, stored_collection
from ingestor.core.errors import ServiceUnavailable

SCHEMA = {"keys": {"#embedding": {"float_list": {"vector_index": {"config": {"space": "ip"}}}}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A database with the tables of Chroma that are looked at, in the journal that ours have."""
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)) as made:
        made.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE collections (id, name, dimension, config_json_str, schema_str);"
            "CREATE TABLE collection_metadata (collection_id, key, str_value, int_value, float_value, bool_value);"
            "CREATE TABLE segments (id, scope, collection);"
            "CREATE TABLE embeddings (id, segment_id);"
            "INSERT INTO segments VALUES ('m', 'METADATA', 'one'), ('v', 'VECTOR', 'one'), ('o', 'METADATA', 'two');"
            "INSERT INTO embeddings VALUES (1, 'm'), (2, 'm'), (3, 'o');"
            "INSERT INTO collection_metadata VALUES ('one', 'model', 'e5', NULL, NULL, NULL);"
            "INSERT INTO collection_metadata VALUES ('one', 'size', NULL, 384, NULL, NULL);"
        )
        made.execute("INSERT INTO collections VALUES ('one', 'notes', 384, '{}', ?)", [json.dumps(SCHEMA)])
        made.execute("INSERT INTO collections VALUES ('two', 'old', NULL, '{\"hnsw\": {\"space\": \"l2\"}}', NULL)")
    return tmp_path


def test_a_collection_is_told_and_no_file_is_made(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert stored_collection(folder, "notes") == Stored("one", {"model": "e5", "size": 384}, 384, "ip", 2)
    assert stored_collection(folder, "old") == Stored("two", {}, 0, "l2", 1)
    assert stored_collection(folder, "none") is None
    assert index_bytes(folder) == {"one": 0}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_in_the_log_of_a_database_that_somebody_has_open_is_told(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE_FILE, isolation_level=None)) as writing:
        writing.execute("INSERT INTO embeddings VALUES (4, 'm')")
        found = stored_collection(folder, "notes")
    assert found is not None
    assert found.records == 3


def test_no_database_and_one_that_is_none(tmp_path: Path) -> None:
    assert stored_collection(tmp_path, "notes") is None
    (tmp_path / DATABASE_FILE).write_bytes(b"no database " * 1_000)
    with pytest.raises(ServiceUnavailable, match="cannot be read"):
        stored_collection(tmp_path, "notes")
