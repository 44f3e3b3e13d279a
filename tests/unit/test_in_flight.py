"""A path that changes while it is in work: whatever changes, whenever, the collection ends equal to the folder.

A file is on its way through the engine, and at one point of that way something happens to it. The points are the
windows between what was awaited and what was made of it: a mend that closes one of them leaves the others open.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from ingestor.core import settling
from ingestor.core.model import Change, Content, Entry, Hint, Plan, Priority, Record, Snapshot, Stat
from ingestor.engine import following, reconcile
from ingestor.engine import worker as worker_module
from ingestor.engine.following import Follower
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import Vector, Vectors
from tests.doubles_embedder import HashEmbedder
from tests.doubles_folder import MemoryFolder
from tests.doubles_ledger import MemoryLedger
from tests.doubles_sink import MemorySink
from tests.doubles_watch import ScriptedWatch
from tests.world import World

PAUSE_SECONDS = 0.01
HELD_SECONDS = 5.0
"""How long the way is held open at the point, at most: until what has happened there was heard of and looked at."""
F = "d/f.md"
OLD, NEW = b"kept\nold", b"kept\nsecret"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PAUSE_SECONDS", PAUSE_SECONDS)
    monkeypatch.setattr(following, "SUPERVISE_SECONDS", 10 * PAUSE_SECONDS)
    for module in (settling, following, reconcile, worker_module):
        monkeypatch.setattr(module, "GONE_SECONDS", 2 * PAUSE_SECONDS)


class Point:
    """A point of the way, at which something happens once."""

    def __init__(self, name: str, path: str, happens: Callable[[], None], is_answered: Callable[[], bool]) -> None:
        self.name = name
        self.path = path
        self._happens = happens
        self._is_answered = is_answered
        self._lock = threading.Lock()
        self.is_armed = False
        self.has_passed = threading.Event()

    def passes(self, name: str, path: str, *, hold_seconds: float = HELD_SECONDS) -> None:
        """Called by whatever the way leads through."""
        with self._lock:
            is_here = self.is_armed and (name, path) == (self.name, self.path)
            if is_here:
                self.is_armed = False
                self._happens()
        if is_here:
            until_seconds = time.monotonic() + hold_seconds
            while time.monotonic() < until_seconds and not self._is_answered():
                time.sleep(PAUSE_SECONDS)
            self.has_passed.set()


class SharedFolder(MemoryFolder):
    """A folder that is changed while others look at it."""

    def __init__(self, point: Point | None = None) -> None:
        super().__init__()
        self.point = point
        self.seen = 0
        """How often it was looked at the path: after its hint, at its lease, before its write, before its commit."""
        self._lock = threading.RLock()

    def write(self, path: str, raw: bytes = b"", *, is_regular: bool = True) -> None:
        with self._lock:
            super().write(path, raw, is_regular=is_regular)

    def delete(self, path: str) -> None:
        with self._lock:
            super().delete(path)

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            super().rename(old, new)

    def scan(self, below: str = "") -> Snapshot:
        with self._lock:
            return super().scan(below)

    def look(self, path: str) -> Stat | None:
        with self._lock:
            found = super().look(path)
        if self.point and self.point.is_armed and path == self.point.path:
            self.seen += 1
            # The first look is that of who follows the folder, and answers nothing else meanwhile.
            hold_seconds = HELD_SECONDS if self.seen > 1 else 2 * PAUSE_SECONDS
            self.point.passes(f"looked at, time {self.seen}", path, hold_seconds=hold_seconds)
        return found

    def read(self, path: str) -> Content:
        with self._lock:
            found = super().read(path)
        if self.point:
            self.point.passes("read", path)
        return found


class WatchedLedger(MemoryLedger):
    """A ledger whose calls are points of the way. Nobody is served meanwhile, so that they are short."""

    point: Point

    def lease(
        self,
        limit: int,
        now_seconds: float,
        *,
        least: Priority = Priority.BACKFILL,
        in_work: Collection[str] | None = None,
    ) -> list[Change]:
        leased = super().lease(limit, now_seconds, least=least, in_work=in_work)
        for change in leased:
            self.point.passes("leased", change.path, hold_seconds=0.0)
        return leased

    def kin(self, path: str, stat: Stat, content_hash: str) -> list[Entry]:
        found = super().kin(path, stat, content_hash)
        self.point.passes("planned", path, hold_seconds=0.0)
        return found

    def mark(self, entries: Sequence[Entry], dropped: int = 0, removed: Sequence[str] = ()) -> None:
        for entry in entries:
            self.point.passes("about to be marked", entry.path, hold_seconds=0.0)
        super().mark(entries, dropped, removed)

    def commit(self, plans: Sequence[Plan], changes: Sequence[Change]) -> None:
        for plan in plans:
            self.point.passes("about to be committed", plan.path, hold_seconds=0.0)
        super().commit(plans, changes)
        for plan in plans:
            self.point.passes("committed", plan.path, hold_seconds=0.0)


class WatchedSink(MemorySink):
    """A collection whose calls are points of the way."""

    point: Point

    def __init__(self) -> None:
        super().__init__()
        self.written: set[str] = set()
        """Paths of which something was ever written."""

    def add(self, records: Sequence[Record], vectors: Vectors | Sequence[Vector]) -> None:
        for path in {str(record.metadata["source"]) for record in records}:
            self.point.passes("about to be added", path)
        super().add(records, vectors)
        self.written.update(str(record.metadata["source"]) for record in records)
        for path in {str(record.metadata["source"]) for record in records}:
            self.point.passes("added", path)


class SlowEmbedder(HashEmbedder):
    """A model whose calls are a point of the way of the text `secret`."""

    point: Point

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, object]:  # type: ignore[override]
        if "secret" in texts:
            await asyncio.to_thread(self.point.passes, "embedded", F)
        return await super().embed(texts)


@dataclass(frozen=True)
class Happening:
    """Something that happens to the file, and what a watch tells of it."""

    act: Callable[[MemoryFolder], None]
    hints: Sequence[Hint]
    before: Mapping[str, bytes] = field(default_factory=dict)
    """What is there besides, from the beginning."""


def _rename_over(folder: MemoryFolder) -> None:
    folder.rename(F, "d/gone.md")
    folder.rename("d/other.md", F)
    folder.delete("d/gone.md")


def _becomes_folder(folder: MemoryFolder) -> None:
    folder.delete(F)
    folder.write(f"{F}/inside.md", b"inside")


def _folder_becomes_file(folder: MemoryFolder) -> None:
    folder.delete("d")
    folder.write("d", b"a file now")


HAPPENINGS = {
    "deleted": Happening(lambda folder: folder.delete(F), [Hint(F)]),
    "edited": Happening(lambda folder: folder.write(F, b"kept\nharmless"), [Hint(F, is_closed=True)]),
    "emptied": Happening(lambda folder: folder.write(F), [Hint(F, is_closed=True)]),
    "turned binary": Happening(lambda folder: folder.write(F, b"\0"), [Hint(F, is_closed=True)]),
    "touched": Happening(lambda folder: folder.touch(F), [Hint(F, is_closed=True)]),
    "written back": Happening(lambda folder: folder.write(F, OLD), [Hint(F, is_closed=True)]),
    "renamed": Happening(lambda folder: folder.rename(F, "d/new.md"), [Hint(F), Hint("d/new.md", is_closed=True)]),
    "moved": Happening(lambda folder: folder.rename(F, "e/f.md"), [Hint("e/f.md", is_closed=True), Hint(F)]),
    "folder renamed": Happening(
        lambda folder: folder.rename("d", "e"), [Hint("d", is_folder=True), Hint("e", is_folder=True)]
    ),
    "folder deleted": Happening(lambda folder: folder.delete("d"), [Hint("d", is_folder=True)]),
    "replaced": Happening(_rename_over, [Hint("d/other.md"), Hint(F, is_closed=True)], {"d/other.md": b"other"}),
    "became a folder": Happening(_becomes_folder, [Hint(F), Hint(F, is_folder=True)]),
    "folder became a file": Happening(_folder_becomes_file, [Hint("d", is_folder=True), Hint("d", is_closed=True)]),
    "left out": Happening(
        lambda folder: folder.write("d/.ingestorignore", b"f.md\n"), [Hint("d/.ingestorignore", is_closed=True)]
    ),
    "left out by settings": Happening(
        lambda folder: folder.write("d/.ingestor.toml", b"ignore = ['f.md']"),
        [Hint("d/.ingestor.toml", is_closed=True)],
    ),
    "given metadata": Happening(
        lambda folder: folder.write("d/.ingestor.toml", b"metadata.team = 'red'"),
        [Hint("d/.ingestor.toml", is_closed=True)],
    ),
    "given a sidecar": Happening(
        lambda folder: folder.write(f"{F}.meta.json", b'{"team": "red"}'), [Hint(f"{F}.meta.json", is_closed=True)]
    ),
    "lost its sidecar": Happening(
        lambda folder: folder.delete(f"{F}.meta.json"),
        [Hint(f"{F}.meta.json")],
        {f"{F}.meta.json": b'{"team": "red"}'},
    ),
    "given front matter": Happening(
        lambda folder: folder.write(F, b"---\nteam: red\n---\nkept\nsecret"), [Hint(F, is_closed=True)]
    ),
}
POINTS = (
    "looked at, time 1",
    "leased",
    "looked at, time 2",
    "read",
    "planned",
    "embedded",
    "looked at, time 3",
    "about to be marked",
    "about to be added",
    "added",
    "looked at, time 4",
    "about to be committed",
    "committed",
)
LAST_LOOK = "looked at, time 4"
"""From here on nothing but a hint or a comparison can tell."""


class Scene:
    """A file on its way, a point of it, and what follows the folder meanwhile."""

    def __init__(self, point: str, happening: Happening, *, told_by: str = "hint", is_known: bool = False) -> None:
        self.happening = happening
        self.told_by = told_by
        self.point = Point(point, F, self._happens, self._is_answered)
        self._quiet = 0
        self.world = World()
        self.world.folder = self.folder = SharedFolder(self.point)
        self.world.ledger = WatchedLedger()
        self.world.ledger.point = self.point
        self.sink = self.world.sink = WatchedSink()
        self.sink.point = self.point
        self.world.embedder = SlowEmbedder(max_batch_inputs=4)
        self.world.embedder.point = self.point
        self.watch = ScriptedWatch()
        self.is_known = is_known
        self.content = NEW
        for path, raw in {"else.md": b"elsewhere", "d/more.md": b"more", **happening.before}.items():
            self.folder.write(path, raw)
        if is_known:
            self.folder.write(F, OLD)
        self.pipeline: Pipeline | None = None
        self.follower: Follower | None = None
        self._loop = asyncio.get_running_loop()

    def _happens(self) -> None:
        self.happening.act(self.folder)
        if self.told_by == "hint":
            for hint in self.happening.hints:
                self.watch.emit(hint)
        elif self.told_by == "scan":
            assert self.follower is not None
            self._loop.call_soon_threadsafe(self.follower.rescan, "a test")

    def _is_answered(self) -> bool:
        """Whether nothing that was heard of waits to be looked at, and has not for a while."""
        self._quiet = 0 if self.follower is None or self.follower.is_behind else self._quiet + 1
        return self._quiet > 3 or self.told_by == "nobody"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Pipeline]:
        """A daemon's parts, at rest after the first comparison."""
        pipeline = self.pipeline = self.world.pipeline()
        follower = self.follower = pipeline.follower(self.watch, quiet_seconds=0.0, rules_file=".ingestorignore")
        await pipeline.prepare()
        async with pipeline.running() as tasks:
            working = [tasks.create_task(follower.run())]
            await follower.reconciled.wait()
            working.append(tasks.create_task(pipeline.worker.run()))
            await self.at_rest()
            yield pipeline
            for task in working:
                task.cancel()
        await pipeline.close()

    async def at_rest(self) -> None:
        """Wait until nothing is left to do, and stays so."""
        quiet = 0
        async with asyncio.timeout(20):
            while quiet < 4:
                await asyncio.sleep(PAUSE_SECONDS)
                is_quiet = not self.world.ledger.queue and self.follower is not None and not self.follower.is_behind
                quiet = quiet + 1 if is_quiet else 0

    async def sent_on_its_way(self) -> None:
        """Write the file, and wait until what happens to it has happened, and all rests again."""
        self.point.is_armed = True
        self.folder.write(F, self.content)
        self.watch.emit(Hint(F, is_closed=True))
        async with asyncio.timeout(20):
            while not self.point.has_passed.is_set():
                await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.sleep(4 * PAUSE_SECONDS)
        await self.at_rest()

    def told(self) -> list[tuple[str, str, object]]:
        """What the collection says: source, text, and the metadata of one's own that is at stake."""
        return sorted(
            (str(held.metadata["source"]), str(held.document), held.metadata.get("team"))
            for held in self.world.sink.held.values()
            if held.metadata is not None
        )


