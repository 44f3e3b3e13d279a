"""The README's table of commands names what the command line has: every command, and no option that there is not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ingestor.cli.main import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
TABLE = README.split("## Commands")[1].split("\n## ")[0].replace(r"\|", "\0")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - of typer's own copy of click
    """Commands by what is typed for them; that which only groups others is one where it does something itself."""
    for name, command in group.commands.items():
        is_group = hasattr(command, "commands")
        if not is_group or command.invoke_without_command:
            yield f"{above}{name}", command
        if is_group:
            yield from commands(command, f"{above}{name} ")


def usages() -> Iterator[str]:
    """What the first cells of the table give to type; a cell names the group of its commands once."""
    for row in re.findall(r"^\| (`ingestor .*?) \|", TABLE, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        group = first.removeprefix("ingestor ").split()[0]
        for usage in (first, *others):
            words = usage.removeprefix("ingestor ")
            yield words if words != usage or words.startswith(f"{group} ") else f"{group} {words}"


HAS = dict(commands(typer.main.get_command(app)))
TOLD = sorted(usages())


def command_of(usage: str) -> str:
    return max((name for name in HAS if f"{usage} ".startswith(f"{name} ")), key=len, default="")


def test_every_command_is_told_and_no_other() -> None:
    assert {command_of(usage) for usage in TOLD} == {name for name, command in HAS.items() if not command.hidden}


@pytest.mark.parametrize("usage", TOLD)
def test_every_option_that_is_told_can_be_given(usage: str) -> None:
    can = {option for parameter in HAS[command_of(usage)].params for option in parameter.opts}
    assert set(OPTION.findall(usage)) - can == set()
