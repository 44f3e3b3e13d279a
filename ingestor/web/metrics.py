"""Metrics: what Prometheus scrapes. Asked for with the token, as all that tells of documents and money."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from ingestor.metrics.meter import Meter
from ingestor.web.faults import described

router = APIRouter(tags=["health"])


async def _meter_of(request: Request) -> Meter:
    meter: Meter = request.app.state.meter
    return meter


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Every metric, in the form that was asked for."},
        **described(401),
    },
)
async def metrics(meter: Annotated[Meter, Depends(_meter_of)], accept: Annotated[str, Header()] = "") -> Response:
    """Every metric, as Prometheus reads it."""
    told, content_type = await meter.exposition(accept)
    return Response(told, headers={"Content-Type": content_type})
