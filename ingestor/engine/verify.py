"""Verify: whether folder, ledger and collection say the same, and what to do where they do not.

Theory of operation
-------------------
An audit reads the ids of all records first, then, page by page, the entries of the ledger and the records that they
name; what is left over are strays. A *deep* audit also reads every file again and plans it without carrying the plan
out, compares vectors with those in the vector store, and searches for each record by its own vector.

Several sources may share a collection. What the ledger of another one names is left to it, and so is a record whose
document bears its name; the first source looks after records of a source that is configured no more. Records of another
owner than the collection's are foreign (`core/owning.py`).

Work may go on meanwhile, in this process or in another. So nothing is believed at once: what is queued is counted and
not judged, and what disagrees is looked at again until it agrees or has disagreed `LOOKS` times. An entry is corrected
only if it still is what the audit has seen (`Ledger.amend`).

Invariant: an audit changes nothing that anybody relies on (it may save vectors to the vector store, and it notes how
many records are foreign); a correction changes nothing but the ledger.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np

from ingestor.core.attaching import UNTELLABLE
from ingestor.core.auditing import Correction, Finding, Held, Kind, Trace, audited, findings_of, trace
from ingestor.core.errors import DocumentError, TransientError
from ingestor.core.fingerprint import source_of, vector_key
from ingestor.core.model import Change, Document, Entry, Priority, Recipe
from ingestor.core.planning import plan_document
from ingestor.core.reconciling import difference
from ingestor.engine.reading import Reader
from ingestor.ports import MAX_READ, Lane, Ledger, Runtime, Sink, Source, Vector, VectorStore

LOOKS = 3
"""How often a disagreement is looked at before it is believed, while work may go on."""
LOOK_PAUSE_SECONDS = 1.5
"""Pause between two looks: a file that was just written rests about as long before it is queued."""
FOREIGN_NOTE = "foreign_records"
"""How many records of the collection are not ours, as last counted."""
SAMPLE = MAX_READ
"""Records, and documents, that are looked at to find out whether all have to be."""
_PAGE_PATHS = 500
_VECTOR_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found; counts."""

    documents: int = 0
    records: int = 0
    """Records of ours."""
    foreign: int = 0
    """Records of others, which nobody touches."""
    unchecked_vectors: int = 0
    """Records whose vector could not be compared, because the vector store does not have it."""
    waiting: frozenset[str] = field(default=frozenset(), repr=False)
    """Paths with work to do; they were not judged while somebody may be at it."""
    corrections: tuple[Correction, ...] = field(default=(), repr=False)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that disagrees, by path."""
        return findings_of(self.corrections)

    @property
    def is_sound(self) -> bool:
        """Whether folder, ledger and collection agree, with nothing left to do."""
        return not self.corrections and not self.waiting


@dataclass(frozen=True, slots=True)
class _Inventory:
    """What there is to compare."""

    paths: frozenset[str]
    """Those that the ledger knows."""
    strays: Mapping[str, Sequence[Trace]]
    """Records of ours that no entry names, by the path of their document."""
    records: int
    foreign: int


@dataclass(frozen=True, slots=True)
class _Folder:
    """What the folder holds, where it is asked: nothing is judged by it otherwise."""

    files: Collection[str] = ()
    gone: Collection[str] = ()


class Auditor:
    """Compares; `amend` lets the ledger say what was found."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        source: Source,
        reader: Reader,
        ledger: Ledger,
        ledger_lane: Lane,
        *,
        sink: Sink,
        sink_lane: Lane,
        vectors: VectorStore,
        vectors_lane: Lane,
        runtime: Runtime,
        recipe: Recipe,
        source_name: str = "",
    ) -> None:
        self._source = source
        self._reader = reader
        self._ledger = ledger
        self._ledger_lane = ledger_lane
        self._sink = sink
        self._sink_lane = sink_lane
        self._vectors = vectors
        self._vectors_lane = vectors_lane
        self._runtime = runtime
        self._recipe = recipe
        self._source_name = source_name
        self._neighbours: Sequence[Auditor] = ()
        self._is_first = True

    def share_collection(self, neighbours: "Sequence[Auditor]", *, is_first: bool) -> None:
        """Know those of the other sources of this collection."""
        self._neighbours = neighbours
        self._is_first = is_first

    async def is_off(self) -> bool:
        """Whether the collection holds other records than the ledger says, as far as a count and a sample show.

        So it is after a backup was restored, or after somebody has added, deleted or replaced records. To be asked
        while nothing is in work.
        """
        foreign = int(await self._ledger_lane.run(self._ledger.note, FOREIGN_NOTE) or 0)
        chunks = sum([await auditor.chunks() for auditor in (self, *self._neighbours)])
        count = await self._sink_lane.run(self._sink.count)
        return count != chunks + foreign or await self._lacks_known() or await self._holds_unknown(count)

    async def _lacks_known(self) -> bool:
        """Whether the collection lacks one of a sample of records that the ledger says it holds."""
        documents = (await self._ledger_lane.run(self._ledger.totals)).documents
        entries = await self._ledger_lane.run(self._ledger.some, self._somewhere(documents), SAMPLE)
        known = [id_ for entry in entries for id_ in entry.tags if id_ not in entry.doubtful]
        start = int(self._runtime.fraction() * max(1, len(known) - SAMPLE + 1))
        sample = known[start : start + SAMPLE]
        return bool(sample) and len(await self._sink_lane.run(self._sink.read, sample)) < len(sample)

    async def _holds_unknown(self, count: int) -> bool:
        """Whether one of a sample of records in the collection is of this source, and no ledger names it."""
        page = await self._sink_lane.run(self._sink.page, self._somewhere(count), SAMPLE)
        mine = {
            id_: str(metadata["document_id"])
            for id_, metadata in page.items()
            if self._sink.ours.has(id_, metadata) and self._is_mine(str(metadata["document_id"]))
        }
        for auditor in (self, *self._neighbours):
            for entry in await auditor.entries_of(mine.values()):
                for id_ in chain(entry.tags, entry.doubtful):
                    mine.pop(id_, None)
        return bool(mine)

    def _somewhere(self, count: int) -> int:
        """Where a sample of so many begins: by chance."""
        return int(self._runtime.fraction() * max(1, count - SAMPLE + 1))

    async def entries_of(self, document_ids: Iterable[str]) -> list[Entry]:
        """The entries of this source's ledger that have one of these ids."""
        return await self._ledger_lane.run(self._ledger.entries_of, sorted(set(document_ids)))

    async def chunks(self) -> int:
        """How many records the collection should hold of this source."""
        return (await self._ledger_lane.run(self._ledger.totals)).chunks

    async def claims(self) -> AsyncIterator[Entry]:
        """Every entry of this source's ledger: what they name is its own."""
        paths = await self._ledger_lane.run(self._ledger.glances)
        for page in _pages(sorted(paths), _PAGE_PATHS):
            for entry in (await self._ledger_lane.run(self._ledger.entries, page)).values():
                yield entry

    async def audit(self, *, is_deep: bool = False, is_alone: bool = False) -> Audit:
        """Compare everything; what disagrees is looked at again, unless nobody else is at work.

        Raises `ServiceUnavailable`, `CollectionLost`.
        """
        found = await self._look(None, is_deep=is_deep, is_alone=is_alone)
        for _ in range(0 if is_alone else LOOKS):
            if found.is_sound:
                break
            await self._runtime.sleep(LOOK_PAUSE_SECONDS)
            suspects = found.waiting | {correction.path for correction in found.corrections}
            again = await self._look(suspects, is_deep=is_deep)
            found = replace(again, unchecked_vectors=found.unchecked_vectors)
        await self._ledger_lane.run(self._ledger.set_note, FOREIGN_NOTE, str(found.foreign))
        return found

    async def amend(self, audit: Audit) -> int:
        """Let the ledger say what was found, so that a reconcile mends it; returns how many documents were amended.

        A file whose stat does not tell that it differs is queued here. One that is gone is left to the reconcile, which
        knows when deletions have to be approved of.
        """
        pairs = [
            (correction.before, correction.after)
            for correction in audit.corrections
            if correction.after is not None and correction.after is not correction.before
        ]
        amended = await self._ledger_lane.run(self._ledger.amend, pairs)
        outdated = {finding.path for finding in audit.findings if finding.kind is Kind.OUTDATED}
        now_seconds = self._runtime.now_seconds()
        change = Change("", Priority.BACKFILL, enqueued_seconds=now_seconds, not_before_seconds=now_seconds)
        await self._ledger_lane.run(self._ledger.enqueue, sorted(outdated), change)
        return len(amended)

    async def _look(self, suspects: Collection[str] | None, *, is_deep: bool, is_alone: bool = False) -> Audit:
        waiting = set(await self._ledger_lane.run(self._ledger.waiting))
        inventory = await self._inventory()
        folder = await self._folder() if is_deep else _Folder()
        paths = inventory.paths.union(inventory.strays, folder.files)
        judged = sorted(
            (paths if suspects is None else paths.intersection(suspects)) - (set() if is_alone else waiting)
        )
        corrections: list[Correction] = []
        unchecked_vectors = 0
        for page in _pages(judged, _PAGE_PATHS):
            entries = await self._ledger_lane.run(self._ledger.entries, page)
            traces, unchecked = await self._traces(entries.values(), is_deep=is_deep)
            unchecked_vectors += unchecked
            for path in page:
                entry = entries.get(path)
                correction = audited(path, entry, traces.get(path, ()), inventory.strays.get(path, ()))
                try:
                    findings = await self._outdated(path, entry, folder)
                except TransientError:
                    waiting.add(path)
                    continue
                if correction.findings or findings:
                    corrections.append(replace(correction, findings=correction.findings + findings))
        return Audit(
            documents=len(inventory.paths),
            records=inventory.records,
            foreign=inventory.foreign,
            unchecked_vectors=unchecked_vectors,
            waiting=frozenset(waiting),
            corrections=tuple(corrections),
        )

    async def _inventory(self) -> _Inventory:
        # The ids come first: the protocol names an id in the ledger before it is written.
        ids = await self._sink_lane.run(self._sink.ids)
        unclaimed = dict.fromkeys(ids)
        for neighbour in self._neighbours:
            async for entry in neighbour.claims():
                for id_ in chain(entry.tags, entry.doubtful):
                    unclaimed.pop(id_, None)
        others = len(ids) - len(unclaimed)
        place_of: dict[str, str] = {}
        async for entry in self.claims():
            place_of[entry.document_id] = entry.path
            for id_ in chain(entry.tags, entry.doubtful):
                unclaimed.pop(id_, None)
        strays: dict[str, list[Trace]] = defaultdict(list)
        foreign = 0
        for page in _pages(list(unclaimed), MAX_READ):
            for held in await self._sink_lane.run(self._sink.read, page):
                if self._sink.ours.has(held.id, held.metadata) and self._is_mine(str(held.metadata["document_id"])):
                    stray = trace(held)
                    strays[place_of.get(stray.document_id, stray.path)].append(stray)
                else:
                    foreign += 1
        return _Inventory(frozenset(place_of.values()), strays, len(ids) - others - foreign, foreign)

    def _is_mine(self, document_id: str) -> bool:
        """Whether a document that no ledger names is for this source to look after."""
        name = source_of(document_id)
        is_anothers = any(name == neighbour._source_name for neighbour in self._neighbours)  # noqa: SLF001 - of this class
        return name == self._source_name or (self._is_first and not is_anothers)

    async def _folder(self) -> _Folder:
        snapshot = await self._runtime.in_thread(self._source.scan)
        glances = await self._ledger_lane.run(self._ledger.glances)
        found = await self._runtime.in_thread(difference, snapshot, glances, self._reader.cutting)
        return _Folder(snapshot.files.keys(), frozenset(found.gone))

    async def _traces(self, entries: Collection[Entry], *, is_deep: bool) -> tuple[Mapping[str, list[Trace]], int]:
        """The records that entries name, by path, and how many vectors could not be compared."""
        place_of = {id_: entry.path for entry in entries for id_ in chain(entry.tags, entry.doubtful)}
        traces: dict[str, list[Trace]] = defaultdict(list)
        unchecked_vectors = 0
        for page in _pages(list(place_of), MAX_READ):
            records = await self._sink_lane.run(partial(self._sink.read, with_vectors=is_deep), page)
            faults: Mapping[str, Kind] = {}
            if is_deep:
                faults, unchecked = await self._vector_faults(records)
                unchecked_vectors += unchecked
            for held in records:
                traces[place_of[held.id]].append(trace(held, faults.get(held.id)))
        return traces, unchecked_vectors

    async def _vector_faults(self, records: Sequence[Held]) -> tuple[Mapping[str, Kind], int]:
        keys = {held.id: vector_key(self._recipe, self._recipe.text_to_send(held.text)) for held in records}
        paid = await self._vectors_lane.run(self._vectors.get, keys.values())
        vectors = {held.id: held.vector for held in records if held.vector is not None}
        # A vector that cannot even be read is one that no search finds.
        faults = {held.id: Kind.UNREACHABLE for held in records if held.vector is None}
        faults |= {
            id_: Kind.ALTERED
            for id_, vector in vectors.items()
            if keys[id_] in paid and not _is_same(vector, paid[keys[id_]])
        }
        sound = [id_ for id_ in vectors if id_ not in faults]
        if sound:
            rows = np.stack([vectors[id_] for id_ in sound])
            lost = await self._sink_lane.run(self._sink.unreachable, sound, rows)
            # Such a record is deleted and added again: its vector is there to be kept, and need not be paid for.
            kept = {keys[id_]: vectors[id_] for id_ in lost if keys[id_] not in paid}
            if kept:
                await self._vectors_lane.run(self._vectors.put, kept)
            faults |= dict.fromkeys(lost, Kind.UNREACHABLE)
        return faults, sum(1 for id_ in keys if keys[id_] not in paid)

    async def _outdated(self, path: str, entry: Entry | None, folder: _Folder) -> tuple[Finding, ...]:
        """Whether the ledger says of a document what its file says. Raises `TransientError` for a file in motion."""
        if path in folder.gone:
            return (Finding(Kind.GONE, path, reason="the file is gone"),)
        if path not in folder.files:
            return ()
        try:
            document = await self._runtime.in_thread(self._reader.read, path)
        except DocumentError as error:
            is_known = entry is not None and entry.problem is not None
            return () if is_known else (Finding(Kind.OUTDATED, path, reason=f"it cannot be indexed: {error}"),)
        reason = await self._runtime.in_thread(self._difference, document, entry)
        return (Finding(Kind.OUTDATED, path, reason=reason),) if reason else ()

    def _difference(self, document: Document, entry: Entry | None) -> str:
        """What a document has that its entry has not; empty where they agree."""
        if entry is None:
            return "it was never indexed"
        if entry.problem is not None:
            # It was refused by the model or by Chroma, who are not asked again for the same content.
            is_same = entry.stat.same_content_as(document.stat) and entry.cutting == document.stat.attached
            return "" if is_same else "it has changed since it was set aside"
        if entry.is_unfinished or document.stat.attached == UNTELLABLE:
            return ""
        plan = plan_document(
            document,
            entry,
            document_id=entry.document_id,
            cutting=self._reader.cutting,
            model=self._recipe.model,
            now_seconds=self._runtime.now_seconds(),
        )
        if not plan.touches_chroma:
            return ""
        return f"{len(plan.embed)} chunks to add, {len(plan.retag)} to retag, {len(plan.drop)} to drop"


def _is_same(held: Vector, paid: Vector) -> bool:
    return held.shape == paid.shape and bool(np.allclose(held, paid, rtol=_VECTOR_TOLERANCE, atol=_VECTOR_TOLERANCE))


def _pages(values: Sequence[str], length: int) -> Iterator[list[str]]:
    for start in range(0, len(values), length):
        yield list(values[start : start + length])
