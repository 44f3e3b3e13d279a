"""File types: the MIME type that a file's name tells."""

import mimetypes
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

_TEXT_TYPES: Final = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".toml": "application/toml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".log": "text/plain",
}
"""What the standard library does not know, or knows only on some machines."""


def file_type_of(name: str) -> str:
    """The MIME type of a file that is indexed as it is; what nobody knows is plain text."""
    suffix = PurePosixPath(name).suffix.lower()
    return _TEXT_TYPES.get(suffix) or _known().guess_type(name)[0] or "text/plain"


@lru_cache(maxsize=1)
def _known() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()
