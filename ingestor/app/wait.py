"""`wait`: until files are searchable as they are on the disk.

Takes no lock, asks no service, and writes nothing: what a file says of itself now is compared with what the ledger says
that Chroma holds, by the daemon's own decision (`core/reconciling.py`). So a file that was written a moment ago, and
whose event nobody has seen yet, is not taken for searchable because an older state of it is.

Invariant: a path counts from the moment at which it was found equal, nothing of it was doubtful, and it was not queued.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ingestor.adapters.folder import Folder
from ingestor.adapters.instance import Instance
from ingestor.adapters.ledger import SqliteLedger
from ingestor.app.parts import cutter_of, folders_of, ledger_of
from ingestor.app.status import below
from ingestor.core.errors import ConfigError, DocumentError
from ingestor.core.paths import is_at_or_below
from ingestor.core.reconciling import difference, differs
from ingestor.engine.guard import holding_in
from ingestor.engine.reconcile import CONVERTER_REMEDY
from ingestor.settings import Settings

POLL_SECONDS = 0.2
_POLL_SHARE = 0.2
"""Looking takes at most this share of the time, so that very many files are looked at less often."""
_ALIVE_SECONDS = 1.0
"""How often it is asked whether anybody is at work."""
_RESTART_SECONDS = 10.0
"""How long somebody who was at work may be away: a service manager starts a daemon that died again."""
_START_SECONDS = 3.0
"""How long somebody may take to begin: a script that has just started a daemon need not pause before it waits."""


class State(StrEnum):
    """What has become of a path."""

    SEARCHABLE = "searchable"
    GONE = "gone"
    """It is not on the disk, and none of its records is in the collection."""
    PROBLEM = "problem"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Awaited:
    """One path; `reason` and `remedy` say why it is a Problem, or what it still waits for as far as that is known."""

    source: str
    path: str
    state: State
    reason: str = ""
    remedy: str = ""
    waits_for: str = ""
    """The service that it waits for, where that is what it still waits for."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How a wait has ended."""

    paths: Sequence[Awaited]
    """By source and path."""
    is_attended: bool
    """Whether anybody was at work who could index what waits."""
    seconds: float

    def of(self, state: State) -> list[Awaited]:
        """The paths in a state."""
        return [each for each in self.paths if each.state is state]


def wait(settings: Settings, paths: Sequence[str], timeout_seconds: float, tell: Callable[[int, int], None]) -> Waited:
    """Wait for files, and for all files below folders; `tell` is told how many of how many are done.

    Ends when nothing waits any more, after `timeout_seconds`, or when nobody is at work who could index what waits.
    Raises `ConfigError` for a path outside of every source, left out by the rules, or that nobody knows.
    """
    began_seconds = time.monotonic()
    posts = [_Post(each, folder) for each, folder in zip(settings.each(), folders_of(settings), strict=True)]
    for path in paths:
        _place(posts, path)
    attendance = _Attendance(settings)
    while True:
        looked_seconds = time.monotonic()
        for post in posts:
            post.look()
        pending = sum(len(post.pending) for post in posts)
        tell(sum(len(post.done) for post in posts), pending)
        now_seconds = time.monotonic()
        is_attended = not pending or attendance.is_kept(now_seconds)
        if not pending or not is_attended or now_seconds - began_seconds >= timeout_seconds:
            found = itertools.chain.from_iterable(post.told() for post in posts)
            return Waited(tuple(found), is_attended, round(now_seconds - began_seconds, 3))
        time.sleep(max(POLL_SECONDS, (now_seconds - looked_seconds) / _POLL_SHARE))


def _place(posts: Sequence["_Post"], wanted: str) -> None:
    """Find the source that a path of the user lies in."""
    if not wanted:
        raise ConfigError("a path is empty", remedy="name a file or a folder")
    is_there = os.path.lexists(wanted)
    for post in posts:
        path = _inside(post.settings, wanted)
        if path is None:
            continue
        is_by_place = is_there or not post.is_by_name(wanted)
        if is_by_place or post.knows(path):
            post.take(path, wanted)
            return
    folders = ", ".join(str(post.settings.watch_dir) for post in posts)
    if is_there:
        raise ConfigError(f"{wanted} lies outside of the watched folder ({folders})", remedy="name a file inside of it")
    raise ConfigError(f"there is no file {wanted}, and none was indexed", remedy=f"name a file below {folders}")


def _inside(settings: Settings, wanted: str) -> str | None:
    """Path of a file below the watched folder, as it is named, links and all; None when it lies elsewhere."""
    relative = os.path.relpath(wanted, settings.watch_dir)
    if relative != ".." and not relative.startswith("../"):
        return "" if relative == "." else relative
    return below(settings, wanted)


