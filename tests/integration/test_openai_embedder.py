"""The remote embedder against a real server that misbehaves in every way that is mapped to an error."""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.core.errors import (
    AuthenticationFailed,
    CallTooLarge,
    ConfigError,
    IngestorError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    TransientError,
    UnusableVectors,
)
from ingestor.core.model import Recipe
from ingestor.core.network import Route, proxy_of
from tests import embedding_server
from tests.embedding_server import EmbeddingServer, Fault, FaultKind, vector_of
from tests.network import Proxy

ESTABLISHED = "01"
KEEPALIVE_TIMER = "02"
"""What /proc/net/tcp calls them; proc(5)."""
KEY = "sk-this-is-never-to-be-seen"
TEXTS = ["one", "two", "three"]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as running:
        yield running


def embedder_of(base_url: str, **changes: Any) -> OpenAIEmbedder:  # noqa: ANN401  # any argument of the constructor
    arguments: dict[str, Any] = {
        "base_url": base_url,
        "api_key": KEY,
        "max_batch_inputs": 16,
        "max_batch_tokens": 8_192,
        "max_concurrency": 4,
        "timeout_seconds": 30.0,
        "sends_dimensions": False,
        "recipe": Recipe("openai", "test-embedding", 0),
    }
    return OpenAIEmbedder(**{**arguments, **changes})


@pytest.fixture
async def embedder(server: EmbeddingServer) -> AsyncIterator[OpenAIEmbedder]:
    remote = embedder_of(server.base_url)
    yield remote
    await remote.close()


async def error_of(embedder: OpenAIEmbedder) -> IngestorError:
    with pytest.raises(IngestorError) as caught:
        await embedder.embed(TEXTS)
    return caught.value


def status(code: int, *, headers: Mapping[str, str] | None = None, body: str = "") -> Fault:
    return Fault(FaultKind.STATUS, status=code, headers=headers or {}, body=body)


def success(body: str) -> Fault:
    return Fault(FaultKind.BODY, body=body)


NESTED = json.dumps({"data": [{"index": index, "embedding": [[0.1, 0.2]]} for index in range(3)]})
TEXTUAL = json.dumps({"data": [{"index": index, "embedding": "[0.1, 0.2]"} for index in range(3)]})


def error_body(message: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}})


async def test_vectors_are_the_server_s_and_usage_is_what_it_says(
    server: EmbeddingServer, embedder: OpenAIEmbedder
) -> None:
    vectors, usage = await embedder.embed(TEXTS)
    assert np.array_equal(vectors, np.stack([vector_of(text) for text in TEXTS]))
    assert (usage.requests, usage.texts, usage.tokens) == (1, 3, server.counters.tokens)
    (received,) = server.received
    assert received.texts == tuple(TEXTS)
    assert (received.model, received.encoding_format, received.dimensions) == ("test-embedding", "float", None)


@pytest.mark.parametrize(("sends", "sent"), [(True, 32), (False, None)])
async def test_dimensions_are_sent_only_to_models_that_take_them(*, sends: bool, sent: int | None) -> None:
    with EmbeddingServer(dimensions=32) as server:
        embedder = embedder_of(server.base_url, recipe=Recipe("openai", "m", 32), sends_dimensions=sends)
        await embedder.embed(TEXTS)
        await embedder.close()
        assert server.received[0].dimensions == sent


