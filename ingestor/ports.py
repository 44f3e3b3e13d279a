"""The seams between the loop and the outside world; each docstring is the contract that `tests/contract` holds.

Synchronous ports may block: the loop calls each of them from one thread of its own and never from two at once.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingestor.core.auditing import Held
from ingestor.core.errors import DocumentError, TransientError
from ingestor.core.model import (
    Change,
    Content,
    Doubt,
    Entry,
    Glance,
    Hint,
    Hit,
    Plan,
    Priority,
    Problem,
    Recipe,
    Record,
    Retag,
    ServiceWait,
    Snapshot,
    Stat,
    Usage,
)
from ingestor.core.owning import Ours

Vector: TypeAlias = NDArray[np.float32]
"""One vector: shape (dimensions,)."""
Vectors: TypeAlias = NDArray[np.float32]
"""Vectors in rows: shape (texts, dimensions)."""


class Source(Protocol):
    """The watched folder. Thread-safe; holds no state that a lost event could falsify."""

    def scan(self, below: str = "") -> Snapshot:
        """Stat every file that belongs to the source at or below the folder or file `below`; opens none.

        What is attached to them (`.ingestor.toml`, sidecars) is named, and is no file of the source itself. A path that
        does not exist, or is left out by the rules, gives an empty snapshot. Raises `ServiceUnavailable`
        when the root itself is missing or no folder: an unmounted disk must not look like an empty folder.
        """

    def look(self, path: str) -> Stat | None:
        """Stat one path; None when it does not exist, is a folder, or is left out by the rules.

        Raises `UnreadableDocument` when it cannot be told, `ServiceUnavailable` when the root is missing.
        """

    def looks(self, paths: Sequence[str]) -> list[Stat | DocumentError | TransientError | None]:
        """What `look` returns or raises for each path, in their order; what they share is looked at once."""

    def place(self) -> str:
        """What the root is now: equal as long as it is the same folder, with the same disks mounted at and below it.

        Raises `ServiceUnavailable` when it is missing or no folder.
        """

    def read(self, path: str) -> Content:
        """Read a regular file whole while it does not change; at most `max_file_bytes` are ever held in memory.

        With it comes what is attached to it, as `stat.attached` names it. Raises `UnreadableDocument`,
        `UnusableMetadata` for a sidecar that cannot be read, `OversizeDocument`, or `UnstableDocument` when it changes
        under the read, has vanished, or was written less than 100 ms ago and has a writer still.
        """


class Watch(Protocol):
    """Kernel events as hints. May lose events, and then says so through `doubt`."""

    def start(self, emit: Callable[[Hint], None]) -> None:
        """Watch the folder; `emit` is called from another thread, must not block and does not raise.

        Raises `WatcherDied` with a remedy when no watch can be had, `ServiceUnavailable` when the root is missing.
        """

    def doubt(self) -> Doubt | None:
        """Why events may have been lost or will not come any more; None when all is well. Cheap; called each second.

        After a doubt the caller stops, starts and reconciles.
        """

    def stop(self) -> None:
        """End the watch; no hint is emitted after this returns. May be called twice."""

    @property
    def mode(self) -> str:
        """How events are had: "inotify" (the native observer) or "polling"."""

    @property
    def limitation(self) -> str:
        """What keeps events from being had as they should be, and the remedy, in one sentence; "" when nothing."""


class Embedder(Protocol):
    """A model. No retries of its own: one call is one request."""

    @property
    def recipe(self) -> Recipe:
        """What decides the vectors. `dimensions` is 0 until the first answer of a model not known to us."""

    @property
    def max_batch_inputs(self) -> int:
        """How many texts one call may carry."""

    @property
    def max_batch_tokens(self) -> int:
        """How many estimated tokens one call may carry."""

    @property
    def max_concurrency(self) -> int:
        """How many calls may run at once."""

    async def open(self) -> None:
        """Get ready what the first call would wait for, unless that takes much memory; sends no request.

        Not needed: a call opens what is not open. Raises what `embed` would raise for the same reason.
        """

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """Embed the exact texts (prefix included), in order: float32, shape (texts, dimensions), finite, no zero row.

        Raises `RateLimited`, `ServiceUnavailable` (also for an answer that is malformed, incomplete or of the wrong
        dimension; `UnusableVectors` when single vectors are at fault), `RejectedByModel` when the request itself is
        refused, `AuthenticationFailed`, `ConfigError` when no request can succeed (no such model or endpoint).
        """

    async def close(self) -> None:
        """Let go of connections and threads."""


class VectorStore(Protocol):
    """Vectors that were paid for, by key. May be emptied at any time: it only saves money."""

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """The vectors that are there. Raises `ServiceUnavailable` when that cannot be found out now."""

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep vectors; durable against a killed process when this returns, unless the disk does not take them.

        Then they are kept in memory until it does, since they are paid for; `see_room` lets nobody pay for more.
        """

    def see_room(self, vectors: int, dimensions: int) -> None:
        """Raise `ServiceUnavailable` unless so many more vectors could be kept, and all that was put is kept."""


