"""`query`: a search, beside a running daemon or without one."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ingestor.adapters.chroma_sink import ChromaSink, view_sink
from ingestor.adapters.runtime import ThreadLane
from ingestor.app.collection import configured, indexed, open_client, settings_for, sink_of
from ingestor.app.embedder import embedding_of
from ingestor.app.parts import account_book_of, vectors_of
from ingestor.app.records import held, opened_target, refuse_texts
from ingestor.app.serving import asked
from ingestor.core.errors import ConfigError
from ingestor.core.fingerprint import is_owned, source_of
from ingestor.core.handmade import checked_vector
from ingestor.core.model import Hit
from ingestor.engine.search import search
from ingestor.ports import Vector
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI


async def query(  # noqa: PLR0913 - the question and its filters
    settings: Settings,
    question: str | Sequence[object],
    *,
    limit: int,
    where: Mapping[str, Any] | None,
    where_document: Mapping[str, Any] | None,
    ids: Sequence[str] = (),
    collection: str | None = None,
) -> list[Hit]:
    """Search a collection, the configured one unless another is named, for a text or for a vector of one's own.

    `ids` are those to search among. Raises `RecipeMismatch` when a text would need another model, `ConfigError` for a
    collection or ids that there are not, and for a vector that is none.
    """
    is_ours = collection is None or collection in configured(settings)
    settings = settings_for(settings, collection or "")
    running = indexed(settings)
    with ExitStack() as stack:
        client = await asyncio.to_thread(open_client, settings, running, stack)
        sink, vector, settings = await asyncio.to_thread(_opened, settings, client, question, ids, is_ours)
        lane = stack.enter_context(contextlib.closing(ThreadLane("search")))
        among = ids or None
        if vector is not None:
            return await lane.run(sink.search, vector, limit, where, where_document, among)
        vectors = stack.enter_context(contextlib.closing(vectors_of(settings)))
        ledger = stack.enter_context(account_book_of(settings))
        async with embedding_of(settings.embedding, vectors, ledger, lane) as embedding:
            return await search(
                str(question),
                embedding,
                sink,
                lane,
                limit=limit,
                where=where,
                where_document=where_document,
                ids=among,
            )


def file_of(settings: Settings, hit: Hit, collection: str | None = None) -> Path | None:
    """The file that a hit of a collection was made of; None for a record of others, and where no such file is."""
    if not is_owned(hit.id, hit.metadata) or "source" not in hit.metadata:
        return None
    filling = settings_for(settings, collection or "").chroma.collection
    sources = [each for each in settings.each() if each.chroma.collection == filling]
    name, path = source_of(str(hit.metadata["document_id"])), PurePosixPath(str(hit.metadata["source"]))
    # The first source has taken over the documents of the time when there was only one.
    source = next((each for each in sources if each.source_name == name), next(iter(sources), None))
    if source is None or path.is_absolute() or ".." in path.parts:
        return None
    file = Path.cwd() / source.watch_dir / path
    return file if file.is_file() else None


def _opened(
    settings: Settings,
    client: "ClientAPI",
    question: str | Sequence[object],
    ids: Sequence[str],
    is_ours: bool,  # noqa: FBT001 - called by another thread, by position
) -> tuple[ChromaSink, Vector | None, Settings]:
    """What is searched, the vector that it is searched for, where one was given, and the settings of its model."""
    is_text = isinstance(question, str)
    serving = asked(settings, client) if is_ours else None
    if serving is not None:
        settings = serving.settings
    if is_text and serving is not None and serving.reason:
        message = f"the collection {settings.chroma.collection!r} cannot be asked: {serving.reason}"
        raise ConfigError(message, remedy="give its model back, or wait until the rebuild has switched")
    if is_text and is_ours:
        # Made where it is missing, and held against the settings.
        sink_of(settings, client, serving.recipe if serving is not None else None)
    target = opened_target(settings, client, is_ours=is_ours)
    vector = None
    if is_text:
        refuse_texts(target)
    else:
        vector = checked_vector(question, target.row.dimensions, target.where)
    held(target, ids)
    return view_sink(client, settings.chroma.collection), vector, settings
