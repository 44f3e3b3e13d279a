"""Status: what the ledger tells of the work of another process, and what people decide about it.

Takes no lock and asks no service.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ingestor.adapters.disk_room import see_room
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.owner_file import OwnerFile
from ingestor.app.beside import Beside, kept, next_ledger, unfinished
from ingestor.app.collection import endpoint
from ingestor.app.embedder import allowance_of, currency_of, price_of
from ingestor.app.parts import VECTORS_FILE, ledger_of, path_below
from ingestor.app.waits import merged
from ingestor.core.attaching import SETTINGS_FILE
from ingestor.core.errors import DECISION, ConfigError, IngestorError, ServiceUnavailable, UnusableMetadata
from ingestor.core.escaping import spelled
from ingestor.core.model import Change, Priority, Problem, ServiceWait, Stage
from ingestor.core.paths import is_at_or_below
from ingestor.engine.account import local_day
from ingestor.engine.daemon import STATE_NOTE
from ingestor.engine.gate import COST_APPROVED_NOTE, SAMPLE_NOTE, UNDECIDED_NOTE, held_by
from ingestor.engine.guard import APPROVED_NOTE
from ingestor.engine.reconcile import LAST_RECONCILE_NOTE, UNREADABLE_NOTE
from ingestor.engine.worker import RETRY_NOTE
from ingestor.ports import Totals
from ingestor.settings import EmbeddingSettings, Settings

MAX_EXAMPLES = 3
"""Paths of held deletions that are told with their number."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What embedding has cost, at the price of today."""

    amount: float | None
    """Money since the ledger was begun; None where the price is not known."""
    currency: str
    tokens_today: int
    tokens_per_day: int | None
    """What a day may cost; None: no limit."""


@dataclass(frozen=True, slots=True)
class Status:
    """What can be told of the collection from outside the process that works on it."""

    source: str
    """Name of the source; empty for the only one."""
    watch_dir: str
    data_dir: str
    collection: str
    chroma: str
    """Where the collection is served, or the folder that it lies in."""
    daemon: InstanceRecord | None
    totals: Totals | None
    """None when nothing was ever indexed."""
    cost: Cost
    tombstones: int
    """Deleted records that the index holds, as far as it was counted."""
    vectors_bytes: int
    """Size of the vector store."""
    max_vectors_bytes: int
    last_reconcile: Mapping[str, Any] | None
    held_deletions: int
    """Deletions that wait for `ingestor approve`."""
    held_examples: Sequence[str]
    """The first `MAX_EXAMPLES` of them, by path."""
    unreadable_folders: int
    """Folders that could not be listed; `problems` names them."""
    watching: str
    outage: str
    is_behind: bool
    """Whether the daemon has heard of changes that it has neither queued nor found to be none."""
    next_call_seconds: float | None
    """When the provider is asked again, since the epoch, where it keeps all waiting for longer than a moment."""
    restless: Sequence[str]
    """Some of the files that change all the time, and are looked at once a minute at most."""
    undecided: str
    """What keeps new texts from being embedded until somebody decides; empty when nothing does."""
    unfinished: Beside | None
    """The collection that a rebuild is filling."""
    kept: Beside | None
    """The collection that a rebuild has replaced."""
    owner: str = ""
    """The id by which collections name this data folder; empty while it has filled none."""
    refused: str = ""
    """Why the last process that was to fill the collection was refused; empty when it was not."""


def waits_of(found: Sequence[Status]) -> list[ServiceWait]:
    """What documents of all sources wait for."""
    return merged(wait for each in found if each.totals is not None for wait in each.totals.waits)


def status(settings: Settings) -> list[Status]:
    """What the ledgers and the instance record say of each source; takes no lock, asks no service."""
    return [_status(each) for each in settings.each()]


