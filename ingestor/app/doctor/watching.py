"""Check: whether changes can be noticed: kinds of mounts, and the limits of inotify."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingestor.adapters.inotify import Limits, Usage, read_limits, usage_of_others
from ingestor.adapters.mounts import Mount, mount_of, mounts_below, read_mounts
from ingestor.app.doctor.folders import nearest
from ingestor.app.doctor.premises import Premises, Survey
from ingestor.core.diagnosing import Finding, hint, warning, well

_NAME = "watching"
_FULL = 0.8
"""Of a limit: above this share, it is near."""
_MIN_QUEUE = 16_384
"""Events that the kernel keeps by default: fewer are lost sooner when many files come at once."""


def check(premises: Premises) -> Sequence[Finding]:
    """Mounts of all folders, and the watches that they need."""
    mounts = read_mounts()
    found = [finding for seen in premises.surveys for finding in _mounts(seen, mounts)]
    found += _own(premises, mounts)
    watched = [seen for seen in premises.surveys if not _is_polled(seen, mounts)]
    if watched:
        running = premises.running()
        others = usage_of_others(running.pid if running else None)
        found += _limits(sum(seen.folders for seen in watched), len(watched), read_limits(), others)
    return found


def place_of(folder: Path, mounts: tuple[Mount, ...]) -> Mount | None:
    """The mount that a folder lies on, or will lie on; None when the system does not tell."""
    return mount_of(os.path.realpath(nearest(folder)), mounts)


def _is_polled(seen: Survey, mounts: tuple[Mount, ...]) -> bool:
    mount = place_of(seen.settings.watch_dir, mounts)
    polling = seen.settings.watch.polling
    return polling == "always" or (polling == "auto" and mount is not None and mount.is_silent)


def _mounts(seen: Survey, mounts: tuple[Mount, ...]) -> Iterator[Finding]:
    folder, polling = seen.settings.watch_dir, seen.settings.watch.polling
    mount = place_of(folder, mounts)
    below = mounts_below(os.path.realpath(folder), mounts)
    silent = [each for each in (mount, *below) if each is not None and each.is_silent]
    facts = {
        "folder": str(folder),
        "mount": mount.point if mount else None,
        "kind": mount.kind if mount else None,
        "below": {each.point: each.kind for each in below},
        "polling": polling,
    }
    if not silent:
        place = f"{folder} ({mount.kind} at {mount.point})" if mount else str(folder)
        polled, watched = f"{place} is polled, as watch.polling says", f"{place} lies where the kernel tells of changes"
        yield well(_NAME, polled if polling == "always" else watched, **facts)
        return
    told = ", ".join(f"{each.point} ({each.kind})" for each in silent)
    if polling == "never":
        sentence = f"changes by others on {told} send no events, and watch.polling is never"
        yield warning(_NAME, sentence, "set watch.polling to auto; until then only comparisons find them", **facts)
    else:
        yield hint(
            _NAME, f"changes by others on {told} send no events: it is polled", "no need to do anything", **facts
        )


def _own(premises: Premises, mounts: tuple[Mount, ...]) -> Iterator[Finding]:
    """Our own folders have to be local: locks and SQLite do not work over a network."""
    folders = {"data_dir": premises.settings.data_dir}
    if premises.has_own_chroma:
        folders["chroma.path"] = premises.settings.chroma_path
    for setting, folder in folders.items():
        mount = place_of(folder, mounts)
        if mount is not None and mount.is_silent:
            sentence = f"{folder} lies on {mount.kind}, where locks and databases are not safe"
            yield warning(_NAME, sentence, f"set {setting} to a folder on a local disk", kind=mount.kind)


def _limits(watches: int, instances: int, limits: Limits, others: Usage) -> Iterator[Finding]:
    facts = {
        "watches_needed": watches,
        "watches_of_others": others.watches,
        "instances_of_others": others.instances,
        "max_user_watches": limits.max_user_watches,
        "max_user_instances": limits.max_user_instances,
        "max_queued_events": limits.max_queued_events,
    }
    needs = (
        ("max_user_watches", "watches", watches, others.watches, limits.max_user_watches, 1_048_576),
        ("max_user_instances", "instances", instances, others.instances, limits.max_user_instances, 1_024),
    )
    found = False
    for name, what, needed, taken, limit, suggested in needs:
        if limit is None or needed + taken <= limit * _FULL:
            continue
        found = True
        remedy = f"raise fs.inotify.{name}, for example: sysctl -w fs.inotify.{name}={suggested}"
        sentence = f"inotify {what} needed: {needed:,}; other programs have {taken:,} of {limit:,}"
        if needed + taken > limit:
            yield warning(_NAME, f"{sentence}: the folder is polled, where watch.polling lets it", remedy, **facts)
        else:
            yield hint(_NAME, f"{sentence}: the limit is near", remedy, **facts)
    if limits.max_queued_events is not None and limits.max_queued_events < _MIN_QUEUE:
        sentence = f"the kernel keeps only {limits.max_queued_events:,} events: many files at once are found later"
        remedy = f"sysctl -w fs.inotify.max_queued_events={_MIN_QUEUE}"
        yield hint(_NAME, sentence, remedy, **facts)
    if not found and limits.max_user_watches is not None:
        sentence = f"watches needed: {watches:,}; other programs have {others.watches:,} of {limits.max_user_watches:,}"
        yield well(_NAME, sentence, **facts)
