"""`query`: a search, beside a running daemon or without one."""

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ingestor.adapters.clock import SystemClock
from ingestor.adapters.vectors import SqliteVectors
from ingestor.app.collection import indexed, open_collection
from ingestor.app.parts import VECTORS_FILE, embedder_of, in_data_dir
from ingestor.core.model import Hit
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.embedding import Embedding
from ingestor.engine.lane import Lane
from ingestor.engine.pipeline import EMBEDDING_RETRY
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
        sink = await asyncio.to_thread(open_collection, settings, running, stack)
        vectors = stack.enter_context(contextlib.closing(SqliteVectors(in_data_dir(settings, VECTORS_FILE))))
        lane = stack.enter_context(contextlib.closing(Lane("search")))
        embedder = embedder_of(settings)
        embedding = Embedding(
            embedder, vectors, lane, SystemClock(), backoff=EMBEDDING_RETRY, estimate_tokens=estimate_tokens
        )
        try:
            return await search(
                question, embedding, sink, lane, limit=limit, where=where, where_document=where_document
            )
        finally:
            await embedder.close()
