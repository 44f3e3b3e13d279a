"""The contract of `ports.Sink`, over the in-memory double and over Chroma in its three local shapes."""

import itertools
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import pytest
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction, known_embedding_functions

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_function import stand_in
from ingestor.adapters.chroma_hold import Hold
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import ChromaSink, HnswConfig, Space, _body_bytes, _bounds, open_sink
from ingestor.adapters.folder_lock import FolderLock
from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.asking import Function
from ingestor.core.errors import (
    CollectionLost,
    ConfigError,
    ForeignCollection,
    RecipeMismatch,
    RejectedByChroma,
    ServiceUnavailable,
)
from ingestor.core.model import Recipe, Record, Retag, Scalar
from ingestor.core.owning import Owner, labels
from ingestor.engine.measured import MeasuredSink
from ingestor.ports import Sink, Vectors
from tests.doubles_sink import MemorySink

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

# Chroma itself makes a collection without an embedding function "legacy", and warns of it when one is modified.
pytestmark = pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning:chromadb")

RECIPE = Recipe("test", "letters", 3)
LEARNING = Recipe("test", "letters", 0)
NAMES = (f"sink-{number}" for number in itertools.count())


OWNER = Owner("a" * 32, "place", "here:/data", "/folder")


def hold_of(owner: Owner) -> Hold:
    written = labels(owner, {}, f"process of {owner.id}", beat_seconds=0)
    return Hold(written, is_shared=True, is_new=True, predecessor="", on_rival=lambda _process, _beat: None)


class Bench(Protocol):
    """A sink under test, and what somebody else may do to its collection."""

    sink: Sink

    def put_foreign(self, identity: str, metadata: dict[str, Scalar] | None) -> None: ...
    def delete_collection(self) -> None: ...
    def rename_collection(self) -> None: ...
    def take_over_collection(self) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.memory = MemorySink(dimensions=3)
        self.sink: Sink = self.memory

    def put_foreign(self, identity: str, metadata: dict[str, Scalar] | None) -> None:
        self.memory.put_foreign(identity, np.array([0, 0, 1], dtype=np.float32), metadata)

    def delete_collection(self) -> None:
        self.memory.delete_collection()

    def rename_collection(self) -> None:
        self.memory.is_renamed = True

    def take_over_collection(self) -> None:
        self.memory.rival = "another data folder"


class ChromaBench:
    def __init__(self, client: "ClientAPI") -> None:
        self.client = client
        self.name = next(NAMES)
        self.sink: Sink = open_sink(client, self.name, RECIPE, HnswConfig(), fingerprint="f", hold=hold_of(OWNER))

    def put_foreign(self, identity: str, metadata: dict[str, Scalar] | None) -> None:
        collection = self.client.get_collection(self.name, embedding_function=None)
        collection.add(ids=[identity], embeddings=rows((0, 0, 1)), metadatas=[metadata] if metadata else None)

    def delete_collection(self) -> None:
        self.client.delete_collection(self.name)

    def take_over_collection(self) -> None:
        open_sink(
            self.client, self.name, RECIPE, HnswConfig(), fingerprint="f", hold=hold_of(replace(OWNER, id="b" * 32))
        )

    def rename_collection(self) -> None:
        self.client.get_collection(self.name, embedding_function=None).modify(name=f"{self.name}-renamed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def http_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ClientAPI"]:
    port = free_port()
    server = ChromaServer(tmp_path_factory.mktemp("served"), port)
    server.start()
    try:
        client = connect("managed", port=port, timeout_seconds=20)
        yield client
        disconnect(client)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def folder_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ClientAPI"]:
    path = tmp_path_factory.mktemp("direct")
    with FolderLock(path):
        client = connect("persistent", path=path)
        yield client
        disconnect(client)


@pytest.fixture(scope="session")
def memory_client() -> Iterator["ClientAPI"]:
    client = connect("memory")
    yield client
    disconnect(client)


SHAPES = ["http_client", "folder_client", "memory_client"]


@pytest.fixture(params=["double", "measured", *SHAPES])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "measured":
        bench = MemoryBench()
        bench.sink = MeasuredSink(bench.memory, SystemRuntime())
        return bench
    return MemoryBench() if request.param == "double" else ChromaBench(request.getfixturevalue(request.param))


@pytest.fixture
def sink(bench: Bench) -> Sink:
    return bench.sink


@pytest.fixture(params=["http_client", "memory_client"])
def client(request: pytest.FixtureRequest) -> "ClientAPI":
    return cast("ClientAPI", request.getfixturevalue(request.param))


