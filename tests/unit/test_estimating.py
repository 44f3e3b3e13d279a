"""What work will cost, before any of it is done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.estimating import (
    ADDED_PER_SECOND,
    CORRECTED_PER_SECOND,
    LOCAL_TOKENS_PER_SECOND,
    REMOTE_CALL_SECONDS,
    Duration,
    Load,
    Packing,
    cost_of,
    days_of,
    duration_of,
)
from ingestor.core.model import Usage
from ingestor.core.pacing import Allowance
from ingestor.core.packing import batch_length

UNLIMITED = Allowance()
UNMEASURED = Usage()
MEASURED = Usage(requests=10, texts=100, tokens=5_000, milliseconds=20_000)


def remote(
    load: Load, measured: Usage = UNMEASURED, allowance: Allowance = UNLIMITED, max_concurrency: int = 1
) -> Duration:
    return duration_of(load, measured, allowance, max_concurrency=max_concurrency, is_local=False)


def local(load: Load, measured: Usage = UNMEASURED) -> Duration:
    return duration_of(load, measured, UNLIMITED, max_concurrency=8, is_local=True)


@given(st.lists(st.integers(0, 600)), st.integers(1, 50), st.integers(1, 1000))
def test_texts_need_as_many_calls_as_packing_them_one_call_after_the_other_makes(
    tokens: list[int], max_inputs: int, max_tokens: int
) -> None:
    packing = Packing(max_inputs=max_inputs, max_tokens=max_tokens)
    for count in tokens:
        packing.add(count)
    calls, left = 0, tokens
    while left:
        left = left[batch_length(left, max_inputs=max_inputs, max_tokens=max_tokens) :]
        calls += 1
    assert packing.requests == calls


def test_a_call_is_counted_once_however_often_one_asks() -> None:
    packing = Packing(max_inputs=2, max_tokens=100)
    assert packing.requests == 0
    for expected in (1, 1, 2):
        packing.add(1)
        assert packing.requests == expected
        assert packing.requests == expected


def test_the_cost_is_that_of_the_tokens() -> None:
    assert cost_of(2_000_000, 0.5) == pytest.approx(1.0)
    assert cost_of(2_000_000, 0.0) == 0.0


def test_a_price_that_nobody_knows_is_no_price_unless_there_is_nothing_to_pay_for() -> None:
    assert cost_of(1, None) is None
    assert cost_of(0, None) == 0.0


def test_nothing_to_do_takes_no_time() -> None:
    assert remote(Load()) == Duration(0.0, 0)
    assert local(Load()) == Duration(0.0, 0)


def test_what_was_never_measured_takes_a_cautious_time_and_says_so() -> None:
    assert remote(Load(requests=3, tokens=30)) == Duration(3 * REMOTE_CALL_SECONDS, 0)
    assert local(Load(requests=3, tokens=1_200)) == Duration(1_200 / LOCAL_TOKENS_PER_SECOND, 0)


def test_an_endpoint_takes_the_time_of_its_mean_call() -> None:
    assert remote(Load(requests=3, tokens=1), MEASURED) == Duration(6.0, 10)


def test_the_model_in_this_process_takes_the_time_of_its_tokens() -> None:
    assert local(Load(requests=1, tokens=500), MEASURED) == Duration(2.0, 10)


@pytest.mark.parametrize(
    "measured",
    [Usage(requests=5, tokens=5), Usage(requests=5, milliseconds=5), Usage(tokens=5, milliseconds=5)],
    ids=["no time", "no tokens", "no call"],
)
def test_a_measurement_that_lacks_a_part_is_none(measured: Usage) -> None:
    load = Load(requests=3, tokens=30)
    assert remote(load, measured) == remote(load)
    assert local(load, measured) == local(load)


def test_calls_go_side_by_side() -> None:
    assert remote(Load(requests=16, tokens=16), max_concurrency=8).seconds == 2 * REMOTE_CALL_SECONDS
    assert remote(Load(requests=17, tokens=17), max_concurrency=8).seconds == 3 * REMOTE_CALL_SECONDS
    assert remote(Load(requests=1, tokens=1), max_concurrency=8).seconds == REMOTE_CALL_SECONDS


def test_writing_comes_on_top() -> None:
    load = Load(requests=1, tokens=1, added=int(ADDED_PER_SECOND), retagged=int(CORRECTED_PER_SECOND), dropped=0)
    assert remote(load).seconds == pytest.approx(REMOTE_CALL_SECONDS + 2.0)
    assert remote(Load(dropped=int(CORRECTED_PER_SECOND))).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("allowance", "seconds"),
    [
        (Allowance(requests_per_minute=40), 3.0),
        (Allowance(requests_per_minute=24), 3.0),
        (Allowance(requests_per_minute=23), 60.0),
        (Allowance(requests_per_minute=8), 120.0),
        (Allowance(tokens_per_minute=1_000), 240.0),
        (Allowance(requests_per_minute=8, tokens_per_minute=1_000), 240.0),
    ],
    ids=["wide", "just enough", "one too many", "three minutes", "tokens", "the stricter one"],
)
def test_the_limit_of_a_minute_holds_back_what_is_more_than_a_minutes_share(
    allowance: Allowance, seconds: float
) -> None:
    assert remote(Load(requests=24, tokens=5_000), allowance=allowance, max_concurrency=8).seconds == seconds


@pytest.mark.parametrize(
    ("tokens", "tokens_per_day", "spent", "days"),
    [
        (0, 0, 0, 1),
        (1, None, 10, 1),
        (1, 0, 0, None),
        (100, 100, 0, 1),
        (101, 100, 0, 2),
        (300, 100, 0, 3),
        (100, 100, 1, 2),
        (100, 100, 100, 2),
        (100, 100, 500, 2),
        (101, 100, 100, 3),
    ],
)
def test_what_a_day_may_not_cost_waits_for_the_next(
    tokens: int, tokens_per_day: int | None, spent: int, days: int | None
) -> None:
    assert days_of(tokens, tokens_per_day, spent) == days
