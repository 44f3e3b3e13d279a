"""Packing: which of the waiting texts go into the next call.

Invariant: a call holds at least one text, at most `max_inputs`, and at most `max_tokens` estimated tokens unless its
first text alone is longer; texts go in the order in which they came.
"""

from collections.abc import Sequence


def batch_length(tokens: Sequence[int], *, max_inputs: int, max_tokens: int) -> int:
    """How many of the waiting texts, given by their estimated tokens, fit the next call."""
    total = 0
    for index, count in enumerate(tokens[:max_inputs]):
        total += count
        if total > max_tokens:
            return max(index, 1)
    return min(len(tokens), max_inputs)
