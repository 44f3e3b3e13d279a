"""Check: whether events really arrive, tried with a file of our own.

Invariant: what is tried lies in a folder of one fixed name, which the rules leave out, and is taken away whatever
happens; what a killed check has left is taken away by the next one. Nothing of anybody else's is touched: a folder of
that name with something else in it stays.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingestor.adapters.mounts import read_mounts
from ingestor.adapters.watcher import Polling, Watcher
from ingestor.app.doctor.premises import Premises, Survey
from ingestor.app.doctor.watching import place_of
from ingestor.core.diagnosing import Finding, hint, warning, well

CANARY_FOLDER = ".ingestor-canary.tmp"
"""Two of the built-in rules leave it out."""
CANARY_FILE = "canary"
_NAME = "events"
_WAIT_SECONDS = 5.0
"""Polling looks each second."""
_REMEDY = "set watch.polling to always"


def check(premises: Premises) -> Sequence[Finding]:
    """Try the watched folders where that is allowed, else the data folder."""
    if premises.tries_folders:
        return [finding for seen in premises.surveys for finding in _in_watched(seen)]
    settings = premises.first
    if not settings.data_dir.is_dir():
        sentence = f"events were not tried: the data folder {settings.data_dir} does not exist yet"
        return [hint(_NAME, sentence, "--in-folder tries them in the watched folder, and leaves nothing behind")]
    found = [_try(settings.data_dir, settings.watch.polling)]
    mounts = read_mounts()
    tried = place_of(settings.data_dir, mounts)
    for each in premises.sources:
        mount = place_of(each.watch_dir, mounts)
        if mount is not None and mount != tried:
            sentence = f"{each.watch_dir} lies on another mount ({mount.kind} at {mount.point}), which was not tried"
            remedy = "--in-folder tries it, and leaves nothing behind"
            found.append(hint(_NAME, sentence, remedy, mount=mount.point, kind=mount.kind))
    return found


def sweep(premises: Premises) -> None:
    """Take away what was tried."""
    for folder in _places(premises):
        _remove(folder / CANARY_FOLDER)


def _places(premises: Premises) -> list[Path]:
    return [each.watch_dir for each in premises.sources] if premises.tries_folders else [premises.settings.data_dir]


def _in_watched(seen: Survey) -> Iterator[Finding]:
    folder = seen.settings.watch_dir
    if not seen.folder.rule_against(CANARY_FOLDER, is_folder=True):
        sentence = f"events were not tried: the rules of {folder} let hidden and temporary files in"
        yield hint(_NAME, sentence, "leave --in-folder out")
        return
    yield _try(folder, seen.settings.watch.polling)


def _try(place: Path, polling: Polling) -> Finding:
    """Write a file into a folder of our own, and wait for its event. Raises what `Watcher.start` raises."""
    mount = place_of(place, read_mounts())
    where = f"{place} ({mount.kind} at {mount.point})" if mount else str(place)
    facts: dict[str, object] = {
        "folder": str(place),
        "mount": mount.point if mount else None,
        "kind": mount.kind if mount else None,
    }
    folder = place / CANARY_FOLDER
    _remove(folder)
    try:
        folder.mkdir()
    except OSError as error:
        sentence = f"events were not tried: nothing can be written into {place}: {error.strerror}"
        return hint(_NAME, sentence, "mend its permissions, if ingestor is to write there", **facts)
    seen = threading.Event()
    watcher = Watcher(folder, polling=polling)
    try:
        watcher.start(lambda told: seen.set() if told.path == CANARY_FILE else None)
        began_seconds = time.monotonic()
        (folder / CANARY_FILE).touch()
        has_come = seen.wait(_WAIT_SECONDS)
        milliseconds = round((time.monotonic() - began_seconds) * 1_000)
    finally:
        watcher.stop()
        _remove(folder)
    facts |= {"mode": watcher.mode, "milliseconds": milliseconds if has_come else None}
    if not has_come:
        sentence = f"no event came within {_WAIT_SECONDS:g} s for a file written into {where}, by {watcher.mode}"
        return warning(_NAME, sentence, _REMEDY, **facts)
    sentence = f"an event came after {milliseconds} ms, by {watcher.mode}, tried in {where}"
    return well(_NAME, sentence, **facts)


def _remove(folder: Path) -> None:
    """Take our file and our folder away, but nothing else that lies there."""
    with contextlib.suppress(OSError):  # it is not there, or somebody has put more into it
        (folder / CANARY_FILE).unlink(missing_ok=True)
        folder.rmdir()