@pytest.fixture
def name() -> str:
    return next(NAMES)


def record(identity: str, text: str = "some text", **metadata: Scalar) -> Record:
    return Record(identity, text, {"document_id": identity.partition(":")[0], **metadata}, tag="t")


def retag(identity: str, **metadata: Scalar) -> Retag:
    return Retag(identity, {"document_id": identity.partition(":")[0], **metadata})


def rows(*vectors: tuple[float, ...]) -> Vectors:
    return np.array(vectors, dtype=np.float32)


def many(count: int) -> tuple[list[Record], Vectors]:
    vectors = np.random.default_rng(7).normal(size=(count, 3)).astype(np.float32)
    return [record(f"many:{number:04}", chunk=number) for number in range(count)], vectors


def held(sink: Sink) -> dict[str, dict[str, Any]]:
    return {each.id: dict(each.metadata) for each in sink.read(sink.ids())}


def test_what_was_added_is_found_with_its_text_and_metadata(sink: Sink) -> None:
    sink.add([record("a:1", "alpha", chunk=1, ratio=0.5, draft=True, title="Übersicht")], rows((1, 0, 0)))

    (hit,) = sink.search(rows((1, 0, 0))[0], 10, None, None)

    assert (hit.id, hit.document) == ("a:1", "alpha")
    assert hit.metadata == {"document_id": "a", "chunk": 1, "ratio": 0.5, "draft": True, "title": "Übersicht"}
    assert hit.distance == pytest.approx(0, abs=1e-6)
    assert hit.score == pytest.approx(1, abs=1e-6)


def test_hits_come_best_first_and_no_more_than_asked_for(sink: Sink) -> None:
    sink.add([record("a:1"), record("a:2"), record("a:3")], rows((0, 1, 0), (1, 0, 0), (1, 1, 0)))

    hits = sink.search(rows((1, 0.1, 0))[0], 2, None, None)

    assert [hit.id for hit in hits] == ["a:2", "a:3"]
    assert hits[0].score > hits[1].score


def test_a_search_among_ids_finds_no_others(sink: Sink) -> None:
    sink.add([record("a:1"), record("a:2"), record("a:3")], rows((0, 1, 0), (1, 0, 0), (1, 1, 0)))

    hits = sink.search(rows((1, 0, 0))[0], 5, None, None, ["a:1", "a:3"])

    assert [hit.id for hit in hits] == ["a:3", "a:1"]


def test_an_empty_collection_answers_with_nothing(sink: Sink) -> None:
    assert sink.search(rows((1, 0, 0))[0], 5, None, None) == []
    assert sink.count() == 0
    assert held(sink) == {}


def test_a_limit_below_one_is_a_fault_of_the_caller(sink: Sink) -> None:
    with pytest.raises(ValueError, match="limit"):
        sink.search(rows((1, 0, 0))[0], 0, None, None)


def test_adding_an_id_that_exists_changes_nothing(sink: Sink) -> None:
    sink.add([record("a:1", "first", version=1)], rows((1, 0, 0)))
    sink.add([record("a:1", "second", version=2), record("a:2", "new", version=2)], rows((0, 1, 0), (0, 1, 0)))

    hit = sink.search(rows((1, 0, 0))[0], 1, None, None)[0]

    assert (hit.id, hit.document, hit.metadata["version"]) == ("a:1", "first", 1)
    assert sink.count() == 2


def test_retag_replaces_all_metadata_and_leaves_text_and_vector(sink: Sink) -> None:
    sink.add([record("a:1", "alpha", source="old.md", title="gone"), record("b:1", "beta")], rows((1, 0, 0), (0, 1, 0)))
    sink.retag([retag("a:1", source="new.md", chunk=2)])

    hit = sink.search(rows((1, 0, 0))[0], 1, None, None)[0]

    assert hit.metadata == {"document_id": "a", "source": "new.md", "chunk": 2}
    assert hit.document == "alpha"
    assert hit.distance == pytest.approx(0, abs=1e-6)
    assert held(sink)["b:1"] == {"document_id": "b"}


def test_retag_of_an_unknown_id_makes_no_record(sink: Sink) -> None:
    sink.add([record("a:1")], rows((1, 0, 0)))
    sink.retag([retag("z:1", source="x"), retag("a:1", source="y")])

    assert held(sink) == {"a:1": {"document_id": "a", "source": "y"}}


