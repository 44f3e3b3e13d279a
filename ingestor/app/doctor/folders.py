"""Check: the watched folders can be read, and ours can be written."""

import heapq
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ingestor.app.doctor.premises import Premises, Survey, survey
from ingestor.core.diagnosing import Finding, failure, hint, warning, well
from ingestor.core.errors import ConfigError, IngestorError

_NAME = "folder"
MAX_NAMED = 5
MAX_FACTS = 100
"""Paths that `--json` names of each kind."""


def check(premises: Premises) -> Sequence[Finding]:
    """Look at every folder, and keep what was seen for the checks that follow."""
    found: list[Finding] = []
    for settings in premises.sources:
        try:
            seen = survey(settings)
        except IngestorError as error:
            found.append(failure(_NAME, error, folder=str(settings.watch_dir)))
            continue
        premises.surveys.append(seen)
        found += _of(seen)
    found += _own(premises.settings.data_dir, "data folder", "data_dir")
    if premises.has_own_chroma:
        found += _own(premises.settings.chroma_path, "Chroma folder", "chroma.path")
    return found


def _of(seen: Survey) -> Iterator[Finding]:
    settings, snapshot = seen.settings, seen.snapshot
    place, count = settings.watch_dir, len(snapshot.files)
    facts = {"folder": str(place), "files": count, "bytes": seen.size_bytes, "folders": seen.folders}
    if count:
        yield well(_NAME, f"{place} can be read: files {count:,}, folders {seen.folders:,}", **facts)
    else:
        remedy = "put text files there, and see that watch.include and watch.exclude leave them in"
        yield hint(_NAME, f"no file of {place} belongs to the collection", remedy, **facts)
    told: list[tuple[Sequence[str], str, str]] = [
        (
            list(snapshot.unreadable),
            "folders that cannot be looked into",
            "let the user of ingestor read and enter them",
        ),
        (seen.unreadable_files, "files that may not be read", "let the user of ingestor read them"),
        (
            [path for path, (_, size, *_) in snapshot.files.items() if size > settings.watch.max_file_bytes],
            "files larger than watch.max_file_bytes",
            "raise it, or leave them out with watch.exclude",
        ),
        (
            [path for path, (*_, is_regular) in snapshot.files.items() if not is_regular],
            "no regular files, but pipes, sockets or devices",
            "leave them out with watch.exclude",
        ),
    ]
    for paths, what, remedy in told:
        if paths:
            sentence = f"{what}: {len(paths):,} ({named(paths)})"
            yield warning(_NAME, sentence, remedy, count=len(paths), paths=sorted(paths)[:MAX_FACTS])
    if snapshot.skipped:
        sentence = f"paths that do not count: {len(snapshot.skipped):,} ({named(snapshot.skipped)})"
        reasons = dict(sorted(snapshot.skipped.items())[:MAX_FACTS])
        yield hint(_NAME, sentence, "--json tells why of each", count=len(snapshot.skipped), paths=reasons)


def named(paths: Collection[str]) -> str:
    """The first of some paths, by name."""
    more = f" and {len(paths) - MAX_NAMED:,} more" if len(paths) > MAX_NAMED else ""
    return ", ".join(path or "the folder itself" for path in heapq.nsmallest(MAX_NAMED, paths)) + more


def _own(folder: Path, what: str, setting: str) -> Iterator[Finding]:
    place = nearest(folder)
    if os.access(place, os.R_OK | os.W_OK | os.X_OK) and place.is_dir():
        return
    error = ConfigError(
        f"the {what} {folder} cannot be {'used' if place == folder else 'made'}: {place} may not be written",
        remedy=f"set {setting} to a folder that this user may write, or mend its permissions",
    )
    yield failure(_NAME, error, folder=str(folder))


def nearest(folder: Path) -> Path:
    """A folder, or the nearest one above it that there is."""
    absolute = folder.absolute()
    return next(each for each in (absolute, *absolute.parents) if os.path.lexists(each))
