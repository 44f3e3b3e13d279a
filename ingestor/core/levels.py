"""How good a place for a cut the start of each line is.

Invariant: the level of a line depends on that line, the few around it and the blank lines near it, never on its place
in the text; except in Markdown, where an open fence reaches to its end.
"""

import re
from bisect import bisect_left, bisect_right
from typing import Final

from ingestor.core.grammars import Kind
from ingestor.core.headings import Outline

INSIDE: Final = 0
"""Within a sentence, or between a heading and what it is the heading of."""
WRAPPED: Final = 1
"""A line that goes on with the sentence or the statement of the line before."""
SENTENCE: Final = 2
LINE: Final = 3
BLANK: Final = 5
"""After a blank line, where such lines are common: a lone one, as of a paragraph put into a log, counts for nothing."""
HEADING: Final = 6
"""A heading of level 6; a heading of level 1 is five above."""
DEFINITION: Final = 7
"""In code: after a blank line and indented once at most; a deep line without a blank one before it is at `LINE`."""

_MIN_BLANKS: Final = 3
"""As many blank lines must be within `_NEAR_CHARACTERS` before and after one, itself included, for it to count."""
_NEAR_CHARACTERS: Final = 3_000
_DEPTHS: Final = 3
_INDENT: Final = 4
_NON_BLANK_LINE: Final = re.compile(r"^[^\S\n]*\S", re.MULTILINE)
_BLANK_LINES: Final = re.compile(r"\n(?:[^\S\n]*+\n)+")
_CLOSER: Final = re.compile(r"[)\]}]|</|(?:else|elif|elsif|except|finally|catch|rescue|ensure|end|fi|done|esac)\b")


def line_levels(text: str, kind: Kind, shape: Outline) -> tuple[list[int], list[int]]:
    """Start and level of every line that is not blank; the first begins at 0, blank lines go with the one before."""
    starts, levels = _lines(text, kind, shape)
    if kind is not Kind.CODE:
        _lower_lone_blanks(text, starts, levels)
    starts[0] = 0
    return starts, levels


def _lines(text: str, kind: Kind, shape: Outline) -> tuple[list[int], list[int]]:
    starts: list[int] = []
    levels: list[int] = []
    headings = {heading.start: heading for heading in shape.headings}
    fences = iter((*shape.fences, (len(text), len(text))))
    fence_start, fence_end = next(fences)
    heading_end = 0
    previous_start = previous_end = 0
    for match in _NON_BLANK_LINE.finditer(text):
        start, place = match.start(), match.end() - 1
        is_after_blank = start != previous_end
        if kind is Kind.LINES:
            level = BLANK if is_after_blank else LINE
        elif kind is Kind.CODE:
            level = _code_level(text, start, place, is_after_blank=is_after_blank)
        else:
            while start >= fence_end:
                fence_start, fence_end = next(fences)
            heading = headings.get(start)
            if previous_start < heading_end:
                level = INSIDE
            elif heading is not None:
                level = HEADING + 6 - heading.level
            elif start > fence_start:
                level = SENTENCE if is_after_blank else WRAPPED
            elif is_after_blank:
                level = BLANK if start == place else BLANK - 1
            else:
                level = WRAPPED if _goes_on(text, start, place) else LINE
            if heading is not None:
                heading_end = heading.end
        starts.append(start)
        levels.append(level)
        previous_start = start
        previous_end = text.find("\n", place) + 1 or len(text)
    return starts, levels


def _lower_lone_blanks(text: str, starts: list[int], levels: list[int]) -> None:
    places = [match.end() for match in _BLANK_LINES.finditer(text)]
    for index, (start, level) in enumerate(zip(starts, levels, strict=True)):
        if BLANK - 1 <= level <= BLANK:
            near = bisect_right(places, start + _NEAR_CHARACTERS) - bisect_left(places, start - _NEAR_CHARACTERS)
            if near < _MIN_BLANKS:
                levels[index] = LINE


def _code_level(text: str, start: int, place: int, *, is_after_blank: bool) -> int:
    if _CLOSER.match(text, place):
        return WRAPPED
    indentation = text[start:place]
    depth = (len(indentation) + (_INDENT - 1) * indentation.count("\t")) // _INDENT
    return LINE + max(0, _DEPTHS - depth) + (2 if is_after_blank else 0)


def _goes_on(text: str, start: int, place: int) -> bool:
    """Whether a line is the rest of a sentence that was wrapped, in scripts that have lower case."""
    return start > 1 and text[place].islower() and (text[start - 2].isalnum() or text[start - 2] in ",;")
