"""What is told of Chroma: how long it takes, how it fails, and what it keeps of deleted records."""

from ingestor.core.errors import ChromaUnavailable, CollectionLost, RejectedByChroma, ServiceUnavailable
from ingestor.metrics.family import Family, by, counted, counter, gauge, histogram, names, one

_FAULTS = (ChromaUnavailable, ServiceUnavailable, RejectedByChroma, CollectionLost)

CHROMA: tuple[Family, ...] = (
    histogram(
        "ingestor_chroma_call_seconds",
        "How long calls of Chroma took, failed ones included, by operation.",
        lambda source: {(operation,): spread for operation, spread in source.pipeline.sink.seconds.items()},
        "operation",
    ),
    counter(
        "ingestor_chroma_errors_total",
        "Calls of Chroma that have failed, by the class of the error.",
        lambda source: by(source.pipeline.sink.failures, names(_FAULTS)),
        "kind",
    ),
    gauge(
        "ingestor_chroma_failing_seconds",
        "For how long Chroma has done nothing that it was asked to write, or has not answered; 0 when it does.",
        lambda source: one(source.pipeline.chroma_failing_seconds()),
    ),
    gauge(
        "ingestor_tombstones",
        "Deleted records that the index still holds, as far as it was counted.",
        counted(lambda census: one(census.tombstones)),
    ),
)
