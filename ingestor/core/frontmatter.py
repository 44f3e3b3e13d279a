"""Front matter: the block of YAML at the very start of a Markdown text that speaks of the document.

A text may as well begin with a thematic break, so what stands between two rules is front matter only when it is a YAML
mapping, or when its first line is the beginning of one: then it is meant as one, and what is wrong with it is told.

Invariant: `front_matter_of` raises nothing but `UnusableMetadata`, whatever it is given, and takes bounded time: no
alias multiplies what was written, nothing is nested deeply, no tag makes anything but plain values.
"""

import re
from dataclasses import dataclass
from typing import Final

import yaml

from ingestor.core.errors import UnusableMetadata
from ingestor.core.escaping import escaped
from ingestor.core.metadata import MAX_BYTES, MAX_DEPTH, Layer, layer_of

_OPENING: Final = re.compile(r"\ufeff?---[ \t]*\n")
_CLOSING: Final = re.compile(r"^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.MULTILINE)
_FIRST_KEY: Final = re.compile(
    r"(?:[ \t]*(?:#.*)?\n)*(?:[\w.-]+|\"[^\"\n]*\"|'[^'\n]*')[ \t]*:(?:[ \t]|$)", re.MULTILINE
)
_REMEDY: Final = "mend it: a value with a colon or a sign of YAML in it has to stand in quotation marks"


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What a text says of itself, and the character at which the text proper begins."""

    layer: Layer
    end: int


class _Refused(yaml.YAMLError):
    """What plain metadata has no use for, and a hostile one has."""


class _PlainLoader(yaml.SafeLoader):
    """Loads mappings, lists and scalars as they are written: no aliases, no tags, no depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs know no types of it
        if isinstance(event, yaml.AliasEvent):
            message = "an alias (*) is not allowed"
            raise _Refused(message)
        if getattr(event, "tag", None) not in (None, "!"):
            message = "a tag (!) is not allowed"
            raise _Refused(message)
        if self.depth > MAX_DEPTH:
            message = f"it is nested more than {MAX_DEPTH} levels deep"
            raise _Refused(message)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def front_matter_of(text: str, path: str) -> FrontMatter | None:
    """Find the front matter of a Markdown text whose lines end in a bare line feed; None where it has none.

    Raises `UnusableMetadata` for one that is no YAML, is larger than `MAX_BYTES`, or holds what metadata may not.
    """
    opening = _OPENING.match(text)
    closing = _CLOSING.search(text, opening.end()) if opening else None
    if opening is None or closing is None:
        return None
    place = f"the front matter of {escaped(path)}"
    block = text[opening.end() : closing.start()]
    is_meant = _FIRST_KEY.match(block) is not None
    if len(block) > MAX_BYTES or len(block.encode("utf-8", "replace")) > MAX_BYTES:
        if not is_meant:
            return None
        raise UnusableMetadata(f"{place} has more than {MAX_BYTES:,} bytes", remedy="shorten it")
    try:
        values = _loaded(block)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if not is_meant:
            return None
        raise UnusableMetadata(f"{place} cannot be read: {_reason(error)}", remedy=_REMEDY) from error
    if not isinstance(values, dict) or not values:
        return None
    return FrontMatter(layer_of(values, place), closing.end())


def _loaded(block: str) -> object:
    loader = _PlainLoader(block)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error)
    # The first line of the block is the second one of the file.
    return escaped(f"{reason}, line {mark.line + 2}" if mark else reason)
