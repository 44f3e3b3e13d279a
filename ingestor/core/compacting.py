"""Compacting: when a collection is copied into a fresh one because of the deleted records in its index.

Chroma's graph never lets go of a record: a deleted one stays as a tombstone that every search passes through. Measured
with 32 links, an `ef_construction` of 64 and an `ef_search` of 100: of 200, 1,000 and 3,000 live records none became
unreachable by its own vector, beside up to 50 times as many tombstones, whether texts were replaced, edited slightly,
deleted at random or deleted after all others had come. With twice as many tombstones as live records a search takes
two to three times as long, with ten times as many ten times, and file and memory grow alike.

Invariant: the names here are those of collections that are on their way in or out, and of nothing else.
"""

FLOOR_TOMBSTONES = 1_000
"""Tombstones that a collection may have whatever its size: below, a copy gains nothing that could be measured."""
_ROOM = 480
"""Signs of a name that are kept: Chroma takes names of up to 512."""
_COPY, _ASIDE = ".compacting", ".compacted-"


def is_due(live: int, tombstones: int, max_ratio: float) -> bool:
    """Whether a collection has too many tombstones; never with a ratio of 0."""
    return max_ratio > 0 and tombstones >= max(FLOOR_TOMBSTONES, max_ratio * live)


def copy_name(name: str) -> str:
    """The name of the copy of a collection while it is made."""
    return name[:_ROOM] + _COPY


def aside_name(name: str, collection_id: str) -> str:
    """The name of a collection whose copy has taken its place."""
    return f"{name[:_ROOM]}{_ASIDE}{collection_id[:8]}"


def is_left_over(found: str, name: str) -> bool:
    """Whether a collection is what compactions of the collection `name` leave behind."""
    return found == copy_name(name) or found.startswith(name[:_ROOM] + _ASIDE)