async def fresh(folder: MemoryFolder) -> list[tuple[str, str, object]]:
    """What a fresh ingestion of the folder says."""
    scene = Scene("nowhere", HAPPENINGS["deleted"])
    scene.world.folder = folder
    scene.folder = folder  # type: ignore[assignment]
    await scene.world.sync()
    return scene.told()


def _points(told_by: str) -> Sequence[str]:
    """The points at which somebody can still learn of what happens."""
    return {"hint": POINTS, "scan": POINTS[:-1], "nobody": POINTS[: POINTS.index(LAST_LOOK)]}[told_by]


@pytest.mark.parametrize("told_by", ["hint", "scan", "nobody"])
@pytest.mark.parametrize("happening", HAPPENINGS)
async def test_what_changes_while_it_is_in_work_is_what_the_collection_ends_with(happening: str, told_by: str) -> None:
    """At every point of its way, for a new file and for a known one; all of these at once, to save time."""

    async def outcome(point: str, *, is_known: bool) -> str:
        scene = Scene(point, HAPPENINGS[happening], told_by=told_by, is_known=is_known)
        async with scene.running():
            await scene.sent_on_its_way()
        told, expected = scene.told(), await fresh(scene.folder)
        if told_by == "nobody":
            # Of other paths nobody has heard; of this one the work itself has found out.
            told, expected = ([each for each in found if each[0] == F] for found in (told, expected))
        paid = Counter(scene.world.embedded_texts())
        if told == expected and max(paid.values()) == 1:
            return ""
        return f"{'known' if is_known else 'new'} file, when it is {point}: {told}, not {expected}; paid {paid}"

    # Each scene holds a thread, and those who look meanwhile need others.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    found = await asyncio.gather(
        *(outcome(point, is_known=is_known) for point in _points(told_by) for is_known in (False, True))
    )
    assert not list(filter(None, found))


