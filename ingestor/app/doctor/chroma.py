"""Check: Chroma answers, and the collections fit the settings.

Where Chroma is ours and no server runs, its database is read beside everybody: to open it by Chroma would lock and
change it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.chroma_files import Stored, stored_collection
from ingestor.adapters.chroma_server import listener_of, try_port
from ingestor.adapters.chroma_sink import RECIPE_KEY, refuse_other_recipe
from ingestor.adapters.folder_lock import occupants
from ingestor.adapters.instance import InstanceRecord
from ingestor.app.collection import SERVER_HOST, configured, endpoint, open_client, settings_for
from ingestor.app.doctor.instances import orphans
from ingestor.app.doctor.premises import Premises
from ingestor.app.doctor.way import on_the_way
from ingestor.app.embedder import recipe_of
from ingestor.app.owning import refusal_of
from ingestor.app.parts import ledger_of
from ingestor.core.diagnosing import Finding, failure, hint, warning, well
from ingestor.core.errors import ConfigError, IngestorError, RecipeMismatch
from ingestor.core.owning import told as owner_of
from ingestor.settings import Settings, route_to_chroma

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_NAME = "chroma"
_TIMEOUT_SECONDS = 10.0
_PARTS_THAT_MATTER = 2
"""Of a version: servers and clients of one minor version understand each other."""


def check(premises: Premises) -> Sequence[Finding]:
    """The way to Chroma that the settings name, and every collection that the sources fill."""
    settings, running = premises.settings, premises.running()
    match settings.chroma.mode:
        case "memory":
            return [well(_NAME, "Chroma is in memory, made with the process")]
        case "managed" if running is not None and running.chroma_port:
            return list(_served(premises, running))
        case "managed" | "persistent":
            port = [] if running or settings.chroma.mode == "persistent" else list(_port(settings))
            return [*port, *_at_rest(premises, running)]
        case _:
            return list(_served(premises, None))


def _port(settings: Settings) -> Iterator[Finding]:
    """Whether the daemon will get its port."""
    port = settings.chroma.port
    try:
        try_port(SERVER_HOST, port)
    except OSError as error:
        pid = listener_of(port)
        if pid in orphans(occupants(settings.chroma_path)):
            sentence = f"port {port} is free for the Chroma server once the next start has ended process {pid}"
            yield well(_NAME, sentence, port=port, pid=pid)
            return
        holder = f"process {pid}" if pid else "another process"
        message = f"port {port} cannot be had for the Chroma server: {error.strerror} ({holder})"
        remedy = "set chroma.port (INGESTOR_CHROMA__PORT) to a free port, or end that process"
        yield failure(_NAME, ConfigError(message, remedy=remedy), port=port, pid=pid)
    else:
        yield well(_NAME, f"port {port} is free for the Chroma server", port=port)


def _at_rest(premises: Premises, running: InstanceRecord | None) -> Iterator[Finding]:
    settings = premises.settings
    folder = settings.chroma_path
    if running is not None:
        remedy = "look again when it has ended"
        yield hint(_NAME, f"`ingestor {running.command}` has the database for itself just now", remedy)
    for name in configured(settings):
        stored = stored_collection(folder, name)
        if stored is None:
            yield well(_NAME, f"the collection {name!r} will be made in {folder}", version=version("chromadb"))
        else:
            yield from _collection(premises, settings_for(settings, name), stored)


def _served(premises: Premises, running: InstanceRecord | None) -> Iterator[Finding]:
    settings = premises.settings
    chroma = settings.chroma
    if running is None:
        yield from on_the_way(_NAME, endpoint(settings, None), route_to_chroma(chroma))
    bounded = chroma.model_copy(update={"timeout_seconds": min(chroma.timeout_seconds, _TIMEOUT_SECONDS)})
    with ExitStack() as stack:
        began_seconds = time.monotonic()
        client = open_client(settings.model_copy(update={"chroma": bounded}), running, stack)
        yield _answer(client, began_seconds, endpoint(settings, running))
        catalog = ChromaCatalog(client)
        for name in configured(settings):
            row = catalog.find(name)
            if row is None:
                yield well(_NAME, f"the collection {name!r} does not exist yet: it will be made")
                continue
            stored = Stored(row.id, row.metadata, row.dimensions, row.space, catalog.count(row))
            yield from _collection(premises, settings_for(settings, name), stored)


def _answer(client: "ClientAPI", began_seconds: float, place: str) -> Finding:
    connected_seconds = time.monotonic()
    client.heartbeat()
    heartbeat_ms = round((time.monotonic() - connected_seconds) * 1_000)
    ours, theirs = version("chromadb"), client.get_version()
    facts = {
        "place": place,
        "version": theirs,
        "client_version": ours,
        "heartbeat_ms": heartbeat_ms,
        "connect_ms": round((connected_seconds - began_seconds) * 1_000),
    }
    # A server answers with the version of its API, which is 1.0.0 for all of 1: other than that, it is its own.
    sentence = f"Chroma answers at {place} in {heartbeat_ms} ms, its API is {theirs}, the client here is {ours}"
    if ours.split(".")[:1] != theirs.split(".")[:1]:
        remedy = "install the version of chromadb that the server has, or update the server"
        return warning(_NAME, sentence, remedy, **facts)
    return well(_NAME, sentence, **facts)


def _collection(premises: Premises, settings: Settings, stored: Stored) -> Iterator[Finding]:
    """A collection against the settings, as a start would see it."""
    name, space = settings.chroma.collection, settings.chroma.hnsw.space
    tombstones = _tombstones(settings)
    facts = {
        "collection": name,
        "records": stored.records,
        "tombstones": tombstones,
        "dimensions": stored.dimensions,
        "space": stored.space,
        "model": str(stored.metadata.get("embedding_model", "")),
    }
    told = f"the collection {name!r} (records: {stored.records:,})"
    owner = owner_of(stored.metadata)
    facts |= {"owner": owner}
    if (refusal := refusal_of(settings, name, stored.metadata)) is not None:
        yield failure(_NAME, refusal, **facts)
        return
    if RECIPE_KEY not in stored.metadata:
        if stored.records:
            remedy = "choose another INGESTOR_CHROMA__COLLECTION"
            yield failure(_NAME, ConfigError(f"{told} was not made by ingestor", remedy=remedy), **facts)
        else:
            yield hint(
                _NAME, f"the collection {name!r} is empty and somebody else's: it will be taken over", "", **facts
            )
        return
    try:
        refuse_other_recipe(name, stored.metadata, recipe_of(settings.embedding))
        if stored.space not in {"", space}:
            message = (
                f"the collection {name!r} (records: {stored.records:,}) was built with the distance {stored.space}, "
                f"and the settings name {space}"
            )
            raise RecipeMismatch(message, remedy="run `ingestor rebuild`, or take the old setting back")
    except IngestorError as error:
        if stored.records:
            yield failure(_NAME, error, **facts)
        else:
            yield hint(_NAME, f"{error}; it is empty, and will be made again", "", **facts)
        return
    if stored.records and stored.dimensions:
        premises.dimensions[name] = stored.dimensions
    yield well(_NAME, f"{told} is of {facts['model']}, as the settings have it", **facts)
    if owner:
        yield well(_NAME, f"the collection {name!r} is filled by this data folder, {owner}")
    most = settings.chroma.max_tombstone_ratio
    if most and tombstones > most * max(1, stored.records):
        sentence = f"deleted records in the index of {name!r}: {tombstones:,}"
        yield hint(_NAME, sentence, "the daemon copies it afresh by itself; `ingestor prune` does so now", **facts)


def _tombstones(settings: Settings) -> int:
    """Deleted records that the index holds, as far as it was counted."""
    try:
        with ledger_of(settings, may_upgrade=False) as ledger:
            return ledger.tombstones() if ledger else 0
    except IngestorError:
        return 0  # told where ledgers are looked at
