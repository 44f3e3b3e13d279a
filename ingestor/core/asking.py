"""Asking: the embedding function that a collection names, so that any client of Chroma can ask it by text.

Invariant: what is named holds no secret. Of a key there is the name of an environment variable, and a URL that may hold
a password or a token is not written at all. A function asks for the same vectors as the recipe, or it is not named.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from ingestor.core.errors import ConfigError
from ingestor.core.model import Recipe, Scalar
from ingestor.core.profiles import CHROMA_DEFAULT, LOCAL, ModelProfile

OURS: Final = "ingestor"
"""Name of the function that this package registers in a program that imports `ingestor.embedding_function`."""
OPENAI_FUNCTION: Final = "openai"
DEFAULT_FUNCTION: Final = "default"
"""Names of Chroma's own."""
_SHORTENED: Final = "text-embedding-3"
"""Chroma's function for OpenAI says `dimensions` for models of such names alone, whatever its configuration says."""

Config: TypeAlias = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Function:
    """An embedding function as a collection's configuration names it."""

    name: str
    config: Config


def function_for(recipe: Recipe, profile: ModelProfile, *, base_url: str, key_variable: str) -> Function:
    """The function that asks for the vectors of a recipe: Chroma's own where it asks for the same, else ours.

    `base_url` and `key_variable`, the environment variable that holds the key, are of no account for a model that runs
    in the process. Raises `ConfigError` for a URL that may hold a secret.
    """
    if recipe.provider == CHROMA_DEFAULT:
        return Function(DEFAULT_FUNCTION, {})
    if recipe.provider == LOCAL:
        return Function(OURS, _described(recipe))
    parts = urlsplit(base_url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "the collection names no embedding function: embedding.base_url may hold a password or a token, which does"
            " not belong into a collection",
            remedy="query with vectors of your own, or put the secret into INGESTOR_EMBEDDING__API_KEY",
        )
    carries = profile.carries_dimensions(recipe.dimensions)
    asks_alike = not carries or _SHORTENED in recipe.model or recipe.dimensions == profile.default_dimensions
    if recipe.query_prefix or recipe.document_prefix or not asks_alike:
        remote: dict[str, Scalar] = {"base_url": base_url, "key_variable": key_variable, "sends_dimensions": carries}
        return Function(OURS, _described(recipe) | remote)
    config: dict[str, Scalar] = {"api_key_env_var": key_variable, "model_name": recipe.model, "api_base": base_url}
    return Function(OPENAI_FUNCTION, config | ({"dimensions": recipe.dimensions} if recipe.dimensions else {}))


def _described(recipe: Recipe) -> dict[str, Scalar]:
    return {
        "provider": recipe.provider,
        "model": recipe.model,
        "dimensions": recipe.dimensions,
        "document_prefix": recipe.document_prefix,
        "query_prefix": recipe.query_prefix,
    }
