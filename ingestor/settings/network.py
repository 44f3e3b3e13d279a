"""Network: how calls reach the embedding endpoint and Chroma, by the settings and the variables of the environment.

Invariant: what a setting says goes before what the environment says, and what is on this machine is asked directly.
"""

import os
from collections.abc import Callable, Mapping

from ingestor.core.errors import ConfigError
from ingestor.core.network import CHROMA_CLOUD_URL, Route, route_to
from ingestor.settings.embedding import EmbeddingSettings
from ingestor.settings.groups import ChromaSettings
from ingestor.settings.tree import Settings


def route_to_model(chosen: EmbeddingSettings) -> Route:
    """The route to the endpoint of a model. Raises `ConfigError` for a proxy that cannot be used."""
    return _route(chosen.endpoint_url, "embedding", chosen)


def route_to_chroma(chroma: ChromaSettings) -> Route:
    """The route to Chroma, which is a short one unless it is elsewhere. Raises as `route_to_model`."""
    return _route({"http": chroma.url, "cloud": CHROMA_CLOUD_URL}.get(chroma.mode, ""), "chroma", chroma)


def ambient(settings: Settings) -> Mapping[str, tuple[str, str]]:
    """Settings that are not set and that the environment has an answer for: the value for people, and its origin."""
    found: dict[str, tuple[str, str]] = {}
    routes: Mapping[str, Callable[[], Route]] = {
        "embedding": lambda: route_to_model(settings.embedding),
        "chroma": lambda: route_to_chroma(settings.chroma),
    }
    for group, route in routes.items():
        try:
            way = route()
        except ConfigError as error:
            found[f"{group}.proxy"] = (str(error), "environment")
            continue
        if way.proxy and way.proxy.origin != f"{group}.proxy":
            found[f"{group}.proxy"] = (way.proxy.shown, f"{way.proxy.origin} (environment)")
        for place, origin in way.trust.named()[:1]:
            if origin != f"{group}.ca_file":
                found[f"{group}.ca_file"] = (place, f"{origin} (environment)")
    return found


def _route(url: str, group: str, chosen: EmbeddingSettings | ChromaSettings) -> Route:
    if not url:
        return Route()
    return route_to(
        url,
        os.environ,
        group=group,
        proxy=chosen.proxy.get_secret_value() if chosen.proxy else "",
        ca_file=str(chosen.ca_file or ""),
    )
