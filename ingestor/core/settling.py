"""Settling: when a path that was hinted at is quiet enough to be read.

Hints of one path are collected until none has come for a moment. Then the file itself says whether it rests: a writer
that closed it, or a rename, has finished; anything else rests when its modification time is `quiet_seconds` old. A
file moved in from elsewhere has an old modification time and need not wait, though no event says that it is complete.

The moment is `PAUSE_SECONDS`, but for a closed file, which may cost money each time: `CLOSED_SECONDS` when nothing of
it was handed out of late, then `PAUSE_SECONDS`, and twice as long each time, up to `MAX_PAUSE_SECONDS`. So a file that
is dropped is found at once, and one that is saved again and again is embedded seldom.

A file that changes all day, as a log does, would cost money all day. So what was queued and changes again within
`CALM_SECONDS` is not queued again before it has rested, for `MIN_REST_SECONDS` at first and longer each time, up to
`MAX_REST_SECONDS`; a calm file, and one that is gone, never rests.

Invariants: every path that was heard of is handed out no later than `MAX_WAIT_SECONDS` after it was first heard of, or
when its rest ends, so that a file that never rests is indexed all the same, and looked at again at its next hint: its
last state is reached within `MAX_REST_SECONDS` after its last change. What lies below a folder that was heard of may go
without: the folder is handed out later, or with it, and a look at everything below follows.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from ingestor.core.model import Hint, Stat, Version

CLOSED_SECONDS = 0.015
PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 0.4
LATELY_SECONDS = 1.0
"""For how long it counts that a closed file was handed out."""
MAX_WAIT_SECONDS = 30.0
GONE_SECONDS = 0.25
"""How long a path that is gone waits for a new path to turn up that it was renamed to: a rename is two hints."""
CALM_SECONDS = 30.0
"""A file that was left alone for so long after it was queued is a calm one."""
MIN_REST_SECONDS, MAX_REST_SECONDS = 1.0, 60.0
_REST_GROWTH = 1.5
RESTLESS_SECONDS = 10.0
"""What rests for longer is told as a file that changes all the time."""
_FORGET_SECONDS = 7 * CALM_SECONDS
"""After so long a calm the longest rest has come down to none."""
_LEAST_SECONDS = 0.001
"""What is left of a wait by rounding is not waited for: a clock may never come to it."""
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


@dataclass(frozen=True, slots=True)
class _Queued:
    """As what a file was queued, when, how long it rests since, and since when it is known to have changed again."""

    version: Version
    at_seconds: float
    rest_seconds: float
    changed_seconds: float | None = None

    @property
    def until_seconds(self) -> float:
        return self.at_seconds + self.rest_seconds


class Settling:
    """Hints that wait for quiet; `capacity` bounds the paths held, and those handed out or queued of late."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: dict[tuple[str, bool], Heard] = {}
        self._handed_out: dict[str, _HandedOut] = {}
        """Closed files in the order of their last hand-out."""
        self._queued: dict[str, _Queued] = {}
        """Files in the order in which they were queued last."""

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

    def rest_seconds(self, heard: Heard, stat: Stat, now_seconds: float) -> float:
        """How much longer a file that has changed is to rest, for it was queued again and again of late; mostly 0."""
        path = heard.hint.path
        last = self._queued.get(path)
        if last is None or last.version == stat.version:
            return 0.0
        if last.changed_seconds is None:
            self._queued[path] = replace(last, changed_seconds=heard.first_seconds)
        return _worth_waiting(last.until_seconds - now_seconds)

    def left_to_rest_seconds(self, path: str, now_seconds: float) -> float:
        """How much longer a file rests that is found to be another one than was queued last; mostly 0."""
        last = self._queued.get(path)
        return _worth_waiting(last.until_seconds - now_seconds) if last else 0.0

    def queued(self, path: str, stat: Stat, now_seconds: float) -> None:
        """Note that a file is queued: the sooner it has changed again, the longer it rests from now on."""
        last = self._queued.get(path)
        if last is not None and last.version == stat.version:
            return
        self._queued.pop(path, None)
        self._queued[path] = _Queued(stat.version, now_seconds, _rest_seconds(last, now_seconds) if last else 0.0)
        self._forget_calm(now_seconds)

    def restless(self, now_seconds: float) -> list[str]:
        """The files that change all the time, by path."""
        self._forget_calm(now_seconds)
        return sorted(
            path
            for path, queued in self._queued.items()
            if queued.rest_seconds > RESTLESS_SECONDS and now_seconds < queued.until_seconds + CALM_SECONDS
        )

    def _forget_calm(self, now_seconds: float) -> None:
        while self._queued:
            path, oldest = next(iter(self._queued.items()))
            if len(self._queued) <= self._capacity and now_seconds < oldest.at_seconds + _FORGET_SECONDS:
                break
            del self._queued[path]

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
        queued = self._queued.get(heard.hint.path)
        latest_seconds = max(heard.first_seconds + MAX_WAIT_SECONDS, queued.until_seconds if queued else 0.0)
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
    return _worth_waiting(quiet_seconds - rested_seconds)


def _worth_waiting(seconds: float) -> float:
    return seconds if seconds > _LEAST_SECONDS else 0.0


def _rest_seconds(last: _Queued, now_seconds: float) -> float:
    """For how long a file rests that was queued before and is queued now."""
    calm_seconds = (now_seconds if last.changed_seconds is None else last.changed_seconds) - last.at_seconds
    if calm_seconds < CALM_SECONDS:
        return min(max(MIN_REST_SECONDS, _REST_GROWTH * last.rest_seconds), MAX_REST_SECONDS)
    rest_seconds = last.rest_seconds / 2.0 ** (calm_seconds // CALM_SECONDS)
    return rest_seconds if rest_seconds >= MIN_REST_SECONDS else 0.0


def _key(hint: Hint) -> tuple[str, bool]:
    return hint.path, hint.is_folder


def _is_covered(hint: Hint, folders: Collection[str]) -> bool:
    """Whether a look at everything at or below one of the folders is a look at what the hint is about."""
    names = hint.path.split("/") if hint.path else []
    depths = range(len(names) if hint.is_folder else len(names) + 1)
    return any("/".join(names[:depth]) in folders for depth in depths)
