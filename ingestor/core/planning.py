"""Planning: what has to change in Chroma so that it holds exactly this document.

Theory of operation
-------------------
The ledger's entry says which record ids Chroma holds and, by a tag each, with which metadata. The document says which
records it should hold. The plan is the difference, and nothing in it depends on what happened to the file: an edit, a
rename, a touch, a half-finished write of a crashed process all come out as sets of ids.

A record id is the document's id plus the fingerprint of the chunk's text, so a record that exists has the right text
and the right vector by construction. What may differ is metadata (line numbers, path, hash of the file), which a retag
mends at a fraction of the cost of an upsert.

Where metadata differs by no more than what the entry itself tells of the file (its path, size, time and hash), the tag
proves what Chroma holds, and the retag carries the keys that differ and no others: a renamed folder costs a seventh.
A file whose text and name are known as they are need not even be cut for that (`plan_uncut`).

Ids that are *doubtful* (a write of them was begun and its end never seen) may or may not exist, with old or new
metadata. Those still wanted are added again - `add` ignores an id that exists, and the vector store has their vectors -
and retagged as well, because an add that was ignored leaves old metadata behind. Those not wanted any more are dropped.

Ids that are *damaged* exist with a wrong text or vector, as an audit has found. They are dropped first and added anew;
they keep their tag until the write has ended, because a doubtful id alone would be taken for sound if it is there.

Invariant: after `plan.replace`, `plan.embed`, `plan.retag` and `plan.drop` have happened in this order, any number of
times, Chroma holds for this document exactly the records of `plan.after`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from ingestor.core.fingerprint import chunk_fingerprint, file_tag, own_tag, record_id
from ingestor.core.model import (
    DAMAGED,
    Change,
    Chunk,
    Document,
    Entry,
    Metadata,
    Outcome,
    Plan,
    Problem,
    Record,
    Retag,
    Scalar,
    Stat,
)

_NANOSECONDS = 1_000_000_000
_FIRST_SECOND = int(datetime.min.replace(tzinfo=UTC).timestamp())
_LAST_SECOND = int(datetime.max.replace(tzinfo=UTC).timestamp())


def plan_document(  # noqa: PLR0913 - each argument is a part of the decision; a bag of them would only hide that
    document: Document,
    before: Entry | None,
    *,
    document_id: str,
    cutting: str,
    model: str,
    now_seconds: float,
) -> Plan:
    """Plan a document that can be indexed; `before` is its entry, or that of the document it was renamed from."""
    records = _records(document, document_id, model=model, now_seconds=now_seconds)
    after = Entry(
        path=document.path,
        document_id=document_id,
        stat=document.stat,
        content_hash=document.content_hash,
        cutting=cutting + document.stat.attached,
        tags={record.id: record.tag for record in records},
    )
    held = {} if before is None else {id_: tag for id_, tag in before.tags.items() if id_ not in before.doubtful}
    doubtful = frozenset[str]() if before is None else before.doubtful
    damaged = set[str]() if before is None else {id_ for id_, tag in before.tags.items() if tag == DAMAGED}
    old = {} if before is None else _of_file(before.path, before.stat, before.content_hash)
    old_tag = file_tag(old)
    return Plan(
        path=document.path,
        outcome=_outcome(before, after),
        before=before,
        after=after,
        embed=tuple(record for record in records if record.id not in held or record.id in damaged),
        retag=tuple(
            _retag(record, held.get(record.id, ""), old, old_tag)
            for record in records
            if (record.id in doubtful or held.get(record.id, record.tag) != record.tag) and record.id not in damaged
        ),
        drop=tuple(sorted((held.keys() | doubtful) - after.tags.keys())),
        replace=tuple(record.id for record in records if record.id in damaged),
    )


def plan_uncut(path: str, stat: Stat, content_hash: str, before: Entry, *, cutting: str) -> Plan | None:
    """Plan a file whose text was moved or touched and no more than that; None when it has to be cut.

    The name decides how a text is cut, and may be its title: with the same one, the entry tells which records there
    are, and their tags which metadata they have.
    """
    before_name, name = PurePosixPath(before.path).name, PurePosixPath(path).name
    is_known = (before.content_hash, before.cutting, before_name) == (content_hash, cutting + stat.attached, name)
    if not is_known or before.is_unfinished or before.problem:
        return None
    old, new = _of_file(before.path, before.stat, before.content_hash), _of_file(path, stat, content_hash)
    old_tag, new_tag = file_tag(old), file_tag(new)
    if not all(tag.startswith(old_tag) for tag in before.tags.values()):
        return None
    tags = {id_: new_tag + tag.removeprefix(old_tag) for id_, tag in before.tags.items()}
    after = replace(before, path=path, stat=stat, tags=tags)
    changes = _difference(old, new)
    retag = tuple(Retag(id_, changes, is_whole=False) for id_ in tags) if changes else ()
    return Plan(path=path, outcome=_outcome(before, after), before=before, after=after, retag=retag)


def plan_removal(before: Entry) -> Plan:
    """Plan a document that is gone: its records go, and its entry."""
    return Plan(path=before.path, outcome=Outcome.DELETED, before=before, after=None, drop=_every_id(before))


def plan_problem(  # noqa: PLR0913 - as plan_document
    path: str, before: Entry | None, problem: Problem, *, stat: Stat, document_id: str, content_hash: str = ""
) -> Plan:
    """Plan a document that cannot be indexed: what Chroma holds of it is no longer what the folder says, so it goes.

    The entry stays, with the Problem and the file's stat, so that the file is looked at again when it changes and not
    before, and keeps its `document_id` when it becomes readable.
    """
    after = Entry(
        path=path,
        document_id=document_id,
        stat=stat,
        content_hash=content_hash,
        cutting=stat.attached,
        tags={},
        problem=problem,
    )
    drop = () if before is None else _every_id(before)
    return Plan(path=path, outcome=Outcome.PROBLEM, before=before, after=after, drop=drop)


def plan_unknown(before: Entry, problem: Problem, *, stat: Stat, cutting: str) -> Plan:
    """Plan a document of which it cannot be told what it holds now: Chroma keeps what it has of it.

    The entry has the Problem and the stat of the file as it is now, so that it is looked at again when that changes.
    """
    after = replace(before, stat=stat, cutting=cutting + stat.attached, problem=problem)
    return Plan(path=before.path, outcome=Outcome.PROBLEM, before=before, after=after)


def doubtful_entry(plan: Plan) -> Entry:
    """Tell the ledger what is about to become doubtful, to be written before Chroma is touched.

    Every id about to be added or dropped becomes doubtful, every id about to be retagged loses its tag, and a damaged
    one stays damaged. The entry already stands under the new path, so that a crash leaves a row that a reconcile finds
    different.
    """
    shown = plan.after or plan.before
    if shown is None:
        message = f"a plan for {plan.path!r} has neither a state before nor one after"
        raise ValueError(message)
    before = plan.before
    held = {} if before is None else dict(before.tags)
    doubtful = (frozenset[str]() if before is None else before.doubtful) | {r.id for r in plan.embed} | set(plan.drop)
    tags = held | {record.id: "" for record in plan.retag}
    return replace(shown, tags=tags, doubtful=doubtful)


def settled(plans: Iterable[Plan], changes: Iterable[Change]) -> set[str]:
    """The paths of which nothing is missing after a commit, so that nothing is left there to be held back.

    Their files are there, which only a change that is acknowledged tells; or their documents are gone from them.
    """
    acknowledged = {change.path for change in changes}
    left = {
        plan.before.path
        for plan in plans
        if plan.before is not None and (plan.after is None or plan.after.path != plan.before.path)
    }
    return left | {plan.path for plan in plans if plan.after is not None and plan.path in acknowledged}


def _every_id(entry: Entry) -> tuple[str, ...]:
    return tuple(sorted(entry.tags.keys() | entry.doubtful))


def _outcome(before: Entry | None, after: Entry) -> Outcome:
    if before is None:
        return Outcome.ADDED
    if before.path != after.path:
        return Outcome.RENAMED
    if before.content_hash != after.content_hash or before.tags.keys() != after.tags.keys() or before.problem:
        return Outcome.CHANGED
    return Outcome.UNCHANGED


def _records(document: Document, document_id: str, *, model: str, now_seconds: float) -> tuple[Record, ...]:
    occurrences: Counter[str] = Counter()
    records: list[Record] = []
    shared = _shared_metadata(document, document_id, model=model, now_seconds=now_seconds)
    shared_tag = file_tag(shared)
    for ordinal, chunk in enumerate(document.chunks):
        fingerprint = chunk_fingerprint(chunk.text)
        occurrences[fingerprint] += 1
        metadata = {**shared, **_own_metadata(chunk, ordinal)}
        records.append(
            Record(
                id=record_id(document_id, fingerprint, occurrences[fingerprint]),
                text=chunk.text,
                metadata=metadata,
                tag=shared_tag + own_tag(metadata),
            )
        )
    return tuple(records)


def _shared_metadata(document: Document, document_id: str, *, model: str, now_seconds: float) -> Metadata:
    # Every key of ours is always there: Chroma merges metadata on update, and a key left out would keep its old value.
    # Those of the user may come and go: a retag that is whole tells Chroma of what has gone.
    return {
        **document.metadata,
        **_of_file(document.path, document.stat, document.content_hash),
        "file_type": document.file_type,
        "document_id": document_id,
        "title": document.title,
        "embedding_model": model,
        "ingested_at": _iso(int(now_seconds)),
    }


def _own_metadata(chunk: Chunk, ordinal: int) -> Metadata:
    own: dict[str, Scalar] = {
        "chunk": ordinal,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "heading": chunk.heading,
    }
    # Only where there are pages: records of other documents keep the metadata, and the tags, that they have.
    return own | {"page": chunk.page} if chunk.page else own


def _retag(record: Record, held_tag: str, old: Metadata, old_tag: str) -> Retag:
    """Retag a record: with what differs from what the file told before, where the tag proves that Chroma holds it."""
    if held_tag == old_tag + own_tag(record.metadata):
        return Retag(record.id, _difference(old, record.metadata), is_whole=False)
    return Retag(record.id, record.metadata)


def _difference(old: Metadata, new: Metadata) -> Metadata:
    return {key: new[key] for key, value in old.items() if new[key] != value}


def _of_file(path: str, stat: Stat, content_hash: str) -> Metadata:
    return {
        "source": path,
        "file_name": PurePosixPath(path).name,
        "file_size": stat.size_bytes,
        "last_modified": _iso(stat.mtime_ns // _NANOSECONDS),
        "content_hash": content_hash,
    }


def _iso(seconds: int) -> str:
    # A file may carry any time at all: years that ISO 8601 cannot write are held at its ends.
    return datetime.fromtimestamp(min(max(seconds, _FIRST_SECOND), _LAST_SECOND), UTC).isoformat()
