"""`query`: a search, beside a running daemon or without one."""

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.instance import InstanceRecord
from ingestor.app.collection import indexed, open_client, sink_of
from ingestor.app.embedder import embedding_of
from ingestor.app.parts import vectors_of
from ingestor.app.serving import asked
from ingestor.core.errors import ConfigError
from ingestor.core.model import Hit
from ingestor.engine.lane import Lane
from ingestor.engine.search import search
from ingestor.settings import Settings


async def query(
    settings: Settings,
    question: str,
    *,
    limit: int,
    where: Mapping[str, Any] | None,
    where_document: Mapping[str, Any] | None,
) -> list[Hit]:
    """Search, beside a running daemon or without one."""
    running = indexed(settings)
    with ExitStack() as stack:
        sink, settings = await asyncio.to_thread(_opened, settings, running, stack)
        vectors = stack.enter_context(contextlib.closing(vectors_of(settings)))
        lane = stack.enter_context(contextlib.closing(Lane("search")))
        async with embedding_of(settings.embedding, vectors, lane) as embedding:
            return await search(
                question, embedding, sink, lane, limit=limit, where=where, where_document=where_document
            )


def _opened(settings: Settings, running: InstanceRecord | None, stack: ExitStack) -> tuple[ChromaSink, Settings]:
    """Open the collection, and the settings of the model that it was built with."""
    client = open_client(settings, running, stack)
    serving = asked(settings, client)
    if serving is None:
        return sink_of(settings, client), settings
    if serving.reason:
        message = f"the collection {serving.settings.chroma.collection!r} cannot be asked: {serving.reason}"
        raise ConfigError(message, remedy="give its model back, or wait until the rebuild has switched")
    return sink_of(serving.settings, client, serving.recipe), serving.settings
