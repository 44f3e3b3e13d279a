"""What is known of embedding models before the first call: sizes, limits and prefixes, as plain figures.

Invariant: a figure here is the provider's own (or cautious, where the provider gives none), and `source` says which;
nothing here is ever learned at run time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ingestor.core.errors import ConfigError
from ingestor.core.model import Recipe

LOCAL: Final = "local"
OPENAI: Final = "openai"
DASHSCOPE: Final = "dashscope"


@dataclass(frozen=True, slots=True)
class ProviderProfile:
    """Where a provider is reached, and the model taken when none is named."""

    provider: str
    default_model: str
    base_url: str = ""
    """Empty for a model that runs in this process."""
    needs_key: bool = True
    """Whether the endpoint at `base_url` refuses calls without a key."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model. Tokens are the model's own; prefixes are put before every text of that purpose."""

    provider: str
    model: str
    default_dimensions: int
    """Length of the vectors when no dimension is asked for; 0 where only the first answer tells."""
    allowed_dimensions: tuple[int, ...] | range
    """Lengths the model can give; empty where that is not known."""
    sends_dimensions: bool
    """Whether the request may carry `dimensions`; models with a fixed length refuse it."""
    max_batch_inputs: int
    max_text_tokens: int
    max_batch_tokens: int
    source: str
    """Where the figures come from."""
    document_prefix: str = ""
    query_prefix: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the figures are the model's, not the cautious ones for any model."""
        return self.default_dimensions > 0


