"""`ingestor mcp`, asked by the SDK's own client: beside a daemon, without one, and by HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from tests.daemon import COMMAND, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 16
PAGES = 6


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


def test_without_the_sdk_the_command_says_what_to_install(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp/__init__.py").write_text("raise ModuleNotFoundError(name='mcp')\n", encoding="utf-8")
    done = site.command("mcp", PYTHONPATH=str(tmp_path) + os.pathsep)
    assert (done.code, "ingestor[mcp]" in done.err, done.out) == (2, True, "")
