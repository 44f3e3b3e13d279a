"""An audit of a native watch: the kernel's list of watches against watchdog's map of them, and both against the tree.

Invariant: an audit only reads, and never raises; what cannot be verified, because a private part of watchdog or a file
of /proc is not there, is no finding.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestor.adapters.watch_observers import KernelObserver


@dataclass(frozen=True, slots=True)
class Audit:
    """Counts of folders, and absolute paths of folders that something is wrong with."""

    watched: int
    """Watches that the kernel holds."""
    existing: int
    """Folders that can be listed: others cannot be watched either."""
    strayed: frozenset[bytes]
    """Paths that watchdog has a watch for, with no folder there or no such watch in the kernel; and the reverse."""
    swapped: frozenset[bytes]
    """Paths whose folder is another one than the kernel watches for them."""
    unwatched: frozenset[bytes]
    """Folders that exist without a watch."""


def audit_watch(observer: KernelObserver, root: str, *, follows_symlinks: bool) -> Audit | None:
    """Compare the watches of `observer` with the folders below `root`; None when it cannot be verified."""
    inodes = _kernel_inodes(observer.queue.descriptor)
    maps = [_maps(emitter) for emitter in observer.emitters]
    if inodes is None or not maps or None in maps:
        return None
    folders = set(walk_folders(os.fsencode(root), follows_symlinks=follows_symlinks))
    pairs = {pair for found in maps if found is not None for pair in found}
    mapped_paths = {path for path, _ in pairs}
    strayed, swapped = set(), set()
    for path, wd in pairs:
        identity = _identity(path, follows_symlinks=follows_symlinks)
        if identity is None or wd not in inodes:
            strayed.add(path)
        elif identity[1] != inodes[wd]:
            swapped.add(path)
    strayed.update(b"watch %d" % wd for wd in inodes.keys() - {wd for _, wd in pairs})
    return Audit(
        watched=len(inodes),
        existing=len(folders),
        strayed=frozenset(strayed),
        swapped=frozenset(swapped),
        unwatched=frozenset(folders - mapped_paths),
    )


def walk_folders(root: bytes, *, follows_symlinks: bool) -> Iterator[bytes]:
    """Every folder at and below `root` that can be listed; one that is reachable in two ways is met only once."""
    waiting = [root]
    met: set[tuple[int, int] | None] = set()
    while waiting:
        folder = waiting.pop()
        if follows_symlinks:
            identity = _identity(folder, follows_symlinks=True)
            if identity in met:
                continue
            met.add(identity)
        below = _subfolders(folder, follows_symlinks=follows_symlinks)
        if below is not None:
            yield folder
            waiting += below


def repeated_folder(root: bytes) -> bytes | None:
    """A folder below `root` that symbolic links lead to a second time, or None.

    Following them then has no end, or one that is exponentially far away.
    """
    waiting = [root]
    met: set[tuple[int, int] | None] = set()
    while waiting:
        folder = waiting.pop()
        identity = _identity(folder, follows_symlinks=True)
        if identity is not None and identity in met:
            return folder
        met.add(identity)
        waiting += _subfolders(folder, follows_symlinks=True) or []
    return None


def _identity(path: bytes, *, follows_symlinks: bool) -> tuple[int, int] | None:
    try:
        stat = os.stat(path, follow_symlinks=follows_symlinks)  # noqa: PTH116 - names are bytes here, which Path refuses
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _subfolders(folder: bytes, *, follows_symlinks: bool) -> list[bytes] | None:
    """None when the folder is gone or may not be listed: then no watch could be had for it either."""
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # a symbolic link that leads nowhere is no folder
                    if entry.is_dir(follow_symlinks=follows_symlinks):
                        below.append(entry.path)
    except OSError:
        return None
    return below


def _kernel_inodes(descriptor: int | None) -> dict[int, int] | None:
    """Watch number -> inode number, as the kernel lists them for the descriptor."""
    if descriptor is None:
        return None
    inodes = {}
    try:
        for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines():
            if line.startswith("inotify wd:"):
                fields = dict(field.split(":", 1) for field in line.split()[1:])
                inodes[int(fields["wd"], 16)] = int(fields["ino"], 16)
    except (OSError, ValueError, KeyError):
        return None
    return inodes


def _maps(emitter: Any) -> list[tuple[bytes, int]] | None:  # noqa: ANN401 - what is looked for is no public part
    """Pairs of path and watch number from both of the maps of a watch group, which should be each other's inverse."""
    group = getattr(emitter, "_inotify", None)
    lock = getattr(group, "_lock", None)
    by_watch = getattr(group, "_active_callbacks_by_watch", None)
    by_path = getattr(group, "_active_callbacks_by_path", None)
    if lock is None or by_watch is None or by_path is None:
        return None
    with lock:
        return [*by_path.items(), *((path, wd) for wd, path in by_watch.items())]
