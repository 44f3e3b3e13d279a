"""The HTTP server inside a process that has other things to do: its life, and what happens now."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from ingestor.app.live import Live
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.logs import KEPT_ENTRIES, configure_logs
from ingestor.settings import load_settings
from ingestor.web import connection, events, guard, listening
from ingestor.web.server import front
from ingestor.web.serving import Server

PATIENCE_SECONDS = 30


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs("error", "json")  # what is printed is another matter than what is told
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def live(**http: object) -> Live:
    given = {"port": 0} | http
    return Live(load_settings(None, {f"http.{name}": value for name, value in given.items()}).settings, asyncio.Event())


@asynccontextmanager
async def served(**http: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server of this process."""
    with ThreadPoolExecutor(1) as importing:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            front(live(**http), importing) as url,
            httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, trust_env=False) as client,
        ):
            yield client


class Reader:
    """Reads a stream of events."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def event(self) -> dict[str, str]:
        """The next one; a comment is an event without fields."""
        found: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return found
            name, _, value = line.partition(": ")
            if name != ":":
                found[name] = value
        raise EOFError

    async def entry(self, wanted: str) -> dict[str, Any]:
        """The next entry of that name."""
        while True:
            told = json.loads((await self.event()).get("data", "{}"))
            if told.get("event") == wanted:
                return dict(told)


@asynccontextmanager
async def reading(client: httpx.AsyncClient, last: str = "") -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last} if last else {}
    async with client.stream("GET", "/api/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Reader(response)


def tell(event: str, **fields: object) -> None:
    structlog.get_logger("ingestor.x").info(event, **fields)


async def test_what_happened_last_comes_first_and_then_what_happens() -> None:
    tell("before", path="a\n\x1b[2Jb\udce9")
    structlog.get_logger("ingestor.x").debug("of no interest")
    async with served() as client, reading(client) as reader:
        before = await reader.entry("before")
        assert (before["level"], before["path"]) == ("info", r"a\n\x1b[2Jb\xe9")
        assert before["timestamp"].endswith("+00:00")
        tell("now", count=3)
        assert (await reader.entry("now"))["count"] == 3


async def test_a_traceback_is_nobodys_business() -> None:
    async with served() as client, reading(client) as reader:
        try:
            raise ValueError("why")  # noqa: TRY301 - an exception to log is what this is about
        except ValueError:
            structlog.get_logger("ingestor.x").exception("failed.so")
        assert set(await reader.entry("failed.so")) == {"timestamp", "level", "event"}


async def test_a_reader_goes_on_where_it_was_and_one_of_another_process_begins_anew() -> None:
    async with served() as client:
        tell("first")
        async with reading(client) as reader:
            while json.loads((event := await reader.event())["data"])["event"] != "first":
                pass
        tell("second")
        async with reading(client, event["id"]) as reader:
            assert json.loads((await reader.event())["data"])["event"] == "second"
        for identity in ("00000000-99999", "nonsense", event["id"].partition("-")[0] + "-9x"):
            async with reading(client, identity) as reader:
                await reader.entry("first")


async def test_a_slow_reader_is_told_how_much_it_has_missed() -> None:
    async with served() as client:
        tell("marked")
        async with reading(client) as reader:
            while json.loads((event := await reader.event())["data"])["event"] != "marked":
                pass
        for number in range(KEPT_ENTRIES + 5):
            tell("many", number=number)
        async with reading(client, event["id"]) as reader:
            assert await reader.event() == {"event": "lost", "data": '{"lost": 5}'}
            assert (await reader.entry("many"))["number"] == 5


async def test_a_connection_on_which_nothing_happens_is_kept_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_SECONDS", 0.05)
    async with served() as client, reading(client) as reader:
        while await reader.event():
            pass


async def test_places_for_streams_are_bounded_and_free_again_when_readers_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS", 1)
    async with served() as client:
        async with reading(client):
            assert (await client.get("/api/events")).status_code == 429
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with client.stream("GET", "/api/events") as response:
                    if response.status_code == 200:
                        break
                await asyncio.sleep(0.01)


Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def wire(client: httpx.AsyncClient, sent: bytes = b"") -> Wire:
    """A connection of its own, on which something was sent."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(sent)
    return reader, writer


async def rest(of: Wire) -> bytes:
    """What comes until the server ends the connection."""
    try:
        return await of[0].read()
    except ConnectionResetError:
        return b""
    finally:
        await end([of])


async def end(all_: Sequence[Wire]) -> None:
    """Leave connections, whether they are there any more or not."""
    for _, writer in all_:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he"])
async def test_who_asks_for_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.05)
    async with served() as client:
        await rest(await wire(client, sent))


async def test_a_head_that_comes_sign_by_sign_gets_no_time_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    async with served() as client:
        reader, writer = await wire(client, b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        await rest((reader, writer))


async def test_an_answer_that_nobody_takes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(events, "MAX_STREAMS", 1)
    async with served() as client:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            deaf.connect((client.base_url.host, client.base_url.port))
            deaf.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            is_free = False
            while not is_free:
                for _ in range(KEPT_ENTRIES):
                    tell("many", text="x" * 1000)
                await asyncio.sleep(0.01)
                async with client.stream("GET", "/api/events") as response:
                    is_free = response.status_code == 200


async def test_a_stream_on_which_nothing_happens_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.05)
    async with served() as client, reading(client) as reader:
        await asyncio.sleep(0.2)
        tell("after.silence")
        await reader.entry("after.silence")


