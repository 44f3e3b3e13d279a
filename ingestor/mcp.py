"""MCP: the collection as tools of a language model (Model Context Protocol).

Invariant: the tools read and never write; whatever they are asked, no file of the watched folder is opened: texts are
those of the collection. A question is put to what is there when it is asked, whether a daemon runs, has just started,
or was stopped since the last one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

import structlog
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from ingestor.app import query as questions
from ingestor.app import records
from ingestor.app import status as states
from ingestor.core.errors import IngestorError
from ingestor.core.records import Selection
from ingestor.settings import Settings
from ingestor.web.connection import Connection, hush
from ingestor.web.guard import Guard
from ingestor.web.listening import listen, url_of
from ingestor.web.models import MAX_TEXT_CHARACTERS
from ingestor.web.ticket import Tickets

PATH = "/mcp"
"""Of the URL that models are given."""
MAX_HITS = 50
MAX_CHUNKS = 100
"""Of one answer, which has to fit into a model's context."""
MAX_PROBLEMS = 50
_INSTRUCTIONS = (
    "Documents of a folder, kept up to date, to be searched by meaning in any language. Search first; read what stands"
    " around a passage with get_document. Cite path and lines."
)
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)

Collection = Annotated[str, Field(description="Its name, where several folders fill several; empty: the only one.")]
Filter = Annotated[
    dict[str, Any] | None,
    Field(description='Filter by metadata in Chroma\'s language, such as {"file_name": "notes.md"}.'),
]
TextFilter = Annotated[
    dict[str, Any] | None,
    Field(description='Filter by text in Chroma\'s language, such as {"$contains": "invoice"}.'),
]


class Place(BaseModel):
    """Where a piece of text stands in its document; lines and pages count from 1."""

    chunk: int | None = Field(default=None, description="Which piece of the document it is, for get_document.")
    start_line: int | None = None
    end_line: int | None = None
    page: int | None = None
    heading: str = ""


class Passage(Place):
    """A piece of a document that a search has found."""

    path: str
    document_id: str = Field(default="", description="For get_document, where several folders have this path.")
    title: str = ""
    score: float = Field(description="Tells the order; what it means by itself depends on the model.")
    text: str


class Passages(BaseModel):
    """What a search has found, the best one first. An object, so that nothing found is said, too."""

    result: list[Passage]


class Piece(Place):
    """A piece of a document, in its order."""

    text: str


class Document(BaseModel):
    """A document, or some consecutive pieces of it."""

    path: str
    title: str = ""
    last_modified: str = ""
    pieces: list[Piece]
    next_chunk: int | None = Field(default=None, description="Ask from there for more; none: this was the end.")


class Wait(BaseModel):
    """Changes that wait for one service that is away."""

    service: str
    documents: int
    reason: str


class Folder(BaseModel):
    """How far one watched folder is."""

    folder: str
    collection: str
    documents: int
    chunks: int
    waiting: int = Field(description="Changes that are not in the collection yet.")
    is_followed: bool = Field(description="Whether a daemon follows the folder; if not, it may have changed since.")
    outage: str = Field(description="What an outside service said when work last had to wait for it.")
    waits: list[Wait] = Field(description="The services that changes wait for; they go on by themselves.")


class Trouble(BaseModel):
    """A document that could not be indexed."""

    path: str
    reason: str
    remedy: str


class State(BaseModel):
    """How far the collections are."""

    folders: list[Folder]
    problems: int
    first_problems: list[Trouble]


