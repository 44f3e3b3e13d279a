"""`plan`: what a sync would do, and what it would cost.

Takes no lock, asks no service, needs no key, and writes nothing: a file that is not there yet is not made.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.vectors import SqliteVectors
from ingestor.app.embedder import allowance_of, currency_of, max_batch_inputs_of, price_of, recipe_of
from ingestor.app.parts import VECTORS_FILE, folder_of, ledger_of, limit_of, reader_of
from ingestor.app.suggesting import suggestions
from ingestor.core.estimating import Duration, Load, Packing, cost_of, days_of, duration_of
from ingestor.core.model import Usage
from ingestor.core.pacing import Allowance
from ingestor.core.profiles import PROVIDERS, profile_for
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.account import local_day
from ingestor.engine.forecast import Forecast, Forecaster, Known
from ingestor.engine.reading import Reader
from ingestor.ports import Source
from ingestor.settings import EmbeddingSettings, Settings


@dataclass(frozen=True, slots=True)
class Price:
    """What the texts cost; None where nobody has said what a million tokens costs."""

    per_million_tokens: float | None
    currency: str
    cost: float | None


@dataclass(frozen=True, slots=True)
class Planned:
    """What a sync would do and cost; `as_json` is what `ingestor plan --json` prints."""

    watch_dir: str
    collection: str
    model: str
    forecast: Forecast
    price: Price
    duration: Duration
    days: int | None
    """Over how many days `limited_by` spreads it: 1 is today, None is never."""
    limited_by: str
    """The setting that limits what embedding may cost in a day; empty when none does."""
    suggestions: Sequence[str]
    """What of the folder could be left out."""
    caveat: str
    """Why the sync may have less to do than is told here; empty when nothing stands in the way of an exact answer."""

    def as_json(self) -> dict[str, Any]:
        """Files, kinds, problems, chunks, embedding, price, time."""
        forecast = self.forecast
        texts = forecast.texts
        return {
            "watch_dir": self.watch_dir,
            "collection": self.collection,
            "model": self.model,
            "documents": asdict(forecast.files),
            "kinds": {kind.value: asdict(counts) for kind, counts in forecast.kinds.items()},
            "problems": [asdict(obstacle) for obstacle in forecast.obstacles],
            "held_deletions": forecast.held_deletions,
            "chunks": asdict(forecast.chunks),
            "embedding": {
                "known_texts": texts.known,
                "texts": texts.paid,
                "requests": texts.requests,
                "tokens": texts.tokens,
            },
            "price": asdict(self.price),
            "time": asdict(self.duration) | {"days": self.days, "limited_by": self.limited_by},
            "suggestions": list(self.suggestions),
            "caveat": self.caveat,
        }


def plan(settings: Settings, tell: Callable[[int, int], None]) -> Planned:
    """Find out what a sync would do; `tell` gets how many of how many files have been read.

    Raises what a sync raises for settings that cannot work, but for a missing key and for what only a service can tell.
    """
    chosen = settings.embedding
    profile = profile_for(chosen.provider, chosen.model_name)
    allowance = allowance_of(chosen)
    source = folder_of(settings)
    with (
        ledger_of(settings) as ledger,
        _known_of(settings) as known,
        contextlib.closing(reader_of(settings, source)) as reader,
    ):
        forecast = _forecaster(settings, source, reader, ledger, known).forecast(tell)
        measured = ledger.totals().usage if ledger else Usage()
        spent_tokens = ledger.tokens_on(local_day(time.time())) if ledger else 0
    tokens = forecast.texts.tokens
    price = price_of(chosen)
    return Planned(
        watch_dir=str(settings.watch_dir),
        collection=settings.chroma.collection,
        model=f"{profile.provider}/{profile.model}",
        forecast=forecast,
        price=Price(price, currency_of(chosen), cost_of(tokens, price)),
        duration=duration_of(
            _load(forecast),
            measured,
            allowance,
            max_concurrency=chosen.max_concurrency,
            is_local=PROVIDERS[chosen.provider].is_in_process,
        ),
        days=days_of(tokens, allowance.tokens_per_day, spent_tokens),
        limited_by=_limiting(chosen, allowance),
        suggestions=suggestions(settings),
        caveat=_caveat(settings, is_known=ledger is not None),
    )


def _forecaster(
    settings: Settings, source: Source, reader: Reader, ledger: SqliteLedger | None, known: Known
) -> Forecaster:
    chosen = settings.embedding
    profile = profile_for(chosen.provider, chosen.model_name)
    return Forecaster(
        source,
        reader,
        ledger,
        known,
        recipe=recipe_of(chosen),
        packing=Packing(
            max_inputs=max_batch_inputs_of(chosen),
            # No call may carry more than a minute's share.
            max_tokens=min(profile.max_batch_tokens, chosen.tokens_per_minute or profile.max_batch_tokens),
        ),
        limit=limit_of(settings),
        estimate_tokens=estimate_tokens,
        is_collection_lost=not _is_collection_there(settings),
    )


@contextlib.contextmanager
def _known_of(settings: Settings) -> Iterator[Known]:
    """Which texts were paid for.

    The vector store makes its file, so it is not opened where there is none; it lets go of what is too much, so it is
    told that nothing is.
    """
    path = settings.data_dir / VECTORS_FILE
    if not path.is_file():
        yield lambda _: ()
        return
    with contextlib.closing(SqliteVectors(path, sys.maxsize)) as vectors:
        yield vectors.known


def _is_ours(settings: Settings) -> bool:
    return settings.chroma.mode in {"managed", "persistent"}


def _is_collection_there(settings: Settings) -> bool:
    """Whether the collection that the ledger speaks of may be there still; elsewhere only a service could tell."""
    if settings.chroma.mode == "memory":
        return False
    return not _is_ours(settings) or settings.chroma_path.is_dir()


def _caveat(settings: Settings, *, is_known: bool) -> str:
    if is_known or not (_is_ours(settings) and settings.chroma_path.is_dir()):
        return ""
    return "the ledger is missing: a sync first learns from the collection what is there, and may have less to do"


def _load(forecast: Forecast) -> Load:
    return Load(
        requests=forecast.texts.requests,
        tokens=forecast.texts.tokens,
        added=forecast.chunks.added,
        retagged=forecast.chunks.retagged,
        dropped=forecast.chunks.dropped,
    )


def _limiting(chosen: EmbeddingSettings, allowance: Allowance) -> str:
    if allowance.tokens_per_day is None:
        return ""
    is_own = allowance.tokens_per_day == chosen.max_tokens_per_day
    return "embedding.max_tokens_per_day" if is_own else "embedding.max_cost_per_day"
