"""Forecast: what a sync would do, found out by doing all of it that costs nothing and leaves no trace.

The folder is scanned and compared with the ledger as a reconcile does, what differs is read and cut and planned as the
worker does, and the vector store is asked which texts were paid for already. There it ends: nothing is queued, sent or
written.

Invariant: memory is bounded by a few documents and, for the rest, by counts and the keys of texts; the ledger and the
vector store are only looked at, from the thread that called.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

from ingestor.core.auditing import UNTRIED, forgotten
from ingestor.core.errors import DocumentError, UnstableDocument
from ingestor.core.estimating import Packing
from ingestor.core.fingerprint import vector_key
from ingestor.core.grammars import Kind, kind_of
from ingestor.core.guarding import NO_DELETIONS, DeletionLimit, Holding, Verdict, judged
from ingestor.core.model import (
    UNKNOWN_STAT,
    Document,
    Entry,
    Glance,
    Outcome,
    Plan,
    Problem,
    Recipe,
    Snapshot,
    Stage,
)
from ingestor.core.planning import plan_document, plan_problem, plan_removal, plan_unknown
from ingestor.core.reconciling import Difference, difference
from ingestor.engine.guard import FORMER_NOTE, holding_in
from ingestor.engine.reading import Reader
from ingestor.engine.worker import MAX_READS
from ingestor.ports import Ledger, Source

MAX_EXAMPLES: Final = 5
"""Names told of each kind of problem."""
UNREADABLE_FOLDER: Final = "UnreadableFolder"
_UNSETTLED: Final = frozenset({UNREADABLE_FOLDER, UnstableDocument.__name__})
"""Kinds of problems that leave the document, and what the ledger says of it, as they are."""
_PAGE_ENTRIES = 500
_UNBORN = "new"
"""Document id of a document that has none yet: its record ids are compared with no others."""

Known = Callable[[Collection[bytes]], Collection[bytes]]
"""Which of these keys the vector store has a vector for."""


@dataclass(frozen=True, slots=True)
class FileCounts:
    """Files by what would become of them; those of `added` to `problems` are named as a sync's report names them."""

    found: int
    """Files in the folder."""
    read: int
    """Files that a sync would read."""
    added: int
    changed: int
    renamed: int
    deleted: int
    unchanged: int
    problems: int
    """All problems that there would be, known ones and folders that cannot be listed included."""
    retried: int
    """Files with a known problem that would be read again."""
    unreadable_folders: int
    left_out: int
    """Symbolic links that do not count, and sidecars without a file."""


@dataclass(frozen=True, slots=True)
class KindCounts:
    """Of the files of one kind that a sync would read and index."""

    files: int = 0
    size_bytes: int = 0
    chunks: int = 0
    texts: int = 0
    """Texts to be paid for."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Problems of one kind that a sync would run into."""

    kind: str
    """Name of the error class."""
    count: int
    examples: tuple[str, ...]
    """The first few paths."""
    reason: str
    """Of the first one."""


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Records of the collection: `total` after the sync; `kept` are written in no way."""

    total: int
    added: int
    kept: int
    retagged: int
    dropped: int


@dataclass(frozen=True, slots=True)
class TextCounts:
    """Distinct texts that need a vector. `tokens` are estimated, prefixes included."""

    known: int
    """Free: the vector store has their vectors."""
    paid: int
    requests: int
    """The fewest calls that can carry those to be paid for."""
    tokens: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a sync would do."""

    files: FileCounts
    kinds: Mapping[Kind, KindCounts]
    obstacles: Sequence[Obstacle]
    held_deletions: int
    """Deletions that would be held back until `ingestor approve`."""
    chunks: ChunkCounts
    texts: TextCounts