def test_retag_of_known_changes_replaces_these_keys_alone(sink: Sink) -> None:
    sink.add([record("a:1", source="old.md", title="kept"), record("b:1")], rows((1, 0, 0), (0, 1, 0)))
    renamed = [Retag(identity, {"source": "new.md"}, is_whole=False) for identity in ("a:1", "z:1")]
    sink.retag([*renamed, retag("b:1", source="other.md")])

    assert held(sink) == {
        "a:1": {"document_id": "a", "source": "new.md", "title": "kept"},
        "b:1": {"document_id": "b", "source": "other.md"},
    }


def test_retag_without_a_difference_changes_nothing(sink: Sink) -> None:
    sink.add([record("a:1", chunk=1), record("a:2")], rows((1, 0, 0), (0, 1, 0)))
    sink.retag([retag("a:1", chunk=1), Retag("a:2", {}, is_whole=False)])

    assert held(sink) == {"a:1": {"document_id": "a", "chunk": 1}, "a:2": {"document_id": "a"}}


@pytest.mark.parametrize(("before", "after"), [(1, True), (True, 1), (1, 1.0), (0.5, 1), ("1", 1)])
def test_retag_tells_values_apart_that_python_takes_for_equal(sink: Sink, before: Scalar, after: Scalar) -> None:
    sink.add([record("a:1", value=before)], rows((1, 0, 0)))
    sink.retag([retag("a:1", value=after)])

    found = held(sink)["a:1"]["value"]
    assert (type(found), found) == (type(after), after)


def test_retag_leaves_when_a_record_was_ingested_and_gives_it_back_where_it_is_missing(sink: Sink) -> None:
    sink.add([record("a:1", ingested_at="first"), record("a:2")], rows((1, 0, 0), (0, 1, 0)))
    sink.retag([retag("a:1", ingested_at="later", chunk=1), retag("a:2", ingested_at="later")])

    assert held(sink) == {
        "a:1": {"document_id": "a", "ingested_at": "first", "chunk": 1},
        "a:2": {"document_id": "a", "ingested_at": "later"},
    }


def test_drop_deletes_and_ignores_what_is_not_there(sink: Sink) -> None:
    sink.add([record("a:1"), record("a:2")], rows((1, 0, 0), (0, 1, 0)))
    sink.drop(["a:1", "never"])

    assert list(held(sink)) == ["a:2"]
    assert [hit.id for hit in sink.search(rows((1, 0, 0))[0], 5, None, None)] == ["a:2"]


def test_a_dropped_id_can_be_added_again(sink: Sink) -> None:
    sink.add([record("a:1", "old")], rows((1, 0, 0)))
    sink.drop(["a:1"])
    sink.add([record("a:1", "new")], rows((0, 1, 0)))

    assert [hit.document for hit in sink.search(rows((0, 1, 0))[0], 5, None, None)] == ["new"]


def test_nothing_to_do_is_no_call_that_fails(sink: Sink) -> None:
    sink.add([], np.empty((0, 3), dtype=np.float32))
    sink.retag([])
    sink.drop([])

    assert sink.count() == 0


def test_more_records_than_a_batch_are_all_written_listed_and_deleted(sink: Sink) -> None:
    records, vectors = many(650)
    sink.add(records, list(vectors))
    sink.retag([retag(each.id, source="moved.md") for each in records])

    assert sink.count() == 650
    assert held(sink) == {each.id: {"document_id": "many", "source": "moved.md"} for each in records}

    sink.drop([each.id for each in records])

    assert sink.count() == 0