async def test_dimensions_once_learned_are_held_but_not_sent(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    assert embedder.recipe.dimensions == 0
    await embedder.embed(TEXTS)
    assert embedder.recipe.dimensions == 64
    server.dimensions = 65
    assert "65 dimensions where 64" in str(await error_of(embedder))
    assert [received.dimensions for received in server.received] == [None, None]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (status(401), AuthenticationFailed, "refuses the key"),
        (status(403), AuthenticationFailed, "refuses the key"),
        (status(400, body=error_body("API key not valid", "invalid_api_key")), AuthenticationFailed, "not valid"),
        (status(404), ConfigError, "knows no model"),
        (status(400, body=error_body("no such model", "model_not_found")), ConfigError, "knows no model"),
        (status(401, body="<html><title>Blocked</title></html>"), ServiceUnavailable, "with a web page"),
        (status(403, body="<!DOCTYPE html>Attention!"), ServiceUnavailable, "with a web page"),
        (status(403, body=error_body("too fast", "rate_limit_exceeded")), RateLimited, "slow down"),
        (status(500, body=error_body("unsupported value: NaN", "api_error")), RejectedByModel, "cannot embed a text"),
        (
            status(301, headers={"location": "https://new.example/v1"}),
            ConfigError,
            "to https://new.example/v1 (HTTP 301",
        ),
        (
            status(302, headers={"location": "https://login.example/"}),
            ServiceUnavailable,
            "to https://login.example/ (H",
        ),
        (status(307, headers={"location": "/v2/embeddings?x=1"}), ConfigError, "/v2/embeddings?x=1 (HTTP 307"),
        (status(303), ServiceUnavailable, "redirects to an address that it does not name (HTTP 303"),
        (status(400), RejectedByModel, "injected 400"),
        (status(413), CallTooLarge, "injected 413"),
        (status(422), RejectedByModel, "injected 422"),
        (status(422, body='{"detail": [{"msg": "too long"}]}'), RejectedByModel, "too long"),
        (status(429), RateLimited, "slow down"),
        (status(429, body=error_body("current quota", "insufficient_quota")), ServiceUnavailable, "no quota left"),
        (status(402), ServiceUnavailable, "no quota left"),
        (status(400, body=error_body("overdue payment", "Arrearage")), ServiceUnavailable, "overdue payment"),
        (status(408), ServiceUnavailable, "HTTP 408"),
        (status(409), ServiceUnavailable, "HTTP 409"),
        (status(500), ServiceUnavailable, "injected 500"),
        (status(502, body="<html>\n  Bad\n  Gateway</html>"), ServiceUnavailable, "<html> Bad Gateway</html>"),
        (
            status(502, body="<html><head><title>502 Bad\nGateway</title></head><hr>nginx</html>"),
            ServiceUnavailable,
            "(HTTP 502): 502 Bad Gateway",
        ),
        (status(503), ServiceUnavailable, "HTTP 503"),
        (status(529), ServiceUnavailable, "HTTP 529"),
        (Fault(FaultKind.RESET), ServiceUnavailable, "out of reach"),
        (Fault(FaultKind.CUT), ServiceUnavailable, "broke its answer off"),
        (Fault(FaultKind.MALFORMED), ServiceUnavailable, "no JSON"),
        (Fault(FaultKind.BODY), ServiceUnavailable, "no JSON"),
        (Fault(FaultKind.BODY, body="<html>log in</html>"), ServiceUnavailable, "a web page: <html>log in"),
        (success("<html><title>Sign in</title>...</html>"), ServiceUnavailable, "nonsense: a web page: Sign in"),
        (success(TEXTUAL), ServiceUnavailable, "an embedding that is text, and no vector of numbers"),
        (Fault(FaultKind.BODY, body="[" * 100_000), ServiceUnavailable, "no JSON"),
        (Fault(FaultKind.BODY, body="[]"), ServiceUnavailable, "no list of vectors"),
        (Fault(FaultKind.BODY, body='{"error": {"message": "overloaded"}}'), ServiceUnavailable, "overloaded"),
        (success(error_body("current quota", "insufficient_quota")), ServiceUnavailable, "no quota left"),
        (success(error_body("wrong key", "invalid_api_key")), AuthenticationFailed, "refuses the key"),
        (success(error_body("no such model", "model_not_found")), ConfigError, "knows no model"),
        (success('{"error": {"code": 429, "message": "too fast"}}'), RateLimited, "slow down"),
        (
            success('{"code": "Throttling.RateQuota", "message": "too fast", "request_id": "x"}'),
            RateLimited,
            "too fast",
        ),
        (success('{"error": null, "data": null, "object": "list"}'), ServiceUnavailable, '"data": null'),
        (success("[[0.1, 0.2], [0.1, 0.2], [0.1, 0.2]]"), ServiceUnavailable, "a bare list"),
        (success('[{"index": 0, "embedding": [[0.1, 0.2]]}]'), ServiceUnavailable, "a bare list"),
        (success(NESTED), ServiceUnavailable, "a list of lists"),
        (Fault(FaultKind.BODY, body='{"data": [1, 2, 3]}'), ServiceUnavailable, "index None"),
        (Fault(FaultKind.FEWER), ServiceUnavailable, "2 vectors for 3 texts"),
        (Fault(FaultKind.MORE), ServiceUnavailable, "4 vectors for 3 texts"),
        (Fault(FaultKind.DUPLICATE_INDEX), ServiceUnavailable, "two vectors with index 0"),
        (Fault(FaultKind.NO_INDEX), ServiceUnavailable, "index None"),
        (Fault(FaultKind.NOT_A_NUMBER), UnusableVectors, "not finite"),
        (Fault(FaultKind.ZERO), UnusableVectors, "a zero vector"),
        (Fault(FaultKind.RAGGED), ServiceUnavailable, "different dimensions"),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else "",
)
async def test_every_fault_has_its_error_and_costs_one_request(
    server: EmbeddingServer, embedder: OpenAIEmbedder, fault: Fault, kind: type[IngestorError], words: str
) -> None:
    server.inject(fault)
    error = await error_of(embedder)
    assert type(error) is kind
    assert words in str(error)
    assert server.requests == 1, "the client must not retry by itself"
    vectors, _ = await embedder.embed(TEXTS)
    assert len(vectors) == 3, "the embedder must work again after a fault"


