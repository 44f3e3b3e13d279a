"""Chroma's default model, all-MiniLM-L6-v2, in this process: the vectors are those of Chroma's own function.

Chroma downloads the model at first use, into the user's cache folder, and checks its SHA-256.

Invariants: a vector depends on its text alone; no download and no model call runs on the event loop; a stop waits for
at most one text, and for no download. A download that fails or was interrupted is begun anew by the next call.
"""

import asyncio
import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

import numpy as np

from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.model import Recipe, Usage
from ingestor.core.profiles import CHROMA_DEFAULT, profile_for, recipe_for, without_lone_surrogates
from ingestor.ports import Vector, Vectors

if TYPE_CHECKING:
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

_PROFILE: Final = profile_for(CHROMA_DEFAULT)
_RECIPE: Final = recipe_for(_PROFILE)
_MAX_WORDS: Final = 300


class ChromaEmbedder:
    """Chroma's default model behind the port `Embedder`; costs nothing and sends nothing anywhere.

    A text of more than 256 word pieces is cut there, as by Chroma itself. Raises `ConfigError` for any recipe but the
    model's own.
    """

    def __init__(
        self,
        recipe: Recipe = _RECIPE,
        *,
        max_batch_inputs: int = _PROFILE.max_batch_inputs,
        max_batch_tokens: int = _PROFILE.max_batch_tokens,
    ) -> None:
        if recipe != _RECIPE:
            raise ConfigError(
                f"Chroma's default model {_RECIPE.model} has {_RECIPE.dimensions} dimensions and no prefixes;"
                f" it cannot work by {recipe}",
                remedy="leave model, dimensions and prefixes out of the settings of this provider",
            )
        self._max_batch_inputs = max_batch_inputs
        self._max_batch_tokens = max_batch_tokens
        self._turn = asyncio.Lock()
        self._loading: Future[ONNXMiniLM_L6_V2] | None = None
        self._is_closed = False

    @property
    def recipe(self) -> Recipe:
        """What decides the vectors."""
        return _RECIPE

    @property
    def max_batch_inputs(self) -> int:
        """How many texts one call may carry: few, so that progress is visible."""
        return self._max_batch_inputs

    @property
    def max_batch_tokens(self) -> int:
        """How many estimated tokens one call may carry."""
        return self._max_batch_tokens

    @property
    def max_concurrency(self) -> int:
        """How many calls may run at once: one, which takes all processors."""
        return 1

    async def open(self) -> None:
        """Do nothing: the model may have to be downloaded, which a folder that rests need not cost."""

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """Embed the exact texts; float32, shape (texts, 384), of length 1. A lone surrogate becomes U+FFFD.

        Raises `ServiceUnavailable` when the model cannot be downloaded, read or run, and after `close`.
        """
        vectors = np.empty((len(texts), _RECIPE.dimensions), dtype=np.float32)
        if not texts:
            return vectors, Usage()
        tokens = 0
        async with self._turn:
            function = await self._loaded()
            for place, text in enumerate(texts):
                self._check_open()
                vectors[place], count = await asyncio.to_thread(_embedded, function, text)
                tokens += count
        return vectors, Usage(requests=1, texts=len(texts), tokens=tokens)

    async def close(self) -> None:
        """End calls under way after the text that each is at, with `ServiceUnavailable`. May be called twice."""
        self._is_closed = True

    async def _loaded(self) -> "ONNXMiniLM_L6_V2":
        """The model, once it is on this machine. A caller that goes leaves the download to the next one."""
        self._check_open()
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = Future()
            # A running future cannot be cancelled under the feet of the thread that is about to set it.
            self._loading.set_running_or_notify_cancel()
            # A daemon: the interpreter joins any other thread at its end, however long that one still downloads.
            threading.Thread(target=_download, args=(self._loading,), name="chroma-model", daemon=True).start()
        return await asyncio.wrap_future(self._loading)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ServiceUnavailable("Chroma's default embedding model is closed")


def _download(loading: "Future[ONNXMiniLM_L6_V2]") -> None:
    try:
        from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2  # noqa: PLC0415 - 0.7 s, and not everybody's

        function = ONNXMiniLM_L6_V2()
        function.tqdm = functools.partial(function.tqdm, disable=True)  # a log is no place for a progress bar
        function._download_model_if_not_exists()  # noqa: SLF001 - apart from the call, so that no end waits for it
    except BaseException as error:  # noqa: BLE001 - of httpx, tarfile, the system: it is raised where the caller waits
        loading.set_exception(_unavailable("cannot be downloaded", error))
    else:
        loading.set_result(function)


def _embedded(function: "ONNXMiniLM_L6_V2", text: str) -> tuple[Vector, int]:
    """Vector and tokens of one text. Raises `ServiceUnavailable` when the model cannot be read or gives none."""
    clean = without_lone_surrogates(text)
    try:
        (row,) = function([clean])
        tokens = sum(function.tokenizer.encode(clean).attention_mask)
    except Exception as error:  # onnxruntime's and the tokenizer's have no base of their own
        raise _unavailable("cannot be run", error) from error
    vector: Vector = np.asarray(row, dtype=np.float32)
    if vector.shape != (_RECIPE.dimensions,) or not np.isfinite(vector).all() or not vector.any():
        raise ServiceUnavailable("Chroma's default embedding model gave no usable vector", remedy=_remedy())
    return vector, tokens


def _unavailable(what: str, error: BaseException) -> ServiceUnavailable:
    words = " ".join(str(error).split())[:_MAX_WORDS]
    return ServiceUnavailable(
        f"Chroma's default embedding model {_RECIPE.model} {what}: {type(error).__name__} {words}", remedy=_remedy()
    )


def _remedy() -> str:
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2  # noqa: PLC0415 - as above

    return (
        f"Chroma downloads it once, from {ONNXMiniLM_L6_V2.MODEL_DOWNLOAD_URL} to {ONNXMiniLM_L6_V2.DOWNLOAD_PATH}: let"
        " this machine reach it, or delete that folder when it is damaged, or copy it from another machine; or set"
        " embedding.provider to local"
    )
