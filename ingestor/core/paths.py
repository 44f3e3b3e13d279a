"""Paths: relative to the watched folder, with "/" between the names; "" is the folder itself."""


def is_at_or_below(path: str, folder: str) -> bool:
    """Whether a path is that of the folder, or of something in it."""
    return not folder or path == folder or path.startswith(f"{folder}/")
