"""In-memory ledger and vector store, held to the contracts of the real ones by `tests/contract`."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ingestor.core.errors import DeletionHeld
from ingestor.core.model import Change, Entry, Glance, Plan, Priority, Problem, ServiceWait, Stat, Usage
from ingestor.core.planning import settled
from ingestor.ports import BACKFILL_SHARE, Totals, Vector


class MemoryVectors:
    """`ports.VectorStore` over a dictionary."""

    def __init__(self) -> None:
        self.held: dict[bytes, Vector] = {}

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        return {key: self.held[key] for key in keys if key in self.held}

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        self.held.update({key: np.asarray(vector, dtype=np.float32) for key, vector in vectors.items()})

    def see_room(self, vectors: int, dimensions: int) -> None:
        """There is room."""


ORDER = list(Priority)
"""From the most urgent to the least."""


def _more_urgent(one: Change, other: Change) -> Priority:
    return min(one.priority, other.priority, key=ORDER.index)


def _is_urgent(change: Change, least: Priority) -> bool:
    return ORDER.index(change.priority) <= ORDER.index(least)


class MemoryLedger:
    """`ports.Ledger` over dictionaries; `documents` and `queue` are the truth to assert on."""

    def __init__(self) -> None:
        self.documents: dict[str, Entry] = {}
        self.queue: dict[str, Change] = {}
        self.leased: set[str] = set()
        self.usage = Usage()
        self.tokens: Counter[str] = Counter()
        self.notes: dict[str, str] = {}
        self.dropped = 0
        self.holding: dict[str, bool] = {}

    def glances(self, below: str = "") -> dict[str, Glance]:
        return {
            path: glance
            for path, glance in self.glances_of(entry.path for entry in self.documents.values()).items()
            if not below or path == below or path.startswith(f"{below}/")
        }

    def glances_of(self, paths: Iterable[str]) -> dict[str, Glance]:
        return {
            path: (entry.stat.version, entry.cutting, entry.is_unfinished)
            for path, entry in self.entries(paths).items()
        }

    def entries(self, paths: Iterable[str]) -> dict[str, Entry]:
        wanted = set(paths)
        return {entry.path: entry for entry in self.documents.values() if entry.path in wanted}

    def entries_of(self, document_ids: Iterable[str]) -> list[Entry]:
        return [self.documents[id_] for id_ in document_ids if id_ in self.documents]

    def some(self, offset: int, limit: int) -> list[Entry]:
        return [self.documents[id_] for id_ in sorted(self.documents)[offset : offset + limit]]

    def kin(self, path: str, stat: Stat, content_hash: str) -> list[Entry]:
        entries = self.documents.values()
        own = [entry for entry in entries if entry.path == path]
        if own or not stat.size_bytes:
            return own
        key = (stat.inode, stat.size_bytes)
        near = [
            entry
            for entry in entries
            if (entry.stat.inode, entry.stat.size_bytes) == key
            and (entry.content_hash == content_hash or self.holding.get(entry.path) is not False)
        ]
        return near or [entry for entry in entries if entry.content_hash == content_hash]

    def tombstones(self) -> int:
        return self.dropped

    def set_tombstones(self, count: int) -> None:
        self.dropped = count

    def mark(self, entries: Sequence[Entry], dropped: int = 0, removed: Sequence[str] = ()) -> None:
        for path in removed:
            if self.holding.get(path) is False:
                raise DeletionHeld(f"the deletion of {path} is held back")
        self.holding.update(dict.fromkeys(removed, True))
        self.dropped += dropped
        for entry in entries:
            rival = self.entries([entry.path]).get(entry.path)
            assert rival is None or rival.document_id == entry.document_id, "two documents at one path"
            self.documents[entry.document_id] = entry

    def amend(self, corrections: Sequence[tuple[Entry | None, Entry]]) -> list[str]:
        amended: list[str] = []
        for before, after in corrections:
            known = [
                entry
                for entry in self.documents.values()
                if entry.document_id == after.document_id or entry.path == after.path
            ]
            if known == ([] if before is None else [before]) and after.path not in self.leased:
                self.documents[after.document_id] = after
                amended.append(after.path)
        return amended

    def commit(self, plans: Sequence[Plan], changes: Sequence[Change]) -> None:
        for plan in plans:
            if plan.after is None and plan.before is not None:
                self.documents.pop(plan.before.document_id, None)
        self.mark([plan.after for plan in plans if plan.after is not None])
        self.hold_no_more(settled(plans, changes))
        for change in changes:
            queued = self.queue.get(change.path)
            if queued is not None and queued.generation == change.generation:
                del self.queue[change.path]
            self.leased.discard(change.path)

    def enqueue(self, paths: Iterable[str], change: Change) -> int:
        before = len(self.queue)
        for path in paths:
            known = self.queue.get(path)
            if known is None:
                self.queue[path] = replace(change, path=path)
                continue
            self.queue[path] = replace(
                known,
                priority=_more_urgent(known, change),
                enqueued_seconds=min(known.enqueued_seconds, change.enqueued_seconds),
                not_before_seconds=min(known.not_before_seconds, change.not_before_seconds),
                generation=known.generation + 1,
            )
        return len(self.queue) - before

    def urge(self, paths: Iterable[str], change: Change) -> None:
        for path in self.queue.keys() & set(paths):
            known = self.queue[path]
            self.queue[path] = replace(
                known,
                priority=_more_urgent(known, change),
                not_before_seconds=min(known.not_before_seconds, change.not_before_seconds),
                generation=known.generation + 1,
            )

    def lease(
        self,
        limit: int,
        now_seconds: float,
        *,
        least: Priority = Priority.BACKFILL,
        in_work: Collection[str] | None = None,
    ) -> list[Change]:
        if in_work is not None:
            self.leased.intersection_update(in_work)
        due = [
            change
            for path, change in self.queue.items()
            if path not in self.leased and change.not_before_seconds <= now_seconds and _is_urgent(change, least)
        ]
        due.sort(key=lambda change: (ORDER.index(change.priority), change.enqueued_seconds))
        urgent = [change for change in due if change.is_live]
        backfill = [change for change in due if not change.is_live]
        urgent = urgent[: limit - min(len(backfill), limit // BACKFILL_SHARE)]
        due = [*urgent, *backfill[: limit - len(urgent)]]
        self.leased |= {change.path for change in due}
        return due

    def release(self, changes: Sequence[Change]) -> None:
        for change in changes:
            queued = self.queue[change.path]
            priority = _more_urgent(queued, change)
            if queued.generation == change.generation:
                self.queue[change.path] = replace(change, priority=priority, enqueued_seconds=queued.enqueued_seconds)
            else:
                self.queue[change.path] = replace(queued, priority=priority, attempts=0, problem=change.problem)
            self.leased.discard(change.path)

    def hasten(self, now_seconds: float, service: str) -> None:
        for path, change in self.queue.items():
            if change.problem is not None and change.problem.service == service:
                due_seconds = min(change.not_before_seconds, now_seconds)
                self.queue[path] = replace(change, not_before_seconds=due_seconds, problem=None)

    def release_all(self) -> None:
        self.leased.clear()
        self.queue = {path: replace(change, not_before_seconds=0.0) for path, change in self.queue.items()}

    def make_due(self, now_seconds: float) -> None:
        for path, change in self.queue.items():
            self.queue[path] = replace(change, not_before_seconds=min(change.not_before_seconds, now_seconds))

    def dequeue(self, paths: Iterable[str]) -> None:
        for path in set(paths) - self.leased:
            self.queue.pop(path, None)

    def held(self) -> dict[str, bool]:
        return dict(sorted(self.holding.items()))

    def hold(self, paths: Iterable[str]) -> None:
        held = list(paths)
        for path in held:
            self.holding.setdefault(path, False)
        self.dequeue(held)

    def hold_no_more(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.holding.pop(path, None)

    def approve(self, paths: Iterable[str]) -> int:
        meant = [path for path in set(paths) if self.holding.get(path) is False]
        self.holding.update(dict.fromkeys(meant, True))
        return len(meant)

    def next_due_seconds(self, *, least: Priority = Priority.BACKFILL) -> float | None:
        return min(
            (
                change.not_before_seconds
                for path, change in self.queue.items()
                if path not in self.leased and _is_urgent(change, least)
            ),
            default=None,
        )

    def waiting(self) -> dict[str, Problem | None]:
        return {path: change.problem for path, change in self.queue.items()}

    def problems(self) -> list[tuple[str, Problem]]:
        found = {entry.path: entry.problem for entry in self.documents.values() if entry.problem}
        found |= {
            path: change.problem for path, change in self.queue.items() if change.problem and not change.problem.service
        }
        return sorted(found.items())

    def totals(self) -> Totals:
        sound = [entry for entry in self.documents.values() if entry.problem is None]
        return Totals(
            documents=len(sound),
            chunks=sum(len(entry.tags) for entry in self.documents.values()),
            queued=len(self.queue.keys() - self.leased),
            in_flight=len(self.leased),
            problems=len(self.documents) - len(sound),
            retrying=sum(1 for change in self.queue.values() if change.problem and not change.problem.service),
            usage=self.usage,
            waits=tuple(self._waits()),
        )

    def _waits(self) -> Iterator[ServiceWait]:
        failed = [change.problem for change in self.queue.values() if change.problem]
        for service in sorted({problem.service for problem in failed} - {""}):
            problems = [problem for problem in failed if problem.service == service]
            latest = max(problems, key=lambda problem: problem.next_try_seconds or 0.0)
            since_seconds = min(problem.since_seconds for problem in problems)
            next_try_seconds = min(problem.next_try_seconds or 0.0 for problem in problems)
            yield ServiceWait(service, len(problems), latest.reason, latest.remedy, since_seconds, next_try_seconds)

    def rewrite(self, change: Callable[[Entry], Entry]) -> None:
        self.documents = {document_id: change(entry) for document_id, entry in self.documents.items()}

    def add_usage(self, usage: Usage, day: str) -> None:
        self.usage += usage
        self.tokens[day] += usage.tokens

    def tokens_on(self, day: str) -> int:
        return self.tokens[day]

    def note(self, name: str) -> str | None:
        return self.notes.get(name)

    def set_note(self, name: str, value: str) -> None:
        self.notes[name] = value
