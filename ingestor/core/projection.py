"""Projection: vectors of any length as points of a plane, so that a collection can be looked at.

Two steps. The plane of greatest variance (PCA, randomized: Halko, Martinsson and Tropp, 2011, "Finding structure with
randomness") says where a point is among all. Then each point is drawn to those that are nearest to it in the whole
space, and pushed from some others, as UMAP does (McInnes, Healy and Melville, 2018): of what is near a point in the
plane, half as much again or more is then near it in the whole space, too.

Invariant: equal vectors in the same order give equal points on a machine; every point is finite and within the square
from -1 to 1. Another machine rounds otherwise, and may turn or shift groups of points.
"""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Shape (points, 2)."""

_SEED = 7
_OVERSAMPLED = 8
_POWER_STEPS = 4
_NEIGHBOURS = 10
_ROUNDS = 200
_PUSHED = 8
"""How many others push a point in a round."""
_STEP = 0.25
_MOST_FORCE = 4.0
_LEAST = 1e-12


def projected(vectors: NDArray[np.float32]) -> Points:
    """The place in the plane of each vector; `vectors` of shape (points, dimensions), finite. Scale means nothing."""
    directions = _directions(vectors)
    plane = _planar(directions)
    if len(plane) > _NEIGHBOURS:
        plane = _refined(plane, directions)
    return _fitted(plane)


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Centred, and of length 1: what all vectors have in common tells nothing, and their lengths differ little."""
    doubles = vectors.astype(np.float64)
    if not len(doubles):
        return doubles
    centred = doubles - doubles.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions: NDArray[np.float64] = centred / np.maximum(lengths, _LEAST)
    return np.where(lengths > _LEAST * (1 + np.abs(doubles).max()), directions, 0.0)


def _planar(directions: NDArray[np.float64]) -> Points:
    """The two components of greatest variance; each points to where its largest weight is positive."""
    count, dimensions = directions.shape
    if count < 2 or not dimensions:  # noqa: PLR2004 - one point has no variance
        return np.zeros((count, 2))
    centred = directions - directions.mean(axis=0)
    width = min(2 + _OVERSAMPLED, count, dimensions)
    basis = centred.T @ np.random.default_rng(_SEED).standard_normal((count, width))
    for _ in range(_POWER_STEPS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, _, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    axes = (basis @ turned.T)[:, :2]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    points = np.zeros((count, 2))
    points[:, : axes.shape[1]] = centred @ axes
    return points


def _refined(plane: Points, directions: NDArray[np.float64]) -> Points:
    count = len(plane)
    near, strengths = _neighbourhood(directions)
    own, other, pull = np.repeat(np.arange(count), near.shape[1]), near.ravel(), strengths.ravel()
    points = _fitted(plane)  # forces are of order 1: what begins close finds its own distance, and leaves no void
    generator = np.random.default_rng(_SEED)
    for turn in range(_ROUNDS):
        apart = points[own] - points[other]
        drawn = _limited(-2.0 * (pull / (1.0 + _squares(apart)))[:, np.newaxis] * apart)
        force = np.stack(
            [np.bincount(own, drawn[:, axis], count) - np.bincount(other, drawn[:, axis], count) for axis in range(2)],
            axis=1,
        )
        for _ in range(_PUSHED):
            apart = points - points[generator.permutation(count)]
            squares = _squares(apart)
            force += _limited((2.0 / ((0.001 + squares) * (1.0 + squares)))[:, np.newaxis] * apart)
        points = points + _STEP * (1.0 - turn / _ROUNDS) * _limited(force)
    return points


def _neighbourhood(directions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The nearest others of each, and how strongly they draw it, both of shape (points, neighbours).

    The nearest draws with 1, others the less the farther they are than it.
    """
    likeness = directions @ directions.T
    np.fill_diagonal(likeness, -np.inf)
    near = np.argpartition(-likeness, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
    distances = 1.0 - np.take_along_axis(likeness, near, axis=1)
    beyond = distances - distances.min(axis=1, keepdims=True)
    strengths: NDArray[np.float64] = np.exp(-beyond / (beyond.mean(axis=1, keepdims=True) + _LEAST))
    return near, strengths


def _squares(apart: Points) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.square(apart).sum(axis=1)
    return squares


def _limited(force: Points) -> Points:
    return np.clip(force, -_MOST_FORCE, _MOST_FORCE)


def _fitted(points: Points) -> Points:
    """Moved and scaled into the square from -1 to 1, alike in both directions."""
    if not len(points):
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    reach = float((high - low).max()) / 2
    if reach <= _LEAST:
        return np.zeros_like(points)
    fitted: Points = np.clip((points - (low + high) / 2) / reach, -1.0, 1.0)
    return fitted
