"""One seed: a folder, the services, the processes that come and go over them, and whoever changes and breaks things.

The order of a seed: files are there; a daemon starts; then operations, spells, deaths and an operator's commands follow
one another at random moments; then all that ends, and the collection has to become the folder by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.rules import RULES_FILE, Rules
from ingestor.core.attaching import SETTINGS_FILE, SIDECAR_END
from ingestor.core.errors import DocumentError, ForeignCollection, ServiceUnavailable, TransientError, UnstableDocument
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import (
    Change,
    Content,
    Document,
    Doubt,
    DoubtKind,
    Hint,
    Priority,
    Record,
    Retag,
    Snapshot,
    Stat,
)
from ingestor.core.paths import is_at_or_below
from ingestor.engine.daemon import Daemon, Line
from ingestor.engine.following import HELD_SECONDS
from ingestor.engine.guard import APPROVED_NOTE
from ingestor.engine.pipeline import Parts, Pipeline
from ingestor.engine.reading import Reader
from ingestor.ports import Ledger, Sink, Source, Vectors
from tests.doubles_folder import MemoryFolder
from tests.doubles_ledger import MemoryLedger, MemoryVectors
from tests.doubles_sink import Held, MemorySink
from tests.simulation import operations
from tests.simulation.faults import KINDS, POISON, Blown, Endpoint, UnreliableVectors, Weather
from tests.simulation.history import History
from tests.simulation.loop import VirtualLoop
from tests.simulation.oracles import Oracles
from tests.simulation.owners import Owners
from tests.simulation.runtime import EPOCH_SECONDS, SimulatedRuntime
from tests.world import LineCutter, decode

RULES = Rules([], [])
RESCAN_SECONDS = 3600.0
SHORT_RESCAN_SECONDS = 400.0
"""Of seeds in which hints are lost without a word: only a comparison by the clock finds what they were of."""
REST_SECONDS = 600.0
AUDITED_SECONDS = 70.0
"""A change of the collection by others is found by the patrol alone, which goes round each minute."""
WAITS = 5
"""What happens at the end while deletions wait for approval."""
TAKEN_OVER_SECONDS = 70.0
"""Within which a process has to see that the collection is another's: it signs, and the patrol goes round."""
IDLE_SECONDS = 70.0
"""Of some seeds: after it has come to rest, the patrol goes round once more."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What may happen in a seed; each seed has some of it only, so that rare things meet each other."""

    steps: int = 30
    operations: Mapping[str, float] = field(default_factory=dict)
    """Other weights than those of `operations.ALL`."""
    without: frozenset[str] = frozenset()
    """Operations and faults that do not happen: "service kind", or "service" for all of them."""
    only: frozenset[str] = frozenset()
    """Faults besides which none happen; empty for all."""
    deaths: float = 1.0
    faults: float = 1.0
    """How much of each, by comparison."""
    owners: float = 0.1
    """In what share of the seeds others want the collection as well."""

    def has(self, service: str, kind: str) -> bool:
        """Whether a fault may happen."""
        names = {service, f"{service} {kind}"}
        return not names & self.without and (not self.only or bool(names & self.only))


@dataclass(slots=True)
class Traits:
    """What a seed is like."""

    operations: Mapping[str, float]
    faults: Sequence[tuple[str, str]]
    pause_seconds: float
    fault_rate: float
    death_rate: float
    lost_hints: float
    late_hints: float
    files: int
    is_long: bool

    @classmethod
    def of(cls, chance: Random, scenario: Scenario) -> "Traits":
        """Draw them."""
        weights = {
            name: scenario.operations.get(name, weight)
            for name, (weight, _) in operations.ALL.items()
            if name not in scenario.without
        }
        kinds = [(service, kind) for service, its in KINDS.items() for kind in its if scenario.has(service, kind)]
        share = chance.choice((0.3, 0.6, 1.0))
        return cls(
            operations={name: weight for name, weight in weights.items() if chance.random() < share} or weights,
            faults=[each for each in kinds if chance.random() < share],
            pause_seconds=chance.choice((0.05, 0.3, 1.0, 4.0)),
            fault_rate=scenario.faults * chance.choice((0.0, 0.05, 0.2)),
            death_rate=scenario.deaths * chance.choice((0.0, 0.0, 0.03, 0.1)),
            lost_hints=chance.choice((0.0, 0.0, 0.0, 0.0, 0.1)) if scenario.has("watch", "loses") else 0.0,
            late_hints=chance.choice((0.0, 0.1, 0.3)),
            files=chance.choice((0, 3, 10, 25)),
            is_long=chance.random() < 0.1,
        )


