"""`python -m tests.bench`: measure, show, keep and draw.

Invariant: what was measured is kept, whatever happens to the benches after it. The exit code is 1 when a figure misses
its bound, 2 when a bench that was asked for is not there.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from tests.bench.figure import Figure
from tests.bench.report import draw, print_figures, write_json

PACKAGE = "tests.bench"
BENCHES = ("starting", "unchanged", "cold_sync", "renames", "local_model", "living", "lag")
RESULTS = Path(__file__).with_name("results.json")
PLOT = Path(__file__).with_name("results.svg")
EXIT_MISSED = 1
EXIT_MISSING = 2

Measure = Callable[[float], Iterator[Figure]]


def bench_of(name: str, package: str = PACKAGE) -> Measure | None:
    """What measures a bench at a scale, where it has one; None when there is no such bench."""
    full_name = f"{package}.{name}"
    try:
        measure = importlib.import_module(full_name).measure
    except ModuleNotFoundError as error:
        if error.name != full_name:
            raise
        return None
    has_scale = "scale" in inspect.signature(measure).parameters
    return lambda scale: measure(scale=scale) if has_scale else measure()


def run(
    names: Sequence[str], scale: float, file: Path, console: Console, *, package: str = PACKAGE
) -> tuple[list[Figure], list[str]]:
    """Measure the benches one after another; returns the figures, and the names of benches that are not there.

    What is known so far is written to `file` after each figure.
    """
    figures: list[Figure] = []
    missing: list[str] = []
    for name in names:
        measure = bench_of(name, package)
        if measure is None:
            missing.append(name)
            console.print(f"[bold red]missing:[/] there is no bench {name!r} ({package}.{name})")
            continue
        console.print(f"[dim]{name} …[/]")
        for figure in measure(scale):
            figures.append(figure)
            write_json(file, figures, scale=scale, missing=missing)
    write_json(file, figures, scale=scale, missing=missing)
    return figures, missing


def main() -> int:
    """Read the arguments, measure, and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure ingestor against what the outside parts cost alone."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benches (default: all): {', '.join(BENCHES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the files to measure with, for quick runs")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures are kept")
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the ratios are drawn, .svg or .png")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    if asked.scale <= 0:
        parser.error("--scale is a part of the files, above 0")
    console = Console()
    figures, missing = run(asked.names or BENCHES, asked.scale, asked.json, console)
    if figures:
        print_figures(console, figures)
        draw(asked.plot, figures)
    console.print(f"kept in {asked.json}" + (f", drawn in {asked.plot}" if figures else ""))
    if missing:
        return EXIT_MISSING
    return EXIT_MISSED if not all(figure.is_within for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
