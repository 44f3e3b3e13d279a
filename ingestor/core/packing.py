"""Packing: which of the waiting texts go into the next call, and what a call may carry.

Invariant: a call holds at least one text, at most `max_inputs`, and at most `max_tokens` estimated tokens unless its
first text alone is longer; texts go in the order in which they came.
"""

from collections.abc import Sequence

SUSPICIONS = 4
"""Calls in a row that fail while their halves do not: fewer are chance."""
DOUBT_CALLS = 64
"""Good calls after which a limit that was only guessed is tried to be exceeded."""


def batch_length(tokens: Sequence[int], *, max_inputs: int, max_tokens: int) -> int:
    """How many of the waiting texts, given by their estimated tokens, fit the next call."""
    total = 0
    for index, count in enumerate(tokens[:max_inputs]):
        total += count
        if total > max_tokens:
            return max(index, 1)
    return min(len(tokens), max_inputs)


class CallLimits:
    """What a call may carry: as configured, until a provider's refusals tell otherwise.

    A limit that the provider names is kept to. One that was guessed, because a call was refused and its halves were
    not, is doubted after `DOUBT_CALLS` good calls: the refusal may have had another reason.
    """

    def __init__(self, max_inputs: int, max_tokens: int) -> None:
        self.max_inputs = max_inputs
        self.max_tokens = max_tokens
        self._configured = (max_inputs, max_tokens)
        self._is_guessed = False
        self._suspicions: list[int] = []
        """Texts of calls that have failed while their halves did not, since one of as many was answered."""
        self._kept_calls = 0

    def are_told(self, refused: Sequence[int], max_inputs: int | None, max_tokens: int | None) -> bool:
        """Keep to what a refusal of a call of texts of so many tokens has named; False when the call was within it."""
        is_news = bool(max_inputs and max_inputs < len(refused)) or bool(max_tokens and max_tokens < sum(refused))
        if is_news:
            self._lower(max_inputs or self.max_inputs, max_tokens or self.max_tokens)
            self._is_guessed = False
        return is_news

    def are_guessed(self, first: Sequence[int], second: Sequence[int]) -> None:
        """Keep to what the halves of a refused call carried: by their number, or a quarter more by their tokens."""
        tokens = max(sum(first), sum(second))
        self._lower(max(len(first), len(second)), min(sum(first) + sum(second) - 1, tokens + tokens // 4))
        self._is_guessed = True

    def are_suspected(self, first: Sequence[int], second: Sequence[int]) -> None:
        """A call failed for whatever reason, and its halves did not: if it goes on so, it was their size."""
        self._suspicions.append(len(first) + len(second))
        if len(self._suspicions) == SUSPICIONS:
            self._suspicions.clear()
            self.are_guessed(first, second)

    def are_kept(self, inputs: int = 0) -> None:
        """A call of so many texts, within the limits, was answered well."""
        self._kept_calls += 1
        if self._suspicions and inputs >= min(self._suspicions):
            self._suspicions.clear()
        if self._is_guessed and self._kept_calls >= DOUBT_CALLS:
            self._kept_calls = 0
            max_inputs, max_tokens = self._configured
            self.max_inputs = min(2 * self.max_inputs, max_inputs)
            self.max_tokens = min(2 * self.max_tokens, max_tokens)

    def _lower(self, max_inputs: int, max_tokens: int) -> None:
        self.max_inputs = min(self.max_inputs, max_inputs)
        self.max_tokens = min(self.max_tokens, max_tokens)
        self._kept_calls = 0
