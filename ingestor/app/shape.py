"""Shape: results as JSON, alike in the command line and in the HTTP API."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ingestor.adapters.instance import InstanceRecord
from ingestor.app.status import Status, waits_of
from ingestor.core.escaping import spelled
from ingestor.core.listing import Listed
from ingestor.core.model import Hit, Problem, Usage

_SUMMED = ("documents", "chunks", "queued", "in_flight", "problems", "held_deletions")
_SHARED = ("data_dir", "chroma", "daemon", "vectors", "owner")


def statuses_json(found: Sequence[Status]) -> dict[str, Any]:
    """The status of the only source, or sums and what there is to tell of each."""
    if len(found) == 1:
        return status_json(found[0])
    each = {status.source: status_json(status) for status in found}
    shared = {name: next(iter(each.values()))[name] for name in _SHARED}
    sums = {name: sum(fields[name] for fields in each.values()) for name in _SUMMED}
    waits = [asdict(wait) for wait in waits_of(found)]
    return shared | sums | {"waits": waits, "sources": each}


def status_json(found: Status) -> dict[str, Any]:
    """The status of one source."""
    totals = found.totals
    return {
        "watch_dir": found.watch_dir,
        "data_dir": found.data_dir,
        "collection": found.collection,
        "chroma": found.chroma,
        "daemon": _daemon_json(found.daemon) if found.daemon else None,
        "documents": totals.documents if totals else 0,
        "chunks": totals.chunks if totals else 0,
        "tombstones": found.tombstones,
        "queued": totals.queued if totals else 0,
        "in_flight": totals.in_flight if totals else 0,
        "problems": totals.problems + totals.retrying + found.unreadable_folders if totals else 0,
        "waits": [asdict(wait) for wait in totals.waits] if totals else [],
        "embedding": asdict(totals.usage if totals else Usage()),
        "cost": asdict(found.cost),
        "vectors": {"bytes": found.vectors_bytes, "max_bytes": found.max_vectors_bytes},
        "held_deletions": found.held_deletions,
        "held_examples": [spelled(path) for path in found.held_examples],
        "last_reconcile": found.last_reconcile,
        "watching": found.watching,
        "is_behind": found.is_behind,
        "outage": found.outage,
        "undecided": found.undecided,
        "next_call_seconds": found.next_call_seconds,
        "restless": [spelled(path) for path in found.restless],
        "owner": found.owner,
        "refused": found.refused,
        "rebuild": {
            "unfinished": found.unfinished.as_json() if found.unfinished else None,
            "kept": found.kept.as_json() if found.kept else None,
        },
    }


def _daemon_json(daemon: InstanceRecord) -> dict[str, Any]:
    return {name: value for name, value in asdict(daemon).items() if name != "life"}


def problem_json(source: str, path: str, problem: Problem) -> dict[str, Any]:
    """A fault and where it is; the source where there are several."""
    return {**({"source": source} if source else {}), "path": spelled(path), **_problem_json(problem)}


def _problem_json(problem: Problem) -> dict[str, Any]:
    # A fault of a document waits for no service.
    return {name: value for name, value in asdict(problem).items() if name != "service"}


def hit_json(hit: Hit) -> dict[str, Any]:
    """A search result."""
    metadata = hit.metadata
    return {
        "id": hit.id,
        "score": round(hit.score, 6),
        "distance": round(hit.distance, 6),
        "source": metadata.get("source"),
        "start_line": metadata.get("start_line"),
        "end_line": metadata.get("end_line"),
        "heading": metadata.get("heading"),
        "document": hit.document,
        "metadata": dict(metadata),
    }


def document_json(source: str, file_type: str, found: Listed) -> dict[str, Any]:
    """A document of the ledger."""
    return {
        "source": source,
        "path": spelled(found.path),
        "document_id": found.document_id,
        "chunks": found.chunks,
        "size_bytes": found.size_bytes,
        "modified_seconds": found.modified_seconds,
        "file_type": file_type,
        "state": found.state.value,
        "problem": _problem_json(found.problem) if found.problem else None,
        "waits_for": found.waits_for,
    }