def _status(settings: Settings) -> Status:
    running = Instance(settings.data_dir).running()
    own = OwnerFile(settings.data_dir)
    totals: Totals | None = None
    reconcile: Mapping[str, Any] | None = None
    state: Mapping[str, Any] = {}
    held = held_paths(settings)
    unreadable = tokens_today = tombstones = 0
    undecided: IngestorError | None = None
    with ledger_of(settings) as ledger:
        if ledger is not None:
            totals = ledger.totals()
            reconcile = json.loads(ledger.note(LAST_RECONCILE_NOTE) or "null")
            state = state_of(ledger, running)
            tombstones = ledger.tombstones()
            undecided = held_by(ledger.note(UNDECIDED_NOTE))
            unreadable = len(_unreadable(ledger))
            tokens_today = ledger.tokens_on(local_day(time.time()))
    if totals is not None and running is None:
        # Leases of a process that is gone are void.
        totals = replace(totals, queued=totals.queued + totals.in_flight, in_flight=0)
    return Status(
        source=settings.source_name,
        watch_dir=str(settings.watch_dir),
        data_dir=str(settings.data_dir),
        collection=settings.chroma.collection,
        chroma=endpoint(settings, running),
        daemon=running,
        totals=totals,
        cost=_cost(settings.embedding, totals, tokens_today),
        tombstones=tombstones,
        vectors_bytes=_size_bytes(settings.data_dir / VECTORS_FILE),
        max_vectors_bytes=settings.vectors.max_bytes,
        last_reconcile=reconcile,
        held_deletions=len(held),
        held_examples=held[:MAX_EXAMPLES],
        unreadable_folders=unreadable,
        watching=str(state.get("watching", "")),
        outage=_outage(settings, state) if running else "",
        # A daemon that has noted nothing yet may still find differences.
        is_behind=running is not None and bool(state.get("is_behind", True)),
        next_call_seconds=state.get("next_call_seconds"),
        restless=state.get("restless", ()),
        undecided=undecided.sentence if undecided else "",
        unfinished=unfinished(settings),
        kept=kept(settings),
        owner=own.id,
        refused=own.refused(settings.chroma.collection),
    )


def state_of(ledger: SqliteLedger, running: InstanceRecord | None) -> Mapping[str, Any]:
    """What the process that is at work has noted of itself; nothing where another one did, which has gone since."""
    noted: dict[str, Any] = json.loads(ledger.note(STATE_NOTE) or "{}")
    return noted if running is not None and noted.get("life", "") == running.life else {}


def _outage(settings: Settings, state: Mapping[str, Any]) -> str:
    """What a running daemon waits for. While the disk is full it cannot note that, and others have to look."""
    try:
        see_room(settings.data_dir)
    except ServiceUnavailable as error:
        return error.sentence
    return str(state.get("outage", ""))


def _cost(chosen: EmbeddingSettings, totals: Totals | None, tokens_today: int) -> Cost:
    price = price_of(chosen)
    tokens = totals.usage.tokens if totals else 0
    return Cost(
        amount=None if price is None else price * tokens / 1_000_000,
        currency=currency_of(chosen),
        tokens_today=tokens_today,
        tokens_per_day=allowance_of(chosen).tokens_per_day,
    )


def _size_bytes(file: Path) -> int:
    """Size of a database with its write-ahead log."""
    found = 0
    for part in (file, file.with_name(file.name + "-wal")):
        with contextlib.suppress(FileNotFoundError):
            found += part.stat().st_size
    return found


def problems(settings: Settings) -> list[tuple[str, str, Problem]]:
    """Per-document faults, and folders that cannot be listed: source, path and fault, by path within each source."""
    return [(each.source_name, path, problem) for each in settings.each() for path, problem in _problems(each)]


def _problems(settings: Settings) -> list[tuple[str, Problem]]:
    with ledger_of(settings) as ledger:
        if ledger is None:
            return []
        compared = json.loads(ledger.note(LAST_RECONCILE_NOTE) or "{}")
        folders = [
            (path, _unlistable(path, reason, float(compared.get("at_seconds", 0.0))))
            for path, reason in _unreadable(ledger).items()
        ]
        return sorted(ledger.problems() + folders, key=lambda found: found[0])


def _unreadable(ledger: SqliteLedger) -> Mapping[str, str]:
    """Folders that could not be listed, with their reasons."""
    found: dict[str, str] = json.loads(ledger.note(UNREADABLE_NOTE) or "{}")
    return found


def _unlistable(path: str, reason: str, since_seconds: float) -> Problem:
    if PurePosixPath(path).name == SETTINGS_FILE:
        remedy = "until then its settings are left out, and what was indexed is kept as it is"
        return Problem(Stage.READ, UnusableMetadata.__name__, reason, remedy, attempts=1, since_seconds=since_seconds)
    remedy = "let the user of ingestor read and enter it, or mend the file named; what was indexed is kept meanwhile"
    return Problem(Stage.READ, "UnreadableFolder", reason, remedy, attempts=1, since_seconds=since_seconds)


def queue_again(
    settings: Settings, paths: Sequence[str], place_of: Callable[[Settings, str], str | None] | None = None
) -> list[str]:
    """Queue documents with a fault, or that wait for a service, for now; returns what was queued.

    That is all of them, or those at or below `paths`.

    `place_of` makes a path of a source's documents of one that was given; without it, that is a path as users give it.

    A running daemon takes them up within a second, and asks a provider that wanted to be left alone. Raises
    `ConfigError` for a path that has no fault.
    """
    sources = settings.each()
    faulty = [_faulty(each) for each in sources]
    chosen = [list[str]() if paths else found for found in faulty]
    for wanted in paths:
        places = [(place_of or below)(each, wanted) for each in sources]
        found = [_at_or_below(paths_of, place) for place, paths_of in zip(places, faulty, strict=True)]
        if not any(found):
            raise ConfigError(f"no document at {wanted} has a problem", remedy="`ingestor problems` lists them")
        chosen = [list(dict.fromkeys(had + more)) for had, more in zip(chosen, found, strict=True)]
    now_seconds = time.time()
    for each, queued in zip(sources, chosen, strict=True):
        with ledger_of(each) as ledger:
            if ledger is not None:
                ledger.set_note(RETRY_NOTE, str(now_seconds))
                ledger.enqueue(queued, Change("", Priority.LIVE, now_seconds, now_seconds))
    return [path for queued in chosen for path in queued]


