"""Waits: how long a provider that asks to be left alone is believed.

What providers write into `Retry-After` is seconds by the standard, or an HTTP date; seen in the wild are Unix times in
seconds and milliseconds, durations such as "1m30s", ISO dates, and numbers that make no sense.

Invariant: no wait is negative, not finite, or longer than its ceiling, whatever was written.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_WAIT_SECONDS: Final = 3_600.0
"""A provider that is busy is asked again after at most so long."""
MAX_QUOTA_WAIT_SECONDS: Final = 86_400.0
"""One whose account is used up, after at most so long."""
_NEAR_SECONDS: Final = 366 * 86_400.0
"""A number that as Unix time lies nearer to now than this is a moment, no duration."""
_MILLISECONDS: Final = 1_000.0
_DURATION: Final = re.compile(
    r"(?=.)(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s))?", re.IGNORECASE
)


def asked_wait_seconds(headers: Mapping[str, str], now_seconds: float) -> float | None:
    """How long the provider asks to wait, by `retry-after-ms` or `Retry-After`; `now_seconds` since the epoch.

    Not bounded; `headers` finds names in whatever case. None when it asks for nothing, or for what is no time.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _from_now(milliseconds / _MILLISECONDS, now_seconds)
    return _wait_seconds(headers.get("retry-after", "").strip(), now_seconds)


def reset_wait_seconds(headers: Mapping[str, str], now_seconds: float) -> float | None:
    """How long until the last of the limits that are used up is not, by `x-ratelimit-reset` and its kin.

    As `asked_wait_seconds`, for refusals without a word of when to come again.
    """
    waits_seconds = [
        _wait_seconds(headers.get(f"{prefix}-reset{limit}", "").strip(), now_seconds)
        for prefix in ("x-ratelimit", "ratelimit")
        for limit in ("", "-requests", "-tokens")
        if _number(headers.get(f"{prefix}-remaining{limit}", "")) == 0
    ]
    return max((seconds for seconds in waits_seconds if seconds is not None), default=None)


def _wait_seconds(value: str, now_seconds: float) -> float | None:
    seconds = _number(value)
    if seconds is not None:
        return _from_now(seconds, now_seconds)
    told = duration_seconds(value)
    return told if told is not None else _until(value, now_seconds)


def duration_seconds(words: str) -> float | None:
    """Seconds of a duration such as "1h2m3.5s" or "120ms"; None when it is none."""
    found = _DURATION.fullmatch(words)
    if found is None:
        return None
    seconds = float(found["number"] or 0) / (_MILLISECONDS if (found["unit"] or "").lower() == "ms" else 1.0)
    return 3_600.0 * float(found["hours"] or 0) + 60.0 * float(found["minutes"] or 0) + seconds


def bounded_wait_seconds(seconds: float | None, *, is_quota: bool = False) -> float | None:
    """A wait that somebody asks for, within its ceiling; None when nobody asks."""
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(0.0, seconds), MAX_QUOTA_WAIT_SECONDS if is_quota else MAX_WAIT_SECONDS)


def _from_now(seconds: float, now_seconds: float) -> float:
    """Seconds from now on: the number itself, unless it is a moment by its size."""
    for moment_seconds in (seconds, seconds / _MILLISECONDS):
        if abs(moment_seconds - now_seconds) < _NEAR_SECONDS:
            return max(0.0, moment_seconds - now_seconds)
    return max(0.0, seconds)


def _until(value: str, now_seconds: float) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return max(0.0, read(value).timestamp() - now_seconds)
        except (ValueError, OverflowError):
            continue
    return None


def _number(value: str) -> float | None:
    try:
        number = float(value or "nan")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