def _queued(world: World, path: str, priority: Priority = Priority.LIVE) -> None:
    now_seconds = time.time()
    world.ledger.enqueue([path], Change("", priority, now_seconds, now_seconds))


@asynccontextmanager
async def working(world: World) -> AsyncIterator[Pipeline]:
    """A worker that works on what is queued until the block ends."""
    pipeline = world.pipeline()
    await pipeline.prepare()
    async with pipeline.running() as tasks:
        task = tasks.create_task(pipeline.worker.run())
        yield pipeline
        task.cancel()
    await pipeline.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("told_by", ["hint", "scan"])
@pytest.mark.parametrize("content", [b"", b"\0"], ids=["empty", "binary"])
async def test_a_file_without_records_that_goes_after_the_last_look_at_it_leaves_no_entry(
    content: bytes, told_by: str
) -> None:
    """The ledger does not name it before its commit, so that only the register of what is in work can tell."""
    scene = Scene(LAST_LOOK, HAPPENINGS["deleted"], told_by=told_by)
    scene.content = content
    async with scene.running():
        await scene.sent_on_its_way()
    assert F not in scene.world.ledger.glances()


async def test_what_is_known_to_be_gone_is_not_even_written() -> None:
    scene = Scene("embedded", HAPPENINGS["deleted"], told_by="nobody")
    async with scene.running():
        await scene.sent_on_its_way()
    assert F not in scene.sink.written
    assert "secret" in scene.world.embedded_texts(), "its vector was paid for, and is kept"


