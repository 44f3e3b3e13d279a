"""Settling: when a path that was hinted at is quiet enough to be read.

Hints of one path are collected until none has come for a moment. Then the file itself says whether it rests: a writer
that closed it, or a rename, has finished; anything else rests when its modification time is `quiet_seconds` old. A
file moved in from elsewhere has an old modification time and need not wait, though no event says that it is complete.

The moment is `PAUSE_SECONDS`, but for a closed file, which may cost money each time: `CLOSED_SECONDS` when nothing of
it was handed out of late, then `PAUSE_SECONDS`, and twice as long each time, up to `MAX_PAUSE_SECONDS`. So a file that
is dropped is found at once, and one that is saved again and again is embedded seldom.

Invariants: every path that was heard of is handed out no later than `MAX_WAIT_SECONDS` after it was first heard of, so
that a file that never rests is indexed all the same, and looked at again at its next hint. What lies below a folder
that was heard of may go without: the folder is handed out later, or with it, and a look at everything below follows.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from ingestor.core.model import Hint, Stat

CLOSED_SECONDS = 0.015
PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 0.4
LATELY_SECONDS = 1.0
"""For how long it counts that a closed file was handed out."""
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


@dataclass(frozen=True, slots=True)
class _HandedOut:
    """When a closed file was handed out, and the pause that it is given next."""

    at_seconds: float
    pause_seconds: float


class Settling:
    """Hints that wait for quiet; `capacity` bounds the number of paths held, and of those handed out of late."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: dict[tuple[str, bool], Heard] = {}
        self._handed_out: dict[str, _HandedOut] = {}
        """Closed files in the order of their last hand-out."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def reach(self) -> int | None:
        """How many paths may have changed by the hints that wait; None for any number: a folder is among them."""
        return None if any(is_folder for _, is_folder in self._waiting) else len(self._waiting)

    def hear(self, hint: Hint, now_seconds: float) -> bool:
        """Take a hint; False when there is no room for another path, and a reconcile is needed instead."""
        known = self._waiting.get(_key(hint))
        if known is None and len(self._waiting) >= self._capacity:
            return False
        first_seconds = known.first_seconds if known else now_seconds
        self._wait(Heard(hint, first_seconds, now_seconds + self._pause_seconds(hint, now_seconds)))
        return True

    def postpone(self, heard: Heard, now_seconds: float, wait_seconds: float) -> None:
        """Take back what was handed out and does not rest yet, unless it was hinted at again meanwhile."""
        if _key(heard.hint) not in self._waiting:
            self._wait(replace(heard, ready_seconds=now_seconds + wait_seconds))

    def take_ready(self, now_seconds: float) -> list[Heard]:
        """Hand out the hints that have been quiet for long enough, and forget them.

        Those of what lies at or below a folder that waits, or is handed out now, are forgotten only.
        """
        folders = {path for path, is_folder in self._waiting if is_folder}
        quiet = [heard for heard in self._waiting.values() if heard.ready_seconds <= now_seconds]
        for heard in quiet:
            del self._waiting[_key(heard.hint)]
        ready = [heard for heard in quiet if not (folders and _is_covered(heard.hint, folders))]
        self._note(ready, now_seconds)
        return ready

    def next_ready_seconds(self) -> float | None:
        """When the next hint will be ready; None when none waits."""
        return min((heard.ready_seconds for heard in self._waiting.values()), default=None)

    def clear(self) -> None:
        """Forget everything, because a reconcile of the whole folder is about to look at it anyway."""
        self._waiting.clear()

    def _pause_seconds(self, hint: Hint, now_seconds: float) -> float:
        if not hint.is_closed:
            return PAUSE_SECONDS
        last = self._handed_out.get(hint.path)
        if last is None or now_seconds >= last.at_seconds + LATELY_SECONDS:
            return CLOSED_SECONDS
        return last.pause_seconds

    def _note(self, ready: Collection[Heard], now_seconds: float) -> None:
        """Note which closed files are handed out now, and forget those of long ago."""
        for heard in ready:
            if heard.hint.is_closed:
                pause_seconds = self._pause_seconds(heard.hint, now_seconds)
                longer_seconds = min(max(PAUSE_SECONDS, 2 * pause_seconds), MAX_PAUSE_SECONDS)
                self._handed_out.pop(heard.hint.path, None)
                self._handed_out[heard.hint.path] = _HandedOut(now_seconds, longer_seconds)
        while self._handed_out:
            path, oldest = next(iter(self._handed_out.items()))
            if len(self._handed_out) <= self._capacity and now_seconds < oldest.at_seconds + LATELY_SECONDS:
                break
            del self._handed_out[path]

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


def _is_covered(hint: Hint, folders: Collection[str]) -> bool:
    """Whether a look at everything at or below one of the folders is a look at what the hint is about."""
    names = hint.path.split("/") if hint.path else []
    depths = range(len(names) if hint.is_folder else len(names) + 1)
    return any("/".join(names[:depth]) in folders for depth in depths)
