"""What happened and when: the trace that people read, and the stamps that the oracles judge by.

Invariant: a trace holds nothing that differs between two runs of a seed; its digest is that of all its lines.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

TAIL_LINES = 120


@dataclass(slots=True)
class Stamp:
    """When something came to differ from what the collection held, and when the engine was told."""

    at_seconds: float
    seen_seconds: float | None = None


@dataclass(slots=True)
class Excuse:
    """A span in which nobody can be expected to do anything about some text."""

    since_seconds: float
    until_seconds: float
    """Infinite until it is known."""
    why: str
    paths: frozenset[str] | None = None
    """Whose changes had to wait; None: all."""
    is_for_edits: bool = False
    """Whether only what comes in the place of a text had to wait: what is gone for good needs no model."""


class Violated(AssertionError):
    """An oracle has spoken."""


@dataclass(slots=True)
class Figures:
    """What a seed went through; counts."""

    seeds: int = 0
    seconds: float = 0.0
    """Virtual ones."""
    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    restarts: int = 0
    calls: int = 0

    def add(self, other: "Figures") -> None:
        """Count what another seed went through."""
        self.seeds += other.seeds
        self.seconds += other.seconds
        self.operations += other.operations
        self.faults += other.faults
        self.deaths += other.deaths
        self.restarts += other.restarts
        self.calls += other.calls

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.seconds / 3600:.1f} simulated hours, {self.operations.total()} operations, "
            f"{self.faults.total()} faults, {self.deaths} deaths, {self.restarts} restarts, {self.calls} calls"
        )


class History:
    """Kept by the world of one seed; `now` is its virtual time."""

    def __init__(self, now: Callable[[], float], listen: Callable[[str], None] | None = None) -> None:
        self.now = now
        self.figures = Figures(seeds=1)
        self.stale: defaultdict[str, dict[str, Stamp]] = defaultdict(dict)
        """Path -> texts that it held once and holds no more."""
        self.changed: dict[str, Stamp] = {}
        """Path -> its last change."""
        self.excuses: list[Excuse] = []
        self.paid: Counter[str] = Counter()
        self.may_be_paid_again: Counter[str] = Counter()
        self._listen = listen
        self._lines: list[tuple[float, str]] = []
        self._digest = hashlib.blake2b(digest_size=8)

    def tell(self, line: str) -> None:
        """Write a line of the trace."""
        entry = (self.now(), line)
        self._lines.append(entry)
        self._digest.update(f"{entry[0]:.9f} {line}\n".encode("utf-8", "surrogateescape"))
        if self._listen is not None:
            self._listen(_written(*entry))

    @property
    def digest(self) -> str:
        """Name of the whole trace."""
        return self._digest.hexdigest()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of the trace, for people."""
        return "\n".join(_written(*entry) for entry in self._lines[-lines:])

    def change(self, path: str, gone: Iterable[str], come: Iterable[str]) -> None:
        """A path has lost some texts and got others, or is otherwise not what it was."""
        now_seconds = self.now()
        if (before := self.changed.get(path)) is not None:
            now_seconds = max(now_seconds, before.at_seconds)  # what was disturbed is not seen before its time
        self.changed[path] = Stamp(now_seconds)
        stale = self.stale[path]
        for text in sorted(gone):
            stale[text] = Stamp(now_seconds)
        for text in come:
            stale.pop(text, None)

    def see(self, is_meant: Callable[[str], bool], until_seconds: float | None = None) -> None:
        """The engine was told of some paths, as they were at that time."""
        now_seconds = self.now()
        until_seconds = now_seconds if until_seconds is None else until_seconds
        for path, changed in self.changed.items():
            if not is_meant(path):
                continue
            for stamp in (changed, *self.stale[path].values()):
                if stamp.seen_seconds is None and stamp.at_seconds <= until_seconds:
                    stamp.seen_seconds = now_seconds

    def disturb(self, paths: Iterable[str], seconds: float = 0.0) -> None:
        """What differs at some paths is for the engine to find, which cannot see it before so many seconds."""
        for path in paths:
            now_seconds = self.now() + seconds
            if (before := self.changed.get(path)) is not None:
                now_seconds = max(now_seconds, before.at_seconds)
            self.changed[path] = Stamp(now_seconds)
            for stamp in self.stale[path].values():
                stamp.at_seconds, stamp.seen_seconds = now_seconds, None

    def forget_seen(self) -> None:
        """A process died, and what it was told with it: the next one looks for itself."""
        for path, changed in self.changed.items():
            for stamp in (changed, *self.stale[path].values()):
                stamp.seen_seconds = None

    def excuse(
        self, seconds: float, why: str, paths: frozenset[str] | None = None, *, is_for_edits: bool = False
    ) -> Excuse:
        """From now on, for so long, nothing is expected."""
        found = Excuse(self.now(), self.now() + seconds, why, paths, is_for_edits)
        self.excuses.append(found)
        return found

    def excuse_until_ended(self, why: str) -> Callable[[], None]:
        """From now on nothing is expected, until what comes back is called."""
        found = self.excuse(float("inf"), why)

        def end() -> None:
            found.until_seconds = min(found.until_seconds, self.now())

        return end

    def excused_seconds(self, path: str, since_seconds: float, until_seconds: float, *, is_edit: bool) -> float:
        """How much of a span somebody had a reason to do nothing about a path."""
        spans = sorted(
            (max(since_seconds, excuse.since_seconds), min(until_seconds, excuse.until_seconds))
            for excuse in self.excuses
            if (excuse.paths is None or path in excuse.paths)
            and (is_edit or not excuse.is_for_edits)
            and excuse.until_seconds > since_seconds
        )
        excused_seconds, reached_seconds = 0.0, since_seconds
        for begin_seconds, end_seconds in spans:
            if end_seconds > reached_seconds:
                excused_seconds += end_seconds - max(begin_seconds, reached_seconds)
                reached_seconds = end_seconds
        return excused_seconds

    def pay(self, texts: Sequence[str]) -> None:
        """The provider has worked on texts, and will bill them."""
        self.paid.update(texts)

    def let_pay_again(self, texts: Iterable[str]) -> None:
        """What was or will be paid for texts is lost, and nobody can help it."""
        self.may_be_paid_again.update(texts)

    def paid_twice(self) -> list[str]:
        """Texts that were paid for more often than they had to be."""
        return sorted(text for text, times in self.paid.items() if times > 1 + self.may_be_paid_again[text])


def _written(seconds: float, line: str) -> str:
    return f"{seconds:11.4f}  {line}"
