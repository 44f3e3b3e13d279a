"""The guard: who may ask, and what a request may be, before any route is looked for.

- A page of somebody else's that has its name point here (DNS rebinding) is told by the name that the browser asks for.
- Where there is a token, who asks shows it, or a ticket that was had for it. Health is told to anybody.
- A page of another site makes a browser send no request that does anything, or that takes a place.
- A body is read whole, and is never larger than `MAX_BODY_BYTES`, whatever its head says.
- Of requests that are under way, `MAX_REQUESTS` are served; health is told however many there are.

Invariant: every answer carries `_HEADERS`, refusals and errors included; no answer lets another site read it (CORS).
"""

import asyncio
import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingestor.settings import HttpSettings
from ingestor.web.faults import answer
from ingestor.web.ticket import Tickets

MAX_REQUESTS: Final = 256
MAX_BODY_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 10.0
"""Within which a body has to come."""
LOGIN: Final = "/login"
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
"""Asked by whatever supervises the process, by whatever name, and tells nothing of anybody's."""
_OPEN: Final = _HEALTH | {LOGIN}
ASSETS: Final = "/static/"
"""What pages are drawn with, the one for the token included."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PAGE: Final = "document"
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_FORMS: Final = frozenset({LOGIN, "/logout"})
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with "no-referrer" browsers do not say where a form came from
    "X-Content-Type-Options": "nosniff",
}


def cookie_name(scope: Scope) -> str:
    """Name of the cookie that holds a ticket; all ports of a host share their cookies."""
    server = scope.get("server")
    return f"ingestor_{server[1] if server else 0}"


def with_query(path: str, request: Request) -> str:
    """A path of ours with the query of a request: what was looked for is found again after the token was shown."""
    query = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


class Guard:
    """Lets requests through to an application, or answers them itself."""

    def __init__(self, application: ASGIApp, http: HttpSettings, tickets: Tickets | None) -> None:
        self._application = application
        self._tickets = tickets
        self._names = _names(http)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; anything else is not served."""
        if scope["type"] != "http":
            return
        self._under_way += 1
        try:
            await self._answer(Request(scope), scope, receive, _with_headers(send))
        finally:
            self._under_way -= 1

    async def _answer(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(request)
        body = None if refusal else await _body(receive)
        if isinstance(body, bytes):
            await self._application(scope, _again(body, receive), send)
        else:
            await (refusal or body or Response())(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        path = request.scope["path"]  # that of `request.url` is made of what the request calls the server
        if path not in _HEALTH and self._under_way > MAX_REQUESTS:
            reason = f"{MAX_REQUESTS} requests are under way already"
            return answer(HTTPStatus.SERVICE_UNAVAILABLE, reason, headers={"Retry-After": "1"})
        if path not in _HEALTH and self._names is not None and not _is_called(request, self._names):
            return answer(
                HTTPStatus.MISDIRECTED_REQUEST, "this is no name of this server", "add it to http.allowed_hosts"
            )
        if path not in _OPEN and not path.startswith(ASSETS) and not self._is_known(request):
            return _unknown(request)
        if _is_of_another_site(request):
            return answer(HTTPStatus.FORBIDDEN, "a page of another site asks for this")
        wanted = _FORM if path in _FORMS else _JSON
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method not in _SAFE and kind != wanted:
            return answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {wanted}")
        return None

    def _is_known(self, request: Request) -> bool:
        if self._tickets is None:
            return True
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._tickets.is_token(shown.strip()):
            return True
        return self._tickets.is_ticket(request.cookies.get(cookie_name(request.scope), ""))


def _names(http: HttpSettings) -> Collection[str] | None:
    """What the server may be called besides the names of the loopback interface; None: whatever anybody likes.

    With a token a page that has its name point here gets nothing: the browser has no ticket for that name.
    """
    if http.token is not None and not http.allowed_hosts:
        return None
    return {_bare(name) for name in (http.host, *http.allowed_hosts)}


def _is_called(request: Request, names: Collection[str]) -> bool:
    """Whether the server is asked for by one of its names; the port may be that of a tunnel."""
    try:
        name = _bare(urlsplit(f"//{request.headers.get('host', '')}").hostname or "")
    except ValueError:
        return False
    return name == "localhost" or name in names or _is_loopback(name)


def _bare(name: str) -> str:
    return name.strip("[]").rstrip(".").lower()


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _unknown(request: Request) -> Response:
    is_person = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if is_person and not request.scope["path"].startswith("/api/"):
        return RedirectResponse(with_query(LOGIN, request), HTTPStatus.SEE_OTHER)
    return answer(
        HTTPStatus.UNAUTHORIZED,
        "the token is missing or wrong",
        "send `Authorization: Bearer TOKEN`, with the token of http.token",
        {"WWW-Authenticate": "Bearer"},
    )


def _is_of_another_site(request: Request) -> bool:
    """Whether a browser says so. What is no browser says nothing."""
    site = request.headers.get("sec-fetch-site")
    if request.method in _SAFE:
        # A link that is followed shows its answer; a frame, or a fetch in advance, would only have the work done.
        is_shown = request.headers.get("sec-fetch-dest", _PAGE) == _PAGE and "sec-purpose" not in request.headers
        is_followed = is_shown and request.headers.get("sec-fetch-mode") == "navigate"
        return site in {"cross-site", "same-site"} and not is_followed
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


async def _body(receive: Receive) -> bytes | Response:
    """All of a body, or what to answer instead."""
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return Response()  # nobody is left to be answered
                read += message.get("body", b"")
                if len(read) > MAX_BODY_BYTES:
                    return answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {MAX_BODY_BYTES} bytes")
                if not message.get("more_body", False):
                    return bytes(read)
    except TimeoutError:
        return answer(HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {BODY_SECONDS:g} s")


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, and then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return left.pop() if left else await receive()

    return give


def _with_headers(send: Send) -> Send:
    async def give(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return give
