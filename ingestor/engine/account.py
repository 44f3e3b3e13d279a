"""Account: what embedding has cost, told to the ledger call by call, and kept below what a day may cost.

Invariants: what is paid for is counted, whether or not it was of use. Once a day's tokens are spent, no call goes out
until the next day begins by local time, but for one a question, so that nothing that waits is looked at again and again
for the little that is left.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import structlog

from ingestor.core.errors import BudgetSpent, TransientError
from ingestor.core.model import Usage
from ingestor.ports import Clock, Lane, Ledger

_CAUTION = 1.5
"""Tokens for each estimated one, until the provider has told how it counts."""
_MARGIN = 1.1
"""By how much a text may be dearer than the dearest so far."""

_TELLING_TOKENS = 64
"""Of a smaller call, what the provider counts for each text by itself is too large a part."""

_log = structlog.get_logger(__name__)


class Account:
    """Counts what is spent. Without a ledger nothing outlives the process."""

    def __init__(
        self,
        ledger: Ledger | None,
        lane: Lane,
        clock: Clock,
        *,
        telling_lane: Lane | None = None,
        tokens_per_day: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._lane = lane
        self._telling_lane = telling_lane or lane
        """The one by which the ledger is told: who gets what was paid for must not wait until the ledger can count."""
        self._clock = clock
        self._tokens_per_day = tokens_per_day
        self._untold = Usage()
        self._is_kept = True
        """Whether the ledger took what it was told last."""
        self._day = ""
        self._spent_tokens = 0
        self._reserved_tokens = 0
        self._telling_tokens = 0
        """Of what the ledger is being told."""
        self._dearest = 0.0
        """Most tokens that a call has cost for each that was estimated; 0 before the first."""
        self._closed_day = ""
        self.usage = Usage()
        """What was spent since the start of this process."""

    @property
    def tokens_per_day(self) -> int | None:
        """What a day may cost; None: no limit."""
        return self._tokens_per_day

    @property
    def is_spent(self) -> bool:
        """Whether nothing more goes out today."""
        return bool(self._closed_day) and self._closed_day == local_day(self._clock.now_seconds())

    @property
    def _tokens_for_each(self) -> float:
        """Tokens that an estimated one may cost."""
        return self._dearest * _MARGIN or _CAUTION

    async def left_tokens(self) -> int | None:
        """How many more estimated tokens may go out today, besides those that are put aside; None: no limit."""
        if self._tokens_per_day is None:
            return None
        today = local_day(self._clock.now_seconds())
        if today != self._day:
            told = await self._lane.run(self._ledger.tokens_on, today) if self._ledger is not None else 0
            self._day, self._spent_tokens = today, told
        if self._closed_day == today:
            return 0
        left_tokens = (self._tokens_per_day - self._spent_tokens) / self._tokens_for_each
        return max(0, int(left_tokens) - self._reserved_tokens)

    def see_that_it_may_cost(self, tokens: int = 0) -> None:
        """Raise `BudgetSpent` unless so many estimated tokens, besides those put aside, may go out today."""
        if self._tokens_per_day is None:
            return
        wanted_tokens = (tokens + self._reserved_tokens) * self._tokens_for_each
        if self.is_spent or self._spent_tokens + wanted_tokens > self._tokens_per_day:
            raise self.close_day()

    def reserve(self, tokens: int) -> None:
        """Put estimated tokens aside for texts that are on their way to the provider."""
        self._reserved_tokens += tokens

    def release(self, tokens: int) -> None:
        """What became of these texts is counted, or will never be."""
        self._reserved_tokens -= tokens

    def close_day(self) -> BudgetSpent:
        """Let nothing more go out today; returns what to tell those who wait."""
        self._closed_day = self._day
        now_seconds = self._clock.now_seconds()
        return BudgetSpent(
            f"what embedding may cost in a day is spent: {self._spent_tokens} of {self._tokens_per_day} tokens",
            remedy="work goes on at midnight; to go on now, raise embedding.max_tokens_per_day or max_cost_per_day",
            retry_after_seconds=_next_day_seconds(now_seconds) - now_seconds,
        )

    def count(self, usage: Usage, estimated_tokens: int = 0) -> None:
        """Count what was spent, or spared; the ledger is told later. Tokens that nobody has told are estimated."""
        usage = replace(usage, tokens=usage.tokens or estimated_tokens)
        if estimated_tokens >= _TELLING_TOKENS:
            self._dearest = max(self._dearest, usage.tokens / estimated_tokens)
        self.usage += usage
        self._untold += usage
        if self._day and self._day == local_day(self._clock.now_seconds()):
            self._spent_tokens += usage.tokens

    def count_waste(self, usage: Usage, estimated_tokens: int) -> None:
        """Count what was, or may have been, spent on calls that have brought nothing of use."""
        tokens = usage.tokens or estimated_tokens
        self.count(
            replace(usage, tokens=tokens, wasted_requests=usage.requests, wasted_tokens=tokens), estimated_tokens
        )

    async def tell(self) -> None:
        """Let the ledger know what was counted; durable when this returns, unless it cannot be written just now."""
        if self._ledger is None or self._untold == Usage():
            return
        telling, self._untold = self._untold, Usage()
        self._telling_tokens += telling.tokens
        day = local_day(self._clock.now_seconds())
        try:
            await self._telling_lane.run(self._ledger.add_usage, telling, day)
        except TransientError as error:
            # What was paid for must reach who asked for it, whatever has become of the ledger.
            self._untold += telling
            if self._is_kept:
                _log.warning("usage.not_kept", reason=str(error), remedy=error.remedy)
            self._is_kept = False
            return
        finally:
            self._telling_tokens -= telling.tokens
        self._is_kept = True
        if self._tokens_per_day is not None and day == self._day:
            # Commands of their own spend, too; what is being told just now may be among it, or not.
            with suppress(TransientError):  # what was counted here stands until then
                told_tokens = await self._telling_lane.run(self._ledger.tokens_on, day)
                self._spent_tokens = told_tokens + self._untold.tokens + self._telling_tokens


def local_day(now_seconds: float) -> str:
    """The day of a time, where this process lives: "2026-11-23"."""
    return datetime.fromtimestamp(now_seconds, UTC).astimezone().date().isoformat()


def _next_day_seconds(now_seconds: float) -> float:
    tomorrow = datetime.fromtimestamp(now_seconds, UTC).astimezone().date() + timedelta(days=1)
    return datetime.combine(tomorrow, time.min).astimezone().timestamp()
