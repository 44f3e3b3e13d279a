"""What providers say when they refuse a call, word for word as they were seen."""

import pytest

from ingestor.core.refusals import Refusal, fault_of_a_text, is_rate_code, refusal_of

NOTHING = Refusal(None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("words", "inputs"),
    [
        (
            "InternalError.Algo.InvalidParameter: Value error, batch size is invalid, it should not be larger than 10.",
            10,
        ),
        ("batch size is invalid, it should not be larger than 25.: payload.input.contents", 25),
        ("batch size 100 > maximum allowed batch size 32", 32),
        ("input batch size 473 > maximum allowed batch size 64", 64),
        ("Invalid 'input': array too long. Expected an array with maximum length 2048, but got 3000 instead.", 2048),
        ("batchsize=100 >Max BatchSize=32", 32),
        ("input数组最大不得超过64条", 64),
    ],
    ids=range(7),
)
def test_texts_a_call(words: str, inputs: int) -> None:
    assert refusal_of(words).max_inputs == inputs
    assert refusal_of(words).max_tokens is None


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        ("Requested 375703 tokens, max 300000 tokens per request", 300_000),
        ("Requested 303,212 tokens, max 300,000 tokens per request", 300_000),
        ("Too many tokens in batch. Max is 16384 got 17555", 16_384),
    ],
    ids=range(3),
)
def test_tokens_a_call(words: str, tokens: int) -> None:
    assert refusal_of(words).max_tokens == tokens
    assert refusal_of(words).max_inputs is None


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        ("This model's maximum context length is 8192 tokens, however you requested 10000 tokens", 8_192),
        ("Input validation error: `inputs` must have less than 512 tokens. Given: 1000", 512),
    ],
    ids=range(2),
)
def test_tokens_a_text(words: str, tokens: int) -> None:
    assert refusal_of(words).max_text_tokens == tokens
    assert (refusal_of(words).max_inputs, refusal_of(words).max_tokens) == (None, None)


def test_what_a_minute_allows() -> None:
    tokens = refusal_of(
        "Rate limit reached for text-embedding-3-small in organization org-x on tokens per min (TPM): Limit 1000000, "
        "Used 976163, Requested 70716. Please try again in 2.812s. Visit https://platform.openai.com/ to learn more."
    )
    assert (tokens.tokens_per_minute, tokens.requests_per_minute, tokens.retry_after_seconds) == (
        1_000_000,
        None,
        2.812,
    )
    requests = refusal_of("on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. Visit")
    assert (requests.requests_per_minute, requests.tokens_per_minute, requests.retry_after_seconds) == (3, None, 20.0)
    older = refusal_of("on requests per min. Limit: 60.000000 / min. Current: 70.000000 / min.")
    assert older.requests_per_minute == 60
    assert refusal_of("Please try again in 6m0s.").retry_after_seconds == 360.0
    assert refusal_of("Please try again in 120ms.").retry_after_seconds == pytest.approx(0.12)


@pytest.mark.parametrize(
    "words",
    ["", "Bad request.", "Input text may contain inappropriate content 7.", "requests per day (RPD): Limit 200"],
)
def test_what_is_not_understood_is_not_guessed(words: str) -> None:
    assert refusal_of(words) == NOTHING


def test_a_limit_of_nothing_is_none() -> None:
    assert refusal_of("it should not be larger than 0").max_inputs is None


def test_a_number_that_is_none_is_no_limit() -> None:
    assert refusal_of(f"should not be larger than {'9' * 400}") == NOTHING
    assert refusal_of("Please try again in 2h30m.").retry_after_seconds == 9_000.0
    assert refusal_of(f"Please try again in {'9' * 5_000}s.").retry_after_seconds == float("inf")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("input is too large to process. increase the physical batch size", "batch"),
        (
            "input (1300 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
            "batch",
        ),
        ("failed to encode response: json: unsupported value: NaN", "nan"),
        ("internal error", ""),
    ],
    ids=range(4),
)
def test_what_servers_say_of_one_text_is_known(words: str, fault: str) -> None:
    assert fault_of_a_text(words) == fault


@pytest.mark.parametrize(
    ("code", "is_it"),
    [
        ("rate_limit_exceeded", True),
        ("ratelimitexceeded", True),
        ("throttling.ratequota", True),
        ("too_many_requests", True),
        ("insufficient_quota", False),
        ("invalid_api_key", False),
        ("", False),
    ],
)
def test_codes_of_calls_that_come_too_fast(code: str, *, is_it: bool) -> None:
    assert is_rate_code(code) is is_it
