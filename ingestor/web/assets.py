"""Assets: what pages are drawn with, read once when the server comes up.

Invariant: a request names one of them or nothing; no file is opened for it.
"""

import hashlib
from http import HTTPStatus
from importlib.resources import files
from mimetypes import guess_type

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ingestor.web.guard import ASSETS

router = APIRouter(include_in_schema=False)

_ASSETS = {
    each.name: (each.read_bytes(), guess_type(each.name)[0] or "application/octet-stream")
    for each in files("ingestor.web").joinpath("static").iterdir()
    if each.is_file()
}
_TAGS = {name: f'"{hashlib.sha256(content).hexdigest()}"' for name, (content, _) in _ASSETS.items()}


@router.get(ASSETS + "{name}")
async def asset(name: str, request: Request) -> Response:
    """One of the files that pages are drawn with; asked for again each time, so that a new page never has old ones."""
    if name not in _ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    headers = {"Cache-Control": "no-cache", "ETag": _TAGS[name]}
    if request.headers.get("if-none-match") == _TAGS[name]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    content, kind = _ASSETS[name]
    return Response(content, media_type=kind, headers=headers)
