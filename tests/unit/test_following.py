"""From hints to queued changes, and the supervision of the watch."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import pytest

from ingestor.adapters.runtime import SystemRuntime, ThreadLane
from ingestor.core import settling
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import UNKNOWN_STAT, Change, DoubtKind, Entry, Hint, Outcome, Plan, Priority, Snapshot
from ingestor.core.settling import GONE_SECONDS, PAUSE_SECONDS
from ingestor.engine import following
from ingestor.engine.following import Follower
from ingestor.engine.guard import APPROVED_NOTE
from ingestor.engine.in_work import InWork
from ingestor.engine.intake import Intake
from ingestor.engine.looking import Looker
from ingestor.engine.reconcile import Reconciler
from ingestor.engine.tally import Tally
from tests.doubles_folder import MemoryFolder
from tests.doubles_ledger import MemoryLedger
from tests.doubles_watch import ScriptedWatch


class Scene:
    """A follower that runs, and the doubles around it; what it queues is never worked on."""

    def __init__(self, *, rescan_seconds: float = 3600.0) -> None:
        self.folder = MemoryFolder()
        self.ledger = MemoryLedger()
        self.watch = ScriptedWatch()
        self.lane = ThreadLane("ledger")
        self.woken = 0
        runtime = SystemRuntime()
        self.tally = tally = Tally()
        self.in_work = in_work = InWork()
        intake = Intake(self.ledger, self.lane, runtime, tally=tally, in_work=in_work)
        self.follower = Follower(
            self.folder,
            self.watch,
            Reconciler(
                self.folder,
                self.ledger,
                self.lane,
                runtime,
                looker=Looker(self.folder, runtime, cutting="c1"),
                tally=tally,
                in_work=in_work,
                intake=intake,
                cutting="c1",
                limit=DeletionLimit(max_ratio=0.5, min_documents=4),
            ),
            self.ledger,
            self.lane,
            runtime=runtime,
            tally=tally,
            in_work=in_work,
            intake=intake,
            cutting="c1",
            quiet_seconds=0.2,
            rescan_seconds=rescan_seconds,
            rules_file=".ingestorignore",
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.woken += 1

    async def queued(self, *paths: str) -> None:
        """Wait until exactly these paths are queued."""
        await until(lambda: self.ledger.queue.keys() == set(paths))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following_scene(scene: Scene) -> AsyncIterator[Scene]:
    task = asyncio.create_task(scene.follower.run())
    try:
        await asyncio.wait_for(scene.follower.reconciled.wait(), 10)
        yield scene
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        scene.lane.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SUPERVISE_SECONDS", 0.05)
    monkeypatch.setattr(following, "RESTART_SECONDS", 0.01)


async def test_the_watch_starts_before_the_first_scan() -> None:
    scene = Scene()
    scene.folder.write("a", b"x")
    started_before_scan = []
    scan = scene.folder.scan

    def watched_scan(below: str = "") -> Snapshot:
        started_before_scan.append(scene.watch.is_running)
        return scan(below)

    scene.folder.scan = watched_scan  # type: ignore[method-assign]  # only to see when it is called
    async with following_scene(scene):
        await scene.queued("a")
    assert started_before_scan == [True]


async def test_a_hint_queues_the_path_as_a_live_change() -> None:
    async with following_scene(Scene()) as scene:
        scene.folder.write("a", b"x")
        scene.watch.emit(Hint("a", is_closed=True))
        await scene.queued("a")
        assert scene.ledger.queue["a"].priority is Priority.LIVE
        assert scene.woken >= 2


async def test_a_file_that_changes_all_the_time_is_queued_now_and_then_and_its_end_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settling, "MIN_REST_SECONDS", 0.1)
    monkeypatch.setattr(settling, "MAX_REST_SECONDS", 60.0)
    monkeypatch.setattr(settling, "RESTLESS_SECONDS", 0.5)
    scene = Scene()
    queued: list[str] = []

    def enqueue(paths: Iterable[str], change: Change) -> int:
        found = list(paths)
        queued.extend(found)
        return MemoryLedger.enqueue(scene.ledger, found, change)

    scene.ledger.enqueue = enqueue  # type: ignore[method-assign]  # only to count its calls
    async with following_scene(scene):
        changes = 0
        async with asyncio.timeout(30):
            while not scene.follower.restless:
                changes += 1
                scene.folder.write("log", b"x" * changes)
                scene.watch.emit(Hint("log", is_closed=True))
                await asyncio.sleep(0.03)
        assert scene.follower.restless == ["log"]
        scene.folder.write("log", b"the last line")
        scene.watch.emit(Hint("log", is_closed=True))
        await until(lambda: scene.follower.is_behind)
        assert 5 <= len(queued) <= 8 < changes
        stat = scene.folder.look("log")
        assert stat is not None
        indexed = Entry("log", "d", stat, "hash", "c1", {})
        scene.ledger.commit([Plan("log", Outcome.ADDED, None, indexed)], [])
        scene.folder.delete("log")
        scene.watch.emit(Hint("log"))
        before = len(queued)
        await until(lambda: len(queued) > before)
        scene.folder.write("calm", b"x")
        scene.watch.emit(Hint("calm", is_closed=True))
        await until(lambda: "calm" in queued)


async def test_a_hint_that_changes_nothing_queues_nothing() -> None:
    async with following_scene(Scene()) as scene:
        scene.watch.emit(Hint("never-was", is_closed=True))
        scene.folder.write("a", b"x")
        scene.watch.emit(Hint("a", is_closed=True))
        await scene.queued("a")


async def test_a_folder_hint_compares_everything_below_it() -> None:
    async with following_scene(Scene()) as scene:
        scene.folder.write("sub/a", b"x")
        scene.folder.write("sub/deep/b", b"y")
        scene.folder.write("elsewhere", b"z")
        scene.watch.emit(Hint("sub", is_folder=True))
        await scene.queued("sub/a", "sub/deep/b")


async def test_a_file_below_a_folder_that_is_compared_is_queued_once() -> None:
    async with following_scene(Scene()) as scene:
        for path in ("sub/a", "sub/deep/b", "elsewhere"):
            scene.folder.write(path, b"x")
        for hint in (
            Hint("sub", is_folder=True),
            Hint("sub/a", is_closed=True),
            Hint("sub/deep", is_folder=True),
            Hint("sub/deep/b", is_closed=True),
            Hint("elsewhere", is_closed=True),
        ):
            scene.watch.emit(hint)
        await scene.queued("sub/a", "sub/deep/b", "elsewhere")
        await asyncio.sleep(2 * PAUSE_SECONDS)
        assert {path: change.generation for path, change in scene.ledger.queue.items()} == dict.fromkeys(
            ("sub/a", "sub/deep/b", "elsewhere"), 0
        )


async def test_what_changes_below_a_folder_while_it_is_compared_is_not_missed() -> None:
    scene = Scene()
    scan = scene.folder.scan

    def scan_and_write(below: str = "") -> Snapshot:
        found = scan(below)
        if below == "sub":
            # After the scan has passed it by.
            scene.folder.write("sub/late", b"y")
            scene.watch.emit(Hint("sub/late", is_closed=True))
        return found

    scene.folder.scan = scan_and_write  # type: ignore[method-assign]  # only to act while it is called
    async with following_scene(scene):
        scene.folder.write("sub/a", b"x")
        scene.watch.emit(Hint("sub", is_folder=True))
        await scene.queued("sub/a", "sub/late")


async def test_new_rules_compare_their_folder() -> None:
    async with following_scene(Scene()) as scene:
        scene.folder.write("sub/a", b"x")
        scene.watch.emit(Hint("sub/.ingestorignore", is_closed=True))
        await scene.queued("sub/a")


async def test_a_folder_with_the_name_of_a_file_of_rules_has_the_folder_around_it_compared() -> None:
    async with following_scene(Scene()) as scene:
        scene.folder.write("sub/a", b"x")
        scene.watch.emit(Hint("sub/.ingestorignore", is_folder=True))
        await scene.queued("sub/a")


async def test_a_folder_with_the_name_of_a_sidecar_has_its_file_looked_at() -> None:
    async with following_scene(Scene()) as scene:
        scene.folder.write("sub/a", b"x")
        scene.watch.emit(Hint("sub/a.meta.json", is_folder=True))
        await scene.queued("sub/a")


async def test_a_path_that_is_gone_waits_for_the_path_that_it_was_renamed_to() -> None:
    scene = Scene()
    scene.folder.write("old", b"x")
    async with following_scene(scene):
        await scene.queued("old")
        # As if it had been indexed.
        stat = scene.folder.look("old")
        assert stat is not None
        indexed = Entry("old", "d1", stat, "hash", "c1", {})
        scene.ledger.commit([Plan("old", Outcome.ADDED, None, indexed)], scene.ledger.lease(9, 1e12))
        scene.folder.rename("old", "new")
        scene.watch.emit(Hint("old", is_closed=True))
        scene.watch.emit(Hint("new", is_closed=True))
        await scene.queued("old", "new")
        new, old = scene.ledger.queue["new"], scene.ledger.queue["old"]
        assert old.not_before_seconds >= new.not_before_seconds + GONE_SECONDS - 0.1, "the two hints come one by one"


async def test_what_is_deleted_goes_before_all_else_and_what_is_renamed_behind_its_new_path() -> None:
    async with following_scene(settled_scene("deleted", "old")) as scene:
        for path in ("deleted", "old"):
            scene.folder.touch(path)
            scene.watch.emit(Hint(path, is_closed=True))
        await scene.queued("deleted", "old")
        for path, stat in {path: scene.folder.look(path) for path in ("deleted", "old")}.items():
            assert stat is not None
            scene.ledger.documents[path] = Entry(path, path, stat, "hash", "c1", tags={})
        scene.ledger.queue.clear()
        scene.folder.delete("deleted")
        scene.folder.rename("old", "new")
        for path in ("deleted", "old", "new"):
            scene.watch.emit(Hint(path, is_closed=True))
        await scene.queued("deleted", "old", "new")
        queued = scene.ledger.queue
        assert queued["deleted"].priority is Priority.GONE, "that it was there itself is no sign of a rename"
        assert queued["old"].priority is Priority.LIVE
        assert queued["old"].enqueued_seconds > queued["new"].enqueued_seconds


async def test_a_document_whose_file_nobody_knows_goes_after_all_that_it_may_have_been_renamed_to() -> None:
    scene = Scene()
    scene.folder.write("new.md", b"x")
    scene.ledger.documents["old.md"] = Entry("old.md", "old", UNKNOWN_STAT, "hash", "c1", tags={})
    async with following_scene(scene):
        await scene.queued("new.md", "old.md")
        assert [change.path for change in scene.ledger.lease(10, time.time() + 1)] == ["new.md", "old.md"]


async def test_what_waits_to_be_tried_again_waits_no_more_when_its_file_is_gone() -> None:
    async with following_scene(Scene()) as scene:
        later = time.time() + 3600.0
        scene.ledger.enqueue(["a", "b"], Change("", Priority.BACKFILL, later, later))
        scene.watch.emit(Hint("a"))
        await until(lambda: scene.ledger.queue["a"].not_before_seconds < later)
        assert scene.ledger.queue["a"].priority is Priority.GONE
        assert scene.ledger.queue["b"].not_before_seconds == later
        assert set(scene.ledger.queue) == {"a", "b"}


async def test_a_doubt_makes_a_new_watch_and_compares_everything() -> None:
    async with following_scene(Scene()) as scene:
        scene.folder.write("a", b"x")
        scene.watch.doubted = "events were lost"
        await scene.queued("a")
        assert scene.watch.starts == 2
        assert scene.tally.restarts == {DoubtKind.OVERFLOW: 1}


async def test_more_hints_than_there_is_room_for_end_in_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_HINTS", 3)
    async with following_scene(Scene()) as scene:
        paths = [f"f{number}" for number in range(20)]
        for path in paths:
            scene.folder.write(path, b"x")
        for path in paths:
            scene.watch.emit(Hint(path, is_closed=True))
        await scene.queued(*paths)
        assert scene.watch.starts == 1, "the watch itself is sound"
        assert scene.tally.rescans[DoubtKind.HINTS] >= 1
        assert not scene.tally.restarts


async def test_the_folder_is_compared_again_from_time_to_time_and_what_no_event_told_of_is_counted() -> None:
    async with following_scene(Scene(rescan_seconds=0.1)) as scene:
        scene.folder.write("a", b"x")
        scene.folder.write("b", b"x")
        await scene.queued("a", "b")
        await until(lambda: scene.tally.drift == 2)
        assert not scene.tally.rescans


@pytest.mark.parametrize(
    "hint",
    [pytest.param(Hint("a", is_closed=True), id="of it"), pytest.param(Hint("sub", is_folder=True), id="folder")],
)
async def test_what_an_event_tells_of_while_it_is_compared_has_not_drifted(hint: Hint) -> None:
    scene = Scene(rescan_seconds=0.1)
    async with following_scene(scene):
        scan = scene.folder.scan

        def hinted_scan(below: str = "") -> Snapshot:
            if not below and scene.folder.look("a") is None:
                scene.folder.write("a", b"x")
                scene.watch.emit(hint)
            return scan(below)

        scene.folder.scan = hinted_scan  # type: ignore[method-assign]  # only to act while it is called
        await scene.queued("a")
        compared = sum(scene.tally.compared.counts)
        await until(lambda: sum(scene.tally.compared.counts) > compared)
    assert scene.tally.drift == 0


async def test_hints_are_counted_by_what_they_are_about() -> None:
    async with following_scene(Scene()) as scene:
        for hint in (Hint("a"), Hint("a", is_closed=True), Hint("b", is_closed=True), Hint("sub", is_folder=True)):
            scene.watch.emit(hint)
        await until(lambda: scene.tally.hints == {"changed": 1, "closed": 2, "folder": 1})
        assert scene.tally.hinted_seconds > 0


async def test_a_root_that_is_missing_is_waited_for_and_deletes_nothing() -> None:
    scene = Scene()
    scene.folder.write("a", b"x")
    async with following_scene(scene):
        await scene.queued("a")
        scene.folder.is_missing = True
        scene.watch.start_faults.extend(ServiceUnavailable("the root is missing") for _ in range(2))
        scene.watch.doubted = "the root is gone"
        await until(lambda: scene.watch.starts >= 3)
        assert scene.ledger.queue.keys() == {"a"}
        scene.folder.is_missing = False
        scene.folder.write("b", b"y")
        await scene.queued("a", "b")


def indexed_scene() -> Scene:
    """A folder `sub` with six documents, which are all that there is."""
    scene = Scene()
    for number in range(6):
        scene.folder.write(f"sub/{number}", b"x")
        stat = scene.folder.look(f"sub/{number}")
        assert stat is not None
        indexed = Entry(f"sub/{number}", f"d{number}", stat, "hash", "c1", {})
        scene.ledger.commit([Plan(indexed.path, Outcome.ADDED, None, indexed)], [])
    return scene


@pytest.mark.parametrize("hinted", ["sub", "moved"])
async def test_a_renamed_folder_with_most_documents_is_not_told_as_deletions(hinted: str) -> None:
    scene = indexed_scene()
    async with following_scene(scene):
        scene.folder.rename("sub", "moved")
        scene.watch.emit(Hint(hinted, is_folder=True))
        await until(lambda: "moved/0" in scene.ledger.queue)
        scene.watch.emit(Hint("sub", is_folder=True))
        await scene.queued(*(f"{folder}/{number}" for folder in ("sub", "moved") for number in range(6)))
    assert scene.ledger.held() == {}


async def test_what_is_gone_from_one_folder_is_queued_when_the_folder_it_may_have_come_to_has_been_compared() -> None:
    scene = indexed_scene()
    stat = scene.folder.look("sub/0")
    assert stat is not None
    for number in range(20):
        scene.folder.write(f"others/{number}", b"x")
        others = Entry(f"others/{number}", f"e{number}", stat, "hash", "c1", {})
        scene.ledger.commit([Plan(others.path, Outcome.ADDED, None, others)], [])
    scan = scene.folder.scan

    def slow_scan(below: str = "") -> Snapshot:
        if below == "zoo":
            time.sleep(2 * GONE_SECONDS)
        return scan(below)

    scene.folder.scan = slow_scan  # type: ignore[method-assign]  # only to take longer
    async with following_scene(scene):
        scene.folder.rename("sub", "zoo")
        for name in ("sub", "zoo"):
            scene.watch.emit(Hint(name, is_folder=True))
        await until(lambda: "sub/0" in scene.ledger.queue)
        new, old = scene.ledger.queue["zoo/0"], scene.ledger.queue["sub/0"]
        assert old.not_before_seconds >= new.not_before_seconds + GONE_SECONDS


async def test_deletions_that_are_held_back_are_carried_out_when_somebody_approves() -> None:
    scene = indexed_scene()
    async with following_scene(scene):
        scene.folder.delete("sub")
        scene.folder.write("other", b"y")
        scene.watch.emit(Hint("sub", is_folder=True))
        scene.watch.emit(Hint("other", is_closed=True))
        await scene.queued("other")
        await until(lambda: len(scene.ledger.held()) == 6)
        assert scene.ledger.approve(scene.ledger.held()) == 6
        scene.ledger.set_note(APPROVED_NOTE, "6")
        await scene.queued("other", *(f"sub/{number}" for number in range(6)))
        await until(lambda: not scene.ledger.notes[APPROVED_NOTE])


async def test_the_watch_is_stopped_at_the_end() -> None:
    async with following_scene(Scene()) as scene:
        assert scene.watch.is_running
    assert not scene.watch.is_running


async def test_a_hint_of_a_sidecar_is_one_of_its_file() -> None:
    async with following_scene(settled_scene("x/a.md", "b.md")) as scene:
        scene.folder.write("x/a.md.meta.json", b"{}")
        scene.watch.emit(Hint("x/a.md.meta.json", is_closed=True))
        await scene.queued("x/a.md")
        scene.ledger.queue.clear()
        scene.folder.delete("x/a.md.meta.json")
        scene.watch.emit(Hint("x/a.md.meta.json"))
        scene.watch.emit(Hint("gone.md.meta.json"))
        scene.folder.write("c.md", b"x")
        scene.watch.emit(Hint("c.md", is_closed=True))
        await scene.queued("c.md")


async def test_a_hint_of_a_settings_file_has_its_folder_compared() -> None:
    async with following_scene(settled_scene("x/a.md", "x/y/b.md", "c.md")) as scene:
        scene.folder.write("x/.ingestor.toml", b"metadata.a = 1")
        scene.watch.emit(Hint("x/.ingestor.toml", is_closed=True))
        await scene.queued("x/a.md", "x/y/b.md")
        scene.ledger.queue.clear()
        scene.folder.delete("x/.ingestor.toml")
        scene.watch.emit(Hint("x/.ingestor.toml"))
        scene.folder.write("d.md", b"x")
        scene.watch.emit(Hint("d.md", is_closed=True))
        await scene.queued("d.md")


def settled_scene(*paths: str) -> Scene:
    """A scene whose ledger knows all of its files."""
    scene = Scene()
    for path in paths:
        scene.folder.write(path, b"x")
        stat = scene.folder.look(path)
        assert stat is not None
        scene.ledger.documents[path] = Entry(path, path, stat, "hash", "c1", tags={})
    return scene
