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


def audited(entries: Iterable[Entry], records: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Entry]:
    """Entries that do not say what the records (id, metadata) say, corrected so that a reconcile mends the difference.

    A record that is missing, or that nobody knows, becomes doubtful: it is added again, or dropped. Metadata that
    somebody has changed loses its tag. Records of documents that are not known get an entry at the path they name, or
    join the entry that is there.
    """
    by_document = {entry.document_id: entry for entry in entries}
    by_path = {entry.path: entry.document_id for entry in by_document.values()}
    held: dict[str, dict[str, str]] = {document_id: {} for document_id in by_document}
    for record_id, metadata in records:
        document_id, path = str(metadata["document_id"]), str(metadata.get("source", ""))
        if document_id not in by_document:
            document_id = by_path.setdefault(path, document_id)
        if document_id not in by_document:
            by_document[document_id] = Entry(path, document_id, _UNKNOWN_STAT, "", ADOPTED, {})
        held.setdefault(document_id, {})[record_id] = metadata_tag(metadata)
    corrected = (_corrected(entry, held[document_id]) for document_id, entry in by_document.items())
    return [entry for entry in corrected if entry is not by_document[entry.document_id]]


def _corrected(entry: Entry, held: Mapping[str, str]) -> Entry:
    missing = entry.tags.keys() - held.keys()
    unknown = held.keys() - entry.tags.keys()
    changed = {id_ for id_, tag in entry.tags.items() if id_ in held and tag and held[id_] != tag}
    if not (missing | unknown | changed) - entry.doubtful:
        return entry
    tags = {id_: "" if id_ in changed else tag for id_, tag in entry.tags.items()}
    return replace(entry, tags=tags, doubtful=entry.doubtful | missing | unknown)


def forgotten(entry: Entry) -> Entry:
    """Make an entry of which nothing is known but its identity: every id it had may or may not exist."""
    return replace(entry, cutting=ADOPTED, tags={}, doubtful=entry.doubtful | entry.tags.keys())