def test_an_id_named_twice_is_a_fault_of_the_caller(sink: Sink) -> None:
    twice = [record("a:1"), record("a:1")]
    calls: list[Callable[[], None]] = [
        lambda: sink.add(twice, rows((1, 0, 0), (1, 0, 0))),
        lambda: sink.retag([retag("a:1"), retag("a:1")]),
        lambda: sink.drop(["a:1", "a:1"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="twice"):
            call()
    assert sink.count() == 0


def test_vectors_that_do_not_fit_the_records_are_a_fault_of_the_caller(sink: Sink) -> None:
    with pytest.raises(ValueError, match="shape"):
        sink.add([record("a:1"), record("a:2")], rows((1, 0, 0)))


def test_foreign_records_are_counted_and_read_like_others(bench: Bench) -> None:
    bench.sink.add([record("a:1")], rows((1, 0, 0)))
    bench.put_foreign("theirs-1", None)
    bench.put_foreign("theirs-2", {"colour": "red"})

    assert bench.sink.count() == 3
    assert held(bench.sink) == {"a:1": {"document_id": "a"}, "theirs-1": {}, "theirs-2": {"colour": "red"}}
    hits = {hit.id: hit for hit in bench.sink.search(rows((0, 0, 1))[0], 3, None, None)}
    assert (hits["theirs-1"].document, hits["theirs-1"].metadata) == ("", {})


def test_every_id_is_listed_however_many_there_are(sink: Sink) -> None:
    records, vectors = many(701)
    assert sink.ids() == []
    sink.add(records, vectors)
    assert sorted(sink.ids()) == [record.id for record in records]


def test_a_record_is_read_with_its_text_and_where_it_is_asked_for_its_vector(sink: Sink) -> None:
    sink.add([record("a:1", "alpha", chunk=1), record("a:2", "beta")], rows((1, 0, 0), (0, 0.5, 0)))

    found = {each.id: each for each in sink.read(["a:2", "a:1", "a:3"], with_vectors=True)}

    assert found.keys() == {"a:1", "a:2"}
    assert (found["a:1"].text, found["a:1"].metadata) == ("alpha", {"document_id": "a", "chunk": 1})
    assert found["a:2"].vector is not None
    assert found["a:2"].vector.tolist() == [0, 0.5, 0]
    assert [each.vector for each in sink.read(["a:1"])] == [None]
    assert sink.read([]) == []


def test_records_that_their_own_vector_finds_are_reachable(sink: Sink) -> None:
    records, vectors = many(120)
    copies = [record(f"copy:{number:02}") for number in range(30)]
    sink.add(records, vectors)
    sink.add(copies, np.tile(rows((1, 1, 1)), (30, 1)))

    assert sink.unreachable([each.id for each in records], vectors) == []
    assert sink.unreachable([each.id for each in copies], np.tile(rows((1, 1, 1)), (30, 1))) == []
    assert sink.unreachable([], np.empty((0, 3), np.float32)) == []


def test_a_record_that_is_not_there_is_not_reachable(sink: Sink) -> None:
    sink.add([record("a:1"), record("a:2")], rows((1, 0, 0), (0, 1, 0)))
    sink.drop(["a:2"])
    assert sink.unreachable(["a:1", "a:2"], rows((1, 0, 0), (0, 1, 0))) == ["a:2"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"kind": "x"}, {"a:1", "a:3"}),
        ({"kind": {"$ne": "x"}}, {"a:2", "a:4"}),
        ({"chunk": {"$gt": 1}}, {"a:2", "a:3"}),
        ({"kind": {"$in": ["x", "y"]}}, {"a:1", "a:2", "a:3"}),
        ({"$and": [{"kind": "x"}, {"chunk": 1}]}, {"a:1"}),
        ({"$or": [{"kind": "y"}, {"chunk": 3}]}, {"a:2", "a:3"}),
        ({"absent": "x"}, set()),
    ],
)
def test_filters_on_metadata(sink: Sink, where: dict[str, Any], expected: set[str]) -> None:
    sink.add(
        [
            record("a:1", kind="x", chunk=1),
            record("a:2", kind="y", chunk=2),
            record("a:3", kind="x", chunk=3),
            record("a:4"),
        ],
        rows((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
    )

    assert {hit.id for hit in sink.search(rows((1, 0, 0))[0], 10, where, None)} == expected


@pytest.mark.parametrize(
    ("where_document", "expected"),
    [
        ({"$contains": "争端"}, {"a:1"}),
        ({"$contains": "fox"}, {"a:2"}),
        ({"$not_contains": "fox"}, {"a:1"}),
        ({"$regex": "f.x"}, {"a:2"}),
    ],
)
def test_filters_on_text(sink: Sink, where_document: dict[str, Any], expected: set[str]) -> None:
    sink.add([record("a:1", "国际争端解决"), record("a:2", "the quick fox")], rows((1, 0, 0), (0, 1, 0)))

    assert {hit.id for hit in sink.search(rows((1, 0, 0))[0], 10, None, where_document)} == expected


@pytest.mark.parametrize(
    ("where", "where_document"),
    [
        ({}, None),
        ({"a": 1, "b": 2}, None),
        ({"a": {"$like": "x%"}}, None),
        ({"a": {"$in": []}}, None),
        ({"$and": [{"a": 1}]}, None),
        ({"a": {"$gt": "x"}}, None),
        (None, {"$contains": ""}),
        (None, {"$regex": "("}),
    ],
)
def test_a_filter_that_is_refused_is_an_error_of_the_user(
    sink: Sink, where: dict[str, Any] | None, where_document: dict[str, Any] | None
) -> None:
    sink.add([record("a:1")], rows((1, 0, 0)))

    with pytest.raises(ConfigError):
        sink.search(rows((1, 0, 0))[0], 10, where, where_document)


def test_vectors_of_another_length_are_another_recipe(sink: Sink) -> None:
    sink.add([record("a:1")], rows((1, 0, 0)))

    with pytest.raises(RecipeMismatch):
        sink.add([record("a:2")], rows((1, 0)))
    with pytest.raises(RecipeMismatch):
        sink.search(rows((1, 0))[0], 1, None, None)
    assert sink.count() == 1


def test_a_vector_that_is_not_finite_is_rejected(sink: Sink) -> None:
    with pytest.raises(RejectedByChroma):
        sink.add([record("a:1")], rows((float("nan"), 0, 0)))
    assert sink.count() == 0


@pytest.mark.parametrize("broken", [record("a:\udce4"), record("a:1", "x\udce4"), record("a:1", source="\udce4.md")])
def test_a_text_that_is_no_utf_8_is_rejected(sink: Sink, broken: Record) -> None:
    with pytest.raises(RejectedByChroma):
        sink.add([broken], rows((1, 0, 0)))
    assert sink.count() == 0


def test_a_collection_that_somebody_deleted_makes_every_call_fail(bench: Bench) -> None:
    sink = bench.sink
    sink.add([record("a:1")], rows((1, 0, 0)))
    bench.delete_collection()

    calls: list[Callable[[], object]] = [
        lambda: sink.add([record("a:2")], rows((0, 1, 0))),
        lambda: sink.retag([retag("a:1", source="x")]),
        lambda: sink.drop(["a:1"]),
        lambda: sink.search(rows((1, 0, 0))[0], 1, None, None),
        sink.count,
        sink.ids,
        lambda: sink.page(0, 1),
        lambda: sink.read(["a:1"]),
        lambda: sink.unreachable(["a:1"], rows((1, 0, 0))),
        sink.confirm,
        sink.keep,
    ]
    for call in calls:
        with pytest.raises(CollectionLost, match="deleted"):
            call()


def test_a_collection_that_somebody_renamed_is_not_confirmed(bench: Bench) -> None:
    bench.sink.confirm()
    bench.sink.keep()
    bench.rename_collection()
    for look in (bench.sink.confirm, bench.sink.keep):
        with pytest.raises(CollectionLost, match="renamed"):
            look()


def test_a_collection_that_somebody_took_over_is_not_confirmed(bench: Bench) -> None:
    bench.take_over_collection()
    for look in (bench.sink.confirm, bench.sink.keep):
        with pytest.raises(ForeignCollection, match="belongs to"):
            look()


def test_pages_have_every_record_once_with_its_metadata(bench: Bench) -> None:
    bench.put_foreign("theirs", None)
    records, vectors = many(7)
    bench.sink.add(records, vectors)
    pages = [bench.sink.page(offset, 3) for offset in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 2, 0]
    found = {id_: metadata for page in pages for id_, metadata in page.items()}
    assert found == {record.id: record.metadata for record in records} | {"theirs": {}}


def test_a_document_whose_id_bears_no_tag_is_the_owners(bench: Bench) -> None:
    assert bench.sink.ours.has("a:1", {"document_id": "a"})
    assert not bench.sink.ours.has("cccccccc.a:1", {"document_id": "cccccccc.a"})


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_records_are_reachable_with_every_distance(client: "ClientAPI", name: str, space: Space) -> None:
    sink = opened(client, name, hnsw=HnswConfig(space=space))
    records, vectors = many(60)
    sink.add(records, vectors * np.arange(1, 61, dtype=np.float32)[:, np.newaxis])
    scaled = vectors * np.arange(1, 61, dtype=np.float32)[:, np.newaxis]
    assert sink.unreachable([each.id for each in records], scaled) == []
    sink.drop([records[7].id])
    assert (sink.unreachable([records[7].id], scaled[7:8]) == [records[7].id]) is (space != "ip")


def test_a_sink_goes_on_with_the_collection_that_bears_the_name_now(bench: Bench) -> None:
    before = bench.sink.collection_id
    bench.sink.reopen()
    if isinstance(bench, ChromaBench):
        assert bench.sink.collection_id == before, "nobody has replaced it"
        bench.rename_collection()
        with pytest.raises(CollectionLost):
            bench.sink.reopen()
        made = bench.client.create_collection(bench.name, metadata={"embedding_dimensions": 3}, embedding_function=None)
        bench.sink.reopen()
        assert bench.sink.collection_id == str(made.id)
    bench.sink.confirm()
    bench.sink.add([record("a")], rows((1, 0, 0)))
    assert bench.sink.ids() == ["a"]


def test_a_collection_that_was_replaced_by_one_of_its_name_is_not_confirmed(client: "ClientAPI", name: str) -> None:
    sink = opened(client, name)
    client.delete_collection(name)
    opened(client, name)
    with pytest.raises(CollectionLost, match="replaced"):
        sink.confirm()


# What only Chroma has: collections that are opened.


def opened(client: "ClientAPI", name: str, recipe: Recipe = RECIPE, hnsw: HnswConfig | None = None) -> ChromaSink:
    return open_sink(client, name, recipe, hnsw or HnswConfig(), fingerprint="f")


def metadata_of(client: "ClientAPI", name: str) -> dict[str, Any]:
    return dict(client.get_collection(name, embedding_function=None).metadata)


def test_a_new_collection_names_its_recipe(client: "ClientAPI", name: str) -> None:
    opened(client, name, Recipe("test", "letters", 3, document_prefix="passage: ", query_prefix="query: "))

    assert metadata_of(client, name) == {
        "ingestor_recipe": "f",
        "embedding_provider": "test",
        "embedding_model": "letters",
        "embedding_dimensions": 3,
        "document_prefix": "passage: ",
    }


def test_opening_again_finds_the_same_records(client: "ClientAPI", name: str) -> None:
    first = opened(client, name)
    first.add([record("a:1")], rows((1, 0, 0)))
    second = opened(client, name)

    assert second.collection_id == first.collection_id
    assert second.count() == 1
    assert second.unapplied == ()


def test_a_collection_that_was_made_again_has_another_id(client: "ClientAPI", name: str) -> None:
    first = opened(client, name)
    client.delete_collection(name)

    assert opened(client, name).collection_id != first.collection_id


@pytest.mark.parametrize(
    ("recipe", "space", "told"),
    [
        (Recipe("other", "letters", 3), "cosine", "other/letters"),
        (Recipe("test", "words", 3), "cosine", "test/words"),
        (Recipe("test", "letters", 4), "cosine", "4 dimensions"),
        (Recipe("test", "letters", 3, document_prefix="p: "), "cosine", "'p: '"),
        (RECIPE, "l2", "distance l2"),
    ],
)
def test_another_recipe_is_refused_and_both_are_named(
    client: "ClientAPI", name: str, recipe: Recipe, space: Space, told: str
) -> None:
    opened(client, name).add([record("a:1")], rows((1, 0, 0)))

    with pytest.raises(RecipeMismatch) as caught:
        opened(client, name, recipe, HnswConfig(space=space))

    assert "test/letters (3 dimensions, no document prefix, distance cosine)" in str(caught.value)
    assert told in str(caught.value)
    assert "INGESTOR_CHROMA__COLLECTION" in caught.value.remedy


def test_an_empty_collection_of_another_recipe_is_made_again(client: "ClientAPI", name: str) -> None:
    mistyped = opened(client, name, Recipe("test", "lettres", 4), HnswConfig(space="l2"))
    mended = opened(client, name)

    assert mended.collection_id != mistyped.collection_id
    mended.add([record("a:1")], rows((1, 0, 0)))
    assert opened(client, name).count() == 1


def test_the_prefix_of_queries_may_change(client: "ClientAPI", name: str) -> None:
    opened(client, name, Recipe("test", "letters", 3, document_prefix="passage: "))
    opened(client, name, Recipe("test", "letters", 3, document_prefix="passage: ", query_prefix="query: "))


def test_dimensions_are_noted_by_the_first_add_of_a_model_that_does_not_tell(client: "ClientAPI", name: str) -> None:
    sink = opened(client, name, LEARNING)
    assert metadata_of(client, name)["embedding_dimensions"] == 0

    sink.add([record("a:1")], rows((1, 0, 0)))

    assert sink.dimensions == 3
    assert metadata_of(client, name)["embedding_dimensions"] == 3
    assert metadata_of(client, name)["embedding_model"] == "letters"
    assert opened(client, name, LEARNING).dimensions == 3
    with pytest.raises(RecipeMismatch):
        opened(client, name, Recipe("test", "letters", 5))


def test_dimensions_are_noted_when_the_settings_come_to_name_them(client: "ClientAPI", name: str) -> None:
    opened(client, name, LEARNING)
    opened(client, name, RECIPE)

    assert metadata_of(client, name)["embedding_dimensions"] == 3


def test_a_foreign_collection_with_records_is_refused_and_left_alone(client: "ClientAPI", name: str) -> None:
    foreign = client.create_collection(name, embedding_function=None, metadata={"owner": "me"})
    foreign.add(ids=["1"], embeddings=rows((1, 0, 0)), documents=["theirs"])

    with pytest.raises(ConfigError, match="not made by ingestor"):
        opened(client, name)
    assert metadata_of(client, name) == {"owner": "me"}


def test_an_empty_foreign_collection_is_taken_over_with_its_metadata(client: "ClientAPI", name: str) -> None:
    # The way to choose a distance that most tutorials still show: the key must not be in what is written back.
    client.create_collection(name, embedding_function=None, metadata={"owner": "me", "hnsw:space": "cosine"})
    opened(client, name).add([record("a:1")], rows((2, 0, 0)))

    sink = opened(client, name)

    assert metadata_of(client, name)["owner"] == "me"
    assert sink.search(rows((1, 0, 0))[0], 1, None, None)[0].score == pytest.approx(1, abs=1e-6)


def test_an_empty_foreign_collection_of_another_distance_is_refused(client: "ClientAPI", name: str) -> None:
    client.create_collection(name, embedding_function=None, configuration={"hnsw": {"space": "l2"}})

    with pytest.raises(RecipeMismatch, match="l2"):
        opened(client, name)


def test_search_effort_follows_the_settings_and_construction_does_not(client: "ClientAPI", name: str) -> None:
    opened(client, name)
    sink = opened(client, name, hnsw=HnswConfig(ef_search=250, sync_threshold=700, ef_construction=200))

    index = client.get_collection(name, embedding_function=None).configuration_json["hnsw"]
    assert (index["ef_search"], index["sync_threshold"], index["ef_construction"]) == (250, 700, 64)
    assert len(sink.unapplied) == 1
    assert "ef_construction is 64" in sink.unapplied[0]


@pytest.mark.parametrize(("space", "score"), [("cosine", 0.6), ("ip", 12.0), ("l2", 1 / 18)])
def test_scores_are_higher_for_better_whatever_the_distance(
    client: "ClientAPI", name: str, space: Space, score: float
) -> None:
    sink = opened(client, name, hnsw=HnswConfig(space=space))
    sink.add([record("a:1"), record("a:2")], rows((3, 4, 0), (-3, -4, 0)))

    near, far = sink.search(rows((4, 0, 0))[0], 2, None, None)

    assert near.id == "a:1"
    assert near.score == pytest.approx(score, abs=1e-5)
    assert near.score > far.score


@pytest.mark.parametrize("name_to_refuse", ["ab", "a b c", "文档", "a" * 513])
def test_a_name_that_chroma_refuses_is_an_error_of_the_settings(client: "ClientAPI", name_to_refuse: str) -> None:
    with pytest.raises(ConfigError, match="Chroma refused"):
        opened(client, name_to_refuse)


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([], []),
        ([10] * 500, [500]),
        ([10] * 501, [500, 1]),
        ([1_000_000] * 8, [3, 3, 2]),
        ([10, 50_000_000, 10], [1, 1, 1]),
    ],
)
def test_batches_are_bodies_that_chroma_takes(lengths: list[int], sizes: list[int]) -> None:
    bounds = list(_bounds([_body_bytes({"source": "a.md"}, "x" * length, 1_024) for length in lengths]))

    assert [stop - start for start, stop in bounds] == sizes
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds)][: len(bounds)]