async def test_idle_connections_keep_nobody_from_being_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_REQUESTS", 1)
    async with served() as client:
        idle = [await wire(client) for _ in range(300)]
        assert (await client.get("/api/status")).status_code == 200
        async with reading(client):
            refused = await client.get("/api/status")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "under way" in refused.json()["error"]
            assert (await client.get("/healthz")).status_code == 200
        await end(idle)


async def test_descriptors_are_left_to_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    async with served() as client:
        held = [await wire(client) for _ in range(3)]
        assert (await client.get("/healthz")).status_code == 200, "who is silent makes room"
        assert await rest(held[0]) == b""
        await end(held[1:])
    async with served() as client, reading(client), reading(client), reading(client):
        assert await rest(await wire(client)) == b"", "who is served does not"


POST = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "later"),
    [
        (b"\x16\x03\x01 of another protocol\r\n\r\n", b""),
        (POST + b"no number\r\n", b""),
        (POST, b"no number\r\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b""),
    ],
    ids=["no HTTP", "no chunk, before the answer", "no chunk, after the answer", "another protocol"],
)
async def test_nobody_who_connects_can_fill_the_log(
    sent: bytes, later: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("info", "json")
    async with served() as client:
        reader, writer = await wire(client, sent)
        assert await reader.readline()
        writer.write(later)
        writer.write_eof()
        await rest((reader, writer))
    told = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert told == ["http.listening"]


def test_requests_that_end_with_a_dying_process_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    async def die() -> None:
        with ThreadPoolExecutor(1) as importing:
            async with front(live(), importing) as url:
                reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
                writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
                writer.close()  # is told a turn of the loop later than the error
                raise ServiceUnavailable("of whatever")

    with pytest.raises(ExceptionGroup):
        asyncio.run(die())
    assert "Traceback" not in capsys.readouterr().err


async def test_open_streams_end_with_the_server_and_hold_nothing_up() -> None:
    with ThreadPoolExecutor(1) as importing:
        async with asyncio.timeout(PATIENCE_SECONDS), httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113 - as above
            async with front(live(), importing) as url:
                asked = client.build_request("GET", f"{url}/api/events")
                reader = Reader(await client.send(asked, stream=True))
                await reader.event()
            with pytest.raises(EOFError):
                await reader.entry("nothing more")


async def test_a_server_that_dies_ends_who_it_is_part_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(*_: object) -> None:
        raise RuntimeError("of whatever")

    monkeypatch.setattr(Server, "on_tick", die)
    with pytest.raises(ExceptionGroup) as died:
        async with served():
            await asyncio.Event().wait()
    assert died.group_contains(RuntimeError, match="of whatever")


async def test_a_server_that_ends_unasked_ends_who_it_is_part_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def end(_: object) -> None:
        return None

    monkeypatch.setattr(Server, "main_loop", end)
    with pytest.raises(ExceptionGroup) as died:
        async with served():
            await asyncio.Event().wait()
    assert died.group_contains(ServiceUnavailable, match="ended by itself")


async def test_signals_stay_whose_they_were() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with served() as client:
        assert (await client.get("/healthz")).status_code == 200
        assert {number: signal.getsignal(number) for number in before} == before


async def test_who_connects_before_anything_can_answer_is_answered_later() -> None:
    with ThreadPoolExecutor(1) as importing:
        importing.submit(lambda: asyncio.run(asyncio.sleep(0.2)))
        async with (
            front(live(), importing) as url,
            httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client,
        ):
            assert (await client.get(f"{url}/healthz")).json() == {"status": "ok"}


async def test_a_block_that_ends_before_the_server_is_there_waits_for_nobody() -> None:
    with ThreadPoolExecutor(1) as importing:
        async with asyncio.timeout(PATIENCE_SECONDS), front(live(), importing) as url:
            port = int(url.rpartition(":")[2])
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


def test_the_default_is_a_port_of_this_machine_alone() -> None:
    here = load_settings(None, {"http.host": "127.87.65.43"}).settings.http  # an address that nobody else listens at
    assert load_settings().settings.http.host == "127.0.0.1"
    (opened,) = listening.listen(here)
    with opened:
        assert listening.url_of(here, [opened]) == "http://127.87.65.43:8765"
        with pytest.raises(ConfigError, match="taken"):
            listening.listen(here)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - to be refused
def test_nobody_beyond_this_machine_is_served_without_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="no token is set"):
        listening.listen(live(host=host).settings.http)


def test_with_a_token_others_are_served_and_this_machine_has_a_url() -> None:
    http = live(host="0.0.0.0", token="long-and-random").settings.http  # noqa: S104, S106 - of a test
    sockets = listening.listen(http)
    try:
        assert listening.url_of(http, sockets) == f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "192.0.2.1"])
def test_a_host_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(ConfigError, match=r"http\.host"):
        listening.listen(live(host=host, token="long-and-random").settings.http)  # noqa: S106 - of a test
