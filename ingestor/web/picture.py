"""The picture of a collection, for whoever draws it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from ingestor.app.picture import MAX_POINTS, Pictures
from ingestor.web.faults import described

router = APIRouter(prefix="/api")

_ABOUT: Final = f"The collection as at most {MAX_POINTS} points of a plane."


class PointRow(BaseModel):
    """A record in the plane; `x` and `y` lie from -1 to 1."""

    x: float
    y: float
    source: str
    """Path of the file, relative to the watched folder; empty for a record that was added by hand."""
    start_line: int
    end_line: int
    text: str
    """The beginning of the text."""
    folder: int
    """Place of the topmost folder in `folders`."""


class PictureShape(BaseModel):
    """A sample of a collection: those that stand close are close in meaning."""

    records: int
    """How many the collection holds."""
    points: Sequence[PointRow]
    folders: Sequence[str]


@router.get("/picture", tags=["work"], description=_ABOUT, responses=described(400, 401, 409, 503))
async def picture(request: Request, collection: Annotated[str, Query(max_length=512)] = "") -> PictureShape:
    """Draw the collection, or the one that is named where there are several."""
    pictures: Pictures = request.app.state.pictures
    return PictureShape.model_validate(asdict(await pictures.of(collection)))
