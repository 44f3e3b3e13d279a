"""Listening: the sockets of the HTTP server, open before anything that could answer is imported.

Invariant: nobody beyond this machine can connect to a server that asks for no token.
"""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

from ingestor.core.errors import ConfigError
from ingestor.settings import HttpSettings, variable

_BACKLOG: Final = 128
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""A name may stand for an address that this machine has none of, as `localhost` does without IPv6."""
_ELSEWHERE: Final = (
    f"set http.port ({variable('http.port')}) to another, or http.enabled ({variable('http.enabled')}) to false"
)


def listen(http: HttpSettings, elsewhere: str = _ELSEWHERE) -> list[socket.socket]:
    """Sockets that listen at all addresses of the host; whoever connects waits until somebody accepts.

    `elsewhere` says how to choose another port.

    Raises `ConfigError` for a host that is none or is not ours, for a port that is taken or not allowed, and for a host
    that others can reach while there is no token.
    """
    addresses = _addresses(http)
    if http.token is None and not all(ipaddress.ip_address(host).is_loopback for _, host in addresses):
        raise ConfigError(
            f"http.host is {http.host}, which others can reach, and no token is set",
            remedy=f"set http.token ({variable('http.token')}), or http.host to 127.0.0.1",
        )
    found: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        port, absent = http.port, ""
        for family, host in addresses:
            try:
                opened = _opened(family, host, port)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise _refused(http, error, elsewhere) from error
                absent = str(error.strerror)
                continue
            found.append(stack.enter_context(opened))
            port = opened.getsockname()[1]  # one that is free is the same for all addresses
        if not found:
            raise ConfigError(f"the address {http.host} (http.host) is none of this machine: {absent}")
        stack.pop_all()
    return found


def url_of(http: HttpSettings, sockets: Sequence[socket.socket]) -> str:
    """Where it is reached from this machine; from others by the name of this one."""
    address = ipaddress.ip_address(sockets[0].getsockname()[0])
    host = http.host
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - of the Internet Protocol
    return f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}"


def _addresses(http: HttpSettings) -> list[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(http.host, http.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = f"the host {http.host!r} (http.host) has no address"
        raise ConfigError(message, remedy=f"set {variable('http.host')} to an address of this machine") from error
    return list(dict.fromkeys((int(family), str(address[0]).partition("%")[0]) for family, *_, address in found))


def _opened(family: int, host: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((host, port))
        opened.listen(_BACKLOG)
        opened.setblocking(False)  # noqa: FBT003 - the signature is the socket's
    except OSError:
        opened.close()
        raise
    return opened


def _refused(http: HttpSettings, error: OSError, elsewhere: str) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"port {http.port} of {http.host} is taken by another program", remedy=elsewhere)
    return ConfigError(f"port {http.port} of {http.host} cannot be listened at: {error.strerror}", remedy=elsewhere)
