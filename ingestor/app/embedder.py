"""Embedder: the model that settings name."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingestor.adapters.chroma_embedder import ChromaEmbedder
from ingestor.adapters.local_embedder import LocalEmbedder
from ingestor.adapters.openai_embedder import OpenAIEmbedder, shown_url
from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.asking import Function, function_for
from ingestor.core.errors import ConfigError
from ingestor.core.model import Recipe
from ingestor.core.pacing import Allowance
from ingestor.core.profiles import CHROMA_DEFAULT, LOCAL, PROVIDERS, profile_for, recipe_for
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.account import Account
from ingestor.engine.embedding import Embedding
from ingestor.engine.pace import Pace
from ingestor.engine.pipeline import EMBEDDING_RETRY
from ingestor.ports import Embedder, Lane, Ledger, VectorStore
from ingestor.settings import EmbeddingSettings, provider_key, route_to_model, variable

MAX_BATCH_INPUTS = 128
"""Texts of one call unless the settings say more: parsing the answer to 2,048 stalls the process for seconds."""


def recipe_of(chosen: EmbeddingSettings) -> Recipe:
    """What decides vectors, as the settings have it."""
    return recipe_for(profile_for(chosen.provider, chosen.model_name), chosen.dimensions or 0)


def max_batch_inputs_of(chosen: EmbeddingSettings) -> int:
    """How many texts a call may carry: the user's own limit, else the model's as far as it does not stall us."""
    profile = profile_for(chosen.provider, chosen.model_name)
    return chosen.max_batch_inputs or min(profile.max_batch_inputs, MAX_BATCH_INPUTS)


def endpoint_of(chosen: EmbeddingSettings) -> str:
    """What gives vectors, as messages name it: a URL without user and password, or a model of this machine."""
    return shown_url(chosen.endpoint_url) if chosen.endpoint_url else f"the model {chosen.model_name}"


def embedder_of(chosen: EmbeddingSettings) -> Embedder:
    """The embedding model that the settings name. Raises `ConfigError` without its key, or for a proxy of no use."""
    profile = profile_for(chosen.provider, chosen.model_name)
    recipe = recipe_of(chosen)
    max_batch_inputs = max_batch_inputs_of(chosen)
    if chosen.provider == LOCAL:
        return LocalEmbedder(recipe, max_batch_inputs=max_batch_inputs, threads=max(1, (os.cpu_count() or 1) - 1))
    if chosen.provider == CHROMA_DEFAULT:
        return ChromaEmbedder(recipe, max_batch_inputs=max_batch_inputs, max_batch_tokens=profile.max_batch_tokens)
    provider = PROVIDERS[chosen.provider]
    if provider.needs_key and chosen.api_key is None and not chosen.base_url:
        raise ConfigError(
            f"the provider {chosen.provider} needs a key",
            remedy=f"set INGESTOR_EMBEDDING__API_KEY or {provider.key_variable}",
        )
    return OpenAIEmbedder(
        recipe,
        base_url=chosen.endpoint_url,
        api_key=chosen.api_key.get_secret_value() if chosen.api_key else "",
        max_batch_inputs=max_batch_inputs,
        max_batch_tokens=profile.max_batch_tokens,
        max_concurrency=chosen.max_concurrency,
        timeout_seconds=chosen.timeout_seconds,
        sends_dimensions=profile.carries_dimensions(recipe.dimensions),
        key_setting="INGESTOR_EMBEDDING__API_KEY",
        route=route_to_model(chosen),
    )


def function_of(chosen: EmbeddingSettings) -> Function | None:
    """What a collection names for those who ask by text; None where a key is needed and this process has none.

    The variable of the key is the one that the key is from, as far as we can tell: another program has it, too. One is
    named for a server without key as well, since Chroma's own function wants it to be set, to whatever. Raises
    `ConfigError` for a base URL that may hold a secret.
    """
    provider = PROVIDERS[chosen.provider]
    if provider.needs_key and chosen.api_key is None and not chosen.base_url:
        return None
    is_own = chosen.api_key is None or chosen.api_key == provider_key(chosen.provider)
    return function_for(
        recipe_of(chosen),
        profile_for(chosen.provider, chosen.model_name),
        base_url=chosen.endpoint_url,
        key_variable=provider.key_variable if provider.key_variable and is_own else variable("embedding.api_key"),
    )


def price_of(chosen: EmbeddingSettings) -> float | None:
    """Price of a million tokens: the user's own, else the list price; None where nobody knows it."""
    if chosen.price_per_million_tokens is not None:
        return chosen.price_per_million_tokens
    return profile_for(chosen.provider, chosen.model_name).price_per_million_tokens


def currency_of(chosen: EmbeddingSettings) -> str:
    """What the list price is in; empty where there is none, and where the user has set a price."""
    if chosen.price_per_million_tokens is not None:
        return ""
    return profile_for(chosen.provider, chosen.model_name).currency


def allowance_of(chosen: EmbeddingSettings) -> Allowance:
    """What embedding may spend. Raises `ConfigError` for a limit in money of a model whose price is not known."""
    limits = [] if chosen.max_tokens_per_day is None else [chosen.max_tokens_per_day]
    if chosen.max_cost_per_day is not None:
        price = price_of(chosen)
        if price is None:
            raise ConfigError(
                f"embedding.max_cost_per_day is set, and the price of {chosen.model_name} is not known",
                remedy="set embedding.price_per_million_tokens, or embedding.max_tokens_per_day instead",
            )
        if price:
            limits.append(int(chosen.max_cost_per_day / price * 1_000_000))
    return Allowance(chosen.requests_per_minute, chosen.tokens_per_minute, min(limits, default=None))


@asynccontextmanager
async def embedding_of(
    chosen: EmbeddingSettings, vectors: VectorStore, ledger: Ledger | None, lane: Lane
) -> AsyncIterator[Embedding]:
    """The way to vectors for a command of its own; the model behind it is closed with the block.

    What it spends is counted in the ledger, where there is one, and held below the day's limit, as in a sync; a model
    of this machine costs nothing, and has none. `lane` is the thread that both are used by.
    """
    embedder, clock, allowance = embedder_of(chosen), SystemRuntime(), allowance_of(chosen)
    is_free = PROVIDERS[chosen.provider].is_in_process
    account = Account(ledger, lane, clock, tokens_per_day=None if is_free else allowance.tokens_per_day)
    try:
        yield Embedding(
            embedder,
            vectors,
            lane,
            clock,
            pace=Pace(clock, EMBEDDING_RETRY, allowance, max_calls=embedder.max_concurrency),
            account=account,
            estimate_tokens=estimate_tokens,
        )
    finally:
        await account.tell()
        await embedder.close()