@dataclass(slots=True)
class _Tally:
    """Counts in the making."""

    sound: int
    faulty: int
    chunks: int
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    retried: int = 0
    added: int = 0
    retagged: int = 0
    rewritten: int = 0
    dropped: int = 0
    tokens: int = 0
    kinds: defaultdict[Kind, KindCounts] = field(default_factory=lambda: defaultdict(KindCounts))
    obstacles: dict[str, Obstacle] = field(default_factory=dict)

    def meet(self, kind: str, path: str, reason: str) -> None:
        """Count a problem."""
        met = self.obstacles.get(kind) or Obstacle(kind, 0, (), reason)
        self.obstacles[kind] = replace(met, count=met.count + 1, examples=(*met.examples, path)[:MAX_EXAMPLES])

    def carry_out(self, plan: Plan) -> None:
        """Count what a plan would do to the ledger and to the collection."""
        for entry, change in ((plan.before, -1), (plan.after, 1)):
            if entry is not None:
                self.sound += change * (entry.problem is None)
                self.faulty += change * (entry.problem is not None)
                self.chunks += change * len(entry.tags)
        self.outcomes[plan.outcome] += 1
        self.added += len(plan.embed)
        self.retagged += len(plan.retag)
        self.rewritten += len({*(record.id for record in plan.embed), *(retag.id for retag in plan.retag)})
        self.dropped += len(plan.drop)


