"""`.gitignore` files of a folder: what they leave out, which the product does not, and may suggest.

Invariant: they are only read, up to a size; one that cannot be read, or is no text, leaves nothing out.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec

_NAME: Final = ".gitignore"
_MAX_BYTES: Final = 1 << 18


def ignored_by_git(root: Path, paths: Iterable[str]) -> int:
    """How many files, by paths relative to `root`, the `.gitignore` files above them leave out."""
    specs: dict[str, GitIgnoreSpec | None] = {}

    def is_ignored(path: str) -> bool:
        parts = path.split("/")
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in specs:
                specs[folder] = _spec_in(root / folder)
            spec = specs[folder]
            if spec is not None and spec.match_file("/".join(parts[depth:])):
                return True
        return False

    return sum(map(is_ignored, paths))


def _spec_in(folder: Path) -> GitIgnoreSpec | None:
    try:
        with (folder / _NAME).open("rb") as file:
            lines = file.read(_MAX_BYTES).decode("utf-8").splitlines()
        return GitIgnoreSpec.from_lines(lines)
    except (OSError, ValueError):
        return None
