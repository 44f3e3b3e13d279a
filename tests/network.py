"""The network that users have: an HTTP proxy that knows names nobody else knows, TLS, and an authority of one's own.

Invariant: everything listens on loopback, and a name is looked up by the proxy alone, so that whoever reaches a service
by a made-up name has gone through it.
"""

import base64
import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PIECE = 65_536


class Proxy:
    """A proxy for CONNECT and for whole URLs, which takes the names of `places` to ports of the loopback interface.

    With `credentials` (user:password) it serves nobody else. `asked` has the first line of each request.
    """

    def __init__(self, places: Mapping[str, int], credentials: str = "") -> None:
        self.asked: list[str] = []
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                head = [line := self.rfile.readline()]
                while line not in (b"\r\n", b""):
                    head.append(line := self.rfile.readline())
                if not head[0]:
                    return
                proxy.asked.append(head[0].decode().strip())
                wanted = b"proxy-authorization: basic " + base64.b64encode(credentials.encode()).lower()
                if credentials and wanted not in [line.strip().lower() for line in head]:
                    self.wfile.write(
                        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                    return
                method, target, version = head[0].split()
                address = target if method == b"CONNECT" else target.split(b"/")[2]
                port = places.get(address.decode().partition(":")[0])
                if not port:
                    self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                with socket.create_connection(("127.0.0.1", port)) as there:
                    if method == b"CONNECT":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    else:
                        path = b"/" + target.split(b"/", 3)[3]
                        kept = [line for line in head[1:-1] if not line.lower().startswith((b"proxy-", b"connection:"))]
                        there.sendall(b" ".join((method, path, version)) + b"\r\n" + b"".join(kept))
                        there.sendall(b"Connection: close\r\n\r\n")
                    _join(self.connection, self.rfile, there)

        self._server = _Server(Handler)

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()


@contextlib.contextmanager
def behind_tls(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """A port that speaks TLS in front of one that does not."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                contextlib.suppress(OSError),  # of a client that does not trust us
                context.wrap_socket(self.request, server_side=True) as here,
                here.makefile("rb") as reader,
                socket.create_connection(("127.0.0.1", port)) as there,
            ):
                _join(here, reader, there)

    server = _Server(Handler)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


class Authority:
    """A certificate authority that nobody has heard of; `file` is its certificate."""

    def __init__(self, folder: Path, name: str = "Example Root") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Org"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.file = folder / "authority.pem"
        self.file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def context_for(self, host: str, *, is_expired: bool = False) -> ssl.SSLContext:
        """What a server called `host` shows."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        builder = self._builder(subject, key.public_key(), is_expired=is_expired)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        file = self._folder / f"{host}.pem"
        file.write_bytes(
            builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_expired: bool = False
    ) -> x509.CertificateBuilder:
        now, day = datetime.now(UTC), timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * day)
            .not_valid_after(now - day if is_expired else now + day)
        )


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: Callable[[Any, Any, Any], socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - typeshed's signature
        """Say nothing of clients that went away."""


def _join(here: socket.socket, reader: Any, there: socket.socket) -> None:  # noqa: ANN401 - a buffered reader of any kind
    """Carry what either side sends to the other, until both have ended."""

    def back() -> None:
        with contextlib.suppress(OSError):
            while piece := there.recv(_PIECE):
                here.sendall(piece)
        with contextlib.suppress(OSError):
            here.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=back, daemon=True)
    thread.start()
    with contextlib.suppress(OSError, ValueError):
        while piece := reader.read1(_PIECE):
            there.sendall(piece)
    with contextlib.suppress(OSError):
        there.shutdown(socket.SHUT_RDWR)
    thread.join(5)
