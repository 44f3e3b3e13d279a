"""Ask a collection by text, in a program of one's own: importing this module is all there is to it.

Chroma then knows the function "ingestor" that collections name whose model Chroma has no function for: the built-in
model, and models of an endpoint that want a prefix before questions or are asked for another length of vectors than
their own. A question gets the vector that `ingestor query` would give it.

Invariants: a function is cheap to make, as Chroma makes one for every question; what it works with, a model in memory
or connections, is made at the first text, once in a process for each configuration. Nothing of it outlives a fork.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings
from chromadb.utils.embedding_functions import register_embedding_function

from ingestor.adapters.local_embedder import LocalEmbedder
from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.core.asking import OURS, Config, function_for
from ingestor.core.errors import ConfigError, IngestorError
from ingestor.core.model import Purpose, Recipe
from ingestor.core.network import route_to
from ingestor.core.packing import batch_length
from ingestor.core.profiles import LOCAL, profile_for, recipe_for
from ingestor.core.tokens import estimate_tokens
from ingestor.ports import Embedder, Vector

TIMEOUT_SECONDS: Final = 60.0
"""After which a call of an endpoint is given up."""

_Answer = TypeVar("_Answer")


class IngestorEmbeddingFunction(EmbeddingFunction[Documents]):
    """The embedding function "ingestor" of Chroma; without a configuration, the built-in model.

    Documents and questions each get the prefix that the model wants. Vectors are float32 of the collection's length. A
    call that fails is not repeated: it raises `RuntimeError` with a sentence on what to do, as does a key's variable
    that is not set where the endpoint wants a key. A configuration that names no model raises `ValueError`.
    """

    def __init__(self, config: Config | None = None) -> None:
        built_in = profile_for(LOCAL)
        chosen = config or function_for(recipe_for(built_in), built_in, base_url="", key_variable="").config
        self._config: dict[str, Any] = dict(chosen)
        if missing := {"provider", "model"} - self._config.keys():
            raise ValueError(f"the configuration of the embedding function {OURS!r} lacks {', '.join(sorted(missing))}")

    @staticmethod
    def name() -> str:
        """What collections call it."""
        return OURS

    @staticmethod
    def build_from_config(config: Mapping[str, Any]) -> "IngestorEmbeddingFunction":
        """The function that a collection names."""
        return IngestorEmbeddingFunction(config)

    def get_config(self) -> dict[str, Any]:
        """What a collection keeps of it: no key, but the name of the variable that holds one."""
        return self._config

    def default_space(self) -> str:  # type: ignore[override]  # Chroma's literal type is none of its public names
        """The distance of a collection that names none."""
        return "cosine"

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma compares the signature
        """Vectors of documents."""
        return self._vectors(input, Purpose.DOCUMENT)

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002 - as above
        """Vectors of questions."""
        return self._vectors(input, Purpose.QUERY)

    def _vectors(self, texts: Sequence[str], purpose: Purpose) -> Embeddings:
        try:
            embedder = _EMBEDDERS.of(self._config)
            recipe = embedder.recipe
            sent = [recipe.text_to_send(text, purpose) for text in texts]
            return list(_EMBEDDERS.run(_embedded(embedder, sent)))
        except IngestorError as error:
            raise RuntimeError(error.sentence) from error


class _Embedders:
    """The models of this process by their configuration, and the event loop that they live on, in a thread of its own.

    The caller may be on an event loop itself, or on any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[frozenset[tuple[str, Any]], str], Embedder] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def of(self, config: Config) -> Embedder:
        """The model of a configuration, with the key that the environment has now. Raises `ConfigError`."""
        api_key = os.environ.get(str(config.get("key_variable", "")), "")
        chosen = frozenset(config.items()), api_key
        with self._lock:
            if chosen not in self._made:
                self._made[chosen] = _embedder(config, api_key)
            return self._made[chosen]

    def run(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Wait for work on the event loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: the end of the program waits for no answer that nobody wants any more.
                threading.Thread(target=self._loop.run_forever, name="ingestor-embedding", daemon=True).start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def forget(self) -> None:
        """Begin anew in a forked process, which has the objects of its parent and none of its threads."""
        self.__init__()  # type: ignore[misc]  # the lock may have been held in the parent, so nothing is kept


_EMBEDDERS: Final = _Embedders()
os.register_at_fork(after_in_child=_EMBEDDERS.forget)


def _embedder(config: Config, api_key: str) -> Embedder:
    recipe = Recipe(
        str(config["provider"]),
        str(config["model"]),
        int(config.get("dimensions", 0)),
        document_prefix=str(config.get("document_prefix", "")),
        query_prefix=str(config.get("query_prefix", "")),
    )
    if recipe.provider == LOCAL:
        return LocalEmbedder(recipe)
    if not config.get("base_url"):
        raise ConfigError(f"the configuration of the embedding function {OURS!r} lacks base_url")
    profile = profile_for(recipe.provider, recipe.model)
    return OpenAIEmbedder(
        recipe,
        base_url=str(config["base_url"]),
        api_key=api_key,
        max_batch_inputs=profile.max_batch_inputs,
        max_batch_tokens=profile.max_batch_tokens,
        max_concurrency=1,
        timeout_seconds=TIMEOUT_SECONDS,
        sends_dimensions=bool(config.get("sends_dimensions")),
        key_setting=f"the environment variable {config.get('key_variable', '')}",
        # In a program of somebody else's, what its environment says is all there is.
        route=route_to(str(config["base_url"]), os.environ),
    )


async def _embedded(embedder: Embedder, texts: Sequence[str]) -> list[Vector]:
    """The vectors of the exact texts, in calls that the model takes."""
    tokens = [estimate_tokens(text) for text in texts]
    vectors: list[Vector] = []
    while (start := len(vectors)) < len(texts):
        length = batch_length(
            tokens[start:], max_inputs=embedder.max_batch_inputs, max_tokens=embedder.max_batch_tokens
        )
        rows, _ = await embedder.embed(texts[start : start + length])
        vectors.extend(rows)
    return vectors


register_embedding_function(IngestorEmbeddingFunction)  # type: ignore[no-untyped-call]  # Chroma's has no types
