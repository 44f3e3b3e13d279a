"""Metadata of one's own: from what people write into their files to the scalars that Chroma takes.

Whatever form it was written in (YAML, TOML, JSON), it becomes a *layer*: keys of nested tables joined by ".", lists of
scalars as tuples. Layers are laid over each other, the last wins, and only then are lists told in scalars.

Invariant: nothing comes out that Chroma refuses or that hides a key of ours; every fault names the key and its place.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any, Final, TypeAlias

from ingestor.core.errors import UnusableMetadata
from ingestor.core.escaping import escaped
from ingestor.core.model import Metadata, Scalar

Layer: TypeAlias = Mapping[str, Scalar | tuple[Scalar, ...] | None]
"""Metadata as one place tells it; None takes a key away that another place gives."""

TITLE: Final = "title"
"""The key that stands for the document's title."""
RESERVED: Final = frozenset(
    (  # noqa: SIM905 - as in the README, in a line
        "source file_name file_type file_size last_modified content_hash document_id chunk start_line end_line heading "
        "embedding_model ingested_at page"
    ).split()
)
"""Keys that are told of every file, or are to be."""
RESERVED_BEGINNINGS: Final = ("$", "#", "chroma:")
"""What Chroma keeps for itself."""
MAX_BYTES: Final = 64 * 1024
"""Of one place: front matter, a sidecar, a `.ingestor.toml`."""
MAX_KEYS: Final = 128
"""Of one place, counted by the values that they have."""
MAX_ELEMENTS: Final = 32
"""Of one list: each becomes a key."""
MAX_DEPTH: Final = 16

_LEAST_INTEGER: Final = -(2**63)
_SHOWN_CHARACTERS: Final = 100


def layer_of(values: Mapping[Any, object], place: str) -> Layer:
    """Flatten what somebody wrote at a place, named for people.

    Raises `UnusableMetadata` for a key that is no string, is ours or Chroma's, or stands twice; for a value that is no
    scalar, not finite, or no text; for too many keys or elements.
    """
    layer: dict[str, Scalar | tuple[Scalar, ...] | None] = {}
    count = 0
    for count, (key, value) in enumerate(_leaves(values, "", place, 1), 1):
        if key in RESERVED:
            raise _fault(key, place, "is one of ingestor's own", "give the key another name")
        if key.startswith(RESERVED_BEGINNINGS):
            raise _fault(key, place, "begins with what Chroma keeps for itself", "give the key another name")
        if key in layer:
            raise _fault(key, place, "stands there twice", "take one of them out")
        if count > MAX_KEYS:
            raise _fault(key, place, f"is one too many: at most {MAX_KEYS} are allowed", "take some of them out")
        layer[key] = _value(key, value, place)
    for key in layer:
        above = key.rpartition(".")[0]
        while above:
            if above in layer:
                raise _fault(above, place, f"stands there twice, as {_shown(key)} too", "take one of them out")
            above = above.rpartition(".")[0]
    return layer


def overlaid(lower: Layer, upper: Layer) -> Layer:
    """Lay one layer over another: what the upper one says of a key, the lower one says no more."""
    if not lower or not upper:
        return upper or lower
    return {key: value for key, value in lower.items() if not any(_is_same(key, each) for each in upper)} | dict(upper)


def expanded(layer: Layer) -> Metadata:
    """Tell a layer in scalars: a list is its elements joined by ", ", and a key that is true for each of them."""
    found: dict[str, Scalar] = {}
    for key, value in layer.items():
        if isinstance(value, tuple):
            words = [_word(element) for element in value]
            found[key] = ", ".join(words)
            found |= {f"{key}.{word}": True for word in words if word}
        elif value is not None:
            found[key] = value
    return found


def _leaves(values: Mapping[Any, object], prefix: str, place: str, depth: int) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if not isinstance(name, str) or not _is_text(name) or not name.strip():
            shown = f"{prefix}{name}"
            raise _fault(shown, place, "is no text", "put the key into quotation marks, or give it a name")
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            yield key, value
        elif depth < MAX_DEPTH:
            yield from _leaves(value, f"{key}.", place, depth + 1)
        else:
            raise _fault(key, place, f"is nested more than {MAX_DEPTH} tables deep", "nest it less deeply")


def _value(key: str, value: object, place: str) -> Scalar | tuple[Scalar, ...] | None:
    if value is None or not isinstance(value, list | tuple):
        return None if value is None else _scalar(key, value, place)
    if len(value) > MAX_ELEMENTS:
        what = f"has {len(value):,} elements: at most {MAX_ELEMENTS} are allowed"
        raise _fault(key, place, what, "shorten the list, or write it as one text")
    return tuple(_scalar(key, element, place) for element in value if element is not None)


def _scalar(key: str, value: object, place: str) -> Scalar:
    match value:
        case bool():
            return value
        case int():
            if not _LEAST_INTEGER <= value < -_LEAST_INTEGER:
                raise _fault(key, place, "is a number of more than 64 bits", "put it into quotation marks")
            return value
        case float():
            if not math.isfinite(value):
                raise _fault(
                    key, place, "is no finite number", "leave the key out, or put the value into quotation marks"
                )
            return value
        case str():
            if not _is_text(value):
                raise _fault(key, place, "holds what is no text (NUL, or half a character)", "take that out")
            return value
        case date() | time():
            return value.isoformat()
        case _:
            what = "is neither text, number, true or false, date, table, nor a list of those but tables"
            raise _fault(key, place, what, "write it as one of these")


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _is_same(key: str, other: str) -> bool:
    """Whether two keys speak of the same: they are equal, or one is a table that the other lies in."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def _word(element: Scalar) -> str:
    return str(element).lower() if isinstance(element, bool) else str(element)


def _shown(key: str) -> str:
    return escaped(key if len(key) <= _SHOWN_CHARACTERS else f"{key[: _SHOWN_CHARACTERS - 1]}…")


def _fault(key: str, place: str, what: str, remedy: str) -> UnusableMetadata:
    return UnusableMetadata(f"the key {_shown(key)} in {place} {what}", remedy=remedy)
