"""`rebuild`: the collection built anew for other settings while the old one serves, and taken back, and forgotten.

Invariant: the name that is served bears a whole collection at every moment, but for the instant between two renames;
the one that was replaced stays until it is pruned.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
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
from ingestor.app.beside import (
    Beside,
    aside_name,
    kept,
    kept_ledger,
    next_ledger,
    next_name,
    together,
    unfinished,
)
from ingestor.app.collection import (
    SERVER_HOST,
    announce,
    configured,
    hold,
    indexed,
    open_client,
    serve,
    settings_for,
    sink_of,
)
from ingestor.app.filling import Filled, Ground, fill, ground_of
from ingestor.app.owning import make_own
from ingestor.app.parts import folder_of, folders_of, take_over_ledger
from ingestor.app.switch import begin, resume
from ingestor.app.sync import SyncProgress, progress_of
from ingestor.core.errors import AlreadyRunning, CollectionLost, ConfigError
from ingestor.core.model import Usage
from ingestor.core.switching import Swap, Switch
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


def of_collection(settings: Settings, collection: str = "") -> list[Settings]:
    """The settings of every source that fills a collection, or the only one that there is.

    Raises `ConfigError` when none does, or when it has to be named.
    """
    name = settings_for(settings, collection).chroma.collection
    found = [each for each in settings.each() if each.chroma.collection == name]
    if not found:
        raise ConfigError(f"no source fills the collection {name!r}", remedy="name one that a source fills")
    return found


async def rebuild(
    settings: Settings,
    tell: Callable[[SyncProgress], None],
    *,
    collection: str = "",
    drops_foreign: bool = False,
    takes_over: bool = False,
) -> Rebuilt:
    """Fill a second collection, compare it, and put it in the place of the first one.

    One that `takes_over` claims the first one whosever it is.

    Raises `AlreadyRunning` beside a daemon, `ConfigError`, and what a sync raises. The next one goes on from there.
    """
    began_seconds = time.monotonic()
    sources = of_collection(settings, collection)
    async with AsyncExitStack() as stack:
        folders = [folder_of(each) for each in sources]
        instance = _hold(settings, stack)
        server = serve(settings, stack, is_anywhere=True)
        record = InstanceRecord(os.getpid(), "rebuild", "", 0.0, SERVER_HOST, server.port if server else 0)
        client = await asyncio.to_thread(open_client, settings, record if server else None, stack)
        announce(instance, settings, "rebuild", served=server is not None, port=server.port if server else 0)
        await asyncio.to_thread(_begin, settings, client, [sources], takes_over=takes_over)
        ground = await asyncio.to_thread(ground_of, sources, folders, client)
        name = sources[0].chroma.collection
        if ground is None:
            return Rebuilt(name, False, False, "", {}, Usage(), "", round(time.monotonic() - began_seconds, 3))  # noqa: FBT003 - fields of a value
        filled = await fill(
            ground,
            asyncio.Event(),
            Notifier(),
            supervise=server.ensure if server else None,
            tell=lambda pipelines: tell(progress_of(pipelines, sources)),
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


async def rebuild_beside(  # noqa: PLR0913 - what it works on, and how it tells and ends
    settings: Settings,
    client: "ClientAPI",
    stop: asyncio.Event,
    notifier: ServiceNotifier,
    server: ChromaServer | None,
    *,
    takes_over: bool = False,
) -> None:
    """Rebuild each collection that is not as the settings have it, one after the other, while all sources are followed.

    Each is followed as it serves meanwhile; ends after the last switch, or on `stop`.
    """
    names = configured(settings)
    every = [of_collection(settings, name) for name in names]
    await asyncio.to_thread(_begin, settings, client, every, takes_over=takes_over)
    # What stands in the way of any of them is told before the first one is begun.
    waiting = [name for name in names if await asyncio.to_thread(_to_rebuild, settings, client, name) is not None]
    for name in waiting:
        ground = await asyncio.to_thread(_to_rebuild, settings, client, name)
        if ground is None or stop.is_set():
            continue
        beside = [await asyncio.to_thread(_ground, settings, client, other) for other in names if other != name]
        _log.info("rebuild.started", collection=name, beside=next_name(ground.settings))
        filled = await fill(
            ground,
            stop,
            notifier,
            supervise=server.ensure if server else None,
            tell=lambda _: None,
            is_patient=True,
            drops_foreign=False,
            beside=beside,
        )
        if filled.is_sound:
            await asyncio.to_thread(_switched, ground, filled)


def _begin(settings: Settings, client: "ClientAPI", every: Sequence[Sequence[Settings]], *, takes_over: bool) -> None:
    """Let ledgers and collections be those that the settings speak of; `every` has the sources of each collection.

    Raises `ForeignCollection` for a collection that is another data folder's.
    """
    resume(settings, client)
    take_over_ledger(settings.each())
    for sources in every:
        make_own(sources, client, takes_over=takes_over)


def _to_rebuild(settings: Settings, client: "ClientAPI", name: str) -> Ground | None:
    """What there is to rebuild of a collection; None when it is as the settings have it, or is not there yet."""
    if ChromaCatalog(client).find(name) is None:
        return None
    sources = of_collection(settings, name)
    return ground_of(sources, folders_of(settings, sources), client)


def _ground(settings: Settings, client: "ClientAPI", name: str) -> Ground:
    """A collection as it is served; one that is not there yet is made."""
    sources = of_collection(settings, name)
    catalog = ChromaCatalog(client)
    row = catalog.find(name)
    if row is None:
        sink_of(sources[0], client)
        row = catalog.find(name)
    if row is None:
        raise CollectionLost(f"the collection {name!r} was deleted as soon as it was made", remedy="start again")
    return Ground(sources, folders_of(settings, sources), client, row)


def _switched(ground: Ground, filled: Filled) -> str:
    """Put the next collection in the place of the serving one; returns the name that this one has now."""
    settings = ground.settings
    moment = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%d-%H%M%S")
    switch = Switch(
        name=settings.chroma.collection,
        serving_id=ground.row.id,
        aside_name=aside_name(settings, moment),
        next_id=filled.next_id,
        swaps=tuple(Swap(each.ledger_file, next_ledger(each), kept_ledger(each)) for each in ground.sources),
    )
    begin(settings, ground.client, switch)
    return switch.aside_name


def beside_of(settings: Settings, collection: str = "") -> tuple[Beside | None, Beside | None]:
    """What of a collection is unfinished, and what is kept. Raises `ConfigError`."""
    sources = of_collection(settings, collection)
    return together(map(unfinished, sources)), together(map(kept, sources))


async def rollback(settings: Settings, collection: str = "") -> Beside:
    """Take the kept collection back with its ledgers; returns it. What had replaced it becomes the unfinished rebuild.

    Raises `ConfigError` when none is kept, or another rebuild is unfinished.
    """
    sources = of_collection(settings, collection)
    async with AsyncExitStack() as stack:
        client = await asyncio.to_thread(_opened, settings, stack)
        await asyncio.to_thread(make_own, sources, client)
        found = _kept(sources)
        if len({each.collection_id for each in map(kept, sources) if each is not None}) > 1:
            raise ConfigError(
                f"the sources have several collections that were kept: {found.name}",
                remedy="rebuild with the old settings instead; `ingestor rebuild --prune` deletes what was kept",
            )
        catalog = ChromaCatalog(client)
        rows = {row.id: row for row in catalog.rows()}
        serving = catalog.find(sources[0].chroma.collection)
        if found.collection_id not in rows or serving is None:
            raise ConfigError(
                f"the collection that was kept ({found.name}) is gone",
                remedy="`ingestor rebuild --prune` forgets it; rebuild with the old settings instead",
            )
        if any(unfinished(each) is not None for each in sources):
            raise ConfigError("another rebuild is unfinished", remedy="drop it first with `ingestor rebuild --abandon`")
        _delete_leftover(sources[0], catalog)
        begin(
            settings,
            client,
            Switch(
                name=sources[0].chroma.collection,
                serving_id=serving.id,
                aside_name=next_name(sources[0]),
                next_id=found.collection_id,
                swaps=tuple(Swap(each.ledger_file, kept_ledger(each), next_ledger(each)) for each in sources),
            ),
        )
        return found


async def prune(settings: Settings, collection: str = "") -> Beside:
    """Delete the kept collection and its ledgers, beside a running daemon, too. Raises `ConfigError` without one."""
    sources = of_collection(settings, collection)
    async with AsyncExitStack() as stack:
        running = indexed(settings)
        if running is None:
            client = await asyncio.to_thread(_opened, settings, stack)
        else:
            client = await asyncio.to_thread(open_client, settings, running, stack)
        found = _kept(sources)
        _delete(sources, client, {kept_ledger(each): kept(each) for each in sources})
        return found


async def abandon(settings: Settings, collection: str = "") -> Beside:
    """Drop the unfinished rebuild: its collection and its ledgers. Raises `ConfigError` when there is none."""
    sources = of_collection(settings, collection)
    async with AsyncExitStack() as stack:
        client = await asyncio.to_thread(_opened, settings, stack)
        found = together(map(unfinished, sources))
        if found is None:
            _delete_leftover(sources[0], ChromaCatalog(client))
            raise ConfigError("no rebuild is unfinished", remedy="`ingestor rebuild` begins one")
        _delete(sources, client, {next_ledger(each): unfinished(each) for each in sources})
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


def _kept(sources: Sequence[Settings]) -> Beside:
    found = together(map(kept, sources))
    if found is None:
        raise ConfigError("no old collection is kept", remedy="`ingestor rebuild --status` tells what there is")
    return found


def _delete(sources: Sequence[Settings], client: "ClientAPI", told: Mapping[str, Beside | None]) -> None:
    """Delete collections beside the one of these sources, and what has told of them: ledgers, by their file names."""
    # The ledgers go last: while one is there, the next attempt knows what is left to delete.
    gone = {each.collection_id for each in told.values() if each is not None}
    catalog = ChromaCatalog(client)
    for row in catalog.rows():
        if row.id in gone and row.name != sources[0].chroma.collection:
            catalog.delete(row)
    for ledger in told:
        LedgerFiles(sources[0].data_dir).drop(ledger)


def _delete_leftover(settings: Settings, catalog: ChromaCatalog) -> None:
    """Delete the empty collection of a rebuild that died before it had a ledger."""
    row = catalog.find(next_name(settings))
    if row is not None:
        catalog.delete_if_empty(row)
