"""watchdog's observers, made fit to be supervised.

Three defects of watchdog 7.1 are closed here, all at the one public seam through which its watch groups meet the
kernel's queue (`InotifyFD.add_callback`): an exception in a callback ends the reading thread without a sign; after an
overflow it rebuilds every watch, which may overflow again for ever; a refused watch is forgotten silently.

Invariant: whatever may have cost events is told through `report`, and no thread outlives `end` unless it is said so.
"""

import errno
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable

from watchdog.events import FileSystemEvent
from watchdog.observers.api import BaseObserver, EventEmitter, EventQueue, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import CallbackId, InotifyEvent, InotifyFD, Mask, WatchCallback, WatchDescriptor
from watchdog.observers.polling import PollingEmitter

from ingestor.adapters.thread_faults import describe

Report = Callable[[str], None]

OVERFLOW = "the kernel's event queue overflowed and events were lost (fs.inotify.max_queued_events)"

_NO_WATCH = -1
_POLLING_REST = 9
"""Polling rests this many times as long as it worked, so that it takes a tenth of one core at most."""

_logger = logging.getLogger(__name__)


def silence_known_noise() -> None:
    """Keep watchdog from warning, with up to 1 MB of text each, that a folder is watched already.

    And from logging an error for the event that it holds at the moment of its orderly stop. Called at each start:
    whoever resets the filters of the process (a test runner does) would bring the flood back.
    """
    logging.getLogger("watchdog.observers.inotify").addFilter(_is_no_farewell)
    warnings.filterwarnings(
        "ignore",
        message=r"Callback with id '",
        category=RuntimeWarning,
        module=r"(watchdog\.observers\.|ingestor\.adapters\.watch_observers)",
    )


def _is_no_farewell(record: logging.LogRecord) -> bool:
    return "called when the thread is inactive" not in record.getMessage()


class _GuardedGroup:
    """Stands between the kernel queue and a watch group, so that no exception reaches the reading thread.

    Its short repr is wanted as well: watchdog puts the repr of every callback into warnings that nobody reads.
    """

    def __init__(self, group: WatchCallback, report: Report) -> None:
        self._group = group
        self._report = report

    def on_event(self, event: InotifyEvent) -> None:
        try:
            self._group.on_event(event)
        except Exception as fault:  # noqa: BLE001 - any of them would end the thread, and is told instead
            self._report(f"watchdog lost track of a folder: {describe(fault)}")

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        try:
            self._group.on_watch_deleted(wd)
        except Exception as fault:  # noqa: BLE001 - as above; a KeyError here is the silent death of watchdog 7.1
            self._report(f"watchdog lost track of a folder: {describe(fault)}")

    def on_queue_overflow(self) -> None:
        self._report(OVERFLOW)


class KernelQueue(InotifyFD):
    """One inotify instance and its reading thread. `is_exhausted` once the kernel refused a watch for want of room.

    Raises `OSError` (EMFILE, ENFILE) when no instance is left.
    """

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self._guarded: dict[CallbackId, _GuardedGroup] = {}
        self.is_exhausted = False

    @property
    def descriptor(self) -> int | None:
        """The file descriptor of the instance; None when this version of watchdog keeps it elsewhere."""
        descriptor = getattr(self, "_inotify_fd", None)
        return descriptor if isinstance(descriptor, int) else None

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        """Watch a folder for a guarded group; raises `OSError` when the kernel refuses."""
        guarded = self._guarded.setdefault(id_, _GuardedGroup(callback, self._report))
        try:
            wd = super().add_callback(path, mask, guarded, id_)
        except OSError as error:
            self.is_exhausted = self.is_exhausted or error.errno == errno.ENOSPC
            raise
        if wd == _NO_WATCH:  # watchdog takes a folder that may not be read for a watched one, with this number
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
        return wd


class PacedEmitter(PollingEmitter):
    """Polls, and rests longer the longer a poll takes. Symbolic links are followed only when the watch says so."""

    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        *,
        timeout: float,
        event_filter: list[type[FileSystemEvent]] | None = None,
    ) -> None:
        stat = os.stat if watch.follow_symlink else os.lstat
        super().__init__(event_queue, watch, timeout=timeout, event_filter=event_filter, stat=stat)
        self._cost_seconds = 0.0

    def on_thread_start(self) -> None:
        """Take the first snapshot; where it fails, the next one will report everything as new."""
        try:
            super().on_thread_start()
        except OSError as error:
            _logger.warning("cannot list %r yet, polling goes on: %s", self.watch.path, error)

    def queue_events(self, timeout: float) -> None:
        """Rest, compare, and remember what the comparison cost."""
        rest_seconds = max(timeout, self._cost_seconds * _POLLING_REST)
        began_seconds = time.monotonic()
        super().queue_events(rest_seconds)
        self._cost_seconds = max(0.0, time.monotonic() - began_seconds - rest_seconds)


class SupervisedObserver(BaseObserver):
    """An observer whose end is bounded in time. Subclasses say what it observes with."""

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Every thread that has to live for events to come."""
        return (self, *self.emitters)

    def on_thread_stop(self) -> None:
        """Do nothing: watchdog would wait without bound for threads that may hang in a dead network share."""

    def end(self, patience_seconds: float) -> list[str]:
        """Stop every thread and wait for all of them for `patience_seconds`; returns what went wrong."""
        complaints = []
        steps: list[Callable[[], None]] = [self.stop]
        steps += [lambda emitter=emitter: _stop_emitter(emitter) for emitter in self.emitters]  # type: ignore[misc]
        steps += self._last_steps()
        for step in steps:
            try:
                step()
            except Exception as fault:  # noqa: BLE001 - every other thread still has to be stopped; returned
                complaints.append(describe(fault))
        deadline_seconds = time.monotonic() + patience_seconds
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline_seconds - time.monotonic()))
            if thread.is_alive():
                complaints.append(f"thread {type(thread).__name__} did not end")
        return complaints

    def _last_steps(self) -> list[Callable[[], None]]:
        return []


class KernelObserver(SupervisedObserver):
    """Events from inotify. Raises `OSError` when no instance is left."""

    def __init__(self, report: Report) -> None:
        self.queue = KernelQueue(report)
        super().__init__(InotifyEmitter, inotify_fd=self.queue)

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Every thread that has to live for events to come."""
        return (*super().threads, self.queue)

    def on_thread_start(self) -> None:
        """Read the queue before the first folder is watched; raises `OSError` when the root cannot be watched."""
        self.queue.start()
        super().on_thread_start()

    def _last_steps(self) -> list[Callable[[], None]]:
        return [self.queue.stop]


class PolledObserver(SupervisedObserver):
    """Events from comparing the folder with itself every `poll_seconds`, or less often when that takes long."""

    def __init__(self, poll_seconds: float) -> None:
        super().__init__(PacedEmitter, timeout=poll_seconds)


def _stop_emitter(emitter: EventEmitter) -> None:
    # Maps that no longer fit each other make the orderly way raise and leave its thread waiting; the queue is closed as
    # a whole right after, so nothing needs to be taken out of it watch by watch.
    group = getattr(emitter, "_inotify", None)
    lock = getattr(group, "_lock", None)
    if lock is not None:
        with lock:
            for name in ("_active_callbacks_by_watch", "_active_callbacks_by_path"):
                getattr(group, name, {}).clear()
    try:
        emitter.stop()
    finally:
        grouper = getattr(group, "_move_event_grouper", None)
        if grouper is not None:
            grouper.close()
