"""Mounts: which file systems lie at, above and below a folder, as /proc/self/mountinfo tells.

Invariant: mount points are real, absolute paths; of several mounts at one point only the topmost is seen.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

_SILENT_KINDS = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse",
        "grpcfuse",
        "lustre",
        "osxfs",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    }
)
_SILENT_PREFIXES = ("nfs", "fuse.")
_POINT_FIELD = 4
_OCTAL_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, order=True)
class Mount:
    """A file system where it is mounted: `kind` is its type as the kernel calls it (ext4, nfs4, fuse.sshfs)."""

    point: str
    kind: str

    @property
    def is_silent(self) -> bool:
        """Whether others may change files here without this machine's kernel seeing it, so that no event comes."""
        return self.kind in _SILENT_KINDS or self.kind.startswith(_SILENT_PREFIXES)


def read_mounts(mountinfo: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """Every mount of this process, sorted by mount point; none where the system does not tell.

    Lines that are no mount lines are left out: what is not known is taken for a file system that sends events.
    """
    try:
        lines = mountinfo.read_bytes().splitlines()
    except OSError:
        return ()
    topmost: dict[str, Mount] = {}
    for line in lines:
        head, separator, tail = line.partition(b" - ")
        fields, kinds = head.split(b" "), tail.split(b" ")
        if separator and len(fields) > _POINT_FIELD:
            point = os.fsdecode(_OCTAL_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[_POINT_FIELD]))
            topmost[point] = Mount(point, os.fsdecode(kinds[0]))
    return tuple(sorted(topmost.values()))


def mount_of(folder: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """The mount that the real, absolute path `folder` lies on; None when it cannot be told."""
    above = [mount for mount in mounts if is_below(folder, mount.point)]
    return max(above, key=lambda mount: len(mount.point), default=None)


def mounts_below(folder: str, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """The mounts strictly below the real, absolute path `folder`."""
    return tuple(mount for mount in mounts if mount.point != folder and is_below(mount.point, folder))


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it, by name alone."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
