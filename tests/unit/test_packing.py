"""Which of the waiting texts go into the next call."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.packing import batch_length


def test_a_call_takes_as_many_texts_as_fit() -> None:
    assert batch_length([10, 10, 10], max_inputs=10, max_tokens=20) == 2
    assert batch_length([10, 10, 10], max_inputs=2, max_tokens=100) == 2
    assert batch_length([10, 10, 10], max_inputs=10, max_tokens=100) == 3


def test_a_text_longer_than_the_limit_goes_alone() -> None:
    assert batch_length([500, 1], max_inputs=10, max_tokens=100) == 1


def test_nothing_waiting_makes_no_call() -> None:
    assert batch_length([], max_inputs=10, max_tokens=100) == 0


@given(st.lists(st.integers(1, 600), min_size=1), st.integers(1, 50), st.integers(1, 1000))
def test_every_call_is_within_its_limits_and_as_long_as_they_allow(
    tokens: list[int], max_inputs: int, max_tokens: int
) -> None:
    length = batch_length(tokens, max_inputs=max_inputs, max_tokens=max_tokens)
    assert 1 <= length <= max_inputs
    assert length == 1 or sum(tokens[:length]) <= max_tokens
    if length < min(len(tokens), max_inputs):
        assert sum(tokens[: length + 1]) > max_tokens
