"""Filling: a second collection beside the serving one, until it may take its place.

Both are followed meanwhile, each by a pipeline of its own: the serving one with its old recipe, so that nobody who asks
it notices, and the next one with the recipe of the settings. The ledger of the next one begins as a copy of the serving
one that knows the documents and none of their records, so that documents keep their ids.

Invariant: until the comparison is sound the serving collection is changed by nothing but what happens in the folder,
and whatever kills the process, the next start goes on with what is there.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.folder import Folder
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.app.beside import MODEL_NOTE, kept, next_ledger, next_name
from ingestor.app.collection import sink_of
from ingestor.app.collections import noted
from ingestor.app.embedder import recipe_of
from ingestor.app.line import line_of
from ingestor.app.parts import Sourced, ledger_of, pipelines_of
from ingestor.app.serving import Serving, serving_of
from ingestor.core.auditing import emptied
from ingestor.core.errors import ConfigError, RecipeMismatch, TransientError
from ingestor.core.model import Recipe, Usage
from ingestor.engine.carrying import carry
from ingestor.engine.comparing import Comparison, compare
from ingestor.engine.daemon import Daemon, Line, ServiceNotifier
from ingestor.engine.news import happens_within
from ingestor.engine.pipeline import COLLECTION_NOTE, Pipeline
from ingestor.engine.verify import FOREIGN_NOTE
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 8.0
"""What waits for an outside service is waited for, when nothing else is left to do, if it is tried again this soon."""
AGAIN_SECONDS = 60.0
"""Pause of a daemon between two comparisons of which the first was not sound."""
MAX_ROUNDS = 20
"""Comparisons of a folder that changes under each of them."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a rebuild begins from."""

    settings: Settings
    source: Folder
    client: "ClientAPI"
    row: CollectionRow
    """The collection that is served."""
    serving: Serving

    @property
    def next_settings(self) -> Settings:
        """The settings, with the collection that is filled and its ledger."""
        return self.settings.varied(ledger_file=next_ledger(self.settings), collection=next_name(self.settings))


