"""Lag: from the close of a file until a search finds it, and from its unlinking until none does, in quantiles.

Each sample is a file of its own, written, found, unlinked and found no more. On an idle daemon one follows the other; a
first ingest is what samples are taken during, as many at a time as it takes, and where one ends before there are enough
the next one begins, in a place of its own. What the endpoint takes for one text is left out of the times to searchable,
since it is the provider's.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter

import httpx
import numpy as np

from tests.bench.figure import Figure
from tests.bench.notes import note, notes, plant
from tests.bench.poller import PATIENCE_SECONDS, UNREACHABLE_SECONDS, Poller, call_seconds, polling
from tests.bench.services import Provider, provider_served, workplace
from tests.daemon import Site

IDLE_SAMPLES = 1_000
INGEST_SAMPLES = 300
INGEST_FILES = 2_000
RECORDS = 200
"""What an idle daemon has in its collection."""
_SHARES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
_IDLE_BOUNDS_SECONDS = {"searchable": (1.5, 1.5, 5.0), "gone": (1.5, 2.0, 5.0)}
_INGEST_BOUNDS_SECONDS = {"searchable": (3.0, 5.0, 10.0), "gone": (3.0, 5.0, 10.0)}
_PACE_SECONDS = 0.1
"""Between two files that are written during an ingest."""
_LOOK_SECONDS = 0.005
_MAX_INGESTS = 12


@dataclass(slots=True)
class _Samples:
    """Seconds, and how many files Chroma held without finding them."""

    searchable: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)
    unreachable: int = 0


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Measure both; each floor is one second."""
    with provider_served() as provider:
        samples, call = _while_idle(provider, max(50, round(IDLE_SAMPLES * scale)))
        yield from _figures("on an idle daemon", samples, call, _IDLE_BOUNDS_SECONDS)
        files = max(200, round(INGEST_FILES * scale))
        samples = _while_ingesting(provider, files, max(30, round(INGEST_SAMPLES * scale)))
        yield from _figures(f"during a first ingest of {files:,} files", samples, call, _INGEST_BOUNDS_SECONDS)


def _figures(
    when: str, samples: _Samples, call: float, bounds_seconds: dict[str, tuple[float, float, float]]
) -> Iterator[Figure]:
    to_searchable = [seconds - call for seconds in samples.searchable]
    kinds = (
        ("close to searchable", to_searchable, "searchable", f", less the endpoint's {1000 * call:.0f} ms"),
        ("unlink to not found", samples.gone, "gone", ""),
    )
    for name, seconds, kind, less in kinds:
        what = f"{len(seconds):,} samples{less}; {samples.unreachable} that Chroma holds and does not find are left out"
        for (title, share), bound in zip(_SHARES, bounds_seconds[kind], strict=True):
            yield Figure(
                f"{name} {when}, {title}", _quantile(seconds, share), 1.0, "s", bound, note=f"{what}; floor: 1 s"
            )


def _while_idle(provider: Provider, count: int) -> tuple[_Samples, float]:
    """Take samples one after another; also gives the median time of a call of the endpoint, in seconds."""
    samples, calls, dice = _Samples(), list[float](), Random(12)
    with (
        workplace() as place,
        Site(place, provider.settings()) as site,
        httpx.Client(timeout=PATIENCE_SECONDS, trust_env=False) as client,
    ):
        plant(site.folder, notes(RECORDS))
        site.start("run").wait_ready()
        with polling(site.port) as poller:
            for _ in poller.counts(RECORDS):
                pass
            for number in range(count):
                # The daemon looks at some things each second: files come at any moment of it.
                time.sleep(dice.uniform(0.0, 0.3))
                calls.append(call_seconds(client, provider.base_url, note(f"call {number}")))
                _take(site, poller, samples, number)
    return samples, float(np.median(calls))


def _take(site: Site, poller: Poller, samples: _Samples, number: int) -> None:
    watched = _Watched(site, poller, samples)
    watched.write(f"sample-{number}.md", note(f"sample {number}"))
    while watched.is_waiting:
        watched.look()
        time.sleep(_LOOK_SECONDS)


def _while_ingesting(provider: Provider, files: int, count: int) -> _Samples:
    """Take samples during as many first ingests as it takes."""
    samples = _Samples()
    for _ in range(_MAX_INGESTS):
        with workplace() as place, Site(place, provider.settings()) as site:
            plant(site.folder, notes(files))
            site.start("run").wait_ready()
            with polling(site.port) as poller:
                _take_during(site, poller, samples, files)
        if len(samples.gone) >= count:
            return samples
    message = f"{_MAX_INGESTS} ingests gave {len(samples.gone)} of {count} samples"
    raise TimeoutError(message)


def _take_during(site: Site, poller: Poller, samples: _Samples, files: int) -> None:
    """Write files at a steady pace until the ingest is over, whatever becomes of those before."""
    watched = _Watched(site, poller, samples)
    next_seconds, number, is_filling = perf_counter(), 0, True
    while is_filling or watched.is_waiting:
        if is_filling and perf_counter() >= next_seconds:
            watched.write(f"sample-{number}.md", note(f"sample {number}"))
            number += 1
            next_seconds = perf_counter() + _PACE_SECONDS
            is_filling = poller.count() < files
        watched.look()
        time.sleep(_LOOK_SECONDS)


class _Watched:
    """Files on their way into the collection and out of it."""

    def __init__(self, site: Site, poller: Poller, samples: _Samples) -> None:
        self._site = site
        self._poller = poller
        self._samples = samples
        self._coming: dict[str, tuple[str, float]] = {}
        self._going: dict[str, tuple[str, float]] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether there is any file whose sample is not complete."""
        return bool(self._coming or self._going)

    def write(self, source: str, text: str) -> None:
        """Begin a sample."""
        (self._site.folder / source).write_text(text, encoding="utf-8")
        self._coming[source] = text, perf_counter()

    def look(self) -> None:
        """See what is found by now, and what is not any more; what is found is unlinked."""
        wanted = {source: text for source, (text, _) in (*self._coming.items(), *self._going.items())}
        found = set(self._poller.found(wanted))
        now_seconds = perf_counter()
        # A search fails as a whole while one of its finds is being deleted: what is not found then is asked for.
        gone = [source for source in self._going if source not in found and not self._poller.is_held(source)]
        for source in gone:
            self._samples.gone.append(now_seconds - self._going.pop(source)[1])
        for source, (text, closed_seconds) in list(self._coming.items()):
            waited_seconds = now_seconds - closed_seconds
            if source in found:
                self._samples.searchable.append(waited_seconds)
            elif waited_seconds > UNREACHABLE_SECONDS and self._poller.is_unreachable(source, text):
                self._samples.unreachable += 1
            elif waited_seconds > PATIENCE_SECONDS:
                message = f"{source} is not searchable within {PATIENCE_SECONDS:g} s"
                raise TimeoutError(message)
            else:
                continue
            del self._coming[source]
            (self._site.folder / source).unlink()
            self._going[source] = text, perf_counter()
        for source, (_, unlinked_seconds) in self._going.items():
            if now_seconds - unlinked_seconds > PATIENCE_SECONDS:
                message = f"{source} is found {PATIENCE_SECONDS:g} s after it was unlinked"
                raise TimeoutError(message)


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share, method="higher"))
