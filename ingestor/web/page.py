"""The page: what a browser gets at `/`, drawn whole by the server, so that it can be read without a script.

Invariant: the address says all that is looked at, and anything may stand in it: what cannot be read is left out. What
is looked at costs no embedding call but for a question.
"""

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from ingestor.app.finding import MAX_NEAREST, Found, Question, find
from ingestor.app.listing import Found as Listed
from ingestor.app.listing import documents as listed
from ingestor.app.live import Live
from ingestor.app.status import problems as faults_of
from ingestor.core.errors import IngestorError
from ingestor.core.excerpt import excerpt
from ingestor.core.listing import State, Wanted
from ingestor.core.metadata import RESERVED, TITLE
from ingestor.core.model import Hit
from ingestor.web.bounds import searches
from ingestor.web.drawing import drawn
from ingestor.web.overview import Rate, overview_of
from ingestor.web.reader import THEMES, Read, Reader
from ingestor.web.state import Daemon
from ingestor.web.words import Words

VIEWS: Final = ("search", "documents", "map", "problems")
MAX_HITS: Final = 100
FEW_HITS: Final = 10
PAGE_DOCUMENTS: Final = 50
MAX_PROBLEMS: Final = 200
_OFFERED_DOCUMENTS: Final = 1_000
"""The folders and types of so many documents are offered to choose from; others can be written."""
_MAX_OFFSET: Final = 10**9
_MAX_TEXT_CHARACTERS: Final = 2_000
_MAX_PAIRS: Final = 8
_MAX_TAGS: Final = 8
_MAX_TOPS: Final = 16
_EXCERPT_CHARACTERS: Final = 340
_WIDE_EXCERPT_CHARACTERS: Final = 170
_HEADING_SIGNS: Final = re.compile(r"^#{1,6}[ \t]+", re.MULTILINE)
_MOODS: Final = {State.INDEXED: "is-good", State.PROBLEM: "is-bad", State.QUEUED: "is-busy"}

router = APIRouter(include_in_schema=False)


@router.head("/")
@router.get("/")
async def page(request: Request, live: Daemon, reader: Read) -> Response:
    """The page, with the results of the question that its address asks."""
    query = request.query_params
    view = _one_of(VIEWS, query.get("view")) or VIEWS[0]
    values = await _common(request, live, reader, view) | await _viewed(live, reader.words, view, query)
    values["offers"] = await run_in_threadpool(_offers, live)
    drawing = await run_in_threadpool(drawn, "page.html", **values)
    answer = HTMLResponse(drawing, headers={"Vary": "Accept-Language, Cookie"})
    return reader.remembered(answer, query)


@router.get("/parts")
async def parts(request: Request, live: Daemon, reader: Read) -> HTMLResponse:
    """What of the page changes while somebody looks at it: the state, and the list of the view."""
    query = request.query_params
    view = _one_of(("documents", "problems"), query.get("view"))
    values = await _common(request, live, reader, view)
    if view:
        values |= await _viewed(live, reader.words, view, query)
    return HTMLResponse(await run_in_threadpool(drawn, "parts.html", **values))


async def _common(request: Request, live: Live, reader: Reader, view: str) -> dict[str, Any]:
    """What every view has."""
    rate: Rate = request.app.state.rate
    query = request.query_params
    other_theme = THEMES[0] if reader.theme == THEMES[1] else THEMES[1]
    question = _question(live, query)
    return {
        "view": view,
        "views": [{"name": name, "url": "/" if name == VIEWS[0] else f"/?view={name}"} for name in VIEWS],
        "words": reader.words,
        "theme": reader.theme,
        "state": await run_in_threadpool(overview_of, live, rate, reader.words),
        "is_guarded": live.settings.http.token is not None,
        "question": question,
        "collections": _collections(live),
        "urls": {
            "language": _address(query, lang=reader.words.other),
            "theme": _address(query, theme=other_theme),
            "picture": f"/api/picture?{urlencode({'collection': question.collection})}",
        },
        "fault": None,
        "found": None,
    }


