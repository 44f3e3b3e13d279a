"""Network: the way to a service on another machine: the proxy that calls pass, and whose certificates are trusted.

Invariant: nothing that is shown here holds the user name or the password of a proxy.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ingestor.core.errors import ConfigError

CHROMA_CLOUD_URL: Final = "https://api.trychroma.com"
DIRECT: Final = "none"
"""What a setting holds in place of a proxy that nobody shall pass, whatever the environment says."""
MASK: Final = "********"
"""Stands for what nobody may see."""
_SOCKS: Final = "socks"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_CHROMA_PORT: Final = 8000
_QUERY: Final = re.compile("[?#]")
_HOST: Final = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, and the setting or the environment variable that names it."""

    url: str = field(repr=False)
    """With user name and password, percent-encoded: for the client alone."""
    shown: str
    """The URL for people."""
    origin: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Files with the certificates that are trusted, each with the setting or the variable that names it."""

    file: str = ""
    """Named by SSL_CERT_FILE: in place of the usual authorities, as is `folder`."""
    folder: str = ""
    """Named by SSL_CERT_DIR."""
    own_file: str = ""
    """Named by the setting: besides the others."""
    own_origin: str = ""

    def named(self) -> list[tuple[str, str]]:
        """What is looked at, each with what names it; nothing where the usual authorities alone are trusted."""
        places = [(self.own_file, self.own_origin), (self.file, "SSL_CERT_FILE"), (self.folder, "SSL_CERT_DIR")]
        return [place for place in places if place[0]]


@dataclass(frozen=True, slots=True)
class Route:
    """How calls reach a service."""

    proxy: Proxy | None = None
    trust: Trust = Trust()

    def described(self, place: str) -> str:
        """A service for people, with the proxy before it."""
        return f"{place} through the proxy {self.proxy.shown}" if self.proxy else place


STRAIGHT: Final = Route()
"""Without a proxy, to a certificate of the usual authorities."""


def route_to(url: str, environ: Mapping[str, str], *, group: str = "", proxy: str = "", ca_file: str = "") -> Route:
    """The route to a URL by the settings `proxy` and `ca_file` of a group, else by the environment.

    What is on this machine is never behind a proxy. Raises `ConfigError` for a proxy that cannot be used.
    """
    named = Trust(environ.get("SSL_CERT_FILE", ""), environ.get("SSL_CERT_DIR", ""), ca_file, f"{group}.ca_file")
    if is_loopback(urlsplit(url).hostname or "") or proxy == DIRECT:
        return Route(None, named)
    if proxy:
        return Route(proxy_of(proxy, f"{group}.proxy"), named)
    return Route(_proxy_of_environment(url, environ, f"{group}.proxy" if group else ""), named)


def proxy_of(text: str, origin: str, setting: str = "") -> Proxy:
    """A proxy from its URL; without a scheme, it is HTTP. `setting` is what can be set in place of `origin`.

    Raises `ConfigError`, which never repeats user name or password.
    """
    setting = setting or origin
    parts = _split(text if "://" in text else f"http://{text}")
    remedy = f"give {setting} the URL of an HTTP proxy, like http://proxy.example:3128, or `{DIRECT}`"
    if parts is None or not parts.hostname:
        raise ConfigError(f"the proxy that {origin} names is no URL", remedy=remedy)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    shown = f"{parts.scheme}://{host}{port}"
    if parts.scheme.startswith(_SOCKS):
        raise ConfigError(f"the proxy {shown} ({origin}) speaks SOCKS, not HTTP", remedy=remedy)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ConfigError(f"the proxy {shown} ({origin}) is no HTTP proxy", remedy=remedy)
    user, password = (quote(unquote(part or ""), safe="") for part in (parts.username, parts.password))
    credentials = f"{user}:{password}@" if user or password else ""
    return Proxy(f"{parts.scheme}://{credentials}{host}{port}", shown, origin)


def server_url(host: str, port: int | None = None, *, is_encrypted: bool = False) -> str:
    """URL of the Chroma server that is named by a host, an address, `host:port`, or a URL with a path before its own.

    `port` is what is set besides: without one, a URL has the port of its scheme, and anything else 8000. Raises
    `ValueError` with a sentence.
    """
    scheme, _, rest = host.rpartition("://")
    bare = rest.strip("[]")
    parts = _split(f"//[{bare}]" if ":" in bare and _address(bare) is not None else f"//{rest}")
    if parts is None or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("it is neither a host, an address nor a URL")
    if scheme not in ("", *_DEFAULT_PORTS):
        raise ValueError("it must begin with http:// or https://, or with the host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a user name, a password, a query and a fragment are not sent: give the token as chroma.token")
    if is_encrypted and scheme == "http":
        raise ValueError("it begins with http://, and chroma.ssl asks for TLS: leave one of them out")
    if parts.port is not None and port not in (None, parts.port):
        raise ValueError(f"it names port {parts.port}, and chroma.port is {port}: leave one of them out")
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    its_port = parts.port or port or (None if scheme else _CHROMA_PORT)
    scheme = "https" if is_encrypted else scheme or "http"
    return f"{scheme}://{name}{f':{its_port}' if its_port else ''}{parts.path.rstrip('/')}"


def masked_url(url: str) -> str:
    """A URL for people: user name and password, query and fragment are masked, whatever it is that was written."""
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    ends = _QUERY.search(place)
    query = f"{ends.group()}{MASK}" if ends else ""
    return f"{scheme}{slashes}{MASK if at else ''}{at}{place[: ends.start()] if ends else place}{query}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its address or usual name."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    return address.is_loopback or address.is_unspecified


def _proxy_of_environment(url: str, environ: Mapping[str, str], setting: str) -> Proxy | None:
    """The proxy that the variables name for a URL, by the rules of curl: lower case goes before upper case."""
    parts = urlsplit(url)
    _, exceptions = _variable("no_proxy", environ)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    if _is_exempt(parts.hostname or "", port, exceptions.replace(",", " ").split()):
        return None
    for variable in (f"{parts.scheme}_proxy", "all_proxy"):
        origin, value = _variable(variable, environ)
        if value:
            return proxy_of(value, origin, setting)
    return None


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Which of both spellings is set, and to what."""
    origin = name if name in environ else name.upper()
    return origin, environ.get(origin, "").strip()


def _is_exempt(host: str, port: int, exceptions: Iterable[str]) -> bool:
    """Whether NO_PROXY names a host: by itself, a domain above it, a network around it, with this port or none."""
    host = host.rstrip(".").lower()
    for exception in exceptions:
        if exception == "*":
            return True
        if (network := _network(exception)) is not None:
            address = _address(host)
            if address is not None and address in network:
                return True
            continue
        parts = _split(f"//{exception}")
        name = (parts.hostname or "").rstrip(".").removeprefix("*").removeprefix(".") if parts else ""
        if parts is None or not name or parts.port not in (None, port):
            continue
        if host == name or (host.endswith(f".{name}") and _address(host) is None):
            return True
    return False


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _split(url: str) -> SplitResult | None:
    """The parts of a URL whose port can be read."""
    try:
        parts = urlsplit(url)
        is_readable = parts.port != 0
    except ValueError:
        return None
    return parts if is_readable else None