def test_a_record_that_no_body_can_carry_is_rejected(http_client: "ClientAPI", name: str) -> None:
    sink = opened(http_client, name)

    with pytest.raises(RejectedByChroma, match="too large"):
        sink.add([record("a:1", "x" * 42_000_000)], rows((1, 0, 0)))
    assert sink.count() == 0


@pytest.mark.parametrize("field", ["ef_construction", "ef_search", "max_neighbors", "sync_threshold", "num_threads"])
def test_numbers_that_chroma_would_take_in_silence_are_refused(field: str) -> None:
    numbers: dict[str, Any] = {field: 0}

    with pytest.raises(ConfigError, match=field):
        HnswConfig(**numbers)


def test_a_distance_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="manhattan"):
        HnswConfig(space=cast("Space", "manhattan"))


# What only the double has: faults.


def test_an_injected_fault_comes_before_or_after_the_write() -> None:
    sink = MemorySink()
    sink.fail("add", ServiceUnavailable("no"))
    sink.fail("add", ServiceUnavailable("late"), is_after=True)

    with pytest.raises(ServiceUnavailable, match="no"):
        sink.add([record("a:1")], rows((1, 0, 0)))
    assert sink.count() == 0
    with pytest.raises(ServiceUnavailable, match="late"):
        sink.add([record("a:1")], rows((1, 0, 0)))
    assert sink.count() == 1
    sink.add([record("a:2")], rows((1, 0, 0)))
    assert [verb for verb, _ in sink.calls] == ["add", "count", "add", "count", "add"]


