"""What must hold in every seed. Each oracle speaks a sentence; the first one to speak ends the seed."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ingestor.app.health import State, health
from ingestor.app.status import Status
from ingestor.core.model import Document, Record, Scalar
from ingestor.engine.daemon import IN_STEP, STATE_NOTE
from ingestor.engine.reconcile import LAST_RECONCILE_NOTE, UNREADABLE_NOTE
from tests.simulation.faults import RECIPE
from tests.simulation.history import Violated
from tests.unit.test_health import QUIET

if TYPE_CHECKING:
    from tests.simulation.world import World

STALE_SECONDS = 5.0
"""How long a search may still find a text after its deletion was seen."""
LAG, LAG_SECONDS = 1, 20.0
"""What waits for another path's write, which has had to wait itself, looks after doubling pauses whether it is done."""
WRITTEN_SECONDS = 2.0
"""How long a text may still be written after its deletion was seen: until the group is through that it is in."""
IN_STEP_SECONDS = 2.5
"""How long after a difference was seen it may still be said that there is none."""
CHECK_SECONDS = 0.5
_VARYING = frozenset({"document_id", "ingested_at"})

_Records = Counter[tuple[str, tuple[tuple[str, Scalar], ...]]]


class Oracles:
    """Judges one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.accused: asyncio.Future[None] = world.loop.create_future()
        self._sentence = ""
        self._expected: dict[str, _Records] = {}
        self._held: dict[str, _Records] = {}
        self._held_version = -1
        self._kept_back: dict[str, frozenset[str]] = {}
        """Path whose deletion waits for approval -> the ids of its records."""
        self._came_back: set[str] = set()
        """Paths that were held back and had a file again, however briefly: nobody can tell who has seen that."""
        self._since: dict[tuple[str, str], float] = {}
        """Path and text of what is in a file -> since when."""
        self._found: set[tuple[str, str]] = set()
        """Path and text of what was searchable, and has been in its file ever since."""
        self._rested: dict[str, float] = {}
        """Path -> when a file that changes again and again was last left alone for that."""
        self._end_hold: Callable[[], None] | None = None

    def accuse(self, oracle: str, sentence: str) -> None:
        """Say what must not be."""
        if not self._sentence:
            self._sentence = f"{oracle}: {sentence}"
            self._world.history.tell(f"! {self._sentence}")
            self.accused.set_result(None)

    def judge(self) -> None:
        """Raise `Violated` when something was not as it must be."""
        if complaints := self._world.loop.complaints:
            self.accuse("an error that nobody has looked at", complaints[0])
        if self._sentence:
            raise Violated(self._sentence)

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self._excuse_what_is_held()
            self._see_that_nothing_is_stale()
            self._see_that_nothing_is_lost()
            self._see_that_nothing_is_paid_twice()
            self._see_that_what_is_held_stays()
            self._see_that_what_is_foreign_stays()

    # The collection and the folder

    def note_change(self, path: str) -> None:
        """What is expected of a path is another thing now."""
        if path in self._world.documents and path in self._world.ledger.holding:
            self._came_back.add(path)
            self._kept_back.pop(path, None)
        self._expected.pop(path, None)
        lines = self._world.lines.get(path, frozenset())
        self._found = {(where, text) for where, text in self._found if where != path or text in lines}
        if self._world.is_hidden(path):
            lines = frozenset()
        now_seconds = self._world.loop.time()
        since = {(path, text): self._since.get((path, text), now_seconds) for text in lines}
        self._since = {place: seconds for place, seconds in self._since.items() if place[0] != path} | since

    def disturbed(self) -> None:
        """The collection was changed behind the engine's back."""
        self._found.clear()
        self._kept_back.clear()  # what is left of it is noted again

    def differences(self) -> list[str]:
        """Paths of which the collection does not hold what the folder does."""
        held = self._held_by_path()
        paths = sorted({*held, *self._world.documents})
        return [path for path in paths if not self._world.is_hidden(path) and held.get(path, _NONE) != self._of(path)]

    def _of(self, path: str) -> _Records:
        if path not in self._expected:
            document = self._world.documents.get(path)
            self._expected[path] = _NONE if document is None else _records_of(document)
        return self._expected[path]

    def _held_by_path(self) -> Mapping[str, _Records]:
        sink = self._world.sink
        version = len(sink.calls)
        if version != self._held_version:
            found: defaultdict[str, _Records] = defaultdict(Counter)
            for held in self._world.records.values():
                metadata = held.metadata or {}
                items = tuple(sorted((key, value) for key, value in metadata.items() if key not in _VARYING))
                found[str(metadata["source"])][str(held.document), items] += 1
            self._held, self._held_version = found, version
        return self._held

    # At rest

    def unrest(self) -> str:
        """What is not as it must be at rest; "" when all is."""
        return next(filter(None, self._unrest()), "")

    def _unrest(self) -> Iterator[str]:
        world = self._world
        if differences := self.differences():
            yield f"the collection differs from the folder at {', '.join(differences)}"
        if world.ledger.queue:
            yield f"changes are queued: {', '.join(world.ledger.queue)}"
        if world.weather.pending:
            yield "a call is still to come"
        if not world.life.is_ready or world.life.sentence != IN_STEP:
            yield f"the daemon says: {world.life.sentence!r}"
        expected = {path for path, document in world.documents.items() if document is None}
        if problems := {path for path, _ in world.ledger.problems()} - expected - world.folder.closed:
            yield f"problems that are none: {', '.join(sorted(problems))}"
        if world.life.pipeline is not None and world.life.pipeline.outage:
            yield f"an outage that is none: {world.life.pipeline.outage}"

    # While it works

    def hear(self, sentence: str) -> None:
        """The daemon says what it does."""
        if sentence == IN_STEP:
            self._see_that_it_is_in_step("the daemon")
        # What another process tells is what could be written down.
        now_seconds = self._world.loop.time()
        is_late = self._world.history.excused_seconds("", now_seconds - STALE_SECONDS, now_seconds, is_edit=False) > 0
        if self._world.life.is_ready and not is_late and health(self._status()).state is State.IN_STEP:
            self._see_that_it_is_in_step("status")

    def _status(self) -> Status:
        """What another process would tell."""
        ledger = self._world.ledger
        state = json.loads(ledger.note(STATE_NOTE) or "{}")
        return replace(
            QUIET,
            totals=ledger.totals(),
            last_reconcile=json.loads(ledger.note(LAST_RECONCILE_NOTE) or "null"),
            held_deletions=len(self._world.held),
            unreadable_folders=len(json.loads(ledger.note(UNREADABLE_NOTE) or "{}")),
            watching=str(state.get("watching", "")),
            outage=str(state.get("outage", "")),
            is_behind=bool(state.get("is_behind")),
        )

    def _see_that_it_is_in_step(self, who: str) -> None:
        if self._world.folder.unreadable:
            return  # which is told apart
        now_seconds = self._world.loop.time()
        problems = {entry.path for entry in self._world.ledger.documents.values() if entry.problem}
        for path in self.differences():
            if path in problems:
                continue  # which is told apart
            changed = self._world.history.changed.get(path)
            if changed is None or changed.seen_seconds is None or self._world.is_hidden(path):
                continue
            if now_seconds > changed.seen_seconds + IN_STEP_SECONDS:
                when = f"changed at {changed.at_seconds:.3f}, seen at {changed.seen_seconds:.3f}"
                self.accuse(f"{who} says that all is in step", f"{path} differs: {when}")

    def _see_that_nothing_is_stale(self) -> None:
        history, now_seconds = self._world.history, self._world.loop.time()
        self._rested.update((path, now_seconds) for path in self._world.documents if self._world.rests(path))
        for held in self._world.records.values():
            path, text = str((held.metadata or {})["source"]), str(held.document)
            stamp = history.stale.get(path, {}).get(text)
            if stamp is None or stamp.seen_seconds is None or now_seconds <= stamp.seen_seconds + STALE_SECONDS:
                continue
            if self._world.is_hidden(path) or path in self._kept_back or self._world.held:
                continue
            if path in self._world.documents and now_seconds <= self._rested.get(path, 0.0) + STALE_SECONDS:
                continue  # it changes all the time
            # Also where it has moved to a file whose other texts wait for the model, and was edited there.
            is_edit = path in self._world.documents or any(text in lines for lines in self._world.lines.values())
            is_edit = is_edit or self._world.is_taken_by_another(str((held.metadata or {})["document_id"]), path)
            excused_seconds = history.excused_seconds(path, stamp.seen_seconds, now_seconds, is_edit=is_edit)
            if now_seconds > stamp.seen_seconds + STALE_SECONDS + _lag_seconds(excused_seconds):
                when = f"since {stamp.at_seconds:.3f}, which was seen at {stamp.seen_seconds:.3f}"
                self.accuse("a search finds what is gone", f"{text!r} of {path} is gone {when}")

    def _see_that_nothing_is_lost(self) -> None:
        """Of a text that stays in its file there is always a record: a new one comes before the old one goes."""
        held = {(path, text) for path, records in self._held_by_path().items() for text, _ in records}
        for path, text in sorted(self._found - held):
            if self._is_settled(path, text):
                self.accuse("a search misses what is there", f"{text!r} of {path}")
        for path, lines in self._world.lines.items():
            if not self._world.is_hidden(path):
                self._found.update((path, text) for text in lines if (path, text) in held)

    def added(self, records: Sequence[Record]) -> None:
        """Records were written just now."""
        history, now_seconds = self._world.history, self._world.loop.time()
        for record in records:
            path = str(record.metadata["source"])
            stamp = history.stale.get(path, {}).get(record.text)
            if path in self._world.documents or stamp is None or stamp.seen_seconds is None:
                continue
            excused_seconds = history.excused_seconds(path, stamp.seen_seconds, now_seconds, is_edit=False)
            if now_seconds > stamp.seen_seconds + WRITTEN_SECONDS + _lag_seconds(excused_seconds):
                when = f"at {stamp.at_seconds:.3f}, seen at {stamp.seen_seconds:.3f}"
                self.accuse("a text is written although its file is gone", f"{record.text!r} of {path}, gone {when}")

    def dropped(self, ids: Sequence[str]) -> None:
        """Records are about to be deleted."""
        left: Counter[tuple[str, str]] = Counter()
        wanted: set[tuple[str, str]] = set()
        for id_, held in self._world.records.items():
            place = str((held.metadata or {})["source"]), str(held.document)
            if id_ in ids:
                wanted.add(place)
            else:
                left[place] += 1
        for path, text in sorted(wanted - left.keys()):
            if self._is_settled(path, text):
                self.accuse("what is there is deleted", f"{text!r} of {path}")

    def _is_settled(self, path: str, text: str) -> bool:
        """Whether a text has been in its file for so long that nobody has a reason to take it for gone."""
        now_seconds, since_seconds = self._world.loop.time(), self._since.get((path, text))
        if since_seconds is None or self._world.is_hidden(path):
            return False
        excused_seconds = self._world.history.excused_seconds(path, since_seconds, now_seconds, is_edit=True)
        return now_seconds > since_seconds + STALE_SECONDS + _lag_seconds(excused_seconds)

    def _see_that_nothing_is_paid_twice(self) -> None:
        # Texts of files: what the endpoint is probed with may cost something again.
        if twice := [text for text in self._world.history.paid_twice() if self._world.was_in_a_file(text)]:
            self.accuse("a text is paid for twice", ", ".join(twice))

    # Owners

    def _see_that_what_is_foreign_stays(self) -> None:
        if self._world.owners and (touched := self._world.owners.touched()):
            self.accuse("a record of another owner is touched", ", ".join(touched))

    # Held deletions

    def _excuse_what_is_held(self) -> None:
        # A document that was renamed into a folder that cannot be listed keeps what it had.
        is_held = bool(self._world.held or self._world.folder.unreadable)
        if is_held and self._end_hold is None:
            self._end_hold = self._world.history.excuse_until_ended("deletions wait, or a folder is unreadable")
        elif not is_held and self._end_hold is not None:
            self._end_hold()
            self._end_hold = None

    def _see_that_what_is_held_stays(self) -> None:
        self._came_back.update(path for path in self._world.held if path in self._world.documents)
        held = [path for path in self._world.held if path not in self._came_back]
        if any(path not in self._kept_back for path in held):
            self._note_what_is_held(held)
        for path, ids in list(self._kept_back.items()):
            left = {id_: self._world.sink.held[id_].metadata or {} for id_ in ids if id_ in self._world.sink.held}
            if any(metadata["source"] != path for metadata in left.values()):
                del self._kept_back[path]  # it was renamed
            elif any(
                (record.metadata or {})["source"] == path
                for id_, record in self._world.records.items()
                if id_ not in ids
            ):
                del self._kept_back[path]  # an edit of it was read before it went
            elif ids and not left:  # an edit that was under way takes old records away when its new ones are there
                self.accuse("a held deletion was carried out", path)
            elif ids and path not in held:  # without a record it was renamed before it was noted here
                self.accuse("a held deletion was forgotten", path)

    def note_approval(self, paths: Sequence[str]) -> None:
        """Somebody has approved of deletions."""
        for path in paths:
            self._kept_back.pop(path, None)

    def _note_what_is_held(self, held: Sequence[str]) -> None:
        # After a rename a record bears the path of before for as long as Chroma fails.
        paths = {id_: path for path, entry in self._world.ledger.documents.items() for id_ in entry.tags}
        ids: defaultdict[str, set[str]] = defaultdict(set)
        for id_, record in self._world.records.items():
            source = str((record.metadata or {})["source"])
            if paths.get(id_, source) == source:
                ids[source].add(id_)
        self._kept_back = {path: frozenset(ids[path]) for path in held} | self._kept_back


def _lag_seconds(excused_seconds: float) -> float:
    """How much later than at other times something may be done that had a reason to wait for so long."""
    return LAG * excused_seconds + (LAG_SECONDS if excused_seconds else 0.0)


_NONE: _Records = Counter()


def _records_of(document: Document) -> _Records:
    """What the collection should hold of a document, written down without the product's planning."""
    shared: dict[str, Scalar] = {
        **document.metadata,
        "source": document.path,
        "file_name": PurePosixPath(document.path).name,
        "file_size": document.stat.size_bytes,
        "last_modified": datetime.fromtimestamp(document.stat.mtime_ns // 10**9, UTC).isoformat(),
        "content_hash": document.content_hash,
        "file_type": document.file_type,
        "title": document.title,
        "embedding_model": RECIPE.model,
    }
    found: _Records = Counter()
    for ordinal, chunk in enumerate(document.chunks):
        own: dict[str, Scalar] = {
            "chunk": ordinal,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "heading": chunk.heading,
        }
        found[chunk.text, tuple(sorted({**shared, **own}.items()))] += 1
    return found
