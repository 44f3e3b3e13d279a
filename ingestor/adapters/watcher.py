"""The watch over a folder: watchdog's events as hints, and the supervision that watchdog lacks.

Events are only ever hints, so a lost one costs latency as long as its loss is told. What can go wrong is therefore not
repaired here but told by `doubt`, and the caller answers every doubt alike: stop, start, reconcile.

Invariants: watchdog's threads never see an exception of ours; no hint is emitted after `stop` has returned; a condition
that a new start cannot cure is told once, so that a caller who restarts on every doubt comes to rest.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from ingestor.adapters.mounts import Mount, mount_of, mounts_below, read_mounts
from ingestor.adapters.thread_faults import describe, forget, listen
from ingestor.adapters.watch_audit import Audit, audit_watch, repeated_folder, walk_folders
from ingestor.adapters.watch_observers import (
    KernelObserver,
    PolledObserver,
    SupervisedObserver,
    silence_known_noise,
)
from ingestor.core.errors import ServiceUnavailable, WatcherDied
from ingestor.core.model import Doubt, DoubtKind, Hint

Polling: TypeAlias = Literal["auto", "always", "never"]

_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    FileAttribEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
    DirAttribEvent,
]
_QUIET_SECONDS = 0.6
"""watchdog holds a folder that was moved away for 0.5 s, in case it comes back; before that its map is not final."""
_PATIENCE_SECONDS = 10.0
"""Folders that come and go without a pause are audited after this time all the same."""
_AUDIT_SHARE = 0.05
"""Audits take at most this share of the time."""
_JOIN_SECONDS = 5.0
_MAX_WAITING_EVENTS = 100_000
"""Events that wait in watchdog's queue, which has no bound of its own; beyond this a reconcile is cheaper."""
_INSTANCES_GONE = frozenset({errno.EMFILE, errno.ENFILE})

_logger = logging.getLogger(__name__)


