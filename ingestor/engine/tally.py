"""The tally: what was done since the process, or a sync, began; read by progress bars, reports and `status`."""

from collections import Counter
from dataclasses import dataclass, field

from ingestor.core.model import Outcome


@dataclass(slots=True)
class Tally:
    """Counters that only grow, but for `unchanged`, which the latest reconcile sets."""

    documents: Counter[Outcome] = field(default_factory=Counter)
    embedded: int = 0
    """Chunk texts that needed a call."""
    reused: int = 0
    """New chunks whose vector was there already."""
    retagged: int = 0
    dropped: int = 0
    unchanged: int = 0
    """Documents that the latest reconcile found as the ledger knows them."""
    expected: int = 0
    """Documents that reconciles and hints have queued."""
    finished: int = 0
    """Documents that have left the queue."""
    size_bytes: int = 0
    """Size of the documents that are there among them."""
    chroma_fails_since_seconds: float | None = None
    """Since when, by the monotonic clock, Chroma has done nothing that it was asked; None when it does."""
    outage: str = ""
    """What an outside service said when a document last had to wait for it; empty when none did."""