@pytest.mark.parametrize(
    ("embedding", "words"),
    [
        ("[[1, 2]]", "no vector"),
        ('["1.0", "2.0"]', "no vector"),
        ("[null]", "no vector"),
        ("null", "no vector"),
        ("[true]", "no vector"),
        ("[[1], [2, 3]]", "no vector"),
        ('{"a": 1}', "no vector"),
        ('"@@@"', "no vector"),
        ('"AAA="', "no vector"),
        ("[]", "without dimensions"),
        ('""', "without dimensions"),
        ("[1e39, 1]", "not finite"),
        ("[1e30, 1e30]", "not finite"),
        ("[Infinity, 1]", "not finite"),
        ("[1e-60, 0]", "zero vector"),
        ("[1e-30, 0]", "zero vector"),
    ],
)
async def test_an_embedding_that_is_no_usable_vector_is_refused(
    server: EmbeddingServer, embedder: OpenAIEmbedder, embedding: str, words: str
) -> None:
    server.inject(Fault(FaultKind.BODY, body=f'{{"data": [{{"index": 0, "embedding": {embedding}}}]}}'))
    with pytest.raises(ServiceUnavailable, match=words):
        await embedder.embed(["one"])
    assert embedder.recipe.dimensions == 0, "nothing may be learned from nonsense"


@pytest.mark.parametrize("kind", [FaultKind.SHUFFLED, FaultKind.BASE64])
async def test_an_answer_in_another_order_or_encoding_is_put_right(
    server: EmbeddingServer, embedder: OpenAIEmbedder, kind: FaultKind
) -> None:
    server.inject(Fault(kind))
    vectors, _ = await embedder.embed(TEXTS)
    assert np.array_equal(vectors, np.stack([vector_of(text) for text in TEXTS]))


@pytest.mark.parametrize("index", [{}, {"index": None}], ids=["missing", "null"])
async def test_rows_of_which_none_has_an_index_are_in_the_order_of_the_texts(
    server: EmbeddingServer, embedder: OpenAIEmbedder, index: dict[str, None]
) -> None:
    rows = [{**index, "embedding": vector_of(text).tolist()} for text in TEXTS]
    server.inject(success(json.dumps({"data": rows})))
    vectors, _ = await embedder.embed(TEXTS)
    assert np.array_equal(vectors, np.stack([vector_of(text) for text in TEXTS]))


