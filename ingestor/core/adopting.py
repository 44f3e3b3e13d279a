"""Adopting: a ledger's entries out of the collection's own metadata, when the ledger was lost.

The stat of such an entry is unknown, so that every file is read and planned once; ids, tags and vectors are not, so
that nothing is embedded and only what differs is written.

Invariant: every record given is accounted for: it is in exactly one entry, as known or as doubtful.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ingestor.core.fingerprint import metadata_tag
from ingestor.core.model import Entry, Stat

ADOPTED = "adopted"
"""Cutting recipe of an adopted entry: none has this name, so that it differs."""
_UNKNOWN_STAT = Stat(size_bytes=0, mtime_ns=0, ctime_ns=0, device=0, inode=0)


def entries_from_records(records: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Entry]:
    """Entries of all documents that the records (id, metadata) belong to.

    Where two documents claim one path, the first keeps it, and the other's records become doubtful: they are dropped
    unless they are wanted.
    """
    tags: dict[str, dict[str, str]] = {}
    described: dict[str, tuple[str, str]] = {}
    for record_id, metadata in records:
        document_id = str(metadata["document_id"])
        tags.setdefault(document_id, {})[record_id] = metadata_tag(metadata)
        described[document_id] = (str(metadata.get("source", "")), str(metadata.get("content_hash", "")))
    entries: dict[str, Entry] = {}
    for document_id, (path, content_hash) in described.items():
        rival = entries.get(path)
        if rival is None:
            entries[path] = Entry(path, document_id, _UNKNOWN_STAT, content_hash, ADOPTED, tags[document_id])
        else:
            entries[path] = replace(rival, doubtful=rival.doubtful | tags[document_id].keys())
    return list(entries.values())


def forgotten(entry: Entry) -> Entry:
    """Make an entry of which nothing is known but its identity: every id it had may or may not exist."""
    return replace(entry, cutting=ADOPTED, tags={}, doubtful=entry.doubtful | entry.tags.keys())
