"""What Chroma leaves behind, and a copy of a collection: over a real database."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ingestor.adapters.chroma_cleaning import Cleaned, cleaned, index_elements, remove_orphans, size_bytes
from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_copy import ChromaCopy
from ingestor.adapters.chroma_function import stand_in
from ingestor.adapters.chroma_journal import write_ahead
from ingestor.core.asking import Function
from ingestor.core.errors import ServiceUnavailable

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

pytestmark = pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning:chromadb")

INDEX = {"space": "cosine", "ef_construction": 64, "ef_search": 90, "max_neighbors": 24, "sync_threshold": 100}
VECTORS = np.random.default_rng(3).normal(size=(300, 16)).astype(np.float32)
WORDS = "a word that nobody else has said"


class Base:
    """A database in a folder, opened and closed at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        write_ahead(folder)
        self._client: ClientAPI | None = None

    @property
    def client(self) -> "ClientAPI":
        self._client = self._client or connect("persistent", path=self.folder)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            disconnect(self._client)
            self._client = None

    def fill(self, name: str, count: int, word: str = WORDS, **metadata: object) -> "Collection":
        configuration: Any = {"hnsw": INDEX, "embedding_function": stand_in(Function("openai", {"model_name": "m"}))}
        made = self.client.create_collection(
            name, configuration=configuration, metadata={"kept": "as it is", "number": 3}, embedding_function=None
        )
        made.add(
            ids=[f"{name}-{number}" for number in range(count)],
            embeddings=VECTORS[:count],
            documents=[f"{word} {number}" for number in range(count)],
            metadatas=[{"source": "a.md", **metadata} for _ in range(count)],  # type: ignore[dict-item]  # lists, too
        )
        return made

    def graphs(self) -> list[Path]:
        """The folders of graphs that are there."""
        return [file.parent for file in self.folder.glob("*/data_level0.bin")]

    def bytes_of(self) -> bytes:
        return b"".join(file.read_bytes() for file in sorted(self.folder.rglob("*")) if file.is_file())


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    made = Base(tmp_path / "chroma")
    yield made
    made.close()


def test_of_a_deleted_collection_no_folder_no_row_and_no_byte_is_left(base: Base) -> None:
    base.fill("gone", 250, tags=["x", "y"]).delete(ids=["gone-0"])
    base.fill("stays", 7, "another")
    base.client.delete_collection("gone")
    base.close()
    stranger, other = base.folder / str(uuid.uuid4()), base.folder / "not-a-graph"
    for folder in (stranger, other):
        folder.mkdir()
        (folder / "notes.txt").write_text("somebody's own")
    before = size_bytes(base.folder)
    assert WORDS.encode() in base.bytes_of()

    found = cleaned(base.folder)
    assert (found.folders, found.rows > 0) == (1, True)
    assert WORDS.encode() not in base.bytes_of()
    assert size_bytes(base.folder) < before
    assert stranger.is_dir()
    assert other.is_dir()
    assert cleaned(base.folder) == Cleaned(0, 0)

    stays = base.client.get_collection("stays", embedding_function=None)
    assert stays.count() == 7
    assert stays.query(query_embeddings=VECTORS[:1], n_results=1)["ids"] == [["stays-0"]]
    assert stays.get(where_document={"$contains": "another 3"})["ids"] == ["stays-3"]
    again = base.fill("again", 20, "other")
    assert {frozenset(metadata or {}) for metadata in again.get()["metadatas"] or []} == {frozenset({"source"})}