class _Attendance:
    """Whether anybody is at work on the data folder."""

    def __init__(self, settings: Settings) -> None:
        self._instance = Instance(settings.data_dir)
        self._asked_seconds = -_ALIVE_SECONDS
        self._until_seconds = time.monotonic() + _START_SECONDS

    def is_kept(self, now_seconds: float) -> bool:
        """Whether it is worth waiting on."""
        if now_seconds - self._asked_seconds >= _ALIVE_SECONDS:
            self._asked_seconds = now_seconds
            if self._instance.running() is not None:
                self._until_seconds = now_seconds + _RESTART_SECONDS
        return now_seconds < self._until_seconds


@dataclass(slots=True)
class _Post:
    """What is waited for in one source."""

    settings: Settings
    folder: Folder
    pending: set[str] = field(default_factory=set)
    done: dict[str, Awaited] = field(default_factory=dict)

    def is_by_name(self, wanted: str) -> bool:
        """Whether a path that is not there is meant as records name it, not as it lies in the file system."""
        relative = os.path.relpath(os.path.realpath(wanted), os.path.realpath(self.settings.watch_dir))
        return relative.startswith("..")

    def knows(self, path: str) -> bool:
        """Whether a path is there, below the watched folder, or was once."""
        if os.path.lexists(self.settings.watch_dir / path):
            return True
        with ledger_of(self.settings) as ledger:
            return ledger is not None and bool(ledger.glances(path))

    def take(self, path: str, wanted: str) -> None:
        """Wait for a file, or for all below a folder. Raises `ConfigError` for what does not belong to the source."""
        snapshot = self.folder.scan(path)
        with ledger_of(self.settings) as ledger:
            glances = ledger.glances(path) if ledger else {}
            found = difference(snapshot, glances, cutter_of(self.settings).recipe)
            # What is in work may be written a moment after its file has gone.
            queued = [each for each in ledger.waiting() if is_at_or_below(each, path)] if ledger else []
            self.pending.update(found.present, found.gone, queued)
            self._settle(snapshot.files.keys() - set(found.present), ledger)
        for folder, reason in snapshot.unreadable.items():
            self._finish(folder, State.PROBLEM, f"the folder {reason}")
        if path in snapshot.unconverted:
            raise ConfigError(f"nothing here converts {wanted} to text", remedy=CONVERTER_REMEDY)
        is_nothing = not (snapshot.files or glances or snapshot.unreadable or snapshot.unconverted)
        if path and is_nothing:
            self._refuse(path, wanted, snapshot.skipped.get(path, ""))

    def _refuse(self, path: str, wanted: str, reason: str) -> None:
        """Raise `ConfigError` for what is there and does not belong; nothing happens for an empty folder."""
        place = self.settings.watch_dir / path
        if not os.path.lexists(place):
            self._finish(path, State.GONE)
            return
        reason = reason or self.folder.rule_against(path, is_folder=place.is_dir())
        if reason:
            raise ConfigError(f"{wanted} is left out: {reason}", remedy="name another file, or change that rule")

    def look(self) -> None:
        """Compare what waits with what the ledger says."""
        if not self.pending:
            return
        cutting = cutter_of(self.settings).recipe
        with ledger_of(self.settings) as ledger:
            glances = ledger.glances_of(self.pending) if ledger else {}
            same: list[str] = []
            for path in list(self.pending):
                try:
                    if not differs(self.folder.look(path), glances.get(path), cutting):
                        same.append(path)
                except DocumentError as error:
                    self._finish(path, State.PROBLEM, str(error), error.remedy)
            self._settle(same, ledger)

    def _settle(self, same: Iterable[str], ledger: SqliteLedger | None) -> None:
        """Finish those of the paths that the ledger tells the truth of, unless they are queued all the same."""
        paths = list(same)
        if not paths:
            return
        waiting = ledger.waiting() if ledger else {}
        problems = dict(ledger.problems()) if ledger else {}
        for path in paths:
            if path in waiting:
                self.pending.add(path)
            elif path in problems:
                self._finish(path, State.PROBLEM, problems[path].reason, problems[path].remedy)
            else:
                is_there = os.path.lexists(self.settings.watch_dir / path)
                self._finish(path, State.SEARCHABLE if is_there else State.GONE)

    def _finish(self, path: str, state: State, reason: str = "", remedy: str = "") -> None:
        self.pending.discard(path)
        self.done[path] = Awaited(self.settings.source_name, path, state, reason, remedy)

    def told(self) -> list[Awaited]:
        """What has become of every path, by path."""
        with ledger_of(self.settings) as ledger:
            waiting = ledger.waiting() if ledger and self.pending else {}
            held = holding_in(ledger).waiting if ledger and self.pending else frozenset[str]()
        for path in self.pending:
            problem = waiting.get(path)
            reason, remedy, service = (problem.reason, problem.remedy, problem.service) if problem else ("", "", "")
            if path in held:
                service = ""
                reason, remedy = "deletions are held back", "run `ingestor approve`"
            self.done[path] = Awaited(self.settings.source_name, path, State.WAITING, reason, remedy, service)
        return [self.done[path] for path in sorted(self.done)]
