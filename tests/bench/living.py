"""The living daemon: how soon a file is queryable, what idleness costs, and how both bear a large collection.

The installed command runs as users run it, with a Chroma server of its own; everything is seen from outside: a Chroma
client that polls, and what the kernel tells of processes. Bounds that are times have a floor of one unit, so that the
ratio is the time; where Chroma's own time is known, a second figure has it for its floor.
"""

import time
from collections.abc import Iterator, Sequence
from random import Random
from time import perf_counter

import httpx
import numpy as np

from tests.bench.figure import Figure
from tests.bench.notes import note, notes, plant
from tests.bench.poller import UNREACHABLE_SECONDS, Poller, Unreachable, call_seconds, polling
from tests.bench.process import Process
from tests.bench.runs import timed_sync
from tests.bench.services import Provider, provider_served, workplace
from tests.daemon import Daemon, Site, eventually

RECORDS = 100_000
DROPS = 200
SYNCED_RECORDS = 1_000
PENDING_RECORDS = 500
"""Copies of ours that the collection of the floor holds: pending are half of Chroma's own `sync_threshold`."""
BACKFILL_FILES = 10_000
BURST_FILES = 50_000
LARGE_FILE_BYTES = 10 * 1024 * 1024
IDLE_SECONDS = 10.0
PATIENCE_SECONDS = 600.0
_MIB = 1024.0 * 1024.0
_QUIET_PERCENT = 10.0
"""Below this load a daemon has ended what it does after its start."""
_SAVE_SECONDS = 0.5
"""Pause between two saves while a backfill runs."""
_EARLY = (0.05, 0.15)
_LATE = (0.90, 1.0)
"""Parts of the first ingest that are compared: around a tenth of the records, and towards all of them."""


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Every figure of the living daemon; `scale` shrinks the numbers of files, records and drops."""
    yield from _of_a_large_collection(_scaled(RECORDS, scale, 2_000), _scaled(DROPS, scale, 20), scale)
    yield from _of_a_backfill(_scaled(BACKFILL_FILES, scale, 1_000))
    yield from _of_a_burst(_scaled(BURST_FILES, scale, 500))


def _of_a_large_collection(records: int, drops: int, scale: float) -> Iterator[Figure]:
    with workplace() as place, Site(place, {}) as site:
        with provider_served(is_instant=True) as provider:
            site.settings = provider.settings()
            plant(site.folder, notes(records))
            yield from _of_the_first_ingest(site, records, _resident_bytes(provider, max(200, records // 100)))
        with provider_served() as provider:
            site.settings = provider.settings()
            daemon = site.start("run").wait_ready()
            process = Process(daemon.pid)
            with polling(site.port) as poller:
                _wait_quiet(process)
                idle_percent = process.load(IDLE_SECONDS)
                yield Figure("idle processor, percent of a core", idle_percent, 1.0, "%", 1.0, note="floor: 1 %")
                yield from _of_drops(site, provider, poller, drops)
            yield _of_a_large_file(site, daemon, min(LARGE_FILE_BYTES, _scaled(LARGE_FILE_BYTES, scale, 1024**2)))


def _of_the_first_ingest(site: Site, records: int, small_bytes: int) -> Iterator[Figure]:
    daemon = site.start("run").wait_ready()
    process = Process(daemon.pid)
    (pid,) = site.servers()
    chroma = Process(pid)
    with polling(site.port) as poller:
        samples = [
            (counted, perf_counter(), process.cpu_seconds(), chroma.cpu_seconds()) for counted in poller.counts(records)
        ]
    peak_bytes = process.peak_bytes()
    daemon.terminate()
    yield Figure(
        f"peak memory of a first ingest of {records:,} files",
        peak_bytes / _MIB,
        small_bytes / _MIB,
        "MiB",
        1.5,
        note="floor: that of a hundredth of the files (at least 200)",
    )
    counts, *spent = np.array(samples).T
    names = ("time", "processor time of the daemon", "processor time of Chroma")
    notes_of = ("all parts together", "ours alone", "Chroma's own part, not ours to bound: shown apart")
    for name, seconds, bound, what in zip(names, spent, (1.3, 1.3, 10.0), notes_of, strict=True):
        early, late = (_milliseconds_each(counts, seconds, part, records) for part in (_EARLY, _LATE))
        floor = f"floor: around {records // 10:,} records, which tells little below 1,000; {what}"
        yield Figure(f"{name} a document at {records:,} records", late, early, "ms", bound, note=floor)


def _milliseconds_each(
    counts: Sequence[float], seconds: Sequence[float], part: tuple[float, float], all_: int
) -> float:
    began, ended = np.interp([share * all_ for share in part], counts, seconds)
    return float(1000.0 * (ended - began) / ((part[1] - part[0]) * all_))


def _resident_bytes(provider: Provider, files: int) -> int:
    """The most that a daemon holds during a first ingest of so many files."""
    with workplace() as place, Site(place, provider.settings()) as site:
        plant(site.folder, notes(files))
        daemon = site.start("run").wait_ready()
        with polling(site.port) as poller:
            for _ in poller.counts(files):
                pass
        return Process(daemon.pid).peak_bytes()


def _wait_quiet(process: Process) -> None:
    """Wait until the comparison and the audit after a start are over."""
    loads: list[float] = []

    def is_quiet() -> bool:
        loads.append(process.load(2.0))
        return max(loads[-2:]) < _QUIET_PERCENT and len(loads) > 1

    eventually(is_quiet, lambda: f"the daemon does not come to rest: {loads[-5:]} %", PATIENCE_SECONDS)


def _of_drops(site: Site, provider: Provider, poller: Poller, drops: int) -> Iterator[Figure]:
    poller.make_floor(SYNCED_RECORDS, PENDING_RECORDS)
    taken, calls, floors = [], [], []
    unreachable: list[str] = []
    dice = Random(7)
    with httpx.Client(timeout=PATIENCE_SECONDS, trust_env=False) as client:
        for number in range(drops):
            # The daemon looks at some things each second: drops come at any moment of it.
            time.sleep(dice.uniform(0.3, 1.3))
            calls.append(call_seconds(client, provider.base_url, note(f"call {number}")))
            floors.append(poller.floor_seconds(f"dropped-{number}", note(f"dropped {number}")))
            source, text = f"drop-{number}.md", note(f"drop {number}")
            (site.folder / source).write_text(text, encoding="utf-8")
            closed_seconds = perf_counter()
            try:
                taken.append(poller.wait_found(source, text) - closed_seconds)
            except Unreachable:
                unreachable.append(source)
    yield Figure(
        "drops that a search for their own vector does not find",
        float(len(unreachable)),
        float(drops),
        "",
        0.0,
        note="held, but not found: Chroma's index is at fault, not the write; they count in no time below",
    )
    ours = [1000.0 * (seconds - float(np.median(calls))) for seconds in taken]
    chroma = [1000.0 * seconds for seconds in floors]
    what = f"{drops} drops, less the endpoint's {1000.0 * float(np.median(calls)):.0f} ms"
    for name, share, bound in (("p50", 0.5, 60.0), ("p99", 0.99, 200.0)):
        value, floor = _quantile(ours, share), _quantile(chroma, share)
        yield Figure(f"drop to queryable, {name}", value, 1.0, "ms", bound, note=f"{what}; floor: 1 ms")
        yield Figure(
            f"drop to queryable, {name}, to Chroma's own",
            value,
            floor,
            "ms",
            2.0,
            note=f"{what}; floor: add and search of a like record by a bare client, {PENDING_RECORDS} records pending",
        )


def _of_a_large_file(site: Site, daemon: Daemon, size_bytes: int) -> Figure:
    process = Process(daemon.pid)
    process.forget_peak()
    before_bytes = process.resident_bytes()
    text = "\n".join(note(f"part {number}") for number in range(size_bytes // 500))[:size_bytes]
    (site.folder / "large.md").write_text(text, encoding="utf-8")
    eventually(
        lambda: any(event["path"] == "large.md" for event in daemon.events("document.synced")),
        lambda: f"the large file is not indexed:\n{daemon.log()[-2_000:]}",
        PATIENCE_SECONDS,
    )
    grown_bytes = process.peak_bytes() - before_bytes
    return Figure(
        "memory added by a large file",
        grown_bytes / _MIB,
        len(text.encode()) / _MIB,
        "MiB",
        10.0,
        note="floor: the size of the file; what does not grow with it weighs the more, the smaller it is",
    )


def _of_a_backfill(files: int) -> Iterator[Figure]:
    with provider_served() as provider, workplace() as place, Site(place, provider.settings()) as site:
        plant(site.folder, notes(files))
        site.start("run").wait_ready()
        with polling(site.port) as poller:
            taken, unreachable = _saves_during_backfill(site, poller, files)
    what = f"{len(taken)} saves during a backfill of {files:,} files, {unreachable} more not found; floor: 1 s"
    yield Figure("save to queryable during a backfill, p95", _quantile(taken, 0.95), 1.0, "s", 2.0, note=what)


def _saves_during_backfill(site: Site, poller: Poller, files: int) -> tuple[list[float], int]:
    """Save files at a steady pace, whatever becomes of those before.

    Returns the seconds from close to queryable, and how many files Chroma holds without finding them.
    """
    closed_seconds: dict[str, float] = {}
    waiting: dict[str, str] = {}
    taken: list[float] = []
    unreachable = 0
    is_filling = True
    next_seconds = perf_counter()
    deadline_seconds = next_seconds + PATIENCE_SECONDS
    while is_filling or waiting:
        assert perf_counter() < deadline_seconds, f"not queryable: {list(waiting)}"
        is_time = is_filling and perf_counter() >= next_seconds
        is_filling = is_filling and (not is_time or poller.count() - len(taken) - unreachable < files)
        if is_time and is_filling:
            source, text = f"save-{len(closed_seconds)}.md", note(f"save {len(closed_seconds)}")
            (site.folder / source).write_text(text, encoding="utf-8")
            closed_seconds[source] = perf_counter()
            waiting[source] = text
            next_seconds += _SAVE_SECONDS
        for source in poller.found(waiting):
            taken.append(perf_counter() - closed_seconds[source])
            del waiting[source]
        for source, text in list(waiting.items()):
            is_late = perf_counter() - closed_seconds[source] > UNREACHABLE_SECONDS
            if is_late and poller.is_unreachable(source, text):
                unreachable += 1
                del waiting[source]
        time.sleep(0.02)
    return taken, unreachable


def _of_a_burst(files: int) -> Iterator[Figure]:
    texts = notes(files)
    with provider_served() as provider:
        with workplace() as place, Site(place, provider.settings()) as site:
            # A daemon has its start behind it when the burst comes.
            start = timed_sync(site)
            plant(site.folder, texts)
            cold = timed_sync(site)
        with workplace() as place, Site(place, provider.settings()) as site:
            site.start("run").wait_ready()
            with polling(site.port) as poller:
                began_seconds = perf_counter()
                plant(site.folder, texts)
                for _ in poller.counts(files):
                    pass
                burst_seconds = perf_counter() - began_seconds
                missing = set(texts) - poller.sources()
                assert not missing, f"{len(missing)} files have no record"
    what = (
        "from the first file written to the last one queryable; floor: `ingestor sync` of the tree, less one of nothing"
    )
    yield Figure(f"burst of {files:,} files", burst_seconds, cold.seconds - start.seconds, "s", 1.3, note=what)


def _scaled(number: int, scale: float, least: int) -> int:
    return max(least, round(number * scale))


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share, method="higher"))