def test_the_room_of_a_graph_holds_nothing_of_the_memory_it_was_made_in(base: Base) -> None:
    base.fill("kept", 20)
    (place,) = base.graphs()
    base.close()
    graph = place / "data_level0.bin"
    room_bytes = graph.stat().st_size
    assert index_elements(base.folder, "kept") == 0, "twenty records are in the log still"
    with graph.open("r+b") as file:
        file.seek(room_bytes // 2)
        file.write(WORDS.encode())
    cleaned(base.folder)
    assert graph.read_bytes() == bytes(room_bytes)
    kept = base.client.get_collection("kept", embedding_function=None)
    kept.add(ids=[f"more-{number}" for number in range(100)], embeddings=VECTORS[100:200])
    base.close()
    cleaned(base.folder)
    kept = base.client.get_collection("kept", embedding_function=None)
    assert index_elements(base.folder, "kept") == 120
    found = kept.query(query_embeddings=np.concatenate([VECTORS[:20], VECTORS[100:200]]), n_results=1)["ids"]
    assert [ids[0] for ids in found] == kept.get()["ids"]


def test_a_client_that_was_let_go_of_has_closed_the_database(base: Base) -> None:
    for number in range(8):
        base.fill(f"round-{number}", 20)
        base.close()
        opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        assert not [each for each in opened if each.startswith(str(base.folder))]


def test_a_folder_without_a_database_is_left_alone(tmp_path: Path) -> None:
    assert cleaned(tmp_path) == Cleaned(0, 0)
    assert index_elements(tmp_path, "none") is None
    assert remove_orphans(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_beside_an_open_database_the_folders_of_graphs_that_it_does_not_know_are_removed(base: Base) -> None:
    base.fill("stays", 7)
    base.fill("gone", 7)
    (base.folder / "no-graph").mkdir()
    half, other = base.folder / str(uuid.uuid4()), base.folder / str(uuid.uuid4())
    for folder, name in ((half, "header.bin"), (other, "notes.txt")):
        folder.mkdir()
        (folder / name).touch()
    base.client.delete_collection("gone")
    assert remove_orphans(base.folder) == 2, "that of the collection, and what a death has left of another"
    assert remove_orphans(base.folder) == 0
    assert len(base.graphs()) == 1
    assert other.is_dir()
    stays = base.client.get_collection("stays", embedding_function=None)
    assert stays.query(query_embeddings=VECTORS[:1], n_results=1)["ids"] == [["stays-0"]]


def test_without_a_database_that_can_be_asked_no_graph_is_removed(base: Base) -> None:
    base.fill("stays", 7)
    base.close()
    (base.folder / "chroma.sqlite3").rename(base.folder / "elsewhere")
    (base.folder / "chroma.sqlite3").write_bytes(b"no database" * 1_000)
    assert remove_orphans(base.folder) == 0
    assert len(base.graphs()) == 1


def test_a_copy_has_every_record_as_it_is_and_no_tombstone(base: Base) -> None:
    source = base.fill("source", 130, tags=["x", "y"])
    source.delete(ids=[f"source-{number}" for number in range(60)])
    source.add(ids=["bare"], embeddings=VECTORS[200:201])
    source.add(ids=["named"], embeddings=VECTORS[201:202], uris=["file:///a"], documents=["text"])
    copy = ChromaCopy(base.client, "source", "copy", lambda _: {})
    ids = copy.begin()
    assert copy.take(ids) == set(ids), "none of them is ours"
    assert not copy.differences()

    # What changes meanwhile: metadata alone, a text, a list, a deletion, an addition.
    source.update(ids=["source-70"], metadatas=[{"source": "b.md", "extra": 1}])
    source.update(ids=["named"], metadatas=[{"page": 1}])
    source.upsert(ids=["source-71"], embeddings=VECTORS[202:203], documents=["new text"])
    source.delete(ids=["source-72"])
    source.add(ids=["late"], embeddings=VECTORS[203:204], documents=["late"])
    copy.take(["source-70", "source-71", "named", *copy.differences()])
    assert not copy.differences()
    assert copy.tombstones == 3

    made = base.client.get_collection("copy", embedding_function=None)
    everything: Any = ["embeddings", "documents", "metadatas", "uris"]
    old: Any = source.get(include=everything)
    new: Any = made.get(include=everything)
    order = [new["ids"].index(id_) for id_ in old["ids"]]
    assert len(order) == len(new["ids"])
    for part in ("documents", "metadatas", "uris"):
        assert old[part] == [new[part][place] for place in order]
    assert np.allclose(np.asarray(old["embeddings"]), np.asarray(new["embeddings"])[order], atol=1e-6)
    assert made.configuration_json == source.configuration_json
    assert made.metadata == source.metadata


def test_vectors_that_the_index_has_lost_come_from_the_store_or_stop_the_copy(base: Base) -> None:
    source = base.fill("source", 40)
    (place,) = base.graphs()
    source.update(ids=["source-0"], metadatas=[{"n": 1}])
    for number in range(70):  # the graph goes to the disk after a hundred rows
        source.update(ids=["source-1"], metadatas=[{"n": number}])
    base.close()
    for file in place.iterdir():
        file.unlink()
    asked: list[str] = []

    def paid(texts: Any) -> Any:  # noqa: ANN401 - as Chroma tells them
        asked.extend(texts)
        return {id_: VECTORS[int(id_.partition("-")[2])] for id_ in texts}

    copy = ChromaCopy(base.client, "source", "copy", paid)
    copy.take(copy.begin())
    made = base.client.get_collection("copy", embedding_function=None)
    assert asked
    assert made.query(query_embeddings=VECTORS[5:6], n_results=1)["ids"] == [["source-5"]]
    poor = ChromaCopy(base.client, "source", "copy", lambda _: {})
    with pytest.raises(ServiceUnavailable, match="lost the vectors") as caught:
        poor.take(poor.begin())
    assert "verify --repair" in caught.value.remedy
