"""Collection: who may open it, where it is served, and the server that is ours.

Invariant: whoever writes holds the instance lock of the data folder and, where the Chroma folder is ours, the lock of
that folder; both are let go when everything that writes has ended, in the reverse order of taking.
"""

import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_hold import Hold
from ingestor.adapters.chroma_journal import write_ahead
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import ChromaSink, HnswConfig, open_sink
from ingestor.adapters.folder_lock import FolderLock
from ingestor.adapters.instance import LIFE, Instance, InstanceRecord
from ingestor.adapters.journal import Journal
from ingestor.adapters.rename_note import RenameNote
from ingestor.app.embedder import function_of, recipe_of
from ingestor.app.owning import claim, release, settle
from ingestor.app.parts import in_data_dir
from ingestor.app.switch import resume
from ingestor.app.upgrade import upgrade_ledgers
from ingestor.core.asking import Function
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.fingerprint import recipe_fingerprint
from ingestor.core.model import Recipe
from ingestor.core.network import server_url
from ingestor.settings import Settings, route_to_chroma

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

SERVER_HOST = "127.0.0.1"
FORGET_FILE = "forget.json"
START_ATTEMPTS = 3
"""Starts of the managed Chroma server before it is given up: something may kill it while it starts."""

_log = structlog.get_logger(__name__)


def hold(settings: Settings, command: str, stack: AsyncExitStack | ExitStack) -> Instance:
    """Take the instance lock until the end of `stack`, and upgrade the ledgers that an older version has left.

    Raises `AlreadyRunning`, and what `upgrade_ledgers` raises.
    """
    instance = Instance(settings.data_dir)
    instance.acquire()
    stack.callback(instance.release)
    upgrade_ledgers(settings.data_dir)
    unfinished = forgetting(settings).read()
    if unfinished is not None:
        path = unfinished["path"]
        _log.warning("forget.unfinished", path=path, remedy=f"run `ingestor forget {path}` again")
    announce(instance, settings, command, served=False)
    return instance


def forgetting(settings: Settings) -> Journal:
    """Where it is noted that a document is being forgotten."""
    return Journal(in_data_dir(settings, FORGET_FILE))


def announce(  # noqa: PLR0913 - what others are told
    instance: Instance, settings: Settings, command: str, *, served: bool, port: int = 0, http_url: str = ""
) -> None:
    """Tell other processes who is at work, and where it and the collection are reached.

    Port 0 is that of the settings.
    """
    is_served = served and settings.chroma.mode == "managed"
    instance.announce(
        InstanceRecord(
            pid=os.getpid(),
            command=command,
            watch_dir=", ".join(str(each.watch_dir.absolute()) for each in settings.each()),
            started_seconds=time.time(),
            chroma_host=SERVER_HOST if is_served else "",
            chroma_port=(port or settings.chroma.port) if is_served else 0,
            http_url=http_url,
            life=LIFE,
        )
    )


def indexed(settings: Settings) -> InstanceRecord | None:
    """The process that works on the data folder; raises `ConfigError` when there is nothing to look at yet."""
    running = Instance(settings.data_dir).running()
    is_own = settings.chroma.mode in {"managed", "persistent"}
    if is_own and running is None and not settings.chroma_path.is_dir():
        message = f"nothing has been indexed yet: {settings.chroma_path} does not exist"
        raise ConfigError(message, remedy="run `ingestor sync` or `ingestor run` first")
    return running


def serve(
    settings: Settings, stack: AsyncExitStack, *, is_anywhere: bool = False, attempts: int = START_ATTEMPTS
) -> ChromaServer | None:
    """Start the managed server, to be stopped at the end of `stack`; None where the settings name another.

    One that may be anywhere takes a port that is free, whoever has the port of the settings. Raises
    `ServiceUnavailable` when it does not come up in so many attempts.
    """
    if settings.chroma.mode != "managed":
        return None
    server = ChromaServer(settings.chroma_path, 0 if is_anywhere else settings.chroma.port, SERVER_HOST)
    stack.callback(server.stop)
    for attempt in range(1, attempts + 1):
        try:
            server.start()
        except ServiceUnavailable as error:
            if attempt == attempts:
                raise
            _log.warning("chroma.start_failed", reason=str(error), attempt=attempt)
        else:
            break
    return server


