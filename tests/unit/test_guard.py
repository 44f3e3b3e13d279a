"""Who may ask the HTTP server, and what a request may be."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ingestor.app.live import Live
from ingestor.settings import load_settings
from ingestor.web import guard, ticket
from ingestor.web.application import application_of
from ingestor.web.events import Streams

SHOWN = "a-token-that-nobody-guesses"
HERE = "http://127.0.0.1:8765"
BEARER = {"Authorization": f"Bearer {SHOWN}"}
PERSON = {"Accept": "text/html"}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path))


def browser(**http: object) -> httpx.AsyncClient:
    """A client of a daemon that is starting, with settings of the group `http`."""
    settings = load_settings(None, {f"http.{name}": value for name, value in http.items()}).settings
    transport = httpx.ASGITransport(application_of(Live(settings, asyncio.Event()), Streams()))
    return httpx.AsyncClient(transport=transport, base_url=HERE)


async def status(client: httpx.AsyncClient, path: str = "/api/status", **headers: str) -> int:
    """What a GET is answered."""
    return (
        await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    ).status_code


@pytest.mark.parametrize(
    "name", ["evil.example:8765", "127.0.0.1.evil.example", "8.8.8.8", "[::1", "", "x@evil.example"]
)
async def test_a_name_that_was_made_to_point_here_is_not_answered(name: str) -> None:
    client = browser()
    assert await status(client, Host=name) == 421
    assert await status(client, "/healthz", Host=name) == 200, "who supervises asks by any name"


@pytest.mark.parametrize("name", ["localhost:8765", "127.0.0.1:9000", "[::1]:8765", "LOCALHOST.", "127.9.9.9"])
async def test_names_of_the_loopback_interface_are_answered_whatever_the_port_of_a_tunnel(name: str) -> None:
    assert await status(browser(), Host=name) == 200


async def test_the_names_that_are_answered_can_be_set_and_hold_with_a_token_too() -> None:
    assert await status(browser(allowed_hosts="docs.example"), Host="docs.example:8765") == 200
    with_token = browser(token=SHOWN)
    assert await status(with_token, Host="docs.example", **BEARER) == 200
    assert await status(browser(token=SHOWN, allowed_hosts="docs.example"), Host="evil.example", **BEARER) == 421


@pytest.mark.parametrize("path", ["/api/status", "/api/documents", "/openapi.json", "/docs", "/", "/nothing"])
async def test_nothing_but_health_is_told_without_the_token(path: str) -> None:
    client = browser(token=SHOWN)
    assert await status(client, path) == 401
    assert await status(client, path, Authorization="Bearer another") == 401
    assert await status(client, path, Authorization=f"Basic {SHOWN}") == 401
    assert await status(client, path, Host="x/healthz?") == 401
    assert await status(client, path, **BEARER) != 401
    assert await status(client, "/healthz") == 200
    assert await status(client, "/readyz") == 503


async def test_no_path_that_begins_like_an_open_one_leads_past_the_token() -> None:
    client = browser(token=SHOWN)
    for path in (
        "/static/../api/status",
        "/static/%2e%2e/api/status",
        "//healthz",
        "/healthz/../api/status",
        "/login/x",
    ):
        assert await status(client, path) in {401, 404}, path


async def test_a_person_shows_the_token_once_and_the_browser_keeps_a_ticket_that_is_not_the_token() -> None:
    client = browser(token=SHOWN)
    turned_away = await client.get("/", headers=PERSON)
    assert (turned_away.status_code, turned_away.headers["location"]) == (303, "/login")
    assert "password" in (await client.get("/login", headers=PERSON)).text
    let_in = await client.post("/login", data={"token": SHOWN})
    assert let_in.status_code == 303
    kept = let_in.headers["set-cookie"]
    assert SHOWN not in kept
    assert "HttpOnly" in kept
    assert "SameSite=strict" in kept
    assert await status(client) == 200
    await client.post("/logout", data={"": ""})
    assert await status(client) == 401


async def test_behind_a_proxy_that_adds_tls_the_ticket_never_goes_without() -> None:
    for told, is_secure in (
        ({}, False),
        ({"X-Forwarded-Proto": "http"}, False),
        ({"X-Forwarded-Proto": "https"}, True),
    ):
        let_in = await browser(token=SHOWN).post("/login", data={"token": SHOWN}, headers=told)
        assert ("Secure" in let_in.headers["set-cookie"]) is is_secure, told


async def test_who_shows_the_token_gets_what_was_asked_for_and_nothing_of_elsewhere() -> None:
    client = browser(token=SHOWN)
    turned_away = await client.get("/?q=a%20lamp&meta=b+%3D+c", headers=PERSON)
    assert turned_away.headers["location"] == "/login?q=a%20lamp&meta=b+%3D+c"
    refused = await client.post(turned_away.headers["location"], data={"token": "another"})
    assert refused.status_code == 401
    let_in = await client.post(turned_away.headers["location"], data={"token": SHOWN})
    assert let_in.headers["location"] == "/?q=a%20lamp&meta=b+%3D+c"
    for aside in ("/login?//elsewhere.example/", "/login?https://elsewhere.example"):
        let_in = await client.post(aside, data={"token": SHOWN})
        assert let_in.headers["location"].startswith("/?")


async def test_a_wrong_token_gets_no_ticket() -> None:
    client = browser(token=SHOWN)
    refused = await client.post("/login", data={"token": "another"})
    assert refused.status_code == 401
    assert "set-cookie" not in refused.headers
    assert await status(client) == 401


async def test_a_ticket_ends_by_itself_and_with_its_token_and_cannot_be_made_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = browser(token=SHOWN)
    await client.post("/login", data={"token": SHOWN})
    ((name, value),) = client.cookies.items()
    until, _, seal = value.partition(".")
    for made_up in (f"{int(until) + 1}.{seal}", f"{until}.", until, "", ".", f"{until}.{'0' * 64}", "\xff.\xff"):
        told = {b"Cookie": f"{name}={made_up}".encode("latin-1")}
        assert (await browser(token=SHOWN).get("/api/status", headers=told)).status_code == 401, made_up
    assert await status(browser(token="another"), Cookie=f"{name}={value}") == 401  # noqa: S106 - of a test
    later_seconds = time.time() + ticket.TICKET_SECONDS + 1
    assert await status(browser(token=SHOWN), Cookie=f"{name}={value}") == 200
    monkeypatch.setattr(time, "time", lambda: later_seconds)
    assert await status(browser(token=SHOWN), Cookie=f"{name}={value}") == 401


@pytest.mark.parametrize(
    "told",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": HERE},
    ],
    ids=lambda told: " ".join(told.values()),
)
async def test_a_page_of_another_site_gets_nothing_done(told: dict[str, str]) -> None:
    client = browser(token=SHOWN)
    assert (await client.post("/api/retry", json={}, headers=BEARER | told)).status_code == 403
    assert (await client.post("/login", data={"token": SHOWN}, headers=told)).status_code == 403


async def test_a_page_of_this_site_and_a_program_get_things_done() -> None:
    client = browser()
    for told in ({}, {"Origin": HERE}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert (await client.post("/api/retry", json={}, headers=told)).status_code == 200, told


async def test_a_page_of_another_site_may_link_here_and_load_nothing_from_here() -> None:
    client = browser()
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert await status(client, **followed) == 200
    assert await status(client, **followed, Sec_Fetch_Dest="document") == 200
    for frame in ("iframe", "frame", "embed", "object", "fencedframe"):
        assert await status(client, "/?q=paid", **followed, Sec_Fetch_Dest=frame) == 403, "nobody sees the answer"
    assert await status(client, "/?q=paid", **followed, Sec_Fetch_Dest="document", Sec_Purpose="prefetch") == 403
    assert await status(client, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    assert await status(client, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors") == 403
    answered = await client.get("/api/status", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answered.headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_what_a_form_of_a_browser_can_send_is_no_json(kind: str) -> None:
    answered = await browser().post("/api/retry", content=b"{}", headers={"Content-Type": kind} if kind else {})
    assert answered.status_code == 415


async def _parts(size_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(size_bytes // 1024):
        yield b" " * 1024


async def test_a_body_is_bounded_whether_its_size_is_told_or_not() -> None:
    client = browser()
    kind = {"Content-Type": "application/json"}
    most = guard.MAX_BODY_BYTES
    assert (await client.post("/api/retry", content=b"{}" + b" " * (most - 2), headers=kind)).status_code == 200
    assert (await client.post("/api/retry", content=b"{}" + b" " * most, headers=kind)).status_code == 413
    assert (await client.post("/api/retry", content=_parts(2 * most), headers=kind)).status_code == 413
    lying = await client.post("/api/retry", content=_parts(2 * most), headers=kind | {"Content-Length": "2"})
    assert lying.status_code == 413
    assert (await client.request("GET", "/api/status", content=b" " * 2 * most)).status_code == 413


async def _never() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    answered = await browser().post("/api/retry", content=_never(), headers={"Content-Type": "application/json"})
    assert answered.status_code == 408


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/api/status", "/nothing", "/static/plain.css", "/api/documents?limit=0", "/docs"]
)
async def test_every_answer_tells_the_browser_what_to_refuse(path: str) -> None:
    for client, told in ((browser(), {}), (browser(), {"Host": "evil.example"}), (browser(token=SHOWN), {})):
        headers = (await client.get(path, headers=told)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "cache-control" in headers


async def test_an_asset_is_one_of_a_few_and_never_a_path() -> None:
    client = browser()
    assert (await client.get("/static/plain.css")).headers["content-type"].startswith("text/css")
    for path in ("/static/..%2f__init__.py", "/static/%2e%2e", "/static//etc/passwd", "/static/nothing"):
        assert await status(client, path) == 404
