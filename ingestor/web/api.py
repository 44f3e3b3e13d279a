"""The JSON API: what the commands `status`, `problems`, `retry` and `query` tell and do, and the list of documents.

Invariant: what blocks runs on threads of its own; paths are names in the ledger, and no file is opened by them.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from ingestor.app.listing import documents as listed
from ingestor.app.shape import document_json, hit_json, problem_json, statuses_json
from ingestor.app.status import as_told, queue_again
from ingestor.app.status import problems as faults_of
from ingestor.app.status import status as status_of
from ingestor.core.escaping import spelled
from ingestor.core.listing import State, Wanted
from ingestor.web.bounds import retries, searches
from ingestor.web.faults import described
from ingestor.web.models import Again, AllStatus, Documents, Hits, ProblemRow, Question, Queued, SourceStatus
from ingestor.web.state import Daemon

MAX_PAGE: Final = 1_000
_MAX_OFFSET: Final = 10**9
_MAX_FILTER_CHARACTERS: Final = 1_000

router = APIRouter(prefix="/api", responses=described(400, 401, 503))

_Filter = Annotated[str, Query(max_length=_MAX_FILTER_CHARACTERS)]


@router.get("/status", tags=["state"])
def status(live: Daemon) -> SourceStatus | AllStatus:
    """What is indexed, queued and spent, as `ingestor status --json` tells it."""
    return statuses_json(status_of(live.settings))  # type: ignore[return-value]  # FastAPI makes the model of it


@router.get("/documents", tags=["state"])
def documents(  # noqa: PLR0913, PLR0917 - what may be looked for
    live: Daemon,
    source: _Filter = "",
    folder: _Filter = "",
    type: _Filter = "",  # noqa: A002 - the name in the URL
    state: State | None = None,
    text: _Filter = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    offset: Annotated[int, Query(ge=0, le=_MAX_OFFSET)] = 0,
) -> Documents:
    """The documents and the queued files, page by page, by path; `text` is part of the path, `type` a MIME type."""
    wanted = Wanted(folder=folder.strip("/"), text=text, file_type=type, state=state)
    total, found = listed(live.settings, wanted, source=source, limit=limit, offset=offset)
    rows = [document_json(each.source, each.file_type, each.document) for each in found]
    return Documents.model_validate({"total": total, "documents": rows})


@router.get("/problems", tags=["state"], response_model_exclude_unset=True)
def problems(live: Daemon) -> list[ProblemRow]:
    """What could not be indexed and why, as `ingestor problems --json` tells it."""
    return [ProblemRow.model_validate(problem_json(*found)) for found in faults_of(live.settings)]


@router.post("/retry", tags=["work"], responses=described(413, 415, 429))
async def retry(again: Again, live: Daemon) -> Queued:
    """Try documents with a problem again now: all of them, or those at or below `paths`."""
    with retries.place():
        queued = await run_in_threadpool(queue_again, live.settings, again.paths, as_told)
    return Queued(queued=[spelled(path) for path in queued])


@router.post("/search", tags=["work"], responses=described(409, 413, 415, 429, 502))
async def search(question: Question, live: Daemon) -> Hits:
    """The texts nearest to a question, as `ingestor query --json` tells them."""
    with searches.place():
        searcher = await live.opened_searchers().of(question.collection)
        hits = await searcher.search(
            question.text, limit=question.n, where=question.where, where_document=question.where_document
        )
    return Hits.model_validate({"hits": [hit_json(hit) for hit in hits]})
