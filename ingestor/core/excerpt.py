"""Excerpt: the passage of a text that answers a question best, and which of its words to mark.

A text is compared with a question by words, which match when they differ by a common ending alone, and, in scripts
that write no spaces between words, by pairs of characters.

Invariant: an excerpt is one line, and neither it nor a mark begins or ends within a character as readers see it: a
letter with its accents, a flag, an emoji that is made of several.
"""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby, pairwise
from typing import Final

ELLIPSIS: Final = "…"

_Span = tuple[int, int]

_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""Thai, Lao, Burmese, Khmer, kana, Han and, because its words carry particles, Hangul; and Han beyond the BMP below."""
_FIRST_HAN_BEYOND: Final = 0x20000
_LAST_HAN_BEYOND: Final = 0x3FFFF
_ENDINGS: Final = ("ings", "ions", "ing", "ion", "ies", "ers", "ed", "er", "es", "ly", "e", "s", "y")
_SHORTEST_STEM: Final = 3
_COMMON_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "a about an and are as at be been by can could did do does for from had has have how i if in into is it its me "
        "my no not of on or our shall should so than that the their them then there these they this those to was we "
        "were what when where which who whom whose why will with would you your",
    )
)
_COMMON_CHARACTERS: Final = frozenset("的了是在和与及或吗呢吧着也都就而之其何么什怎哪谁")
_JOINER: Final = "\u200d"
_JAMO: Final = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")
_SKIN: Final = re.compile("[\U0001f3fb-\U0001f3ff]")
_REGIONAL: Final = re.compile("[\U0001f1e6-\U0001f1ff]")
_SENTENCE_BEGINS: Final = re.compile("(?<=[.!?] )|(?<=[。！？；])")
_CONTEXT_SHARE: Final = 2
"""Of the room that the best passage leaves, at most one part in so many goes before it."""
_TOLERANCE: Final = 1e-9
"""Sums that differ by no more are equal: of equal windows the first is taken."""


class _Kind(Enum):
    """How a character is compared."""

    NEITHER = auto()
    WORD = auto()
    PAIRS = auto()


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A line of text. `marks` are the parts of it that match the question: [first, last + 1), in order, apart."""

    text: str
    marks: tuple[_Span, ...] = ()

    def parts(self) -> Iterator[tuple[str, bool]]:
        """The text in parts, each with whether it is marked; put together, they are the text."""
        edges = [0, *(edge for mark in self.marks for edge in mark), len(self.text)]
        for place, (first, end) in enumerate(pairwise(edges)):
            if first < end:
                yield self.text[first:end], place % 2 == 1


def excerpt(document: str, question: str, max_characters: int) -> Excerpt:
    """The best passage of a text for a question, of at most so many characters, ellipses included.

    Without a word in common it is the beginning of the text. `max_characters` is 3 or more.
    """
    text = " ".join(document.split())
    wanted = {term for term, _ in _terms(question)} - {""}
    found = [(term, span) for term, span in _terms(text) if term in wanted]
    first, end = _window(text, found, max_characters)
    before, after = ELLIPSIS if first else "", ELLIPSIS if end < len(text) else ""
    inside = [span for _, span in found if first <= span[0] and span[1] <= end]
    shift = len(before) - first
    return Excerpt(
        before + text[first:end] + after, tuple((begin + shift, stop + shift) for begin, stop in _merged(inside))
    )


def _terms(text: str) -> Iterator[tuple[str, _Span]]:
    """What is compared, in order: stems of words, and pairs of characters, with their places; "" for common ones."""
    for kind, run in groupby(range(len(text)), lambda place: _kind(text, place)):
        places = list(run)
        span = (places[0], places[-1] + 1)
        if kind == _Kind.WORD:
            yield _stem(_folded(text[slice(*span)])), span
        elif kind == _Kind.PAIRS:
            starts = [place for place in places if _is_edge(text, place)]
            ends = [*starts[1:], span[1]]
            if len(starts) == 1:
                yield _uncommon(_folded(text[slice(*span)])), span
            for first, end in zip(starts, ends[1:], strict=False):
                yield _uncommon(_folded(text[first:end])), (first, end)


