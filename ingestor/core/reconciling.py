"""Reconciling: the difference between the folder and the ledger.

Level-triggered: only what is matters, never how it came about, so a lost event and a crash heal in the same way.

Invariant: a path is in the result exactly when processing it could change the collection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ingestor.core.attaching import UNTELLABLE, recipe_in
from ingestor.core.model import Entry, Glance, Snapshot, Stat
from ingestor.core.paths import is_below_any


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
    known, its_cutting, is_unfinished = glance
    return stat.version != known or is_unfinished or not _fits(its_cutting, cutting, stat.attached)


class Standing(Enum):
    """What a look at a path says of what was planned for it a while ago."""

    AS_PLANNED = "planned"
    CHANGED = "changed"
    """Something else is there, or something is there that was to be removed."""
    GONE = "gone"
    UNKNOWN = "unknown"
    """It could not be looked at."""


def standing(stat: Stat | None, after: Entry | None, cutting: str) -> Standing:
    """Whether the folder holds what a plan was made of: `after` is the entry it ends with, `stat` what is there now."""
    if after is None:
        return Standing.AS_PLANNED if stat is None else Standing.CHANGED
    if stat is None:
        return Standing.GONE
    planned = (after.stat.version, after.cutting, False)
    return Standing.CHANGED if differs(stat, planned, cutting) else Standing.AS_PLANNED


def _fits(its_cutting: str, cutting: str, attached: str) -> bool:
    """Whether a document was cut as it is to be, with what is attached to it now; a Problem was not cut at all."""
    if attached == UNTELLABLE:
        # Whatever was attached to it, it keeps until that can be told again.
        return recipe_in(its_cutting) in (cutting, "")
    return its_cutting in (cutting + attached, attached)


def difference(snapshot: Snapshot, glances: Mapping[str, Glance], cutting: str) -> Difference:
    """Compare a scan with the ledger's glances of the same part of the folder.

    What lies below a folder that could not be listed is unknown, and unknown is not gone; nor is a file that cannot be
    converted any more.
    """
    files, attached, unconverted = snapshot.files, snapshot.attached, snapshot.unconverted
    bare = (cutting, "")
    # No call of ours for a file that nothing is attached to: there are very many.
    present = tuple(
        path
        for path, version in files.items()
        if (glance := glances.get(path)) is None
        or version != glance[0]
        or glance[2]
        or (not _fits(glance[1], cutting, attached[path]) if path in attached else glance[1] not in bare)
    )
    gone = tuple(
        path
        for path in glances
        if path not in files and path not in unconverted and not is_below_any(path, snapshot.unreadable)
    )
    return Difference(present=present, gone=gone, same=len(files) - len(present))
