"""Searching: a collection that is asked again and again, by a process that pays once for opening client and model.

Invariant: a question is put to the collection that bears the name when it is asked, whatever was compacted, switched or
made anew since the last one, and only while it holds vectors of the model that the question goes through.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from ingestor.adapters.chroma_sink import ChromaSink, refuse_other_recipe, view_sink
from ingestor.adapters.instance import InstanceRecord
from ingestor.adapters.runtime import ThreadLane
from ingestor.app.collection import open_client
from ingestor.app.embedder import recipe_of
from ingestor.app.parts import Sourced
from ingestor.core.errors import ConfigError
from ingestor.core.model import Hit, Recipe
from ingestor.engine.pipeline import Pipeline
from ingestor.engine.search import search
from ingestor.ports import Lane

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_T = TypeVar("_T")

_IN_PROCESS = frozenset({"persistent", "memory"})
"""Modes of Chroma in which this process holds all that there is: a second client would not see its index."""


class Searcher:
    """Answers questions by one collection, any number at a time. `lane` is the thread that `client` is used by."""

    def __init__(self, client: "ClientAPI", collection: str, *, lane: Lane, pipeline: Pipeline, recipe: Recipe) -> None:
        self._client = client
        self._collection = collection
        self._lane = lane
        self._pipeline = pipeline
        self._recipe = recipe

    async def search(
        self,
        text: str,
        *,
        limit: int,
        where: Mapping[str, Any] | None = None,
        where_document: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """The `limit` records nearest to a text, best first.

        Raises `RecipeMismatch` for a collection of another model, `CollectionLost` where there is none, `ConfigError`
        for a filter that Chroma refuses, and what the model raises.
        """
        sink = self._pipeline.sink.beside(await self._lane.run(self._opened))
        embedding = self._pipeline.embedding
        return await search(text, embedding, sink, self._lane, limit=limit, where=where, where_document=where_document)

    async def look(self, call: Callable[[ChromaSink], _T]) -> _T:
        """What a call that only reads gets of the collection. Raises as `search`."""
        return await self._lane.run(lambda: call(self._opened()))

    def _opened(self) -> ChromaSink:
        sink = view_sink(self._client, self._collection)
        refuse_other_recipe(self._collection, sink.metadata, self._recipe)
        return sink


class Searchers:
    """The searchers of a process that follows folders, by collection; what they need is opened by the first search.

    A question goes through the model of the pipelines: their account, their pace and their vector store. Where Chroma
    is a server, `record` tells where this process runs its own, and searches have a client and a thread of their own,
    so that they do not wait for writes.
    """

    def __init__(
        self, sources: Sequence[Sourced], pipelines: Sequence[Pipeline], record: InstanceRecord | None
    ) -> None:
        self._sources = {each.settings.chroma.collection: each for each in reversed(sources)}
        self._pipelines = {
            each.settings.chroma.collection: pipeline
            for each, pipeline in reversed(list(zip(sources, pipelines, strict=True)))
        }
        self._record = record
        self._opening = asyncio.Lock()
        self._found: dict[str, Searcher] = {}
        self._own: tuple[ClientAPI, Lane] | None = None
        self._stack = ExitStack()

    @property
    def collections(self) -> list[str]:
        """The collections that may be asked."""
        return sorted(self._sources)

    async def of(self, collection: str = "") -> Searcher:
        """The searcher of a collection, or of the only one. Raises `ConfigError` for none, and where it is not named.

        Raises `ServiceUnavailable` where Chroma is away.
        """
        names = ", ".join(self.collections)
        if not collection and len(self._sources) > 1:
            raise ConfigError(f"the sources fill several collections: {names}", remedy="name one of them: collection")
        collection = collection or self.collections[0]
        if collection not in self._sources:
            raise ConfigError(f"no source fills the collection {collection!r}", remedy=f"name one of {names}")
        async with self._opening:
            if collection not in self._found:
                self._found[collection] = await self._open(collection)
            return self._found[collection]

    async def close(self) -> None:
        """Let go of the client, and of its thread when what was asked for has ended."""
        await asyncio.to_thread(self._stack.close)

    async def _open(self, collection: str) -> Searcher:
        source, pipeline = self._sources[collection], self._pipelines[collection]
        client, lane = source.sink.client, pipeline.services.sink_lane
        if source.settings.chroma.mode not in _IN_PROCESS:
            client, lane = await self._own_way(source)
        recipe = recipe_of(source.settings.embedding)
        return Searcher(client, collection, lane=lane, pipeline=pipeline, recipe=recipe)

    async def _own_way(self, source: Sourced) -> "tuple[ClientAPI, Lane]":
        if self._own is None:
            client = await asyncio.to_thread(open_client, source.settings, self._record, self._stack)
            lane = ThreadLane("search")
            self._stack.callback(lane.close)
            self._own = client, lane
        return self._own
