"""Choice: the settings of a model that is named for one command, instead of the configured one."""

from typing import Any

from pydantic import ValidationError

from ingestor.core.choosing import Choice, choice_of
from ingestor.core.errors import ConfigError
from ingestor.core.escaping import escaped
from ingestor.settings import EmbeddingSettings, Settings


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
    given: dict[str, Any] = {"provider": choice.provider, "model": choice.model}
    if wanted := choice.dimensions or dimensions:
        given["dimensions"] = wanted
    try:
        return configured.varied(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        reason = escaped(str(first["msg"]).removeprefix("Value error, "))
        raise ConfigError(f"the model {name or choice.name} cannot be used: {reason}") from error