async def _viewed(live: Live, words: Words, view: str, query: QueryParams) -> dict[str, Any]:
    """What a view has besides. What goes wrong is told in it."""
    try:
        match view:
            case "search":
                return {"found": await _searched(live, words, query)}
            case "documents":
                return {"listing": await run_in_threadpool(_listing, live, query)}
            case "problems":
                return await run_in_threadpool(_problems, live)
    except HTTPException:
        # The only one is that of the bound. The answer is a page all the same: it is a person who asks.
        return {"fault": {"sentence": words("search.busy"), "remedy": ""}}
    except IngestorError as error:
        return {"fault": {"sentence": str(error), "remedy": error.remedy}, "listing": _listing_of(0, [], query)}
    return {}


async def _searched(live: Live, words: Words, query: QueryParams) -> dict[str, Any] | None:
    question = _question(live, query)
    if not question.text:
        return None
    with searches.place():
        found = await find(live, question)
    return {"hits": [_hit(hit, question, query, words) for hit in found.hits], "note": _note(found, words)}


def _note(found: Found, words: Words) -> str:
    if found.folder_documents == 0:
        return words("search.no_folder")
    if found.is_partial:
        return words("search.among", count=found.folder_documents, nearest=MAX_NEAREST)
    return ""


def _collections(live: Live) -> Sequence[str]:
    return live.searchers.collections if live.searchers is not None else ()


def _question(live: Live, query: QueryParams) -> Question:
    """What is looked for; of several collections the first where none is named, as the form shows it."""
    several = _collections(live) if len(_collections(live)) > 1 else [""]
    return Question(
        text=_text(query, "q"),
        folder=_text(query, "folder").strip("/"),
        file_type=_text(query, "type"),
        pairs=tuple(pair.strip()[:_MAX_TEXT_CHARACTERS] for pair in query.getlist("meta") if pair.strip())[:_MAX_PAIRS],
        collection=_text(query, "collection") or several[0],
        count=_number(query, "n", FEW_HITS, 1, MAX_HITS),
    )


def _hit(hit: Hit, question: Question, query: QueryParams, words: Words) -> dict[str, Any]:
    metadata = hit.metadata
    source = str(metadata.get("source", ""))
    place = source or hit.id
    if "start_line" in metadata:
        place += f":{metadata['start_line']}-{metadata.get('end_line', '?')}"
    if page_number := metadata.get("page"):
        place += f" ({words('search.page', page=page_number)})"
    wide = sum(1 for character in hit.document if ord(character) > 0x2E7F)  # noqa: PLR2004 - where wide scripts begin
    most = _WIDE_EXCERPT_CHARACTERS if wide * 3 > len(hit.document) else _EXCERPT_CHARACTERS
    name, heading = str(metadata.get(TITLE) or metadata.get("file_name") or hit.id), str(metadata.get("heading", ""))
    # Chroma has an order of its own, another each time; a truth is written as people write it.
    own = sorted(
        (key, str(value).lower() if isinstance(value, bool) else str(value))
        for key, value in metadata.items()
        if key not in RESERVED and key != TITLE
    )
    return {
        "score": hit.score,
        "name": name,
        "url": f"/?{urlencode({'view': 'documents', 'text': source})}" if source else "",
        "place": place,
        "heading": heading if heading != name else "",
        "pieces": [
            {"text": text, "is_marked": is_marked}
            for text, is_marked in excerpt(_HEADING_SIGNS.sub("", hit.document), question.text, most).parts()
        ],
        "tags": [
            {"key": key, "value": value, "url": _address(query, meta=[*question.pairs, f"{key} = {value}"])}
            for key, value in own[:_MAX_TAGS]
        ],
    }


