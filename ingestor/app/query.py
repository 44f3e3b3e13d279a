"""`query`: a search, beside a running daemon or without one."""

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ingestor.app.collection import chosen, indexed, open_collection
from ingestor.app.embedder import embedding_of
from ingestor.app.parts import vectors_of
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
    settings = chosen(settings)
    running = indexed(settings)
    with ExitStack() as stack:
        sink = await asyncio.to_thread(open_collection, settings, running, stack)
        vectors = stack.enter_context(contextlib.closing(vectors_of(settings)))
        lane = stack.enter_context(contextlib.closing(Lane("search")))
        async with embedding_of(settings.embedding, vectors, lane) as embedding:
            return await search(
                question, embedding, sink, lane, limit=limit, where=where, where_document=where_document
            )