async def test_a_file_that_changes_each_time_is_written_all_the_same() -> None:
    world = World()
    world.folder.write("log", b"0")
    rounds = iter(range(1, 5))
    embed = world.embedder.embed

    async def changing(texts: Sequence[str]) -> tuple[Vectors, object]:
        if (number := next(rounds, None)) is not None:
            world.folder.write("log", str(number).encode())
        return await embed(texts)

    world.embedder.embed = changing  # type: ignore[assignment,method-assign]
    _queued(world, "log")
    async with working(world):
        await until(lambda: len(world.sink.held) > 0)
        assert next(rounds, None) is not None, "it is found before it rests"
        await until(lambda: not world.ledger.queue)
    assert world.records() == world.expected()


async def test_a_known_file_that_goes_while_its_edit_waits_for_the_model_is_found_no_more() -> None:
    """Whenever the model answers: what was indexed of it goes at once."""
    scene = Scene("nowhere", HAPPENINGS["deleted"], is_known=True)
    async with scene.running():
        scene.world.embedder.gate = gate = asyncio.Event()
        scene.folder.write(F, NEW)
        scene.watch.emit(Hint(F, is_closed=True))
        await until(lambda: scene.world.embedder.in_flight == 1)
        scene.folder.delete(F)
        scene.watch.emit(Hint(F))
        await until(lambda: F not in {path for path, _, _ in scene.told()})
        assert not gate.is_set()
        await until(lambda: not scene.world.ledger.queue)
        gate.set()


