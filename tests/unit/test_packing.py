"""Which of the waiting texts go into the next call."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.packing import DOUBT_CALLS, SUSPICIONS, CallLimits, batch_length


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


def test_a_limit_that_is_told_is_kept_to() -> None:
    limits = CallLimits(64, 1_000)
    assert limits.are_told([10] * 64, 10, None)
    assert (limits.max_inputs, limits.max_tokens) == (10, 1_000)
    assert limits.are_told([100] * 10, None, 500)
    assert (limits.max_inputs, limits.max_tokens) == (10, 500)
    for _ in range(10 * DOUBT_CALLS):
        limits.are_kept()
    assert (limits.max_inputs, limits.max_tokens) == (10, 500)


def test_a_refusal_that_names_what_the_call_has_kept_to_tells_nothing() -> None:
    limits = CallLimits(64, 1_000)
    assert not limits.are_told([10] * 5, 10, 50)
    assert not limits.are_told([10] * 5, None, None)
    assert (limits.max_inputs, limits.max_tokens) == (64, 1_000)


def test_a_limit_that_is_guessed_is_doubted_after_many_good_calls() -> None:
    limits = CallLimits(64, 10_000)
    limits.are_guessed([10] * 32, [8] * 32)
    assert (limits.max_inputs, limits.max_tokens) == (32, 400)
    for _ in range(DOUBT_CALLS):
        assert (limits.max_inputs, limits.max_tokens) == (32, 400)
        limits.are_kept()
    assert (limits.max_inputs, limits.max_tokens) == (64, 800)
    for _ in range(10 * DOUBT_CALLS):
        limits.are_kept()
    assert (limits.max_inputs, limits.max_tokens) == (64, 10_000), "never more than configured"


def test_what_was_refused_is_never_within_a_guessed_limit() -> None:
    limits = CallLimits(64, 10_000)
    limits.are_guessed([900], [1])
    assert (limits.max_inputs, limits.max_tokens) == (1, 900)


def test_calls_that_fail_again_and_again_while_their_halves_do_not_are_too_large() -> None:
    limits = CallLimits(10, 1_000)
    half = [1] * 5
    for _ in range(SUSPICIONS - 1):
        limits.are_suspected(half, half)
    limits.are_kept(10)
    for _ in range(SUSPICIONS - 1):
        limits.are_suspected(half, half)
        limits.are_kept(5)
    assert limits.max_inputs == 10, "such a call was answered in between"
    limits.are_suspected(half, half)
    assert limits.max_inputs == 5
