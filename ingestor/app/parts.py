"""Parts: the adapters and the engine, as the settings name them."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.clock import SystemClock
from ingestor.adapters.decoding import decode
from ingestor.adapters.folder import Folder
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.rules import Rules
from ingestor.adapters.vectors import SqliteVectors
from ingestor.app.embedder import allowance_of, embedder_of
from ingestor.core.chunking import Cutter
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.guarding import DeletionLimit
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.pipeline import Parts, Pipeline
from ingestor.engine.reading import Reader
from ingestor.ports import Embedder, Source
from ingestor.settings import EmbeddingSettings, Settings

FOLDER_NOTE = "watched_folder"
VECTORS_FILE = "vectors.sqlite3"


def folder_of(settings: Settings) -> Folder:
    """The watched folder that the settings name.

    Raises `ConfigError` when there is none; `ServiceUnavailable` when it has been indexed before, because then it may
    be a disk that is not mounted yet, and a service manager is to try again.
    """
    if not settings.watch_dir.is_dir():
        with ledger_of(settings) as ledger:
            is_known = ledger is not None and ledger.note(FOLDER_NOTE) == str(settings.watch_dir.absolute())
        message = f"the watched folder {settings.watch_dir} does not exist or is no folder"
        if is_known:
            remedy = "see that its disk is mounted; nothing is deleted from the collection meanwhile"
            raise ServiceUnavailable(message, remedy=remedy)
        raise ConfigError(message, remedy="create it, or name another: `ingestor run FOLDER` or INGESTOR_WATCH_DIR")
    return Folder(
        settings.watch_dir,
        Rules(settings.watch.include, settings.watch.exclude),
        follow_symlinks=settings.watch.follow_symlinks,
        max_file_bytes=settings.watch.max_file_bytes,
        left_out=[settings.data_dir, settings.chroma_path],
    )


@contextlib.contextmanager
def ledger_of(settings: Settings) -> Iterator[SqliteLedger | None]:
    """The ledger, to be looked at beside the process that works with it; None when there is none yet."""
    path = settings.data_dir / settings.ledger_file
    if not path.is_file():
        yield None
        return
    with contextlib.closing(SqliteLedger(path)) as ledger:
        yield ledger


def cutter_of(settings: Settings) -> Cutter:
    """How the settings have texts cut."""
    return Cutter(settings.chunk.max_tokens, settings.chunk.overlap_tokens)


def reader_of(settings: Settings, source: Source) -> Reader:
    """What reads, decodes and cuts the documents of a source."""
    return Reader(source, lambda raw: decode(raw).text, cutter_of(settings))


def limit_of(settings: Settings) -> DeletionLimit:
    """How many deletions may happen without anybody's leave."""
    return DeletionLimit(settings.watch.max_delete_ratio, settings.watch.max_delete_documents)


def vectors_of(settings: Settings) -> SqliteVectors:
    """The vector store, which is made when it is missing; the caller closes it."""
    return SqliteVectors(in_data_dir(settings, VECTORS_FILE), settings.vectors.max_bytes)


@dataclass(frozen=True, slots=True)
class Sourced:
    """A source: its settings, its folder and its collection."""

    settings: Settings
    folder: Folder
    sink: ChromaSink
    embedder: Embedder | None = None
    """What gives vectors; None: the model of the settings."""


@asynccontextmanager
async def pipeline_of(
    settings: Settings, source: Folder, sink: ChromaSink, *, is_prepared: bool = True
) -> AsyncIterator[Pipeline]:
    """The engine; one that is not prepared may only look, and leave work to the process that holds the lock."""
    async with pipelines_of([Sourced(settings, source, sink)], is_prepared=is_prepared) as (pipeline,):
        yield pipeline


@asynccontextmanager
async def pipelines_of(sources: Sequence[Sourced], *, is_prepared: bool = True) -> AsyncIterator[list[Pipeline]]:
    """The engine of each source, in their order; they share the vector store, and a model where it is the same."""
    embedders: dict[EmbeddingSettings, Embedder] = {}
    pipelines: list[Pipeline] = []
    async with AsyncExitStack() as stack:
        vectors = stack.enter_context(contextlib.closing(vectors_of(sources[0].settings)))
        for each in sources:
            settings = each.settings
            if each.embedder is None and settings.embedding not in embedders:
                embedders[settings.embedding] = embedder_of(settings.embedding)
            ledger = stack.enter_context(contextlib.closing(SqliteLedger(in_data_dir(settings, settings.ledger_file))))
            parts = Parts(
                source=each.folder,
                reader=reader_of(settings, each.folder),
                ledger=ledger,
                vectors=vectors,
                embedder=each.embedder or embedders[settings.embedding],
                sink=each.sink,
                clock=SystemClock(),
                estimate_tokens=estimate_tokens,
                name=settings.source_name,
            )
            pipeline = Pipeline(
                parts,
                rescan_seconds=settings.watch.rescan_seconds,
                limit=limit_of(settings),
                allowance=allowance_of(settings.embedding),
                beside=pipelines,
            )
            stack.push_async_callback(pipeline.close)
            pipelines.append(pipeline)
        if is_prepared:
            for each, pipeline in zip(sources, pipelines, strict=True):
                await pipeline.prepare()
                await pipeline.set_note(FOLDER_NOTE, str(each.settings.watch_dir.absolute()))
        yield pipelines


def in_data_dir(settings: Settings, name: str) -> Path:
    """A file of the data folder, which is made when it is missing."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings.data_dir / name


def path_below(root: Path, folder: Path) -> str:
    """Path of `folder` below `root`, or "" when it lies elsewhere."""
    relative = os.path.relpath(os.path.realpath(folder), os.path.realpath(root))
    return "" if relative == "." or relative.startswith("..") else relative
