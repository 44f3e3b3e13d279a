"""`rebuild`: the collection built anew for other settings while the old one serves, and taken back, and forgotten.

Invariant: the name that is served bears a whole collection at every moment, but for the instant between two renames;
the one that was replaced stays until it is pruned.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.adapters.notify import Notifier
from ingestor.app.beside import Beside, aside_name, kept, kept_ledger, next_ledger, next_name, unfinished
from ingestor.app.collection import SERVER_HOST, announce, hold, indexed, open_client, serve, settings_for
from ingestor.app.filling import Filled, Ground, fill, ground_of
from ingestor.app.parts import folder_of
from ingestor.app.switch import begin, resume
from ingestor.app.sync import SyncProgress, progress_of
from ingestor.core.errors import AlreadyRunning, ConfigError
from ingestor.core.model import Usage
from ingestor.core.switching import Switch
from ingestor.engine.daemon import ServiceNotifier
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild has done; `as_json` is what `ingestor rebuild --json` prints."""

    collection: str
    is_needed: bool
    is_switched: bool
    kept: str
    """The name of the collection that was replaced."""
    comparison: Mapping[str, Any]
    """What was compared; empty when it did not come to that."""
    usage: Usage
    outage: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Collection, whether it was needed and is switched, comparison, embedding, outage, seconds."""
        fields = asdict(self)
        fields["embedding"] = fields.pop("usage")
        return fields


def of_collection(settings: Settings, collection: str = "") -> Settings:
    """The settings of the source whose collection is rebuilt. Raises `ConfigError` where several share it."""
    found = settings_for(settings, collection)
    name = found.chroma.collection
    sharing = [each.source_name for each in settings.each() if each.chroma.collection == name]
    if len(sharing) > 1:
        raise ConfigError(
            f"the sources {', '.join(sharing)} share the collection {name!r}, and only that of one source is rebuilt",
            remedy="give the sources another collection: what the vector store has costs nothing",
        )
    if not sharing:
        raise ConfigError(f"no source fills the collection {name!r}", remedy="name one that a source fills")
    return found


async def rebuild(settings: Settings, tell: Callable[[SyncProgress], None], *, drops_foreign: bool = False) -> Rebuilt:
    """Fill a second collection, compare it, and put it in the place of the first one.

    Raises `AlreadyRunning` beside a daemon, `ConfigError`, and what a sync raises. The next one goes on from there.
    """
    began_seconds = time.monotonic()
    async with AsyncExitStack() as stack:
        source = folder_of(settings)
        instance = _hold(settings, stack)
        server = serve(settings, stack, is_anywhere=True)
        record = InstanceRecord(os.getpid(), "rebuild", "", 0.0, SERVER_HOST, server.port if server else 0)
        client = await asyncio.to_thread(open_client, settings, record if server else None, stack)
        announce(instance, settings, "rebuild", served=server is not None, port=server.port if server else 0)
        await asyncio.to_thread(resume, settings, client)
        ground = await asyncio.to_thread(ground_of, settings, source, client)
        name = settings.chroma.collection
        if ground is None:
            return Rebuilt(name, False, False, "", {}, Usage(), "", round(time.monotonic() - began_seconds, 3))  # noqa: FBT003 - fields of a value
        filled = await fill(
            ground,
            asyncio.Event(),
            Notifier(),
            supervise=server.ensure if server else None,
            tell=lambda pipeline: tell(progress_of([pipeline])),
            is_patient=False,
            drops_foreign=drops_foreign,
        )
        replaced = await asyncio.to_thread(_switched, ground, filled) if filled.is_sound else ""
        return Rebuilt(
            collection=name,
            is_needed=True,
            is_switched=bool(replaced),
            kept=replaced,
            comparison=asdict(filled.comparison) if filled.comparison else {},
            usage=filled.usage,
            outage=filled.outage,
            seconds=round(time.monotonic() - began_seconds, 3),
        )


async def rebuild_beside(
    settings: Settings, client: "ClientAPI", stop: asyncio.Event, notifier: ServiceNotifier, server: ChromaServer | None
) -> None:
    """Follow the folder with the serving collection while the next one is filled; ends after the switch, or on `stop`.

    Ends at once when the collection is as the settings have it.
    """
    await asyncio.to_thread(resume, settings, client)
    if await asyncio.to_thread(ChromaCatalog(client).find, settings.chroma.collection) is None:
        return
    ground = await asyncio.to_thread(ground_of, settings, folder_of(settings), client)
    if ground is None:
        return
    _log.info("rebuild.started", collection=settings.chroma.collection, beside=next_name(settings))
    filled = await fill(
        ground,
        stop,
        notifier,
        supervise=server.ensure if server else None,
        tell=lambda _: None,
        is_patient=True,
        drops_foreign=False,
    )
    if filled.is_sound:
        await asyncio.to_thread(_switched, ground, filled)


def _switched(ground: Ground, filled: Filled) -> str:
    """Put the next collection in the place of the serving one; returns the name that this one has now."""
    settings = ground.settings
    moment = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%d-%H%M%S")
    switch = Switch(
        name=settings.chroma.collection,
        serving_id=ground.row.id,
        aside_name=aside_name(settings, moment),
        next_id=filled.next_id,
        ledger=settings.ledger_file,
        next_ledger=next_ledger(settings),
        kept_ledger=kept_ledger(settings),
    )
    begin(settings, ground.client, switch)
    return switch.aside_name


async def rollback(settings: Settings) -> Beside:
    """Take the kept collection back with its ledger; returns it. What had replaced it becomes the unfinished rebuild.

    Raises `ConfigError` when none is kept, or another rebuild is unfinished.
    """
    async with AsyncExitStack() as stack:
        client = await asyncio.to_thread(_opened, settings, stack)
        found = _kept(settings)
        catalog = ChromaCatalog(client)
        rows = {row.id: row for row in catalog.rows()}
        serving = catalog.find(settings.chroma.collection)
        if found.collection_id not in rows or serving is None:
            raise ConfigError(
                f"the collection that was kept ({found.name}) is gone",
                remedy="`ingestor rebuild --prune` forgets it; rebuild with the old settings instead",
            )
        if unfinished(settings) is not None:
            raise ConfigError("another rebuild is unfinished", remedy="drop it first with `ingestor rebuild --abandon`")
        _delete_leftover(settings, catalog)
        begin(
            settings,
            client,
            Switch(
                name=settings.chroma.collection,
                serving_id=serving.id,
                aside_name=next_name(settings),
                next_id=found.collection_id,
                ledger=settings.ledger_file,
                next_ledger=kept_ledger(settings),
                kept_ledger=next_ledger(settings),
            ),
        )
        return found


async def prune(settings: Settings) -> Beside:
    """Delete the kept collection and its ledger, beside a running daemon, too. Raises `ConfigError` without one."""
    async with AsyncExitStack() as stack:
        running = indexed(settings)
        if running is None:
            client = await asyncio.to_thread(_opened, settings, stack)
        else:
            client = await asyncio.to_thread(open_client, settings, running, stack)
        found = _kept(settings)
        _delete(settings, client, found.collection_id, kept_ledger(settings))
        return found


async def abandon(settings: Settings) -> Beside:
    """Drop the unfinished rebuild: its collection and its ledger. Raises `ConfigError` when there is none."""
    async with AsyncExitStack() as stack:
        client = await asyncio.to_thread(_opened, settings, stack)
        found = unfinished(settings)
        if found is None:
            _delete_leftover(settings, ChromaCatalog(client))
            raise ConfigError("no rebuild is unfinished", remedy="`ingestor rebuild` begins one")
        _delete(settings, client, found.collection_id, next_ledger(settings))
        return found


def _hold(settings: Settings, stack: AsyncExitStack) -> Instance:
    try:
        return hold(settings, "rebuild", stack)
    except AlreadyRunning as error:
        remedy = "stop it first, or let the daemon itself do it: `ingestor run --rebuild`"
        raise AlreadyRunning(str(error), remedy=remedy) from error


def _opened(settings: Settings, stack: AsyncExitStack) -> "ClientAPI":
    """Reach Chroma as the one who may write, with every switch ended that was begun."""
    indexed(settings)
    _hold(settings, stack)
    client = open_client(settings, None, stack)
    resume(settings, client)
    return client


def _kept(settings: Settings) -> Beside:
    found = kept(settings)
    if found is None:
        raise ConfigError("no old collection is kept", remedy="`ingestor rebuild --status` tells what there is")
    return found


def _delete(settings: Settings, client: "ClientAPI", collection_id: str, ledger: str) -> None:
    # The ledger goes last: while it is there, the next attempt knows what is left to delete.
    catalog = ChromaCatalog(client)
    for row in catalog.rows():
        if row.id == collection_id and row.name != settings.chroma.collection:
            catalog.delete(row)
    LedgerFiles(settings.data_dir).drop(ledger)


def _delete_leftover(settings: Settings, catalog: ChromaCatalog) -> None:
    """Delete the empty collection of a rebuild that died before it had a ledger."""
    row = catalog.find(next_name(settings))
    if row is not None:
        catalog.delete_if_empty(row)
