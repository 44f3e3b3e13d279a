"""Settling: when a path that was hinted at is quiet enough to be read.

Hints of one path are collected for a moment (`PAUSE_SECONDS`). Then the file itself says whether it rests: a writer
that closed it, or a rename, has finished; anything else rests when its modification time is `quiet_seconds` old. A
file moved in from elsewhere has an old modification time and need not wait, though no event says that it is complete.

Invariant: every path that was heard of is handed out no later than `MAX_WAIT_SECONDS` after it was first heard of, so
that a file that never rests is indexed all the same, and looked at again at its next hint.
"""

from dataclasses import dataclass, replace

from ingestor.core.model import Hint, Stat

PAUSE_SECONDS = 0.1
MAX_WAIT_SECONDS = 30.0
GONE_SECONDS = 0.25
"""How long a path that is gone waits for a new path to turn up that it was renamed to: a rename is two hints."""
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Heard:
    """A hint, when its path was first heard of, and when it may be looked at; monotonic seconds."""

    hint: Hint
    first_seconds: float
    ready_seconds: float


class Settling:
    """Hints that wait for quiet; `capacity` bounds the number of paths held."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: dict[tuple[str, bool], Heard] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def hear(self, hint: Hint, now_seconds: float) -> bool:
        """Take a hint; False when there is no room for another path, and a reconcile is needed instead."""
        known = self._waiting.get(_key(hint))
        if known is None and len(self._waiting) >= self._capacity:
            return False
        first_seconds = known.first_seconds if known else now_seconds
        self._wait(Heard(hint, first_seconds, now_seconds + PAUSE_SECONDS))
        return True

    def postpone(self, heard: Heard, now_seconds: float, wait_seconds: float) -> None:
        """Take back what was handed out and does not rest yet, unless it was hinted at again meanwhile."""
        if _key(heard.hint) not in self._waiting:
            self._wait(replace(heard, ready_seconds=now_seconds + wait_seconds))

    def take_ready(self, now_seconds: float) -> list[Heard]:
        """Hand out the hints that have been quiet for long enough, and forget them."""
        ready = [key for key, heard in self._waiting.items() if heard.ready_seconds <= now_seconds]
        return [self._waiting.pop(key) for key in ready]

    def next_ready_seconds(self) -> float | None:
        """When the next hint will be ready; None when none waits."""
        return min((heard.ready_seconds for heard in self._waiting.values()), default=None)

    def clear(self) -> None:
        """Forget everything, because a reconcile of the whole folder is about to look at it anyway."""
        self._waiting.clear()

    def _wait(self, heard: Heard) -> None:
        latest_seconds = heard.first_seconds + MAX_WAIT_SECONDS
        self._waiting[_key(heard.hint)] = replace(heard, ready_seconds=min(heard.ready_seconds, latest_seconds))


def unrest_seconds(
    heard: Heard, stat: Stat | None, *, quiet_seconds: float, now_seconds: float, monotonic_seconds: float
) -> float:
    """How much longer a file should be left alone; 0 when it may be read now.

    `now_seconds` is wall-clock time. A modification time in the future says nothing about rest, and is waited for once.
    """
    is_overdue = monotonic_seconds >= heard.first_seconds + MAX_WAIT_SECONDS
    if stat is None or heard.hint.is_closed or is_overdue:
        return 0.0
    age_seconds = now_seconds - stat.mtime_ns / _NANOSECONDS
    heard_for_seconds = monotonic_seconds - heard.first_seconds
    rested_seconds = age_seconds if age_seconds >= 0 else heard_for_seconds
    return max(0.0, quiet_seconds - rested_seconds)


def _key(hint: Hint) -> tuple[str, bool]:
    return hint.path, hint.is_folder
