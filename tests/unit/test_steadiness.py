"""Rates and times that people can read."""

import pytest

from ingestor.core.steadiness import STEADY_SECONDS, SteadyRate, told_rate, told_seconds


def test_a_rate_is_the_mean_at_first_and_follows_a_change_later() -> None:
    rate = SteadyRate()
    assert rate.count(0, 100.0) == 0.0
    assert rate.count(10, 101.0) == pytest.approx(10.0)
    for second in range(2, 200):
        found = rate.count(10 + 30 * (second - 1), 100.0 + second)
    assert found == pytest.approx(30.0, rel=0.01)


def test_what_was_done_before_counts_for_nothing() -> None:
    rate = SteadyRate()
    rate.count(5_000, 0.0)
    assert rate.count(5_010, 1.0) == pytest.approx(10.0)


def test_bursts_hardly_move_it_once_it_has_seen_some() -> None:
    rate = SteadyRate()
    seen = [rate.count(100 * (tenth // 20), tenth / 10) for tenth in range(1_000)]  # a hundred each two seconds
    late = seen[400:]
    assert min(late) < 50 < max(late)
    assert max(late) - min(late) < 0.2 * 50


def test_a_pause_fades_it_and_never_turns_it_negative() -> None:
    rate = SteadyRate()
    rate.count(0, 0.0)
    before = rate.count(100, 1.0)
    after = rate.count(100, 1.0 + 3 * STEADY_SECONDS)
    assert 0 < after < before / 10


@pytest.mark.parametrize(
    ("rate", "told"), [(0, "0"), (0.071, "0.071"), (3.44, "3.4"), (12.4, "12"), (340.2, "340"), (0.5, "0.50")]
)
def test_a_rate_has_two_figures(rate: float, told: str) -> None:
    assert told_rate(rate) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "5 s"),
        (12.0, "15 s"),
        (55.0, "55 s"),
        (56.0, "1 min"),
        (61.0, "2 min"),
        (3_540.0, "59 min"),
        (3_541.0, "1 h 0 min"),
        (7_500.0, "2 h 5 min"),
    ],
)
def test_a_time_left_is_told_no_finer_than_anybody_can_know_it(seconds: float, told: str) -> None:
    assert told_seconds(seconds) == told
