"""Meter: everything that is told of one daemon, whenever somebody asks.

What only the ledgers and the disks know is counted then, on a thread of its own and without holding a lock, for at most
`COUNTING_SHARE` of the time.

Invariant: asking blocks neither the loop nor the work and raises nothing: what cannot be told just now has no sample,
and `ingestor_ledger_up` says so.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ingestor.adapters.ledger_census import Census, census_of
from ingestor.adapters.runtime import ThreadLane
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.latency import Spread
from ingestor.engine.account import local_day
from ingestor.metrics.chroma import CHROMA
from ingestor.metrics.documents import DOCUMENTS
from ingestor.metrics.embedding import EMBEDDING
from ingestor.metrics.family import Family, Followed, Kind, Samples, Source, by, one
from ingestor.metrics.watching import WATCHING

COUNTING_SHARE = 0.02
"""Of the time, what counting may take: until then the last count is told again."""
PATIENCE_SECONDS = 5.0
"""How long a scrape waits for a count; half of what Prometheus waits for a scrape."""
FAMILIES: tuple[Family, ...] = (*DOCUMENTS, *WATCHING, *EMBEDDING, *CHROMA)
SHARED: Mapping[str, tuple[str, ...]] = {
    "ingestor_build_info": ("The version that runs; always 1.", "version"),
    "ingestor_ready": ("Whether every folder was compared, and Chroma does what it is asked; `/readyz` says why not.",),
    "ingestor_last_count_timestamp_seconds": (
        "When ledgers and disks were counted, which is not done each time where it takes long; 0 if it failed.",
    ),
    "ingestor_vector_store_bytes": ("Size of the vector store's file.",),
    "ingestor_vector_store_max_bytes": ("What it may grow to.",),
    "ingestor_disk_free_bytes": ("Free space of the disk that a folder lies on.", "folder"),
    "ingestor_disk_size_bytes": ("Size of the disk that a folder lies on.", "folder"),
}
"""Gauges of the daemon as a whole: their meaning, and their labels."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the daemon keeps what it knows."""

    folders: Mapping[str, Path]
    """Folders by what they are for: `data`, and `chroma` where that is ours."""
    vectors: Path
    max_vectors_bytes: int


@dataclass(frozen=True, slots=True)
class _Stock:
    """What was counted on ledgers and disks."""

    censuses: Mapping[str, Census]
    """By the name of the source; without those whose ledger could not be read."""
    vectors_bytes: int | None
    free_bytes: Mapping[str, float]
    size_bytes: Mapping[str, float]
    counted_seconds: float
    """When, since the epoch; 0 when it could not be."""
    due_seconds: float
    """When it is to be counted again, by the monotonic clock."""


_NO_STOCK = _Stock({}, None, {}, {}, counted_seconds=0.0, due_seconds=float("-inf"))


class Meter:
    """What is told of one daemon: of the `sources` that it follows just now, and whether it `is_ready`."""

    def __init__(
        self, sources: Callable[[], Sequence[Followed]], is_ready: Callable[[], bool], storage: Storage
    ) -> None:
        self._sources = sources
        self._is_ready = is_ready
        self._storage = storage
        self._lane = ThreadLane("metrics")
        self._counting: asyncio.Task[_Stock] | None = None
        self._stock = _NO_STOCK
        self._standing: list[Collector] = [ProcessCollector(registry=None), PlatformCollector(registry=None)]

    async def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Everything as Prometheus reads it, and its content type: the best one that an `Accept` header names."""
        stock = await self._taken()
        registry = CollectorRegistry()
        for collector in (*self._standing, _Told([*self._shared(stock), *self._of_sources(stock)])):
            registry.register(collector)
        encode, content_type = choose_encoder(accept)
        return await asyncio.to_thread(encode, registry), content_type

    async def _taken(self) -> _Stock:
        """The stock, taken anew unless that was just done; empty when it cannot be told in time."""
        stock = self._stock
        if time.monotonic() < stock.due_seconds:
            return stock
        if self._counting is None or self._counting.done():
            # One at a time: whoever asks while a disk hangs waits for the same count.
            self._counting = asyncio.create_task(self._lane.run(self._count, self._sources()))
        counting = self._counting
        await asyncio.wait({counting}, timeout=PATIENCE_SECONDS)
        self._stock = counting.result() if counting.done() else _NO_STOCK
        return self._stock

    def _count(self, sources: Sequence[Followed]) -> _Stock:
        began_seconds, counted_seconds = time.monotonic(), time.time()
        today = local_day(counted_seconds)
        censuses: dict[str, Census] = {}
        for followed in sources:
            try:
                censuses[followed.line.pipeline.name] = census_of(followed.ledger, today)
            except ServiceUnavailable as error:
                _log.warning("metrics.ledger_unread", reason=str(error), remedy=error.remedy)
        disks = {name: disk for name, folder in self._storage.folders.items() if (disk := _disk(folder)) is not None}
        ended_seconds = time.monotonic()
        return _Stock(
            censuses,
            _size_bytes(self._storage.vectors),
            {name: disk.f_bavail * disk.f_frsize for name, disk in disks.items()},
            {name: disk.f_blocks * disk.f_frsize for name, disk in disks.items()},
            counted_seconds=counted_seconds,
            due_seconds=ended_seconds + (ended_seconds - began_seconds) / COUNTING_SHARE,
        )

    def _shared(self, stock: _Stock) -> Iterable[Metric]:
        found: dict[str, Samples] = {
            "ingestor_build_info": {(version("ingestor"),): 1.0},
            "ingestor_ready": one(self._is_ready()),
            "ingestor_last_count_timestamp_seconds": one(stock.counted_seconds),
            "ingestor_vector_store_bytes": one(stock.vectors_bytes),
            "ingestor_vector_store_max_bytes": one(self._storage.max_vectors_bytes),
            "ingestor_disk_free_bytes": by(stock.free_bytes),
            "ingestor_disk_size_bytes": by(stock.size_bytes),
        }
        for name, (meaning, *labels) in SHARED.items():
            metric = GaugeMetricFamily(name, meaning, labels=labels)
            for values, value in found[name].items():
                metric.add_metric(values, value)
            yield metric

    def _of_sources(self, stock: _Stock) -> Iterable[Metric]:
        sources = [Source(followed, stock.censuses.get(followed.line.pipeline.name)) for followed in self._sources()]
        return [_metric(family, sources) for family in FAMILIES]


class _Told(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _metric(family: Family, sources: Sequence[Source]) -> Metric:
    labels = ("source", *family.labels)
    histogram = HistogramMetricFamily(family.name, family.meaning, labels=labels)
    plain = (CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily)(
        family.name, family.meaning, labels=labels
    )
    for source in sources:
        for values, found in family.samples(source).items():
            if isinstance(found, Spread):
                histogram.add_metric((source.pipeline.name, *values), *_buckets(found))
            else:
                plain.add_metric((source.pipeline.name, *values), found)
    return histogram if family.kind is Kind.HISTOGRAM else plain


def _buckets(spread: Spread) -> tuple[list[tuple[str, float]], float]:
    """How many lie at or below each bound, the last one infinity, and the sum of all."""
    bounds = [*map(str, spread.bounds_seconds), "+Inf"]
    return list(zip(bounds, accumulate(list(spread.counts)), strict=True)), spread.sum_seconds


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # it is begun anew with the next vector


def _disk(folder: Path) -> os.statvfs_result | None:
    try:
        return os.statvfs(folder)
    except OSError:
        return None  # whoever needs the folder says so
