"""The composition root: from settings to adapters to a running engine.

Invariant: whoever writes holds the instance lock of the data folder and, where the Chroma folder is ours, the lock of
that folder; both are let go when everything that writes has ended, in the reverse order of taking.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import ChromaSink, HnswConfig, open_sink
from ingestor.adapters.clock import SystemClock
from ingestor.adapters.decoding import decode
from ingestor.adapters.folder import Folder
from ingestor.adapters.folder_lock import FolderLock
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.local_embedder import LocalEmbedder
from ingestor.adapters.notify import Notifier
from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.adapters.rules import RULES_FILE, Rules
from ingestor.adapters.vectors import SqliteVectors
from ingestor.adapters.watcher import Watcher
from ingestor.core.chunking import Cutter
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.fingerprint import recipe_fingerprint
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Change, Hit, Outcome, Priority, Problem, Recipe, Stage, Usage
from ingestor.core.paths import is_at_or_below
from ingestor.core.profiles import LOCAL, PROVIDERS, profile_for, recipe_for
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.daemon import STATE_NOTE, Daemon
from ingestor.engine.embedding import Embedding
from ingestor.engine.lane import Lane
from ingestor.engine.news import happens_within
from ingestor.engine.pipeline import EMBEDDING_RETRY, Parts, Pipeline
from ingestor.engine.reading import Reader
from ingestor.engine.reconcile import APPROVED_NOTE, HELD_NOTE, LAST_RECONCILE_NOTE, UNREADABLE_NOTE
from ingestor.engine.search import search
from ingestor.engine.verify import Audit
from ingestor.ports import Embedder, Totals
from ingestor.settings import Settings

FOLDER_NOTE = "watched_folder"
LEDGER_FILE = "ledger.sqlite3"
VECTORS_FILE = "vectors.sqlite3"
SERVER_HOST = "127.0.0.1"
PROGRESS_SECONDS = 0.2
MAX_BATCH_INPUTS = 128
"""Texts of one call unless the settings say more: parsing the answer to 2,048 stalls the process for seconds."""
START_ATTEMPTS = 3
"""Starts of the managed Chroma server before the daemon gives up: something may kill it while it starts."""
REPAIR_ROUNDS = 3
"""Repairs of one `verify`: what is mended may show what it had hidden, and work may go on meanwhile."""
DRAIN_PAUSE_SECONDS = 0.5
DRAIN_SECONDS = 60.0
"""How long a repair waits for a daemon that does not get on."""
CONNECT_PAUSE_SECONDS = 5.0
"""Pause of a daemon between two attempts to reach a Chroma server that is elsewhere."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far a sync is; counts."""

    documents: int
    documents_expected: int
    chunks: int
    texts_embedded: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a sync has done; `as_json` is what `ingestor sync --json` prints."""

    documents: Mapping[str, int]
    chunks: Mapping[str, int]
    embedding: Mapping[str, int]
    seconds: float
    outage: str
    """What an outside service said last, when documents still wait for it."""
    held_deletions: int
    """Deletions that wait for `ingestor approve`."""

    def as_json(self) -> dict[str, Any]:
        """Documents, chunks, embedding, held deletions, seconds."""
        return {
            "documents": dict(self.documents),
            "chunks": dict(self.chunks),
            "embedding": dict(self.embedding),
            "held_deletions": self.held_deletions,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found at first, and what was left in the end: the same where nothing was to be repaired."""

    first: Audit
    last: Audit
    usage: Usage
    """What the repair has cost in this process; beside a daemon the daemon counts."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """What can be told of the collection from outside the process that works on it."""

    watch_dir: str
    data_dir: str
    collection: str
    chroma: str
    """Where the collection is served, or the folder that it lies in."""
    daemon: InstanceRecord | None
    totals: Totals | None
    """None when nothing was ever indexed."""
    last_reconcile: Mapping[str, Any] | None
    held_deletions: int
    """Deletions that wait for `ingestor approve`."""
    unreadable_folders: int
    """Folders that could not be listed; `problems` names them."""
    watching: str
    outage: str


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
        with _ledger(settings) as ledger:
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


async def run(settings: Settings) -> None:
    """Follow the folder until SIGINT or SIGTERM."""
    async with AsyncExitStack() as stack:
        notifier = Notifier()
        stop = _stop_signal()
        source = folder_of(settings)
        instance = _hold(settings, "run", stack)
        server = _serve(settings, stack)
        sink = await _reached(settings, stack, stop, server)
        if sink is None:
            return
        _announce(instance, settings, "run", served=True)
        _log.info(
            "daemon.started",
            folder=str(settings.watch_dir),
            collection=settings.chroma.collection,
            chroma=_endpoint(settings, instance.record),
        )
        pipeline = await stack.enter_async_context(_pipeline(settings, source, sink))
        left_out = [
            below
            for folder in (settings.data_dir, settings.chroma_path)
            if (below := _below(settings.watch_dir, folder))
        ]
        watch = Watcher(
            settings.watch_dir,
            polling=settings.watch.polling,
            follow_symlinks=settings.watch.follow_symlinks,
            ignore=lambda path: any(is_at_or_below(path, folder) for folder in left_out),
        )
        follower = pipeline.follower(watch, quiet_seconds=settings.watch.quiet_seconds, rules_file=RULES_FILE)
        daemon = Daemon(pipeline, follower, watch, notifier, supervise=server.ensure if server else None)
        await daemon.run(stop)
    _log.info("daemon.stopped")


async def sync(settings: Settings, tell: Callable[[SyncProgress], None], *, only_queued: bool = False) -> Report:
    """Make the collection equal to the folder, once; `only_queued` works on what is queued without a scan."""
    began_seconds = time.monotonic()
    async with AsyncExitStack() as stack:
        source = folder_of(settings)
        _hold(settings, "sync", stack)
        sink = await asyncio.to_thread(_open_collection, settings, None, stack)
        pipeline = await stack.enter_async_context(_pipeline(settings, source, sink))
        unreadable = 0
        async with pipeline.running() as tasks:
            telling = tasks.create_task(_tell(pipeline, tell))
            if only_queued:
                await pipeline.worker.run(until_idle=True)
            else:
                unreadable = await _work_through(pipeline)
            telling.cancel()
        await pipeline.tell_usage()
        tell(_progress(pipeline))
        totals = await pipeline.totals()
        return _report(pipeline, totals, unreadable, time.monotonic() - began_seconds)


async def query(
    settings: Settings,
    question: str,
    *,
    limit: int,
    where: Mapping[str, Any] | None,
    where_document: Mapping[str, Any] | None,
) -> list[Hit]:
    """Search, beside a running daemon or without one."""
    running = _indexed(settings)
    with ExitStack() as stack:
        sink = await asyncio.to_thread(_open_collection, settings, running, stack)
        vectors = stack.enter_context(contextlib.closing(SqliteVectors(_in_data_dir(settings, VECTORS_FILE))))
        lane = stack.enter_context(contextlib.closing(Lane("search")))
        embedder = embedder_of(settings)
        embedding = Embedding(
            embedder, vectors, lane, SystemClock(), backoff=EMBEDDING_RETRY, estimate_tokens=estimate_tokens
        )
        try:
            return await search(
                question, embedding, sink, lane, limit=limit, where=where, where_document=where_document
            )
        finally:
            await embedder.close()


async def verify(settings: Settings, *, is_repair: bool) -> Verification:
    """Compare folder, ledger and collection; `is_repair` mends what differs and compares again.

    Beside a daemon the daemon does what there is to do; without one it is done here.
    """
    began_seconds = time.monotonic()
    async with AsyncExitStack() as stack:
        source = folder_of(settings)
        running = _indexed(settings)
        if running is None:
            _hold(settings, "verify", stack)
        sink = await asyncio.to_thread(_open_collection, settings, running, stack)
        pipeline = await stack.enter_async_context(_pipeline(settings, source, sink, is_prepared=False))
        found = first = await pipeline.auditor.audit(is_deep=True, is_alone=running is None)
        for _ in range(REPAIR_ROUNDS if is_repair else 0):
            if found.is_sound:
                break
            await pipeline.correct(found)
            if running is None:
                await pipeline.prepare()
                async with pipeline.running():
                    await _work_through(pipeline)
            else:
                await pipeline.reconciler.reconcile()
                await _drained(pipeline)
            found = await pipeline.auditor.audit(is_deep=True, is_alone=running is None)
        await pipeline.tell_usage()
        return Verification(first, found, pipeline.embedding.usage, round(time.monotonic() - began_seconds, 3))


def status(settings: Settings) -> Status:
    """What the ledger and the instance record say; takes no lock, asks no service."""
    running = Instance(settings.data_dir).running()
    totals: Totals | None = None
    reconcile: Mapping[str, Any] | None = None
    state: Mapping[str, Any] = {}
    held = unreadable = 0
    with _ledger(settings) as ledger:
        if ledger is not None:
            totals = ledger.totals()
            reconcile = json.loads(ledger.note(LAST_RECONCILE_NOTE) or "null")
            state = json.loads(ledger.note(STATE_NOTE) or "{}")
            held = int(ledger.note(HELD_NOTE) or 0)
            unreadable = len(_unreadable(ledger))
    if totals is not None and running is None:
        # Leases of a process that is gone are void.
        totals = replace(totals, queued=totals.queued + totals.in_flight, in_flight=0)
    return Status(
        watch_dir=str(settings.watch_dir),
        data_dir=str(settings.data_dir),
        collection=settings.chroma.collection,
        chroma=_endpoint(settings, running),
        daemon=running,
        totals=totals,
        last_reconcile=reconcile,
        held_deletions=held,
        unreadable_folders=unreadable,
        watching=str(state.get("watching", "")) if running else "",
        outage=str(state.get("outage", "")) if running else "",
    )


def problems(settings: Settings) -> list[tuple[str, Problem]]:
    """Per-document faults, and folders that cannot be listed, by path."""
    with _ledger(settings) as ledger:
        if ledger is None:
            return []
        compared = json.loads(ledger.note(LAST_RECONCILE_NOTE) or "{}")
        folders = [
            (path, _unlistable(reason, float(compared.get("at_seconds", 0.0))))
            for path, reason in _unreadable(ledger).items()
        ]
        return sorted(ledger.problems() + folders, key=lambda found: found[0])


def _unreadable(ledger: SqliteLedger) -> Mapping[str, str]:
    """Folders that could not be listed, with their reasons."""
    found: dict[str, str] = json.loads(ledger.note(UNREADABLE_NOTE) or "{}")
    return found


def _unlistable(reason: str, since_seconds: float) -> Problem:
    remedy = "let the user of ingestor read and enter it; what was indexed of it is kept meanwhile"
    return Problem(Stage.READ, "UnreadableFolder", reason, remedy, attempts=1, since_seconds=since_seconds)


def queue_again(settings: Settings, paths: Sequence[str]) -> list[str]:
    """Queue documents with a fault for now: all of them, or those at or below `paths`; returns what was queued.

    A running daemon takes them up within a second. Raises `ConfigError` for a path that has no fault.
    """
    with _ledger(settings) as ledger:
        faulty = [] if ledger is None else [path for path, _ in ledger.problems()]
    chosen: list[str] = []
    for wanted in paths:
        relative = _relative(settings, wanted)
        below = [path for path in faulty if is_at_or_below(path, relative)]
        if not below:
            raise ConfigError(f"no document at {wanted} has a problem", remedy="`ingestor problems` lists them")
        chosen += below
    chosen = list(dict.fromkeys(chosen)) if paths else faulty
    now_seconds = time.time()
    with _ledger(settings) as ledger:
        if ledger is not None:
            ledger.enqueue(chosen, Change("", Priority.LIVE, now_seconds, now_seconds))
    return chosen


def approve(settings: Settings) -> int:
    """Approve of the deletions that are held back; returns how many.

    A running daemon carries them out within a second, otherwise the next `sync` or `run` does.
    """
    with _ledger(settings) as ledger:
        held = int(ledger.note(HELD_NOTE) or 0) if ledger is not None else 0
        if ledger is not None and held:
            ledger.set_note(APPROVED_NOTE, str(held))
    return held


def is_daemon_running(settings: Settings) -> bool:
    """Whether another process works on the data folder."""
    return Instance(settings.data_dir).running() is not None


@contextlib.contextmanager
def _ledger(settings: Settings) -> Iterator[SqliteLedger | None]:
    """The ledger, to be looked at beside the process that works with it; None when there is none yet."""
    path = settings.data_dir / LEDGER_FILE
    if not path.is_file():
        yield None
        return
    with contextlib.closing(SqliteLedger(path)) as ledger:
        yield ledger


@asynccontextmanager
async def _pipeline(
    settings: Settings, source: Folder, sink: ChromaSink, *, is_prepared: bool = True
) -> AsyncIterator[Pipeline]:
    """The engine; one that is not prepared may only look, and leave work to the process that holds the lock."""
    embedder = embedder_of(settings)
    with ExitStack() as stack:
        ledger = stack.enter_context(contextlib.closing(SqliteLedger(_in_data_dir(settings, LEDGER_FILE))))
        vectors = stack.enter_context(contextlib.closing(SqliteVectors(_in_data_dir(settings, VECTORS_FILE))))
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


def _indexed(settings: Settings) -> InstanceRecord | None:
    """The process that works on the data folder; raises `ConfigError` when there is nothing to look at yet."""
    running = Instance(settings.data_dir).running()
    is_own = settings.chroma.mode in {"managed", "persistent"}
    if is_own and running is None and not settings.chroma_path.is_dir():
        message = f"nothing has been indexed yet: {settings.chroma_path} does not exist"
        raise ConfigError(message, remedy="run `ingestor sync` or `ingestor run` first")
    return running


async def _work_through(pipeline: Pipeline) -> int:
    """Compare the whole folder, and do what there is to do; returns how many folders could not be listed."""
    unreadable = (await pipeline.reconciler.reconcile()).unreadable
    await pipeline.worker.run(until_idle=True)
    if pipeline.reconciler.held:
        # What was renamed meanwhile is not missing any more.
        await pipeline.reconciler.reconcile()
        await pipeline.worker.run(until_idle=True)
    return unreadable


async def _drained(pipeline: Pipeline) -> None:
    """Wait until the daemon has done what is queued, but for what it retries later; not longer than it gets on."""
    left, quiet_seconds = await pipeline.queued(), 0.0
    while left and quiet_seconds < DRAIN_SECONDS:
        await asyncio.sleep(DRAIN_PAUSE_SECONDS)
        before, left = left, await pipeline.queued()
        quiet_seconds = 0.0 if left < before else quiet_seconds + DRAIN_PAUSE_SECONDS


def _hold(settings: Settings, command: str, stack: AsyncExitStack) -> Instance:
    instance = Instance(settings.data_dir)
    instance.acquire()
    stack.callback(instance.release)
    _announce(instance, settings, command, served=False)
    return instance


def _announce(instance: Instance, settings: Settings, command: str, *, served: bool) -> None:
    is_served = served and settings.chroma.mode == "managed"
    instance.announce(
        InstanceRecord(
            pid=os.getpid(),
            command=command,
            watch_dir=str(settings.watch_dir.absolute()),
            started_seconds=time.time(),
            chroma_host=SERVER_HOST if is_served else "",
            chroma_port=settings.chroma.port if is_served else 0,
        )
    )


def _serve(settings: Settings, stack: AsyncExitStack) -> ChromaServer | None:
    if settings.chroma.mode != "managed":
        return None
    server = ChromaServer(settings.chroma_path, settings.chroma.port, SERVER_HOST)
    stack.callback(server.stop)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            server.start()
        except ServiceUnavailable as error:
            if attempt == START_ATTEMPTS:
                raise
            _log.warning("chroma.start_failed", reason=str(error), attempt=attempt)
        else:
            break
    return server


async def _reached(
    settings: Settings, stack: AsyncExitStack, stop: asyncio.Event, server: ChromaServer | None
) -> ChromaSink | None:
    """Open the collection, waiting for a server that is elsewhere; None when told to stop meanwhile.

    A server of our own that dies just now is started again; raises `ServiceUnavailable` when it dies too often.
    """
    record = InstanceRecord(os.getpid(), "run", "", 0.0, SERVER_HOST, settings.chroma.port)
    while not stop.is_set():
        try:
            return await asyncio.to_thread(_open_collection, settings, record, stack)
        except ServiceUnavailable as error:
            _log.error("chroma.unreachable", reason=str(error), remedy=error.remedy)
            await happens_within(stop, CONNECT_PAUSE_SECONDS)
            if server is not None:
                await asyncio.to_thread(server.ensure)
    return None


def _open_collection(
    settings: Settings, running: InstanceRecord | None, stack: AsyncExitStack | ExitStack
) -> ChromaSink:
    """Open the collection: through the running daemon's server where there is one, else as the settings say.

    What was opened is closed with `stack`, or at once when the opening fails.
    """
    with ExitStack() as opened:
        sink = _open_through(settings, running, opened)
        stack.callback(opened.pop_all().close)
        return sink


def _open_through(settings: Settings, running: InstanceRecord | None, stack: ExitStack) -> ChromaSink:
    chroma = settings.chroma
    mode, host, port = chroma.mode, chroma.host, chroma.port
    if mode == "managed":
        if running is None:
            mode = "persistent"
        elif running.chroma_port:
            host, port = running.chroma_host, running.chroma_port
        else:
            message = f"`ingestor {running.command}` (process id {running.pid}) has the collection for itself just now"
            raise ServiceUnavailable(message, remedy="try again when it has ended, or when the daemon has started")
    if mode == "persistent":
        lock = FolderLock(settings.chroma_path)
        lock.acquire()
        stack.callback(lock.release)
    client = connect(
        mode,
        host=host,
        port=port,
        ssl=chroma.ssl and chroma.mode == "http",
        token=chroma.token.get_secret_value() if chroma.token else None,
        tenant=chroma.tenant,
        database=chroma.database,
        path=settings.chroma_path,
        timeout_seconds=chroma.timeout_seconds,
    )
    stack.callback(disconnect, client)
    recipe = recipe_of(settings)
    hnsw = HnswConfig(**chroma.hnsw.model_dump())
    sink = open_sink(client, chroma.collection, recipe, hnsw, fingerprint=recipe_fingerprint(recipe))
    for sentence in sink.unapplied:
        _log.warning("collection.setting_not_applied", reason=sentence)
    return sink


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _tell(pipeline: Pipeline, tell: Callable[[SyncProgress], None]) -> None:
    while True:
        tell(_progress(pipeline))
        await asyncio.sleep(PROGRESS_SECONDS)


def _progress(pipeline: Pipeline) -> SyncProgress:
    tally = pipeline.tally
    return SyncProgress(
        documents=tally.finished,
        documents_expected=tally.expected,
        chunks=tally.embedded + tally.reused + tally.retagged + tally.dropped,
        texts_embedded=pipeline.embedding.usage.texts,
    )


def _report(pipeline: Pipeline, totals: Totals, unreadable: int, seconds: float) -> Report:
    tally = pipeline.tally
    counts = {outcome: tally.documents[outcome] for outcome in Outcome}
    touched = counts[Outcome.ADDED] + counts[Outcome.CHANGED] + counts[Outcome.RENAMED]
    return Report(
        documents={
            "added": counts[Outcome.ADDED],
            "changed": counts[Outcome.CHANGED],
            "renamed": counts[Outcome.RENAMED],
            "deleted": counts[Outcome.DELETED],
            "unchanged": max(0, totals.documents - touched),
            "problems": totals.problems + totals.retrying + unreadable,
        },
        chunks={
            "embedded": tally.embedded,
            "reused": tally.reused,
            "retagged": tally.retagged,
            "dropped": tally.dropped,
        },
        embedding=asdict(pipeline.embedding.usage),
        seconds=round(seconds, 3),
        outage=tally.outage if totals.retrying else "",
        held_deletions=pipeline.reconciler.held,
    )


def _endpoint(settings: Settings, running: InstanceRecord | None) -> str:
    chroma = settings.chroma
    match chroma.mode:
        case "managed" if running is not None and running.chroma_port:
            return f"http://{running.chroma_host}:{running.chroma_port}"
        case "managed" | "persistent":
            return str(settings.chroma_path)
        case "http":
            return f"{'https' if chroma.ssl else 'http'}://{chroma.host}:{chroma.port}"
        case "memory":
            return "memory"
        case "cloud":
            return "Chroma Cloud"


def _in_data_dir(settings: Settings, name: str) -> Path:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings.data_dir / name


def _below(root: Path, folder: Path) -> str:
    """Path of `folder` below `root`, or "" when it lies elsewhere."""
    relative = os.path.relpath(os.path.realpath(folder), os.path.realpath(root))
    return "" if relative == "." or relative.startswith("..") else relative


def _relative(settings: Settings, wanted: str) -> str:
    """A path as users give it - in the file system, or relative to the watched folder - as the ledger knows it."""
    found = Path(wanted)
    if found.is_absolute() or found.exists():
        return _below(settings.watch_dir, found)
    return wanted.strip("/")
