"""Faults: errors as answers, `{"error": sentence, "remedy": what to do}`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ingestor.core.errors import (
    AlreadyRunning,
    AuthenticationFailed,
    CollectionLost,
    ConfigError,
    DocumentError,
    ForeignCollection,
    IngestorError,
    RecipeMismatch,
    TransientError,
)
from ingestor.core.escaping import escaped

_STATUSES: Final[Mapping[type[IngestorError], HTTPStatus]] = {
    ConfigError: HTTPStatus.BAD_REQUEST,
    DocumentError: HTTPStatus.BAD_REQUEST,
    RecipeMismatch: HTTPStatus.CONFLICT,
    ForeignCollection: HTTPStatus.CONFLICT,
    AuthenticationFailed: HTTPStatus.BAD_GATEWAY,
    AlreadyRunning: HTTPStatus.SERVICE_UNAVAILABLE,
    CollectionLost: HTTPStatus.SERVICE_UNAVAILABLE,
    TransientError: HTTPStatus.SERVICE_UNAVAILABLE,
}
_DESCRIPTIONS: Final = {
    400: "What was sent is not what may be.",
    401: "The token is missing or wrong.",
    409: "The collection is of another model or another data folder, or is being rebuilt.",
    413: "What was sent is too large.",
    415: "What was sent is not said to be JSON.",
    429: "Too many of these at once; try again.",
    502: "The provider of the model refuses the key.",
    503: "Something that it needs is away; try again.",
}
_SEE: Final = "/docs tells what may be sent"

_log = structlog.get_logger(__name__)


class Fault(BaseModel):
    """What went wrong, and what to do about it."""

    error: str
    remedy: str = ""


def answer(status: int, error: str, remedy: str = "", headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A fault as a response."""
    return JSONResponse({"error": escaped(error), "remedy": escaped(remedy)}, status, dict(headers or {}))


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides its result, for its description."""
    return {status: {"model": Fault, "description": _DESCRIPTIONS[status]} for status in statuses}


def explain_errors(application: FastAPI) -> None:
    """Answer errors in one form, whoever raises them."""
    application.add_exception_handler(IngestorError, _explain)
    application.add_exception_handler(RequestValidationError, _explain_request)
    application.add_exception_handler(HTTPException, _explain_status)
    application.add_exception_handler(Exception, _explain_nothing)


def _explain(_: Request, error: Exception) -> JSONResponse:
    status, headers, remedy = HTTPStatus.INTERNAL_SERVER_ERROR, dict[str, str](), ""
    if isinstance(error, IngestorError):
        remedy = error.remedy
        status = next((found for kind, found in _STATUSES.items() if isinstance(error, kind)), status)
    if isinstance(error, TransientError) and error.retry_after_seconds is not None:
        headers["Retry-After"] = f"{max(1.0, error.retry_after_seconds):.0f}"
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("http.failed", reason=str(error), remedy=remedy)
    return answer(status, str(error), remedy, headers)


def _explain_request(_: Request, error: Exception) -> JSONResponse:
    reason = "the request cannot be read"
    if isinstance(error, RequestValidationError) and error.errors():
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        reason = ": ".join(filter(None, (place, str(first["msg"]).removeprefix("Value error, "))))
    return answer(HTTPStatus.BAD_REQUEST, reason, _SEE)


def _explain_status(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return answer(error.status_code, str(error.detail), _SEE, error.headers)


def _explain_nothing(_: Request, error: Exception) -> JSONResponse:
    # What it says may be anything: the log has it, with its traceback.
    reason = f"unexpected {type(error).__name__}"
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, reason, "the log of the daemon tells more: please report it")