def settings_for(settings: Settings, collection: str = "") -> Settings:
    """The settings of the source that fills a collection, or of the only collection that there is.

    For a collection that no source fills they are the general ones. Raises `ConfigError` when it has to be named.
    """
    by_name: dict[str, Settings] = {}
    for each in settings.each():
        by_name.setdefault(each.chroma.collection, each)
    if not collection and len(by_name) > 1:
        message = f"the sources fill several collections: {', '.join(by_name)}"
        raise ConfigError(message, remedy="name one of them: --collection NAME")
    wanted = collection or next(iter(by_name))
    return by_name.get(wanted) or settings.varied(ledger_file=settings.ledger_file, collection=wanted)


def configured(settings: Settings) -> list[str]:
    """The collections that the sources fill."""
    return list(dict.fromkeys(each.chroma.collection for each in settings.each()))


def open_collection(
    sources: Sequence[Settings], running: InstanceRecord | None, stack: AsyncExitStack | ExitStack
) -> ChromaSink:
    """Open the collection that all these sources fill.

    It is reached through the running daemon's server where there is one, else as the settings say. Whoever holds the
    instance lock claims it. What was opened is closed with `stack`, or at once when the opening fails.

    Raises what `open_sink` and `claim` raise.
    """
    return _open(sources, running, stack)[sources[0].chroma.collection]


def open_collections(
    settings: Settings,
    running: InstanceRecord | None,
    stack: AsyncExitStack | ExitStack,
    *,
    takes_over: bool = False,
) -> dict[str, ChromaSink]:
    """Open the collections of all sources, by name, as `open_collection` opens one.

    One that `takes_over` claims them whosever they are.
    """
    return _open(settings.each(), running, stack, takes_over=takes_over)


def _open(
    sources: Sequence[Settings],
    running: InstanceRecord | None,
    stack: AsyncExitStack | ExitStack,
    *,
    takes_over: bool = False,
) -> dict[str, ChromaSink]:
    by_name: dict[str, list[Settings]] = {}
    for each in sources:
        by_name.setdefault(each.chroma.collection, []).append(each)
    with ExitStack() as opened:
        client = open_client(sources[0], running, opened)
        if _may_write(sources[0]):
            resume(sources[0], client)
            sinks = {
                name: claimed_sink(sharing, client, opened, takes_over=takes_over) for name, sharing in by_name.items()
            }
        else:
            sinks = {name: sink_of(sharing[0], client) for name, sharing in by_name.items()}
        stack.callback(opened.pop_all().close)
        return sinks


def claimed_sink(
    sources: Sequence[Settings],
    client: "ClientAPI",
    stack: ExitStack,
    recipe: Recipe | None = None,
    *,
    takes_over: bool = False,
) -> ChromaSink:
    """Open the collection that these sources fill, to write to it, and let go of it with `stack`.

    Raises what `claim` and `open_sink` raise.
    """
    refuse_renamed(sources[0], client)
    hold = claim(sources, client, takes_over=takes_over)
    sink = sink_of(sources[0], client, recipe, hold)
    stack.callback(release, sink)
    settle(sources, sink, hold)
    return sink


def open_client(settings: Settings, running: InstanceRecord | None, stack: AsyncExitStack | ExitStack) -> "ClientAPI":
    """Reach Chroma: through the running daemon's server where there is one, else as the settings say.

    Where Chroma is ours and no server runs, its folder is locked until the end of `stack`: nobody else may open it.
    """
    with ExitStack() as opened:
        client = _client_of(settings, running, opened)
        stack.callback(opened.pop_all().close)
        return client


