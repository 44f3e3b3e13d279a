"""Health: whether the process lives, and whether it may be asked. Both are told to anybody, by GET and by HEAD."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from ingestor.web.state import Daemon

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """That it lives: its loop has answered."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether it has compared its folders, and reaches what it needs."""

    ready: bool
    faults: list[str]
    """Why not, in sentences."""


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> Health:
    """Tell that the process and its loop are alive."""
    return Health()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready."}})
async def readyz(live: Daemon, response: Response) -> Readiness:
    """Tell whether the folders were compared once, Chroma answers, and the queue can be read."""
    faults = live.faults() + await run_in_threadpool(live.queue_faults)
    if faults:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(ready=not faults, faults=faults)
