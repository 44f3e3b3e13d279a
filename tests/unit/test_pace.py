"""What the pace tells of its waiting."""

import pytest

from ingestor.core.backoff import Backoff
from ingestor.core.errors import RateLimited, ServiceUnavailable
from ingestor.core.pacing import FAILURES_TO_OPEN, Allowance
from ingestor.engine.pace import Pace
from tests.doubles_runtime import FakeRuntime

BACKOFF = Backoff(first_seconds=0.5, max_seconds=20.0, max_attempts=6)


def pace_of(clock: FakeRuntime, *, requests_per_minute: int | None = None) -> Pace:
    return Pace(clock, BACKOFF, Allowance(requests_per_minute=requests_per_minute), max_calls=1)


def test_a_pause_that_the_provider_asks_for_is_told_until_it_is_over() -> None:
    clock = FakeRuntime()
    pace = pace_of(clock)
    assert not pace.waits_for()
    pace.failed(RateLimited("too many", remedy="wait", retry_after_seconds=30.0), clock.monotonic_seconds(), 1)
    clock.advance(18.0)
    assert pace.waits_for() == "the provider's limits: the next call goes out in 12 s"
    clock.advance(12.0)
    assert not pace.waits_for()


def test_a_provider_that_is_down_is_told_with_its_words_until_it_answers() -> None:
    clock = FakeRuntime()
    pace = pace_of(clock)
    for attempt in range(FAILURES_TO_OPEN):
        assert not pace.waits_for(), "one failure is no outage"
        pace.failed(ServiceUnavailable("it is closed", remedy="open it"), clock.monotonic_seconds(), attempt)
    assert pace.waits_for() == "the provider to answer again: it is closed"
    pace.seen_alive()
    assert not pace.waits_for()


async def test_a_budget_of_a_minute_that_is_spent_is_told_while_a_call_waits_for_it() -> None:
    told: list[str] = []

    class Telling(FakeRuntime):
        async def sleep(self, seconds: float) -> None:
            told.append(pace.waits_for())
            await super().sleep(seconds)

    pace = pace_of(Telling(), requests_per_minute=1)
    for _ in range(2):
        assert await pace.admits(1, joined=pace.round)
        with pace.call(1):
            pass
    assert told[0] == "the provider's limits: the next call goes out in 60 s"
    assert not pace.waits_for()


async def test_a_pause_that_a_provider_asks_for_is_forgotten_when_somebody_wants_another_try() -> None:
    clock = FakeRuntime()
    pace = pace_of(clock)
    pace.failed(RateLimited("too many", retry_after_seconds=3_000.0), clock.monotonic_seconds(), 1)
    assert pace.hold_seconds == 3_000.0
    with pytest.raises(ServiceUnavailable):
        await pace.admits(1, joined=pace.round)
    pace.release()
    assert pace.hold_seconds == 0.0
    assert await pace.admits(1, joined=pace.round)
    for attempt in range(FAILURES_TO_OPEN):
        pace.failed(ServiceUnavailable("down", retry_after_seconds=3_000.0), clock.monotonic_seconds(), attempt)
    assert pace.hold_seconds == 3_000.0
    pace.release()
    assert pace.hold_seconds == 0.0
    assert not await pace.admits(1, joined=pace.round), "a probe goes first"
    assert await pace.admits(1, joined=pace.round, is_probe=True)
