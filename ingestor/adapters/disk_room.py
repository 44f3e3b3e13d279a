"""Free space on the disk of one of our own files, against what must be left for other writes."""

import os
from pathlib import Path

from ingestor.core.errors import ServiceUnavailable

RESERVED_BYTES = 8 * 1024 * 1024
"""Left for a commit of the ledger and for write-ahead logs: SQLite lets each grow to 4 MiB before it empties it."""
FULL_REMEDY = "free disk space; work goes on by itself then"


def see_room(path: Path, needed_bytes: int = 0) -> None:
    """Raise `ServiceUnavailable` unless the disk of `path` has room for what is needed and for what is reserved.

    A path that does not exist, and a file system that tells nothing of its size, as some network mounts, have room.
    """
    try:
        disk = os.statvfs(path)
    except FileNotFoundError:
        return
    free_bytes, needed_bytes = disk.f_bavail * disk.f_frsize, needed_bytes + RESERVED_BYTES
    if disk.f_blocks and free_bytes < needed_bytes:
        message = (
            f"the disk of {path} is full: {free_bytes // 1024} KiB are left, {needed_bytes // 1024} KiB are needed"
        )
        raise ServiceUnavailable(message, remedy=FULL_REMEDY)
