"""Docs: the API described, for programs (`/openapi.json`) and for people (`/docs`), without a line from elsewhere.

FastAPI's own page loads its scripts from a CDN; this one is plain HTML, made here.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse

router = APIRouter(include_in_schema=False)

_OURS: Final = "422"
"""What FastAPI would answer to a request that cannot be read; here that is 400, see `faults`."""
_ITS_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")
_ABOUT: Final = (
    "What `ingestor status`, `problems`, `retry` and `query` tell and do, for programs. Where the setting http.token "
    "is set, send it as `Authorization: Bearer TOKEN`. What is sent is JSON, of 64 KiB at most."
)


def description_of(application: FastAPI) -> dict[str, Any]:
    """The API in the form of OpenAPI, as it really answers."""
    found = get_openapi(
        title=application.title, version=application.version, description=_ABOUT, routes=application.routes
    )
    for operations in found["paths"].values():
        for operation in operations.values():
            operation["responses"].pop(_OURS, None)
    for name in _ITS_SCHEMAS:
        found.get("components", {}).get("schemas", {}).pop(name, None)
    return found


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The API for programs."""
    return JSONResponse(description_of(request.app))


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The API for people."""
    return HTMLResponse("".join(_page(description_of(request.app))))


def _page(api: Mapping[str, Any]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><meta charset="utf-8"><title>ingestor: API</title>'
    yield '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/plain.css">'
    yield f"<h1>{escape(api['info']['title'])} {escape(api['info']['version'])}: API</h1>"
    yield f'<p>{escape(api["info"]["description"])} For programs: <a href="/openapi.json">openapi.json</a>.</p>'
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['description'])}</p>"
            yield from _parameters(operation.get("parameters", ()))
            body = operation.get("requestBody", {}).get("content", {})
            yield from (f"<p>Takes {_type(each['schema'])}.</p>" for each in body.values())
            yield from _rows(("answer", "", "holds"), _answers(operation["responses"]))
    yield "<h2>Forms</h2>"
    for name, schema in api["components"]["schemas"].items():
        yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3><p>{escape(schema.get("description", ""))}</p>'
        if "enum" in schema:
            yield f"<p>{_type(schema)}</p>"
        required = set(schema.get("required", ()))
        fields = [
            (f"<code>{escape(field)}</code>", _type(each), "" if field in required else "may be left out")
            for field, each in schema.get("properties", {}).items()
        ]
        yield from _rows(("field", "type", ""), fields)


def _parameters(parameters: "list[dict[str, Any]]") -> Iterator[str]:
    found = [(f"<code>{escape(each['name'])}</code>", each["in"], _type(each["schema"])) for each in parameters]
    yield from _rows(("parameter", "in", "type"), found)


def _answers(responses: Mapping[str, Any]) -> "list[tuple[str, str, str]]":
    return [
        (
            escape(status),
            escape(answer["description"]),
            ", ".join(
                _type(each.get("schema", {})) or escape(kind) for kind, each in answer.get("content", {}).items()
            ),
        )
        for status, answer in sorted(responses.items())
    ]


def _rows(headings: tuple[str, str, str], rows: "list[tuple[str, str, str]]") -> Iterator[str]:
    """A table of cells that are HTML already."""
    if rows:
        yield f"<table><tr>{''.join(f'<th>{heading}' for heading in headings)}"
        yield from (f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
        yield "</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """A type as HTML, with its bounds and its default."""
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        told = " or ".join(map(_type, schema["anyOf"]))
    elif "enum" in schema:
        told = ", ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    elif schema.get("type") == "array":
        told = f"list of {_type(schema['items'])}"
    else:
        told = escape(str(schema.get("type", "")))
    bounds = {"minimum": "from", "maximum": "to", "maxLength": "at most", "maxItems": "at most", "default": "default"}
    limits = [f"{word} {schema[key]}" for key, word in bounds.items() if schema.get(key) not in (None, "", [])]
    return f"{told} ({escape(', '.join(limits))})" if limits else told
