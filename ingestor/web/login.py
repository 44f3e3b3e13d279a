"""Login: the token shown once by a person, for a ticket that the browser keeps."""

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ingestor.web.guard import LOGIN, cookie_name
from ingestor.web.ticket import TICKET_SECONDS, Tickets

router = APIRouter(include_in_schema=False)

_FIELD: Final = "token"
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ingestor</title>
<link rel="stylesheet" href="/static/plain.css">
<h1>ingestor</h1>
<form method="post" action="{LOGIN}">
<label>Token (the setting http.token) <input type="password" name="{_FIELD}" autocomplete="current-password" required
autofocus></label>
<button>Log in</button>
</form>
"""
_WRONG: Final = "<p>That is not the token.</p>\n"


@router.get(LOGIN)
async def form(request: Request) -> Response:
    """Ask for the token."""
    if _tickets_of(request) is None:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    return HTMLResponse(_PAGE)


@router.post(LOGIN)
async def login(request: Request) -> Response:
    """Give a ticket for the token."""
    tickets = _tickets_of(request)
    leave = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    if tickets is None:
        return leave
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    if not tickets.is_token(fields.get(_FIELD, [""])[0].strip()):
        return HTMLResponse(_PAGE + _WRONG, HTTPStatus.UNAUTHORIZED)
    leave.set_cookie(
        cookie_name(request.scope),
        tickets.issue(),
        max_age=TICKET_SECONDS,
        secure=request.scope["scheme"] == "https",
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


def _tickets_of(request: Request) -> Tickets | None:
    found: Tickets | None = request.app.state.tickets
    return found