def _faulty(settings: Settings) -> list[str]:
    """What is tried again when it is asked for: what has a fault, and what waits for a service."""
    with ledger_of(settings) as ledger:
        if ledger is None:
            return []
        failed = {path for path, problem in ledger.waiting().items() if problem is not None}
        return sorted({path for path, _ in ledger.problems()} | failed)


def relative_path(settings: Settings, wanted: str) -> str:
    """A path as users give it - in the file system, or relative to a watched folder - as records name it."""
    places = (below(each, wanted) for each in settings.each())
    return next((place for place in places if place is not None), wanted)


def below(settings: Settings, wanted: str) -> str | None:
    """A path as users give it, relative to the watched folder; None when it lies elsewhere."""
    place = Path(wanted)
    relative = path_below(settings.watch_dir, place)
    if relative or place.resolve() == settings.watch_dir.resolve():
        return relative
    # A name that is too long to be one exists nowhere; `Path.exists` would raise.
    is_elsewhere = place.is_absolute() or os.path.exists(place)  # noqa: PTH110
    return None if is_elsewhere else wanted.strip("/")


def as_told(_: Settings, wanted: str) -> str:
    """A path as JSON tells it, and as the ledger has it: the file system is not asked what it might mean."""
    return wanted.rstrip("/")


def _at_or_below(paths: Sequence[str], place: str | None) -> list[str]:
    """Those of a source's paths that a place means; bytes that are no UTF-8 may be spelled in it."""
    if place is None:
        return []
    return [path for path in paths if is_at_or_below(path, place) or is_at_or_below(spelled(path), place)]


def held_paths(settings: Settings) -> list[str]:
    """The paths of a source whose deletion waits for `ingestor approve`, by path."""
    held: set[str] = set()
    for each in _with_next(settings):
        with ledger_of(each) as ledger:
            found = ledger.held() if ledger is not None else {}
            held.update(path for path, is_approved in found.items() if not is_approved)
    return sorted(held)


def held(settings: Settings) -> dict[str, list[str]]:
    """The paths whose deletion waits for `ingestor approve`, by the name of their source."""
    return {each.source_name: held_paths(each) for each in settings.each()}


def approve(settings: Settings, shown: Mapping[str, Sequence[str]]) -> int:
    """Approve of the deletions of these paths, by source, as far as they are held back; returns of how many.

    A running daemon carries them out within a second, otherwise the next `sync` or `run` does. What is missed besides
    is judged anew.
    """
    approved = 0
    for source in settings.each():
        paths = shown.get(source.source_name, ())
        counts = [0]
        for each in _with_next(source):
            with ledger_of(each) as ledger:
                if ledger is not None and paths:
                    counts.append(ledger.approve(paths))
                    ledger.set_note(APPROVED_NOTE, str(len(paths)))
        approved += max(counts)
    return approved


def _with_next(settings: Settings) -> tuple[Settings, Settings]:
    """A source as it serves, and as a rebuild fills it anew."""
    return settings, settings.varied(ledger_file=next_ledger(settings), collection=settings.chroma.collection)


def approve_embedding(settings: Settings) -> list[str]:
    """Let new texts be embedded that wait for a decision; returns what was decided.

    What the first sync costs is agreed to, and the model that answers now is taken for the right one. A running daemon
    goes on within a second.
    """
    decided = []
    for each in settings.each():
        with ledger_of(each) as ledger:
            undecided = held_by(ledger.note(UNDECIDED_NOTE)) if ledger is not None else None
            if ledger is not None and undecided is not None:
                decided.append(str(undecided))
                for note in (SAMPLE_NOTE, UNDECIDED_NOTE):
                    ledger.set_note(note, "")
                ledger.hasten(time.time(), DECISION)
    # Sources that cost too much together wait at the gate of the first one, and are agreed to together.
    for each in settings.each() if decided else ():
        with ledger_of(each) as ledger:
            if ledger is not None:
                ledger.set_note(COST_APPROVED_NOTE, "yes")
    return list(dict.fromkeys(decided))


def is_daemon_running(settings: Settings) -> bool:
    """Whether another process works on the data folder."""
    return Instance(settings.data_dir).running() is not None