@pytest.mark.parametrize("indexes", [[0, None, 2], [0, 0, 0], [1, 2, 3], ["0", "1", "2"]], ids=str)
async def test_rows_of_which_only_some_have_an_index_of_their_own_are_refused_for_good(
    server: EmbeddingServer, embedder: OpenAIEmbedder, indexes: list[object]
) -> None:
    rows = [{"index": index, "embedding": [0.1, 0.2]} for index in indexes]
    server.inject(success(json.dumps({"data": rows})))
    error = await error_of(embedder)
    assert "does not heal by itself" in error.remedy


USAGE = '"usage": {"prompt_tokens": 40, "total_tokens": 42}'


@pytest.mark.parametrize(
    ("fault", "tokens", "may_be_a_text"),
    [
        (success(f'{{"data": [], {USAGE}}}'), 42, False),
        (success('{"data": []}'), 0, False),
        (success("<html>log in</html>"), 0, False),
        (Fault(FaultKind.NOT_A_NUMBER), 3, False),
        (Fault(FaultKind.WRONG_DIMENSION), 3, False),
        (Fault(FaultKind.CUT), 0, True),
        (Fault(FaultKind.DRIP), 0, True),
        (Fault(FaultKind.HANG), 0, True),
        (Fault(FaultKind.RESET), None, True),
        (status(500), None, True),
        (success(error_body("overloaded", "overloaded")), None, True),
        (success(error_body("no quota", "insufficient_quota")), None, False),
    ],
    ids=lambda value: f"{value.kind}-{value.body or value.status}" if isinstance(value, Fault) else "",
)
async def test_what_a_failed_call_may_be_billed_is_told(
    server: EmbeddingServer, fault: Fault, tokens: int | None, *, may_be_a_text: bool
) -> None:
    embedder = embedder_of(server.base_url, recipe=Recipe("openai", "m", 64), timeout_seconds=0.5)
    server.inject(fault)
    error = await error_of(embedder)
    await embedder.close()
    assert isinstance(error, ServiceUnavailable)
    assert (error.billed_tokens, error.may_be_a_text) == (tokens, may_be_a_text)


async def test_an_endpoint_that_nobody_listens_at_has_seen_no_text() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        embedder = embedder_of(f"http://127.0.0.1:{held.getsockname()[1]}/v1")
        error = await error_of(embedder)
        await embedder.close()
    assert isinstance(error, ServiceUnavailable)
    assert (error.billed_tokens, error.may_be_a_text) == (None, False)


async def test_whole_numbers_are_numbers(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    server.inject(Fault(FaultKind.BODY, body='{"data": [{"index": 0, "embedding": [3, 4]}]}'))
    vectors, usage = await embedder.embed(["one"])
    assert vectors.tolist() == [[3.0, 4.0]]
    assert usage.tokens == 0


async def test_usage_that_is_not_told_is_zero(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    server.inject(Fault(FaultKind.NO_USAGE))
    _, usage = await embedder.embed(TEXTS)
    assert (usage.requests, usage.texts, usage.tokens) == (1, 3, 0)


@pytest.mark.parametrize("told", ["1e400", str(10**25), "-3", '"many"', "null"])
async def test_tokens_that_cannot_be_are_not_told(embedder: OpenAIEmbedder, server: EmbeddingServer, told: str) -> None:
    rows = '[{"index": 0, "embedding": [3, 4]}]'
    server.inject(success(f'{{"data": {rows}, "usage": {{"total_tokens": {told}}}}}'))
    _, usage = await embedder.embed(["one"])
    assert usage.tokens == 0, "then they are estimated"


async def test_a_wrong_dimension_names_both(server: EmbeddingServer) -> None:
    embedder = embedder_of(server.base_url, recipe=Recipe("openai", "m", 64), sends_dimensions=True)
    server.inject(Fault(FaultKind.WRONG_DIMENSION))
    error = await error_of(embedder)
    assert isinstance(error, ServiceUnavailable)
    assert "65 dimensions where 64 are expected" in str(error)
    await embedder.close()


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.DRIP])
async def test_a_call_that_hangs_or_trickles_ends_in_time(server: EmbeddingServer, kind: FaultKind) -> None:
    embedder = embedder_of(server.base_url, timeout_seconds=2.0)  # ample for an answer on a busy machine
    await embedder.embed(TEXTS)
    server.inject(Fault(kind))
    error = await error_of(embedder)
    assert isinstance(error, ServiceUnavailable)
    assert "no complete answer within 2 s" in str(error)
    await embedder.embed(TEXTS)
    await embedder.close()


