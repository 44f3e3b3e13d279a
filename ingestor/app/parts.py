"""Parts: the adapters and the engine, as the settings name them."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import structlog

from ingestor.adapters import conversion
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.decoding import decode
from ingestor.adapters.folder import Folder
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.rules import Rules
from ingestor.adapters.runtime import SystemRuntime
from ingestor.adapters.vectors import SqliteVectors
from ingestor.app.embedder import allowance_of, embedder_of, endpoint_of
from ingestor.app.upgrade import upgrade_to_look
from ingestor.core.attaching import Ground
from ingestor.core.chunking import Cutter
from ingestor.core.errors import ConfigError, IngestorError, ServiceUnavailable
from ingestor.core.formats import Format
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import ChunkSize
from ingestor.core.owning import OWNER_KEY
from ingestor.core.profiles import PROVIDERS, profile_for
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.patience import PATIENCE_SECONDS
from ingestor.engine.pipeline import Parts, Pipeline
from ingestor.engine.reading import Reader
from ingestor.ports import Embedder, Source
from ingestor.settings import LEDGER_FILE, MAX_CHUNK_TOKENS, EmbeddingSettings, Settings

_log = structlog.get_logger(__name__)

FOLDER_NOTE = "watched_folder"
OWNER_NOTE = "owner_id"
"""In every ledger: the id of its data folder."""
VECTORS_FILE = "vectors.sqlite3"


def folder_of(settings: Settings, *, may_be_away: bool = False) -> Folder:
    """The watched folder that the settings name.

    Raises `ConfigError` when there is none; `ServiceUnavailable` when it has been indexed before, because then it may
    be a disk that is not mounted yet, and a service manager is to try again. One that `may_be_away` is returned even
    so: whoever scans it meets the same error, and other sources need not wait for it.
    """
    if not settings.watch_dir.is_dir():
        with ledger_of(settings) as ledger:
            is_known = ledger is not None and ledger.note(FOLDER_NOTE) == str(settings.watch_dir.absolute())
        message = f"the watched folder {settings.watch_dir} does not exist or is no folder"
        if is_known and not may_be_away:
            remedy = "see that its disk is mounted; nothing is deleted from the collection meanwhile"
            raise ServiceUnavailable(message, remedy=remedy)
        if not is_known:
            raise ConfigError(message, remedy="create it, or name another: `ingestor run FOLDER` or INGESTOR_WATCH_DIR")
    _refuse_own_folder(settings)
    converted = _converted(settings)
    return Folder(
        settings.watch_dir,
        Rules(settings.watch.include, settings.watch.exclude),
        follow_symlinks=settings.watch.follow_symlinks,
        max_file_bytes=settings.watch.max_file_bytes,
        left_out=[settings.data_dir, settings.chroma_path],
        ground=_ground_of(settings),
        unconverted=frozenset(each for each in Format if not each.is_text) - converted,
        converters=dict.fromkeys(converted, conversion.name()) if converted else {},
    )


def _refuse_own_folder(settings: Settings) -> None:
    """Raise `ConfigError` where the watched folder, by whatever name, holds nothing but what this program writes.

    Folders of ours *inside* the watched one are left out of it; a folder of texts inside the data folder is followed.
    """
    watched = settings.watch_dir
    if _is_same(watched, settings.data_dir):
        message = f"the watched folder {watched} is the data folder, where ingestor keeps its own files"
        raise ConfigError(message, remedy="set data_dir (INGESTOR_DATA_DIR) to another folder, or watch another one")
    real = watched.resolve()
    if any(_is_same(folder, settings.chroma_path) for folder in (real, *real.parents)):
        message = f"the watched folder {watched} lies in Chroma's folder {settings.chroma_path}"
        raise ConfigError(message, remedy="name another folder: `ingestor run FOLDER` or INGESTOR_WATCH_DIR")


def _is_same(folder: Path, other: Path) -> bool:
    return folder.exists() and other.exists() and folder.samefile(other)


def _ground_of(settings: Settings) -> Ground:
    profile = profile_for(settings.embedding.provider, settings.embedding.model_name)
    return Ground(
        settings.watch.metadata,
        ChunkSize(settings.chunk.max_tokens, settings.chunk.overlap_tokens),
        min(MAX_CHUNK_TOKENS, profile.max_text_tokens) if profile.is_known else MAX_CHUNK_TOKENS,
    )


@contextlib.contextmanager
def ledger_of(settings: Settings, *, may_upgrade: bool = True) -> Iterator[SqliteLedger | None]:
    """The ledger, to be looked at beside the process that works with it; None when there is none yet.

    One that an older version has left is upgraded. Raises `ConfigError` where it may not be, or where a process of that
    version is at work with it, and for a ledger of a newer version.
    """
    path = settings.data_dir / settings.ledger_file
    if not path.is_file():
        yield None
        return
    if may_upgrade:
        upgrade_to_look(settings.data_dir, path)
    with contextlib.closing(SqliteLedger(path)) as ledger:
        yield ledger


@contextlib.contextmanager
def account_book_of(settings: Settings) -> Iterator[SqliteLedger | None]:
    """The ledger that keeps what a command of its own spends; None where there is none, or none that can be used.

    That of the first source: sources with the same model have one account.
    """
    with contextlib.ExitStack() as stack:
        ledger = None
        try:
            ledger = stack.enter_context(ledger_of(settings.each()[0]))
        except IngestorError as error:
            # What was asked for does not need it.
            _log.warning("usage.not_kept", reason=str(error), remedy=error.remedy)
        yield ledger


def cutter_of(settings: Settings) -> Cutter:
    """How the settings have texts cut."""
    return Cutter(settings.chunk.max_tokens, settings.chunk.overlap_tokens)


def reader_of(settings: Settings, source: Source) -> Reader:
    """What reads, decodes, converts and cuts the documents of a source; the caller closes it."""
    return Reader(
        source, lambda raw: decode(raw).text, cutter_of(settings), _sized, conversion=_conversion_of(settings)
    )


@lru_cache(maxsize=64)
def _sized(size: ChunkSize) -> Cutter:
    return Cutter(size.max_tokens, size.overlap_tokens)


def _converted(settings: Settings) -> frozenset[Format]:
    """The formats that are converted: those of the settings, where the library is installed."""
    return frozenset((settings.convert.formats or Format) if conversion.is_installed() else ())


def _conversion_of(settings: Settings) -> conversion.Converter | None:
    formats = _converted(settings)
    if not formats:
        return None
    return conversion.Converter(
        formats,
        timeout_seconds=settings.convert.timeout_seconds,
        max_memory_bytes=settings.convert.max_memory_bytes,
        max_text_bytes=settings.convert.max_text_bytes,
        # One is for live changes.
        max_children=max(1, len(os.sched_getaffinity(0)) - 1) + 1,
    )


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
    counts_with_first: bool = False
    """Whether the ledger of the first source counts what is spent: its own one is in force after a switch only."""


@asynccontextmanager
async def pipelines_of(
    sources: Sequence[Sourced], *, is_prepared: bool = True, patience_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[list[Pipeline]]:
    """The engine of each source, in their order; they share the vector store, and a model where it is the same.

    While the disk of ledger or vector store is full or fails they wait for so long. Raises `ServiceUnavailable` then.
    """
    embedders: dict[EmbeddingSettings, Embedder] = {}
    pipelines: list[Pipeline] = []
    async with AsyncExitStack() as stack:
        vectors = stack.enter_context(contextlib.closing(vectors_of(sources[0].settings)))
        for each in sources:
            settings = each.settings
            if each.embedder is None and settings.embedding not in embedders:
                embedders[settings.embedding] = embedder_of(settings.embedding)
            ledger = stack.enter_context(contextlib.closing(SqliteLedger(in_data_dir(settings, settings.ledger_file))))
            reader = stack.enter_context(contextlib.closing(reader_of(settings, each.folder)))
            parts = Parts(
                source=each.folder,
                reader=reader,
                ledger=ledger,
                vectors=vectors,
                embedder=each.embedder or embedders[settings.embedding],
                sink=each.sink,
                runtime=SystemRuntime(),
                estimate_tokens=estimate_tokens,
                name=settings.source_name,
                endpoint=endpoint_of(settings.embedding),
                is_sampled=not PROVIDERS[settings.embedding.provider].is_in_process,
            )
            pipeline = Pipeline(
                parts,
                rescan_seconds=settings.watch.rescan_seconds,
                limit=limit_of(settings),
                allowance=allowance_of(settings.embedding),
                beside=pipelines,
                counts_with=pipelines[0] if each.counts_with_first else None,
                patience_seconds=patience_seconds,
            )
            stack.push_async_callback(pipeline.close)
            pipelines.append(pipeline)
        _introduce(sources, pipelines)
        if is_prepared:
            for each, pipeline in zip(sources, pipelines, strict=True):
                await pipeline.prepare()
                await pipeline.set_note(FOLDER_NOTE, str(each.settings.watch_dir.absolute()))
                await pipeline.set_note(OWNER_NOTE, str(each.sink.metadata.get(OWNER_KEY, "")))
        yield pipelines


def folders_of(settings: Settings, sources: Sequence[Settings] = ()) -> list[Folder]:
    """The folders of some of the sources, or of all. Where there are several, none waits for the disk of another.

    Raises as `folder_of`.
    """
    return [folder_of(each, may_be_away=len(settings.sources) > 1) for each in sources or settings.each()]


def sourced(settings: Settings, sinks: Mapping[str, ChromaSink]) -> list[Sourced]:
    """Every source with its folder and its collection."""
    sources = settings.each()
    take_over_ledger(sources)
    return [
        Sourced(each, folder, sinks[each.chroma.collection])
        for each, folder in zip(sources, folders_of(settings), strict=True)
    ]


def take_over_ledger(sources: Sequence[Settings]) -> None:
    """Let a folder that was the only one, and is one of several sources now, keep its ledger."""
    for each in sources:
        if each.source_name:
            _take_over_ledger(each)


def _take_over_ledger(settings: Settings) -> None:
    """Rename the ledger of before, if it is this source's.

    Where another process looks into the ledger just now it is left: it is rebuilt from the collection then.
    """
    plain, own = (settings.data_dir / name for name in (LEDGER_FILE, settings.ledger_file))
    if own.exists() or not plain.exists():
        return
    with contextlib.closing(SqliteLedger(plain)) as ledger:
        is_its = ledger.note(FOLDER_NOTE) == str(settings.watch_dir.absolute())
    if is_its and not plain.with_name(f"{plain.name}-wal").exists():
        plain.rename(own)
        _log.info("ledger.taken_over", source=settings.source_name, folder=str(settings.watch_dir))


def _introduce(sources: Sequence[Sourced], pipelines: Sequence[Pipeline]) -> None:
    """Let the pipelines of sources that share a collection know of each other."""
    collections = [each.settings.chroma.collection for each in sources]
    for place, pipeline in enumerate(pipelines):
        sharing = [other for other, name in enumerate(collections) if name == collections[place]]
        neighbours = [pipelines[other] for other in sharing if other != place]
        pipeline.share_collection(neighbours, is_first=sharing[0] == place)


def in_data_dir(settings: Settings, name: str) -> Path:
    """A file of the data folder, which is made when it is missing."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings.data_dir / name


def path_below(root: Path, folder: Path) -> str:
    """Path of `folder` below `root`, or "" when it lies elsewhere."""
    relative = os.path.relpath(os.path.realpath(folder), os.path.realpath(root))
    return "" if relative == "." or relative.startswith("..") else relative
