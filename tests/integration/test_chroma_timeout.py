"""No call waits for ever, and whatever a server answers becomes an error that says what to do."""

import functools
import gc
import http.server
import itertools
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import chromadb
import httpx
import numpy as np
import pytest

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import HnswConfig, open_sink
from ingestor.core.errors import AuthenticationFailed, ConfigError, IngestorError, ServiceUnavailable
from ingestor.core.model import Recipe, Record, Retag

SHORT_SECONDS = 0.3
RECIPE = Recipe("test", "letters", 0)
NAMES = (f"slow-{number}" for number in itertools.count())


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server whose kernel accepts, and that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def chroma_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = ChromaServer(tmp_path_factory.mktemp("chroma"), port)
    server.start()
    yield port
    server.stop()


class Gate:
    """A proxy of one server, that stops passing anything on when it is shut, or breaks its connections."""

    def __init__(self, target_port: int) -> None:
        gate = self
        self.is_shut = False
        self.is_broken = False

        class Pass(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", target_port)) as target:
                    back = threading.Thread(target=self.pump, args=(target, self.request))
                    back.start()
                    self.pump(self.request, target)
                    target.shutdown(socket.SHUT_WR)
                    back.join()

            def pump(self, source: socket.socket, sink: socket.socket) -> None:
                while chunk := source.recv(65_536):
                    if gate.is_broken:
                        self.request.shutdown(socket.SHUT_RDWR)
                        return
                    if not gate.is_shut:
                        sink.sendall(chunk)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Pass)
        self.port = int(self.server.server_address[1])


@pytest.fixture
def gate(chroma_port: int) -> Iterator[Gate]:
    gate = Gate(chroma_port)
    with served(gate.server):
        yield gate


def record(identity: str) -> Record:
    return Record(identity, "text", {"document_id": "a"}, tag="t")


VECTOR = np.ones(3, dtype=np.float32)


@pytest.mark.parametrize("state", ["is_shut", "is_broken"])
def test_every_call_on_a_server_that_fell_silent_or_away_ends(gate: Gate, state: str) -> None:
    client: Any = connect("http", port=gate.port, timeout_seconds=20)
    sink = open_sink(client, next(NAMES), RECIPE, HnswConfig(), fingerprint="f")
    learning = open_sink(client, next(NAMES), RECIPE, HnswConfig(), fingerprint="f")
    sink.add([record("a:1")], VECTOR[np.newaxis])
    client._server._session.timeout = SHORT_SECONDS
    setattr(gate, state, True)

    calls: list[Callable[[], object]] = [
        lambda: sink.add([record("a:2")], VECTOR[np.newaxis]),
        lambda: learning.add([record("a:2")], VECTOR[np.newaxis]),
        lambda: sink.retag([Retag("a:1", {"document_id": "a"})]),
        lambda: sink.drop(["a:1"]),
        lambda: sink.search(VECTOR, 1, None, None),
        sink.count,
        sink.ids,
        lambda: sink.page(0, 1),
        lambda: sink.read(["a:1"]),
        lambda: sink.unreachable(["a:1"], VECTOR[np.newaxis]),
        sink.confirm,
        sink.keep,
        lambda: open_sink(client, "slow-new", RECIPE, HnswConfig(), fingerprint="f"),
    ]
    for call in calls:
        with pytest.raises(ServiceUnavailable):
            call()

    setattr(gate, state, False)
    client._server._session.timeout = 20
    assert sink.count() in {0, 1, 2}  # the write may or may not have happened
    disconnect(client)


def test_a_client_keeps_the_timeout_that_it_was_made_with(gate: Gate) -> None:
    client: Any = connect("http", port=gate.port, timeout_seconds=17)

    for owner in (client, client._admin_client):
        assert owner._server._session.timeout == httpx.Timeout(17, connect=5)
    disconnect(client)
    disconnect(client)


def test_nothing_that_was_sent_is_held_when_a_call_has_ended(chroma_port: int) -> None:
    client = connect("http", port=chroma_port, timeout_seconds=20)
    sink = open_sink(client, next(NAMES), RECIPE, HnswConfig(), fingerprint="f")
    gc.collect()
    gc.disable()  # it would find out sooner or later: some forty megabytes later, for a file of ten
    try:
        sink.add([record("a:1")], VECTOR[np.newaxis])
        assert sink.count() == 1
        assert [held for held in gc.get_objects() if isinstance(held, httpx.Request)] == []
    finally:
        gc.enable()
    disconnect(client)


def test_the_constructor_itself_does_not_wait_for_ever(silent_port: int) -> None:
    with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{silent_port} does not answer within 0.3 s"):
        connect("http", port=silent_port, timeout_seconds=SHORT_SECONDS)