async def test_a_cancelled_call_ends_at_once_and_is_not_turned_into_an_error(
    server: EmbeddingServer, embedder: OpenAIEmbedder
) -> None:
    server.inject(Fault(FaultKind.HANG))
    call = asyncio.ensure_future(embedder.embed(TEXTS))
    while server.counters.in_flight == 0:  # the server's threads know no event of this loop
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_nobody_listening_is_out_of_reach() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        embedder = embedder_of(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        error = await error_of(embedder)
        await embedder.close()
    assert isinstance(error, ServiceUnavailable)
    assert "out of reach" in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({}, None),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
async def test_the_wait_that_the_provider_asks_for_is_passed_on(
    server: EmbeddingServer, embedder: OpenAIEmbedder, code: int, headers: dict[str, str], seconds: float | None
) -> None:
    server.inject(status(code, headers=headers))
    error = await error_of(embedder)
    assert isinstance(error, RateLimited | ServiceUnavailable)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ("", {"retry-after": f"{time.time() + 1_800:.0f}"}, 1_800.0),
        ("", {"retry-after": "999999999"}, 3_600.0),
        ("", {"retry-after": "inf"}, None),
        ("", {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "30m0s"}, 1_800.0),
        (error_body("current quota", "insufficient_quota"), {"retry-after": "999999999"}, 86_400.0),
        (error_body("Please try again in 9000h0m0s.", "rate_limit_exceeded"), {}, 3_600.0),
    ],
    ids=["moment", "huge", "infinite", "reset", "quota", "words"],
)
async def test_no_wait_that_a_provider_asks_for_is_without_bounds(
    server: EmbeddingServer, embedder: OpenAIEmbedder, body: str, headers: dict[str, str], seconds: float | None
) -> None:
    server.inject(status(429, headers=headers, body=body))
    error = await error_of(embedder)
    assert isinstance(error, TransientError)
    found = error.retry_after_seconds
    assert found == pytest.approx(seconds, abs=900) if seconds is not None else found is None


async def test_too_many_texts_are_refused_in_the_provider_s_words() -> None:
    with EmbeddingServer(max_inputs=2) as server:
        embedder = embedder_of(server.base_url)
        error = await error_of(embedder)
        await embedder.close()
    assert isinstance(error, RejectedByModel)
    assert "should not be larger than 2" in str(error)


async def test_a_text_the_model_refuses_is_refused_whenever_it_is_there() -> None:
    with EmbeddingServer(reject_marker="two") as server:
        embedder = embedder_of(server.base_url)
        assert isinstance(await error_of(embedder), RejectedByModel)
        assert isinstance(await error_of(embedder), RejectedByModel)
        await embedder.embed(["one", "three"])
        await embedder.close()
        assert (server.requests, server.calls, server.texts) == (3, 1, 2)


async def test_a_wrong_key_is_told_by_the_name_of_its_setting(server: EmbeddingServer) -> None:
    embedder = embedder_of(server.base_url, api_key="sk-wrong", key_setting="embedding.api_key")
    error = await error_of(embedder)
    await embedder.close()
    assert isinstance(error, AuthenticationFailed)
    assert "embedding.api_key" in error.remedy
    assert "sk-wrong" not in error.sentence


