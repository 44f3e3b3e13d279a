"""Login: the token shown once by a person, for a ticket that the browser keeps."""

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ingestor.web.drawing import drawn
from ingestor.web.guard import LOGIN, cookie_name, with_query
from ingestor.web.reader import Read, Reader
from ingestor.web.ticket import TICKET_SECONDS, Tickets

router = APIRouter(include_in_schema=False)

_FIELD: Final = "token"


@router.get(LOGIN)
async def form(request: Request, reader: Read) -> Response:
    """Ask for the token."""
    if _tickets_of(request) is None:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    return reader.remembered(_page(reader), request.query_params)


@router.post(LOGIN)
async def login(request: Request, reader: Read) -> Response:
    """Give a ticket for the token."""
    tickets = _tickets_of(request)
    # Wherever it was asked for, the way leads to the page, with what was looked for: never elsewhere.
    leave = RedirectResponse(with_query("/", request), HTTPStatus.SEE_OTHER)
    if tickets is None:
        return leave
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    if not tickets.is_token(fields.get(_FIELD, [""])[0].strip()):
        return _page(reader, is_refused=True)
    leave.set_cookie(
        cookie_name(request.scope),
        tickets.issue(),
        max_age=TICKET_SECONDS,
        # Who lies here lies about his own cookie.
        secure=request.headers.get("x-forwarded-proto", request.scope["scheme"]) == "https",
        httponly=True,
        samesite="strict",
    )
    return leave


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Have the browser forget its ticket."""
    leave = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)
    leave.delete_cookie(cookie_name(request.scope), httponly=True, samesite="strict")
    return leave


def _page(reader: Reader, *, is_refused: bool = False) -> HTMLResponse:
    drawing = drawn("login.html", words=reader.words, theme=reader.theme, field=_FIELD, is_refused=is_refused)
    return HTMLResponse(drawing, HTTPStatus.UNAUTHORIZED if is_refused else HTTPStatus.OK)


def _tickets_of(request: Request) -> Tickets | None:
    found: Tickets | None = request.app.state.tickets
    return found
