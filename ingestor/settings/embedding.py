"""Embedding: the settings of the model that texts are embedded by.

Invariant: what is valid here the model takes, as far as its profile is known.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ingestor.core.errors import ConfigError
from ingestor.core.profiles import PROVIDERS, checked_dimensions, profile_for
from ingestor.settings.kinds import Endpoint, EndpointUrl, Group, Name, Place, Proxied, Secret
from ingestor.settings.variables import provider_key

_HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+")
_AZURE_DEPLOYMENT = "/openai/deployments/"
_ANYBODYS = ("max_concurrency", "timeout_seconds", "proxy", "ca_file", "confirm_above_cost")
"""Settings of a model that hold for another provider, too."""
_OF_THE_MODEL: Mapping[str, Any] = {"dimensions": None, "price_per_million_tokens": None, "max_cost_per_day": None}
"""Settings that speak of the configured model alone."""


class EmbeddingSettings(Group):
    """The embedding model."""

    provider: Literal[
        "local",
        "openai",
        "dashscope",
        "dashscope-intl",
        "ollama",
        "vllm",
        "tei",
        "lmstudio",
        "infinity",
        "xinference",
        "chroma-default",
    ] = "local"
    """`local` (no key, no network), `openai` (any OpenAI-compatible endpoint) or one more of `ingestor models`."""
    model: Name = ""
    """Name of the model; empty: the provider's default."""
    base_url: Endpoint = EndpointUrl("")
    """URL of the endpoint; empty: the provider's own. What follows a `?` goes behind `/embeddings`."""
    api_key: Secret = None
    """Key of the endpoint; falls back to `OPENAI_API_KEY` or `DASHSCOPE_API_KEY`."""
    dimensions: int | None = Field(default=None, ge=1, le=65536)
    """Length of the vectors, where the model lets one choose; empty: the model's default."""
    max_batch_inputs: int | None = Field(default=None, ge=1, le=2048)
    """Most texts of one call; empty: the provider's limit, but at most 128."""
    max_concurrency: int = Field(default=8, ge=1, le=64)
    """Most calls at once; fewer while the provider slows down or asks for less."""
    requests_per_minute: int | None = Field(default=None, ge=1, le=10**9)
    """Most calls in any minute; empty: no limit but what the provider answers."""
    tokens_per_minute: int | None = Field(default=None, ge=1, le=10**12)
    """Most tokens in any minute, as estimated before a call; empty: no limit but what the provider answers."""
    max_tokens_per_day: int | None = Field(default=None, ge=0, le=10**15)
    """Most tokens of a day, local time; then documents that need the model wait for the next day."""
    max_cost_per_day: float | None = Field(default=None, ge=0, le=10**9)
    """Most money of a day, in the currency of the price; needs a price."""
    confirm_above_cost: float = Field(default=5.0, ge=0, le=10**9)
    """Cost, in the currency of the price, above which a first sync asks, or waits for `ingestor approve`."""
    price_per_million_tokens: float | None = Field(default=None, ge=0, le=10**9)
    """Price of a million tokens; empty: the list price that `ingestor models` shows."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Seconds after which a call is given up and tried again."""
    proxy: Proxied = None
    """URL of the HTTP proxy before an endpoint elsewhere, or `none`; empty: what HTTPS_PROXY, NO_PROXY… say."""
    ca_file: Place | None = None
    """PEM file of authorities to trust besides the usual ones, or those of SSL_CERT_FILE and SSL_CERT_DIR."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            profile = profile_for(self.provider, self.model_name)
        except ConfigError as error:
            raise ValueError(f"model: {error.sentence}") from error
        try:
            checked_dimensions(profile, self.dimensions or 0)
        except ConfigError as error:
            raise ValueError(f"dimensions: {error.sentence}") from error
        most = profile.max_batch_inputs
        if self.max_batch_inputs is not None and self.max_batch_inputs > most and profile.has_fixed_limits:
            message = f"max_batch_inputs: {profile.model} takes at most {most} texts a call"
            raise ValueError(message)
        return self

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: EndpointUrl) -> EndpointUrl:
        value = url.get_secret_value()
        if not value:
            return url
        if not value.startswith(("http://", "https://")):
            message = "it must begin with http:// or https://"
            raise ValueError(message)
        try:
            parts = urlsplit(value)
            host = (parts.hostname or "").encode("idna").decode() if parts.port != 0 else ""
        except ValueError:
            host = ""
        if not _HOST.fullmatch(host) or " " in value:
            message = "it is no URL: the host or the port cannot be told"
            raise ValueError(message)
        if _AZURE_DEPLOYMENT in parts.path:
            message = (
                "Azure takes other requests there: give https://RESOURCE.openai.azure.com/openai/v1/, and the name of"
                " the deployment as embedding.model"
            )
            raise ValueError(message)
        return url

    @property
    def endpoint_url(self) -> str:
        """Where the model is asked; empty for one in this process."""
        return self.base_url.get_secret_value() or PROVIDERS[self.provider].base_url

    @property
    def model_name(self) -> str:
        """The model, or the provider's default."""
        return self.model or PROVIDERS[self.provider].default_model

    def varied(self, given: Mapping[str, Any]) -> Self:
        """These settings with others in their place, as far as they still speak of the same model and provider.

        URL, key, limits and prices are a provider's own: another one gets the key that its own variable holds. Raises
        `ValidationError`.
        """
        fields: dict[str, Any] = self.model_dump()
        provider = given.get("provider", self.provider)
        if provider != self.provider:
            fields = {name: fields[name] for name in _ANYBODYS}
            fields["api_key"] = provider_key(str(provider))
        elif given.get("model", self.model_name) != self.model_name:
            fields |= _OF_THE_MODEL
            profile = profile_for(self.provider, str(given["model"]))
            if self.max_batch_inputs and profile.is_known:
                fields["max_batch_inputs"] = min(self.max_batch_inputs, profile.max_batch_inputs)
        return type(self)(**(fields | dict(given)))