class Tools:
    """What a model may do with the collections that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Without a daemon each question opens the database in this process, which must not happen twice at once.
        self._turn = asyncio.Lock()
        self._answering: set[asyncio.Task[Any]] = set()

    async def search(
        self,
        text: Annotated[
            str,
            Field(
                description="A question, or a description of what is looked for.",
                min_length=1,
                max_length=MAX_TEXT_CHARACTERS,
            ),
        ],
        n: Annotated[int, Field(description="How many passages.", ge=1, le=MAX_HITS)] = 5,
        where: Filter = None,
        where_document: TextFilter = None,
        collection: Collection = "",
    ) -> Passages:
        """Find the passages that answer a question best, the best one first."""
        hits = await self._in_turn(
            lambda: questions.query(
                self._settings,
                text,
                limit=n,
                where=where or None,  # models fill in what they may leave out
                where_document=where_document or None,
                collection=collection or None,
            )
        )
        return Passages(
            result=[
                Passage(
                    path=_text(hit.metadata, "source") or hit.id,
                    document_id=_text(hit.metadata, "document_id"),
                    title=_text(hit.metadata, "title"),
                    score=round(hit.score, 4),
                    text=hit.document,
                    **_place(hit.metadata),
                )
                for hit in hits
            ]
        )

    async def get_document(
        self,
        path: Annotated[str, Field(description="As a search gives it.", min_length=1)],
        first_chunk: Annotated[int, Field(description="Where to begin.", ge=0)] = 0,
        max_chunks: Annotated[int, Field(description="How many pieces at most.", ge=1, le=MAX_CHUNKS)] = 20,
        collection: Collection = "",
        document_id: Annotated[
            str, Field(description="As a search gives it; only where several folders have this path.")
        ] = "",
    ) -> Document:
        """Read a document of the collection, or some consecutive pieces of it, as it was indexed."""
        last_chunk = first_chunk + max_chunks
        wanted: list[dict[str, Any]] = [
            {"source": path},
            {"chunk": {"$gte": first_chunk}},
            {"chunk": {"$lte": last_chunk}},
            *([{"document_id": document_id}] if document_id else []),
        ]
        chosen = Selection(where={"$and": wanted})
        page = await self._in_turn(
            lambda: asyncio.to_thread(records.get, self._settings, collection or None, chosen, limit=MAX_CHUNKS + 1)
        )
        found = sorted(
            ((record.metadata or {}, record.document or "") for record in page.records),
            key=lambda each: each[0]["chunk"],
        )
        if not found:
            message = f"no document at {path!r} is in the collection, or it ends before chunk {first_chunk}"
            raise ToolError(f"{message} - take the path from a search")
        documents = sorted({_text(metadata, "document_id") for metadata, _ in found})
        if len(documents) > 1:
            message = f"several documents have the path {path!r}: {', '.join(documents)}"
            raise ToolError(f"{message} - name one of them by document_id, as a search gives it")
        has_more = found[-1][0]["chunk"] == last_chunk
        first = found[0][0]
        return Document(
            path=path,
            title=_text(first, "title"),
            last_modified=_text(first, "last_modified"),
            pieces=[Piece(text=text, **_place(metadata)) for metadata, text in found[: len(found) - has_more]],
            next_chunk=last_chunk if has_more else None,
        )

    async def status(self) -> State:
        """Tell how many documents are searchable, what is still waiting, and what could not be indexed and why."""
        found = await self._in_turn(lambda: asyncio.to_thread(states.status, self._settings))
        problems = await self._in_turn(lambda: asyncio.to_thread(states.problems, self._settings))
        return State(
            folders=[
                Folder(
                    folder=each.watch_dir,
                    collection=each.collection,
                    documents=each.totals.documents if each.totals else 0,
                    chunks=each.totals.chunks if each.totals else 0,
                    waiting=each.totals.queued + each.totals.in_flight if each.totals else 0,
                    is_followed=each.daemon is not None,
                    outage=each.outage,
                    waits=[
                        Wait(service=wait.service, documents=wait.documents, reason=wait.reason)
                        for wait in (each.totals.waits if each.totals else ())
                    ],
                )
                for each in found
            ],
            problems=len(problems),
            first_problems=[
                Trouble(path=path, reason=problem.reason, remedy=problem.remedy)
                for _, path, problem in problems[:MAX_PROBLEMS]
            ],
        )

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """One after another; what was raised on purpose is told to the model, which can do something about it.

        A question that is given up in its turn is answered to its end all the same, for nobody: a thread that is about
        to open the database cannot be stopped, and what it opens has to be closed before the next turn.
        """
        await self._turn.acquire()
        answering = asyncio.create_task(self._answer(work))
        self._answering.add(answering)
        answering.add_done_callback(self._forget)
        return await asyncio.shield(answering)

    async def _answer(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        try:
            return await work()
        except IngestorError as error:
            raise ToolError(error.sentence) from error
        finally:
            self._turn.release()

    def _forget(self, answered: asyncio.Task[Any]) -> None:
        self._answering.discard(answered)
        if not answered.cancelled():
            answered.exception()  # who has asked was told, or is gone


async def serve_http(settings: Settings, port: int) -> None:
    """Serve the tools over streamable HTTP at `http.host`, until a signal ends it; guarded as the daemon's API is.

    Raises `ConfigError` for a port that is taken, and for a host that others can reach while there is no token.
    """
    http = settings.http.model_copy(update={"port": port})
    server = server_of(settings)
    # Nothing needs sessions and streams, and the guard lets no request through that would end them.
    application = server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # by the guard, see there
    )
    sockets = listen(http, "choose another one by --port")
    _log.info("mcp.listening", url=f"{url_of(http, sockets)}{PATH}")
    guard = Guard(application, http, Tickets(http.token) if http.token is not None else None)
    hush()
    config = uvicorn.Config(guard, http=Connection, ws="none", lifespan="off", log_config=None, server_header=False)
    async with server.session_manager.run():
        await uvicorn.Server(config).serve(sockets)


def server_of(settings: Settings) -> MCPServer[None]:
    """The server of the tools; the caller runs it on a transport."""
    tools = Tools(settings)
    server: MCPServer[None] = MCPServer(
        "ingestor", instructions=_INSTRUCTIONS, version=version("ingestor"), log_level="WARNING"
    )
    for tool in (tools.search, tools.get_document, tools.status):
        server.add_tool(tool, annotations=_READS)
    return server


def _place(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metadata[name] for name in Place.model_fields if name in metadata}


def _text(metadata: Mapping[str, Any], name: str) -> str:
    return str(metadata.get(name, ""))
