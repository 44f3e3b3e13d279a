"""Helps: the list of all commands, in groups; plain text, because to draw it takes four times as long as all else."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from typer.core import TyperGroup

_MARGIN = 6
"""Columns of the list that hold no words."""
_TYPE = re.compile(r" <\w+(?:\[\w+\])?>\Z")
"""What Typer puts behind the name of an argument: a type of Python, which tells a reader nothing."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, with what the list says of it in one line, and examples for its own help."""

    name: str
    work: Callable[..., None]
    told: str
    examples: tuple[str, ...] = ()

    @property
    def epilog(self) -> str | None:
        """What stands below its own help; lines that are not filled up."""
        if not self.examples:
            return None
        return "\n".join(("\b", "Examples:", *(f"  {example}" for example in self.examples)))


class Grouped(TyperGroup):
    """A group of commands whose list has a heading wherever their panel changes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - types that Typer keeps to itself
        """Write the list."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        shown = [(name, command) for name, command in commands if not command.hidden]
        widest = max(len(name) for name, _ in shown)
        for heading, members in groupby(shown, lambda member: str(getattr(member[1], "rich_help_panel", ""))):
            with formatter.section(heading):
                limit = formatter.width - _MARGIN - widest
                # Names of one width let the groups have one second column.
                formatter.write_dl([(name.ljust(widest), told.get_short_help_str(limit)) for name, told in members])


def without_types(base: Any) -> type:  # noqa: ANN401 - a class of Typer or of Click, which no public name leads to
    """A formatter of helps that names no types of Python."""

    class Formatter(base):  # type: ignore[misc]  # as above
        def write_dl(self, rows: Sequence[tuple[str, str]], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as above
            told = [(name if name.startswith("-") else _TYPE.sub("", name), text) for name, text in rows]
            super().write_dl(told, *args, **kwargs)

    return Formatter
