"""Records and collections by hand, over a real Chroma server, a loopback provider, and the settings that name them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing
from pydantic import BaseModel

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.ledger import SqliteLedger
from ingestor.app import collections, query, records
from ingestor.core.errors import ConfigError, OversizeDocument, RecipeMismatch, ServiceUnavailable, UnreadableDocument
from ingestor.core.model import Hit
from ingestor.core.profiles import profile_for
from ingestor.core.records import Selection
from ingestor.engine.verify import FOREIGN_NOTE
from ingestor.settings import ChromaSettings, EmbeddingSettings, Loaded, Settings
from tests.daemon import KEY, free_port
from tests.embedding_server import EmbeddingServer, vector_of

# Chroma itself makes a collection without an embedding function "legacy", and warns of it when one is modified.
pytestmark = pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning:chromadb")

DIMENSIONS = 8
MODEL = "unheard-of-model"
NO_PARTS: Mapping[str, Any] = {"texts": [], "ids": [], "metadatas": [], "embeddings": []}
VECTOR = [1.0] + [0.0] * (DIMENSIONS - 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    server = ChromaServer(tmp_path_factory.mktemp("served"), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, api_key=KEY) as provider:
        yield provider


@pytest.fixture
def settings(server: ChromaServer, provider: EmbeddingServer, tmp_path: Path) -> Iterator[Settings]:
    """A configured collection that is there and empty."""
    embedding = EmbeddingSettings.model_validate(
        {"provider": "openai", "model": MODEL, "base_url": provider.base_url, "api_key": KEY, "dimensions": DIMENSIONS}
    )
    chroma = ChromaSettings(mode="http", port=server.port, collection="documents")
    settings = Settings(data_dir=tmp_path / "data", watch_dir=tmp_path, embedding=embedding, chroma=chroma)
    collections.create(settings, "documents", {}, {}, is_foreign=False)
    yield settings
    client = connect("http", port=server.port)
    for collection in client.list_collections():
        client.delete_collection(collection.name)
    disconnect(client)


def changed(settings: Settings, group: str, **values: object) -> Settings:
    held: BaseModel = getattr(settings, group)
    return settings.model_copy(update={group: held.model_copy(update=values)})


def add(settings: Settings, name: str | None = None, *, replaces: bool = False, **parts: Any) -> records.Written:  # noqa: ANN401
    return records.add(settings, name, **{**NO_PARTS, **parts}, replaces=replaces)


def update(settings: Settings, name: str | None = None, **parts: Any) -> records.Written:  # noqa: ANN401
    return records.update(settings, name, **{**NO_PARTS, **parts})


def search(settings: Settings, question: str | Sequence[object], **parts: Any) -> list[Hit]:  # noqa: ANN401
    filters = {"limit": 5, "where": None, "where_document": None, **parts}
    return asyncio.run(query.query(settings, question, **filters))


def held(settings: Settings, name: str | None = None) -> dict[str, tuple[str | None, Mapping[str, Any] | None]]:
    page = records.get(settings, name, Selection(), limit=100)
    return {record.id: (record.document, record.metadata) for record in page.records}


def put(settings: Settings, identity: str, metadata: dict[str, str]) -> None:
    """A record as the daemon, or anybody, writes it."""
    client = connect("http", port=settings.chroma.port)
    collection = client.get_collection(settings.chroma.collection, embedding_function=None)
    collection.add(
        ids=[identity], embeddings=np.array([VECTOR], dtype=np.float32), metadatas=[metadata], documents=["text"]
    )
    disconnect(client)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "nothing to add"),
        ({"texts": ["a", "b"], "ids": ["1"]}, "--id is given 1 times, for 2 records"),
        ({"texts": ["a", "b"], "metadatas": [{"k": 1}] * 3}, "--metadata is given 3 times"),
        ({"texts": ["a", "b"], "embeddings": [VECTOR]}, "--embedding is given 1 times"),
        ({"texts": ["a"], "embeddings": [VECTOR] * 2}, "--document or --file is given 1 times, for 2 records"),
        ({"texts": ["a", "b"], "ids": ["1", "1"]}, "'1' is given twice"),
        ({"texts": [" \n"]}, "a document is empty"),
        ({"texts": ["a\x1b[2J"]}, r"\x1b"),
        ({"texts": ["a"], "ids": ["\udcff"]}, r"\xff"),
        ({"texts": ["a"], "ids": [f"{'0' * 32}:{'1' * 32}"]}, "records of files"),
        ({"texts": ["a"], "ids": ["x:1"], "metadatas": [{"document_id": "x"}]}, "look like a file's"),
        ({"embeddings": [[1, 2]]}, "has 2 numbers, and the vectors of the collection 'documents' have 8"),
        ({"embeddings": ["text"]}, "JSON array of finite numbers"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else None,
)
def test_what_is_no_record_is_refused_before_anything_is_paid_or_written(
    settings: Settings, provider: EmbeddingServer, parts: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        add(settings, **parts)
    assert words in refused.value.sentence
    assert refused.value.remedy
    assert (provider.requests, held(settings)) == (0, {})


def test_a_text_over_the_model_s_limit_is_an_error_that_names_it(settings: Settings, provider: EmbeddingServer) -> None:
    limit = profile_for("openai", MODEL).max_text_tokens
    fits, exceeds = "海" * limit, "海" * (limit + 1)
    add(settings, ids=["a"], texts=[fits])
    with pytest.raises(ConfigError, match=f"{MODEL}: {limit:,} tokens a text"):
        add(settings, texts=[exceeds])
    with pytest.raises(ConfigError, match=f"{MODEL}: {limit:,} tokens a text"):
        update(settings, ids=["a"], texts=[exceeds])
    assert provider.texts == 1


def test_equal_texts_are_paid_once_and_every_record_has_its_vector(
    settings: Settings, provider: EmbeddingServer
) -> None:
    written = add(settings, texts=["a pier", "an anchor", "a pier"])
    assert (len(set(written.ids)), written.usage.texts, provider.texts) == (3, 2, 2)
    update(settings, ids=[written.ids[1]], texts=["a pier"])
    assert provider.texts == 2
    page = records.get(settings, None, Selection(), parts=["documents", "embeddings"], limit=10)
    for record in page.records:
        assert record.document == "a pier"
        assert record.embedding == pytest.approx(vector_of("a pier", DIMENSIONS), abs=1e-5)


def test_records_of_files_are_refused_all_together_and_the_files_named(settings: Settings) -> None:
    put(settings, "d1:x", {"document_id": "d1", "source": "notes/a.md"})
    put(settings, "d2:x", {"document_id": "d2", "source": "notes/b.md"})
    # The same key as others use it, LlamaIndex for one.
    put(settings, "theirs", {"document_id": "d3", "source": "c.md"})
    add(settings, ids=["mine"], texts=["a pier"], metadatas=[{"by": "Ada"}])
    before = held(settings)
    all_ids = ["d1:x", "mine", "d2:x"]
    attempts: list[Callable[[], object]] = [
        lambda: records.delete(settings, None, Selection(all_ids)),
        lambda: records.delete(settings, None, Selection(where={"by": {"$ne": "Eve"}})),
        lambda: update(settings, ids=all_ids, metadatas=[{"by": "Eve"}]),
        lambda: add(settings, ids=all_ids, texts=["1", "2", "3"], replaces=True),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigError, match=r"belong to files: notes/a\.md, notes/b\.md"):
            attempt()
    with pytest.raises(ConfigError, match="look like a file's"):
        add(settings, ids=["d9:new"], texts=["x"], metadatas=[{"document_id": "d9"}])
    add(settings, ids=["late:1"], texts=["x"])
    with pytest.raises(ConfigError, match="look like a file's"):
        update(settings, ids=["late:1"], metadatas=[{"document_id": "late"}])
    records.delete(settings, None, Selection(["late:1"]))
    assert held(settings) == before
    assert records.delete(settings, None, Selection(["theirs", "mine"])).ids == ["theirs", "mine"]


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda s: update(s, ids=["gone"], texts=["x"]), "has no record 'gone'"),
        (lambda s: update(s, ids=["a"]), "nothing is to be changed"),
        (lambda s: add(s, ids=["a"], texts=["x"]), "records of these ids already: 'a'"),
        (lambda s: records.delete(s, None, Selection(["a", "gone"])), "has no record 'gone'"),
        (lambda s: records.delete(s, None, Selection()), "nothing says which records"),
        (lambda s: records.delete(s, None, Selection(where={"k": {"$is": 1}})), "Expected where operator"),
        (lambda s: records.get(s, None, Selection(["gone"]), limit=1), "has no record 'gone'"),
        (lambda s: records.get(s, None, Selection(where={"k": 1, "l": 2}), limit=1), "exactly one operator"),
        (lambda s: records.count(s, "nobody"), "there is no collection 'nobody'"),
        (lambda s: search(s, "x", ids=["a", "gone"]), "has no record 'gone'"),
        (lambda s: search(s, [1, 2]), "has 2 numbers"),
        (lambda s: search(s, "x", collection="nobody"), "there is no collection 'nobody'"),
    ],
    ids=range(12),
)
def test_what_is_not_there_is_named(settings: Settings, attempt: Callable[[Settings], object], words: str) -> None:
    add(settings, ids=["a"], embeddings=[VECTOR])
    with pytest.raises(ConfigError) as refused:
        attempt(settings)
    assert words in refused.value.sentence
    assert list(held(settings)) == ["a"]


def test_a_collection_of_somebody_else_takes_and_answers_vectors_only(
    settings: Settings, provider: EmbeddingServer
) -> None:
    collections.create(settings, "theirs", {}, {"space": "l2"}, is_foreign=True)
    written = add(settings, "theirs", texts=["a pier"], ids=["a"], embeddings=[[3.0, 4.0]])
    assert written.ids == ["a"]
    attempts: list[Callable[[], object]] = [
        lambda: add(settings, "theirs", texts=["a pier"]),
        lambda: update(settings, "theirs", ids=["a"], texts=["a pier"]),
        lambda: search(settings, "a pier", collection="theirs"),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigError, match="'theirs' was not made by ingestor"):
            attempt()
    (hit,) = search(settings, [3.0, 4.0], collection="theirs")
    assert (hit.id, hit.distance, hit.score) == ("a", 0.0, 1.0)
    update(settings, "theirs", ids=["a"], metadatas=[{"k": [1, 2]}])
    assert held(settings, "theirs") == {"a": ("a pier", {"k": [1, 2]})}
    records.delete(settings, "theirs", Selection(["a"]))
    assert records.count(settings, "theirs") == 0
    assert provider.requests == 0


def test_a_collection_built_with_another_recipe_is_an_error_that_names_both(
    settings: Settings, provider: EmbeddingServer
) -> None:
    other = changed(settings, "embedding", model="another-model")
    collections.create(other, "older", {}, {}, is_foreign=False)
    add(other, "older", texts=["a pier"], ids=["a"])
    attempts: list[Callable[[], object]] = [
        lambda: add(settings, "older", texts=["an anchor"]),
        lambda: update(settings, "older", ids=["a"], texts=["an anchor"]),
        lambda: search(settings, "an anchor", collection="older"),
    ]
    for attempt in attempts:
        with pytest.raises(RecipeMismatch, match=f"another-model.*{MODEL}"):
            attempt()
    assert provider.texts == 1
    assert held(settings, "older") == {"a": ("a pier", None)}
    # What needs no model works all the same; and another distance is no other recipe.
    update(settings, "older", ids=["a"], metadatas=[{"k": 1}])
    collections.create(settings, "far", {}, {"space": "l2"}, is_foreign=False)
    add(settings, "far", texts=["a pier"], ids=["b"])
    (hit,) = search(settings, "a pier", collection="far")
    assert hit.id == "b"
    assert hit.score == pytest.approx(1.0, abs=1e-4)


def test_the_length_of_vectors_that_nobody_knew_is_noted_with_the_first(
    settings: Settings, provider: EmbeddingServer
) -> None:
    learning = changed(changed(settings, "embedding", dimensions=None), "chroma", collection="learning")
    add(learning, texts=["a pier"])  # the configured collection is made where it is missing
    (row,) = [row for row in collections.listed(learning) if row.name == "learning"]
    assert (row.dimensions, row.metadata["embedding_dimensions"]) == (DIMENSIONS, DIMENSIONS)
    assert provider.texts == 1
    with pytest.raises(ConfigError, match="has 2 numbers"):
        add(learning, embeddings=[[1, 2]])


def test_a_search_is_among_the_ids_that_were_given(settings: Settings) -> None:
    add(settings, ids=["a", "b", "c"], texts=["a pier", "an anchor", "a rope"])
    assert {hit.id for hit in search(settings, "a pier", ids=["b", "c"])} == {"b", "c"}
    assert [hit.id for hit in search(settings, VECTOR, ids=["b"])] == ["b"]
    assert search(settings, "a pier", ids=["b"], where={"k": 1}) == []


def test_records_are_shown_page_by_page(settings: Settings) -> None:
    add(
        settings, ids=list("abc"), embeddings=[VECTOR] * 3, metadatas=[{"source": "x.md"}, {"k": 1}, {"source": "x.md"}]
    )
    page = records.get(settings, None, Selection(), limit=2)
    assert ([record.id for record in page.records], page.has_more) == (["a", "b"], True)
    page = records.get(settings, None, Selection(), limit=2, offset=2)
    assert ([record.id for record in page.records], page.has_more) == (["c"], False)
    page = records.get(settings, None, Selection(where={"source": {"$ne": "y"}}), source="x.md", limit=5)
    assert [record.id for record in page.records] == ["a", "c"]


def test_the_ledger_s_count_of_foreign_records_follows(settings: Settings) -> None:
    settings.data_dir.mkdir(exist_ok=True)
    with closing(SqliteLedger(settings.data_dir / "ledger.sqlite3")) as ledger:
        add(settings, ids=["a", "b"], texts=["a pier", "an anchor"])
        assert ledger.note(FOREIGN_NOTE) == "2"
        add(settings, ids=["b", "c"], texts=["a pier", "a rope"], replaces=True)
        assert ledger.note(FOREIGN_NOTE) == "3"
        collections.create(settings, "extra", {}, {}, is_foreign=False)
        add(settings, "extra", texts=["a pier"])
        records.delete(settings, None, Selection(["a", "c"]))
        assert ledger.note(FOREIGN_NOTE) == "1"


def test_a_ledger_that_is_locked_for_long_fails_no_write(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.data_dir.mkdir(exist_ok=True)
    SqliteLedger(settings.data_dir / "ledger.sqlite3").close()

    def is_locked(*_: object) -> None:
        raise ServiceUnavailable("the ledger is locked")

    monkeypatch.setattr(SqliteLedger, "set_note", is_locked)
    with structlog.testing.capture_logs() as logs:
        add(settings, ids=["a"], texts=["a pier"])
    assert [entry["event"] for entry in logs] == ["foreign_records.not_noted"]
    assert list(held(settings)) == ["a"]


def test_files_that_are_no_text_of_a_record_are_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match="No such file"):
        records.read_file(settings, tmp_path / "gone.txt")
    with pytest.raises(UnreadableDocument, match="Is a directory"):
        records.read_file(settings, tmp_path)
    small = changed(settings, "watch", max_file_bytes=3)
    (tmp_path / "long.txt").write_text("four")
    with pytest.raises(OversizeDocument, match="more than 3 bytes"):
        records.read_file(small, tmp_path / "long.txt")


def test_a_database_in_this_process_works_alike_and_one_in_memory_is_refused(
    settings: Settings, provider: EmbeddingServer
) -> None:
    here = changed(settings, "chroma", mode="persistent")
    with pytest.raises(ConfigError, match="nothing has been indexed yet"):
        records.count(here, None)
    add(here, ids=["a"], texts=["a pier"])
    assert held(here) == {"a": ("a pier", None)}
    assert [hit.id for hit in search(here, "a pier")] == ["a"]
    assert [(row.name, row.count) for row in collections.listed(here)] == [("documents", 1)]
    assert collections.delete(here, "documents").records == 1
    assert provider.texts == 1
    nowhere = changed(settings, "chroma", mode="memory")
    with pytest.raises(ConfigError, match="in memory"):
        records.count(nowhere, None)
    with pytest.raises(ConfigError, match="in memory"):
        collections.listed(nowhere)


def loaded(settings: Settings, origin: str = "") -> Loaded:
    return Loaded(settings, {collections.SETTING: origin} if origin else {})


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda s: collections.delete(s, "nobody"), "there is no collection 'nobody'"),
        (lambda s: collections.rename(loaded(s), None, "nobody", "notes"), "there is no collection 'nobody'"),
        (lambda s: collections.rename(loaded(s), None, "documents", "a b"), "no collection can be called 'a b'"),
        (lambda s: collections.rename(loaded(s), None, "documents", "documents"), "'documents' already"),
        (lambda s: collections.create(s, "documents", {}, {}, is_foreign=True), "'documents' already"),
        (lambda s: collections.create(s, "new", {"a": [1]}, {}, is_foreign=False), "holds a list"),  # type: ignore[dict-item]
        (lambda s: collections.create(s, "new", {"ingestor_recipe": "x"}, {}, is_foreign=False), "not to be changed"),
        (lambda s: collections.modify(s, "documents", {}, {}), "nothing is to be changed"),
        (lambda s: collections.modify(s, "documents", {"embedding_model": None}, {}), "not to be changed"),
        (lambda s: collections.modify(s, "documents", {"document_prefix": "x"}, {}), "not to be changed"),
        (lambda s: collections.modify(s, "documents", {}, {"ef_search": 9}), "follows the settings"),
        (lambda s: collections.fork(s, "documents", "copy"), "only Chroma Cloud can fork"),
    ],
    ids=range(12),
)
def test_what_cannot_be_done_to_a_collection_is_told_and_not_done(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attempt: Callable[[Settings], object],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = collections.listed(settings)
    with pytest.raises(ConfigError) as refused:
        attempt(settings)
    assert words in refused.value.sentence
    assert refused.value.remedy
    assert collections.listed(settings) == before
    assert not (tmp_path / "ingestor.toml").exists()


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ("environment", "set INGESTOR_CHROMA__COLLECTION=notes in the environment"),
        (".env file", "set INGESTOR_CHROMA__COLLECTION=notes in the file .env"),
        ("secrets folder", "let the secret INGESTOR_CHROMA__COLLECTION hold notes"),
    ],
)
def test_what_sets_the_name_elsewhere_is_told(settings: Settings, origin: str, told: str) -> None:
    done = collections.rename(loaded(settings, origin), None, "documents", "notes")
    assert (done.changed_file, done.to_change) == ("", told)
    attempts: list[Callable[[], object]] = [
        lambda: add(settings, texts=["a pier"]),
        lambda: records.count(settings, None),
        lambda: search(settings, "a pier"),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigError, match="the settings name the collection 'documents'"):
            attempt()
    assert [row.name for row in collections.listed(settings)] == ["notes"]


def test_a_name_that_nothing_sets_is_written_into_the_settings_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = collections.rename(loaded(settings), None, "documents", "notes")
    assert (done.changed_file, done.to_change) == ("ingestor.toml", "")
    assert (tmp_path / "ingestor.toml").read_text() == '[chroma]\ncollection = "notes"\n'
    named = tmp_path / "named.toml"
    settings = changed(settings, "chroma", collection="notes")
    assert collections.rename(loaded(settings), named, "notes", "papers").changed_file == str(named)
    assert [row.name for row in collections.listed(settings)] == ["papers"]
