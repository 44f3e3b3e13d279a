"""`ingestor embed` and `ingestor similarity`: what the endpoint says, and nothing paid twice."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.cells import cell_len

from tests.daemon import COMMAND, COMMAND_SECONDS, KEY, Site, provider_settings
from tests.embedding_server import EmbeddingServer, vector_of

TEXTS = ("A harbour at dawn.", "海洋划界争端提交仲裁", "A harbour at dawn.")


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(server, EMBEDDING__DIMENSIONS="")) as site:
        yield site


def test_the_answer_is_the_endpoint_s_as_numbers_and_in_base64_and_is_paid_for_once(
    site: Site, server: EmbeddingServer
) -> None:
    done = site.command("embed", *TEXTS)
    assert done.code == 0, done.err
    assert (server.requests, server.texts) == (1, 2)
    told = done.json()
    body = {"model": "unheard-of-model", "input": list(TEXTS[:2])}
    asked = httpx.post(f"{server.base_url}/embeddings", json=body, headers={"Authorization": f"Bearer {KEY}"}).json()
    again = {**asked["data"][0], "index": 2}

    assert told == asked | {"data": [*asked["data"], again]}

    before = server.requests
    encoded = site.command("embed", *TEXTS, "--encoding-format", "base64").json()

    assert server.requests == before
    assert encoded["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    for row, number in zip(encoded["data"], told["data"], strict=True):
        raw = base64.b64decode(row["embedding"], validate=True)
        assert np.frombuffer(raw, dtype="<f4").tolist() == number["embedding"]


def test_the_model_and_the_dimensions_that_were_asked_for_reach_the_endpoint(
    site: Site, server: EmbeddingServer
) -> None:
    by_option = site.command("embed", "text", "--dimensions", "32").json()
    by_name = site.command("embed", "text", "--model", "some/other-model@16").json()

    assert [(each.model, each.dimensions) for each in server.received] == [
        ("unheard-of-model", 32),
        ("some/other-model", 16),
    ]
    assert by_option["data"][0]["embedding"] == vector_of("text", 32).tolist()
    assert (by_name["model"], len(by_name["data"][0]["embedding"])) == ("some/other-model", 16)


def test_a_model_that_tells_questions_from_documents_gets_its_prefix(site: Site, server: EmbeddingServer) -> None:
    server.dimensions = 384

    for options in (("--model", "intfloat/multilingual-e5-small"), ("--query", "--model", "multilingual-e5-small")):
        assert site.command("embed", "潮汐", *options).code == 0

    assert [each.texts for each in server.received] == [("passage: 潮汐",), ("query: 潮汐",)]


def test_a_single_dash_reads_a_text_of_any_encoding_from_standard_input(site: Site, server: EmbeddingServer) -> None:
    text = "海洋划界争端提交仲裁。\n两个沿海国家就专属经济区的界线争执了二十年。"

    done = subprocess.run(
        [COMMAND, "embed", "-"],
        cwd=site.root,
        env=site.environment(),
        input=f"{text}\n".encode("gb18030"),
        capture_output=True,
        check=True,
        timeout=COMMAND_SECONDS,
    )

    assert [each.texts for each in server.received] == [(text,)]
    assert json.loads(done.stdout)["data"][0]["embedding"] == vector_of(text).tolist()


def test_what_cannot_be_embedded_is_one_line_and_costs_nothing(site: Site, server: EmbeddingServer) -> None:
    for arguments, words in (
        (("embed", "text", "--model", "openai/a@many"), "no number of dimensions"),
        (("embed", "text", "--model", "dashscope/text-embedding-v4"), "DASHSCOPE_API_KEY"),
        (("similarity", "text", ""), "a text is empty"),
    ):
        done = site.command(*arguments)
        assert (done.code, done.out) == (2, ""), (arguments, done.err)
        (line,) = done.err.splitlines()
        assert line.startswith("error: ")
        assert words in line
        assert KEY not in line
    assert server.requests == 0


def test_the_built_in_model_needs_no_endpoint(site: Site, server: EmbeddingServer) -> None:
    told = site.command("embed", "a text", "--model", "local").json()

    assert (told["model"], len(told["data"][0]["embedding"])) == ("multilingual-e5-small", 384)
    assert told["usage"]["total_tokens"] > 0
    assert server.requests == 0


def test_similarity_is_that_of_the_vectors_with_the_query_first(site: Site, server: EmbeddingServer) -> None:
    query, *texts = "国际争端", "football results", "国际贸易争端", "海洋划界争端", "国际争端"

    told = site.command("similarity", query, *texts, "--json")

    assert told.code == 0, told.err
    results = told.json()["results"]
    assert [row["is_query"] for row in results] == [True, False, False, False, False]
    assert (results[0]["text"], results[0]["cosine"], results[0]["distance"]) == (query, 1.0, 0.0)
    assert (results[1]["text"], results[1]["cosine"], results[1]["distance"]) == (query, 1.0, 0.0)
    assert [row["cosine"] for row in results] == sorted((row["cosine"] for row in results), reverse=True)
    assert results[-1]["text"] == "football results"
    asked = vector_of(query).astype(np.float64)
    for row in results:
        other = vector_of(row["text"]).astype(np.float64)
        assert row["cosine"] == pytest.approx(
            float(asked @ other / np.linalg.norm(asked) / np.linalg.norm(other)), abs=1e-5
        )
        assert row["distance"] == pytest.approx(float(np.linalg.norm(asked - other)), abs=1e-5)
    assert told.json()["usage"]["texts"] == server.texts == 4


def test_the_table_stays_in_line_in_any_language(site: Site) -> None:
    texts = ["国际贸易争端，由争端解决专家组裁决", "[bold]football", "ハーバー", "a\x1b[31mb"]

    done = site.command("similarity", "国际争端", *texts)

    assert done.code == 0, done.err
    heading, *rows, told = done.out.splitlines()
    assert told == "unheard-of-model, 64 dimensions"
    assert len(rows) == 5
    column = heading.index("text")
    shown = set()
    for row in rows:
        cut = next(n for n in range(len(row)) if cell_len(row[:n]) == column)
        assert re.match(r" ?-?\d\.\d{4}  [█▉▊▋▌▍▎▏ ]+ +\d\.\d{4}  $", row[:cut]), row
        shown.add(row[cut:].rstrip())
    assert shown == {"国际争端", *texts[:3], r"a\x1b[31mb"}
