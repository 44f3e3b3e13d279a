"""Latency: how long things took, counted by upper bounds, and since when somebody has waited for a document.

Invariant: every value is counted once, at the least bound that it does not exceed, or beyond all bounds.
"""

from bisect import bisect_left
from collections.abc import Sequence

from ingestor.core.model import Change, Stat

CALL_BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT_BOUNDS_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)
MAX_NOTICE_SECONDS = 60.0
"""A file that changed longer before its change was queued had not been changed then, but was moved here with its
times, or has a clock of its own: a file that never rests is queued after half of it."""
_NANOSECONDS = 1_000_000_000


class Spread:
    """Seconds that were measured: how many, their sum, and how many at or below each bound.

    One thread adds; another may look at the same time, and sees at worst the sum without the last value.
    """

    __slots__ = ("bounds_seconds", "counts", "sum_seconds")

    def __init__(self, bounds_seconds: Sequence[float] = CALL_BOUNDS_SECONDS) -> None:
        self.bounds_seconds = bounds_seconds
        self.counts = [0] * (len(bounds_seconds) + 1)
        """How many lie at or below each bound and above the one before; the last one counts those beyond all."""
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds_seconds, seconds)] += 1
        self.sum_seconds += seconds


def waited_seconds(change: Change, stat: Stat | None, now_seconds: float) -> float:
    """How long a document has taken from its file's last change to now, by the wall clock; never negative.

    The file tells when it last changed (ctime: an edit, a rename, a copy), where that is plausible; otherwise, and for
    a file that is gone, it is since the change was queued.
    """
    began_seconds = change.enqueued_seconds
    if stat is not None:
        changed_seconds = stat.ctime_ns / _NANOSECONDS
        if change.enqueued_seconds - MAX_NOTICE_SECONDS <= changed_seconds <= now_seconds:
            began_seconds = changed_seconds
    return max(0.0, now_seconds - began_seconds)
