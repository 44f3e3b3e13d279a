"""Cosine and distance, by numbers that anybody can check."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.similarity import cosine, euclidean


def rows(*vectors: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(vectors, dtype=np.float32)


def test_right_angle_same_and_opposite_direction() -> None:
    (query,) = rows((3.0, 4.0))
    texts = rows((3.0, 4.0), (6.0, 8.0), (-3.0, -4.0), (4.0, -3.0), (1.0, 0.0))

    np.testing.assert_allclose(cosine(query, texts), [1.0, 1.0, -1.0, 0.0, 0.6], atol=1e-12)
    np.testing.assert_allclose(euclidean(query, texts), [0.0, 5.0, 10.0, 50**0.5, 20**0.5], atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), dimensions=st.integers(1, 3_000))
def test_a_vector_against_itself_is_one_and_zero_to_the_last_bit(seed: int, dimensions: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(3, dimensions)).astype(np.float32)
    vectors[~vectors.any(axis=1)] = 1.0

    assert cosine(vectors[1], vectors)[1] == 1.0
    assert euclidean(vectors[1], vectors)[1] == 0.0
    assert np.all(np.abs(cosine(vectors[1], vectors)) <= 1.0)


@pytest.mark.parametrize("size", [1e-38, 1e38], ids=["tiny", "huge"])
def test_vectors_whose_squares_no_float32_holds(size: float) -> None:
    (query,) = rows((size, size))

    np.testing.assert_allclose(cosine(query, rows((size, size), (size, 0.0))), [1.0, 0.5**0.5], rtol=1e-6)


def test_a_zero_vector_has_no_cosine() -> None:
    (zero, one) = rows((0.0, 0.0), (1.0, 0.0))

    with pytest.raises(ValueError, match="zero vector"):
        cosine(zero, rows((1.0, 0.0)))
    with pytest.raises(ValueError, match="zero vector"):
        cosine(one, rows((1.0, 0.0), (0.0, 0.0)))
    assert euclidean(zero, rows((3.0, 4.0))).tolist() == [5.0]


def test_nothing_compared_with_nothing_is_nothing() -> None:
    (query,) = rows((1.0, 0.0))

    assert cosine(query, np.empty((0, 2), dtype=np.float32)).shape == (0,)
