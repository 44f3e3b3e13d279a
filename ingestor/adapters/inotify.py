"""inotify as the kernel has it set: how much a user may watch, and how much is watched already.

Invariant: nothing is taken; what the system does not tell is None.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LIMITS = Path("/proc/sys/fs/inotify")
_PROC = Path("/proc")
_INSTANCE = "anon_inode:inotify"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one user may have; None where the system does not tell."""

    max_user_watches: int | None
    """Folders, over all processes."""
    max_user_instances: int | None
    max_queued_events: int | None
    """Of one instance, until events are lost."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes of this user have, as far as they may be looked into."""

    watches: int
    instances: int


def read_limits(folder: Path = _LIMITS) -> Limits:
    """The limits of the kernel."""
    return Limits(*(_number(folder / name) for name in ("max_user_watches", "max_user_instances", "max_queued_events")))


def usage_of_others(but_for: int | None = None) -> Usage:
    """What other processes of this user have taken; that of a daemon (`but_for`) is not counted."""
    watches = instances = 0
    for pid in _pids_of_user():
        if pid not in {but_for, os.getpid()}:
            for descriptor in _instances(pid):
                instances += 1
                watches += _watches(pid, descriptor)
    return Usage(watches, instances)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _pids_of_user() -> Iterator[int]:
    for place in _PROC.iterdir():
        try:
            if place.name.isdecimal() and place.stat().st_uid == os.getuid():
                yield int(place.name)
        except OSError:
            continue  # it has ended meanwhile


def _instances(pid: int) -> list[str]:
    """Descriptors of a process that are inotify instances; none where it may not be looked into, or has ended."""
    try:
        links = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return []
    return [link.name for link in links if _leads_to(link) == _INSTANCE]


def _leads_to(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


def _watches(pid: int, descriptor: str) -> int:
    try:
        told = (_PROC / str(pid) / "fdinfo" / descriptor).read_text(encoding="ascii")
    except OSError:
        return 0
    return told.count("inotify wd:")