class Sink(Protocol):
    """The collection. Every call may raise `ServiceUnavailable`, after which the write may or may not have happened.

    Every call raises `CollectionLost` when somebody has deleted the collection. Records that were not written through
    this port are never touched.
    """

    @property
    def collection_id(self) -> str:
        """Changes when somebody deletes the collection and makes it again."""

    @property
    def ours(self) -> Ours:
        """Which records of the collection are its owner's; all others are foreign."""

    def add(self, records: Sequence[Record], vectors: Vectors | Sequence[Vector]) -> None:
        """Write new records, a vector each; a record whose id exists is left as it is, without an error."""

    def retag(self, retags: Sequence[Retag]) -> None:
        """Replace the metadata of records that exist; an id that does not exist is ignored.

        Of a retag that is not whole only its keys are replaced. Keys in `UNTAGGED` stay where the record has them.
        """

    def drop(self, ids: Sequence[str]) -> None:
        """Delete records; an id that does not exist is ignored."""

    def search(
        self,
        vector: Vector,
        limit: int,
        where: Mapping[str, Any] | None,
        where_document: Mapping[str, Any] | None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The nearest records, best first, or those of `ids`, which exist.

        Raises `ConfigError` for a filter that Chroma refuses.
        """

    def count(self) -> int:
        """How many records the collection holds, foreign ones included."""

    def ids(self) -> list[str]:
        """The id of every record, foreign ones included, as they are at one moment."""

    def page(self, offset: int, limit: int) -> dict[str, Mapping[str, Any]]:
        """The metadata of some records, by id, foreign ones included: `limit` after `offset`, in a fixed order."""

    def read(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Held]:
        """The records of these ids that exist; at most `MAX_READ`. A vector that the index has lost is None."""

    def unreachable(self, ids: Sequence[str], vectors: Vectors) -> list[str]:
        """Those of the records that a search for their own vector, shape (records, dimensions), does not find."""

    def confirm(self) -> None:
        """Raise `CollectionLost` when the collection does not bear its name any more.

        Raises `ForeignCollection` when somebody else has taken it over.
        """

    def keep(self) -> None:
        """Say, for whoever wants to take the collection, that this process works on it. Raises as `confirm`."""

    def reopen(self) -> None:
        """Work with the collection that bears the name now: the one before was copied into it."""


MAX_READ = 300
"""Records of one `Sink.read`."""
MAX_GROUP_RECORDS = 500
"""Records of documents that are written together, in one call each; a larger document is a group by itself."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the ledger counts, for `status`."""

    documents: int
    chunks: int
    queued: int
    in_flight: int
    problems: int
    retrying: int
    """Queued changes that have failed at least once for a reason of their own."""
    usage: Usage
    waits: tuple[ServiceWait, ...] = ()
    """Queued changes that wait for a service, by its name."""


BACKFILL_SHARE = 4
"""Of so many places of a lease, calls and groups of writes, one is for the backfill where that waits."""


class Ledger(Protocol):
    """What Chroma holds, what is queued, and what went wrong; what a call did outlives the process when it returns.

    It outlives the machine as well, but for what `enqueue`, `lease`, `release`, `add_usage` and a `commit` of no plans
    did since the last call of another method that writes. Every method is one transaction. Raises `LedgerCorrupt` when
    the file is no ledger any more.
    """

    def glances(self, below: str = "") -> dict[str, Glance]:
        """Every known path at or below a folder, documents with a Problem included."""

    def glances_of(self, paths: Iterable[str]) -> dict[str, Glance]:
        """Glances of the paths that are known."""

    def entries(self, paths: Iterable[str]) -> dict[str, Entry]:
        """The entries of the paths that are known."""

    def entries_of(self, document_ids: Iterable[str]) -> list[Entry]:
        """The entries of the documents that are known."""

    def some(self, offset: int, limit: int) -> list[Entry]:
        """Some entries: `limit` after `offset`, in an order that stays while nothing is written."""

    def kin(self, path: str, stat: Stat, content_hash: str) -> list[Entry]:
        """The entries that a file may be: the one at its path alone, or else those that it may be renamed from.

        These have the same inode and size, or else the same content; a few of them where many have the same content.
        Documents that are held back have the same content in any case: an inode is soon used for another file.
        """

    def mark(self, entries: Sequence[Entry], dropped: int = 0, removed: Sequence[str] = ()) -> None:
        """Write entries with what is about to become doubtful, before Chroma is touched.

        `dropped` records are about to be deleted: each becomes a tombstone of the index. The documents at the paths
        `removed` are about to go: from now on they cannot be held back. Raises `DeletionHeld`, and does nothing, when
        one of them is held back already and nobody has approved.
        """

    def tombstones(self) -> int:
        """How many records were deleted since the index was made, as far as it was counted."""

    def set_tombstones(self, count: int) -> None:
        """Count from there: the index is a new one, or was asked itself."""

    def amend(self, corrections: Sequence[tuple[Entry | None, Entry]]) -> list[str]:
        """Replace entries (before, after) that nobody has changed or works on meanwhile; returns the paths replaced.

        With None for before, the entry is new: it is left out when its path or its document is known by now. To be
        called by any process, beside the one that holds the lock.
        """

    def commit(self, plans: Sequence[Plan], changes: Sequence[Change]) -> None:
        """Replace `before` by `after` for every plan, and acknowledge the changes that led to them.

        A change whose path was hinted at again meanwhile (a newer generation) stays queued. Documents that are gone, or
        go on under other paths, are held back no more; nor are those whose change is acknowledged: the file is there.
        """

    def enqueue(self, paths: Iterable[str], change: Change) -> int:
        """Queue paths with the priority and times of `change`; one row a path; returns how many rows are new.

        A path that is queued already keeps the more urgent of both priorities and times, and grows its generation.
        """

    def urge(self, paths: Iterable[str], change: Change) -> None:
        """As `enqueue`, for those of the paths that are queued already, leased or not; the others stay out."""

    def lease(
        self,
        limit: int,
        now_seconds: float,
        *,
        least: Priority = Priority.BACKFILL,
        in_work: Collection[str] | None = None,
    ) -> list[Change]:
        """Take due changes that nobody works on, of a priority or a more urgent one: by priority, then the oldest.

        One of `BACKFILL_SHARE` places is for the backfill where that waits, so that it goes on whatever happens live.
        Where it is said what is `in_work`, leases of other paths are void: whoever was given them never heard of it.
        """

    def release(self, changes: Sequence[Change]) -> None:
        """Give leased changes back with the attempts, time and problem that they carry now.

        The more urgent of the priority that they carry and that of the row holds. A change that was hinted at again
        meanwhile is due as the hint says.
        """

    def hasten(self, now_seconds: float, service: str) -> None:
        """Make every change due that waits for a service, and let it wait for it no more: the service is back."""

    def release_all(self) -> None:
        """Void every lease and make all due: called by the one process that holds the lock, at its start."""

    def make_due(self, now_seconds: float) -> None:
        """Make every change due: the clock was set back, and no time in the queue means anything any more."""

    def dequeue(self, paths: Iterable[str]) -> None:
        """Take paths out of the queue, but for leased ones."""

    def held(self) -> dict[str, bool]:
        """The paths whose deletion is held back, each with whether it may happen all the same.

        It may when somebody has approved, or when it had begun before it could be held.
        """

    def hold(self, paths: Iterable[str]) -> None:
        """Hold back the deletion of documents; those that are held or have begun to go already stay as they are.

        What is queued of them leaves the queue, but for what is leased.
        """

    def hold_no_more(self, paths: Iterable[str]) -> None:
        """Take paths out of the set of what is held back: nothing is missing of them any more."""

    def approve(self, paths: Iterable[str]) -> int:
        """Approve of deletions, if they are held back; returns of how many nobody had approved.

        To be called by any process, beside the one that holds the lock.
        """

    def next_due_seconds(self, *, least: Priority = Priority.BACKFILL) -> float | None:
        """When the earliest change that nobody works on, of a priority or a more urgent one, is due; None for none."""

    def waiting(self) -> dict[str, Problem | None]:
        """The paths in the queue, leased ones included, with what made the last attempt fail."""

    def problems(self) -> list[tuple[str, Problem]]:
        """Documents with a Problem, and queued changes that have failed for a reason of their own, by path."""

    def totals(self) -> Totals:
        """Counts for `status`."""

    def rewrite(self, change: Callable[[Entry], Entry]) -> None:
        """Replace every entry by what `change` makes of it, which keeps `document_id` and `path`."""

    def add_usage(self, usage: Usage, day: str) -> None:
        """Add to the counters of what embedding has cost, in all and on that day ("2026-11-23")."""

    def tokens_on(self, day: str) -> int:
        """How many tokens embedding has cost on a day."""

    def note(self, name: str) -> str | None:
        """A named note of the process to itself (last reconcile, collection id)."""

    def set_note(self, name: str, value: str) -> None:
        """Keep a named note."""


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now_seconds(self) -> float:
        """Wall-clock seconds since the epoch; may jump."""

    def monotonic_seconds(self) -> float:
        """Seconds that only grow."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


_P = ParamSpec("_P")
_T = TypeVar("_T")


class Lane(Protocol):
    """One thread that owns something that must not be used from two (SQLite, the Chroma client).

    Calls run one after another, in the order in which they were asked for, and their results come back in that order.
    The worker's claims rely on it.
    """

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call and wait for its result. A cancelled wait does not stop the call: its effect may still happen."""

    def close(self) -> bool:
        """Let the calls that were asked for finish; False when they did not in time, and are left behind."""


class Runtime(Clock, Protocol):
    """What the engine has from its process: time, chance, ids and threads.

    A simulation that decides all four decides everything that happens between two calls of the other ports.
    """

    def fraction(self) -> float:
        """A random number in [0, 1): it spreads retries and scans, and guards nothing."""

    def new_id(self) -> str:
        """An identity that nothing has had before: 32 hexadecimal digits."""

    async def in_thread(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call that may block on any thread. A cancelled wait does not stop it."""

    def lane(self, name: str) -> Lane:
        """Begin a thread for something that must not be used from two; the caller closes it."""
