"""Pacing: how many calls may run at once, how much may go out in a minute, and when to ask a provider that is down.

Pure: times are arguments, in monotonic seconds.

Invariant: no minute holds more than its budget, except one call that alone wants more than the whole of it.
"""

from collections import deque
from dataclasses import dataclass

from ingestor.core.backoff import Backoff

FIRST_CALLS = 4
"""Calls at once to begin with, and after an outage."""
MIN_LEVEL = 1 / 64
FAILURES_TO_OPEN = 3
"""Failures in a row, over all calls, after which the provider is taken for down."""
_MINUTE_SECONDS = 60.5
"""Half a second more than a minute: a call arrives later than it was sent, and not always by the same time."""
_HALVED = 0.5
_EASED = 0.8
_SLOW = 3.0
"""A call is slow that took so many times as long as calls of its size do at their best."""
_SLACK_SECONDS = 0.25
_FORGETTING = 1.002
"""By how much the best time of a size grows with every call, so that one lucky call is not the measure for ever."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the user lets embedding spend; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


class Concurrency:
    """How many calls may run at once: additive increase, multiplicative decrease (Chiu and Jain, 1989).

    Grows by one for as many good answers as calls may run; halves when the provider refuses or does not answer, and
    shrinks by a fifth when answers become slow, because then more calls only wait in the provider's own queue. Below
    one call at once, the one call is followed by a rest.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._level = float(min(FIRST_CALLS, max_calls))
        self._lowered_seconds = float("-inf")
        self._best_seconds: dict[int, float] = {}

    @property
    def calls(self) -> int:
        """How many calls may run at once; at least one."""
        return max(1, int(self._level))

    def rest_seconds(self, call_seconds: float) -> float:
        """How long to rest after a call that took so long."""
        return call_seconds * (1 / self._level - 1) if self._level < 1 else 0.0

    def answered(self, tokens: int, began_seconds: float, ended_seconds: float) -> None:
        """A call of so many tokens was answered well."""
        seconds = ended_seconds - began_seconds
        # Calls are compared with those of about their size: the time of a call grows with what it carries.
        size = tokens.bit_length()
        best_seconds = min(seconds, self._best_seconds.get(size, seconds) * _FORGETTING)
        self._best_seconds[size] = best_seconds
        if seconds <= _SLOW * best_seconds + _SLACK_SECONDS:
            self._level = min(self._max_calls, self._level + 1 / max(1.0, self._level))
        elif self._level > 1:
            self._lower(max(1.0, self._level * _EASED), began_seconds, ended_seconds)
        else:
            self._best_seconds[size] = seconds  # a call that runs alone waits for no other: so long it takes now

    def refused(self, began_seconds: float, ended_seconds: float) -> None:
        """The provider asked to slow down, or did not answer in time."""
        self._lower(max(MIN_LEVEL, self._level * _HALVED), began_seconds, ended_seconds)

    def start_over(self) -> None:
        """Begin as at first: the provider was down."""
        self._level = min(self._level, float(min(FIRST_CALLS, self._max_calls)))

    def _lower(self, level: float, began_seconds: float, ended_seconds: float) -> None:
        # A call that had begun before we slowed down says nothing about the pace that we have now.
        if began_seconds >= self._lowered_seconds:
            self._level = level
            self._lowered_seconds = ended_seconds


class MinuteBudget:
    """How much went out in the last minute, against a limit that may be lowered while it runs."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._spent: deque[tuple[float, int]] = deque()
        self._sum = 0

    def pause_seconds(self, amount: int, now_seconds: float) -> float:
        """How long to wait before so much may go out; 0 when it may now."""
        self._forget(now_seconds)
        if self.limit is None or not self._spent or self._sum + amount <= self.limit:
            return 0.0
        # When enough of what went out is older than a minute; for more than the whole budget, when all of it is.
        excess = self._sum + amount - self.limit
        until_seconds = now_seconds
        for spent_seconds, spent in self._spent:
            if excess <= 0:
                break
            excess -= spent
            until_seconds = spent_seconds + _MINUTE_SECONDS
        return until_seconds - now_seconds

    def take(self, amount: int, now_seconds: float) -> None:
        """So much goes out now."""
        self._spent.append((now_seconds, amount))
        self._sum += amount

    def lower(self, limit: int) -> bool:
        """Learn of a limit; whether it is lower than the one that was known."""
        is_news = self.limit is None or limit < self.limit
        if is_news:
            self.limit = limit
        return is_news

    def _forget(self, now_seconds: float) -> None:
        while self._spent and self._spent[0][0] + _MINUTE_SECONDS <= now_seconds:
            self._sum -= self._spent.popleft()[1]


class Circuit:
    """Closed while the provider works. Open when it is down: then one call at a time, a probe, after growing pauses."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._probes = 0
        self._opened_seconds = float("-inf")
        self._probe_seconds = float("-inf")

    @property
    def probes(self) -> int:
        """How many calls were tried in vain since it opened, the one that opened it included."""
        return self._probes

    @property
    def is_open(self) -> bool:
        """Whether the provider is taken for down."""
        return self._failures >= FAILURES_TO_OPEN

    def pause_seconds(self, now_seconds: float) -> float:
        """How long to wait before the next call may go out."""
        return max(0.0, self._probe_seconds - now_seconds) if self.is_open else 0.0

    def open(self, now_seconds: float, jitter: float, retry_after_seconds: float | None) -> None:
        """The provider is known to be down."""
        self._failures = max(self._failures, FAILURES_TO_OPEN)
        self._probes += 1
        self._opened_seconds = now_seconds
        self._probe_seconds = now_seconds + self._backoff.pause_seconds(self._probes, jitter, retry_after_seconds)

    def failed(
        self, began_seconds: float, now_seconds: float, jitter: float, retry_after_seconds: float | None
    ) -> None:
        """A call that began then was not answered, or with a fault of the provider's."""
        if self.is_open and began_seconds < self._opened_seconds:
            return  # it was on its way when the circuit opened: no probe
        self._failures += 1
        if self.is_open:
            self.open(now_seconds, jitter, retry_after_seconds)

    def release(self) -> None:
        """The next probe may go out now."""
        self._probe_seconds = float("-inf")

    def answered(self) -> bool:
        """A call was answered; whether that has closed the circuit."""
        was_open = self.is_open
        self._failures = self._probes = 0
        return was_open
