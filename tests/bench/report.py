"""Report: figures as a table, as JSON and as a plot.

Invariant: a figure that misses its bound is marked in each of them.
"""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.bench.figure import Figure

_MAX_DRAWN = 2.0
_BAR_INCHES = 0.45
_MARGIN_INCHES = 1.2


def spent(figure: Figure) -> float:
    """The part of its bound that a figure has used up: above 1 it misses."""
    if figure.bound == 0:
        return 0.0 if figure.is_within else 1.0 + abs(figure.ratio)
    if figure.is_least:
        return figure.bound / figure.ratio if figure.ratio else float("inf")
    return figure.ratio / figure.bound


def table_of(figures: Sequence[Figure]) -> Table:
    """One row a figure."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("figure", overflow="fold")
    for name in ("value", "floor", "ratio", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for figure in figures:
        table.add_row(
            escape(figure.name),
            _amount(figure.value, figure.unit),
            _amount(figure.floor, figure.unit),
            f"{figure.ratio:.2f}",
            _bound(figure),
            "ok" if figure.is_within else "[bold red]MISSED[/]",
        )
    return table


def print_figures(console: Console, figures: Sequence[Figure]) -> None:
    """Show figures to people, with what to mind of each below them."""
    console.print(table_of(figures))
    for figure in figures:
        if figure.note:
            console.print(f"\n{escape(figure.name)}:\n[dim]{escape(figure.note)}[/]", soft_wrap=True, highlight=False)


def write_json(file: Path, figures: Sequence[Figure], *, scale: float, missing: Sequence[str]) -> None:
    """Keep figures, with the machine and the versions that they are true of."""
    content = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": scale,
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()},
        "versions": {name: version(name) for name in ("ingestor", "chromadb", "openai", "watchdog")},
        "missing": list(missing),
        "figures": [figure.as_json() for figure in figures],
    }
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(file: Path, figures: Sequence[Figure]) -> None:
    """Draw each ratio against its bound; bars beyond the line miss."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and would weigh on what is measured before
    from matplotlib.figure import Figure as Sheet  # noqa: PLC0415 - as above

    with mpl.rc_context({"svg.hashsalt": "ingestor", "svg.fonttype": "none"}):
        sheet = Sheet((9.0, _MARGIN_INCHES + _BAR_INCHES * len(figures)), layout="constrained")
        axes = sheet.add_subplot()
        lengths = [min(_MAX_DRAWN, spent(figure)) for figure in figures]
        colours = ["tab:green" if figure.is_within else "tab:red" for figure in figures]
        bars = axes.barh(range(len(figures)), lengths, color=colours)
        labels = [f"{figure.ratio:.2f} ({_bound(figure)})" for figure in figures]
        axes.bar_label(bars, labels, fontsize=8, padding=3)
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set_yticks(range(len(figures)), [figure.name for figure in figures], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, _MAX_DRAWN * 1.2)
        axes.set_xlabel("part of the bound that is used up; 1 is the bound")
        axes.spines[["top", "right"]].set_visible(False)
        sheet.savefig(file)


def _amount(number: float, unit: str) -> str:
    return f"{number:.3f} {unit}" if unit == "s" else f"{number:,.4g} {unit}"


def _bound(figure: Figure) -> str:
    return f"{'at least' if figure.is_least else 'at most'} {figure.bound:g}"