async def test_the_key_is_in_no_error_repr_or_log(
    server: EmbeddingServer, embedder: OpenAIEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = [repr(embedder), str(embedder)]
    bodies = (error_body(f"Incorrect API key provided: {KEY}", "invalid_api_key"), f"Bearer {KEY}", f'{{"a": "{KEY}"}}')
    faults = [status(code, body=body) for code in (400, 401, 404, 429, 500) for body in bodies]
    faults += [Fault(FaultKind.BODY, body=body) for body in bodies]
    faults += [Fault(kind) for kind in FaultKind if kind not in (FaultKind.HANG, FaultKind.DRIP)]
    for fault in faults:
        server.inject(fault)
        (error,) = await asyncio.gather(embedder.embed(TEXTS), return_exceptions=True)
        if isinstance(error, BaseException):
            assert isinstance(error, IngestorError)
            assert error.__cause__ is None
            assert error.__context__ is None, "a chained error of the client would carry the request's headers"
            seen += [*traceback.format_exception(error), error.sentence, repr(error), repr(vars(error))]
    assert len(seen) > 50
    assert len(caplog.messages) > 50
    seen += caplog.messages
    assert not [line for line in seen if KEY in line]


@pytest.mark.parametrize("key", ["sk-line\nbreak", "sk space", "sk-ключ", "sk-\x00"])
def test_a_key_that_no_header_carries_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        embedder_of("http://127.0.0.1/v1", api_key=key)
    assert key not in caught.value.sentence


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[::1/v1"]
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base URL"):
        embedder_of(url)


def test_secrets_in_the_base_url_are_not_shown() -> None:
    shown = repr(embedder_of("https://me:hidden@[::1]:8443/v1?token=hidden"))
    assert "https://[::1]:8443/v1" in shown
    assert "hidden" not in shown


async def test_no_key_sends_no_key() -> None:
    with EmbeddingServer() as server:
        embedder = embedder_of(server.base_url, api_key="")
        await embedder.embed(TEXTS)
        await embedder.close()
        assert "authorization" not in server.received[0].headers


async def test_the_environment_changes_nothing(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "ambient")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS",
        "Authorization: Bearer ambient\nX-Ambient: ambient\nHost: ambient\n"
        "Content-Type: text/ambient\nUser-Agent: ambient",
    )
    embedder = embedder_of(server.base_url)
    await embedder.embed(TEXTS)
    await embedder.close()
    headers = server.received[0].headers
    assert "ambient" not in repr(headers)
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["host"] == server.url.removeprefix("http://")
    assert set(headers) <= {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
        "authorization",
        "x-stainless-raw-response",
    }


async def test_a_proxy_that_is_given_is_used(server: EmbeddingServer) -> None:
    embedder = embedder_of("http://endpoint.invalid/v1", route=Route(proxy_of(server.url, "a test")))
    error = await error_of(embedder)
    await embedder.close()
    assert isinstance(error, ConfigError), "the server is no proxy and knows no such path, but it must have been asked"


async def test_a_redirect_is_told_with_the_base_url_that_it_means(server: EmbeddingServer) -> None:
    told = {
        "https://me:pw@new.example/v1/embeddings/?x=1": "set embedding.base_url to https://new.example/v1?x=1",
        f"/v2/embeddings?key={KEY}": f"set embedding.base_url to {server.url}/v2?key=[key]",
        "/login": "if that is where this network wants a login, log in; if it is not, check embedding.base_url",
    }
    for location, remedy in told.items():
        server.inject(status(307, headers={"location": location}))
        embedder = embedder_of(server.base_url)
        error = await error_of(embedder)
        await embedder.close()
        assert error.remedy == remedy
        assert "pw" not in str(error)


async def test_a_redirect_to_itself_is_nothing_that_a_setting_mends(
    server: EmbeddingServer, embedder: OpenAIEmbedder
) -> None:
    server.inject(status(302, headers={"location": "/v1/embeddings"}))
    assert (await error_of(embedder)).remedy == "it redirects to itself: ask whoever runs the endpoint"


async def test_a_query_of_the_base_url_goes_behind_embeddings() -> None:
    with Proxy({"endpoint.invalid": 0}) as proxy:
        embedder = embedder_of(
            "http://endpoint.invalid/v1/?api-version=2024-02-01&x=", route=Route(proxy_of(proxy.url, "a test"))
        )
        await error_of(embedder)
        await embedder.close()
        assert proxy.asked == ["POST http://endpoint.invalid/v1/embeddings?api-version=2024-02-01&x= HTTP/1.1"]


async def test_opening_sends_nothing_and_leaves_nothing_to_load_for_the_first_call(server: EmbeddingServer) -> None:
    embedder = embedder_of(server.base_url)
    await embedder.open()
    assert (server.requests, server.counters.connections) == (0, 0)
    loaded = {name for name in sys.modules if name.startswith("openai")}
    await embedder.embed(TEXTS)
    assert {name for name in sys.modules if name.startswith("openai.resources")} <= loaded
    await embedder.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        await embedder.open()


async def test_an_endpoint_out_of_reach_is_no_reason_not_to_open() -> None:
    embedder = embedder_of("http://127.0.0.1:1/v1")
    await embedder.open()
    assert "out of reach" in str(await error_of(embedder))
    await embedder.close()


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
async def test_an_idle_connection_that_the_server_ended_costs_no_failure(
    server: EmbeddingServer, embedder: OpenAIEmbedder, monkeypatch: pytest.MonkeyPatch, *, is_reset: bool
) -> None:
    ended = threading.Event()
    finish = embedding_server._Handler.finish

    def end(handler: embedding_server._Handler) -> None:
        if is_reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finish(handler)
        handler.connection.close()
        ended.set()

    monkeypatch.setattr(embedding_server._Handler, "timeout", 0.05)
    monkeypatch.setattr(embedding_server._Handler, "finish", end)
    for number in range(1, 4):
        ended.clear()
        await embedder.embed(TEXTS)
        assert server.counters.connections == number
        assert await asyncio.to_thread(ended.wait, 10)


async def test_an_idle_connection_is_kept_for_long_and_no_longer(
    server: EmbeddingServer, embedder: OpenAIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedder.embed(TEXTS)
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 590.0)
    await embedder.embed(TEXTS)
    assert server.counters.connections == 1
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 1200.0)
    await embedder.embed(TEXTS)
    assert server.counters.connections == 2


