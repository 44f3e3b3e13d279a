"""`prune`: what Chroma keeps of deleted records given back, with nobody else at work."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

from ingestor.adapters.chroma_cleaning import Cleaned, cleaned, index_elements, size_bytes
from ingestor.adapters.folder_lock import FolderLock
from ingestor.adapters.runtime import ThreadLane
from ingestor.app.collection import hold, indexed, open_collection, settings_for
from ingestor.app.compaction import copy_of, put_in_place, retire
from ingestor.app.parts import ledger_of
from ingestor.core.errors import ConfigError
from ingestor.engine.compaction import replaced
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.settings import Settings


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a collection takes."""

    bytes: int | None
    """Size of the folder of the database; None where the files are a server's."""
    tombstones: int | None
    """Deleted records that the index holds; None where nobody can tell."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was there before, and what is there now."""

    collection: str
    records: int
    before: Footprint
    after: Footprint
    cleaned: Cleaned | None
    """What was found in the files besides; None where they are a server's."""
    seconds: float


async def prune(settings: Settings, collection: str = "") -> Pruned:
    """Copy the collection into a fresh one, delete the old one, and clean the files where they are ours.

    A death at any moment is healed by the next `prune`, or by the next start of anything that writes. Raises
    `AlreadyRunning`, `ConfigError`, `ServiceUnavailable`.
    """
    began_seconds = time.monotonic()
    refuse_memory(settings)
    indexed(settings)
    neighbours = settings
    settings = settings_for(settings, collection)
    async with AsyncExitStack() as stack:
        hold(settings, "prune", stack)
        elements = index_elements(settings.chroma_path, settings.chroma.collection) if has_files(settings) else None
        held_bytes = await asyncio.to_thread(size_bytes, settings.chroma_path) if has_files(settings) else None
        records, counted = await renew(settings, neighbours)
        tombstones = max(0, elements - records) if elements is not None else counted
        found = await clean_files(settings)
        return Pruned(
            collection=settings.chroma.collection,
            records=records,
            before=Footprint(held_bytes, tombstones),
            after=Footprint(None if held_bytes is None else size_bytes(settings.chroma_path), 0),
            cleaned=found,
            seconds=round(time.monotonic() - began_seconds, 3),
        )


def refuse_memory(settings: Settings) -> None:
    """Raise `ConfigError` where nothing outlives the process."""
    if settings.chroma.mode == "memory":
        message = "INGESTOR_CHROMA__MODE is memory: no collection outlives the process that made it"
        raise ConfigError(message, remedy="there is nothing to do")


def has_files(settings: Settings) -> bool:
    """Whether the files of the database are ours."""
    return settings.chroma.mode in {"managed", "persistent"}


async def renew(settings: Settings, every: Settings, name: str = "", ledgers: Sequence[str] = ()) -> tuple[int, int]:
    """Put a fresh copy in the place of a collection; returns its records, and the tombstones that were counted.

    Without a name and the file names of its ledgers it is that of the settings; `every` are the settings of all
    sources, of which others may fill it, too. The caller holds the instance lock.
    """
    sharing = [each for each in every.each() if each.chroma.collection == settings.chroma.collection]
    told = ledgers if name else [each.ledger_file for each in sharing]
    with ExitStack() as stack:
        sink = await asyncio.to_thread(open_collection, sharing, None, stack)
        with ledger_of(settings) as known:
            noted = known.note(COLLECTION_NOTE) if known is not None else None
            counted = known.tombstones() if known is not None else 0
        if noted not in {None, sink.collection_id}:
            message = f"the collection {settings.chroma.collection!r} was replaced since it was last indexed"
            raise ConfigError(message, remedy="run `ingestor sync` first")
        copy = copy_of(settings, sink.client, name)
        with contextlib.closing(ThreadLane("chroma")) as lane:
            records = await replaced(copy, lane, lambda: put_in_place(settings, sink.client, copy, told, name))
            await lane.run(retire, settings, sink.client, name)
    for each in sharing if not name else ():
        with ledger_of(each) as known:
            if known is not None:
                known.set_tombstones(0)
    return records, counted


async def clean_files(settings: Settings) -> Cleaned | None:
    """Clean the files of the database where they are ours; the caller holds the instance lock."""
    if not has_files(settings):
        return None
    with FolderLock(settings.chroma_path) as lock:
        return await asyncio.to_thread(cleaned, lock.folder)