class SimulatedWatch:
    """`ports.Watch` of one process; the world gives it what the kernel would."""

    mode = "simulated"
    limitation = ""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.doubted: Doubt | None = None
        self.session = 0
        self.emit: Callable[[Hint], None] | None = None
        self.end_excuse: Callable[[], None] = lambda: None

    def start(self, emit: Callable[[Hint], None]) -> None:
        """See the port."""
        if self._world.folder.is_missing:
            raise ServiceUnavailable("the watched folder is not there")
        self.session += 1
        self.emit, self.doubted = emit, None

    def doubt(self) -> Doubt | None:
        """See the port."""
        if self._world.folder.is_missing:
            self.doubted = Doubt("the watched folder is not there", DoubtKind.ROOT)
        return self.doubted

    def doubt_because(self, kind: DoubtKind) -> None:
        """Let it doubt itself."""
        if self.doubted is None:
            self.doubted = Doubt(kind.value, kind)
            # What it has told already is forgotten with it, and found by the comparison after its restart.
            self.end_excuse = self._world.history.excuse_until_ended("the watch is started again")

    def stop(self) -> None:
        """See the port."""
        self.emit = None


@dataclass(eq=False, slots=True)
class Life:
    """One process."""

    runtime: SimulatedRuntime
    watch: SimulatedWatch
    stop: asyncio.Event
    task: "asyncio.Task[None] | None" = None
    pipeline: Pipeline | None = None
    is_ready: bool = False
    sentence: str = ""
    """What it says that it does."""
    end_excuse: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _Notifier:
    """The service manager."""

    world: "World"
    life: Life
    watchdog_seconds: float | None = None

    def ready(self) -> None:
        self.life.is_ready = True
        self.world.history.tell("* ready")

    def alive(self) -> None: ...

    def status(self, sentence: str) -> None:
        if sentence != self.life.sentence:
            self.world.history.tell(f"* says: {sentence}")
        self.life.sentence = sentence
        self.world.oracles.hear(sentence)

    def stopping(self) -> None: ...


