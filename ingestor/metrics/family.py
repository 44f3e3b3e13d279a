"""Family: a metric of a source, with its name, its meaning, and where its samples come from."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias, TypeVar

from ingestor.adapters.ledger_census import Census
from ingestor.core.errors import IngestorError
from ingestor.core.latency import Spread
from ingestor.engine.daemon import Line
from ingestor.engine.pipeline import Pipeline
from ingestor.engine.tally import Tally

_Key = TypeVar("_Key", bound=str)

Samples: TypeAlias = Mapping[tuple[str, ...], float]
"""Values of the labels -> value."""
Spreads: TypeAlias = Mapping[tuple[str, ...], Spread]


class Kind(StrEnum):
    """What a number means."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Followed:
    """A source that is followed, and what of its settings metrics tell."""

    line: Line
    ledger: Path
    collection: str
    provider: str
    model: str
    price_per_million_tokens: float | None
    """None where it is not known: then there is no metric of what embedding has cost."""
    currency: str


@dataclass(frozen=True, slots=True)
class Source:
    """A source just now."""

    followed: Followed
    census: Census | None
    """None when the ledger could not be read."""

    @property
    def pipeline(self) -> Pipeline:
        """Its part of the engine."""
        return self.followed.line.pipeline

    @property
    def tally(self) -> Tally:
        """What was done for it."""
        return self.pipeline.tally


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of each source; the label `source` is understood."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...]
    samples: Callable[[Source], Samples | Spreads]


def counter(name: str, meaning: str, samples: Callable[[Source], Samples], *labels: str) -> Family:
    """What only grows while the process lives."""
    return Family(name, Kind.COUNTER, meaning, labels, samples)


def gauge(name: str, meaning: str, samples: Callable[[Source], Samples], *labels: str) -> Family:
    """What is so just now."""
    return Family(name, Kind.GAUGE, meaning, labels, samples)


def histogram(name: str, meaning: str, spreads: Callable[[Source], Spreads], *labels: str) -> Family:
    """How long things took, in seconds."""
    return Family(name, Kind.HISTOGRAM, meaning, labels, spreads)


def one(value: float | None) -> Samples:
    """The only sample of a source; none when it is not known."""
    return {} if value is None else {(): float(value)}


def by(counts: Mapping[_Key, float], keys: Iterable[_Key] = ()) -> Samples:
    """Samples by one label; `keys` are there even if they were not counted yet."""
    return {(str(key),): value for key, value in (dict.fromkeys(keys, 0.0) | dict(counts)).items()}


def counted(samples: Callable[[Census], Samples]) -> Callable[[Source], Samples]:
    """Samples of what the ledger has."""
    return lambda source: {} if source.census is None else samples(source.census)


def names(errors: Iterable[type[IngestorError]]) -> list[str]:
    """Error classes as values of a label."""
    return [error.__name__ for error in errors]


def kinds_of(error: type[IngestorError]) -> Iterator[type[IngestorError]]:
    """Every class below a branch of errors."""
    for kind in error.__subclasses__():
        yield kind
        yield from kinds_of(kind)