class Watcher:
    """Watches everything at and below `root`, a symbolic link to a folder included.

    `polling`: "auto" polls where the file system's type says that no events come, and where inotify has no room;
    "never" takes what inotify gives; "always" only polls, every `poll_seconds` or less often when a poll takes long.
    `follow_symlinks` follows symbolic links to folders that exist at the start, unless one leads back.
    `ignore` gets a relative path on watchdog's thread and drops its hints when it returns True; it has to be quick.
    """

    def __init__(
        self,
        root: Path,
        *,
        polling: Polling = "auto",
        follow_symlinks: bool = False,
        poll_seconds: float = 1.0,
        ignore: Callable[[str], bool] | None = None,
    ) -> None:
        self._given_root = os.path.abspath(root)  # noqa: PTH100 - without resolving: a link may be turned elsewhere
        self._polling = polling
        self._follow_symlinks = follow_symlinks
        self._poll_seconds = poll_seconds
        self._ignore = ignore
        self._watch: _RunningWatch | None = None
        self._mode = "polling" if polling == "always" else "inotify"
        self._mode_reason = "not started"
        self._limitation = ""
        self._coverage: tuple[int, int] | None = None
        self._is_shortage_told = False

    @property
    def mode(self) -> str:
        """How events are had: "inotify" or "polling"; kept after the stop."""
        return self._mode

    @property
    def mode_reason(self) -> str:
        """One sentence that says why, what is not seen, and what can be done about it."""
        return self._mode_reason

    @property
    def limitation(self) -> str:
        """See `ports.Watch`; polling that the settings ask for is none."""
        return self._limitation

    @property
    def coverage(self) -> tuple[int, int] | None:
        """Folders that inotify watches, and folders that exist, as last counted; None when they were never counted."""
        return self._coverage

    def start(self, emit: Callable[[Hint], None]) -> None:
        """Watch from now on; a watch that runs already is ended first.

        Raises `ServiceUnavailable` when the root is missing or no folder, `WatcherDied` when no watch can be had.
        """
        self.stop()
        silence_known_noise()
        root = os.path.realpath(self._given_root)
        watch = _RunningWatch(root, _identity_of_listable(root), _mounts_at(root), emit, self._ignore)
        try:
            self._observe(watch)
        except OSError as error:
            _report_leftovers(watch.end())
            raise _start_failure(root, error) from error
        except BaseException:
            _report_leftovers(watch.end())
            raise
        self._watch = watch

    def doubt(self) -> Doubt | None:
        """Why events may have been lost or will not come any more; None when all is well."""
        watch = self._watch
        if watch is None:
            return Doubt("the watch is not running", DoubtKind.THREAD)
        if watch.doubt is None:
            found = self._root_doubt(watch) or watch.find_dead_thread() or watch.find_backlog() or self._audit(watch)
            if found:
                watch.doubt = watch.doubt or found
        return watch.doubt or self._shortage_doubt(watch)

    def stop(self) -> None:
        """End the watch; no hint is emitted after this returns. May be called twice."""
        watch, self._watch = self._watch, None
        if watch is not None:
            _report_leftovers(watch.end())

    def _observe(self, watch: "_RunningWatch") -> None:
        mount = mount_of(watch.root, read_mounts())
        silent = [below for below in watch.mounts if below.is_silent and below.point != watch.root]
        watch.follows_symlinks, caveat = self._follow(watch.root)
        if self._polling == "always":
            self._poll(watch, "polling is what the settings ask for", caveat, is_wanted=True)
        elif self._polling == "auto" and mount is not None and mount.is_silent:
            self._poll(watch, f"{mount.point} is {mount.kind}, where changes by others send no events", caveat)
        elif shortage := self._observe_kernel(watch):
            if self._polling == "never":
                self._settle("inotify", f"{shortage}; changes in other folders are only found by scans", caveat)
            else:
                self._poll(watch, shortage, caveat)
        else:
            self._observe_silent(watch, silent, caveat)

    def _follow(self, root: str) -> tuple[bool, str]:
        if not self._follow_symlinks:
            return False, ""
        repeated = repeated_folder(os.fsencode(root))
        if repeated is None:
            return True, ""
        path = os.fsdecode(repeated)
        return False, f"symbolic links are not followed, because they lead to one folder twice ({path!r})"

    def _observe_kernel(self, watch: "_RunningWatch") -> str:
        """Watch with inotify; returns what it lacks, with the remedy, or "". Raises `OSError` for other failures."""
        try:
            kernel = KernelObserver(lambda reason: watch.remember(reason, DoubtKind.OVERFLOW))
        except OSError as error:
            if error.errno not in _INSTANCES_GONE or self._polling == "never":
                raise
            return _instances_sentence()
        try:
            watch.add(kernel, is_polled=False)
        except OSError as error:
            if error.errno != errno.ENOSPC or self._polling == "never":
                raise
            folders = walk_folders(os.fsencode(watch.root), follows_symlinks=watch.follows_symlinks)
            self._coverage = 0, sum(1 for _ in folders)
        else:
            watch.kernel = kernel
            audit = watch.audit()
            watch.accept(audit)
            self._note_coverage(audit, kernel)
        if not kernel.queue.is_exhausted:
            return ""
        if self._polling != "never":
            watch.drop(kernel)
        return self._coverage_sentence()

    def _observe_silent(self, watch: "_RunningWatch", silent: list[Mount], caveat: str) -> None:
        names = ", ".join(f"{below.point} ({below.kind})" for below in silent)
        if not silent:
            self._settle("inotify", "the file system sends events", caveat, is_wanted=True)
        elif self._polling == "never":
            self._settle("inotify", f"changes by others below {names} send no events: only scans find them", caveat)
        else:
            for below in silent:
                watch.add(PolledObserver(self._poll_seconds), is_polled=True, folder=below.point)
            self._settle("inotify", f"the file system sends events, but for {names}, which is polled", caveat)

    def _poll(self, watch: "_RunningWatch", reason: str, caveat: str, *, is_wanted: bool = False) -> None:
        watch.add(PolledObserver(self._poll_seconds), is_polled=True)
        self._settle("polling", reason, caveat, is_wanted=is_wanted)

    def _settle(self, mode: str, reason: str, caveat: str, *, is_wanted: bool = False) -> None:
        self._mode = mode
        self._mode_reason = f"{reason}; {caveat}" if caveat else reason
        self._limitation = caveat if is_wanted else self._mode_reason

    def _root_doubt(self, watch: "_RunningWatch") -> Doubt | None:
        try:
            stat = Path(self._given_root).stat()
        except OSError as error:
            return Doubt(f"the watched folder is gone or out of reach: {error.strerror}", DoubtKind.ROOT)
        if (stat.st_dev, stat.st_ino) != watch.identity:
            return Doubt("the watched folder was replaced by another one", DoubtKind.ROOT)
        changed = set(_mounts_at(watch.root)).symmetric_difference(watch.mounts)
        if changed:
            return Doubt(f"something was mounted or unmounted at {min(changed).point}", DoubtKind.ROOT)
        return None

    def _audit(self, watch: "_RunningWatch") -> Doubt | None:
        if not watch.is_audit_due(time.monotonic()):
            return None
        audit = watch.audit()
        if audit is None or watch.kernel is None:
            return None
        self._note_coverage(audit, watch.kernel)
        return watch.confirm(audit)

    def _shortage_doubt(self, watch: "_RunningWatch") -> Doubt | None:
        """Told once, and again only after every folder was watched: a restart alone may not cure it."""
        kernel = watch.kernel
        if kernel is None or self._is_shortage_told or not (kernel.queue.is_exhausted or watch.is_coverage_short):
            return None
        self._is_shortage_told = True
        if not kernel.queue.is_exhausted:
            watched, existing = self._coverage or (0, 0)
            reason = f"watching {watched} of {existing} folders: watchdog has missed some, or may not read them"
            return Doubt(reason, DoubtKind.FOLDERS)
        self._note_coverage(watch.audit(), kernel)
        return Doubt(self._coverage_sentence(), DoubtKind.FOLDERS)

    def _note_coverage(self, audit: Audit | None, kernel: KernelObserver) -> None:
        if audit is not None:
            self._coverage = audit.watched, audit.existing
            self._is_shortage_told = self._is_shortage_told and bool(audit.unwatched or kernel.queue.is_exhausted)

    def _coverage_sentence(self) -> str:
        counts = (
            "watching {} of {} folders".format(*self._coverage) if self._coverage else "watching some of the folders"
        )
        return f"{counts}; raise {_limit('max_user_watches', suggested=1_048_576)}"


