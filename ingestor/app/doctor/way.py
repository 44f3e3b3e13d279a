"""Way: how calls reach a service on another machine, as part of the checks of these services."""

from collections.abc import Iterator

from ingestor.core.diagnosing import Finding, well
from ingestor.core.network import Route


def on_the_way(name: str, place: str, route: Route) -> Iterator[Finding]:
    """The proxy before a service and the authorities that its certificate is held against, where they are named."""
    if route.proxy:
        facts = {"proxy": route.proxy.shown, "proxy_origin": route.proxy.origin}
        yield well(name, f"calls go through the proxy {route.proxy.shown} ({route.proxy.origin})", **facts)
    if place.startswith("https:"):
        for file, origin in route.trust.named():
            yield well(name, f"certificates are checked against {file} ({origin})", ca_file=file, ca_origin=origin)
