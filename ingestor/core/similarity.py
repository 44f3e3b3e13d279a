"""How near two vectors are, in the two measures that people know.

Invariant: a vector against itself is exactly 1.0 by cosine and exactly 0.0 by distance, and no result is NaN.
"""

import numpy as np
from numpy.typing import NDArray


def cosine(query: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of the angle between one vector, shape (dimensions,), and others, shape (texts, dimensions): (texts,).

    Raises `ValueError` for a zero vector, which has no direction.
    """
    asked, others = _doubles(query, texts)
    # All three sums are taken in the same way, so that equal vectors give equal sums, and their ratio is 1.0.
    products, asked_squares, squares = (
        np.sum(pair, axis=1) for pair in (others * asked, np.square(asked)[np.newaxis], np.square(others))
    )
    if not (asked_squares.all() and squares.all()):
        raise ValueError("a zero vector has no direction, so it has no cosine")
    cosines: NDArray[np.float64] = np.clip(products / np.sqrt(asked_squares * squares), -1.0, 1.0)
    return cosines


def euclidean(query: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Length of the straight line between one vector and others; shapes as for `cosine`."""
    asked, others = _doubles(query, texts)
    distances: NDArray[np.float64] = np.sqrt(np.sum(np.square(others - asked), axis=1))
    return distances


def _doubles(query: NDArray[np.float32], texts: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # The squares of the largest and the smallest float32 are not in float32 any more.
    return query.astype(np.float64), texts.astype(np.float64)