@dataclass(slots=True)
class _RunningWatch:
    """Everything that belongs to one start, and is void after its stop."""

    root: str
    """The real path, without symbolic links."""
    identity: tuple[int, int]
    """Device and inode of the root."""
    mounts: tuple[Mount, ...]
    """Mounts at and below the root."""
    emit: Callable[[Hint], None]
    ignore: Callable[[str], bool] | None
    doubt: Doubt | None = None
    kernel: KernelObserver | None = None
    follows_symlinks: bool = False
    is_coverage_short: bool = False
    _observers: list[SupervisedObserver] = field(default_factory=list)
    _translations: list["_Translation"] = field(default_factory=list)
    _born_wrong: frozenset[bytes] = frozenset()
    """Findings of the audit right after the start: a file system's peculiarity, which no further start will cure."""
    _suspects: frozenset[bytes] = frozenset()
    """Findings of the last audit. Only what two audits find is believed: events may have been on their way."""
    _suspected_unwatched: frozenset[bytes] = frozenset()
    _trusts_inodes: bool = True
    _audited_seconds: float = 0.0
    _next_audit_seconds: float = 0.0
    _stirred_since_seconds: float | None = None

    def remember(self, reason: str, kind: DoubtKind) -> None:
        """Keep the first reason for doubt; called from any thread."""
        self.doubt = self.doubt or Doubt(reason, kind)

    def add(self, observer: SupervisedObserver, *, is_polled: bool, folder: str | None = None) -> None:
        """Start an observer; raises `OSError` when it cannot watch the folder (the root unless told)."""
        translation = _Translation(self, is_polled=is_polled)
        self._observers.append(observer)
        self._translations.append(translation)
        observer.schedule(
            translation,
            folder or self.root,
            recursive=True,
            event_filter=_EVENTS,
            follow_symlink=self.follows_symlinks,
        )
        listen(observer.threads, lambda reason: self.remember(reason, DoubtKind.THREAD))
        observer.start()

    def drop(self, observer: SupervisedObserver) -> None:
        """End one observer and keep the watch; what was doubtful about it is void."""
        self.kernel = None if observer is self.kernel else self.kernel
        self._observers.remove(observer)
        forget(observer.threads)
        _report_leftovers(observer.end(_JOIN_SECONDS))
        self.doubt = None

    def end(self) -> list[str]:
        """Stop emitting, then end every thread; returns what went wrong."""
        for translation in self._translations:
            translation.close()
        complaints = []
        for observer in self._observers:
            threads = observer.threads
            complaints += observer.end(_JOIN_SECONDS)
            forget(threads)
        return complaints

    def find_dead_thread(self) -> Doubt | None:
        """The first thread that should live and does not."""
        for observer in self._observers:
            for thread in observer.threads:
                if not thread.is_alive():
                    return Doubt(f"thread {type(thread).__name__} of the watch has ended", DoubtKind.THREAD)
        return None

    def find_backlog(self) -> Doubt | None:
        """Whether events come in faster than they can be taken out for so long that looking everywhere is cheaper."""
        waiting = sum(observer.event_queue.qsize() for observer in self._observers)
        if waiting > _MAX_WAITING_EVENTS:
            return Doubt(f"{waiting} events wait to be looked at", DoubtKind.BACKLOG)
        return None

    def is_audit_due(self, now_seconds: float) -> bool:
        """Whether folders have come, gone or moved since the last audit, and are quiet now or have never been."""
        if self.kernel is None or now_seconds < self._next_audit_seconds:
            return False
        if self._suspects or self._suspected_unwatched:
            return now_seconds >= self._audited_seconds + _QUIET_SECONDS
        stirred_seconds = max(translation.stirred_seconds for translation in self._translations)
        if stirred_seconds <= self._audited_seconds:
            return False
        self._stirred_since_seconds = self._stirred_since_seconds or stirred_seconds
        return now_seconds >= min(stirred_seconds + _QUIET_SECONDS, self._stirred_since_seconds + _PATIENCE_SECONDS)

    def audit(self) -> Audit | None:
        """Audit the native watch now; None when there is none or it cannot be verified."""
        if self.kernel is None:
            return None
        self._audited_seconds, self._stirred_since_seconds = time.monotonic(), None
        audit = audit_watch(self.kernel, self.root, follows_symlinks=self.follows_symlinks)
        cost_seconds = time.monotonic() - self._audited_seconds
        self._next_audit_seconds = self._audited_seconds + cost_seconds / _AUDIT_SHARE
        return audit

    def accept(self, audit: Audit | None) -> None:
        """Take the findings of the audit at the start for peculiarities of the file system."""
        if audit is not None:
            # On some file systems the kernel's inode numbers are other ones than those of stat, everywhere.
            self._trusts_inodes = len(audit.swapped) * 2 <= audit.watched
            self._born_wrong = self._wrong(audit)
            self._suspected_unwatched = audit.unwatched

    def confirm(self, audit: Audit) -> Doubt | None:
        """What this audit and the one before agree upon; None when that is nothing."""
        wrong = self._wrong(audit) - self._born_wrong
        confirmed, self._suspects = wrong & self._suspects, wrong
        missing = self._suspected_unwatched & audit.unwatched
        self.is_coverage_short = bool(missing)
        self._suspected_unwatched = frozenset() if missing else audit.unwatched
        if confirmed:
            example = os.fsdecode(min(confirmed))
            reason = f"watchdog's map of folders is wrong in {len(confirmed)} places, one of them {example!r}"
            return Doubt(reason, DoubtKind.FOLDERS)
        return None

    def _wrong(self, audit: Audit) -> frozenset[bytes]:
        return audit.strayed | audit.swapped if self._trusts_inodes else audit.strayed


