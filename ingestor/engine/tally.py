"""The tally: what was done since the process, or a sync, began; read by progress, reports, metrics and `status`."""

from collections import Counter
from dataclasses import dataclass, field

from ingestor.core.latency import WAIT_BOUNDS_SECONDS, Spread
from ingestor.core.model import DoubtKind, Outcome, Priority

HINT_KINDS = ("folder", "closed", "changed")
"""What a hint is about: a folder, a file whose content is complete, any other file."""


def _waits() -> dict[Priority, Spread]:
    return {priority: Spread(WAIT_BOUNDS_SECONDS) for priority in Priority}


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
    chroma_away_since_seconds: float | None = None
    """Since when, by that clock, it has not answered who only looks; None when it does."""
    chroma_away: str = ""
    """What was said of that."""
    outages: dict[str, str] = field(default_factory=dict)
    """What was said when a document last had to wait for a service that is away, by its name; the latest one last."""
    waits: dict[Priority, Spread] = field(default_factory=_waits)
    """From the last change of a file until the collection holds it, or holds it no more."""
    postponed: Counter[str] = field(default_factory=Counter)
    """Documents that are tried again later, by the name of the error class."""
    hints: Counter[str] = field(default_factory=Counter)
    """By `HINT_KINDS`."""
    hinted_seconds: float = 0.0
    """When the last hint came, since the epoch; 0 before the first."""
    restarts: Counter[DoubtKind] = field(default_factory=Counter)
    """How often the watch was stopped, to be started again, because it could not be trusted."""
    rescans: Counter[DoubtKind] = field(default_factory=Counter)
    """How often the folder was compared though the watch was sound and it was not time yet."""
    drift: int = 0
    """Documents that a comparison which was due by time alone has queued, and no hint had told of: a lower bound."""
    compared: Spread = field(default_factory=Spread)
    """How long comparisons of the whole folder took."""
    present: int = 0
    """Paths that a comparison, of a part or the whole, has found new or different."""
    gone: int = 0
    """Documents whose files a comparison has missed."""

    @property
    def outage(self) -> str:
        """What was said when a document last had to wait for a service; empty when none is away."""
        return next(reversed(self.outages.values()), "")
