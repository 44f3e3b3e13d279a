"""Markdown headings, fenced code and titles.

Follows CommonMark for ATX and setext headings and for fences, but for three things: a setext heading has one line, a
line of more than 300 characters is no heading and no title, and headings inside quotes and lists are not looked for.

Invariant: headings come in the order of the text; nothing inside a fence or the front matter is a heading.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_MAX_HEADING_CHARACTERS: Final = 300
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_ATX: Final = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_SETEXT: Final = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE: Final = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_NO_TITLE: Final = re.compile(r" {4}|\t|\s*$| {0,3}(?:[>|]|[-+*](?:[ \t]|$)|\d{1,9}[.)][ \t])")
_FRONT_MATTER: Final = re.compile(
    r"\A\ufeff?---[ \t]*\n(?:(?!(?:---|\.\.\.)[ \t]*$).*\n)*(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.MULTILINE
)
_TITLE_KEY: Final = re.compile(rf"^title:[ \t]*(\S.{{0,{_MAX_HEADING_CHARACTERS - 1}}})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading that begins at the character `start` and whose line or lines end before `end`."""

    start: int
    end: int
    level: int
    """1 to 6."""
    title: str
    path: str
    """Titles of the headings above it and its own, " > " separated."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What structures a Markdown text; places are characters."""

    headings: tuple[Heading, ...] = ()
    fences: tuple[tuple[int, int], ...] = ()
    """Start of the opening fence and end of the closing one; front matter counts as one."""
    front_title: str = ""

    @property
    def title(self) -> str:
        """The `title:` of the front matter, else the first heading of level 1, else ""."""
        first = next((heading.title for heading in self.headings if heading.level == 1 and heading.title), "")
        return self.front_title or first

    def path_at(self, place: int) -> str:
        """Path of the heading that governs a character; a heading governs itself; "" above the first."""
        index = bisect_right(self.headings, place, key=lambda heading: heading.start)
        return self.headings[index - 1].path if index else ""


def outline(text: str) -> Outline:
    """Find headings, fences and the title of a Markdown text whose lines end in a bare line feed."""
    front = _FRONT_MATTER.match(text)
    fences: list[tuple[int, int]] = [] if front is None else [(0, front.end())]
    headings: list[Heading] = []
    above: list[tuple[int, str]] = []
    for start, end, level, title in _marks(text, front.end() if front else 0):
        if level == 0:
            fences.append((start, end))
            continue
        while above and above[-1][0] >= level:
            above.pop()
        above.append((level, title))
        path = " > ".join(part for _, part in above if part)
        headings.append(Heading(start, end, level, title, path))
    key = _TITLE_KEY.search(front[0]) if front else None
    return Outline(tuple(headings), tuple(fences), _unquoted(key[1].rstrip()) if key else "")


def _marks(text: str, begin: int) -> Iterator[tuple[int, int, int, str]]:
    """Headings as (start, end, level, title) and fenced blocks as (start, end, 0, "")."""
    fence = ""
    fence_start = 0
    paragraph_start = begin
    paragraph_lines = 0
    for match in _LINE.finditer(text, begin):
        line = match[0].rstrip("\n\r") if len(match[0]) <= _MAX_HEADING_CHARACTERS else ">"
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence) and not line[opening.end() :].strip():
                yield fence_start, match.end(), 0, ""
                fence = ""
        elif opening:
            fence, fence_start, paragraph_lines = opening[1], match.start(), 0
        elif atx := _ATX.match(line):
            yield match.start(), match.end(), len(atx[1]), (atx[2] or "").strip()
            paragraph_lines = 0
        elif underline := _SETEXT.match(line):
            if paragraph_lines == 1:
                title = text[paragraph_start : match.start()].strip()
                yield paragraph_start, match.end(), 1 if underline[1][0] == "=" else 2, title
            paragraph_lines = 0
        elif paragraph_lines or _NO_TITLE.match(line):
            paragraph_lines = 2 if line.strip() else 0
        else:
            paragraph_start, paragraph_lines = match.start(), 1
    if fence:
        yield fence_start, len(text), 0, ""


def _unquoted(scalar: str) -> str:
    for quote in "\"'":
        if len(scalar) > 1 and scalar[0] == scalar[-1] == quote:
            return scalar[1:-1].strip()
    return scalar
