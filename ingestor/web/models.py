"""Models: what the API answers and takes, which is what `/openapi.json` describes.

Invariant: answers are shaped by `app.shape`; a key that is new there reaches who asks, whether it is described or not.
"""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ingestor.core.listing import State
from ingestor.core.model import Stage

MAX_HITS: Final = 100
MAX_TEXT_CHARACTERS: Final = 8_000
MAX_FILTER_DEPTH: Final = 8
MAX_PATHS: Final = 1_000


class _Told(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Process(_Told):
    """The daemon itself."""

    pid: int
    command: str
    watch_dir: str
    started_seconds: float
    chroma_host: str
    chroma_port: int
    http_url: str


class Spent(_Told):
    """What embedding has cost."""

    requests: int
    texts: int
    tokens: int
    milliseconds: int
    lookups: int
    hits: int
    wasted_requests: int
    wasted_tokens: int


class Price(_Told):
    """The same in money."""

    amount: float | None
    currency: str
    tokens_today: int
    tokens_per_day: int | None


class Store(_Told):
    """Size of the vector store."""

    bytes: int
    max_bytes: int


class Rebuild(_Told):
    """Collections beside the serving one."""

    unfinished: dict[str, Any] | None
    kept: dict[str, Any] | None


class Wait(_Told):
    """Documents that wait for a service; times in seconds since the epoch."""

    service: str
    documents: int
    reason: str
    remedy: str
    since_seconds: float
    next_try_seconds: float


class Counts(_Told):
    """What is counted of a source, or of all."""

    data_dir: str
    chroma: str
    daemon: Process | None
    documents: int
    chunks: int
    queued: int
    in_flight: int
    problems: int
    held_deletions: int
    waits: list[Wait]
    """What documents wait for; those are no problems."""
    vectors: Store
    owner: str


class SourceStatus(Counts):
    """A source."""

    watch_dir: str
    collection: str
    tombstones: int
    embedding: Spent
    cost: Price
    held_examples: list[str]
    last_reconcile: dict[str, Any] | None
    watching: str
    is_behind: bool
    """Whether something is still looked at, or not known yet, so that nobody can say that the collection equals the
    folder."""
    outage: str
    undecided: str
    """What keeps new texts from being embedded until `ingestor approve`; empty when nothing does."""
    restless: list[str]
    """Files that change all the time, and are looked at once a minute at most."""
    next_call_seconds: float | None
    refused: str
    rebuild: Rebuild


class AllStatus(Counts):
    """Several sources: sums, and what there is to tell of each by its name."""

    sources: dict[str, SourceStatus]


class Trouble(_Told):
    """Why a document could not be indexed; times in seconds since the epoch."""

    stage: Stage
    kind: str
    reason: str
    remedy: str
    attempts: int
    since_seconds: float
    next_try_seconds: float | None


class ProblemRow(Trouble):
    """A fault, and the path of the document, relative to the watched folder."""

    path: str
    source: str = ""
    """Name of the source, where there are several."""


class DocumentRow(_Told):
    """A document; what is null is not known yet."""

    source: str
    path: str
    document_id: str | None
    chunks: int
    size_bytes: int | None
    modified_seconds: float | None
    file_type: str
    state: State
    problem: Trouble | None
    waits_for: str
    """The service that a queued one waits for; empty where it waits for its turn."""


class Documents(_Told):
    """A page of documents, and how many there are in all."""

    total: int
    documents: list[DocumentRow]


class Again(_Asked):
    """What to try again."""

    paths: Annotated[list[Annotated[str, Field(pattern=r"^[^\x00]+$")]], Field(max_length=MAX_PATHS)] = []
    """Files or folders, relative to the watched folder, as problems are told; empty: everything that has a problem."""


class Queued(_Told):
    """The paths that were queued."""

    queued: list[str]


def _shallow(value: dict[str, Any] | None) -> dict[str, Any] | None:
    level: list[object] = [value]
    for _ in range(MAX_FILTER_DEPTH):
        level = [part for each in level for part in _parts(each)]
        if not level:
            return value
    message = f"it is nested more than {MAX_FILTER_DEPTH} levels deep"
    raise ValueError(message)


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


Filter = Annotated[dict[str, Any] | None, AfterValidator(_shallow)]


class Question(_Asked):
    """A search."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
    n: Annotated[int, Field(ge=1, le=MAX_HITS)] = 5
    """How many hits."""
    where: Filter = None
    """Chroma filter on metadata."""
    where_document: Filter = None
    """Chroma filter on the text."""
    collection: str = ""
    """Which collection, where the sources fill several."""


class HitRow(_Told):
    """A record that was found; `score` is higher for better."""

    id: str
    score: float
    distance: float
    source: Any
    """Path of the file, relative to the watched folder."""
    start_line: Any
    end_line: Any
    heading: Any
    document: str
    metadata: dict[str, str | int | float | bool]


class Hits(_Told):
    """What was found, the best first."""

    hits: list[HitRow]