NAMED = Function("openai", {"api_key_env_var": "A_KEY", "model_name": "letters", "api_base": "http://one/v1"})
OURS = Function("ingestor", {"model": "letters", "dimensions": 3, "query_prefix": "query: ", "sends_dimensions": True})


def named(client: "ClientAPI", name: str) -> dict[str, Any]:
    held = client.get_collection(name, embedding_function=None).configuration_json["embedding_function"]
    return cast("dict[str, Any]", held)


def naming(client: "ClientAPI", name: str, function: Function | None) -> ChromaSink:
    return open_sink(client, name, RECIPE, HnswConfig(), fingerprint="f", function=function)


def test_a_new_collection_names_the_function_that_makes_vectors_of_questions(client: "ClientAPI", name: str) -> None:
    sink = naming(client, name, NAMED)
    assert named(client, name) == {"type": "known", "name": "openai", "config": dict(NAMED.config)}
    assert sink.unapplied == ()


@pytest.mark.parametrize("before", [None, OURS, NAMED], ids=["none", "ours", "openai"])
def test_a_collection_that_exists_names_the_function_from_its_next_opening(
    client: "ClientAPI", name: str, before: Function | None
) -> None:
    naming(client, name, before).add([record("a:1")], rows((1, 0, 0)))
    moved = Function("openai", {**NAMED.config, "api_base": "http://two/v1"})
    sink = naming(client, name, moved)
    assert named(client, name)["config"] == dict(moved.config)
    assert sink.unapplied == ()
    assert sink.count() == 1
    sink.add([record("a:2")], rows((0, 1, 0)))
    assert sorted(sink.ids()) == ["a:1", "a:2"]


