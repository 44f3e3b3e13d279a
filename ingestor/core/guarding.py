"""Guarding: when so much seems to be deleted that it is more likely a mistake.

An unmounted disk, a sync tool that went wrong, a mistyped path: the folder looks empty, and a faithful mirror would
delete the whole collection (syncthing and open-webui have done so to their users).

Invariant: what is held back is not lost from view: it is found again by every reconcile, until somebody approves of it
or the files come back.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ingestor.core.model import Glance, Version


@dataclass(frozen=True, slots=True)
class DeletionLimit:
    """How many documents a reconcile may take for deleted without anybody's approval."""

    max_ratio: float
    """Share of the known documents."""
    min_documents: int
    """Fewer known documents than this are never held back by their share."""

    def holds_back(self, *, gone: int, known: int, found: int) -> bool:
        """Whether deletions wait: `gone` of `known` documents are missing, and the folder has `found` files."""
        if not gone:
            return False
        is_suddenly_empty = found == 0 and gone == known
        return is_suddenly_empty or (known >= self.min_documents and gone > self.max_ratio * known)


def vanished(gone: Collection[str], glances: Mapping[str, Glance], found: Iterable[Version]) -> int:
    """How many of the paths that are gone are not simply somewhere else: no found file has their inode and size."""
    if not gone:
        return 0
    moved = {(inode, size_bytes) for inode, size_bytes, *_ in found}
    missing = ((inode, size_bytes) for (inode, size_bytes, *_), _, _ in map(glances.__getitem__, gone))
    return sum(each not in moved for each in missing)