def sink_of(
    settings: Settings, client: "ClientAPI", recipe: Recipe | None = None, hold: Hold | None = None
) -> ChromaSink:
    """Open the collection that the settings name, or make it; `recipe` is theirs unless it is given.

    Without a hold it is opened as whosever it is.

    Raises what `open_sink` raises.
    """
    refuse_renamed(settings, client)
    recipe = recipe or recipe_of(settings.embedding)
    hnsw = HnswConfig(**settings.chroma.hnsw.model_dump())
    function = _function_of(settings)
    sink = open_sink(
        client,
        settings.chroma.collection,
        recipe,
        hnsw,
        fingerprint=recipe_fingerprint(recipe),
        function=function,
        hold=hold,
    )
    for sentence in sink.unapplied:
        _log.warning("collection.setting_not_applied", reason=sentence)
    return sink


def _function_of(settings: Settings) -> Function | None:
    """What the collection names for those who ask by text; None, and a word on it, where that would tell a secret."""
    try:
        return function_of(settings.embedding)
    except ConfigError as error:
        _log.warning("collection.no_embedding_function", reason=str(error), remedy=error.remedy)
        return None


def refuse_renamed(settings: Settings, client: "ClientAPI") -> None:
    """Raise `ConfigError` while the settings name a collection as it was called before, or will be called.

    A new, empty one would be made and filled otherwise. What has come right is forgotten.
    """
    note = RenameNote(settings.data_dir)
    renamed = note.read()
    if renamed is None:
        return
    named = settings.chroma.collection
    if named not in {renamed.old, renamed.new}:
        return  # it is about the collection of another source
    called = renamed.new if named == renamed.old else renamed.old
    found = ChromaCatalog(client).find(called)
    if found is not None and found.id == renamed.id:
        raise ConfigError(
            f"the settings name the collection {named!r}, and `ingestor collections rename` has left it as {called!r}",
            remedy=f"set chroma.collection (INGESTOR_CHROMA__COLLECTION) to {called}, or run "
            f"`ingestor collections rename {called} {named}`",
        )
    note.clear()


def _may_write(settings: Settings) -> bool:
    """Whether this process is the one that completes what a death has interrupted, and writes."""
    holder = Instance(settings.data_dir).running()
    return holder is not None and holder.pid == os.getpid()


def _client_of(settings: Settings, running: InstanceRecord | None, stack: ExitStack) -> "ClientAPI":
    chroma = settings.chroma
    mode, url = chroma.mode, chroma.url
    if mode == "managed":
        if running is None:
            mode = "persistent"
        elif running.chroma_port:
            url = server_url(running.chroma_host, running.chroma_port)
        else:
            message = f"`ingestor {running.command}` (process id {running.pid}) has the collection for itself just now"
            raise ServiceUnavailable(message, remedy="try again when it has ended, or when the daemon has started")
    if mode == "persistent":
        lock = FolderLock(settings.chroma_path)
        lock.acquire()
        stack.callback(lock.release)
        write_ahead(lock.folder)
    client = connect(
        mode,
        host=url,
        route=route_to_chroma(chroma),
        token=chroma.token.get_secret_value() if chroma.token else None,
        tenant=chroma.tenant,
        database=chroma.database,
        path=settings.chroma_path,
        timeout_seconds=chroma.timeout_seconds,
    )
    stack.callback(disconnect, client)
    return client


def endpoint(settings: Settings, running: InstanceRecord | None) -> str:
    """Where the collection is, for people."""
    chroma = settings.chroma
    match chroma.mode:
        case "managed" if running is not None and running.chroma_port:
            return server_url(running.chroma_host, running.chroma_port)
        case "managed" | "persistent":
            return str(settings.chroma_path)
        case "http":
            return chroma.url
        case "memory":
            return "memory"
        case "cloud":
            return "Chroma Cloud"