def timers_of_connections_to(port: int) -> list[str]:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return [words[5] for words in lines if words[2].endswith(f":{port:04X}") and words[3] == ESTABLISHED]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel in Linux's way")
async def test_the_kernel_probes_an_idle_connection(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    await embedder.embed(TEXTS)
    port = int(server.url.rpartition(":")[2])
    (timer,) = timers_of_connections_to(port)
    kind, _, ticks = timer.partition(":")
    assert kind == KEEPALIVE_TIMER
    assert int(ticks, 16) / os.sysconf("SC_CLK_TCK") <= 45


async def test_calls_at_once_share_connections(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    server.latency_seconds = 0.05
    await asyncio.gather(*(embedder.embed([f"text {number}"]) for number in range(4)))
    await asyncio.gather(*(embedder.embed([f"text {number}"]) for number in range(4)))
    assert server.counters.max_in_flight == 4
    assert server.counters.connections == 4
    assert server.counters.repeated_texts == 4


async def test_closing_leaves_no_connection_behind(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    await embedder.embed(TEXTS)
    assert server.counters.connections == 1
    await embedder.close()
    gc.collect()  # an unclosed socket would warn here, and warnings are errors


def test_the_adapter_is_imported_without_the_client() -> None:
    script = "import sys, ingestor.adapters.openai_embedder; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_server_runs_in_a_process_of_its_own() -> None:
    command = [sys.executable, embedding_server.__file__, "--max-inputs", "10", "--api-key", KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())
        faults = urllib.request.Request(  # noqa: S310  # a URL of loopback that was just printed
            urls["faults_url"], data=json.dumps([{"kind": "status", "status": 503}]).encode()
        )
        urllib.request.urlopen(faults).close()  # noqa: S310  # as above

        async def embed() -> None:
            embedder = embedder_of(urls["base_url"])
            assert "HTTP 503" in str(await error_of(embedder))
            vectors, _ = await embedder.embed(TEXTS)
            assert np.array_equal(vectors[0], vector_of("one")), "equal in every process"
            await embedder.close()

        asyncio.run(embed())
        with urllib.request.urlopen(urls["counters_url"]) as answer:  # noqa: S310  # as above
            counters = json.load(answer)
        assert (counters["requests"], counters["calls"], counters["texts"]) == (2, 1, 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
