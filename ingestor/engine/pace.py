"""Pace: when the next call may go out. One for the whole process, because the provider is one.

Invariants: at most `Pace.calls` calls run at once, questions of users apart; while the provider is down, one call at a
time asks whether it is back. Nobody waits here for longer than `MAX_HOLD_SECONDS` because of the provider: a longer
pause is an error, and the documents wait in the queue. A provider that has answered nothing for `PATIENCE_SECONDS` is
given up, whatever it says.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from ingestor.core.backoff import Backoff
from ingestor.core.errors import RateLimited, ServiceUnavailable, TransientError
from ingestor.core.pacing import Allowance, Circuit, Concurrency, MinuteBudget
from ingestor.ports import Runtime

MAX_HOLD_SECONDS = 60.0
PATIENCE_SECONDS = 90.0
"""How long calls are repeated at a provider that answers none: longer than the minute that most limits are about."""
_COMPLAINT_SECONDS = 5.0
"""A provider that has answered nothing for less long is nothing to tell."""
_TOLD_SECONDS = 2.0
"""Shorter pauses between calls are the pace itself, and nothing to tell."""

_log = structlog.get_logger(__name__)


class Pace:
    """Lets calls out, and learns from how they end."""

    def __init__(self, runtime: Runtime, backoff: Backoff, allowance: Allowance, *, max_calls: int) -> None:
        self._runtime = runtime
        self._backoff = backoff
        self._concurrency = Concurrency(max_calls)
        self._circuit = Circuit(backoff)
        self._requests = MinuteBudget(allowance.requests_per_minute)
        self._tokens = MinuteBudget(allowance.tokens_per_minute)
        self._turns = asyncio.Lock()
        self._ended = asyncio.Event()
        self.running = 0
        """How many calls run now."""
        self._refusals = 0
        self._refused_seconds = float("-inf")
        self._failing_since_seconds = float("inf")
        """Since when no call has been answered well; infinity while they are."""
        self._held_until_seconds = float("-inf")
        self._paused_until_seconds = float("-inf")
        """For the limits of a minute."""
        self._reason: TransientError | None = None
        self.round = 0
        """How often the provider was given up."""
        self._has_given_up = False

    @property
    def calls(self) -> int:
        """How many calls may run at once now."""
        return 1 if self._circuit.is_open else self._concurrency.calls

    @property
    def reason(self) -> TransientError | None:
        """What the provider last failed with; None before it ever did."""
        return self._reason

    @property
    def is_given_up(self) -> bool:
        """Whether the provider is taken for down, and asked by one call at a time."""
        return self._circuit.is_open

    @property
    def complaint(self) -> str:
        """What a provider says that answers nobody, while it is asked again; empty when it answers, or did just now."""
        failing_seconds = self._runtime.monotonic_seconds() - self._failing_since_seconds
        return self._reason.sentence if self._reason is not None and failing_seconds >= _COMPLAINT_SECONDS else ""

    @property
    def max_call_tokens(self) -> int | None:
        """Tokens that a call may carry without being more than a minute's budget."""
        return self._tokens.limit

    def waits_for(self) -> str:
        """What the next call waits for just now, for people; empty when it goes out soon."""
        if self._circuit.is_open and self._reason is not None:
            return f"the provider to answer again: {self._reason}"
        until_seconds = max(self._held_until_seconds, self._paused_until_seconds)
        left_seconds = until_seconds - self._runtime.monotonic_seconds()
        if left_seconds < _TOLD_SECONDS:
            return ""
        return f"the provider's limits: the next call goes out in {left_seconds:.0f} s"

    @property
    def hold_seconds(self) -> float:
        """How long nothing goes out yet, because the provider asks for it or is to be asked again later; 0: it does."""
        now_seconds = self._runtime.monotonic_seconds()
        return max(0.0, self._held_until_seconds - now_seconds, self._circuit.pause_seconds(now_seconds))

    def release(self) -> None:
        """Somebody wants it tried now: forget how long the provider has asked to be left alone."""
        self._held_until_seconds = self._paused_until_seconds = float("-inf")
        self._circuit.release()

    async def admits(self, tokens: int, *, joined: int, is_probe: bool = False) -> bool:
        """Wait until a call of so many tokens may go out; False when only a probe may, as the provider is down.

        `joined` is `round` as it was when the texts were taken up. Raises the error that the provider last gave when it
        is not to be asked for longer than `MAX_HOLD_SECONDS`, or when another call has given it up since then.
        """
        async with self._turns:
            while is_probe or not self._circuit.is_open:
                if self._reason is not None and self._has_given_up and self.round != joined:
                    raise self._reason
                now_seconds, hold_seconds = self._runtime.monotonic_seconds(), self.hold_seconds
                if hold_seconds > MAX_HOLD_SECONDS and self._reason is not None:
                    raise _again_in(self._reason, hold_seconds)
                pause_seconds = max(
                    hold_seconds,
                    self._requests.pause_seconds(1, now_seconds),
                    self._tokens.pause_seconds(tokens, now_seconds),
                )
                if pause_seconds > 0:
                    self._paused_until_seconds = now_seconds + pause_seconds
                    await self._runtime.sleep(pause_seconds)
                elif self.running >= self.calls:
                    await self.ends()
                else:
                    return True
            return False

    @contextmanager
    def call(self, tokens: int) -> Iterator[None]:
        """Stand for a call of so many tokens while it runs. Nothing may be awaited since `admits` has let it out."""
        now_seconds = self._runtime.monotonic_seconds()
        self._requests.take(1, now_seconds)
        self._tokens.take(tokens, now_seconds)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._ended.set()
            self._ended = asyncio.Event()

    async def ends(self) -> None:
        """Wait until a call ends that runs now."""
        await self._ended.wait()

    def answered(self, tokens: int, began_seconds: float) -> None:
        """A call was answered well."""
        now_seconds = self._runtime.monotonic_seconds()
        self.seen_alive()
        self._refusals = 0
        self._concurrency.answered(tokens, began_seconds, now_seconds)
        self._hold(now_seconds + self._concurrency.rest_seconds(now_seconds - began_seconds))

    def seen_alive(self) -> None:
        """The provider works."""
        self._has_given_up = False
        self._failing_since_seconds = float("inf")
        if self._circuit.answered():
            self._concurrency.start_over()
            _log.info("embedding.back", calls=self.calls)

    def failed(self, error: TransientError, began_seconds: float, attempt: int) -> float:
        """A call failed for the `attempt`-th time; returns for how many seconds its texts are to wait."""
        now_seconds = self._runtime.monotonic_seconds()
        jitter = self._runtime.fraction()
        self._has_failed(error, began_seconds)
        if isinstance(error, RateLimited):
            self._learn(error)
            if began_seconds >= self._refused_seconds:
                # Calls that were on their way at the first refusal say nothing new.
                self._refusals += 1
                self._refused_seconds = now_seconds
            pause_seconds = self._backoff.pause_seconds(self._refusals, jitter, error.retry_after_seconds)
            self._hold(now_seconds + pause_seconds)
            return pause_seconds
        was_open = self._circuit.is_open
        self._circuit.failed(began_seconds, now_seconds, jitter, error.retry_after_seconds)
        if not self._circuit.is_open:
            return self._backoff.pause_seconds(attempt, jitter, error.retry_after_seconds)
        if not was_open:
            _log.warning("embedding.down", reason=str(error), remedy=error.remedy)
        return self._circuit.pause_seconds(now_seconds)

    def taken_for_down(self, error: TransientError, began_seconds: float) -> None:
        """A call that began then has shown that nobody is answered."""
        now_seconds = self._runtime.monotonic_seconds()
        if self._circuit.is_open:
            return
        self._has_failed(error, began_seconds)
        self._circuit.open(now_seconds, self._runtime.fraction(), error.retry_after_seconds)
        _log.warning("embedding.down", reason=str(error), remedy=error.remedy)

    def pause_seconds(self, attempt: int) -> float:
        """For how long a call that has failed so often rests, while the provider works."""
        return self._backoff.pause_seconds(attempt, self._runtime.fraction())

    def was_overloaded(self, began_seconds: float) -> None:
        """A call that began then failed, and there was nothing wrong with it: fewer at once may go better."""
        self._concurrency.refused(began_seconds, self._runtime.monotonic_seconds())

    def is_exhausted(self, attempt: int, pause_seconds: float) -> bool:
        """Whether a call that has failed so often is not to be tried again: the queue keeps its documents.

        While the provider is down, what counts is how often it was asked by whichever call.
        """
        return self.is_to_be_given_up(pause_seconds) or self._backoff.is_exhausted(max(attempt, self._circuit.probes))

    def is_to_be_given_up(self, pause_seconds: float) -> bool:
        """Whether nobody is to wait for the provider any longer, however often it was asked."""
        failing_seconds = self._runtime.monotonic_seconds() - self._failing_since_seconds
        return self._has_given_up or pause_seconds > MAX_HOLD_SECONDS or failing_seconds >= PATIENCE_SECONDS

    def give_up(self) -> None:
        """Have everybody who waits for a turn fail as the last call did."""
        self._has_given_up = True
        self.round += 1

    def _has_failed(self, error: TransientError, began_seconds: float) -> None:
        now_seconds = self._runtime.monotonic_seconds()
        self._reason = error
        self._failing_since_seconds = min(self._failing_since_seconds, now_seconds)
        self._concurrency.refused(began_seconds, now_seconds)

    def _learn(self, error: RateLimited) -> None:
        if error.requests_per_minute is not None and self._requests.lower(error.requests_per_minute):
            _log.info("embedding.limit_learned", requests_per_minute=error.requests_per_minute)
        if error.tokens_per_minute is not None and self._tokens.lower(error.tokens_per_minute):
            _log.info("embedding.limit_learned", tokens_per_minute=error.tokens_per_minute)

    def _hold(self, until_seconds: float) -> None:
        self._held_until_seconds = max(self._held_until_seconds, until_seconds)


def _again_in(reason: TransientError, seconds: float) -> TransientError:
    """The error that a provider gave, for somebody who did not ask it because it said when to come again."""
    again = ServiceUnavailable(str(reason), remedy=reason.remedy, retry_after_seconds=seconds)
    again.service = reason.service
    again.__cause__ = reason
    return again
