"""Programs of users, which ask a collection by text: Chroma alone, with our function, LangChain, LlamaIndex."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import KEY, Site, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
TEXTS = {
    "cats.md": "# Cats\n\nThe cat sleeps on the warm mat, and the mat belongs to the cat.\n",
    "law/treaty.txt": "States settle their disputes peacefully, by arbitration or before a court.\n",
    "law/海洋.txt": "两个沿海国家同意把国际争端提交仲裁。\n",
    "bread.txt": "Knead the dough, let it rest, and bake it until the crust is brown.\n",
}
QUESTIONS = ("where does the cat sleep", "peaceful settlement of disputes", "国际争端")
NEAREST = ["cats.md", "law/treaty.txt", "law/海洋.txt"]
ASK = """
import json, sys
{before}
import chromadb
collection = chromadb.HttpClient("127.0.0.1", int(sys.argv[1])).get_collection("documents")
found = collection.query(query_texts=json.loads(sys.argv[2]), n_results=3)
print(json.dumps([[metadata["source"] for metadata in one] for one in found["metadatas"]]))
"""
WITHOUT_US = "sys.modules['ingestor'] = None"
"""To import a module that is None there is an ImportError."""
WITH_US = "import ingestor.embedding_function"


def program(site: Site, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an environment that knows nothing of our settings."""
    ours = ("INGESTOR_", "OPENAI_", "DASHSCOPE_", "CHROMA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=site.root, env=kept | variables, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def asked(site: Site, before: str, **variables: str) -> list[list[str]]:
    """The sources that a program finds for each question."""
    done = program(site, ASK.format(before=before), str(site.port), json.dumps(QUESTIONS), **variables)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def queried(site: Site) -> list[str]:
    """The sources that `ingestor query` finds for the last question."""
    answer = site.command("query", QUESTIONS[-1], "-n", "3", "--json")
    assert answer.code == 0, answer.err
    return [hit["metadata"]["source"] for hit in answer.json()]


def served(root: Path, settings: dict[str, str]) -> Iterator[Site]:
    with Site(root, settings) as site:
        for name, text in TEXTS.items():
            (site.folder / name).parent.mkdir(exist_ok=True)
            (site.folder / name).write_text(text, encoding="utf-8")
        daemon = site.start("run").wait_ready()
        with site.reading() as reading:
            reading.wait_equal()
        yield site
        assert daemon.terminate() == 0, daemon.log()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=256, api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def at_endpoint(tmp_path_factory: pytest.TempPathFactory, endpoint: EmbeddingServer) -> Iterator[Site]:
    """A model of an endpoint, whose key sits in a variable of ours."""
    settings = provider_settings(endpoint, EMBEDDING__MODEL="text-embedding-3-small")
    yield from served(tmp_path_factory.mktemp("endpoint"), settings)


@pytest.fixture(scope="module")
def with_prefixes(tmp_path_factory: pytest.TempPathFactory, endpoint: EmbeddingServer) -> Iterator[Site]:
    """A model of an endpoint that wants a prefix before questions, and another one before documents."""
    settings = provider_settings(endpoint, EMBEDDING__MODEL="nomic-embed-text")
    yield from served(tmp_path_factory.mktemp("prefixes"), settings)


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from served(tmp_path_factory.mktemp("built-in"), {})


def test_a_program_without_our_package_asks_by_text_and_finds_what_a_query_finds(at_endpoint: Site) -> None:
    found = asked(at_endpoint, WITHOUT_US, INGESTOR_EMBEDDING__API_KEY=KEY)
    assert found[-1] == queried(at_endpoint)
    assert [sources[0] for sources in found] == NEAREST


def test_a_program_whose_key_is_in_openai_s_own_variable_asks_as_well(at_endpoint: Site) -> None:
    found = asked(at_endpoint, WITHOUT_US, OPENAI_API_KEY=KEY)
    assert [sources[0] for sources in found] == NEAREST


def test_a_program_without_a_key_is_told_which_variable_to_set(at_endpoint: Site) -> None:
    done = program(at_endpoint, ASK.format(before=WITHOUT_US), str(at_endpoint.port), '["x"]')
    assert "The INGESTOR_EMBEDDING__API_KEY environment variable is not set" in done.stderr


def test_no_key_is_in_the_collection(at_endpoint: Site, with_prefixes: Site) -> None:
    for site in (at_endpoint, with_prefixes):
        files = [path for path in site.chroma_path.rglob("*") if path.is_file()]
        assert files
        assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_model_with_prefixes_is_asked_with_the_one_of_questions(
    with_prefixes: Site, endpoint: EmbeddingServer
) -> None:
    found = asked(with_prefixes, WITH_US, INGESTOR_EMBEDDING__API_KEY=KEY)
    assert endpoint.received[-1].texts == tuple(f"search_query: {question}" for question in QUESTIONS)
    assert endpoint.received[-1].dimensions == 256
    assert found[-1] == queried(with_prefixes)


@pytest.mark.parametrize("key", ["", "sk-wrong"], ids=["none", "wrong"])
def test_a_key_that_is_missing_or_refused_is_told_with_its_variable(with_prefixes: Site, key: str) -> None:
    done = program(
        with_prefixes, ASK.format(before=WITH_US), str(with_prefixes.port), '["x"]', INGESTOR_EMBEDDING__API_KEY=key
    )
    assert "RuntimeError" in done.stderr
    assert "check that the environment variable INGESTOR_EMBEDDING__API_KEY is whole" in done.stderr


def test_the_built_in_model_is_asked_after_an_import(built_in: Site) -> None:
    found = asked(built_in, WITH_US)
    assert found[-1] == queried(built_in)
    assert [sources[0] for sources in found] == NEAREST


def test_without_the_import_the_collection_is_read_and_asked_with_vectors_and_a_text_is_refused(built_in: Site) -> None:
    script = f"""
import sys
{WITHOUT_US}
import chromadb
collection = chromadb.HttpClient("127.0.0.1", int(sys.argv[1])).get_collection("documents")
vector = collection.get(where={{"source": "cats.md"}}, include=["embeddings"])["embeddings"][0]
print(collection.query(query_embeddings=[vector], n_results=1)["metadatas"][0][0]["source"])
collection.query(query_texts=["x"])
"""
    done = program(built_in, script, str(built_in.port))
    assert done.stdout == "cats.md\n"
    assert "Embedding function ingestor not found" in done.stderr


def snippet(containing: str, port: int) -> str:
    (found,) = [each for each in SNIPPETS if containing in each]
    return str(found).replace("HttpClient()", f"HttpClient(port={port})")


@pytest.mark.parametrize("library", ["langchain_chroma", "llama_index"])
def test_the_readme_s_snippet_of_a_library_retrieves_by_text(built_in: Site, library: str) -> None:
    done = program(built_in, snippet(library, built_in.port))
    assert done.returncode == 0, done.stderr
    first, _ = done.stdout.splitlines()
    assert first == "law/海洋.txt 两个沿海国家同意把国际争端提交仲裁。"


def test_a_retriever_of_langchain_gives_the_metadata_without_our_package(at_endpoint: Site) -> None:
    script = f"""
import json, sys
{WITHOUT_US}
import chromadb
from langchain_chroma import Chroma
store = Chroma("documents", client=chromadb.HttpClient("127.0.0.1", int(sys.argv[1])))
(found,) = store.as_retriever(search_kwargs={{"k": 1}}).invoke("where does the cat sleep")
print(json.dumps(found.metadata))
"""
    done = program(at_endpoint, script, str(at_endpoint.port), INGESTOR_EMBEDDING__API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    metadata: dict[str, Any] = json.loads(done.stdout)
    assert (metadata["source"], metadata["file_name"], metadata["title"]) == ("cats.md", "cats.md", "Cats")
