"""`embed` and `similarity`: texts given by hand, as vectors and compared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np

from ingestor.adapters.decoding import decode
from ingestor.adapters.runtime import ThreadLane
from ingestor.app.embedder import embedding_of, recipe_of
from ingestor.app.parts import account_book_of, vectors_of
from ingestor.core.errors import ConfigError
from ingestor.core.model import Purpose, Usage
from ingestor.core.profiles import PROVIDERS, without_lone_surrogates
from ingestor.core.similarity import cosine, euclidean
from ingestor.engine.evaluation import Model
from ingestor.ports import Vector
from ingestor.settings import EmbeddingSettings, Settings


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, and what they have cost: nothing where the vector store had them."""

    model: str
    vectors: Sequence[Vector]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Similar:
    """A text, and how near it is to the query."""

    text: str
    cosine: float
    distance: float
    """Euclidean."""
    is_query: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Texts by their similarity to a query, best first; the query itself is the first."""

    model: str
    dimensions: int
    rows: Sequence[Similar]
    usage: Usage


@asynccontextmanager
async def running_model(settings: Settings, chosen: EmbeddingSettings) -> AsyncIterator[Model]:
    """Run a model over the vector store. Raises `ConfigError` when its key is missing.

    What it spends is counted, and held below the day's limit; what a model of this machine is only compared by is not.
    """
    async with AsyncExitStack() as stack:
        vectors = stack.enter_context(contextlib.closing(vectors_of(settings)))
        is_free = PROVIDERS[chosen.provider].is_in_process and chosen.provider != settings.embedding.provider
        ledger = None if is_free else stack.enter_context(account_book_of(settings))
        lane = stack.enter_context(contextlib.closing(ThreadLane("vectors")))
        embedding = await stack.enter_async_context(embedding_of(chosen, vectors, ledger, lane))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(embedding.run())
            yield Model(recipe_of(chosen), embedding)
            running.cancel()


def text_of(raw: bytes) -> str:
    """What somebody has piped in, without its last line end. Raises `UndecodableDocument`."""
    return decode(raw).text.removesuffix("\n")


async def embed(settings: Settings, chosen: EmbeddingSettings, texts: Sequence[str], purpose: Purpose) -> Embedded:
    """Embed texts. Raises `ConfigError` for an empty one, and what `Request.vectors` raises."""
    sendable = _sendable(texts)
    async with running_model(settings, chosen) as model:
        vectors = await model.vectors(sendable, purpose)
        return Embedded(model.recipe.model, vectors, model.usage)


async def compare(settings: Settings, chosen: EmbeddingSettings, query: str, texts: Sequence[str]) -> Comparison:
    """Compare a query, embedded as one, with itself and with texts, embedded as documents. Raises as `embed`."""
    question, *others = _sendable([query, *texts])
    async with running_model(settings, chosen) as model:
        (asked,) = await model.vectors([question], Purpose.QUERY)
        vectors = np.stack([asked, *await model.vectors(others, Purpose.DOCUMENT)])
        usage, name = model.usage, model.recipe.model
    cosines, distances = cosine(asked, vectors), euclidean(asked, vectors)
    rows = [
        Similar(text, float(near), float(far), is_query=place == 0)
        for place, (text, near, far) in enumerate(zip([query, *texts], cosines, distances, strict=True))
    ]
    rows.sort(key=lambda row: (not row.is_query, -row.cosine))
    return Comparison(name, len(asked), rows, usage)


def _sendable(texts: Sequence[str]) -> list[str]:
    if not all(texts):
        raise ConfigError("a text is empty: no model has a vector for nothing", remedy="leave it out")
    return [without_lone_surrogates(text) for text in texts]