class _Watched:
    """`ports.Source`: the folder, with a note of each scan."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def look(self, path: str) -> Stat | None:
        return None if self._is_empty else self._world.folder.look(path)

    def looks(self, paths: Sequence[str]) -> list[Stat | DocumentError | TransientError | None]:
        return [None] * len(paths) if self._is_empty else self._world.folder.looks(paths)

    def place(self) -> str:
        return "a mount point" if self._is_empty else self._world.folder.place()

    def read(self, path: str) -> Content:
        if self._is_empty:
            raise UnstableDocument("the file vanished before it was read", retry_after_seconds=0.2)
        content: Content = self._world.weather.meet("thread", "read", self._world.folder.read, path)
        return content

    @property
    def _is_empty(self) -> bool:
        """Whether it is a mount point without its disk."""
        return self._world.is_away and not self._world.folder.is_missing

    def scan(self, below: str = "") -> Snapshot:
        snapshot = Snapshot({}) if self._is_empty else self._world.folder.scan(below)
        self._world.history.tell(f"  scan of /{below}: {len(snapshot.files)} files")
        self._world.history.see(lambda path: is_at_or_below(path, below))
        if not below:
            self._world.life.end_excuse()
            self._world.life.watch.end_excuse()
        return snapshot


class _Seen:
    """`ports.Sink`: the collection, with a note of what is written."""

    def __init__(self, sink: MemorySink, world: "World", owned: ChromaSink | None) -> None:
        self._sink = sink
        self._world = world
        self._owned = owned
        """What knows whose the collection is, where others want it."""

    def add(self, records: Sequence[Record], vectors: Vectors) -> None:
        if not self._world.is_behind_backs:
            self._world.oracles.added(records)
        self._sink.add(records, vectors)

    def retag(self, retags: Sequence[Retag]) -> None:
        if not (self._world.is_behind_backs and "late retag" in self._world.scenario.without):
            self._sink.retag(retags)

    def drop(self, ids: Sequence[str]) -> None:
        if not self._world.is_behind_backs:
            self._world.oracles.dropped(ids)
        self._sink.drop(ids)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the port has
        is_about_owners = self._owned is not None and name in {"ours", "confirm", "keep"}
        return getattr(self._owned if is_about_owners else self._sink, name)


class World:
    """Everything of one seed."""

    def __init__(
        self, seed: int, scenario: Scenario, loop: VirtualLoop, listen: Callable[[str], None] | None = None
    ) -> None:
        self.loop = loop
        self.chance = Random(f"{seed}/operations")
        self._moments = Random(f"{seed}/moments")
        self._fate = Random(f"{seed}/fate")
        self.traits = Traits.of(Random(f"{seed}/traits"), scenario)
        self.scenario = scenario
        self.author = operations.Author()
        self.history = History(loop.time, listen)
        self.folder = MemoryFolder(RULES, now_ns=lambda: int((EPOCH_SECONDS + loop.time()) * 1e9))
        self.ledger = MemoryLedger()
        self.vectors = MemoryVectors()
        self.sink = MemorySink()
        self.weather = Weather(loop, Random(f"{seed}/weather"), self.history, self._behind_backs)
        self.weather.without = scenario.without
        self.endpoint = Endpoint(loop, Random(f"{seed}/endpoint"), self.weather, self.history)
        self.endpoint.paths_of = self._paths_of
        self.reader = Reader(cast("Source", _Plain(self.folder)), decode, LineCutter())
        chance = Random(f"{seed}/owners")
        is_wanted = chance.random() < scenario.owners
        self.owners = Owners(self.sink, lambda: EPOCH_SECONDS + loop.time(), chance) if is_wanted else None
        """Those who want the collection as well; None where nobody does."""
        self.oracles = Oracles(self)
        self.lines: dict[str, frozenset[str]] = {}
        """Path -> the texts that a file of the source holds now."""
        self._ever: dict[str, set[str]] = {}
        self._views: dict[str, object] = {}
        self.documents: dict[str, Document | None] = {}
        """Path -> what is to be indexed of a file of the source; None for what cannot be."""
        self._busy: set[asyncio.Task[None]] = set()
        self.life = self._new_life()
        self.is_ending = False
        self.is_behind_backs = False
        self.is_away = False
        """Whether the folder is unmounted."""
        self.is_taken_over = False
        """Whether somebody else has the collection."""

    # What is there

    @property
    def records(self) -> Mapping[str, Held]:
        """Those of the collection that are its owner's."""
        foreign = self.owners.foreign if self.owners else {}
        return {id_: held for id_, held in self.sink.held.items() if id_ not in foreign} if foreign else self.sink.held

    @property
    def rescan_seconds(self) -> float:
        """How often the folder is compared by the clock."""
        return SHORT_RESCAN_SECONDS if self.traits.lost_hints else RESCAN_SECONDS

    def is_hidden(self, path: str) -> bool:
        """Whether nobody can tell what a path should be just now."""
        folder = self.folder
        hidden = any(is_at_or_below(path, each) for each in folder.unreadable)
        return hidden or self.is_away or path in folder.closed or path in folder.unsettled

    def did(self, what: str, *hints: Hint) -> None:
        """A change was made to the folder."""
        self.history.tell(f"> {what}")
        touched = self._touched(hints)
        changed = {path for path in touched if self._is_changed(path)}
        for hint in hints:
            self._hint(hint, {path for path in changed if _is_about(hint, path)})

    def _touched(self, hints: Sequence[Hint]) -> list[str]:
        known = dict.fromkeys((*self.folder.paths, *self._views))  # what is gone has a view, too
        return [path for path in known if not hints or any(_is_about(hint, path) for hint in hints)]

    def _is_changed(self, path: str) -> bool:
        """Look at a path again; whether it is not what it was."""
        try:
            content = self.folder.content(path) if self._belongs(path) else None
        except DocumentError:
            content = None
        told = content and (content.stat, content.stat.attached, content.content_hash)
        view = (told, self.is_hidden(path))
        if view == self._views.get(path, (None, False)):
            return False
        self._views[path] = view
        before = self.lines.get(path, frozenset())
        if content is None:
            self.documents.pop(path, None)
            self.lines.pop(path, None)
        else:
            try:
                self.documents[path] = self.reader.read(path)
            except DocumentError:
                self.documents[path] = None
        document = self.documents.get(path)
        now = frozenset(chunk.text for chunk in document.chunks) if document else frozenset[str]()
        if any(POISON in text for text in now):
            # The model refuses it, and the document with it.
            self.documents[path], now = None, frozenset()
        if content is not None:
            self.lines[path] = now
        self._ever.setdefault(path, set()).update(now)
        self.history.disturb([path])
        self.history.change(path, before - now, now)
        self.oracles.note_change(path)
        return True

    def _belongs(self, path: str) -> bool:
        return path in self.folder.paths and self.folder._belongs(path)

    def _paths_of(self, texts: Sequence[str]) -> frozenset[str]:
        """The paths whose files hold one of some texts, or have held it."""
        wanted = set(texts)
        return frozenset(path for path, ever in self._ever.items() if not ever.isdisjoint(wanted))

    def rests(self, path: str) -> bool:
        """Whether a file changes so often that it is left alone for a while."""
        return self.life.pipeline is not None and self.life.pipeline.worker.rest_seconds(path) > 0

    def is_taken_by_another(self, document_id: str, path: str) -> bool:
        """Whether a document is being brought to another path, as that of a file that was renamed."""
        worker = self.life.pipeline and self.life.pipeline.worker
        claim = worker._claims.get(document_id) if worker else None
        return claim is not None and claim.path != path

    def was_in_a_file(self, text: str) -> bool:
        """Whether a file has held a text."""
        return any(text in ever for ever in self._ever.values())

    # Hints

    def _hint(self, hint: Hint, about: set[str]) -> None:
        watch, chance = self.life.watch, self._fate
        if watch.emit is None:
            return
        if self.traits.lost_hints and chance.random() < self.traits.lost_hints:
            self.history.figures.faults["watch loses"] += 1
            self.history.tell(f"~ the hint of {hint.path} is lost")
            return
        for _ in range(2 if chance.random() < 0.05 else 1):
            seconds = 0.02 * chance.random()
            if chance.random() < self.traits.late_hints:
                seconds += 3 * chance.random()
            self.loop.call_later(seconds, self._deliver, watch, watch.session, hint, about, self.loop.time())

    def _deliver(self, watch: SimulatedWatch, session: int, hint: Hint, about: set[str], at_seconds: float) -> None:
        if watch.emit is None or watch.session != session or watch.doubted is not None:
            return
        self.history.tell(f"  hint: {hint.path}{'/' if hint.is_folder else ''}{' closed' if hint.is_closed else ''}")
        self.history.see(about.__contains__, at_seconds)
        watch.emit(hint)

    # Processes

    def _new_life(self) -> Life:
        runtime = SimulatedRuntime(self.loop, self._moments, self.weather)
        return Life(runtime, SimulatedWatch(self), asyncio.Event())

    async def _live(self, life: Life) -> None:
        folder = cast("Source", _Watched(self))
        owned = self.owners.open() if self.owners else None
        sink = cast("Sink", Blown(_Seen(self.sink, self, owned), "chroma", self.weather))
        parts = Parts(
            source=folder,
            reader=Reader(folder, decode, LineCutter()),
            ledger=cast("Ledger", Blown(self.ledger, "ledger", self.weather)),
            vectors=UnreliableVectors(self.vectors, self.weather, self.endpoint.kept),
            embedder=self.endpoint,
            sink=sink,
            runtime=life.runtime,
            estimate_tokens=len,
        )
        limit = DeletionLimit(max_ratio=0.5, min_documents=10)
        life.pipeline = Pipeline(parts, rescan_seconds=self.rescan_seconds, limit=limit)
        await life.pipeline.prepare()
        follower = life.pipeline.follower(life.watch, quiet_seconds=1.0, rules_file=RULES_FILE)
        line = Line(life.pipeline, follower, life.watch)
        daemon = Daemon([line], _Notifier(self, life), life.runtime, supervise=self._supervise)
        try:
            await daemon.run(life.stop)
        except BaseException as error:
            if not life.runtime.is_dead and not self.is_taken_over:
                self.oracles.accuse("a task has died", repr(error))
            raise
        await life.pipeline.close()

    def _supervise(self, complaint: str) -> bool:
        if complaint:
            self.history.tell(f"* Chroma is started again: {complaint}")
            self.weather.spells.pop("chroma", None)
            self.weather.was_restarted = True
        was_restarted, self.weather.was_restarted = self.weather.was_restarted, False
        return was_restarted

    async def _keep_running(self) -> None:
        """The service manager."""
        while True:
            life = self.life = self._new_life()
            life.end_excuse = self.history.excuse_until_ended("the process starts")
            self.history.tell("* a process starts")
            life.task = self.loop.create_task(self._live(life))
            await asyncio.wait([life.task])
            if not life.task.cancelled() and (error := life.task.exception()) is not None:
                self.history.tell(f"* the process ends: {error!r}" if not self.is_taken_over else "* the process ends")
                if not isinstance(error, TransientError) and not self.is_taken_over:
                    self.oracles.accuse("a start fails", repr(error))
            self.history.figures.restarts += 1
            if self.is_ending:
                return
            end = self.history.excuse_until_ended("no process runs")
            await asyncio.sleep(0.1 + 3 * self._fate.random())
            end()

    async def kill(self) -> None:
        """The process dies at this instant."""
        life = self.life
        if life.task is None or life.task.done():
            return
        self.history.tell("* the process is killed")
        self.history.figures.deaths += 1
        self.endpoint.caller_died()
        life.runtime.die()
        life.watch.stop()
        life.task.cancel()
        await asyncio.wait([life.task])
        self.history.forget_seen()

    def _behind_backs(self, effect: Callable[[], object]) -> None:
        """Change the collection when nobody waits for it any more: what differs then is for the engine to find."""
        before = dict(self.sink.held)
        self.is_behind_backs = True
        effect()
        self.is_behind_backs = False
        after = self.sink.held
        ids = [id_ for id_ in {**before, **after} if before.get(id_) is not after.get(id_)]
        held = [held for id_ in ids for held in (before.get(id_), after.get(id_)) if held is not None]
        self.history.disturb(sorted({str((each.metadata or {})["source"]) for each in held}), AUDITED_SECONDS)
        self.oracles.disturbed()

    # What happens

    async def run(self) -> None:
        """Live through the seed; raises `Violated`."""
        operations.fill(self, self.traits.files)
        driver = self.loop.create_task(self._drive())
        keeper = self.loop.create_task(self._keep_running())
        watcher = self.loop.create_task(self.oracles.run())
        try:
            await asyncio.wait({driver, self.oracles.accused}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_ending = True
            if self.owners:
                self.owners.close()
            for task in (driver, watcher, *self._busy):
                task.cancel()
            if self.life.task is not None and not self.life.task.done():
                self.life.runtime.die()
                self.life.task.cancel()
            keeper.cancel()
            await asyncio.wait({driver, keeper, watcher, *self._busy, *filter(None, (self.life.task,))})
            self.history.figures.seconds = self.loop.time()
        if driver.done() and not driver.cancelled():
            driver.result()
        self.oracles.judge()

    async def _drive(self) -> None:
        await asyncio.sleep(self.chance.random() * 3)
        others = self.loop.create_task(self._be_visited(self.owners)) if self.owners else None
        for _ in range(self.scenario.steps):
            await asyncio.sleep(self.chance.expovariate(1 / self.traits.pause_seconds))
            if self._fate.random() < self.traits.fault_rate:
                self._break_something()
            if self._fate.random() < self.traits.death_rate:
                await self.kill()
            if self._fate.random() < 0.03:
                self._command()
            self._start_an_operation()
        if others is not None:
            others.cancel()
            await asyncio.wait([others])
            if not others.cancelled():
                others.result()
        while self._busy:
            await asyncio.wait(set(self._busy))
        self._mend_everything()
        await self._come_to_rest()

    def _start_an_operation(self) -> None:
        names = list(self.traits.operations)
        (name,) = self.chance.choices(names, list(self.traits.operations.values()))
        self.history.figures.operations[name] += 1
        task = self.loop.create_task(cast("Any", operations.ALL[name][1](self)))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    def _break_something(self) -> None:
        fate = self._fate
        if fate.random() < 0.15 and self.scenario.has("watch", "overflow"):
            self._lose_hints()
        elif fate.random() < 0.08 and self.scenario.has("folder", "away"):
            if not self.is_away:
                self._spawn(self._unmount())
        elif self.traits.faults:
            service, kind = fate.choice(self.traits.faults)
            seconds = fate.choice((0.5, 3.0, 15.0, 60.0)) * (0.5 + fate.random())
            if kind == "restarted":
                seconds = 1 + 2 * fate.random()
            self.weather.begin(service, kind, seconds, fate.choice((0.3, 1.0)) if kind != "restarted" else 1.0)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = self.loop.create_task(cast("Any", work))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    def _lose_hints(self) -> None:
        self.history.figures.faults["watch overflow"] += 1
        self.history.tell("~ watch: too many events, some are lost")
        self.life.watch.doubt_because(DoubtKind.OVERFLOW)

    async def _unmount(self) -> None:
        self.history.figures.faults["folder away"] += 1
        self.is_away = True
        # A mount point that stays, or one that goes with its disk.
        self.folder.is_missing = self._fate.random() < 0.5 or not self.scenario.has("folder", "empty")
        self.history.tell(f"~ the folder is unmounted{', and missing' if self.folder.is_missing else ''}")
        self.life.watch.doubt_because(DoubtKind.ROOT)
        self.did("nobody can tell what is there")
        await asyncio.sleep(10 * self._fate.random())
        self.is_away = self.folder.is_missing = False
        self.life.watch.doubt_because(DoubtKind.ROOT)
        self.history.tell("~ the folder is mounted again")
        self.did("all is as it was")

    async def _be_visited(self, owners: Owners) -> None:
        """Others come for the collection again and again, or have left records in it."""
        chance = owners.chance
        while True:
            await asyncio.sleep(chance.expovariate(1 / (5 * self.traits.pause_seconds)))
            what = chance.choice(("another owner", "a copy", "records"))
            if not owners.has_begun:
                continue
            self.history.figures.faults[f"owners {what}"] += 1
            self.history.tell(f"~ {what} comes for the collection")
            if what == "records":
                owners.put_foreign(chance.choice([*self.documents, "theirs.txt"]))
            elif owners.is_let_in(is_copy=what == "a copy"):
                self.oracles.accuse("a second owner is let in", what)

    async def _lose_the_collection(self, owners: Owners) -> None:
        """Another owner takes the collection over: the process has to end, and must not come back."""
        assert self.life.task is not None
        self.history.tell("~ another owner takes the collection over")
        self.is_ending = self.is_taken_over = True
        owners.take_over()
        await asyncio.wait([self.life.task], timeout=TAKEN_OVER_SECONDS)
        error = self.life.task.exception() if self.life.task.done() else None
        if not isinstance(error, BaseExceptionGroup) or error.subgroup(ForeignCollection) is None:
            self.oracles.accuse("a second owner is not noticed", repr(error))
        try:
            owners.open()
        except ForeignCollection:
            return
        self.oracles.accuse("a second owner is let in", "the one that was before")

    def _command(self) -> None:
        """What an operator may do at any time."""
        if self.held:
            if not self.is_away:
                self.approve()
            return
        failed = {path for path, problem in self.ledger.waiting().items() if problem is not None}
        paths = sorted({path for path, _ in self.ledger.problems()} | failed)
        if paths:
            self.history.tell(f"> ingestor retry: {', '.join(paths)}")
            now_seconds = EPOCH_SECONDS + self.loop.time()
            self.ledger.enqueue(paths, Change("", Priority.LIVE, now_seconds, now_seconds))

    @property
    def held(self) -> list[str]:
        """The paths whose deletions wait for approval."""
        return [path for path, is_approved in self.ledger.held().items() if not is_approved]

    def approve(self) -> None:
        """Approve of the deletions that are held back."""
        self.history.tell(f"> ingestor approve: {', '.join(self.held)}")
        self.history.disturb(self.held)  # from now on there is something to do about them
        self.history.see(self.held.__contains__)
        self.oracles.note_approval(self.held)
        self.ledger.set_note(APPROVED_NOTE, str(self.ledger.approve(self.held)))

    def _mend_everything(self) -> None:
        self.history.tell("- nothing happens any more")
        self.weather.clear_up()
        self.is_away = self.folder.is_missing = False
        for folder in sorted(self.folder.unreadable):
            del self.folder.unreadable[folder]
            self.did(f"chmod 755 {folder}/", Hint(folder, is_folder=True))

    async def _let_deletions_wait(self) -> None:
        """Nobody approves for a while: hints come of what is held back, new files beside it, another process."""
        chance = self.chance
        for _ in range(WAITS):
            await asyncio.sleep(HELD_SECONDS * chance.random())
            if not self.held:
                return
            path = chance.choice(self.held)
            what = chance.choice(("file", "folder", "new", "kill"))
            if what == "kill":
                await self.kill()
            elif what == "new":
                await operations.create_many(self)
            else:
                place = path if what == "file" else path.rpartition("/")[0]
                self.did(f"tell of {place}", Hint(place, is_folder=what == "folder"))

    async def _come_to_rest(self) -> None:
        within_seconds = REST_SECONDS
        if self.traits.lost_hints:
            within_seconds += 1.1 * self.rescan_seconds
        deadline_seconds = self.loop.time() + within_seconds
        await self._let_deletions_wait()
        quiet = 0
        while quiet < 3:
            if self.loop.time() > deadline_seconds:
                self.oracles.accuse("it does not come to rest", self.oracles.unrest())
                return
            await asyncio.sleep(1.0)
            if self.held and not any(path in self.documents for path in self.held):
                self.approve()
            quiet = 0 if self.oracles.unrest() else quiet + 1
        self.history.tell("- at rest")
        if self.traits.is_long or self.owners:
            writes = len(self.sink.writes)
            await asyncio.sleep(IDLE_SECONDS)
            if found := self.oracles.unrest():
                self.oracles.accuse("it does not stay at rest", found)
            if len(self.sink.writes) != writes:
                self.oracles.accuse("it does not stay at rest", "it writes although nothing has changed")
        if self.owners:
            await self._lose_the_collection(self.owners)
        self.is_ending = True
        self.life.stop.set()
        assert self.life.task is not None
        await asyncio.wait([self.life.task])


def _is_about(hint: Hint, path: str) -> bool:
    """Whether who hears a hint looks at a path."""
    folder, _, name = hint.path.rpartition("/")
    if name in {SETTINGS_FILE, RULES_FILE}:
        return is_at_or_below(path, folder)
    return is_at_or_below(path, hint.path) if hint.is_folder else hint.path in {path, path + SIDECAR_END}


class _Plain:
    """A `Source` whose files anybody may read at any time."""

    def __init__(self, folder: MemoryFolder) -> None:
        self.read = folder.content
