"""`ingestor mcp`, asked by the SDK's own client: beside a daemon, without one, and by HTTP."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from ingestor.web.models import MAX_TEXT_CHARACTERS
from tests.daemon import COMMAND, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

README = Path(__file__).parents[2] / "README.md"
DIMENSIONS = 16
PAGES = 6
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
TOKEN = "a-token-of-tests-4711"  # noqa: S105 - it opens nothing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        settings = provider_settings(server, CHUNK__MAX_TOKENS=64)
        with Site(tmp_path_factory.mktemp("mcp"), settings) as made:
            (made.folder / "long.md").write_text("\n\n".join(map(paragraph, range(PAGES))), encoding="utf-8")
            (made.folder / "争端.txt").write_text("两国的海洋划界争端提交仲裁。\n", encoding="utf-8")
            (made.folder / "binary.txt").write_bytes(bytes(range(256)) * 20)
            made.sync(code=3)
            yield made


def paragraph(number: int) -> str:
    return f"# Part {number}\n\n" + " ".join(f"word{number}of{place}" for place in range(20))


def served(site: Site) -> Client:
    """A client of a process of its own, which is started and ended with the block."""
    return Client(StdioServerParameters(command=str(COMMAND), args=["mcp"], env=site.environment(), cwd=site.root))


async def test_what_the_readme_tells_assistants_starts_the_server(site: Site) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    told = next(json.loads(block)["mcpServers"]["documents"] for block in blocks if "mcpServers" in block)
    assert (Path(told["command"]).name, told["args"][:2]) == ("ingestor", ["mcp", "--config"])
    (site.root / "own.toml").write_text('watch_dir = "watched_dir"\n', encoding="utf-8")
    arguments = [*told["args"][:2], str(site.root / "own.toml")]
    # An assistant starts it wherever it has been started itself.
    server = StdioServerParameters(command=str(COMMAND), args=arguments, env=site.environment(), cwd="/")
    async with Client(server) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"search", "get_document", "status"}
        assert (await asked(client, "status"))["folders"][0]["documents"] == 2


async def asked(client: Client, tool: str, **arguments: object) -> Any:  # noqa: ANN401 - whatever the tool answers
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def test_a_model_finds_the_tools_and_they_only_read(site: Site) -> None:
    async with served(site) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"search", "get_document", "status"}
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools.values())
    assert all(tool.description and tool.output_schema for tool in tools.values())


async def test_a_document_is_found_and_read_piece_by_piece_without_a_daemon(site: Site) -> None:
    async with served(site) as client:
        text = (site.folder / "争端.txt").read_text(encoding="utf-8").strip()
        found = (await asked(client, "search", text=text, n=2))["result"]
        assert (found[0]["path"], found[0]["start_line"]) == ("争端.txt", 1)
        filtered = (await asked(client, "search", text=text, where={"file_name": "long.md"}))["result"]
        assert {passage["path"] for passage in filtered} == {"long.md"}

        whole = await asked(client, "get_document", path="long.md", max_chunks=100)
        assert whole["next_chunk"] is None
        read: list[Any] = []
        place: int | None = 0
        while place is not None:
            part = await asked(client, "get_document", path="long.md", first_chunk=place, max_chunks=2)
            assert len(part["pieces"]) <= 2
            read += part["pieces"]
            place = part["next_chunk"]
        assert read == whole["pieces"]
        assert len(read) > 2
        words = " ".join(piece["text"] for piece in read).split()
        assert words == (site.folder / "long.md").read_text(encoding="utf-8").split()


async def test_faults_are_told_to_the_model_with_their_remedy(site: Site) -> None:
    async with served(site) as client:
        for tool, arguments, told in (
            ("get_document", {"path": "../../etc/passwd"}, "is in the collection"),
            ("search", {"text": "x", "where": {"$nonsense": 1}}, "where clause"),
            ("search", {"text": "x", "collection": "nowhere"}, "nowhere"),
            ("search", {"text": "x", "n": 1_000}, "50"),
        ):
            answer = await client.call_tool(tool, arguments)
            assert answer.is_error
            assert told in str(answer.content), answer.content


async def test_a_filter_that_is_empty_is_none_and_nothing_found_is_told_as_such(site: Site) -> None:
    async with served(site) as client:
        # Models fill in what they may leave out.
        assert (await asked(client, "search", text="x", where={}, where_document={}, collection=""))["result"]
        answer = await client.call_tool("search", {"text": "x", "where": {"file_name": "nowhere.md"}})
        assert answer.structured_content == {"result": []}
        (told,) = answer.content
        assert json.loads(getattr(told, "text", "")) == {"result": []}


async def test_a_question_is_no_longer_than_over_http(site: Site) -> None:
    async with served(site) as client:
        answer = await client.call_tool("search", {"text": "x" * (MAX_TEXT_CHARACTERS + 1)})
        assert answer.is_error
        assert str(MAX_TEXT_CHARACTERS) in str(answer.content)


async def test_two_folders_with_a_file_of_one_name_are_not_read_as_one_document(tmp_path: Path) -> None:
    with EmbeddingServer(dimensions=DIMENSIONS) as server, Site(tmp_path, provider_settings(server)) as site:
        for folder in ("ours", "theirs"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "note.md").write_text(f"What {folder} says.\n", encoding="utf-8")
        sources = "[[sources]]\nfolder = 'ours'\n[[sources]]\nfolder = 'theirs'\n"
        (tmp_path / "ingestor.toml").write_text(sources, encoding="utf-8")
        site.sync()
        async with served(site) as client:
            answer = await client.call_tool("get_document", {"path": "note.md"})
            assert answer.is_error
            found = (await asked(client, "search", text="What theirs says.", n=2))["result"]
            assert {passage["path"] for passage in found} == {"note.md"}
            for passage in found:
                assert passage["document_id"] in str(answer.content)
                document = await asked(client, "get_document", path="note.md", document_id=passage["document_id"])
                assert [piece["text"] for piece in document["pieces"]] == [passage["text"]]


async def test_a_question_that_is_given_up_leaves_nothing_locked(site: Site) -> None:
    # The first one of a process takes longest: it imports Chroma's client, opens the collection, and reads the model.
    for seconds in (0.01, 0.1, 0.2):
        async with served(site) as client:
            with anyio.move_on_after(seconds) as giving_up:
                await client.call_tool("search", {"text": f"given up after {seconds} s"})
            assert giving_up.cancelled_caught
            assert (await asked(client, "search", text="x", n=1))["result"]
            assert site.command("count").code == 0


def test_ctrl_c_ends_it_although_nobody_has_closed_its_input(site: Site) -> None:
    with subprocess.Popen(
        [COMMAND, "mcp"],
        cwd=site.root,
        env=site.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as serving:
        assert serving.stdin is not None
        assert serving.stdout is not None
        try:
            serving.stdin.write(json.dumps(HELLO).encode() + b"\n")
            serving.stdin.flush()
            assert b"ingestor" in serving.stdout.readline()
            serving.send_signal(signal.SIGINT)
            assert serving.wait(20) in {-signal.SIGINT, 130}
        finally:
            serving.kill()


async def test_beside_a_daemon_it_follows_the_folder(site: Site) -> None:
    async with served(site) as client:
        state = await asked(client, "status")
        assert (state["folders"][0]["documents"], state["folders"][0]["is_followed"]) == (2, False)
        assert [each["path"] for each in state["first_problems"]] == ["binary.txt"]
        daemon = site.start("run").wait_ready()
        (site.folder / "new.md").write_text("A lighthouse at the northern cape.\n", encoding="utf-8")
        eventually(lambda: daemon.events("document.synced"), daemon.log)
        found = (await asked(client, "search", text="A lighthouse at the northern cape.", n=1))["result"]
        assert found[0]["path"] == "new.md"
        assert (await asked(client, "status"))["folders"][0]["is_followed"]
        daemon.kill()
        found = (await asked(client, "search", text="A lighthouse at the northern cape.", n=1))["result"]
        assert found[0]["path"] == "new.md"


async def test_streamable_http_asks_for_the_token_and_answers_as_standard_output_does(site: Site) -> None:
    site.settings["INGESTOR_HTTP__TOKEN"] = TOKEN
    try:
        serving = site.start("mcp", "--http", "--port", "0")
        eventually(lambda: serving.events("mcp.listening"), serving.log)
        url = serving.events("mcp.listening")[0]["url"]
        async with httpx2.AsyncClient() as nobody:
            assert (await nobody.post(url, json={})).status_code == 401
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} == {"search", "get_document", "status"}
            text = (site.folder / "争端.txt").read_text(encoding="utf-8").strip()
            assert (await asked(client, "search", text=text, n=1))["result"][0]["path"] == "争端.txt"
        assert serving.terminate() in {0, -15, 143}
        assert TOKEN not in serving.log()
    finally:
        del site.settings["INGESTOR_HTTP__TOKEN"]


def test_a_port_that_is_taken_is_refused_with_the_way_out(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = site.command("mcp", "--http", "--port", str(other.getsockname()[1]))
    assert (done.code, "--port" in done.err) == (2, True)


def test_without_the_sdk_the_command_says_what_to_install(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp/__init__.py").write_text("raise ModuleNotFoundError(name='mcp')\n", encoding="utf-8")
    done = site.command("mcp", PYTHONPATH=str(tmp_path) + os.pathsep)
    assert (done.code, "ingestor[mcp]" in done.err, done.out) == (2, True, "")