def _uncommon(pair: str) -> str:
    return pair if _COMMON_CHARACTERS.isdisjoint(pair) else ""


def _kind(text: str, place: int) -> _Kind:
    character = text[place]
    while place and unicodedata.category(character).startswith("M"):
        # An accent belongs to the letter before it.
        place -= 1
        character = text[place]
    if _UNSPACED.match(character) or _FIRST_HAN_BEYOND <= ord(character) <= _LAST_HAN_BEYOND:
        return _Kind.PAIRS if character.isalnum() else _Kind.NEITHER
    return _Kind.WORD if character.isalnum() else _Kind.NEITHER


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _stem(word: str) -> str:
    """The word without a frequent ending of European languages: enough to find `disputes` for `dispute`."""
    if word in _COMMON_WORDS:
        return ""
    return next(
        (
            word.removesuffix(ending)
            for ending in _ENDINGS
            if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM
        ),
        word,
    )


def _window(text: str, found: list[tuple[str, _Span]], max_characters: int) -> _Span:
    """The part of the text that holds most of what is looked for, with what leads to it.

    What a term counts is shared by all its places, so that a rare one outweighs one that is everywhere.
    """
    if len(text) <= max_characters:
        return 0, len(text)
    room = max_characters - 2 * len(ELLIPSIS)
    first, end = _best(found, room)
    if end <= room:
        return 0, _end_at(text, 0, room + len(ELLIPSIS))
    first = _start_at(text, max(0, first - max(0, room - (end - first)) // _CONTEXT_SHARE), first)
    if len(text) - first <= room + len(ELLIPSIS):
        return first, len(text)
    return first, _end_at(text, first, first + room)


def _best(found: list[tuple[str, _Span]], room: int) -> _Span:
    counts = Counter(term for term, _ in found)
    ends = [span[1] for _, span in found]
    sums = [0.0]
    for term, _ in found:
        sums.append(sums[-1] + 1 / counts[term])
    best, best_span = 0.0, (0, 0)
    for place, (_, (first, _)) in enumerate(found):
        last = bisect_right(ends, first + room)
        if sums[last] - sums[place] > best * (1 + _TOLERANCE):
            best, best_span = sums[last] - sums[place], (first, ends[last - 1])
    return best_span


def _start_at(text: str, earliest: int, latest: int) -> int:
    """Where to begin: with a sentence, else with a word, else anywhere but within a character."""
    sentences = [found.start() for found in _SENTENCE_BEGINS.finditer(text, earliest, latest)]
    if sentences:
        return sentences[-1]
    word = text.find(" ", earliest, latest)
    return _edge(text, word + 1 if word >= 0 else earliest)


def _end_at(text: str, first: int, latest: int) -> int:
    """Where to end: after a word when one ends nearby, else anywhere but within a character."""
    if text[latest] == " ":
        return latest
    if _kind(text, latest) == _Kind.WORD and _kind(text, latest - 1) == _Kind.WORD:
        word = text.rfind(" ", first + (latest - first) // 2, latest)
        if word >= 0:
            return word
    return _edge(text, latest)


def _edge(text: str, place: int) -> int:
    """The last place at or before this one where a character begins, as readers see characters."""
    while not _is_edge(text, place):
        place -= 1
    return place


def _is_edge(text: str, place: int) -> bool:
    if place <= 0 or place >= len(text):
        return True
    character = text[place]
    if unicodedata.category(character).startswith("M") or character == _JOINER or text[place - 1] == _JOINER:
        return False
    if _SKIN.match(character) or _JAMO.match(character):
        return False
    if _REGIONAL.match(character):
        flags = 0
        while flags < place and _REGIONAL.match(text[place - flags - 1]):
            flags += 1
        return flags % 2 == 0
    return True


def _merged(spans: list[_Span]) -> list[_Span]:
    """Spans that overlap or touch, as one."""
    merged: list[_Span] = []
    for first, end in spans:
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged
