"""What commands of their own spend is counted by the ledger, and held below what a day may cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Site, provider_settings
from tests.embedding_server import EmbeddingServer, Fault, FaultKind

pytestmark = pytest.mark.slow

LIMIT = "INGESTOR_EMBEDDING__MAX_TOKENS_PER_DAY"
TEXTS = [f"A text of one's own with the number {number}, and some words more." for number in range(40)]
NONSENSE = [Fault(FaultKind.WRONG_DIMENSION)] * 200


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(server, EMBEDDING__MAX_BATCH_INPUTS=4)) as site:
        for number in range(6):
            words = f"# Title of number {number}\n\nThe harbour number {number} has a lighthouse. " + "It shines. " * 30
            (site.folder / f"file-{number}.md").write_text(words, encoding="utf-8")
        site.sync()
        yield site


def billed_tokens(server: EmbeddingServer) -> int:
    return server.counters.tokens + server.sample_tokens


def told(site: Site) -> dict[str, Any]:
    status: dict[str, Any] = site.command("status", "--json").json()
    return status


def written(site: Site) -> dict[Path, bytes]:
    """Every file of the data folder, but for SQLite's own notes on who reads."""
    files = [path for path in site.data_dir.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {path: path.read_bytes() for path in files}


COMMANDS = {
    "query": ["query", "Where is a lighthouse?"],
    "embed": ["embed", *TEXTS[:5]],
    "similarity": ["similarity", "a lighthouse", *TEXTS[:3]],
    "evaluate": ["evaluate", "--json", "--model", "openai/unheard-of-model@64", "--model", "local"],
    "rebuild": ["rebuild", "--yes"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_a_command_spends_is_in_status(site: Site, server: EmbeddingServer, command: list[str]) -> None:
    before, spent = billed_tokens(server), told(site)
    if command[0] == "rebuild":
        site.settings["INGESTOR_EMBEDDING__MODEL"] = "another-model"  # or it would cost nothing

    done = site.command(*command)

    assert done.code == 0, done.err
    assert billed_tokens(server) > before
    found = told(site)
    assert found["embedding"]["tokens"] - spent["embedding"]["tokens"] == billed_tokens(server) - before
    assert found["cost"]["tokens_today"] == billed_tokens(server)
    assert found["embedding"]["wasted_requests"] == 0


@pytest.mark.parametrize("command", [["embed", *TEXTS], COMMANDS["evaluate"], COMMANDS["rebuild"]], ids=lambda c: c[0])
@pytest.mark.parametrize("faults", [[], NONSENSE], ids=["sound", "nonsense"])
def test_the_limit_of_a_day_holds_for_a_command(
    site: Site, server: EmbeddingServer, command: list[str], faults: list[Fault]
) -> None:
    limit = billed_tokens(server) + 300
    (site.data_dir / "vectors.sqlite3").unlink()
    if command[0] == "rebuild":
        site.settings["INGESTOR_EMBEDDING__MODEL"] = "another-model"
    server.inject(*faults)

    codes = {site.command(*command, **{LIMIT: str(limit)}).code for _ in range(3 if faults else 1)}

    assert codes == {4}
    assert billed_tokens(server) <= limit
    found = told(site)
    assert billed_tokens(server) <= found["cost"]["tokens_today"], "what was under way at the end is estimated"
    assert found["embedding"]["wasted_tokens"] or not faults


def test_a_question_is_asked_when_the_day_is_spent_and_once_only(site: Site, server: EmbeddingServer) -> None:
    spent = {LIMIT: str(billed_tokens(server))}
    before = server.requests
    assert site.command("embed", "something new", **spent).code == 4
    assert server.requests == before

    done = site.command("query", "Where is the lighthouse?", "--json", **spent)
    assert done.code == 0, done.err
    assert server.requests == before + 1

    server.inject(*NONSENSE)
    done = site.command("query", "Where is the harbour?", **spent)
    assert done.code == 4
    assert "65 dimensions where 64" in done.err
    assert server.requests == before + 2, "it is not repeated for money that nobody wants to spend"
    assert told(site)["cost"]["tokens_today"] == billed_tokens(server)


def test_a_check_is_paid_for_and_writes_nothing(site: Site, server: EmbeddingServer) -> None:
    before, spent = billed_tokens(server), told(site)["embedding"]
    files = written(site)

    found = [each for each in site.command("doctor", "--json").json() if each["name"] == "embedding"]

    assert sum(each["facts"].get("tokens", 0) for each in found) == billed_tokens(server) - before > 0
    assert written(site) == files
    assert told(site)["embedding"] == spent
