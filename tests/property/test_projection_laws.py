"""Laws of the picture's points, over any vectors; and what it is for: neighbours stay neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ingestor.core.projection import projected

NEIGHBOURS = 10


@st.composite
def vectors(draw: st.DrawFn) -> NDArray[np.float32]:
    count, dimensions = draw(st.integers(0, 40)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    drawn = generator.standard_normal((count, dimensions)) * 10.0 ** draw(st.integers(-20, 18))
    if draw(st.booleans()) and count:
        drawn = drawn[generator.integers(0, max(1, count // 4), count)]
    return drawn.astype(np.float32)


def clustered(clusters: int, each: int, dimensions: int = 32) -> NDArray[np.float32]:
    generator = np.random.default_rng(3)
    centres = np.repeat(generator.standard_normal((clusters, dimensions)), each, axis=0)
    return (centres + 0.2 * generator.standard_normal(centres.shape)).astype(np.float32)


def neighbours(points: NDArray[np.floating], count: int) -> list[set[int]]:
    squares = np.square(points[:, np.newaxis] - points[np.newaxis]).sum(axis=2)
    np.fill_diagonal(squares, np.inf)
    return [set(row) for row in np.argsort(squares, axis=1, kind="stable")[:, :count].tolist()]


@given(vectors())
@settings(deadline=None)
def test_every_vector_has_a_finite_place_within_the_square(given_vectors: NDArray[np.float32]) -> None:
    points = projected(given_vectors)
    assert points.shape == (len(given_vectors), 2)
    assert np.isfinite(points).all()
    assert (np.abs(points) <= 1.0).all()


@given(vectors())
@settings(deadline=None, max_examples=30)
def test_equal_vectors_give_equal_pictures(given_vectors: NDArray[np.float32]) -> None:
    assert np.array_equal(projected(given_vectors), projected(given_vectors.copy()))


@given(st.integers(2, 10), st.sampled_from([0.125, 4.0, 1024.0]))
@settings(deadline=None, max_examples=30)
def test_neither_the_length_of_the_vectors_nor_what_they_have_in_common_turns_the_picture(
    count: int, factor: float
) -> None:
    drawn = np.random.default_rng(count).standard_normal((count, 16)).astype(np.float32)
    assert np.allclose(projected(drawn), projected(drawn * np.float32(factor) + np.float32(factor)), atol=1e-3)


def test_a_picture_fills_the_square_in_one_direction() -> None:
    points = projected(clustered(3, 20))
    assert np.max(points.max(axis=0) - points.min(axis=0)) == pytest.approx(2.0)


@pytest.mark.parametrize("given_vectors", [np.ones((30, 8), dtype=np.float32), np.zeros((30, 8), dtype=np.float32)])
def test_vectors_that_do_not_differ_have_a_picture(given_vectors: NDArray[np.float32]) -> None:
    assert np.isfinite(projected(given_vectors)).all()


def test_what_belongs_together_stands_together() -> None:
    points = projected(clustered(12, 15))
    cluster_of = [place // 15 for place in range(len(points))]
    together = [
        cluster_of[place] == cluster_of[other] for place, near in enumerate(neighbours(points, 5)) for other in near
    ]
    assert np.mean(together) > 0.95


def test_neighbours_in_the_whole_space_are_neighbours_in_the_picture() -> None:
    drawn = clustered(20, 12, dimensions=64)
    centred = drawn - drawn.mean(axis=0)
    whole = neighbours(centred / np.linalg.norm(centred, axis=1, keepdims=True), NEIGHBOURS)
    plane = neighbours(projected(drawn), NEIGHBOURS)
    kept = np.mean([len(one & other) / NEIGHBOURS for one, other in zip(whole, plane, strict=True)])
    assert kept > 0.8
