"""Our embedding function as a class, in the process that uses it."""

import asyncio
import os
import signal
from typing import Any

import numpy as np
import pytest

from ingestor.adapters.local_embedder import LocalEmbedder
from ingestor.core.model import Purpose
from ingestor.embedding_function import IngestorEmbeddingFunction
from tests.embedding_server import EmbeddingServer

TEXTS = ["the cat sleeps on the warm mat", "国际争端"]


def at(server: EmbeddingServer, **others: object) -> IngestorEmbeddingFunction:
    config: dict[str, Any] = {
        "provider": "openai",
        "model": "some-model",
        "dimensions": 64,
        "document_prefix": "d: ",
        "query_prefix": "q: ",
        "base_url": server.base_url,
        "key_variable": "A_KEY_FOR_THIS_TEST",
        "sends_dimensions": True,
    }
    return IngestorEmbeddingFunction.build_from_config(config | others)


async def test_the_built_in_model_gives_the_vectors_of_the_daemon_on_an_event_loop_or_off_it() -> None:
    embedder = LocalEmbedder()
    function = IngestorEmbeddingFunction()
    for purpose, ask in ((Purpose.DOCUMENT, function.__call__), (Purpose.QUERY, function.embed_query)):
        expected, _ = await embedder.embed([embedder.recipe.text_to_send(text, purpose) for text in TEXTS])
        for found in (np.array(ask(TEXTS)), np.array(await asyncio.to_thread(ask, TEXTS))):
            assert found.dtype == np.float32
            assert (np.sum(found * expected, axis=1) > 0.9999).all()
    await embedder.close()


def test_documents_and_questions_get_their_prefixes_and_calls_are_as_large_as_the_model_takes() -> None:
    with EmbeddingServer(max_inputs=10) as server:
        function = at(server)
        assert len(function([f"text {number}" for number in range(25)])) == 25
        function.embed_query(["where"])
        assert [len(received.texts) for received in server.received] == [10, 10, 5, 1]
        assert (server.received[0].texts[0], server.received[-1].texts) == ("d: text 0", ("q: where",))
        assert {received.dimensions for received in server.received} == {64}


def test_a_key_that_is_set_after_a_refusal_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddingServer(api_key="right") as server:
        with pytest.raises(RuntimeError, match="A_KEY_FOR_THIS_TEST"):
            at(server).embed_query(["where"])
        monkeypatch.setenv("A_KEY_FOR_THIS_TEST", "right")
        assert len(at(server).embed_query(["where"])) == 1


def test_what_it_works_with_is_made_once_for_all_functions_of_a_configuration() -> None:
    with EmbeddingServer() as server:
        for _ in range(3):
            at(server).embed_query(["where"])
        assert server.counters.connections == 1


def test_an_endpoint_that_is_away_is_an_error_with_its_url() -> None:
    with EmbeddingServer() as server:
        function = at(server)
    with pytest.raises(RuntimeError, match="out of reach"):
        function.embed_query(["where"])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_asks_for_itself() -> None:
    """Of its parent it has the connections and not the thread that works with them: waiting for that never ends."""
    with EmbeddingServer() as server:
        at(server).embed_query(["before"])
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # whoever waits for ever is ended, so that its parent does not
            found = 1
            try:
                found = len(at(server).embed_query(["after"])) - 1
            finally:
                os._exit(found)
        assert os.waitpid(child, 0)[1] == 0
        assert server.received[-1].texts == ("q: after",)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"provider": "openai"}, "model"),
        ({"provider": "openai", "model": "m"}, "base_url"),
        ({"provider": "nobody", "model": "m", "base_url": "http://127.0.0.1:1"}, "nobody"),
        ({"provider": "local", "model": "another", "dimensions": 384}, "another"),
    ],
    ids=["no model", "no URL", "unknown provider", "another built-in model"],
)
def test_a_configuration_that_cannot_be_followed_is_told(config: dict[str, Any], words: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=words):
        IngestorEmbeddingFunction.build_from_config(config).embed_query(["where"])
