"""What a terminal or a log line would act upon, made visible instead: names and texts come from anybody.

Invariant: what comes out is one line that shows every sign; a text of letters in any language comes out as it was.
"""

import re
from collections.abc import Sequence
from typing import Final

_ACTING: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: line breaks, the beginnings of escape sequences
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # other line breaks, and what turns the direction of writing
    "\ud800-\udfff]"  # bytes of a file name that are no UTF-8
)
_NAMED: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_FIRST_BYTE: Final = 0xDC80
_LAST_BYTE: Final = 0xDCFF
_BYTE_OF_SURROGATE: Final = 0xDC00
_LAST_SHORT: Final = 0xFF


def escaped(text: str) -> str:
    r"""The text with controls as \n, \x1b or \u202e, and bytes that are no UTF-8 as \xff."""
    return _ACTING.sub(lambda found: _escape(found[0]), text)


def spelled(path: str) -> str:
    r"""A path for JSON, which has its own way with controls: bytes that are no UTF-8 as \xff, all else as it is."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def listed(paths: Sequence[str], count: int) -> str:
    """The first ones of so many paths, for people."""
    return ", ".join(map(spelled, paths)) + (", …" if count > len(paths) else "")


def _escape(character: str) -> str:
    code = ord(character)
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        code -= _BYTE_OF_SURROGATE
    return _NAMED.get(character) or (f"\\x{code:02x}" if code <= _LAST_SHORT else f"\\u{code:04x}")
