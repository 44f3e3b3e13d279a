"""Parts: the adapters and the engine, as the settings name them."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.clock import SystemClock
from ingestor.adapters.decoding import decode
from ingestor.adapters.folder import Folder
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.local_embedder import LocalEmbedder
from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.adapters.rules import Rules
from ingestor.adapters.vectors import SqliteVectors
from ingestor.core.chunking import Cutter
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Recipe
from ingestor.core.profiles import LOCAL, PROVIDERS, profile_for, recipe_for
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.pipeline import Parts, Pipeline
from ingestor.engine.reading import Reader
from ingestor.ports import Embedder
from ingestor.settings import Settings

FOLDER_NOTE = "watched_folder"
LEDGER_FILE = "ledger.sqlite3"
VECTORS_FILE = "vectors.sqlite3"
MAX_BATCH_INPUTS = 128
"""Texts of one call unless the settings say more: parsing the answer to 2,048 stalls the process for seconds."""


def recipe_of(settings: Settings) -> Recipe:
    """What decides vectors, as the settings have it."""
    chosen = settings.embedding
    return recipe_for(profile_for(chosen.provider, chosen.model_name), chosen.dimensions or 0)


def embedder_of(settings: Settings) -> Embedder:
    """The embedding model that the settings name."""
    chosen = settings.embedding
    profile = profile_for(chosen.provider, chosen.model_name)
    recipe = recipe_of(settings)
    max_batch_inputs = chosen.max_batch_inputs or min(profile.max_batch_inputs, MAX_BATCH_INPUTS)
    if chosen.provider == LOCAL:
        return LocalEmbedder(recipe, max_batch_inputs=max_batch_inputs, threads=max(1, (os.cpu_count() or 1) - 1))
    provider = PROVIDERS[chosen.provider]
    if chosen.api_key is None and not chosen.base_url:
        raise ConfigError(
            f"the provider {chosen.provider} needs a key",
            remedy=f"set INGESTOR_EMBEDDING__API_KEY or {chosen.provider.upper()}_API_KEY",
        )
    return OpenAIEmbedder(
        recipe,
        base_url=chosen.base_url or provider.base_url,
        api_key=chosen.api_key.get_secret_value() if chosen.api_key else "",
        max_batch_inputs=max_batch_inputs,
        max_batch_tokens=profile.max_batch_tokens,
        max_concurrency=chosen.max_concurrency,
        timeout_seconds=chosen.timeout_seconds,
        # A model that is not in our table is asked for a dimension only where the user names one.
        sends_dimensions=profile.sends_dimensions or (not profile.is_known and chosen.dimensions is not None),
        key_setting="INGESTOR_EMBEDDING__API_KEY",
    )


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
    path = settings.data_dir / LEDGER_FILE
    if not path.is_file():
        yield None
        return
    with contextlib.closing(SqliteLedger(path)) as ledger:
        yield ledger


@asynccontextmanager
async def pipeline_of(
    settings: Settings, source: Folder, sink: ChromaSink, *, is_prepared: bool = True
) -> AsyncIterator[Pipeline]:
    """The engine; one that is not prepared may only look, and leave work to the process that holds the lock."""
    embedder = embedder_of(settings)
    with ExitStack() as stack:
        ledger = stack.enter_context(contextlib.closing(SqliteLedger(in_data_dir(settings, LEDGER_FILE))))
        vectors = stack.enter_context(contextlib.closing(SqliteVectors(in_data_dir(settings, VECTORS_FILE))))
        cutter = Cutter(settings.chunk.max_tokens, settings.chunk.overlap_tokens)
        parts = Parts(
            source=source,
            reader=Reader(source, lambda raw: decode(raw).text, cutter),
            ledger=ledger,
            vectors=vectors,
            embedder=embedder,
            sink=sink,
            clock=SystemClock(),
            estimate_tokens=estimate_tokens,
        )
        limit = DeletionLimit(settings.watch.max_delete_ratio, settings.watch.max_delete_documents)
        pipeline = Pipeline(parts, rescan_seconds=settings.watch.rescan_seconds, limit=limit)
        try:
            if is_prepared:
                await pipeline.prepare()
                await pipeline.set_note(FOLDER_NOTE, str(settings.watch_dir.absolute()))
            yield pipeline
        finally:
            await pipeline.close()


def in_data_dir(settings: Settings, name: str) -> Path:
    """A file of the data folder, which is made when it is missing."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings.data_dir / name


def path_below(root: Path, folder: Path) -> str:
    """Path of `folder` below `root`, or "" when it lies elsewhere."""
    relative = os.path.relpath(os.path.realpath(folder), os.path.realpath(root))
    return "" if relative == "." or relative.startswith("..") else relative
