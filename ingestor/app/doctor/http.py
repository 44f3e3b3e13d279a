"""Check: the HTTP server of the daemon answers, or will get its port; and nobody reaches it without a token."""

import http.client
import ipaddress
import json
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from ingestor.adapters.chroma_server import listener_of, try_port
from ingestor.app.doctor.premises import Premises
from ingestor.core.diagnosing import Finding, failure, hint, warning, well
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.settings import HttpSettings, variable

_NAME = "http"
_READY = "/readyz"
_TIMEOUT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 65_536


def check(premises: Premises) -> Sequence[Finding]:
    """Where a daemon serves, it is asked; else its port is tried."""
    settings, running = premises.settings.http, premises.running()
    if not settings.enabled:
        return [well(_NAME, "the daemon serves no HTTP, as http.enabled says")]
    if running is not None and running.http_url:
        return [_asked(running.http_url)]
    if running is not None:
        return [hint(_NAME, f"`ingestor {running.command}` serves no HTTP", "`ingestor run` does")]
    return list(_free(settings))


def _asked(url: str) -> Finding:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_TIMEOUT_SECONDS)
    began_seconds = time.monotonic()
    try:
        connection.request("GET", _READY)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(_MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        message = f"the daemon does not answer at {url}: {type(error).__name__} {error}"
        return failure(_NAME, ServiceUnavailable(message, remedy="look at the log of the daemon"), url=url)
    finally:
        connection.close()
    milliseconds = round((time.monotonic() - began_seconds) * 1_000)
    facts = {"url": url, "status": status, "milliseconds": milliseconds}
    if status == http.client.OK:
        return well(_NAME, f"the daemon answers at {url} in {milliseconds} ms, and is ready", **facts)
    return warning(_NAME, f"the daemon at {url} is not ready: {_faults(body)}", "see `ingestor status`", **facts)


def _faults(body: bytes) -> str:
    try:
        return "; ".join(json.loads(body)["faults"])
    except (ValueError, KeyError, TypeError):
        return "it does not say why"


def _free(settings: HttpSettings) -> Iterator[Finding]:
    host, port = settings.host, settings.port
    if settings.token is None and not _is_own(host):
        message = f"http.host is {host}, which others can reach, and no token is set"
        remedy = f"set http.token ({variable('http.token')}), or http.host to 127.0.0.1"
        yield failure(_NAME, ConfigError(message, remedy=remedy), host=host)
    try:
        try_port(host, port)
    except OSError as error:
        pid = listener_of(port) if port else None
        holder = f" (process {pid})" if pid else ""
        message = f"HTTP cannot be served at {host}:{port}: {error.strerror}{holder}"
        remedy = f"set http.port ({variable('http.port')}) to another, or http.enabled to false"
        yield failure(_NAME, ConfigError(message, remedy=remedy), host=host, port=port, pid=pid)
    else:
        yield well(_NAME, f"HTTP can be served at {host}:{port or 'any port'}", host=host, port=port)


def _is_own(host: str) -> bool:
    """Whether nobody but this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
