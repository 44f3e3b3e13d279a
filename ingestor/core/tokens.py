"""How many tokens a text is, by estimate: the same count for cutting and for packing calls.

The estimate needs no model: a token is four small or three capital letters, two digits, one mark, one Chinese,
Japanese or Korean character, three characters of any other script, or 64 characters of white space.

Invariants: a text has at most as many tokens as characters; a part has at most one token more than its share of the
whole, and no more than that when it does not begin inside a word. Every string has a count, lone surrogates or not.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_SMALL, _CAPITAL, _DIGIT, _MARK, _FOREIGN, _SPACE = range(6)
_PERIOD: Final = np.array([4, 3, 2, 1, 3, 64], dtype=np.int32)
"""How many characters of a kind in a row are one token."""
_PHASE: Final = np.array([0, 0, 0, 0, 0, 63], dtype=np.int32)
"""Which of them is counted: the first, so that a part of a word is a token; of white space the last."""
_WINDOW: Final = 1 << 18
"""Characters looked at in one go: bounds the memory, about 25 bytes each."""

_MARKS: Final = (
    (0x00, 0x7F),
    (0xA1, 0xBF),
    (0x2010, 0x206F),  # general punctuation
    (0x20A0, 0x20CF),  # currencies
    (0x2100, 0x2BFF),  # arrows, mathematics, boxes, dingbats
    (0x2E80, 0xA4CF),  # CJK radicals and punctuation, kana, Han, Yi
    (0xAC00, 0xD7FF),  # hangul
    (0xE000, 0xFAFF),  # private use, compatibility Han
    (0xFE00, 0xFE6F),  # variation selectors, small and vertical forms
    (0xFF00, 0xFFFF),  # full and half width forms
    (0x1B000, 0x1B2FF),  # kana supplements
    (0x1F000, 0x20000),  # emoji; the last place stands for everything above
)


def _table() -> NDArray[np.uint8]:
    kinds = np.full(0x20001, _FOREIGN, dtype=np.uint8)
    for first, last in _MARKS:
        kinds[first : last + 1] = _MARK
    for kind, low, high in ((_SMALL, "a", "z"), (_CAPITAL, "A", "Z"), (_DIGIT, "0", "9")):
        kinds[ord(low) : ord(high) + 1] = kind
    spaces = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
        map(chr, range(0x2000, 0x200B))
    )
    kinds[[ord(space) for space in spaces]] = _SPACE
    return kinds


_KINDS: Final = _table()


def _is_token_start(text: str) -> NDArray[np.bool_]:
    """For each character of a short text, whether a token is counted at it."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    kinds = _KINDS[np.minimum(codes, len(_KINDS) - 1)]
    places = np.arange(len(kinds), dtype=np.int32)
    is_edge = np.ones(len(kinds), dtype=np.bool_)
    np.not_equal(kinds[1:], kinds[:-1], out=is_edge[1:])
    places -= np.maximum.accumulate(np.where(is_edge, places, 0))
    places %= _PERIOD[kinds]
    is_start: NDArray[np.bool_] = places == _PHASE[kinds]
    return is_start


def running_count(text: str) -> NDArray[np.int32]:
    """Tokens before each character and at the end: shape (characters + 1,).

    The difference of two places is the estimate of the text between them, or one less when it begins inside a word.
    """
    counts = np.zeros(len(text) + 1, dtype=np.int32)
    for start in range(0, len(text), _WINDOW):
        counts[start + 1 : start + 1 + _WINDOW] = _is_token_start(text[start : start + _WINDOW])
    np.cumsum(counts, out=counts)
    return counts


def estimate_tokens(text: str) -> int:
    """The estimated number of tokens of a text, without any prefix or special token of a model."""
    return sum(
        int(np.count_nonzero(_is_token_start(text[start : start + _WINDOW]))) for start in range(0, len(text), _WINDOW)
    )
