"""Collections and their records through the real clients: a served database, and one in this process."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ingestor.adapters import chroma_catalog
from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_files import index_bytes
from ingestor.adapters.chroma_records import ChromaRecords
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import HnswConfig
from ingestor.core.errors import CollectionLost, ConfigError
from ingestor.core.handmade import HandMade
from ingestor.core.records import PARTS, Selection
from ingestor.ports import Vector
from tests.daemon import free_port

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

# Chroma itself makes a collection without an embedding function "legacy", and warns of it when one is modified.
pytestmark = pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning:chromadb")

COSINE = HnswConfig().as_configuration()


@pytest.fixture(scope="module", params=["managed", "persistent"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["ClientAPI"]:
    folder = tmp_path_factory.mktemp("chroma")
    if request.param == "persistent":
        client = connect("persistent", path=folder)
        yield client
        disconnect(client)
        return
    server = ChromaServer(folder, free_port())
    server.start()
    try:
        client = connect("managed", port=server.port, timeout_seconds=20)
        yield client
        disconnect(client)
    finally:
        server.stop()


@pytest.fixture
def catalog(client: "ClientAPI") -> ChromaCatalog:
    catalog = ChromaCatalog(client)
    for row in catalog.rows():
        catalog.delete(row)
    return catalog


def made(catalog: ChromaCatalog, name: str, metadata: Mapping[str, Any] | None = None) -> CollectionRow:
    catalog.create(name, COSINE, metadata)
    row = catalog.find(name)
    assert row is not None
    return row


def vector(*numbers: float) -> Vector:
    return np.array(numbers, dtype=np.float32)


def test_collections_are_listed_by_name_however_many_pages_they_fill(
    catalog: ChromaCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_catalog, "_PAGE_COLLECTIONS", 2)
    for name in ("law", "art", "sea", "sky", "ice"):
        made(catalog, name)
    assert [row.name for row in catalog.rows()] == ["art", "ice", "law", "sea", "sky"]


def test_a_collection_is_made_as_it_was_asked_for(catalog: ChromaCatalog) -> None:
    catalog.create("far", HnswConfig(space="l2", ef_search=33, max_neighbors=8).as_configuration(), {"topic": "law"})
    row = catalog.find("far")
    assert row is not None
    assert (row.space, row.metadata, row.dimensions, catalog.count(row)) == ("l2", {"topic": "law"}, 0, 0)
    assert (row.index["ef_search"], row.index["max_neighbors"]) == (33, 8)


@pytest.mark.parametrize("name", ["ab", "a b", "-abc", "名字名字", "x" * 513, ""], ids=lambda name: name[:4] or "empty")
def test_a_name_that_chroma_does_not_take_is_refused_and_not_found(catalog: ChromaCatalog, name: str) -> None:
    row = made(catalog, "here")
    assert catalog.find(name) is None
    with pytest.raises(ConfigError, match="no collection can be called"):
        catalog.create(name, COSINE, None)
    with pytest.raises(ConfigError, match="no collection can be called"):
        catalog.rename(row, name)


def test_a_name_that_is_taken_is_refused_and_both_collections_stay(catalog: ChromaCatalog) -> None:
    row = made(catalog, "here", {"a": 1})
    made(catalog, "taken", {"b": 2})
    with pytest.raises(ConfigError, match="'taken' already"):
        catalog.rename(row, "taken")
    with pytest.raises(ConfigError, match="'taken' already"):
        catalog.create("taken", COSINE, None)
    assert [(row.name, row.metadata) for row in catalog.rows()] == [("here", {"a": 1}), ("taken", {"b": 2})]


def test_a_rename_keeps_id_and_records(client: "ClientAPI", catalog: ChromaCatalog) -> None:
    row = made(catalog, "before")
    ChromaRecords(client, "before").put([HandMade("a", "text", {"k": 1}, vector(1, 0))], replaces=False)
    catalog.rename(row, "after")
    found = catalog.find("after")
    assert found is not None
    assert (found.id, found.dimensions, catalog.count(found), catalog.find("before")) == (row.id, 2, 1, None)


def test_a_collection_that_somebody_has_made_again_is_left_alone(catalog: ChromaCatalog) -> None:
    row = made(catalog, "here")
    catalog.delete(row)
    again = made(catalog, "here")
    harms: list[Callable[[], None]] = [
        lambda: catalog.delete(row),
        lambda: catalog.rename(row, "there"),
        lambda: catalog.modify(row, {"a": 1}, {}),
    ]
    for harm in harms:
        with pytest.raises(CollectionLost):
            harm()
    assert catalog.rows() == [again]


def test_metadata_is_merged_a_key_taken_away_and_the_index_changed(catalog: ChromaCatalog) -> None:
    row = made(catalog, "here", {"a": 1, "b": 2})
    catalog.modify(row, {"a": None, "c": "x"}, {"ef_search": 12, "sync_threshold": 50})
    found = catalog.find("here")
    assert found is not None
    assert found.metadata == {"b": 2, "c": "x"}
    assert (found.index["ef_search"], found.index["sync_threshold"]) == (12, 50)
    with pytest.raises(ConfigError, match="without metadata"):
        catalog.modify(found, {"b": None, "c": None}, {})


def test_a_fork_is_refused_by_a_chroma_that_is_not_in_the_cloud(catalog: ChromaCatalog) -> None:
    row = made(catalog, "here")
    with pytest.raises(ConfigError, match="fork"):
        catalog.fork(row, "copy")
    assert [each.name for each in catalog.rows()] == ["here"]


def test_records_are_written_read_changed_and_deleted(client: "ClientAPI", catalog: ChromaCatalog) -> None:
    made(catalog, "here", {"embedding_dimensions": 0})
    records = ChromaRecords(client, "here")
    records.note_dimensions(2)
    first = [HandMade("a", "one", {"k": 1, "l": 1}, vector(1, 0)), HandMade("b", None, None, vector(0, 1))]
    records.put(first, replaces=False)
    records.put([HandMade("a", "two", {"k": 3}, vector(0, 1))], replaces=False)
    assert records.held(["a", "b", "c"]) == {"a": {"k": 1, "l": 1}, "b": {}}
    records.put([HandMade("a", "two", {"k": 2}, vector(2, 0)), HandMade("c", "new", None, vector(2, 0))], replaces=True)
    records.update([HandMade("a", metadata={"l": None}), HandMade("c", "newer", vector=vector(1, 0))])
    found = {record.id: record for record in records.get(Selection(), PARTS)}
    assert {id_: (record.document, record.metadata) for id_, record in found.items()} == {
        "a": ("two", {"k": 2}),
        "b": (None, None),
        "c": ("newer", None),
    }
    assert [record.embedding.tolist() for record in found.values() if record.embedding is not None] == [
        [2, 0],
        [0, 1],
        [1, 0],
    ]
    assert [record.id for record in records.get(Selection(where={"k": 2}), [])] == ["a"]
    assert [record.id for record in records.get(Selection(where_document={"$contains": "new"}))] == ["c"]
    assert [record.id for record in records.get(Selection(), limit=1, offset=1)] == ["b"]
    with pytest.raises(ConfigError, match="exactly one operator"):
        records.get(Selection(where={"k": 2, "l": 1}))
    records.delete(["a", "gone"])
    assert records.count() == 2
    row = catalog.find("here")
    assert row is not None
    assert row.metadata["embedding_dimensions"] == 2


def test_the_size_of_an_index_is_told_beside_whoever_has_it_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    assert index_bytes(folder) == {}
    client = connect("persistent", path=folder)
    row = made(ChromaCatalog(client), "here")
    assert index_bytes(folder) == {row.id: 0}
    records = [HandMade(f"r{n}", "text", None, vector(n + 1, 1)) for n in range(300)]
    ChromaRecords(client, "here").put(records, replaces=False)
    assert index_bytes(folder)[row.id] > 300 * 8
    disconnect(client)
