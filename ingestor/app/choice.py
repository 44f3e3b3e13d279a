"""Choice: the settings of a model that is named for one command, instead of the configured one."""

from typing import Any

from pydantic import ValidationError

from ingestor.core.choosing import Choice, choice_of
from ingestor.core.errors import ConfigError
from ingestor.core.escaping import escaped
from ingestor.core.profiles import profile_for
from ingestor.settings import EmbeddingSettings, Settings, provider_key

_ANYBODYS = ("max_concurrency", "timeout_seconds")
"""Settings that hold for another provider, too; its URL, key, limits and prices are its own."""
_OF_THE_MODEL = {"dimensions": None, "price_per_million_tokens": None, "max_cost_per_day": None}
"""Settings that speak of the configured model alone."""


def embedding_for(settings: Settings, name: str = "", dimensions: int | None = None) -> EmbeddingSettings:
    """The embedding settings with another model: `PROVIDER/MODEL[@DIMENSIONS]`, or a model of the configured provider.

    Without a name it is the configured model. Another provider gets the key that its own variable holds. Raises
    `ConfigError` for a name, a model or dimensions that there are not.
    """
    configured = settings.embedding
    choice = choice_of(name, configured.provider) if name else Choice(configured.provider, configured.model_name)
    if dimensions and choice.dimensions and dimensions != choice.dimensions:
        message = f"{name!r} asks for {choice.dimensions} dimensions, and --dimensions for {dimensions}"
        raise ConfigError(message, remedy="leave one of them out")
    fields: dict[str, Any] = configured.model_dump()
    if choice.provider != configured.provider:
        fields = {each: fields[each] for each in _ANYBODYS}
        fields["api_key"] = provider_key(choice.provider)
    elif choice.model != configured.model_name:
        fields |= _OF_THE_MODEL
        fields["max_batch_inputs"] = _fitting(choice, configured.max_batch_inputs)
    fields |= {"provider": choice.provider, "model": choice.model}
    if wanted := choice.dimensions or dimensions:
        fields["dimensions"] = wanted
    try:
        return EmbeddingSettings(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        reason = escaped(str(first["msg"]).removeprefix("Value error, "))
        raise ConfigError(f"the model {name or choice.name} cannot be used: {reason}") from error


def _fitting(choice: Choice, max_batch_inputs: int | None) -> int | None:
    """The configured size of a call, or what the other model takes where that is less."""
    profile = profile_for(choice.provider, choice.model)
    return (
        min(max_batch_inputs, profile.max_batch_inputs) if max_batch_inputs and profile.is_known else max_batch_inputs
    )
