"""What is known of embedding models before the first call: sizes, limits, prefixes and prices, as plain figures.

Invariant: the figures are those of `models.toml`, beside this file, each with its source there; nothing here is ever
learned at run time. What holds for a model at a provider is the stricter of what holds for either.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from ingestor.core.errors import ConfigError
from ingestor.core.model import Recipe

LOCAL: Final = "local"
CHROMA_DEFAULT: Final = "chroma-default"
OPENAI: Final = "openai"

MODELS_FILE: Final = "models.toml"


@dataclass(frozen=True, slots=True)
class ProviderProfile:
    """Where a provider is reached, the model taken when none is named, and the limits of every call there."""

    provider: str
    default_model: str
    base_url: str = ""
    """Empty for a model that runs in this process."""
    needs_key: bool = True
    """Whether the endpoint at `base_url` refuses calls without a key."""
    key_variable: str = ""
    """Environment variable that the provider's own tools take the key from; empty where there is none."""
    is_server: bool = False
    """Whether users run it themselves, with models of their choice: calls cost nothing."""
    accepts_dimensions: bool = True
    """Whether a request may ask for another length of vectors than the model's own."""
    max_batch_inputs: int | None = None
    """Texts of one call; None where the model alone decides, as in the next two."""
    max_text_tokens: int | None = None
    max_batch_tokens: int | None = None
    sources: tuple[str, ...] = ()
    """Where the figures come from; one that begins with "ours:" names those that nobody gives."""

    @property
    def is_in_process(self) -> bool:
        """Whether its models run in this process: no endpoint, no key, and no model but those that we know."""
        return not self.base_url


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model at one provider. Tokens are the model's own; prefixes are put before every text of that purpose."""

    provider: str
    model: str
    """The name that is sent, as the user wrote it."""
    default_dimensions: int
    """Length of the vectors when no dimension is asked for; 0 where only the first answer tells."""
    allowed_dimensions: tuple[int, ...] | range
    """Lengths the model can give; empty where that is not known."""
    sends_dimensions: bool
    """Whether every request carries `dimensions`; see `carries_dimensions`."""
    max_batch_inputs: int
    max_text_tokens: int
    max_batch_tokens: int
    sources: tuple[str, ...]
    """Where the figures come from; one that begins with "ours:" names those that nobody gives."""
    document_prefix: str = ""
    query_prefix: str = ""
    has_fixed_limits: bool = False
    """Whether nobody can raise the limits of a call, as users can on servers of their own."""
    published_name: str = ""
    """The name that the model's makers gave it; empty for a model that is not in the table."""
    price_per_million_tokens: float | None = None
    """List price in `currency`; 0 where calls cost nothing, None where it is not known."""
    currency: str = ""
    """ISO 4217; empty where there is no price."""
    task: str = ""
    languages: str = ""
    licence: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the figures are the model's, not the cautious ones for any model."""
        return self.default_dimensions > 0

    def carries_dimensions(self, dimensions: int) -> bool:
        """Whether a request for vectors of this length carries `dimensions`; 0 is whatever the model gives.

        Models with one length refuse it, and so do some servers, even when it is the model's own length.
        """
        return self.sends_dimensions or dimensions not in {0, self.default_dimensions}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One model of the file: of one provider, or open and then served by many under several names."""

    name: str
    task: str
    languages: str
    licence: str
    default_dimensions: int
    max_text_tokens: int
    sources: Sequence[str]
    provider: str = ""
    served_as: Mapping[str, str] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    allowed_dimensions: Sequence[int] = ()
    least_dimensions: int = 0
    sends_dimensions: bool = False
    max_batch_inputs: int | None = None
    max_batch_tokens: int | None = None
    price_per_million_tokens: float | None = None
    currency: str = ""
    document_prefix: str = ""
    query_prefix: str = ""

    @property
    def lengths(self) -> tuple[int, ...] | range:
        """Lengths of the vectors that the model can give."""
        if self.least_dimensions:
            return range(self.least_dimensions, self.default_dimensions + 1)
        return tuple(self.allowed_dimensions)


@dataclass(frozen=True, slots=True)
class _Unknown:
    """Limits for a model that is not in the file."""

    max_batch_inputs: int
    max_text_tokens: int
    max_batch_tokens: int
    sources: Sequence[str]


def _read() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(MODELS_FILE).read_text(encoding="utf-8"))


_FILE: Final = _read()
_UNKNOWN: Final = _Unknown(**_FILE["unknown"])
_ENTRIES: Final = tuple(_Entry(**table) for table in _FILE["model"])

PROVIDERS: Final[Mapping[str, ProviderProfile]] = MappingProxyType(
    {table["provider"]: ProviderProfile(**{**table, "sources": tuple(table["sources"])}) for table in _FILE["provider"]}
)


def _spellings(name: str) -> Iterator[str]:
    """What a name may stand for, the most exact first: without upper case, owner, and what servers add to it."""
    short = name.lower().rpartition("/")[2].removeprefix("text-embedding-").replace("@", ":")
    base, _, tag = short.partition(":")
    base = base.removesuffix("-gguf")
    while tag:
        yield f"{base}:{tag}"
        tag = tag.rpartition("-")[0]  # of `0.6b-q8_0`, the end only says how the weights are kept
    yield base


_OF_PROVIDER: Final[Mapping[tuple[str, str], _Entry]] = MappingProxyType(
    {(entry.provider, entry.name): entry for entry in _ENTRIES if entry.provider}
)
_OPEN: Final[Mapping[str, _Entry]] = MappingProxyType(
    {
        next(_spellings(name)): entry
        for entry in _ENTRIES
        if not entry.provider
        for name in (entry.name, *entry.aliases, *entry.served_as.values())
    }
)


def _least(*limits: int | None) -> int:
    return min(limit for limit in limits if limit is not None)


def _profile(provider: ProviderProfile, entry: _Entry, name: str) -> ModelProfile:
    """The stricter limits of provider and model. Elsewhere than on a server that we know, an open model gets few."""
    is_elsewhere = not entry.provider and not provider.is_server
    limits = _UNKNOWN if is_elsewhere else provider
    max_text_tokens = _least(provider.max_text_tokens, entry.max_text_tokens)
    return ModelProfile(
        provider=provider.provider,
        model=name,
        default_dimensions=entry.default_dimensions,
        allowed_dimensions=entry.lengths if provider.accepts_dimensions else (entry.default_dimensions,),
        sends_dimensions=entry.sends_dimensions,
        max_batch_inputs=_least(limits.max_batch_inputs, entry.max_batch_inputs),
        max_text_tokens=max_text_tokens,
        # One text of the greatest length always fits.
        max_batch_tokens=max(max_text_tokens, _least(limits.max_batch_tokens, entry.max_batch_tokens)),
        sources=(*entry.sources, *(_UNKNOWN.sources if is_elsewhere else provider.sources)),
        document_prefix=entry.document_prefix,
        query_prefix=entry.query_prefix,
        has_fixed_limits=bool(entry.provider),
        published_name=entry.name,
        price_per_million_tokens=0.0 if provider.is_server else entry.price_per_million_tokens,
        currency=entry.currency,
        task=entry.task,
        languages=entry.languages,
        licence=entry.licence,
    )


MODELS: Final[tuple[ModelProfile, ...]] = tuple(
    _profile(PROVIDERS[provider], entry, name)
    for entry in _ENTRIES
    for provider, name in ({entry.provider: entry.name} if entry.provider else entry.served_as).items()
)
"""Every model of the file at every provider that is known to have it, under the name that it has there."""


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

    An open model is recognised under any of its names, on every server and at any OpenAI-compatible endpoint. A remote
    model that is not in the table gets limits that every endpoint we know of takes. Raises `ConfigError` for an unknown
    provider, and for a local model that is not built in.
    """
    known = provider_for(provider)
    name = model or known.default_model
    entry = _OF_PROVIDER.get((provider, name))
    if entry is None and (known.is_server or provider == OPENAI):
        entry = next((_OPEN[spelling] for spelling in _spellings(name) if spelling in _OPEN), None)
    if entry is not None:
        return _profile(known, entry, name)
    if known.is_in_process:
        built_in = ", ".join(profile.model for profile in MODELS if profile.provider == provider)
        raise ConfigError(f"there is no built-in embedding model {name!r}", remedy=f"choose one of {built_in}")
    return ModelProfile(
        provider=provider,
        model=name,
        default_dimensions=0,
        allowed_dimensions=(),
        sends_dimensions=False,
        max_batch_inputs=_least(known.max_batch_inputs, _UNKNOWN.max_batch_inputs),
        max_text_tokens=_least(known.max_text_tokens, _UNKNOWN.max_text_tokens),
        max_batch_tokens=_least(known.max_batch_tokens, _UNKNOWN.max_batch_tokens),
        sources=tuple(_UNKNOWN.sources),
        price_per_million_tokens=0.0 if known.is_server else None,
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