class _Translation(FileSystemEventHandler):
    """Turns watchdog's events into hints, on watchdog's thread."""

    def __init__(self, watch: _RunningWatch, *, is_polled: bool) -> None:
        self._watch = watch
        self._below_root = watch.root.rstrip("/") + "/"
        self._is_polled = is_polled
        self._gate = threading.Lock()
        self._is_closed = False
        self.stirred_seconds = 0.0
        """When a folder was last seen to come, go, move or change its rights; monotonic."""

    def dispatch(self, event: FileSystemEvent) -> None:
        """Emit the hints of one event. Never raises: that would be the end of watchdog's thread, without a sign."""
        try:
            self._emit_hints(event)
        except BaseException as fault:  # noqa: BLE001 - as the docstring says; it is told as a doubt
            self._watch.remember(f"a file event could not be passed on: {describe(fault)}", DoubtKind.THREAD)

    def close(self) -> None:
        """Emit nothing any more, once this has returned."""
        with self._gate:
            self._is_closed = True

    def _emit_hints(self, event: FileSystemEvent) -> None:
        if isinstance(event, DirModifiedEvent):
            return  # what was modified in it has an event of its own
        is_move = isinstance(event, FileMovedEvent | DirMovedEvent)
        if is_move and event.is_synthetic:
            return  # it lies below a folder that was moved, whose own event has everything below it looked at
        if event.is_directory or self._watch.follows_symlinks:  # what goes may have been a link to a folder
            self.stirred_seconds = time.monotonic()
        is_gone = isinstance(event, FileDeletedEvent | FileMovedEvent)
        # A poll pairs a file that went with one that came by their inode, which may just have been used again.
        is_complete = isinstance(event, FileClosedEvent) or (is_move and not self._is_polled)
        ends = [(event.src_path, is_complete or is_gone)]
        ends += [(event.dest_path, is_complete)] if is_move else []
        hints = [
            Hint(path, is_folder=event.is_directory, is_closed=is_closed)
            for end, is_closed in ends
            for path in self._relative_paths(os.fsdecode(end))
            if self._watch.ignore is None or not self._watch.ignore(path)
        ]
        if (
            self._watch.follows_symlinks
            and isinstance(event, FileCreatedEvent)
            and Path(os.fsdecode(event.src_path)).is_dir()
        ):
            reason = f"a symbolic link to a folder appeared at {os.fsdecode(event.src_path)!r}"
            self._watch.remember(reason, DoubtKind.FOLDERS)
        with self._gate:
            if not self._is_closed:
                for hint in hints:
                    self._watch.emit(hint)

    def _relative_paths(self, path: str) -> list[str]:
        if not path:
            return []  # the other end of a move lies outside the folder
        paths = {self._relative(path)}
        if self._watch.follows_symlinks:
            # The kernel has one watch for a folder that is reached in two ways: the other name has to be hinted at too.
            folder, _, name = path.rpartition("/")
            real_path = f"{os.path.realpath(folder or '/').rstrip('/')}/{name}"
            if real_path.startswith(self._below_root):
                paths.add(self._relative(real_path))
        return sorted(paths)

    def _relative(self, path: str) -> str:
        if path.startswith(self._below_root):
            return path[len(self._below_root) :]
        if path + "/" != self._below_root:
            # Cannot be told from here; looking everywhere is right whatever it was.
            reason = f"an event came for {path!r}, which is not below the watched folder"
            self._watch.remember(reason, DoubtKind.FOLDERS)
        return ""