@dataclass(frozen=True, slots=True)
class Filled:
    """How the filling ended: with a comparison, or because of an outage, or because it was told to stop."""

    next_id: str
    usage: Usage
    comparison: Comparison | None = None
    outage: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether the next collection may take the place of the serving one."""
        return self.comparison is not None and not self.comparison.differences


def ground_of(settings: Settings, source: Folder, client: "ClientAPI") -> Ground | None:
    """What there is to rebuild; None when the collection is as the settings have it.

    Raises `ConfigError` when there is no collection, or one is kept already whose place is needed.
    """
    if settings.chroma.mode == "memory":
        raise ConfigError("a collection in memory cannot be rebuilt", remedy="start again: it is filled anew")
    name = settings.chroma.collection
    row = ChromaCatalog(client).find(name)
    if row is None:
        raise ConfigError(f"there is no collection {name!r} to rebuild", remedy="run `ingestor sync` or `ingestor run`")
    serving = serving_of(settings, row)
    if not serving.is_former and not sink_of(settings, client).unapplied:
        return None
    if kept(settings) is not None:
        raise ConfigError(
            f"a collection that {name!r} has replaced is still kept",
            remedy="`ingestor rebuild --prune` deletes it, `ingestor rebuild --rollback` takes it back",
        )
    return Ground(settings, source, client, row, serving)


async def fill(  # noqa: PLR0913 - what it begins from, and how it tells and ends
    ground: Ground,
    stop: asyncio.Event,
    notifier: ServiceNotifier,
    *,
    supervise: Callable[[str], bool] | None,
    tell: Callable[[Pipeline], None],
    is_patient: bool,
    drops_foreign: bool,
) -> Filled:
    """Fill the next collection and follow the folder with both, until the comparison is sound or `stop` is set.

    One that is not patient ends with the first comparison that is not, and when an outside service stays away.
    """
    serving_sink, next_sink = await asyncio.to_thread(_sinks, ground)
    await _begin_ledger(ground, serving_sink, next_sink)
    before = _served(ground, serving_sink)
    after = Sourced(ground.next_settings, ground.source, next_sink)
    async with pipelines_of([before, after]) as pipelines:
        lines = [line_of(ground.settings, pipeline) for pipeline in pipelines]
        finished = asyncio.Event()
        daemon = Daemon(lines, _Hushed(notifier), supervise=supervise)
        sinks = serving_sink, next_sink
        judge = _Judge(ground.next_settings, lines, sinks, tell, is_patient=is_patient, drops_foreign=drops_foreign)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(daemon.run(finished))
            try:
                return await judge.judge(stop)
            finally:
                finished.set()


def _sinks(ground: Ground) -> tuple[ChromaSink, ChromaSink]:
    serving = sink_of(ground.serving.settings, ground.client, ground.serving.recipe)
    try:
        return serving, sink_of(ground.next_settings, ground.client)
    except RecipeMismatch as error:
        remedy = "take those settings back, or drop the unfinished rebuild with `ingestor rebuild --abandon`"
        raise RecipeMismatch(f"a rebuild is unfinished: {error}", remedy=remedy) from error


def _served(ground: Ground, sink: ChromaSink) -> Sourced:
    """The serving collection as a source; a model of its own, since a pipeline closes it."""
    return Sourced(ground.serving.settings, ground.source, sink, ground.serving.embedder())


async def _begin_ledger(ground: Ground, serving_sink: ChromaSink, next_sink: ChromaSink) -> None:
    """Make the ledger of the next collection, unless a rebuild was begun before and its collection is there still."""
    settings, files = ground.settings, LedgerFiles(ground.settings.data_dir)
    if files.note(next_ledger(settings), COLLECTION_NOTE) == next_sink.collection_id:
        return
    # A ledger that was lost, or speaks of another collection, is first made to speak of this one.
    async with pipelines_of([_served(ground, serving_sink)]):
        pass
    notes = {
        COLLECTION_NOTE: next_sink.collection_id,
        MODEL_NOTE: described(recipe_of(settings.embedding)),
        FOREIGN_NOTE: "0",
    }
    await asyncio.to_thread(files.set_note, settings.ledger_file, MODEL_NOTE, described(ground.serving.recipe))
    await asyncio.to_thread(files.copy, settings.ledger_file, next_ledger(settings), notes, _empty)


def _empty(ledger: SqliteLedger) -> None:
    ledger.rewrite(emptied)


def described(recipe: Recipe) -> str:
    """A recipe as people name it."""
    return f"{recipe.provider}/{recipe.model}" + (f"@{recipe.dimensions}" if recipe.dimensions else "")


class _Judge:
    """Waits until nothing is left to do for the next collection, and compares."""

    def __init__(  # noqa: PLR0913 - the parts it looks at
        self,
        settings: Settings,
        lines: list[Line],
        sinks: tuple[ChromaSink, ChromaSink],
        tell: Callable[[Pipeline], None],
        *,
        is_patient: bool,
        drops_foreign: bool,
    ) -> None:
        serving, following = lines
        self._settings = settings
        self._serving = serving.pipeline
        self._pipeline = following.pipeline
        self._reconciled = following.follower.reconciled
        self._serving_sink, self._next_sink = sinks
        self._tell = tell
        self._is_patient = is_patient
        self._drops_foreign = drops_foreign

    async def judge(self, stop: asyncio.Event) -> Filled:
        """Go on until there is a verdict."""
        rounds, pause_seconds = 0, POLL_SECONDS
        while not await happens_within(stop, pause_seconds):
            pause_seconds = POLL_SECONDS
            self._tell(self._pipeline)
            if not self._reconciled.is_set() or not await self._pipeline.is_idle():
                continue
            if (await self._pipeline.totals()).retrying:
                if self._is_patient or await asyncio.to_thread(self._due_seconds) < PATIENCE_SECONDS:
                    continue
                return self._filled(outage=self._pipeline.tally.outage or "some files do not come to rest")
            try:
                comparison = await self._compared()
            except TransientError as error:
                if not self._is_patient:
                    return self._filled(outage=error.sentence)
                _log.warning("rebuild.put_off", reason=str(error), remedy=error.remedy)
                pause_seconds = AGAIN_SECONDS
                continue
            rounds += 1
            if comparison is None and (self._is_patient or rounds < MAX_ROUNDS):
                continue
            if comparison is None:
                return self._filled(outage="the folder changes too fast to be compared")
            if not comparison.differences or not self._is_patient:
                return self._filled(comparison)
            _log.error("rebuild.not_switched", differences=comparison.differences)
            pause_seconds = AGAIN_SECONDS
        return self._filled()

    async def _compared(self) -> Comparison | None:
        await self._pipeline.services.sink_lane.run(self._carry_notes)
        carried = await carry(self._serving_sink, self._next_sink, self._pipeline)
        return await compare(self._serving, self._pipeline, self._next_sink, carried, drops_foreign=self._drops_foreign)

    def _carry_notes(self) -> None:
        """Let the next collection have the metadata of its own that people have given to the serving one."""
        catalog = ChromaCatalog(self._next_sink.client)
        rows = {row.id: row for row in catalog.rows()}
        serving, following = (rows.get(sink.collection_id) for sink in (self._serving_sink, self._next_sink))
        if serving is None or following is None:
            return  # the comparison cannot read one that is gone, and says so
        catalog.modify(following, dict.fromkeys(noted(following)) | noted(serving), {})

    def _due_seconds(self) -> float:
        """In how many seconds what failed is tried again."""
        with ledger_of(self._settings) as ledger:
            due_seconds = ledger.next_due_seconds() if ledger is not None else None
        return 0.0 if due_seconds is None else due_seconds - time.time()

    def _filled(self, comparison: Comparison | None = None, outage: str = "") -> Filled:
        return Filled(self._next_sink.collection_id, self._pipeline.account.usage, comparison, outage)


class _Hushed:
    """The service manager, who is not told that a daemon stops which only makes place for the next one."""

    def __init__(self, notifier: ServiceNotifier) -> None:
        self._notifier = notifier
        self.ready = notifier.ready
        self.alive = notifier.alive
        self.status = notifier.status

    @property
    def watchdog_seconds(self) -> float | None:
        """Within how many seconds it wants a sign of life."""
        return self._notifier.watchdog_seconds

    def stopping(self) -> None:
        """Say nothing."""
