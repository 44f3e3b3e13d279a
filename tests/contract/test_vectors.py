"""The contract of `ports.VectorStore`, over the in-memory double and over SQLite."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ingestor.adapters.vectors import SqliteVectors
from ingestor.ports import VectorStore
from tests.doubles_ledger import MemoryVectors

VECTOR = np.array([0.25, -1.5, 3e-7], dtype=np.float32)


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
