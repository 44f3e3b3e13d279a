"""The recipe of the collection that is there, told from its metadata, and the model behind it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.adapters.chroma_catalog import CollectionRow
from ingestor.adapters.former_embedder import RETRY_SECONDS, FormerEmbedder
from ingestor.app.embedder import recipe_of
from ingestor.app.serving import Serving, serving_of
from ingestor.core.errors import AuthenticationFailed, ServiceUnavailable
from ingestor.core.model import Recipe
from ingestor.settings import Settings
from tests.doubles_embedder import HashEmbedder

OPENAI = {"provider": "openai", "model": "m", "dimensions": 8, "api_key": "k", "base_url": "http://127.0.0.1:9/v1"}


def settings(**embedding: Any) -> Settings:  # noqa: ANN401 - a test names the fields it means
    return Settings.model_validate({"data_dir": Path("nowhere"), "embedding": embedding})


def told(space: str = "cosine", **fields: Any) -> CollectionRow:  # noqa: ANN401 - as above
    held = {"embedding_provider": "openai", "embedding_model": "m", "embedding_dimensions": 8, "document_prefix": ""}
    return CollectionRow("id", "documents", held | fields, {"hnsw": {"space": space}})


def test_a_collection_of_the_settings_is_opened_with_them() -> None:
    chosen = settings(**OPENAI)
    found = serving_of(chosen, told())
    assert (found.is_former, found.has_other_model, found.embedder()) == (False, False, None)
    assert found.settings.embedding is chosen.embedding
    # A model that tells its length with its first answer is the same whatever it has told.
    assert not serving_of(settings(**(OPENAI | {"dimensions": None})), told()).is_former


@pytest.mark.parametrize(
    "changed",
    [
        {"embedding_model": "older"},
        {"embedding_dimensions": 16},
        {"document_prefix": "passage: "},
        {"embedding_provider": "ollama"},
    ],
    ids=["model", "dimensions", "prefix", "provider"],
)
async def test_a_collection_of_another_recipe_is_embedded_for_by_that_recipe(changed: dict[str, Any]) -> None:
    row = told(**changed)
    found = serving_of(settings(**OPENAI), row)
    assert (found.is_former, found.has_other_model, found.reason) == (True, True, "")
    assert (
        found.recipe.provider,
        found.recipe.model,
        found.recipe.dimensions,
        found.recipe.document_prefix,
    ) == tuple(row.metadata.values())
    embedder = found.embedder()
    assert isinstance(embedder, FormerEmbedder)
    assert embedder.recipe == found.recipe
    assert recipe_of(found.settings.embedding).model == found.recipe.model
    await embedder.close()


def test_another_distance_alone_needs_no_other_model() -> None:
    found = serving_of(settings(**OPENAI), told("l2"))
    assert (found.is_former, found.has_other_model, found.settings.chroma.hnsw.space) == (True, False, "l2")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (told(embedding_provider="bygone"), "bygone"),
        (told(embedding_provider="local", embedding_model="bygone"), "bygone"),
        (told(embedding_provider="dashscope", embedding_model="text-embedding-v4", embedding_dimensions=64), "key"),
    ],
    ids=["provider", "model", "key"],
)
async def test_a_model_that_cannot_be_had_is_named_once_and_makes_texts_wait(
    row: CollectionRow, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    found = serving_of(settings(**OPENAI), row)
    assert found.is_former
    embedder = found.embedder()
    assert embedder is not None
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match=why) as refused:
            await embedder.embed(["text"])
        assert refused.value.retry_after_seconds == RETRY_SECONDS
    await embedder.open()
    await embedder.close()
    assert capsys.readouterr().out.count("rebuild.model_absent") == 1


async def test_what_would_be_fatal_for_the_old_model_is_an_outage() -> None:
    inner = HashEmbedder()
    recipe = Recipe("openai", "m", 8, "passage: ")
    embedder = FormerEmbedder(recipe, inner)
    vectors, _ = await embedder.embed(["passage: text"])
    assert np.array_equal(vectors, (await inner.embed(["passage: text"]))[0])
    assert embedder.max_batch_inputs == inner.max_batch_inputs

    async def refuse(_: object) -> None:
        raise AuthenticationFailed("the key is refused")

    inner.embed = refuse  # type: ignore[method-assign,assignment]  # the provider has changed its mind
    with pytest.raises(ServiceUnavailable, match="the key is refused"):
        await embedder.embed(["text"])


def test_a_collection_of_somebody_else_is_taken_for_what_the_settings_say() -> None:
    found = serving_of(settings(**OPENAI), CollectionRow("id", "documents", {}, {}))
    assert found == Serving(found.settings, recipe_of(found.settings.embedding))
