"""Reconciling: the difference between the folder and the ledger.

Level-triggered: only what is matters, never how it came about, so a lost event and a crash heal in the same way.

Invariant: a path is in the result exactly when processing it could change the collection.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ingestor.core.model import Glance, Snapshot, Stat, Version


@dataclass(frozen=True, slots=True)
class Difference:
    """Paths to process: present ones that are new or differ, and known ones that are gone; `same` counts the rest."""

    present: tuple[str, ...]
    gone: tuple[str, ...]
    same: int


def differs(stat: Stat | None, glance: Glance | None, cutting: str) -> bool:
    """Whether one path needs processing, given what the file system and the ledger say of it."""
    if glance is None or stat is None:
        return stat is not None or glance is not None
    return _is_outdated(stat.version, glance, cutting)


def _is_outdated(version: Version, glance: Glance, cutting: str) -> bool:
    known, its_cutting, is_unfinished = glance
    return version != known or is_unfinished or its_cutting not in (cutting, "")


def difference(snapshot: Snapshot, glances: Mapping[str, Glance], cutting: str) -> Difference:
    """Compare a scan with the ledger's glances of the same part of the folder.

    What lies below a folder that could not be listed is unknown, and unknown is not gone; nor is a file that cannot be
    converted any more.
    """
    files, unconverted = snapshot.files, snapshot.unconverted
    present = tuple(
        path
        for path, version in files.items()
        if (glance := glances.get(path)) is None or _is_outdated(version, glance, cutting)
    )
    gone = tuple(
        path
        for path in glances
        if path not in files and path not in unconverted and not _is_below_any(path, snapshot.unreadable)
    )
    return Difference(present=present, gone=gone, same=len(files) - len(present))


def _is_below_any(path: str, folders: Mapping[str, str]) -> bool:
    if not folders:
        return False
    if "" in folders:
        return True
    parts = path.split("/")
    return any("/".join(parts[:depth]) in folders for depth in range(1, len(parts) + 1))
