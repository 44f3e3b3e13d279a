"""Metering: what metrics tell of a daemon, as the settings have it."""

from collections.abc import Callable, Sequence

from ingestor.app.embedder import currency_of, price_of
from ingestor.app.parts import VECTORS_FILE
from ingestor.engine.daemon import Line
from ingestor.metrics.family import Followed
from ingestor.metrics.meter import Meter, Storage
from ingestor.settings import Settings


def meter_of(settings: Settings, lines: Callable[[], Sequence[Line]], is_ready: Callable[[], bool]) -> Meter:
    """What metrics tell of the sources: of those with a line, which are none at first, and all in the end."""
    folders = {"data": settings.data_dir}
    if settings.chroma.mode in {"managed", "persistent"}:
        folders["chroma"] = settings.chroma_path
    storage = Storage(folders, settings.data_dir / VECTORS_FILE, settings.vectors.max_bytes)
    return Meter(lambda: [_followed(*each) for each in zip(settings.each(), lines(), strict=False)], is_ready, storage)


def _followed(settings: Settings, line: Line) -> Followed:
    chosen = settings.embedding
    return Followed(
        line,
        ledger=settings.data_dir / settings.ledger_file,
        collection=settings.chroma.collection,
        provider=chosen.provider,
        model=chosen.model_name,
        price_per_million_tokens=price_of(chosen),
        currency=currency_of(chosen),
    )
