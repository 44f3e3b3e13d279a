"""Estimating: what work will cost, in calls, money, seconds and days, before any of it is done.

Invariant: a price that is not known is None, never a guess; a time that nothing was measured for says so. The calls are
the fewest that the limits of the model allow; times err on the slow side.
"""

import math
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ingestor.core.model import Usage
from ingestor.core.pacing import Allowance
from ingestor.core.packing import batch_length

REMOTE_CALL_SECONDS: Final = 1.0
"""A call of an endpoint that was never measured: cautious."""
LOCAL_TOKENS_PER_SECOND: Final = 600.0
"""The model in this process where it was never measured: that of two slow cores."""
ADDED_PER_SECOND: Final = 300.0
"""Records that Chroma takes: measured 300 to 800 a second, by the length of vectors and texts."""
CORRECTED_PER_SECOND: Final = 1_000.0
"""Records whose metadata Chroma replaces, or that it deletes: measured 1,200 a second in groups of a hundred."""
_MINUTE_SECONDS: Final = 60.0
_MILLISECONDS: Final = 1_000
_MILLION: Final = 1_000_000


class Packing:
    """Counts the calls that texts need, in the order in which they come; holds no more than one call's worth."""

    def __init__(self, *, max_inputs: int, max_tokens: int) -> None:
        self._max_inputs = max_inputs
        self._max_tokens = max_tokens
        self._line: deque[int] = deque()
        self._sent = 0

    def add(self, tokens: int) -> None:
        """Put a text of so many estimated tokens into the line; a call goes as soon as it is full."""
        self._line.append(tokens)
        while (length := self._length()) < len(self._line):
            self._send(length)

    @property
    def requests(self) -> int:
        """How many calls carry all texts so far."""
        return self._sent + bool(self._line)

    def _length(self) -> int:
        waiting = list(islice(self._line, self._max_inputs + 1))
        return batch_length(waiting, max_inputs=self._max_inputs, max_tokens=self._max_tokens)

    def _send(self, length: int) -> None:
        for _ in range(length):
            self._line.popleft()
        self._sent += 1


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do; counts. `tokens` are estimated, prefixes included."""

    requests: int = 0
    tokens: int = 0
    added: int = 0
    """Records to be written, with their vectors."""
    retagged: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Duration:
    """How long it takes, and how many calls of the past say so; 0 calls: nothing was measured."""

    seconds: float
    measured_calls: int


def cost_of(tokens: int, price_per_million_tokens: float | None) -> float | None:
    """Money for so many tokens; None where the price is not known and there is something to pay for."""
    if not tokens:
        return 0.0
    return None if price_per_million_tokens is None else tokens * price_per_million_tokens / _MILLION


def duration_of(load: Load, measured: Usage, allowance: Allowance, *, max_concurrency: int, is_local: bool) -> Duration:
    """How long a load takes, from what all calls so far have taken: embedding, and then writing.

    A call of an endpoint takes the time of the mean call. The model in this process (`is_local`) does one call after
    the other, and each takes the time of its tokens. In truth embedding and writing go on at once, so this errs on the
    slow side. What may be spent in a day is left out, see `days_of`.
    """
    is_measured = min(measured.requests, measured.tokens, measured.milliseconds) > 0
    measured_seconds = measured.milliseconds / _MILLISECONDS
    if is_local:
        tokens_per_second = measured.tokens / measured_seconds if is_measured else LOCAL_TOKENS_PER_SECOND
        embedding_seconds = load.tokens / tokens_per_second
    else:
        call_seconds = measured_seconds / measured.requests if is_measured else REMOTE_CALL_SECONDS
        rounds = math.ceil(load.requests / max_concurrency)
        embedding_seconds = rounds * call_seconds
    waiting_seconds = max(
        _waiting_seconds(load.requests, allowance.requests_per_minute),
        _waiting_seconds(load.tokens, allowance.tokens_per_minute),
    )
    writing_seconds = load.added / ADDED_PER_SECOND + (load.retagged + load.dropped) / CORRECTED_PER_SECOND
    return Duration(
        seconds=max(embedding_seconds, waiting_seconds) + writing_seconds,
        measured_calls=measured.requests if is_measured else 0,
    )


def days_of(tokens: int, tokens_per_day: int | None, spent_tokens: int = 0) -> int | None:
    """Over how many days the work goes when this one has seen so many tokens: 1 is today, None is never."""
    if not tokens or tokens_per_day is None:
        return 1
    if not tokens_per_day:
        return None
    left_tokens = max(0, tokens_per_day - spent_tokens)
    return 1 + math.ceil(max(0, tokens - left_tokens) / tokens_per_day)


def _waiting_seconds(amount: int, per_minute: int | None) -> float:
    """How long the limit of a minute holds the last call back: the share of the first minute may go at once."""
    return 0.0 if per_minute is None else max(0, math.ceil(amount / per_minute) - 1) * _MINUTE_SECONDS
