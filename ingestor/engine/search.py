"""Search: from a question to hits."""

from collections.abc import Mapping, Sequence
from typing import Any

from ingestor.core.model import Hit
from ingestor.engine.embedding import Embedding
from ingestor.ports import Lane, Sink


async def search(  # noqa: PLR0913 - the question and its filters, and the parts that answer it
    question: str,
    embedding: Embedding,
    sink: Sink,
    lane: Lane,
    *,
    limit: int,
    where: Mapping[str, Any] | None = None,
    where_document: Mapping[str, Any] | None = None,
    ids: Sequence[str] | None = None,
) -> list[Hit]:
    """The `limit` records nearest to the question, best first. Raises what the ports raise."""
    vector = await embedding.query_vector(question)
    return await lane.run(sink.search, vector, limit, where, where_document, ids)