def _listing(live: Live, query: QueryParams) -> dict[str, Any]:
    wanted = Wanted(
        folder=_text(query, "folder").strip("/"),
        text=_text(query, "text"),
        file_type=_text(query, "type"),
        state=State(query["state"]) if query.get("state") in set(State) else None,
    )
    offset = _offset(query)
    total, found = listed(live.settings, wanted, limit=PAGE_DOCUMENTS, offset=offset)
    if total and not found:
        # Documents have gone since the address was made: the last page that there is.
        offset = (total - 1) // PAGE_DOCUMENTS * PAGE_DOCUMENTS
        total, found = listed(live.settings, wanted, limit=PAGE_DOCUMENTS, offset=offset)
    return _listing_of(total, found, query, offset)


def _listing_of(total: int, found: Sequence[Listed], query: QueryParams, offset: int = 0) -> dict[str, Any]:
    after, before = offset + PAGE_DOCUMENTS, max(0, offset - PAGE_DOCUMENTS)
    return {
        "total": total,
        "first": offset + 1,
        "last": offset + len(found),
        "before": _address(query, offset=before or "") if offset else "",
        "after": _address(query, offset=after) if after < total else "",
        "text": _text(query, "text"),
        "folder": _text(query, "folder"),
        "file_type": _text(query, "type"),
        "state": _text(query, "state"),
        "states": list(State),
        "documents": [
            {
                "source": each.source,
                "path": each.document.path,
                "state": each.document.state.value,
                "mood": _MOODS[each.document.state],
                "reason": _reason(each),
                "chunks": each.document.chunks,
                "size_bytes": each.document.size_bytes,
                "file_type": each.file_type,
                "modified_seconds": each.document.modified_seconds,
            }
            for each in found
        ],
    }


def _reason(found: Listed) -> str:
    """Why a document is not indexed, or not yet."""
    if found.document.waits_for:
        return f"it waits for {found.document.waits_for}"
    return found.document.problem.reason if found.document.problem else ""


def _problems(live: Live) -> dict[str, Any]:
    found = faults_of(live.settings)
    return {
        "problems_total": len(found),
        "problems": [
            {
                "source": source,
                "path": path,
                "reason": problem.reason,
                "remedy": problem.remedy,
                "attempts": problem.attempts,
                "since_seconds": problem.since_seconds,
                "next_try_seconds": problem.next_try_seconds,
            }
            for source, path, problem in found[:MAX_PROBLEMS]
        ],
    }


def _offers(live: Live) -> dict[str, Any]:
    """Folders and types to choose from; topmost folders as links."""
    _, found = listed(live.settings, Wanted(), limit=_OFFERED_DOCUMENTS, offset=0)
    folders = sorted({folder for each in found if (folder := each.document.path.rpartition("/")[0]).isprintable()})
    tops = dict.fromkeys(folder.partition("/")[0] for folder in folders if folder)
    return {
        "folders": [folder for folder in folders if folder],
        "types": sorted({each.file_type for each in found}),
        "tops": [
            {"name": top, "url": f"/?{urlencode({'view': VIEWS[1], 'folder': top})}"} for top in list(tops)[:_MAX_TOPS]
        ],
    }


def _address(query: QueryParams, **changes: object) -> str:
    """The address of the page with some of its parameters changed; an empty one goes."""
    pairs = [
        (name, value)
        for name, value in query.multi_items()
        if value and name not in {*changes, "lang", "theme", "refused"}
    ]
    for name, change in changes.items():
        values = change if isinstance(change, list) else [change]
        pairs += [(name, str(value)) for value in values if value != ""]
    return f"/?{urlencode(pairs)}" if pairs else "/"


def _text(query: QueryParams, name: str) -> str:
    return query.get(name, "").strip()[:_MAX_TEXT_CHARACTERS]


def _offset(query: QueryParams) -> int:
    return _number(query, "offset", 0, 0, _MAX_OFFSET)


def _number(query: QueryParams, name: str, usual: int, least: int, most: int) -> int:
    written = query.get(name, "")
    is_number = written.isdecimal() and len(written) < len(str(_MAX_OFFSET))
    return min(most, max(least, int(written))) if is_number else usual


def _one_of(choices: Sequence[str], written: str | None) -> str:
    return written if written is not None and written in choices else ""
