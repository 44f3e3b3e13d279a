"""What is told of a model: what it was asked, what that has cost, and whether it answers."""

from collections.abc import Callable

from ingestor.core.errors import (
    AuthenticationFailed,
    CallTooLarge,
    ConfigError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    UnusableVectors,
)
from ingestor.engine.pipeline import Pipeline
from ingestor.metrics.family import Family, Samples, Source, Spreads, by, counted, counter, gauge, histogram, names, one

_FAULTS = (
    RateLimited,
    ServiceUnavailable,
    UnusableVectors,
    RejectedByModel,
    CallTooLarge,
    AuthenticationFailed,
    ConfigError,
)
_MILLION = 1_000_000


def _of_first(samples: Callable[[Pipeline], Samples]) -> Callable[[Source], Samples]:
    """Samples of the first of the sources that share a model."""
    return lambda source: samples(source.pipeline) if source.pipeline.has_own_model else {}


def _cost(source: Source) -> Samples:
    price = source.followed.price_per_million_tokens
    if price is None or not source.pipeline.has_own_model:
        return {}
    return {(source.followed.currency,): source.pipeline.account.usage.tokens * price / _MILLION}


def _today(source: Source) -> Samples:
    return counted(lambda census: one(census.tokens_today))(source) if source.pipeline.has_own_model else {}


def _calls(source: Source) -> Spreads:
    return {(): source.pipeline.services.calls.seconds} if source.pipeline.has_own_model else {}


EMBEDDING: tuple[Family, ...] = (
    counter(
        "ingestor_embedding_requests_total",
        "Requests that the model has answered.",
        _of_first(lambda pipeline: one(pipeline.account.usage.requests)),
    ),
    counter(
        "ingestor_embedding_texts_total",
        "Texts that the model has embedded.",
        _of_first(lambda pipeline: one(pipeline.account.usage.texts)),
    ),
    counter(
        "ingestor_embedding_tokens_total",
        "Tokens that embedding has cost.",
        _of_first(lambda pipeline: one(pipeline.account.usage.tokens)),
    ),
    counter(
        "ingestor_embedding_wasted_requests_total",
        "Requests among them that were, or may have been, paid for, and brought nothing of use.",
        _of_first(lambda pipeline: one(pipeline.account.usage.wasted_requests)),
    ),
    counter(
        "ingestor_embedding_wasted_tokens_total",
        "Tokens that these have cost.",
        _of_first(lambda pipeline: one(pipeline.account.usage.wasted_tokens)),
    ),
    counter(
        "ingestor_embedding_cost_total",
        "Money that embedding has cost, at the price of today; the currency is empty for a price of one's own.",
        _cost,
        "currency",
    ),
    counter(
        "ingestor_embedding_failures_total",
        "Requests that have failed, by the class of the error; most are made again.",
        _of_first(lambda pipeline: by(pipeline.services.calls.failures, names(_FAULTS))),
        "reason",
    ),
    histogram(
        "ingestor_embedding_call_seconds",
        "How long requests to the model took, failed ones included.",
        _calls,
    ),
    gauge(
        "ingestor_embedding_allowed_calls",
        "How many requests may run at once just now, as learned from the provider.",
        _of_first(lambda pipeline: one(pipeline.services.pace.calls)),
    ),
    gauge(
        "ingestor_embedding_circuit_open",
        "Whether the provider is taken for down, and asked by one request at a time.",
        _of_first(lambda pipeline: one(pipeline.services.pace.is_given_up)),
    ),
    gauge(
        "ingestor_embedding_today_tokens",
        "Tokens that embedding has cost since midnight, local time, as the ledger has it.",
        _today,
    ),
    gauge(
        "ingestor_embedding_day_limit_tokens",
        "What a day may cost; absent without a limit.",
        _of_first(lambda pipeline: one(pipeline.account.tokens_per_day)),
    ),
    gauge(
        "ingestor_embedding_day_spent",
        "Whether documents wait for midnight because that is spent.",
        _of_first(lambda pipeline: one(pipeline.account.is_spent)),
    ),
    counter(
        "ingestor_vector_store_lookups_total",
        "Texts that were looked for in the vector store.",
        _of_first(lambda pipeline: one(pipeline.account.usage.lookups)),
    ),
    counter(
        "ingestor_vector_store_hits_total",
        "Texts that were found there, and cost nothing.",
        _of_first(lambda pipeline: one(pipeline.account.usage.hits)),
    ),
)
