"""How many calls run, how many go out in a minute, and when a provider that is down is asked again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.backoff import Backoff
from ingestor.core.pacing import FAILURES_TO_OPEN, FIRST_CALLS, MIN_LEVEL, Circuit, Concurrency, MinuteBudget

TOKENS = 1_000


def answered(concurrency: Concurrency, count: int, *, seconds: float, now_seconds: float = 0.0) -> None:
    for _ in range(count):
        concurrency.answered(TOKENS, now_seconds, now_seconds + seconds)


def test_calls_grow_by_one_for_as_many_answers_as_may_run() -> None:
    concurrency = Concurrency(max_calls=64)
    assert concurrency.calls == FIRST_CALLS == 4
    answered(concurrency, 4 + 1, seconds=0.1)
    assert concurrency.calls == 5
    answered(concurrency, 6 + 7 + 8, seconds=0.1)
    assert concurrency.calls == 8


def test_calls_never_exceed_what_the_user_allows() -> None:
    concurrency = Concurrency(max_calls=3)
    answered(concurrency, 1_000, seconds=0.1)
    assert concurrency.calls == 3


def test_a_refusal_halves_the_calls_and_one_burst_of_refusals_counts_once() -> None:
    concurrency = Concurrency(max_calls=64)
    answered(concurrency, 10_000, seconds=0.1)
    assert concurrency.calls == 64
    for _ in range(64):
        concurrency.refused(began_seconds=1.0, ended_seconds=1.2)
    assert concurrency.calls == 32
    concurrency.refused(began_seconds=1.2, ended_seconds=1.3)
    assert concurrency.calls == 16


def test_below_one_call_at_once_each_is_followed_by_a_rest() -> None:
    concurrency = Concurrency(max_calls=1)
    assert concurrency.rest_seconds(2.0) == 0.0
    concurrency.refused(0.0, 1.0)
    assert (concurrency.calls, concurrency.rest_seconds(2.0)) == (1, 2.0)
    concurrency.refused(1.0, 2.0)
    assert concurrency.rest_seconds(2.0) == 6.0
    for number in range(100):
        concurrency.refused(number + 2.0, number + 3.0)
    assert concurrency.rest_seconds(1.0) == 1 / MIN_LEVEL - 1
    answered(concurrency, 1, seconds=0.1)
    assert concurrency.rest_seconds(1.0) == 0.0


def test_slow_answers_take_calls_away_down_to_one_which_is_the_new_measure() -> None:
    concurrency = Concurrency(max_calls=8)
    answered(concurrency, 100, seconds=0.2)
    assert concurrency.calls == 8
    found = []
    for began_seconds in range(1, 20, 2):
        concurrency.answered(TOKENS, began_seconds, began_seconds + 2.0)
        found.append((concurrency.calls, concurrency.rest_seconds(1.0)))
    assert found[0] == (6, 0.0)
    assert (1, 0.0) in found, "slow is no reason to rest"
    for began_seconds in range(30, 200, 2):
        concurrency.answered(TOKENS, began_seconds, began_seconds + 2.0)
    assert concurrency.calls == 8, "alone it takes as long: the calls did not wait for each other"


def test_a_call_is_compared_with_calls_of_its_size() -> None:
    concurrency = Concurrency(max_calls=8)
    for _ in range(50):
        concurrency.answered(10, 0.0, 0.05)
    concurrency.answered(100_000, 0.0, 5.0)
    assert concurrency.calls == 8


def test_a_provider_that_has_become_slower_for_good_is_not_measured_by_its_best_day() -> None:
    concurrency = Concurrency(max_calls=8)
    answered(concurrency, 100, seconds=0.2)
    for number in range(200):
        concurrency.answered(TOKENS, number * 2.0, number * 2.0 + 1.5)
    assert concurrency.calls == 8


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 120)), max_size=200),
    st.integers(1, 100),
)
def test_no_minute_holds_more_than_its_budget(arrivals: list[tuple[float, int]], limit: int) -> None:
    budget = MinuteBudget(limit)
    now_seconds = 0.0
    sent: list[tuple[float, int]] = []
    for gap_seconds, amount in arrivals:
        now_seconds += gap_seconds
        for _ in range(2):
            now_seconds += budget.pause_seconds(amount, now_seconds)
        assert budget.pause_seconds(amount, now_seconds) == 0.0
        budget.take(amount, now_seconds)
        sent.append((now_seconds, amount))
    for first, (began_seconds, _) in enumerate(sent):
        minute = [amount for at_seconds, amount in sent[first:] if at_seconds - began_seconds < 60.0]
        assert sum(minute) <= limit or len(minute) == 1


def test_a_budget_is_used_up_before_anybody_waits() -> None:
    budget = MinuteBudget(5)
    pauses = []
    for _ in range(6):
        pauses.append(budget.pause_seconds(1, 10.0))
        budget.take(1, 10.0)
    assert pauses[:5] == [0.0] * 5
    assert pauses[5] >= 60.0


def test_a_limit_is_only_ever_lowered() -> None:
    budget = MinuteBudget(None)
    assert budget.pause_seconds(10**9, 0.0) == 0.0
    assert budget.lower(100)
    assert not budget.lower(200)
    assert budget.limit == 100


BACKOFF = Backoff(first_seconds=1.0, max_seconds=8.0, max_attempts=3)


def opened() -> Circuit:
    circuit = Circuit(BACKOFF)
    for number in range(FAILURES_TO_OPEN):
        assert not circuit.is_open
        circuit.failed(number, number + 0.5, 1.0, None)
    assert circuit.is_open
    return circuit


def test_a_circuit_opens_after_failures_in_a_row_and_closes_with_an_answer() -> None:
    circuit = Circuit(BACKOFF)
    for _ in range(10):
        circuit.failed(0.0, 1.0, 1.0, None)
        assert not circuit.answered()
    circuit = opened()
    assert circuit.pause_seconds(2.5) == 1.0
    assert circuit.pause_seconds(100.0) == 0.0
    assert circuit.answered()
    assert not circuit.is_open
    assert circuit.pause_seconds(2.5) == 0.0


def test_probes_come_after_growing_pauses() -> None:
    circuit = opened()
    now_seconds = 2.5
    found = []
    for _ in range(5):
        began_seconds = now_seconds + circuit.pause_seconds(now_seconds)
        now_seconds = began_seconds + 0.1
        circuit.failed(began_seconds, now_seconds, 1.0, None)
        found.append(circuit.pause_seconds(now_seconds))
    assert found == pytest.approx([2.0, 4.0, 8.0, 8.0, 8.0])


def test_calls_that_were_on_their_way_when_it_opened_are_no_probes() -> None:
    circuit = opened()
    for _ in range(20):
        circuit.failed(1.0, 2.6, 1.0, None)
    assert circuit.pause_seconds(2.5) == 1.0


def test_a_probe_waits_as_long_as_the_provider_asks() -> None:
    circuit = Circuit(BACKOFF)
    for number in range(FAILURES_TO_OPEN):
        circuit.failed(number, number + 0.5, 0.0, 30.0)
    assert circuit.pause_seconds(2.5) == 30.0