async def test_what_is_deleted_waits_for_no_place_that_files_have_which_wait_for_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "MAX_DOCUMENTS", 4)
    monkeypatch.setattr(worker_module, "MIN_ROOM", 2)
    monkeypatch.setattr(worker_module, "LIVE_ROOM", 2)
    world = World()
    world.folder.write("old.md", b"an old text")
    await world.sync()
    gate = asyncio.Event()
    world.embedder = HashEmbedder(gate=gate)
    async with working(world) as pipeline:
        for number in range(20):
            world.folder.write(f"{number}.md", f"text {number}".encode())
            _queued(world, f"{number}.md")
        pipeline.worker.wake()
        await until(lambda: pipeline.worker.in_work == 6)
        world.folder.delete("old.md")
        _queued(world, "old.md", Priority.GONE)
        pipeline.worker.wake()
        await until(lambda: not world.records())
        gate.set()
        await until(lambda: not world.ledger.queue)
    assert world.records() == world.expected()


async def test_what_is_deleted_does_not_wait_long_for_files_that_it_may_have_been_renamed_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "RIVAL_SECONDS", 0.1)
    world = World()
    world.folder.write("old.md", b"an old text")
    await world.sync()
    world.embedder.is_closed = False
    may_read, read = threading.Event(), world.folder.read

    def slow(path: str) -> Content:
        assert path != "new.md" or may_read.wait(10)
        return read(path)

    monkeypatch.setattr(world.folder, "read", slow)
    async with working(world) as pipeline:
        world.folder.write("new.md", b"another one")
        _queued(world, "new.md")
        pipeline.worker.wake()
        await until(lambda: pipeline.worker.in_work == 1)
        world.folder.delete("old.md")
        _queued(world, "old.md", Priority.GONE)
        pipeline.worker.wake()
        await until(lambda: not world.records())
        may_read.set()
        await until(lambda: not world.ledger.queue)
    assert world.records() == world.expected()
