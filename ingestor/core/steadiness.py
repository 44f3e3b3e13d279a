"""Steadiness: a rate and a time left that people can read while work comes in bursts."""

import math
from typing import Final

STEADY_SECONDS: Final = 15.0
"""What happened so long ago counts a third."""
_MINUTE_SECONDS: Final = 60
_HOUR_SECONDS: Final = 3_600
_STEP_SECONDS: Final = 5


class SteadyRate:
    """How much of something happens in a second: a mean in which what is past fades.

    Invariant: while little time has passed it is the plain mean, so that the first figures are no wild ones.
    """

    def __init__(self) -> None:
        self._total = 0.0
        self._at_seconds: float | None = None
        self._counted = 0.0
        self._seconds = 0.0

    def count(self, total: float, now_seconds: float) -> float:
        """The rate, now that so much has happened since the beginning; `total` only grows, and so does the time."""
        passed_seconds = 0.0 if self._at_seconds is None else now_seconds - self._at_seconds
        faded = math.exp(-passed_seconds / STEADY_SECONDS)
        if self._at_seconds is not None:
            self._counted = self._counted * faded + total - self._total
        self._seconds = self._seconds * faded + passed_seconds
        self._total, self._at_seconds = total, now_seconds
        return self._counted / self._seconds if self._seconds else 0.0


def told_rate(per_second: float) -> str:
    """A rate with two figures that mean something: `340`, `12`, `3.4`, `0.071`."""
    if per_second <= 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(per_second)))
    return f"{per_second:.{digits}f}"


def told_seconds(seconds: float) -> str:
    """A time that is left, no finer than anybody can know it: `25 s`, `4 min`, `2 h 5 min`."""
    if seconds <= _MINUTE_SECONDS - _STEP_SECONDS:
        return f"{_STEP_SECONDS * max(1, math.ceil(seconds / _STEP_SECONDS))} s"
    minutes = math.ceil(seconds / _MINUTE_SECONDS)
    if seconds <= _HOUR_SECONDS - _MINUTE_SECONDS:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, _MINUTE_SECONDS)
    return f"{hours} h {minutes} min"
