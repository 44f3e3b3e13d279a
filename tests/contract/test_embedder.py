"""The contract of the port `Embedder`: the double, the remote adapter over loopback, both models in this process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

from ingestor.adapters.chroma_embedder import ChromaEmbedder
from ingestor.adapters.local_embedder import LocalEmbedder
from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import Purpose, Recipe, Usage
from ingestor.engine.measured import MeasuredEmbedder
from ingestor.ports import Embedder, Vectors
from tests.doubles_embedder import HashEmbedder
from tests.embedding_server import EmbeddingServer
from tests.minilm import FOLDER, put_model

CAT, TREATY, CHINESE = (
    "the cat sleeps on the warm mat",
    "states settle their disputes peacefully",
    "各国和平解决国际争端",
)


@pytest.fixture(params=["double", "measured", "openai", "local", "chroma-default"])
async def embedder(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Embedder]:
    if request.param == "double":
        yield HashEmbedder()
    elif request.param == "measured":
        yield MeasuredEmbedder(HashEmbedder(), SystemRuntime(), "the double")
    elif request.param == "chroma-default":
        put_model(tmp_path / FOLDER)
        monkeypatch.setattr(ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", (tmp_path / FOLDER).parent)
        default = ChromaEmbedder()
        yield default
        await default.close()
    elif request.param == "local":
        local = LocalEmbedder()
        yield local
        await local.close()
    else:
        with EmbeddingServer(dimensions=256, max_inputs=16, api_key="sk-contract") as server:
            remote = OpenAIEmbedder(
                Recipe("openai", "test-embedding", 0, document_prefix="passage: ", query_prefix="query: "),
                base_url=server.base_url,
                api_key="sk-contract",
                max_batch_inputs=16,
                max_batch_tokens=8_192,
                max_concurrency=4,
                timeout_seconds=30,
                sends_dimensions=False,
            )
            yield remote
            await remote.close()


def documents(embedder: Embedder, *texts: str) -> list[str]:
    return [embedder.recipe.text_to_send(text) for text in texts]


async def vectors_of(embedder: Embedder, *texts: str) -> Vectors:
    vectors, _ = await embedder.embed(documents(embedder, *texts))
    return vectors


async def test_a_row_for_each_text_finite_and_not_zero(embedder: Embedder) -> None:
    vectors = await vectors_of(embedder, CAT, TREATY, CHINESE)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, embedder.recipe.dimensions)
    assert np.isfinite(vectors).all()
    assert vectors.any(axis=1).all()


async def test_the_recipe_carries_the_dimensions_after_the_first_answer(embedder: Embedder) -> None:
    vectors = await vectors_of(embedder, CAT)
    assert embedder.recipe.dimensions == vectors.shape[1] > 0


async def test_rows_are_in_the_order_of_the_texts(embedder: Embedder) -> None:
    there = await vectors_of(embedder, CAT, TREATY, CHINESE)
    back = await vectors_of(embedder, CHINESE, TREATY, CAT)
    assert np.array_equal(there, back[::-1])


async def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    alone = await vectors_of(embedder, TREATY)
    among = await vectors_of(embedder, CAT, TREATY, CHINESE * 20)
    assert np.array_equal(alone[0], among[1])


async def test_equal_texts_in_one_call_have_equal_rows(embedder: Embedder) -> None:
    vectors = await vectors_of(embedder, CAT, CAT)
    assert np.array_equal(vectors[0], vectors[1])


async def test_cosine_with_itself_is_one_and_with_another_text_less(embedder: Embedder) -> None:
    vectors = (await vectors_of(embedder, CAT, TREATY)).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[0] == pytest.approx(1)
    assert vectors[0] @ vectors[1] < 0.99


async def test_a_query_finds_the_text_that_shares_its_words(embedder: Embedder) -> None:
    texts = await vectors_of(embedder, CAT, TREATY, CHINESE)
    for query, nearest in (("where does the cat sleep", 0), ("peaceful settlement of disputes", 1), ("国际争端", 2)):
        vector, _ = await embedder.embed([embedder.recipe.text_to_send(query, Purpose.QUERY)])
        assert int(np.argmax(texts @ vector[0])) == nearest


async def test_no_text_costs_nothing(embedder: Embedder) -> None:
    vectors, usage = await embedder.embed([])
    assert vectors.shape == (0, embedder.recipe.dimensions)
    assert usage == Usage()


async def test_usage_counts_request_texts_and_tokens(embedder: Embedder) -> None:
    _, usage = await embedder.embed(documents(embedder, CAT, TREATY))
    assert (usage.requests, usage.texts) == (1, 2)
    assert usage.tokens > 0


async def test_a_full_batch_is_taken(embedder: Embedder) -> None:
    vectors = await vectors_of(embedder, *(f"{number}" for number in range(embedder.max_batch_inputs)))
    assert len(vectors) == embedder.max_batch_inputs


async def test_texts_that_utf_8_or_c_cannot_carry_are_embedded_all_the_same(embedder: Embedder) -> None:
    vectors = await vectors_of(embedder, "lone \ud800 surrogate", "nul \0 inside", " ", "\U0001f600 \ufffd")
    assert len(vectors) == 4


async def test_calls_at_once_get_their_own_answers(embedder: Embedder) -> None:
    texts = [f"{CAT} {number}" for number in range(6)]
    expected = await vectors_of(embedder, *texts)
    answers = await asyncio.gather(*(vectors_of(embedder, text) for text in texts))
    assert np.array_equal(np.concatenate(answers), expected)


async def test_a_cancelled_call_leaves_the_embedder_usable(embedder: Embedder) -> None:
    call = asyncio.ensure_future(vectors_of(embedder, *[CAT] * embedder.max_batch_inputs))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(await vectors_of(embedder, TREATY)) == 1


async def test_after_close_a_call_says_so_and_close_may_come_twice(embedder: Embedder) -> None:
    await vectors_of(embedder, CAT)
    await embedder.close()
    await embedder.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        await embedder.embed(documents(embedder, CAT))


async def test_opening_is_allowed_twice_and_beside_the_first_call(embedder: Embedder) -> None:
    _, _, vectors = await asyncio.gather(embedder.open(), embedder.open(), vectors_of(embedder, CAT))
    await embedder.open()
    assert np.array_equal(await vectors_of(embedder, CAT), vectors)


async def test_limits_are_positive(embedder: Embedder) -> None:
    assert embedder.max_batch_inputs > 0
    assert embedder.max_batch_tokens > 0
    assert embedder.max_concurrency > 0