class Forecaster:
    """Looks at everything that a sync would look at. To be used once.

    `ledger` is None when nothing was ever indexed; `is_collection_lost` when a sync would find another collection
    than the one that the ledger speaks of, and write every record again.
    """

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        source: Source,
        reader: Reader,
        ledger: Ledger | None,
        known: Known,
        *,
        recipe: Recipe,
        packing: Packing,
        limit: DeletionLimit,
        estimate_tokens: Callable[[str], int],
        is_collection_lost: bool = False,
    ) -> None:
        self._source = source
        self._reader = reader
        self._ledger = ledger
        self._known = known
        self._recipe = recipe
        self._packing = packing
        self._limit = limit
        self._estimate_tokens = estimate_tokens
        self._is_collection_lost = is_collection_lost
        self._moved: set[str] = set()
        """Paths that are gone, and whose documents new paths go on with."""
        self._paid_keys: set[bytes] = set()
        self._known_keys: set[bytes] = set()

    def forecast(self, tell: Callable[[int, int], None]) -> Forecast:
        """Find out; `tell` gets how many of how many files have been read.

        Raises `ServiceUnavailable` when the root is missing, or what is there cannot be looked at now.
        """
        snapshot = self._source.scan()
        glances = self._glances()
        waiting = self._ledger.waiting() if self._ledger else {}
        found = difference(snapshot, glances, self._reader.cutting)
        verdict = self._judged(snapshot, glances, found.gone)
        queued_present, queued_gone = self._queued(waiting, snapshot, found)
        present = tuple(dict.fromkeys((*found.present, *queued_present)))
        tally = self._begun()
        for folder, reason in snapshot.unreadable.items():
            tally.meet(UNREADABLE_FOLDER, folder, reason)
        for done, (path, document) in enumerate(self._documents(present)):
            tell(done, len(present))
            self._count(path, document, tally, is_known_to_fail=waiting.get(path) is not None)
        tell(len(present), len(present))
        self._remove(self._left(queued_gone), tally)
        self._remove(self._left(verdict.free), tally)
        touched = sum(tally.outcomes[each] for each in (Outcome.ADDED, Outcome.CHANGED, Outcome.RENAMED))
        # What cannot be told for a passing reason stays in the queue, with its reason, and counts as a problem.
        unsettled = sum(met.count for met in tally.obstacles.values() if met.kind in _UNSETTLED)
        return Forecast(
            files=FileCounts(
                found=len(snapshot.files),
                read=len(present),
                added=tally.outcomes[Outcome.ADDED],
                changed=tally.outcomes[Outcome.CHANGED],
                renamed=tally.outcomes[Outcome.RENAMED],
                deleted=tally.outcomes[Outcome.DELETED],
                unchanged=max(0, tally.sound - touched),
                problems=max(0, tally.faulty) + unsettled,
                retried=tally.retried,
                unreadable_folders=len(snapshot.unreadable),
                left_out=len(snapshot.skipped) + len(snapshot.unconverted),
            ),
            kinds={kind: tally.kinds[kind] for kind in Kind if kind in tally.kinds},
            obstacles=tuple(tally.obstacles.values()),
            # What is renamed is not missing any more when its document has followed.
            held_deletions=len(self._left(verdict.held)),
            chunks=ChunkCounts(
                total=max(0, tally.chunks),
                added=tally.added,
                kept=max(0, tally.chunks - tally.rewritten),
                retagged=tally.retagged,
                dropped=tally.dropped,
            ),
            texts=TextCounts(
                known=len(self._known_keys),
                paid=len(self._paid_keys),
                requests=self._packing.requests,
                tokens=tally.tokens,
            ),
        )

    def _begun(self) -> _Tally:
        if self._ledger is None:
            return _Tally(sound=0, faulty=0, chunks=0)
        totals = self._ledger.totals()
        chunks = 0 if self._is_collection_lost else totals.chunks
        return _Tally(sound=totals.documents, faulty=totals.problems, chunks=chunks)

    def _glances(self) -> dict[str, Glance]:
        glances = self._ledger.glances() if self._ledger else {}
        if self._is_collection_lost:
            return {path: (version, UNTRIED, is_unfinished) for path, (version, _, is_unfinished) in glances.items()}
        return glances

    def _entries(self, paths: Sequence[str]) -> dict[str, Entry]:
        found = self._ledger.entries(paths) if self._ledger else {}
        return {path: self._as_found(entry) for path, entry in found.items()}

    def _as_found(self, entry: Entry) -> Entry:
        return forgotten(entry) if self._is_collection_lost else entry

    def _judged(self, snapshot: Snapshot, glances: Mapping[str, Glance], gone: Sequence[str]) -> Verdict:
        """Which deletions would happen, and which would wait for approval."""
        ledger = self._ledger
        holding = holding_in(ledger) if ledger else Holding({}, 0)
        limit = NO_DELETIONS if ledger and ledger.note(FORMER_NOTE) else self._limit
        return judged(gone, glances, snapshot, holding, limit)

    def _queued(
        self, waiting: Iterable[str], snapshot: Snapshot, found: Difference
    ) -> tuple[Sequence[str], Sequence[str]]:
        """The paths of the queue that are there, and those that are gone without the scan having told so."""
        missing = frozenset(found.gone)
        present: list[str] = []
        gone: list[str] = []
        for path in waiting:
            if path in snapshot.files:
                present.append(path)
            elif path not in missing:
                try:
                    (gone if self._source.look(path) is None else present).append(path)
                except DocumentError:
                    continue  # its folder may not be entered: what is not known is left as it is
        return present, gone

    def _documents(self, paths: Iterable[str]) -> Iterator[tuple[str, Document | DocumentError | UnstableDocument]]:
        """Read ahead, but no further than `MAX_READS`; documents come in the order of the paths."""
        reads: deque[tuple[str, Future[Document | DocumentError | UnstableDocument]]] = deque()
        with ThreadPoolExecutor(MAX_READS, thread_name_prefix="read") as pool:
            for path in paths:
                reads.append((path, pool.submit(self._read, path)))
                if len(reads) >= MAX_READS:
                    first, read = reads.popleft()
                    yield first, read.result()
            for last, read in reads:
                yield last, read.result()

    def _read(self, path: str) -> Document | DocumentError | UnstableDocument:
        try:
            return self._reader.read(path)
        except (DocumentError, UnstableDocument) as error:
            return error

    def _count(
        self,
        path: str,
        document: Document | DocumentError | UnstableDocument,
        tally: _Tally,
        *,
        is_known_to_fail: bool,
    ) -> None:
        if isinstance(document, Document):
            before = self._before(document)
            tally.retried += is_known_to_fail or (before is not None and before.problem is not None)
            plan = plan_document(
                document,
                before,
                document_id=before.document_id if before else _UNBORN,
                cutting=self._reader.cutting,
                model=self._recipe.model,
                now_seconds=0.0,
            )
            tally.carry_out(plan)
            self._count_kind(document, tally, texts=self._count_texts(plan, tally))
            return
        before = self._entries([path]).get(path)
        tally.retried += is_known_to_fail or (before is not None and before.problem is not None)
        if isinstance(document, UnstableDocument):
            tally.meet(type(document).__name__, path, str(document))
        elif not self._is_hidden(path):
            tally.meet(type(document).__name__, path, str(document))
            tally.carry_out(_set_aside(path, before, document, self._reader.cutting))

    def _is_hidden(self, path: str) -> bool:
        """Whether the folder of a file may not be entered: that is no fault of the file, which stays as it is."""
        try:
            self._source.look(path)
        except DocumentError:
            return True
        return False

    def _before(self, document: Document) -> Entry | None:
        """The entry of a document, or of the one that it was renamed from."""
        if self._ledger is None:
            return None
        kin = self._ledger.kin(document.path, document.stat, document.content_hash)
        for entry in kin:
            if entry.path == document.path:
                return self._as_found(entry)
            if entry.path not in self._moved and self._is_gone(entry.path):
                self._moved.add(entry.path)
                return self._as_found(entry)
        return None

    def _is_gone(self, path: str) -> bool:
        try:
            return self._source.look(path) is None
        except DocumentError:
            return False

    def _count_kind(self, document: Document, tally: _Tally, *, texts: int) -> None:
        kind = kind_of(PurePosixPath(document.path).name)
        so_far = tally.kinds[kind]
        tally.kinds[kind] = KindCounts(
            files=so_far.files + 1,
            size_bytes=so_far.size_bytes + document.stat.size_bytes,
            chunks=so_far.chunks + len(document.chunks),
            texts=so_far.texts + texts,
        )

    def _count_texts(self, plan: Plan, tally: _Tally) -> int:
        """Look up which texts of a plan have to be paid for, each text once; returns how many."""
        sent_texts: dict[bytes, str] = {}
        for record in plan.embed:
            sent_text = self._recipe.text_to_send(record.text)
            key = vector_key(self._recipe, sent_text)
            if key not in self._paid_keys and key not in self._known_keys:
                sent_texts[key] = sent_text
        known = self._known(sent_texts.keys()) if sent_texts else ()
        self._known_keys.update(known)
        paid = sent_texts.keys() - self._known_keys
        self._paid_keys.update(paid)
        for key, sent_text in sent_texts.items():
            if key in paid:
                tokens = self._estimate_tokens(sent_text)
                tally.tokens += tokens
                self._packing.add(tokens)
        return len(paid)

    def _left(self, gone: Iterable[str]) -> list[str]:
        """The paths whose documents are gone with them."""
        return [path for path in gone if path not in self._moved]

    def _remove(self, paths: Sequence[str], tally: _Tally) -> None:
        for start in range(0, len(paths), _PAGE_ENTRIES):
            for entry in self._entries(paths[start : start + _PAGE_ENTRIES]).values():
                tally.carry_out(plan_removal(entry))


def _set_aside(path: str, before: Entry | None, error: DocumentError, cutting: str) -> Plan:
    problem = Problem(Stage.READ, type(error).__name__, str(error), error.remedy, attempts=1, since_seconds=0.0)
    if before is not None and error.is_unknown:
        return plan_unknown(before, problem, stat=UNKNOWN_STAT, cutting=cutting)
    document_id = before.document_id if before else _UNBORN
    return plan_problem(path, before, problem, stat=UNKNOWN_STAT, document_id=document_id)
