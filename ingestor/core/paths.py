"""Paths: relative to the watched folder, with "/" between the names; "" is the folder itself."""

from collections.abc import Container


def is_at_or_below(path: str, folder: str) -> bool:
    """Whether a path is that of the folder, or of something in it."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def is_below_any(path: str, folders: Container[str]) -> bool:
    """Whether a path is one of some folders, or that of something in one of them."""
    if not folders:
        return False
    if "" in folders:
        return True
    parts = path.split("/")
    return any("/".join(parts[:depth]) in folders for depth in range(1, len(parts) + 1))
