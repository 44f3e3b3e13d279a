"""Bulk: files of a folder that hardly anybody means to search: what package managers and compilers have put there."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

BULKY: Final = (
    "node_modules",
    "bower_components",
    "site-packages",
    "venv",
    "virtualenv",
    "vendor",
    "target",
    "dist",
    "build",
)
"""Names of folders that are made again by a command. Hidden ones are left out anyway."""


def bulky(paths: Iterable[str]) -> list[tuple[str, int]]:
    """How many files lie below folders of such names, the most first; a file counts for the outermost one."""
    found: Counter[str] = Counter()
    for path in paths:
        if outermost := next((part for part in PurePosixPath(path).parts[:-1] if part in BULKY), ""):
            found[outermost] += 1
    return found.most_common()
