"""Choosing a model by name: `PROVIDER/MODEL[@DIMENSIONS]`, a provider alone, or a bare name where that is known.

Models of many endpoints have a slash in their name, so what stands before the first one is a provider only if it is
one that we know.
"""

import re
from dataclasses import dataclass
from typing import Final

from ingestor.core.errors import ConfigError
from ingestor.core.profiles import PROVIDERS, provider_for

_DIMENSIONS: Final = re.compile("[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that somebody has named."""

    provider: str
    model: str
    dimensions: int | None = None
    """Length of the vectors, where it was named as well."""

    @property
    def name(self) -> str:
        """What names it again."""
        return f"{self.provider}/{self.model}" + (f"@{self.dimensions}" if self.dimensions else "")


def choice_of(name: str, provider: str = "") -> Choice:
    """The model that is named; `provider` is that of a bare model name, which is no name where it is empty.

    Raises `ConfigError` with the form that a name has.
    """
    remedy = f"name it as PROVIDER/MODEL[@DIMENSIONS], with a provider out of {', '.join(PROVIDERS)}"
    body, dimensions = _parted(name.strip(), remedy)
    before, slash, after = body.partition("/")
    if before in PROVIDERS:
        if slash and not after:
            raise ConfigError(f"{name!r} names no model", remedy=remedy)
        return Choice(before, after or provider_for(before).default_model, dimensions)
    if not body:
        raise ConfigError(f"{name!r} names no model", remedy=remedy)
    if not provider:
        raise ConfigError(f"{name!r} names no provider that is known", remedy=remedy)
    return Choice(provider, body, dimensions)


def _parted(name: str, remedy: str) -> tuple[str, int | None]:
    """A name without its dimensions, and these. A sign at the front, or before a slash, belongs to the name."""
    body, sign, dimensions = name.rpartition("@")
    if not (sign and body) or "/" in dimensions:
        return name, None
    if not _DIMENSIONS.fullmatch(dimensions):
        raise ConfigError(f"{dimensions!r} in {name!r} is no number of dimensions", remedy=remedy)
    return body, int(dimensions)
