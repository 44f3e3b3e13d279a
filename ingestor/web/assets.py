"""Assets: what pages are drawn with, read once when the server comes up.

Invariant: a request names one of them or nothing; no file is opened for it.
"""

from http import HTTPStatus
from importlib.resources import files
from mimetypes import guess_type

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ingestor.web.guard import ASSETS

router = APIRouter(include_in_schema=False)

_ASSETS = {
    each.name: (each.read_bytes(), guess_type(each.name)[0] or "application/octet-stream")
    for each in files("ingestor.web").joinpath("static").iterdir()
    if each.is_file()
}


@router.get(ASSETS + "{name}")
async def asset(name: str) -> Response:
    """One of the files that pages are drawn with."""
    if name not in _ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    content, kind = _ASSETS[name]
    return Response(content, media_type=kind, headers={"Cache-Control": "max-age=300"})
