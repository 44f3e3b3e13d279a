"""Exceptions that end a library's thread, told to whoever depends on that thread.

`threading.excepthook` belongs to the whole process, so one hook is shared: it is installed with the first thread that
is listened to and taken away with the last. Invariant: an exception of any other thread reaches the hook that was
there before, unchanged.
"""

import threading
import traceback
from collections.abc import Callable, Iterable

_lock = threading.Lock()
_listeners: dict[threading.Thread, Callable[[str], None]] = {}
_previous_hooks: list[Callable[[threading.ExceptHookArgs], object]] = []
"""The hook that ours stands before; empty while ours is not installed."""


def listen(threads: Iterable[threading.Thread], report: Callable[[str], None]) -> None:
    """Call `report` with one sentence when an exception ends one of the threads; `report` must not raise."""
    with _lock:
        _listeners.update(dict.fromkeys(threads, report))
        if _listeners and not _previous_hooks:
            _previous_hooks.append(threading.excepthook)
            threading.excepthook = _hook


def forget(threads: Iterable[threading.Thread]) -> None:
    """Listen to these threads no longer; a thread that was never listened to is no error."""
    with _lock:
        for thread in threads:
            _listeners.pop(thread, None)
        # A hook that somebody put before ours since then calls ours: it has to stay, and passes everything on.
        if not _listeners and _previous_hooks and threading.excepthook is _hook:
            threading.excepthook = _previous_hooks.pop()


def describe(fault: BaseException) -> str:
    """The exception and the line that it came from, in one line."""
    frames = traceback.extract_tb(fault.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{fault!r}{place}"


def _hook(args: threading.ExceptHookArgs) -> None:
    report = _listeners.get(args.thread) if args.thread else None
    if report is not None:
        report(f"a thread of the watch died: {describe(args.exc_value or args.exc_type())}")
    elif _previous_hooks:
        _previous_hooks[0](args)
