"""How far work is: drawn anew on a terminal, a line now and then elsewhere.

Invariant: figures are steady, so that a glance is enough, and what is waited for is named in one line.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec

from ingestor.cli.output import err, printable, shown, sized
from ingestor.core.steadiness import SteadyRate, told_rate, told_seconds
from ingestor.language import joined, translated

if TYPE_CHECKING:
    from rich.console import Group

    from ingestor.app.sync import SyncProgress

_PAUSE_SECONDS = 5.0

_P = ParamSpec("_P")


def now_and_then(tell: Callable[_P, None]) -> Callable[_P, None]:
    """Tell no sooner than `_PAUSE_SECONDS` after the time before, and after the beginning."""
    told_seconds = time.monotonic()

    def tell_if_due(*args: _P.args, **kwargs: _P.kwargs) -> None:
        nonlocal told_seconds
        if time.monotonic() - told_seconds >= _PAUSE_SECONDS:
            told_seconds = time.monotonic()
            tell(*args, **kwargs)

    return tell_if_due


@contextmanager
def progress_told() -> Iterator[Callable[["SyncProgress"], None]]:
    """Tell how far a sync or a rebuild is: three lines that are drawn anew on a terminal, lines elsewhere."""
    course = Course()
    if not err.is_terminal:
        tell_line = now_and_then(lambda: err.print_verbatim(shown(course.line())))

        def note(progress: "SyncProgress") -> None:
            course.note(progress, time.monotonic())
            tell_line()

        yield note
        return
    from rich.live import Live

    with Live(console=err.folding, auto_refresh=False, transient=True) as live:

        def draw(progress: "SyncProgress") -> None:
            course.note(progress, time.monotonic())
            live.update(_drawn(course), refresh=True)

        yield draw


class Course:
    """What was told of the progress so far, and the rates that come of it."""

    def __init__(self) -> None:
        self._documents, self._chunks = SteadyRate(), SteadyRate()
        self._documents_per_second = self._chunks_per_second = 0.0
        self.progress: SyncProgress | None = None

    def note(self, progress: "SyncProgress", now_seconds: float) -> None:
        """How far work is now."""
        self.progress = progress
        self._documents_per_second = self._documents.count(progress.documents, now_seconds)
        self._chunks_per_second = self._chunks.count(progress.chunks, now_seconds)

    def rates(self) -> str:
        """Documents and chunks a second."""
        files, chunks = told_rate(self._documents_per_second), told_rate(self._chunks_per_second)
        return translated(f"{files} files/s, {chunks} chunks/s")

    def left(self) -> str:
        """The time left; empty while nobody can know it."""
        if self.progress is None:
            return ""
        documents = self.progress.documents_expected - self.progress.documents
        if documents <= 0 or not self._documents_per_second:
            return ""
        return translated(f"about {told_seconds(documents / self._documents_per_second)} left")

    def spent(self) -> str:
        """What was read and paid for."""
        if self.progress is None:
            return ""
        told = translated(f"{sized(self.progress.size_bytes)}, {self.progress.texts_embedded} texts embedded")
        tokens = translated(f"{self.progress.tokens} tokens") if self.progress.tokens else ""
        return joined((told, tokens, self.progress.cost))

    def waiting(self) -> str:
        """What keeps work from going on; empty when nothing does."""
        return translated(f"waiting for {self.progress.waits_for}") if self.progress and self.progress.waits_for else ""

    def line(self) -> str:
        """All of it in one line."""
        if self.progress is None:
            return ""
        counts = translated(f"{self.progress.documents} of {self.progress.documents_expected} files")
        return joined((joined((counts, self.rates(), self.spent(), self.left())), self.waiting()), "; ")


def _drawn(course: Course) -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    progress = course.progress
    done, expected = (progress.documents, progress.documents_expected) if progress else (0, 0)
    first = Table.grid(padding=(0, 1), expand=True)
    first.add_column(no_wrap=True)
    first.add_column(ratio=1)
    first.add_column(no_wrap=True)
    bar = ProgressBar(total=expected or None, completed=done, pulse=not expected)
    first.add_row(Text(translated(f"{done} of {expected} files")), bar, Text(course.left()))
    lines = [Text(joined((course.rates(), course.spent()), "; "), style="dim")]
    if course.waiting():
        lines.append(Text(printable(course.waiting()), style="yellow"))
    return Group(first, *lines)