def _identity_of_listable(root: str) -> tuple[int, int]:
    try:
        with os.scandir(root):
            stat = Path(root).stat()
    except OSError as error:
        raise _start_failure(root, error) from error
    return stat.st_dev, stat.st_ino


def _mounts_at(root: str) -> tuple[Mount, ...]:
    mounts = read_mounts()
    return (*(mount for mount in mounts if mount.point == root), *mounts_below(root, mounts))


def _start_failure(root: str, error: OSError) -> ServiceUnavailable | WatcherDied:
    if isinstance(error, PermissionError):
        return WatcherDied(
            f"the watched folder {root!r} may not be listed", remedy="give the service the right to read it"
        )
    if error.errno in _INSTANCES_GONE:
        return WatcherDied(_instances_sentence(), remedy="or let the watch poll")
    if error.errno == errno.ENOSPC:
        limit = _limit("max_user_watches", suggested=1_048_576)
        return WatcherDied(f"no folder of {root!r} can be watched", remedy=f"raise {limit}, or let the watch poll")
    return ServiceUnavailable(
        f"the watched folder {root!r} is missing or out of reach: {error.strerror}",
        remedy="create the folder, or mount the disk that it is on",
    )


def _instances_sentence() -> str:
    limit = _limit("max_user_instances", suggested=1024)
    return f"no inotify instance is left; raise {limit}, or the limit of open files (ulimit -n)"


def _limit(name: str, *, suggested: int) -> str:
    """The kernel setting, what it is now, and how to raise it."""
    try:
        now = int(Path("/proc/sys/fs/inotify", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return f"fs.inotify.{name}, for example: sysctl -w fs.inotify.{name}={suggested}"
    return f"fs.inotify.{name} (now {now}), for example: sysctl -w fs.inotify.{name}={suggested}"


def _report_leftovers(complaints: list[str]) -> None:
    for complaint in complaints:
        _logger.warning("the watch did not end cleanly: %s", complaint)
