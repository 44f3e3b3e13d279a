"""Filling: a second collection beside the serving one, until it may take its place.

Both are followed meanwhile, each by pipelines of its own, one for each source: the serving one with its old recipe, so
that nobody who asks it notices, and the next one with the recipe of the settings. A ledger of the next one begins as a
copy of the serving one that knows the documents and none of their records, so that documents keep their ids.

Invariant: until the comparison is sound the serving collection is changed by nothing but what happens in the folder,
and whatever kills the process, the next start goes on with what is there.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.folder import Folder
from ingestor.adapters.instance import LIFE
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.adapters.runtime import SystemRuntime
from ingestor.app.beside import MODEL_NOTE, kept, next_ledger, next_name
from ingestor.app.collection import claimed_sink, sink_of
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
    """A collection that is served, and the sources that fill it: what a rebuild begins from."""

    sources: Sequence[Settings]
    folders: Sequence[Folder]
    """Of each source."""
    client: "ClientAPI"
    row: CollectionRow

    @property
    def settings(self) -> Settings:
        """Of the first source: all have the same collection and model."""
        return self.sources[0]

    @property
    def next_sources(self) -> list[Settings]:
        """The settings of each source, with the collection that is filled and its ledger."""
        return [each.varied(ledger_file=next_ledger(each), collection=next_name(each)) for each in self.sources]

    @property
    def serving(self) -> Serving:
        """How the collection is opened, whatever the settings say by now."""
        return serving_of(self.settings, self.row)

    def sink(self, stack: ExitStack) -> ChromaSink:
        """Open the collection by the recipe that it was built with, to write to it until the end of `stack`."""
        serving = self.serving
        sources = [serving.settings, *self.sources[1:]]
        return claimed_sink(sources, self.client, stack, serving.recipe if serving.is_former else None)

    def served(self, sink: ChromaSink) -> list[Sourced]:
        """The sources, followed by that recipe; with a model of their own, since a pipeline closes it."""
        embedder = self.serving.embedder()
        return [
            Sourced(serving_of(each, self.row).settings, folder, sink, embedder)
            for each, folder in zip(self.sources, self.folders, strict=True)
        ]


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


def ground_of(sources: Sequence[Settings], folders: Sequence[Folder], client: "ClientAPI") -> Ground | None:
    """What there is to rebuild; None when the collection of these sources is as the settings have it.

    Raises `ConfigError` when there is no collection, or one is kept already whose place is needed.
    """
    settings = sources[0]
    if settings.chroma.mode == "memory":
        raise ConfigError("a collection in memory cannot be rebuilt", remedy="start again: it is filled anew")
    name = settings.chroma.collection
    row = ChromaCatalog(client).find(name)
    if row is None:
        raise ConfigError(f"there is no collection {name!r} to rebuild", remedy="run `ingestor sync` or `ingestor run`")
    if not serving_of(settings, row).is_former and not sink_of(settings, client).unapplied:
        return None
    if any(kept(each) is not None for each in sources):
        raise ConfigError(
            f"a collection that {name!r} has replaced is still kept",
            remedy="`ingestor rebuild --prune` deletes it, `ingestor rebuild --rollback` takes it back",
        )
    return Ground(sources, folders, client, row)


async def fill(  # noqa: PLR0913 - what it begins from, and how it tells and ends
    ground: Ground,
    stop: asyncio.Event,
    notifier: ServiceNotifier,
    *,
    supervise: Callable[[str], bool] | None,
    tell: Callable[[Sequence[Pipeline]], None],
    is_patient: bool,
    drops_foreign: bool,
    beside: Sequence[Ground] = (),
) -> Filled:
    """Fill the next collection and follow the folders with both, until the comparison is sound or `stop` is set.

    One that is not patient ends with the first comparison that is not, and when an outside service stays away. What is
    `beside` is followed, too, by the recipe that it has.
    """
    with ExitStack() as stack:
        serving_sink, next_sink = await asyncio.to_thread(_sinks, ground, stack)
        await _begin_ledgers(ground, serving_sink, next_sink)
        count = len(ground.sources)
        sources = ground.served(serving_sink)
        for each, folder in zip(ground.next_sources, ground.folders, strict=True):
            sources.append(Sourced(each, folder, next_sink, counts_with_first=True))
        for other in beside:
            sources += other.served(await asyncio.to_thread(other.sink, stack))
        async with pipelines_of(sources) as pipelines:
            lines = [line_of(each.settings, pipeline) for each, pipeline in zip(sources, pipelines, strict=True)]
            finished = asyncio.Event()
            daemon = Daemon(lines, _Hushed(notifier), SystemRuntime(), supervise=supervise, life=LIFE)
            judge = _Judge(
                ground.next_sources,
                lines[:count],
                lines[count : 2 * count],
                (serving_sink, next_sink),
                tell,
                is_patient=is_patient,
                drops_foreign=drops_foreign,
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(daemon.run(finished))
                try:
                    return await judge.judge(stop)
                finally:
                    finished.set()


def _sinks(ground: Ground, stack: ExitStack) -> tuple[ChromaSink, ChromaSink]:
    serving = ground.sink(stack)
    try:
        return serving, claimed_sink(ground.next_sources, ground.client, stack)
    except RecipeMismatch as error:
        remedy = "take those settings back, or drop the unfinished rebuild with `ingestor rebuild --abandon`"
        raise RecipeMismatch(f"a rebuild is unfinished: {error}", remedy=remedy) from error


async def _begin_ledgers(ground: Ground, serving_sink: ChromaSink, next_sink: ChromaSink) -> None:
    """Make the ledgers of the next collection, but those that a rebuild has made before whose collection is there."""
    files, next_id = LedgerFiles(ground.settings.data_dir), next_sink.collection_id
    missing = [each for each in ground.sources if files.note(next_ledger(each), COLLECTION_NOTE) != next_id]
    if not missing:
        return
    # A ledger that was lost, or speaks of another collection, is first made to speak of this one.
    async with pipelines_of(ground.served(serving_sink)):
        pass
    notes = {
        COLLECTION_NOTE: next_id,
        MODEL_NOTE: described(recipe_of(ground.settings.embedding)),
        FOREIGN_NOTE: "0",
    }
    former = described(ground.serving.recipe)
    for each in missing:
        await asyncio.to_thread(files.set_note, each.ledger_file, MODEL_NOTE, former)
        await asyncio.to_thread(files.copy, each.ledger_file, next_ledger(each), notes, _empty)


def _empty(ledger: SqliteLedger) -> None:
    ledger.rewrite(emptied)


def described(recipe: Recipe) -> str:
    """A recipe as people name it."""
    return f"{recipe.provider}/{recipe.model}" + (f"@{recipe.dimensions}" if recipe.dimensions else "")


class _Judge:
    """Waits until nothing is left to do for the next collection, and compares."""

    def __init__(  # noqa: PLR0913 - the parts it looks at
        self,
        sources: Sequence[Settings],
        serving: Sequence[Line],
        following: Sequence[Line],
        sinks: tuple[ChromaSink, ChromaSink],
        tell: Callable[[Sequence[Pipeline]], None],
        *,
        is_patient: bool,
        drops_foreign: bool,
    ) -> None:
        self._sources = sources
        self._serving = [line.pipeline for line in serving]
        self._following = [line.pipeline for line in following]
        self._reconciled = [line.follower.reconciled for line in following]
        self._serving_sink, self._next_sink = sinks
        self._tell = tell
        self._is_patient = is_patient
        self._drops_foreign = drops_foreign

    async def judge(self, stop: asyncio.Event) -> Filled:
        """Go on until there is a verdict."""
        rounds, pause_seconds = 0, POLL_SECONDS
        while not await happens_within(stop, pause_seconds):
            pause_seconds = POLL_SECONDS
            self._tell(self._following)
            are_compared = all(reconciled.is_set() for reconciled in self._reconciled)
            if not are_compared or not await self._following[0].is_idle():
                continue
            totals = [await pipeline.totals() for pipeline in self._following]
            if any(its.retrying or its.waits for its in totals):
                if self._is_patient or await asyncio.to_thread(self._due_seconds) < PATIENCE_SECONDS:
                    continue
                outages = (pipeline.tally.outage for pipeline in self._following)
                return self._filled(outage=next(filter(None, outages), "some files do not come to rest"))
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
        await self._following[0].services.sink_lane.run(self._carry_notes)
        carried = await carry(self._serving_sink, self._next_sink, self._following[0])
        return await compare(
            self._serving, self._following, self._next_sink, carried, drops_foreign=self._drops_foreign
        )

    def _carry_notes(self) -> None:
        """Let the next collection have the metadata of its own that people have given to the serving one."""
        catalog = ChromaCatalog(self._next_sink.client)
        rows = {row.id: row for row in catalog.rows()}
        serving, following = (rows.get(sink.collection_id) for sink in (self._serving_sink, self._next_sink))
        if serving is None or following is None:
            return  # the comparison cannot read one that is gone, and says so
        catalog.modify(following, dict.fromkeys(noted(following)) | noted(serving), {})

    def _due_seconds(self) -> float:
        """In how many seconds what failed is tried again, at the soonest."""
        found = []
        for each in self._sources:
            with ledger_of(each) as ledger:
                found.append(ledger.next_due_seconds() if ledger is not None else None)
        now_seconds = time.time()
        return min((due_seconds - now_seconds for due_seconds in found if due_seconds is not None), default=0.0)

    def _filled(self, comparison: Comparison | None = None, outage: str = "") -> Filled:
        return Filled(self._next_sink.collection_id, self._following[0].account.usage, comparison, outage)


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
