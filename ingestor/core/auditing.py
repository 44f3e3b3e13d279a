"""Auditing: where the ledger and the collection disagree, and what the ledger has to say so that it heals.

Theory of operation
-------------------
Nothing is mended here, and nothing is written to the collection by an audit: the ledger is made to say the truth (a
record may be missing, is damaged, has unknown metadata, is nobody's), and that makes the document differ, so that the
next reconcile plans it like any other. So a repair has the write protocol's safety and cost, and no code of its own.

The ledger itself is rebuilt in the same way when it was lost: every record is a stray then, and strays make entries.
The stat of such an entry is unknown, so that its file is read and planned once; ids, tags and vectors are not, so that
nothing is embedded and only what differs is written.

Invariant: every record given is accounted for: its id is in exactly one entry, as known or as doubtful.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestor.core.fingerprint import chunk_fingerprint, metadata_tag, text_fingerprint_of
from ingestor.core.model import DAMAGED, UNKNOWN_STAT, Entry

UNTRIED = "untried"
"""Cutting recipe of an entry that was made without its file: no cutter has this name, so that the entry differs."""
_STEPS_OUT = {"", ".", ".."}


class Kind(StrEnum):
    """What may be wrong."""

    OUTDATED = "outdated"
    """The ledger does not say what the file says."""
    GONE = "gone"
    """The ledger speaks of a file that is not there."""
    UNFINISHED = "unfinished"
    """A write was begun, and nothing has ended it yet."""
    MISSING = "missing"
    """The collection lacks a record."""
    ORPHANED = "orphaned"
    """The collection holds a record of ours that belongs to no document."""
    DUPLICATE = "duplicate"
    """As orphaned, and the document at its path has the same text already."""
    ALTERED = "altered"
    """A record has another text or vector than was written."""
    WRONG_METADATA = "wrong metadata"
    """A record has other metadata than was written."""
    UNREACHABLE = "unreachable"
    """A record is there, and a search for its own vector does not find it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement."""

    kind: Kind
    path: str
    record_id: str = ""
    """Empty where the document as a whole is meant."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A record as the collection holds it."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    vector: NDArray[np.float32] | None = field(default=None, repr=False)
    """Shape (dimensions,); None where nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What is left of a record when it has been looked at: small, because very many are compared."""

    id: str
    document_id: str
    path: str
    content_hash: str
    tag: str
    fault: Kind | None = None
    """What is wrong with the record in itself: `ALTERED`, `UNREACHABLE`."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What was found at one path, and the entry that makes it heal; `before` is None where the path is not known."""

    path: str
    before: Entry | None
    after: Entry | None
    findings: tuple[Finding, ...]


def trace(held: Held, fault: Kind | None = None) -> Trace:
    """Look at one record; `fault` is what was found out about its vector."""
    metadata = held.metadata
    document_id = str(metadata.get("document_id", ""))
    is_altered = chunk_fingerprint(held.text) != text_fingerprint_of(held.id)
    return Trace(
        id=held.id,
        document_id=document_id,
        path=_place(metadata.get("source"), document_id),
        content_hash=str(metadata.get("content_hash", "")),
        tag=metadata_tag(metadata),
        fault=Kind.ALTERED if is_altered else fault,
    )


def audited(path: str, entry: Entry | None, held: Iterable[Trace], strays: Iterable[Trace] = ()) -> Correction:
    """Compare the entry of a path with what the collection holds.

    `held` are the records that the entry names, as far as they are there; `strays` those that no entry names and whose
    document or path this is. A missing record becomes doubtful, so that it is added again; an altered or unreachable
    one becomes damaged, so that it is replaced; wrong metadata loses its tag; a stray becomes doubtful, so that it is
    dropped unless it is wanted. With neither entry nor stray there is nothing to correct.
    """
    if entry is None:
        return _adopted(path, list(strays))
    found = {each.id: each for each in held}
    findings: list[Finding] = []
    tags = dict(entry.tags)
    doubtful = set(entry.doubtful)
    for id_, tag in entry.tags.items():
        if id_ in entry.doubtful or tag == DAMAGED:
            continue
        seen = found.get(id_)
        if seen is None:
            findings.append(Finding(Kind.MISSING, path, id_))
            doubtful.add(id_)
        elif seen.fault is not None:
            findings.append(Finding(seen.fault, path, id_))
            tags[id_] = DAMAGED
        elif tag and seen.tag != tag:
            findings.append(Finding(Kind.WRONG_METADATA, path, id_))
            tags[id_] = ""
    if entry.is_unfinished:
        findings.append(Finding(Kind.UNFINISHED, path))
    texts = {text_fingerprint_of(id_) for id_ in entry.tags}
    for stray in strays:
        kind = Kind.DUPLICATE if text_fingerprint_of(stray.id) in texts else Kind.ORPHANED
        findings.append(Finding(kind, path, stray.id))
        doubtful.add(stray.id)
    after = replace(entry, tags=tags, doubtful=frozenset(doubtful))
    return Correction(path, entry, entry if after == entry else after, tuple(findings))


def forgotten(entry: Entry) -> Entry:
    """Make an entry of which nothing is known but its identity: every id it had may or may not exist."""
    return replace(entry, cutting=UNTRIED, tags={}, doubtful=entry.doubtful | entry.tags.keys())


def emptied(entry: Entry) -> Entry:
    """Make an entry of a document of which a new collection holds nothing: its identity alone stays."""
    return replace(entry, cutting=UNTRIED, tags={}, doubtful=frozenset(), problem=None)


def _adopted(path: str, strays: list[Trace]) -> Correction:
    """Make an entry of records that nobody knows.

    Where two documents claim one path, the first keeps it, and the other's records become doubtful: they are dropped
    unless they are wanted.
    """
    if not strays:
        return Correction(path, None, None, ())
    document_id = strays[0].document_id
    own = [stray for stray in strays if stray.document_id == document_id]
    entry = Entry(
        path=path,
        document_id=document_id,
        stat=UNKNOWN_STAT,
        content_hash=own[0].content_hash,
        cutting=UNTRIED,
        tags={stray.id: DAMAGED if stray.fault else stray.tag for stray in own},
        doubtful=frozenset(stray.id for stray in strays if stray.document_id != document_id),
    )
    return Correction(path, None, entry, tuple(Finding(Kind.ORPHANED, path, stray.id) for stray in strays))


def _place(source: object, document_id: str) -> str:
    """The path that a record names; somebody may have written anything there, and it is looked for in the folder."""
    if isinstance(source, str) and _STEPS_OUT.isdisjoint(source.split("/")):
        return source
    return document_id


def findings_of(corrections: Collection[Correction]) -> tuple[Finding, ...]:
    """All that was found, by path."""
    ordered = sorted(corrections, key=lambda correction: correction.path)
    return tuple(finding for correction in ordered for finding in correction.findings)
