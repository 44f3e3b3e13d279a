"""Release of a Chroma server: whether it is new enough for the client here.

Part of `chroma_client`. Invariant: a server that does not say what it is, as one behind a gateway that hides its
description, is taken as it is; what is refused has said so itself.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import httpx

from ingestor.core.errors import ConfigError

OLDEST: Final = "1.0.6"
"""The first release whose collections have a configuration that the client can read: of 1.0.5 and older ones, a search
of what is missing ends in a RecursionError. 1.0.6 to 1.0.20 were tried by sync, rebuild, query, verify and rename."""
_PATHS: Final = ("/api/v2/version", "/api/v1/version")
"""The second is that of releases before 0.6."""


def refuse_too_old(client: httpx.Client, url: str, place: str) -> None:
    """Raise `ConfigError` for a server that is older than `OLDEST`, and what httpx raises for one out of reach."""
    theirs = next(filter(None, (_text(client, url + path) for path in _PATHS)), "")
    if theirs and (theirs.startswith("0.") or _lacks_configuration(client, url)):
        raise ConfigError(
            f"the Chroma server at {place} is older than {OLDEST}: it says {theirs}, and the client here is "
            f"{version('chromadb')}",
            remedy=f"update the server to {OLDEST} or newer: it keeps its data",
        )


def _lacks_configuration(client: httpx.Client, url: str) -> bool:
    """Whether a server describes collections without configuration: every release of 1 says that it is 1.0.0."""
    described = _json(client, f"{url}/openapi.json")
    for name in ("components", "schemas", "Collection", "properties"):
        described = described.get(name) if isinstance(described, Mapping) else None
    return isinstance(described, Mapping) and "configuration_json" not in described


def _text(client: httpx.Client, url: str) -> str:
    told = _json(client, url)
    return told if isinstance(told, str) else ""


def _json(client: httpx.Client, url: str) -> Any:  # noqa: ANN401 - whatever a server answers
    answer = client.get(url)
    try:
        return answer.json() if answer.is_success else None
    except (ValueError, RecursionError):
        return None
