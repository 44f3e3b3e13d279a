"""The command line's own words - usage, helps, mistakes in a command - in the reader's language.

Typer writes them in English. What it writes goes through here: a formatter translates helps before they are broken into
lines, and a mistake is caught before Typer shows it.

Invariant: only words differ; exit codes and streams are those of the English command line.
"""

import io
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

import typer
import typer.main

from ingestor.language import translated

EXIT_ABORTED = 1
_MAX_FIRST_CELLS = 30
_GAP_CELLS = 2
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
"""What every mistake in a command is: Typer has its own, or that of Click, depending on its version."""
_UNBROKEN = re.compile(r" *(?:[!-~]+|[^!-~ ])[，。、；：！？）》”…]* ?")
"""A word, or a character of a script without spaces, with the signs that begin no line."""
_EXTRA = re.compile(r"(.*?)(?:  )?\[([^\]]*)\]", re.DOTALL)
"""A help, and what Typer adds to it: default, range, whether it is required."""


def run_translated(app: typer.Typer) -> None:
    """Run the command line in the reader's language."""
    command: Any = typer.main.get_command(app)
    context = command.context_class
    context.formatter_class = _formatter(context.formatter_class)
    try:
        code = command(standalone_mode=False)
    except typer.Abort:
        typer.echo(translated("Aborted!"), err=True)
        sys.exit(EXIT_ABORTED)
    except _USAGE_ERROR as mistake:
        told = io.StringIO()
        mistake.show(told)
        typer.echo("\n".join(map(translated, told.getvalue().split("\n"))), err=True, nl=False)
        sys.exit(mistake.exit_code)
    sys.exit(code)


def _formatter(base: Any) -> type:  # noqa: ANN401 - a class of Typer or of Click, which no public name leads to
    class Formatter(base):  # type: ignore[misc]  # as above
        """Writes helps in the reader's language, in lines of as many cells as the English ones."""

        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            super().write_usage(prog, args, translated("Usage:") if prefix is None else prefix)

        def write_heading(self, heading: str) -> None:
            told = translated(heading)
            if told == heading:
                super().write_heading(heading)
            else:
                self.write(f"{'':>{self.current_indent}}{told}：\n")

        def write_text(self, text: str) -> None:
            cells = self.width - self.current_indent
            super().write_text("\n\n".join(_unwrapped(_paragraph(each, cells)) for each in text.split("\n\n")))

        def write_dl(
            self, rows: Sequence[tuple[str, str]], col_max: int = _MAX_FIRST_CELLS, col_spacing: int = _GAP_CELLS
        ) -> None:
            widest = min(max(len(name) for name, _ in rows), col_max) + col_spacing
            cells = max(self.width - widest - self.current_indent, 10)
            told = [(name, _unwrapped(_lines(_help(text), cells))) for name, text in rows]
            super().write_dl(told, col_max, col_spacing)

    return Formatter


def _help(text: str) -> str:
    added = _EXTRA.fullmatch(" ".join(text.split(" ")))
    if added is None or (known := translated(text)) != text:
        return translated(text) if added is None else known
    extra = "; ".join(map(translated, added[2].split("; ")))
    return f"{translated(added[1])}  [{extra}]".strip()


def _paragraph(text: str, cells: int) -> list[str]:
    """The lines of a paragraph; one that begins with the mark for it keeps its own."""
    if text.startswith("\b\n"):
        return [translated(line) for line in text.splitlines()[1:]]
    return _lines(translated(" ".join(text.split())), cells)


def _unwrapped(lines: list[str]) -> str:
    """Lines that the formatter leaves as they are, because it would count characters and not cells."""
    return "\b\n" + "\n".join(lines)


def _lines(text: str, cells: int) -> list[str]:
    lines = [""]
    for piece in _UNBROKEN.findall(text):
        if lines[-1] and _cells(lines[-1] + piece.rstrip()) > cells:
            lines.append(piece.lstrip())
        else:
            lines[-1] += piece
    return [line.rstrip() for line in lines]


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
