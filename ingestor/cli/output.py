"""What the commands print: results on standard output, everything else on standard error.

rich is imported when something is printed first: it takes as long as the rest of a command that prints JSON or help.

Invariant: an error is one clear line with its remedy and the exit code of its class, never a traceback; `--debug` shows
the traceback as well. `--json` output is one JSON document and nothing else.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn, TextIO

import typer

from ingestor.core.errors import IngestorError
from ingestor.core.escaping import escaped
from ingestor.core.shortage import shortage
from ingestor.core.terminals import is_dumb
from ingestor.language import translated

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

EXIT_UNEXPECTED = 1
EXIT_PROBLEMS = 3
EXIT_OUT_OF_REACH = 4

_LINE_END_BLANKS = re.compile(" +$", re.MULTILINE)
_PIPE_COLUMNS = 10_000
"""Of a table that goes to a file or a program: each row is a line."""
_UNITS = ("B", "KiB", "MiB", "GiB")
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Terminal:
    """A console of rich on one of the two streams, made when it is asked for something."""

    def __init__(self, *, is_stderr: bool) -> None:
        self._is_stderr = is_stderr

    @cached_property
    def console(self) -> "Console":
        """What prints lines: none is folded, so that a path or a command can be copied from a terminal."""
        from rich.console import Console

        width = None if self._stream.isatty() or os.environ.get("COLUMNS") else _PIPE_COLUMNS
        return Console(stderr=self._is_stderr, soft_wrap=True, highlight=False, width=width)

    @cached_property
    def folding(self) -> "Console":
        """What draws panels and bars, and folds what they hold to the width of the terminal."""
        from rich.console import Console

        return Console(stderr=self._is_stderr, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether people are looking, and bars and panels may be drawn: a dumb terminal gets what a pipe does."""
        return self._stream.isatty() and not is_dumb(os.environ)

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self._is_stderr else sys.stdout

    def print(self, *objects: "RenderableType") -> None:
        """Print what we tell, in the reader's language: text with rich's markup, tables with their headings.

        A pipe gets a table without the blanks with which rich fills up its last column.
        """
        told = [_told(each) for each in objects]
        if self.is_terminal:
            self.console.print(*told)
            return
        with self.console.capture() as captured:
            self.console.print(*told)
        self.console.file.write(_LINE_END_BLANKS.sub("", captured.get()))
        self.console.file.flush()  # a reader that has gone is noticed here

    def print_verbatim(self, text: str) -> None:
        """Print what others have written, or what is in the reader's language already, with rich's markup."""
        self.console.print(text)

    def print_folded(self, *objects: "RenderableType") -> None:
        """Print what is folded to the width of the terminal, between margins of its own."""
        self.folding.print(*objects)


out = Terminal(is_stderr=False)
err = Terminal(is_stderr=True)


def _told(shown: "RenderableType") -> "RenderableType":
    if isinstance(shown, str):
        return translated(shown)
    for column in getattr(shown, "columns", ()):
        if isinstance(column.header, str):
            column.header = translated(column.header)
    return shown


def print_json(value: object) -> None:
    """Print one JSON document; people's languages stay readable, what a terminal would act upon is escaped."""
    document = json.dumps(value, ensure_ascii=False, indent=2)
    sys.stdout.write(_NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document) + "\n")


def printable(text: str) -> str:
    r"""What others have named or written, for a terminal: controls as \x1b, bytes that are no UTF-8 as \xff."""
    return escaped(text)


def shown(text: str) -> str:
    """What others have named or written, to be put between the markup of ours."""
    from rich.markup import escape

    return escape(printable(text))


def moment(seconds: float) -> str:
    """A time for people, in their own zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def sized(size_bytes: int) -> str:
    """A size for people."""
    power = min(max(0, size_bytes.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size_bytes / 1_024**power:,.{min(power, 1)}f} {_UNITS[power]}"


def priced(price: float | None, currency: str) -> str:
    """The price of a million tokens for people."""
    if price is None:
        return translated("not known")
    return f"{currency} {price:.2f}".strip() if price else translated("free")


def padded(heading: str, cells: int, *, is_right: bool = False) -> str:
    """A heading in the reader's language, over a column of so many cells; a Chinese character takes two of them."""
    from rich.cells import cell_len

    told = translated(heading)
    space = " " * max(0, cells - cell_len(told))
    return space + told if is_right else told + space


def folded_rows(rows: Mapping[str, str]) -> "Table":
    """Names and what belongs to them, in two columns."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(f"[bold]{translated(name)}[/]", shown(translated(value)))
    return table


def print_rows(rows: Mapping[str, str]) -> None:
    """Print names and what belongs to them, in two columns."""
    out.print(folded_rows(rows))


def fail(sentence: str, exit_code: int) -> NoReturn:
    """End the command with one line."""
    err.print(f"[bold red]error:[/] {shown(translated(sentence))}")
    raise typer.Exit(exit_code)


def says_yes(question: str, *, default: bool = False) -> bool:
    """Ask on a terminal for yes or no, until one of them is said. Ctrl-C raises `typer.Abort`."""
    told = f"{translated(question)} [{'Y/n' if default else 'y/N'}]"
    answers = {"": default, "y": True, "yes": True, "n": False, "no": False}
    while (answer := typer.prompt(told, default="", show_default=False, err=True).strip().lower()) not in answers:
        err.print("[bold red]error:[/] answer y or n")
    return answers[answer]


@contextmanager
def errors_explained(*, debug: bool) -> Iterator[None]:
    """Turn errors into one line and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does: nobody is left to be told.
        sys.stderr.close()
        raise typer.Exit(EXIT_UNEXPECTED) from None
    except Exception as error:  # noqa: BLE001 - the last place where an error can still become a sentence
        if debug:
            err.console.print_exception()
        cause = _first(error)
        if isinstance(cause, OSError):
            cause = shortage(cause) or cause
        if isinstance(cause, IngestorError):
            fail(cause.sentence, cause.exit_code)
        kind = type(cause).__name__
        fail(f"unexpected {kind}: {cause} - run it again with --debug, and report what it shows", EXIT_UNEXPECTED)


def _first(error: BaseException) -> BaseException:
    """The error that a group of tasks ended with: the first that we raised on purpose, or else the first of all."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_first(inner) for inner in error.exceptions]
    return next((cause for cause in causes if isinstance(cause, IngestorError)), causes[0])
