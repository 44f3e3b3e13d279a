"""How long a provider that asks to be left alone is believed, whatever it writes."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.backoff import Backoff
from ingestor.core.waits import (
    MAX_QUOTA_WAIT_SECONDS,
    MAX_WAIT_SECONDS,
    asked_wait_seconds,
    bounded_wait_seconds,
    duration_seconds,
    reset_wait_seconds,
)

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
NOW_SECONDS = NOW.timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("999999999", 999_999_999.0),
        (str(NOW_SECONDS + 20), 20.0),
        (str(NOW_SECONDS - 20), 0.0),
        (f"{(NOW_SECONDS + 20) * 1_000:.0f}", 20.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Mon, 23 Nov 2026 09:00:30 -0000", 30.0),
        ("2026-11-23T09:00:30Z", 30.0),
        ("1m30s", 90.0),
        ("120ms", 0.12),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Mon, 99 Nov 2026 09:00:30 GMT", None),
        ("", None),
    ],
)
def test_a_wait_is_a_number_a_duration_or_a_moment(value: str, seconds: float | None) -> None:
    found = asked_wait_seconds({"retry-after": value}, NOW_SECONDS)
    assert found == pytest.approx(seconds) if seconds is not None else found is None


def test_milliseconds_are_believed_before_seconds() -> None:
    assert asked_wait_seconds({"retry-after-ms": "1500", "retry-after": "7"}, NOW_SECONDS) == 1.5
    assert asked_wait_seconds({"retry-after-ms": "soon", "retry-after": "7"}, NOW_SECONDS) == 7.0
    assert asked_wait_seconds({"retry-after-ms": f"{(NOW_SECONDS + 20) * 1_000:.0f}"}, NOW_SECONDS) == 20.0
    assert asked_wait_seconds({}, NOW_SECONDS) is None


def test_a_duration_has_hours_minutes_and_seconds() -> None:
    assert duration_seconds("1h2m3.5s") == 3_723.5
    assert duration_seconds("6m0s") == 360.0
    assert duration_seconds("2h") == 7_200.0
    assert duration_seconds("10 minutes") is None
    assert duration_seconds("") is None


@given(st.text() | st.floats().map(str) | st.integers().map(str), st.booleans())
def test_no_wait_is_longer_than_its_ceiling_whatever_was_written(
    value: str,
    is_quota: bool,  # noqa: FBT001 - given by position
) -> None:
    asked_seconds = asked_wait_seconds({"retry-after": value}, NOW_SECONDS)
    bounded_seconds = bounded_wait_seconds(asked_seconds, is_quota=is_quota)
    ceiling_seconds = MAX_QUOTA_WAIT_SECONDS if is_quota else MAX_WAIT_SECONDS
    assert bounded_seconds is None or 0 <= bounded_seconds <= ceiling_seconds
    assert (bounded_seconds is None) == (asked_seconds is None)


@pytest.mark.parametrize("asked_seconds", [1_796_064_491.0, float("inf"), float("nan"), -5.0])
def test_no_pause_before_an_attempt_is_longer_than_a_day(asked_seconds: float) -> None:
    pause_seconds = Backoff(first_seconds=1.0, max_seconds=8.0, max_attempts=3).pause_seconds(1, 0.5, asked_seconds)
    assert 0 < pause_seconds <= MAX_QUOTA_WAIT_SECONDS


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, 6.0),
        (
            {
                "x-ratelimit-remaining-requests": "12",
                "x-ratelimit-reset-requests": "20m0s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "120ms",
            },
            0.12,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW_SECONDS + 20:.0f}"}, 20.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        ({"x-ratelimit-reset": "30"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
        ({}, None),
    ],
)
def test_a_limit_that_is_used_up_tells_when_it_is_not(headers: dict[str, str], seconds: float | None) -> None:
    found = reset_wait_seconds(headers, NOW_SECONDS)
    assert found == (pytest.approx(seconds) if seconds is not None else None)
