"""Owning: which data folder fills a collection, and whether this one may.

Theory of operation
-------------------
A collection's own metadata names its owner: the id of a data folder, where that lies, and the folders that it fills the
collection from. Whoever is to write is judged by it before anything is written. The id tells two data folders apart.
It does not tell a data folder from its copy; the place does, which names the machine and the path. A data folder is
locked by the process that works on it, so that at one and the same place there is no second process: whoever left the
last sign of life there is dead. From another place the id may come because the data folder was moved or because it was
copied. Whoever works on a shared Chroma server therefore leaves a sign of life in the metadata, by the server's clock,
which is the same for all. While it is fresh, the newcomer waits; when a second sign follows the first, the other one
lives, and the newcomer is refused; when none does for `STALE_SECONDS`, the other one is gone.

A copy that works when the other one rests cannot be told from a move, and is let through. The one that stayed notices:
the collection was worked on from another place than its own notes say.

Metadata of a collection takes single values only: a list in it ends Chroma's connection.

Invariant: the records of a document belong to the owner whose tag its id bears; those without a tag were written
before ids had one, and belong to whoever owns the collection. All others are foreign.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from ingestor.core.fingerprint import is_owned, owner_tag_of
from ingestor.core.model import Metadata, Scalar

PREFIX = "ingestor_"
OWNER_KEY = "ingestor_owner"
"""The id of the data folder that fills the collection."""
FORMER_KEY = "ingestor_former_owners"
"""Tags of owners whose records were taken over, separated by blanks."""
PLACE_KEY = "ingestor_place"
"""A name for the machine and the path of the data folder."""
WHERE_KEY = "ingestor_data_dir"
"""The same for people."""
SOURCES_KEY = "ingestor_sources"
"""The folders that the collection is filled from, for people."""
PROCESS_KEY = "ingestor_process"
"""A name for the process that has opened the collection last to write to it."""
BEAT_KEY = "ingestor_beat"
"""Its last sign of life, in seconds since the epoch by the clock of Chroma's server; 0: it has ended, or gives none."""
BEAT_SECONDS = 30.0
"""Pause between two signs of life."""
STALE_SECONDS = 120.0
"""After so long without a sign of life a process is gone: three may be late or lost."""
_MAX_WORDS = 500
_MAX_FORMER = 40
_TAG_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Ours:
    """Which records of a collection are its owner's."""

    tag: str = ""
    """What the ids of new documents bear; empty: nothing."""
    former: frozenset[str] = frozenset()
    """Tags of owners whose records were taken over."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> Self:
        """As the metadata of a collection has it."""
        held = metadata or {}
        return cls(tag_of(str(held.get(OWNER_KEY, ""))), former_of(held))

    def has(self, record_id: str, metadata: Metadata | None) -> bool:
        """Whether a record belongs to the owner of the collection, as far as the record itself can say."""
        if not is_owned(record_id, metadata):
            return False
        tag = owner_tag_of(str((metadata or {})["document_id"]))
        return tag in {"", self.tag} or tag in self.former


@dataclass(frozen=True, slots=True)
class Owner:
    """A data folder that is to fill a collection."""

    id: str
    place: str
    where: str
    """Machine and path, for people."""
    sources: str
    """The folders that it fills the collection from, for people."""
    former: frozenset[str] = frozenset()
    """Tags of owners that it has taken records over from."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the data folder remembers of a collection."""

    place: str = ""
    """Where the data folder lay when it filled the collection last; empty when it does not know the collection."""
    rival: str = ""
    """Another process with this data folder's id that was seen at work."""
    rival_beat_seconds: float = 0.0
    """Its sign of life that was seen."""


class Standing(StrEnum):
    """What the metadata of a collection says to a data folder."""

    UNOWNED = "unowned"
    """Nobody has claimed it."""
    OWN = "own"
    ANOTHERS = "another's"
    """Another data folder owns it."""
    COPIED = "copied"
    """It was worked on from another place since: that data folder or this one is a copy."""
    BUSY = "busy"
    """A process with the id of this data folder may be at work elsewhere."""
    RIVALLED = "rivalled"
    """It is at work."""


def tag_of(owner_id: str) -> str:
    """What the ids of an owner's documents bear."""
    return owner_id[:_TAG_DIGITS]


def former_of(metadata: Mapping[str, Any]) -> frozenset[str]:
    """Tags of the owners whose records were taken over."""
    return frozenset(str(metadata.get(FORMER_KEY, "")).split())


def is_fresh(metadata: Mapping[str, Any], now_seconds: float) -> bool:
    """Whether there was a sign of life not long ago; `now_seconds` is by the clock of Chroma's server."""
    beat_seconds = _beat_of(metadata)
    return bool(beat_seconds) and abs(now_seconds - beat_seconds) < STALE_SECONDS


def standing(metadata: Mapping[str, Any], owner: Owner, recalled: Recalled, now_seconds: float) -> Standing:
    """Judge by the metadata of a collection; `now_seconds` is by the clock of Chroma's server."""
    held_id = str(metadata.get(OWNER_KEY, ""))
    if not held_id:
        return Standing.UNOWNED
    if held_id != owner.id:
        return Standing.ANOTHERS
    place = str(metadata.get(PLACE_KEY, ""))
    is_rival = bool(recalled.rival) and metadata.get(PROCESS_KEY) == recalled.rival
    if place == owner.place and not is_rival:
        return Standing.OWN
    if is_fresh(metadata, now_seconds):
        return Standing.RIVALLED if is_rival and _beat_of(metadata) > recalled.rival_beat_seconds else Standing.BUSY
    return Standing.OWN if place in {owner.place, recalled.place} else Standing.COPIED


def left_seconds(metadata: Mapping[str, Any], now_seconds: float) -> float:
    """How long a process that gives no further sign of life is waited for."""
    return max(0.0, _beat_of(metadata) + STALE_SECONDS - now_seconds)


def labels(owner: Owner, held: Mapping[str, Any], process: str, *, beat_seconds: float) -> dict[str, Scalar]:
    """What the metadata of a collection is to say of its owner; `held` is what it has said."""
    former = owner.former | former_of(held)
    before = tag_of(str(held.get(OWNER_KEY, "")))
    taken_over = sorted((former | {before}) - {"", tag_of(owner.id)})[-_MAX_FORMER:]
    return {
        OWNER_KEY: owner.id,
        PLACE_KEY: owner.place,
        WHERE_KEY: owner.where[:_MAX_WORDS],
        SOURCES_KEY: owner.sources[:_MAX_WORDS],
        PROCESS_KEY: process,
        BEAT_KEY: round(beat_seconds),
        **({FORMER_KEY: " ".join(taken_over)} if taken_over else {}),
    }


def told(metadata: Mapping[str, Any]) -> str:
    """Whose a collection is, for people: the data folder, and what it fills the collection from; empty for nobody's."""
    if not metadata.get(OWNER_KEY):
        return ""
    where, sources = (str(metadata.get(key) or "?") for key in (WHERE_KEY, SOURCES_KEY))
    return f"{where} ({sources})"


def _beat_of(metadata: Mapping[str, Any]) -> float:
    beat = metadata.get(BEAT_KEY, 0)
    return float(beat) if isinstance(beat, int | float) else 0.0
