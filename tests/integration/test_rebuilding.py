"""Rebuilds over a real Chroma server and a real endpoint: what they cost, what stops them, and the way back."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.instance import Instance
from ingestor.app import collections, filling
from ingestor.app.beside import kept, unfinished
from ingestor.app.prune import prune as prune_records
from ingestor.app.query import query
from ingestor.app.rebuild import Rebuilt, abandon, prune, rebuild, rollback
from ingestor.app.sync import Report, sync
from ingestor.cli import rebuild as command
from ingestor.core.backoff import Backoff
from ingestor.core.errors import AlreadyRunning, AuthenticationFailed, ConfigError, RecipeMismatch
from ingestor.engine import comparing, pipeline
from ingestor.engine.carrying import carry
from ingestor.settings import Settings
from tests.checker import client_of, document_ids, served
from tests.daemon import KEY, Site, assert_equal, free_port, provider_settings
from tests.embedding_server import EmbeddingServer, Fault, FaultKind, vector_of

OLD_DIMENSIONS, NEW_DIMENSIONS = 64, 32


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    server = ChromaServer(tmp_path_factory.mktemp("chroma"), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=OLD_DIMENSIONS, api_key=KEY) as server:
        yield server


class Place:
    """A folder, a data folder, and a Chroma server that is elsewhere."""

    def __init__(self, site: Site, provider: EmbeddingServer) -> None:
        self.site = site
        self.provider = provider

    def settings(
        self, dimensions: int = OLD_DIMENSIONS, *, hnsw: dict[str, Any] | None = None, **embedding: object
    ) -> Settings:
        fields = {
            "provider": "openai",
            "base_url": self.provider.base_url,
            "api_key": KEY,
            "model": "unheard-of-model",
            "max_batch_inputs": 4,
        }
        return Settings.model_validate(
            {
                "watch_dir": self.site.folder,
                "data_dir": self.site.data_dir,
                "embedding": fields | {"dimensions": dimensions} | embedding,
                "chroma": {"mode": "http", "port": self.site.port, "hnsw": hnsw or {}},
            }
        )

    def fill(self, count: int) -> None:
        for number in range(count):
            self.write(f"text-{number}.txt", f"The text with the number {number} tells of itself.")

    def write(self, name: str, text: str) -> None:
        (self.site.folder / name).write_text(text, encoding="utf-8")

    async def sync(self, settings: Settings | None = None) -> Report:
        return await sync(settings or self.settings(), lambda _: None)

    async def rebuild(self, settings: Settings, *, drops_foreign: bool = False) -> Rebuilt:
        return await rebuild(settings, lambda _: None, drops_foreign=drops_foreign)

    def assert_equal(self, dimensions: int) -> dict[str, str]:
        with served(self.site.port) as read:
            rows = read()
        assert_equal(self.site.folder, rows, dimensions=dimensions)
        return document_ids(rows)

    def names(self) -> list[str]:
        with client_of(self.site.port) as client:
            return sorted(collection.name for collection in client.list_collections())


@pytest.fixture
def place(tmp_path: Path, provider: EmbeddingServer, chroma: ChromaServer) -> Iterator[Place]:
    settings = provider_settings(provider, CHROMA__MODE="http", CHROMA__PORT=chroma.port)
    with client_of(chroma.port) as client:
        for collection in client.list_collections():
            client.delete_collection(collection.name)
    with Site(tmp_path, settings) as site:
        site.port = chroma.port
        yield Place(site, provider)


async def test_a_rollback_takes_the_old_collection_back_and_nothing_is_paid_again(place: Place) -> None:
    place.fill(5)
    await place.sync()
    ids = place.assert_equal(OLD_DIMENSIONS)
    new = place.settings(NEW_DIMENSIONS)
    with pytest.raises(ConfigError, match="no old collection is kept"):
        await rollback(new)
    done = await place.rebuild(new)
    assert done.is_switched
    assert place.names() == ["documents", done.kept]
    assert place.assert_equal(NEW_DIMENSIONS) == ids
    assert done.comparison == {
        "documents": 5,
        "serving_documents": 5,
        "chunks": 5,
        "serving_chunks": 5,
        "problems": 0,
        "sampled": 5,
        "found": 5,
        "carried": 0,
        "differences": (),
    }
    (place.site.folder / "text-0.txt").rename(place.site.folder / "renamed.txt")
    assert (await place.sync(new)).documents["renamed"] == 1

    back = await rollback(new)
    assert (back.model, back.chunks) == (f"openai/unheard-of-model@{OLD_DIMENSIONS}", 5)
    assert place.names() == ["documents", "documents-next"]
    assert (await query(new, "number 3", limit=5, where=None, where_document=None))[0].document
    assert (await place.sync()).documents["renamed"] == 1
    place.assert_equal(OLD_DIMENSIONS)
    assert not (await place.rebuild(place.settings())).is_needed

    assert (await place.rebuild(new)).is_switched
    place.assert_equal(NEW_DIMENSIONS)
    assert place.provider.texts == 5 + 5 + 1  # and the question
    with pytest.raises(ConfigError, match="is still kept") as refused:
        await place.rebuild(place.settings(16))
    assert "--prune" in refused.value.remedy
    assert (await prune(new)).chunks == 5
    assert place.names() == ["documents"]
    assert (unfinished(new), kept(new)) == (None, None)


async def test_another_distance_or_index_costs_nothing(place: Place) -> None:
    place.fill(3)
    await place.sync()
    distance = place.settings(hnsw={"space": "l2"})
    with pytest.raises(RecipeMismatch) as refused:
        await place.sync(distance)
    assert "ingestor rebuild" in refused.value.remedy
    assert (await place.rebuild(distance)).is_switched
    await prune(distance)
    assert (await place.rebuild(place.settings(hnsw={"space": "l2", "max_neighbors": 16}))).is_switched
    assert place.provider.texts == 3
    place.assert_equal(OLD_DIMENSIONS)


async def test_a_refused_key_ends_a_rebuild_that_goes_on_or_can_be_dropped(place: Place) -> None:
    place.fill(6)
    await place.sync()
    with pytest.raises(ExceptionGroup) as ended:
        await place.rebuild(place.settings(NEW_DIMENSIONS, api_key="wrong"))
    assert ended.value.split(AuthenticationFailed)[1] is None
    place.assert_equal(OLD_DIMENSIONS)
    found = unfinished(place.settings())
    assert found is not None
    assert (found.documents, found.documents_expected) == (0, 6)
    assert (await abandon(place.settings(16))).name == "documents-next"
    assert place.names() == ["documents"]
    with pytest.raises(ConfigError, match="no rebuild is unfinished"):
        await abandon(place.settings(16))
    with pytest.raises(ExceptionGroup):
        await place.rebuild(place.settings(NEW_DIMENSIONS, api_key="wrong"))
    # One that holds nothing yet makes place for another recipe by itself.
    assert (await place.rebuild(place.settings(16))).is_switched
    assert place.provider.texts == 6 + 6
    place.assert_equal(16)
    assert (await rollback(place.settings(16))).model == f"openai/unheard-of-model@{OLD_DIMENSIONS}"
    dropped = await abandon(place.settings(16))
    assert (dropped.model, dropped.chunks) == ("openai/unheard-of-model@16", 6)


async def test_a_provider_that_goes_away_in_the_middle_ends_a_rebuild_that_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.fill(12)
    await place.sync()
    new = place.settings(NEW_DIMENSIONS, max_concurrency=1)
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "EMBEDDING_RETRY", Backoff(0.01, 0.02, max_attempts=2))
        patched.setattr(filling, "PATIENCE_SECONDS", 0.0)
        for kind in (FaultKind.BASE64, *[FaultKind.STATUS] * 20):  # the first call is answered
            place.provider.inject(Fault(kind))
        done = await place.rebuild(new)
    assert not done.is_switched
    assert "HTTP 500" in done.outage
    place.assert_equal(OLD_DIMENSIONS)
    with client_of(place.site.port) as client:
        assert client.get_collection("documents-next", embedding_function=None).count() == 4
    place.provider._faults.clear()
    assert (await place.rebuild(new)).is_switched
    place.assert_equal(NEW_DIMENSIONS)
    assert place.provider.texts == 12 + 12


async def test_what_a_rebuild_left_that_died_before_it_had_a_ledger_goes_only_if_it_is_empty(place: Place) -> None:
    place.fill(2)
    await place.sync()
    with client_of(place.site.port) as client:
        client.create_collection("documents-next", embedding_function=None)
        for names in (["documents"], ["documents", "documents-next"]):
            with pytest.raises(ConfigError, match="no rebuild is unfinished"):
                await abandon(place.settings())
            assert place.names() == names
            left = client.get_or_create_collection("documents-next", embedding_function=None)
            left.add(ids=["somebody's"], embeddings=np.ones((1, 2), dtype=np.float32))


async def test_a_spent_budget_ends_a_rebuild_that_goes_on_the_next_day(place: Place) -> None:
    place.fill(24)
    await place.sync()
    limit = place.provider.counters.tokens + 130
    done = place.site.command(
        "rebuild",
        INGESTOR_EMBEDDING__MAX_TOKENS_PER_DAY=str(limit),
        INGESTOR_EMBEDDING__MAX_BATCH_INPUTS="4",
        INGESTOR_EMBEDDING__DIMENSIONS=str(NEW_DIMENSIONS),
    )
    assert done.code == 4, done.err
    assert "in a day is spent" in done.err
    assert "`ingestor rebuild` goes on" in done.err
    assert 24 < place.provider.texts < 48
    place.assert_equal(OLD_DIMENSIONS)
    assert place.names() == ["documents", "documents-next"]
    with pytest.raises(RecipeMismatch, match="a rebuild is unfinished") as refused:
        await place.rebuild(place.settings(16))
    assert "--abandon" in refused.value.remedy
    (place.site.folder / "text-3.txt").unlink()
    assert (await place.rebuild(place.settings(NEW_DIMENSIONS))).is_switched
    place.assert_equal(NEW_DIMENSIONS)
    assert place.provider.texts <= 48


async def test_records_of_others_are_carried_over_and_those_without_a_text_stop_the_switch(place: Place) -> None:
    place.fill(3)
    await place.sync()
    with client_of(place.site.port) as client:
        collection = client.get_collection("documents", embedding_function=None)
        collection.add(
            ids=["by-hand", "with-metadata", "wordless"],
            embeddings=np.ones((3, OLD_DIMENSIONS), dtype=np.float32),
            documents=["Written by hand.", "With metadata.", None],  # type: ignore[list-item]  # Chroma takes it
            metadatas=[None, {"kind": "note", "rank": 2}, None],  # type: ignore[list-item]  # as above
        )
    stopped = place.site.command("rebuild", INGESTOR_EMBEDDING__DIMENSIONS=str(NEW_DIMENSIONS))
    assert stopped.code == 3, stopped.err
    assert "not switched: 1 records of others have no text that could be embedded (wordless)" in stopped.err
    assert "--drop-foreign" in stopped.err
    with client_of(place.site.port) as client:
        collection = client.get_collection("documents", embedding_function=None)
        collection.update(
            ids=["with-metadata"],
            documents=["With other words."],
            embeddings=np.ones((1, OLD_DIMENSIONS), dtype=np.float32),
        )
        collection.add(ids=["late"], embeddings=np.ones((1, OLD_DIMENSIONS), dtype=np.float32), documents=["Late."])
        collection.delete(ids=["by-hand"])

    done = await place.rebuild(place.settings(NEW_DIMENSIONS), drops_foreign=True)

    assert done.is_switched, done.comparison
    assert done.comparison["carried"] == 2
    assert place.provider.texts == 3 + 3 + 2 + 2
    with client_of(place.site.port) as client:
        page = client.get_collection("documents", embedding_function=None).get(
            ids=["by-hand", "with-metadata", "wordless", "late"], include=["metadatas", "documents", "embeddings"]
        )
    assert sorted(page["ids"]) == ["late", "with-metadata"]
    at = page["ids"].index("with-metadata")
    assert page["metadatas"] is not None
    assert page["embeddings"] is not None
    assert page["metadatas"][at] == {"kind": "note", "rank": 2}
    assert np.allclose(page["embeddings"][at], vector_of("With other words.", NEW_DIMENSIONS), atol=1e-5)
    assert (await place.sync(place.settings(NEW_DIMENSIONS))).chunks["dropped"] == 0


async def test_metadata_of_the_collection_itself_is_carried_over_as_it_is_at_the_switch(place: Place) -> None:
    place.fill(2)
    await place.sync()
    old, new = place.settings(), place.settings(NEW_DIMENSIONS)
    collections.modify(old, "documents", {"owner": "Ada", "rank": 1, "is_shared": True}, {})
    with client_of(place.site.port) as client:
        collection = client.get_collection("documents", embedding_function=None)
        collection.add(ids=["wordless"], embeddings=np.ones((1, OLD_DIMENSIONS), dtype=np.float32))
    stopped = await place.rebuild(new)
    assert not stopped.is_switched
    assert _noted(place, "documents-next") == {"owner": "Ada", "rank": 1, "is_shared": True}

    collections.modify(old, "documents", {"owner": None, "rank": 2.5}, {})
    done = await place.rebuild(new, drops_foreign=True)

    assert done.is_switched, done.comparison
    assert _noted(place, "documents") == _noted(place, done.kept) == {"rank": 2.5, "is_shared": True}
    assert (await place.sync(new)).embedding["texts"] == 0
    assert _noted(place, "documents") == {"rank": 2.5, "is_shared": True}
    with client_of(place.site.port) as client:
        assert client.get_collection("documents").metadata["embedding_dimensions"] == NEW_DIMENSIONS

    await prune_records(new)
    assert _noted(place, "documents") == {"rank": 2.5, "is_shared": True}


def _noted(place: Place, name: str) -> dict[str, object]:
    with client_of(place.site.port) as client:
        row = ChromaCatalog(client).find(name)
    assert row is not None
    return dict(collections.noted(row))


def _lost(count: int) -> Any:  # noqa: ANN401 - stands in for a method of the sink
    return lambda _self, ids, _vectors: list(ids)[:count]


@pytest.mark.parametrize("lost", [comparing.MAX_LOST_RECORDS, comparing.MAX_LOST_RECORDS + 1])
async def test_a_sample_that_is_not_found_stops_the_switch(
    place: Place, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    place.fill(4)
    await place.sync()
    monkeypatch.setattr("ingestor.adapters.chroma_sink.ChromaSink.unreachable", _lost(lost))
    done = await place.rebuild(place.settings(NEW_DIMENSIONS))
    assert done.is_switched == (lost <= comparing.MAX_LOST_RECORDS)
    assert done.comparison["found"] == 4 - lost
    place.assert_equal(NEW_DIMENSIONS if done.is_switched else OLD_DIMENSIONS)


async def test_what_the_new_model_refuses_stops_the_switch(place: Place) -> None:
    place.fill(3)
    await place.sync()
    place.provider.reject_marker = "number 1"
    done = await place.rebuild(place.settings(NEW_DIMENSIONS))
    assert not done.is_switched
    assert _told(done.comparison["differences"], "1 documents that are in the serving collection cannot be indexed")
    place.assert_equal(OLD_DIMENSIONS)
    place.provider.reject_marker = ""
    place.write("text-1.txt", "The text with the number one tells of itself.")
    assert (await place.rebuild(place.settings(NEW_DIMENSIONS))).is_switched
    place.assert_equal(NEW_DIMENSIONS)


async def test_a_record_of_the_next_collection_that_is_not_what_was_written_stops_the_switch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.fill(3)
    await place.sync()

    async def carry_and_harm(*arguments: Any) -> object:  # noqa: ANN401 - passed through as they come
        carried = await carry(*arguments)
        with client_of(place.site.port) as client:
            collection = client.get_collection("documents-next", embedding_function=None)
            collection.delete(ids=collection.get(include=[])["ids"][:1])
        return carried

    with monkeypatch.context() as patched:
        patched.setattr(filling, "carry", carry_and_harm)
        patched.setattr("ingestor.engine.verify.LOOK_PAUSE_SECONDS", 0.1)
        done = await place.rebuild(place.settings(NEW_DIMENSIONS))
    assert not done.is_switched
    assert _told(done.comparison["differences"], "missing")
    place.assert_equal(OLD_DIMENSIONS)
    assert (await place.rebuild(place.settings(NEW_DIMENSIONS))).is_switched
    place.assert_equal(NEW_DIMENSIONS)
    assert place.provider.texts == 3 + 3


def _told(differences: Sequence[str], words: str) -> bool:
    return any(words in difference for difference in differences)


async def test_what_a_rebuild_costs_is_told_before_it_is_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.fill(3)
    await place.sync()
    asked: list[str] = []

    def answer(sentence: str, **_: object) -> str:
        asked.append(sentence)
        return "y"

    monkeypatch.setattr("typer.prompt", answer)
    command._ask(place.settings(NEW_DIMENSIONS, model="text-embedding-3-small"))
    command._ask(place.settings())  # the same texts, whose vectors are there
    (sentence,) = asked
    assert sentence.startswith("3 texts, about ")
    assert "openai/text-embedding-3-small, for about 0.0000 USD. Go on?" in sentence


def test_two_commands_at_once_are_refused(place: Place) -> None:
    done = place.site.command("rebuild", "--prune", "--rollback")
    assert done.code == 2
    assert "--rollback and --prune are two commands" in done.err


async def test_beside_a_daemon_a_rebuild_is_refused_and_the_daemon_named_that_does_it(place: Place) -> None:
    daemon = Instance(place.site.data_dir)
    daemon.acquire()
    try:
        with pytest.raises(AlreadyRunning) as refused:
            await place.rebuild(place.settings())
    finally:
        daemon.release()
    assert "`ingestor run --rebuild`" in refused.value.remedy


async def test_nothing_indexed_and_a_collection_in_memory_cannot_be_rebuilt(place: Place) -> None:
    with pytest.raises(ConfigError, match="there is no collection 'documents'"):
        await place.rebuild(place.settings())
    settings = place.settings()
    in_memory = settings.model_copy(update={"chroma": settings.chroma.model_copy(update={"mode": "memory"})})
    with pytest.raises(ConfigError, match="in memory"):
        await place.rebuild(in_memory)