def test_nor_does_the_constructor_of_a_cloud_client(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    here = functools.partial(chromadb.CloudClient, cloud_host="127.0.0.1", cloud_port=silent_port, enable_ssl=False)
    monkeypatch.setattr(chromadb, "CloudClient", here)

    with pytest.raises(ServiceUnavailable, match=r"api\.trychroma\.com does not answer"):
        connect("cloud", token="s3cret", timeout_seconds=SHORT_SECONDS)  # noqa: S106 - no secret of anybody


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"tenant": "default_tenant", "database": "default_database"}, (None, None)),
        ({"tenant": "me", "database": "mine"}, ("me", "mine")),
    ],
)
def test_a_cloud_client_gets_no_name_that_only_other_servers_have(
    given: dict[str, Any], sent: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refusing(*arguments: object) -> None:
        asked.extend(arguments[:2])
        raise ValueError("enough seen")

    monkeypatch.setattr(chromadb, "CloudClient", refusing)

    with pytest.raises(ServiceUnavailable, match="enough seen"):
        connect("cloud", token="s3cret", **given)  # noqa: S106 - no secret of anybody

    assert tuple(asked) == sent


def test_a_failed_constructor_leaves_chroma_as_it_was(silent_port: int) -> None:
    from chromadb.api import fastapi  # noqa: PLC0415 - only this test looks into it

    with pytest.raises(ServiceUnavailable):
        connect("http", port=silent_port, timeout_seconds=SHORT_SECONDS)

    assert vars(fastapi)["httpx"] is httpx


def test_a_closed_port_is_named_with_the_settings_to_change(closed_port: int) -> None:
    with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{closed_port} is out of reach") as caught:
        connect("managed", port=closed_port, timeout_seconds=SHORT_SECONDS)

    assert "INGESTOR_CHROMA__PORT" in caught.value.remedy


def test_a_server_of_this_machine_is_not_looked_for_behind_a_proxy(
    chroma_port: int, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    client = connect("http", port=chroma_port, timeout_seconds=20)

    assert client.count_collections() >= 0
    disconnect(client)


def test_a_tenant_that_does_not_exist_is_an_error_of_the_settings_and_leaves_no_connection(
    chroma_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[httpx.Client] = []
    original: Any = httpx.Client.__init__

    def noted(self: httpx.Client, **options: object) -> None:
        made.append(self)
        original(self, **options)

    monkeypatch.setattr(httpx.Client, "__init__", noted)

    with pytest.raises(ConfigError, match="no such tenant") as caught:
        connect("http", port=chroma_port, tenant="nobody", timeout_seconds=20)

    assert "INGESTOR_CHROMA__TENANT" in caught.value.remedy
    assert made
    assert all(session.is_closed for session in made)


class Oracle:
    """A server that gives one answer to everything, and keeps the headers of the questions."""

    def __init__(self, status: int, body: str) -> None:
        self.headers: list[dict[str, str]] = []
        oracle = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                oracle.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the base class
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
        self.port = int(self.server.server_port)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "no", AuthenticationFailed),
        (403, "no", AuthenticationFailed),
        (403, json.dumps({"error": "AuthError", "message": "Forbidden"}), AuthenticationFailed),
        (500, json.dumps({"error": "InternalError", "message": "broken"}), ServiceUnavailable),
        (502, "<html>bad gateway</html>", ServiceUnavailable),
        (404, "<html>not here</html>", ServiceUnavailable),
        (200, "<html>welcome</html>", ServiceUnavailable),
        (200, "{}", ServiceUnavailable),
    ],
)
def test_what_a_server_answers_decides_the_error_and_the_token_is_never_in_it(
    status: int, body: str, expected: type[IngestorError]
) -> None:
    oracle = Oracle(status, body)
    with served(oracle.server), pytest.raises(expected) as caught:
        connect("http", port=oracle.port, token="s3cret", timeout_seconds=5)  # noqa: S106 - no secret of anybody

    assert type(caught.value) is expected
    assert "s3cret" not in caught.value.sentence
    assert oracle.headers[0]["authorization"] == "Bearer s3cret"
    assert oracle.headers[0]["x-chroma-token"] == "s3cret"


class OldServer:
    """What releases before 1.0.6 and before 0.6 say of themselves; every other path is not there."""

    def __init__(self, answers: dict[str, object]) -> None:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(answers.get(self.path)).encode()
                self.send_response(200 if self.path in answers else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the base class
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
        self.port = int(self.server.server_port)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (
            {
                "/api/v2/version": "1.0.0",
                "/openapi.json": {"components": {"schemas": {"Collection": {"properties": {"id": {}, "name": {}}}}}},
            },
            "1.0.0",
        ),
        ({"/api/v2/version": "0.6.3"}, "0.6.3"),
        ({"/api/v1/version": "0.5.23"}, "0.5.23"),
    ],
    ids=["1.0.5", "0.6", "0.5"],
)
def test_a_server_that_is_too_old_is_refused_with_both_versions(answers: dict[str, object], says: str) -> None:
    old = OldServer(answers)
    with served(old.server), pytest.raises(ConfigError) as caught:
        connect("http", port=old.port, timeout_seconds=5)
    assert f"127.0.0.1:{old.port} is older than 1.0.6: it says {says}" in str(caught.value)
    assert chromadb.__version__ in str(caught.value)
    assert "update the server" in caught.value.remedy


def test_no_token_is_no_header() -> None:
    oracle = Oracle(401, "no")
    with served(oracle.server), pytest.raises(AuthenticationFailed):
        connect("http", port=oracle.port, timeout_seconds=5)

    assert not {"authorization", "x-chroma-token"} & oracle.headers[0].keys()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"mode": "cloud"}, "INGESTOR_CHROMA__TOKEN"),
        ({"mode": "persistent"}, "INGESTOR_CHROMA__PATH"),
        ({"mode": "telepathy"}, "managed, http, cloud, persistent, memory"),
    ],
)
def test_what_is_missing_is_told(arguments: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMA_API_KEY", raising=False)

    with pytest.raises(ConfigError) as caught:
        connect(**arguments)

    assert told in caught.value.remedy


def test_a_client_whose_session_cannot_be_found_is_refused(chroma_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = chromadb.HttpClient

    def without_session(*arguments: object, **options: object) -> object:
        client = made(*arguments, **options)
        client._server.__dict__["_elsewhere"] = client._server.__dict__.pop("_session")
        return client

    monkeypatch.setattr(chromadb, "HttpClient", without_session)

    with pytest.raises(ConfigError, match="version of chromadb"):
        connect("http", port=chroma_port, timeout_seconds=20)
