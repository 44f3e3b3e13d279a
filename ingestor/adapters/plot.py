"""A bar chart as a PNG or SVG file, by matplotlib, which is an optional dependency.

Invariant: equal values give equal bytes; nothing of matplotlib outside of the drawing is changed, and no display is
needed.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ingestor.core.errors import ConfigError

FORMATS: Final = ("png", "svg")
_WIDTH_INCHES: Final = 8.0
_MARGIN_INCHES: Final = 1.3
_GROUP_INCHES: Final = 0.9
_GROUP_SHARE: Final = 0.8
"""Of the height of a group, the part that is bars."""


def see_that_it_can_be_drawn(file: Path) -> None:
    """Raise `ConfigError` for a file of another kind, for a folder that is missing, and where matplotlib is."""
    if file.suffix.lower().lstrip(".") not in FORMATS:
        raise ConfigError(f"{file} is no file to draw", remedy=f"give it the ending .{' or .'.join(FORMATS)}")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {file} does not exist", remedy="create it, or name another")
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        message = f"matplotlib, which draws, cannot be had: {error}"
        raise ConfigError(message, remedy="pip install 'ingestor[plot]'") from error


def draw_bars(file: Path, *, title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Draw a group of bars for each label, with one bar of each series; values are shares from 0 to 1.

    Raises `ConfigError` when the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - optional, and slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    kind = file.suffix.lower().lstrip(".")
    style: dict[Any, Any] = {
        "svg.hashsalt": "ingestor",  # ids inside the file would be random
        "svg.fonttype": "none",  # text stays text
        "text.parse_math": False,  # a dollar in a model's name is a dollar
    }
    with mpl.rc_context(style):
        figure = Figure((_WIDTH_INCHES, _MARGIN_INCHES + _GROUP_INCHES * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        height = _GROUP_SHARE / len(series)
        for index, (name, values) in enumerate(series.items()):
            shift = (index - (len(series) - 1) / 2) * height
            bars = axes.barh([place + shift for place in range(len(labels))], values, height, label=name)
            axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, fontsize=10)
        figure.legend(loc="outside lower center", ncols=len(series), frameon=False)
        try:
            # The format chooses a canvas of its own: no backend is selected for the process.
            figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
        except OSError as error:
            message = f"the plot {file} cannot be written: {error.strerror or error}"
            raise ConfigError(message, remedy="name another file, or see to its permissions") from error
