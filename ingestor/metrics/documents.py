"""What is told of documents: those that the collection holds, those that wait, and what became of them."""

import time
from collections.abc import Callable

from ingestor.adapters.ledger_census import Backlog
from ingestor.core.errors import (
    BudgetSpent,
    ChromaUnavailable,
    DocumentError,
    RateLimited,
    ServiceUnavailable,
    Undecided,
    UnstableDocument,
    UnusableVectors,
)
from ingestor.core.model import Outcome
from ingestor.metrics.family import (
    Family,
    Samples,
    Source,
    by,
    counted,
    counter,
    gauge,
    histogram,
    kinds_of,
    names,
    one,
)

_POSTPONING = (
    UnstableDocument,
    ServiceUnavailable,
    ChromaUnavailable,
    RateLimited,
    UnusableVectors,
    BudgetSpent,
    Undecided,
)
_CHUNKS = ("embedded", "reused", "retagged", "dropped")


def _info(source: Source) -> Samples:
    followed = source.followed
    return {(followed.collection, followed.provider, followed.model): 1}


def _queue(value: Callable[[Backlog], float]) -> Callable[[Source], Samples]:
    return counted(
        lambda census: {
            (priority.value, waiting.value): value(backlog) for (priority, waiting), backlog in census.queue.items()
        }
    )


def _age_seconds(backlog: Backlog) -> float:
    return 0.0 if backlog.since_seconds is None else max(0.0, time.time() - backlog.since_seconds)


DOCUMENTS: tuple[Family, ...] = (
    gauge("ingestor_source_info", "What a source fills; always 1.", _info, "collection", "provider", "model"),
    gauge(
        "ingestor_ledger_up",
        "Whether the ledger could be read; if not, what it counts is missing.",
        lambda source: one(source.census is not None),
    ),
    gauge(
        "ingestor_documents",
        "Documents that the collection holds.",
        counted(lambda census: one(census.documents)),
    ),
    gauge(
        "ingestor_chunks",
        "Records that the collection holds of them.",
        counted(lambda census: one(census.chunks)),
    ),
    gauge(
        "ingestor_problems",
        "Documents that are set aside, by the class of the error; `ingestor problems` lists them.",
        counted(lambda census: by(census.problems, names(kinds_of(DocumentError)))),
        "kind",
    ),
    gauge(
        "ingestor_queue_changes",
        "Changes in the queue, by priority and by what they wait for.",
        _queue(lambda backlog: backlog.changes),
        "priority",
        "state",
    ),
    gauge(
        "ingestor_queue_oldest_change_seconds",
        "Age of the oldest change in the queue; 0 where there is none.",
        _queue(_age_seconds),
        "priority",
        "state",
    ),
    counter(
        "ingestor_documents_processed_total",
        "Documents that were worked on, by outcome.",
        lambda source: by(source.tally.documents, Outcome),
        "outcome",
    ),
    counter(
        "ingestor_document_retries_total",
        "Attempts at a document that have failed and are made again later, by the class of the error.",
        lambda source: by(source.tally.postponed, names(_POSTPONING)),
        "reason",
    ),
    counter(
        "ingestor_chunks_processed_total",
        "Records written, by what it took: embedded anew, vector reused, metadata changed, deleted.",
        lambda source: {(outcome,): getattr(source.tally, outcome) for outcome in _CHUNKS},
        "outcome",
    ),
    histogram(
        "ingestor_file_to_searchable_seconds",
        "From the last change of a file until the collection has followed; backfill is what a comparison has found.",
        lambda source: {(priority.value,): spread for priority, spread in source.tally.waits.items()},
        "priority",
    ),
)