PROVIDERS: Final[Mapping[str, ProviderProfile]] = MappingProxyType(
    {
        profile.provider: profile
        for profile in (
            ProviderProfile(LOCAL, "multilingual-e5-small", needs_key=False),
            ProviderProfile(OPENAI, "text-embedding-3-small", "https://api.openai.com/v1"),
            ProviderProfile(DASHSCOPE, "text-embedding-v4", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
        )
    }
)

_OPENAI_SOURCE: Final = (
    "OpenAI API reference, create embeddings: 2,048 inputs and 300,000 tokens a call, 8,191 tokens a text; "
    "`dimensions` for text-embedding-3 and later only"
)
_DASHSCOPE_SOURCE: Final = (
    "Alibaba Cloud Model Studio, text embedding, synchronous API: dimensions, texts a call and tokens a text; "
    "no limit for the whole call is given, so it is their product"
)
_E5_SOURCE: Final = (
    "model card of intfloat/multilingual-e5-small: 384 dimensions, 512 tokens, prefixes; "
    "the batch is ours: small, so that progress is visible and a search waits little"
)

MODELS: Final[tuple[ModelProfile, ...]] = (
    ModelProfile(
        provider=LOCAL,
        model="multilingual-e5-small",
        default_dimensions=384,
        allowed_dimensions=(384,),
        sends_dimensions=False,
        max_batch_inputs=8,
        max_text_tokens=512,
        max_batch_tokens=8 * 512,
        source=_E5_SOURCE,
        document_prefix="passage: ",
        query_prefix="query: ",
    ),
    ModelProfile(
        provider=OPENAI,
        model="text-embedding-3-small",
        default_dimensions=1_536,
        allowed_dimensions=range(1, 1_537),
        sends_dimensions=True,
        max_batch_inputs=2_048,
        max_text_tokens=8_191,
        max_batch_tokens=300_000,
        source=_OPENAI_SOURCE,
    ),
    ModelProfile(
        provider=OPENAI,
        model="text-embedding-3-large",
        default_dimensions=3_072,
        allowed_dimensions=range(1, 3_073),
        sends_dimensions=True,
        max_batch_inputs=2_048,
        max_text_tokens=8_191,
        max_batch_tokens=300_000,
        source=_OPENAI_SOURCE,
    ),
    ModelProfile(
        provider=OPENAI,
        model="text-embedding-ada-002",
        default_dimensions=1_536,
        allowed_dimensions=(1_536,),
        sends_dimensions=False,
        max_batch_inputs=2_048,
        max_text_tokens=8_191,
        max_batch_tokens=300_000,
        source=_OPENAI_SOURCE,
    ),
    ModelProfile(
        provider=DASHSCOPE,
        model="text-embedding-v4",
        default_dimensions=1_024,
        allowed_dimensions=(2_048, 1_536, 1_024, 768, 512, 256, 128, 64),
        sends_dimensions=True,
        max_batch_inputs=10,
        max_text_tokens=8_192,
        max_batch_tokens=10 * 8_192,
        source=_DASHSCOPE_SOURCE,
    ),
    ModelProfile(
        provider=DASHSCOPE,
        model="text-embedding-v3",
        default_dimensions=1_024,
        allowed_dimensions=(1_024, 768, 512, 256, 128, 64),
        sends_dimensions=True,
        max_batch_inputs=10,
        max_text_tokens=8_192,
        max_batch_tokens=10 * 8_192,
        source=_DASHSCOPE_SOURCE,
    ),
    ModelProfile(
        provider=DASHSCOPE,
        model="text-embedding-v2",
        default_dimensions=1_536,
        allowed_dimensions=(1_536,),
        sends_dimensions=False,
        max_batch_inputs=25,
        max_text_tokens=2_048,
        max_batch_tokens=25 * 2_048,
        source=_DASHSCOPE_SOURCE,
    ),
    ModelProfile(
        provider=DASHSCOPE,
        model="text-embedding-v1",
        default_dimensions=1_536,
        allowed_dimensions=(1_536,),
        sends_dimensions=False,
        max_batch_inputs=25,
        max_text_tokens=2_048,
        max_batch_tokens=25 * 2_048,
        source=_DASHSCOPE_SOURCE,
    ),
)

_BY_NAME: Final[Mapping[tuple[str, str], ModelProfile]] = MappingProxyType(
    {(profile.provider, profile.model): profile for profile in MODELS}
)


def provider_for(provider: str) -> ProviderProfile:
    """The provider's profile. Raises `ConfigError` for a provider that nobody has described."""
    try:
        return PROVIDERS[provider]
    except KeyError:
        raise ConfigError(
            f"the embedding provider {provider!r} is not known",
            remedy=f"choose one of {', '.join(PROVIDERS)}; {OPENAI} with a base URL is any OpenAI-compatible endpoint",
        ) from None


def profile_for(provider: str, model: str = "") -> ModelProfile:
    """The figures of a model; the provider's default model when `model` is empty.

    A remote model that is not in the table gets limits that every endpoint we know of takes. Raises `ConfigError` for
    an unknown provider, and for a local model that is not built in.
    """
    name = model or provider_for(provider).default_model
    known = _BY_NAME.get((provider_for(provider).provider, name))
    if known is not None:
        return known
    if provider == LOCAL:
        built_in = ", ".join(profile.model for profile in MODELS if profile.provider == LOCAL)
        raise ConfigError(f"there is no built-in embedding model {name!r}", remedy=f"choose one of {built_in}")
    return ModelProfile(
        provider=provider,
        model=name,
        default_dimensions=0,
        allowed_dimensions=(),
        sends_dimensions=False,
        max_batch_inputs=10,
        max_text_tokens=512,
        max_batch_tokens=10 * 512,
        source="model not in the table: the smallest limits of the models that are",
    )


def checked_dimensions(profile: ModelProfile, dimensions: int = 0) -> int:
    """The length of vectors to ask for; the model's default for 0, which stays 0 where only the answer tells.

    Raises `ConfigError` naming the lengths that the model can give.
    """
    if dimensions < 0:
        raise ConfigError(f"{dimensions} is no number of dimensions", remedy="leave it out, or give a positive number")
    if dimensions == 0:
        return profile.default_dimensions
    allowed = profile.allowed_dimensions
    if allowed and dimensions not in allowed:
        choice = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise ConfigError(
            f"{profile.model} has no vectors of {dimensions} dimensions",
            remedy=f"leave the dimensions out for {profile.default_dimensions}, or choose from: {choice}",
        )
    return dimensions


def recipe_for(profile: ModelProfile, dimensions: int = 0) -> Recipe:
    """The recipe of a model at a length of vectors (0: the model's default). Raises `ConfigError` as above."""
    return Recipe(
        provider=profile.provider,
        model=profile.model,
        dimensions=checked_dimensions(profile, dimensions),
        document_prefix=profile.document_prefix,
        query_prefix=profile.query_prefix,
    )


def without_lone_surrogates(text: str) -> str:
    """The text as UTF-8 can carry it: a surrogate without its other half becomes U+FFFD, a pair its character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
