"""The contract of `ports.VectorStore`, over the in-memory double and over SQLite."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ingestor.adapters.vectors import SqliteVectors
from ingestor.ports import VectorStore
from tests.doubles_ledger import MemoryVectors

VECTOR = np.array([0.25, -1.5, 3e-7], dtype=np.float32)
LARGE = np.ones(1_024, dtype=np.float32)
"""4 KiB: about 200 of them fill the smallest store that may be."""


@pytest.fixture(params=["memory", "sqlite"])
def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    if request.param == "memory":
        yield MemoryVectors()
        return
    real = SqliteVectors(tmp_path / "vectors.sqlite3")
    yield real
    real.close()


def test_what_was_put_comes_back_to_the_last_bit(vectors: VectorStore) -> None:
    vectors.put({b"a": VECTOR, b"b": VECTOR * 2})
    found = vectors.get([b"a", b"b", b"missing"])
    assert found.keys() == {b"a", b"b"}
    assert found[b"a"].dtype == np.float32
    assert np.array_equal(found[b"a"], VECTOR)


def test_nothing_asked_for_is_nothing_found(vectors: VectorStore) -> None:
    assert vectors.get([]) == {}
    vectors.put({})


def test_a_later_vector_replaces_an_earlier_one(vectors: VectorStore) -> None:
    vectors.put({b"a": VECTOR})
    vectors.put({b"a": VECTOR * 2})
    assert np.array_equal(vectors.get([b"a"])[b"a"], VECTOR * 2)


def test_more_keys_than_a_statement_can_name(vectors: VectorStore) -> None:
    keys = [number.to_bytes(4, "big") for number in range(40_000)]
    vectors.put(dict.fromkeys(keys, VECTOR))
    assert len(vectors.get(keys)) == len(keys)


def test_vectors_outlive_the_process(tmp_path: Path) -> None:
    first = SqliteVectors(tmp_path / "vectors.sqlite3")
    first.put({b"a": VECTOR})
    # Not closed: a killed process does not close either.
    second = SqliteVectors(tmp_path / "vectors.sqlite3")
    assert second.get([b"a"]).keys() == {b"a"}
    second.close()
    first.close()


def test_a_damaged_file_is_put_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    path.write_bytes(b"no database at all" * 1000)
    store = SqliteVectors(path)
    store.put({b"a": VECTOR})
    assert store.get([b"a"]).keys() == {b"a"}
    store.close()
    assert (tmp_path / "vectors.sqlite3.damaged").exists()


def filled(path: Path, count: int, max_bytes: int = 1024**2) -> SqliteVectors:
    store = SqliteVectors(path, max_bytes)
    for number in range(count):
        store.put({b"%d" % number: LARGE * number})
    return store


def size_bytes(path: Path) -> int:
    return path.stat().st_size


def test_the_store_stays_below_its_size(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    store = filled(path, 1_000)
    store.close()
    assert size_bytes(path) <= 1024**2 + 64 * 1024
    kept = SqliteVectors(path, 1024**2)
    assert kept.known([b"%d" % number for number in range(700)]) == set(), "the oldest went"
    assert b"999" in kept.known([b"999"])
    kept.close()


def test_what_was_used_last_stays_longest(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    store = filled(path, 100)
    for number in range(100, 600):
        assert store.get([b"7"]).keys() == {b"7"}, "a vector in use does not go"
        store.put({b"%d" % number: LARGE})
    assert store.get([b"6", b"8"]) == {}
    store.close()


def test_looking_is_no_use(tmp_path: Path) -> None:
    store = filled(tmp_path / "vectors.sqlite3", 100)
    for number in range(100, 600):
        store.known([b"7"])
        store.put({b"%d" % number: LARGE})
    assert store.known([b"7"]) == set()
    store.close()


def test_a_use_is_remembered_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    filled(path, 100).close()
    reading = SqliteVectors(path, 1024**2)
    reading.get([b"7"])
    reading.close()
    writing = SqliteVectors(path, 1024**2)
    for number in range(100, 300):
        writing.put({b"%d" % number: LARGE})
    assert writing.known([b"6", b"7", b"8"]) == {b"7"}
    writing.close()


def test_a_store_that_has_become_too_large_shrinks_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    filled(path, 1_000, max_bytes=1024**3).close()
    assert size_bytes(path) > 4 * 1024**2
    store = SqliteVectors(path, 2 * 1024**2)
    assert store.known([b"0", b"999"]) == {b"999"}
    store.close()
    assert size_bytes(path) <= 2 * 1024**2


def test_vectors_of_before_uses_were_counted_go_first(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as older, older:
        older.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
        older.executemany("INSERT INTO vectors VALUES (?, ?)", [(b"%d" % n, LARGE.tobytes()) for n in range(100)])
    store = SqliteVectors(path, 1024**2)
    assert len(store.get([b"%d" % number for number in range(50)])) == 50
    for number in range(100, 250):
        store.put({b"%d" % number: LARGE})
    assert len(store.known([b"%d" % number for number in range(50)])) == 50
    assert len(store.known([b"%d" % number for number in range(50, 100)])) < 50
    store.close()


def test_of_vectors_that_are_forgotten_no_byte_is_left_and_others_stay(tmp_path: Path) -> None:
    store = SqliteVectors(tmp_path / "vectors.sqlite3")
    rows = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
    keys = [f"key-{number:028}".encode() for number in range(40)]
    store.put(dict(zip(keys, rows, strict=True)))
    with sqlite3.connect(tmp_path / "vectors.sqlite3") as plain:
        plain.execute("PRAGMA secure_delete = OFF")  # as SQLite is built elsewhere
        plain.execute("DELETE FROM vectors WHERE key = ?", keys[-1:])
    plain.close()
    gone = [*keys[:3], keys[-1]]
    assert store.forget([*gone, b"missing"]) == 3
    assert store.forget([]) == 0
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not any(rows[keys.index(key)].tobytes() in held or key in held for key in gone)
    assert store.known(keys) == set(keys) - set(gone)
    store.close()