@pytest.mark.parametrize("function", [None, NAMED], ids=["none", "the same"])
def test_an_opening_that_changes_no_function_writes_nothing(
    client: "ClientAPI", name: str, monkeypatch: pytest.MonkeyPatch, function: Function | None
) -> None:
    naming(client, name, NAMED)

    def write(*_: object, **__: object) -> None:
        pytest.fail("an opening without news has written")

    monkeypatch.setattr("chromadb.api.models.Collection.Collection.modify", write)
    assert naming(client, name, function).unapplied == ()
    assert named(client, name)["config"] == dict(NAMED.config)


def test_a_function_that_somebody_else_has_chosen_stays_and_is_told(client: "ClientAPI", name: str) -> None:
    naming(client, name, None)
    theirs = Function("sentence_transformer", {"model_name": "letters"})
    client.get_collection(name, embedding_function=None).modify(
        configuration={"embedding_function": stand_in(theirs)},
    )
    sink = naming(client, name, NAMED)
    assert named(client, name)["name"] == "sentence_transformer"
    assert any("'sentence_transformer'" in sentence for sentence in sink.unapplied)
    sink.add([record("a:1")], rows((1, 0, 0)))
    assert sink.count() == 1


def test_a_function_that_the_server_refuses_is_told_and_stops_nobody(
    client: "ClientAPI", name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    naming(client, name, None)

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no functions here")

    monkeypatch.setattr("chromadb.api.models.Collection.Collection.modify", refuse)
    sink = naming(client, name, NAMED)
    assert any("no functions here" in sentence for sentence in sink.unapplied)
    sink.add([record("a:1")], rows((1, 0, 0)))
    assert sink.count() == 1


def test_no_function_is_built_and_no_package_of_one_imported_by_writing(
    client: "ClientAPI", name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chroma's client builds it with every call: the real one would want a key, and tell of it by a warning."""
    naming(client, name, NAMED)
    # As in a process that has not made the collection itself.
    monkeypatch.setitem(cast("dict[str, Any]", known_embedding_functions), "openai", OpenAIEmbeddingFunction)
    sink = naming(client, name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sink.add([record("a:1")], rows((1, 0, 0)))
        sink.retag([retag("a:1", title="t")])
        again = open_sink(client, name, RECIPE, HnswConfig(ef_search=77), fingerprint="f")
    assert again.unapplied == ()
