"""Listing: the documents of all sources, page by page, as their ledgers know them.

Takes no lock and asks no service.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ingestor.app.parts import ledger_of
from ingestor.core.errors import ConfigError
from ingestor.core.formats import format_of
from ingestor.core.listing import Listed, Listing, Wanted
from ingestor.engine.file_types import file_type_of
from ingestor.settings import Settings


@dataclass(frozen=True, slots=True)
class Found:
    """A document of a source."""

    source: str
    """Name of the source; empty for the only one."""
    file_type: str
    """MIME type that its name tells."""
    document: Listed


def documents(
    settings: Settings, wanted: Wanted, *, source: str = "", limit: int, offset: int
) -> tuple[int, list[Found]]:
    """How many documents are wanted, and some of them, source by source and by path within each.

    `source` is the only one to look at. Raises `ConfigError` where there is none of that name.
    """
    sources = _chosen(settings, source)
    total, found = 0, list[Found]()
    for each in sources:
        page = _page(each, wanted, limit - len(found), max(0, offset - total))
        total += page.total
        found += [Found(each.source_name, type_of(listed.path), listed) for listed in page.documents]
    return total, found


def type_of(path: str) -> str:
    """The MIME type that a path tells."""
    converted_from = format_of(path)
    return converted_from.file_type if converted_from else file_type_of(PurePosixPath(path).name)


def _chosen(settings: Settings, source: str) -> Sequence[Settings]:
    sources = settings.each()
    chosen = [each for each in sources if not source or each.source_name == source]
    if not chosen:
        names = ", ".join(filter(None, (each.source_name for each in sources)))
        remedy = f"name one of {names}" if names else "leave it out: there is one source alone, without a name"
        raise ConfigError(f"there is no source {source!r}", remedy=remedy)
    return chosen


def _page(settings: Settings, wanted: Wanted, limit: int, offset: int) -> Listing:
    with ledger_of(settings) as ledger:
        if ledger is None:
            return Listing(0, ())
        return ledger.listing(wanted, lambda path: type_of(path) == wanted.file_type, limit, offset)
