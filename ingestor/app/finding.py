"""Finding: a search with the filters of people, a folder among them.

Chroma compares metadata for equality alone, so a folder becomes the documents that lie in it. It is told of at most
`MAX_NAMED` of them; of a folder that holds more, what is found is what lies in it of the nearest `MAX_NEAREST` records.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingestor.app.listing import documents
from ingestor.app.live import Live
from ingestor.core.filters import filter_of, pair_of
from ingestor.core.listing import Wanted
from ingestor.core.model import Hit
from ingestor.core.paths import is_at_or_below
from ingestor.settings import Settings

MAX_NAMED: Final = 5_000
"""Of 20,000 records, a search among 5,000 named documents took 67 ms, one among 100 took 13 ms."""
MAX_NEAREST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for, and among what; what is empty leaves nothing out."""

    text: str
    folder: str = ""
    """Relative to the watched folder."""
    file_type: str = ""
    """MIME type."""
    pairs: tuple[str, ...] = ()
    """Metadata: `key = value`."""
    collection: str = ""
    """Empty: the only one."""
    count: int = 10
    """How many hits, at most `MAX_NEAREST`."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, the best first."""

    hits: Sequence[Hit]
    folder_documents: int | None = None
    """How many documents lie in the folder; None where none was named."""

    @property
    def is_partial(self) -> bool:
        """Whether only the nearest records of the collection were looked through."""
        return self.folder_documents is not None and self.folder_documents > MAX_NAMED


async def find(live: Live, question: Question) -> Found:
    """The hits of a question. Raises what `Searcher.search` raises, and `ConfigError` for metadata of another form."""
    searcher = await live.opened_searchers().of(question.collection)
    pairs = [pair_of(written) for written in question.pairs]
    if not question.folder:
        where = filter_of(pairs, file_type=question.file_type)
        return Found(await searcher.search(question.text, limit=question.count, where=where))
    count, ids = await asyncio.to_thread(_documents_in, live.settings, question.folder)
    if not ids:
        return Found([], count)
    if count > MAX_NAMED:
        where = filter_of(pairs, file_type=question.file_type)
        near = await searcher.search(question.text, limit=MAX_NEAREST, where=where)
        inside = [hit for hit in near if is_at_or_below(str(hit.metadata.get("source", "")), question.folder)]
        return Found(inside[: question.count], count)
    where = filter_of(pairs, file_type=question.file_type, document_ids=ids)
    return Found(await searcher.search(question.text, limit=question.count, where=where), count)


def _documents_in(settings: Settings, folder: str) -> tuple[int, list[str]]:
    """How many documents lie at or below a folder of any source, and the ids of some of them."""
    count, found = documents(settings, Wanted(folder=folder), limit=MAX_NAMED, offset=0)
    return count, [each.document.document_id for each in found if each.document.document_id is not None]
