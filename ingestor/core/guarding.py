"""Guarding: when so much seems to be deleted that it is more likely a mistake.

An unmounted disk, a sync tool that went wrong, a mistyped path: the folder looks empty, and a faithful mirror would
delete the whole collection (syncthing and open-webui have done so to their users).

What is held back is a set of paths, not a share of the moment: what is added beside it makes it no smaller. A path
leaves the set when somebody approves of its deletion, when its file is there again, or when its document goes on under
another path. Until then, whatever else a comparison of the whole folder misses is judged together with it, by what was
known when the first path was held; so that many small losses are held as one large one is.

Invariant: what is held back is not deleted, and not lost from view, whatever else happens.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ingestor.core.model import Glance, Snapshot, Version, identity_of


@dataclass(frozen=True, slots=True)
class DeletionLimit:
    """How many documents a comparison may take for deleted without anybody's approval."""

    max_ratio: float
    """Share of the known documents."""
    min_documents: int
    """Fewer known documents than this are never held back by their share."""

    def holds_back(self, *, gone: int, known: int, found: int) -> bool:
        """Whether deletions wait: `gone` of `known` documents are missing, and the folder has `found` files."""
        if not gone:
            return False
        is_suddenly_empty = found == 0 and gone >= known
        return is_suddenly_empty or (known >= self.min_documents and gone > self.max_ratio * known)


NO_DELETIONS = DeletionLimit(max_ratio=0.0, min_documents=0)
"""Every deletion waits."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The deletions that are held back, as the ledger has them."""

    paths: Mapping[str, bool]
    """Each with whether it may happen all the same: somebody has approved, or it had begun before it could be held."""
    known: int
    """How many documents were known when the first of them was held; 0 when that was not noted."""

    @property
    def waiting(self) -> frozenset[str]:
        """Those that wait for approval."""
        return frozenset(path for path, is_approved in self.paths.items() if not is_approved)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the paths that a comparison misses."""

    free: Sequence[str]
    """They may be deleted."""
    joins: Sequence[str]
    """They are held back from now on."""
    stays: Collection[str]
    """They were held back before, and still are."""
    back: Sequence[str]
    """They were held back, and nothing is missing of them any more."""
    known: int
    """How many documents were known, by which this was judged."""

    @property
    def held(self) -> Sequence[str]:
        """All that is held back now."""
        return (*sorted(self.stays), *self.joins)


def judged(  # noqa: PLR0913 - all that it depends on
    gone: Sequence[str],
    glances: Mapping[str, Glance],
    snapshot: Snapshot,
    holding: Holding,
    limit: DeletionLimit,
    *,
    documents: int | None = None,
) -> Verdict:
    """Judge the paths of `glances` that are `gone` from what `snapshot` has found.

    `documents` is how many are known in all where only a part of the folder was compared, because something has just
    happened there: that is judged by itself.
    """
    is_whole = documents is None
    back = tuple(
        path
        for path in holding.paths
        if path in snapshot.files or path in snapshot.unconverted or (is_whole and path not in glances)
    )
    waiting = holding.waiting.difference(back)
    approved = holding.paths.keys() - holding.waiting - frozenset(back)
    fresh = [path for path in gone if path not in waiting and path not in approved]
    files = snapshot.files.values()
    missing = vanished(fresh, glances, files)
    if documents is None:
        known = len(glances) - len(approved & glances.keys())
        known = min(known, holding.known or known) if waiting else known
        missing_in_all = missing + vanished(waiting & glances.keys(), glances, files)
        found = len(snapshot.files) + len(snapshot.unconverted)
    else:
        known, missing_in_all, found = documents - len(approved), missing, max(1, len(snapshot.files))
    is_too_much = missing > 0 and limit.holds_back(gone=missing_in_all, known=known, found=found)
    joins = frozenset(fresh if is_too_much else ())
    free = tuple(path for path in gone if path not in waiting and path not in joins)
    return Verdict(free, tuple(path for path in gone if path in joins), waiting, back, known)


def vanished(gone: Collection[str], glances: Mapping[str, Glance], found: Iterable[Version]) -> int:
    """How many of the paths that are gone are not simply somewhere else.

    No found file has their identity. An inode alone is soon that of another file, and where many files are replaced by
    others of equal sizes it often is.
    """
    if not gone:
        return 0
    moved = {identity_of(version) for version in found}
    return sum(identity_of(glances[path][0]) not in moved for path in gone)
