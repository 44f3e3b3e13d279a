"""Outages of our own disk: waited out at one place, asked about by one call at a time, told once."""

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from ingestor.adapters.runtime import ThreadLane
from ingestor.core.errors import DeletionHeld, IngestorError, LedgerCorrupt, ServiceUnavailable
from ingestor.core.model import Hint
from ingestor.engine import patience as patience_module
from ingestor.engine.patience import PATIENCE_SECONDS, RETRY_SECONDS, Patience, PatientLane
from tests.doubles_ledger import MemoryLedger
from tests.doubles_runtime import FakeRuntime
from tests.unit.test_daemon import Life, until
from tests.world import World

FULL = "the ledger cannot be used: database or disk is full"


class Disk:
    """Takes what it is given, but for some attempts."""

    def __init__(self, refusals: float = 0) -> None:
        self.refusals = refusals
        self.attempts = 0

    async def attempt(self) -> int:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.refusals > 0:
            self.refusals -= 1
            raise ServiceUnavailable(FULL, remedy="free disk space")
        return self.attempts


async def test_an_outage_is_waited_out_and_told_when_it_begins_and_when_it_ends() -> None:
    runtime, disk = FakeRuntime(), Disk(refusals=3)
    patience = Patience(runtime)
    with capture_logs() as logged:
        assert await patience.outlast(disk.attempt) == 4
    assert runtime.slept_seconds == [RETRY_SECONDS] * 3
    assert [entry["event"] for entry in logged] == ["storage.down", "storage.back"]
    assert logged[0]["remedy"] == "free disk space"
    assert patience.error is None


async def test_however_much_waits_one_call_asks_whether_it_is_over() -> None:
    patience, disk = Patience(FakeRuntime(), float("inf")), Disk(refusals=float("inf"))
    first = asyncio.create_task(patience.outlast(disk.attempt))
    await until(lambda: patience.error is not None)
    waiting = [asyncio.create_task(patience.outlast(disk.attempt)) for _ in range(100)]
    await asyncio.sleep(0)
    attempts, disk.refusals = disk.attempts, 20
    await asyncio.gather(first, *waiting)
    assert disk.attempts <= attempts + 1 + 21 + 100


async def test_calls_that_were_on_their_way_take_the_answer_of_the_one_that_asks() -> None:
    patience, disk = Patience(FakeRuntime(), float("inf")), Disk(refusals=20)
    with capture_logs() as logged:
        await asyncio.gather(*(patience.outlast(disk.attempt) for _ in range(10)))
    assert disk.attempts == 20 + 10
    assert [entry["event"] for entry in logged] == ["storage.down", "storage.back"]


async def test_an_outage_that_lasts_too_long_is_told_to_all_who_wait_without_another_attempt() -> None:
    patience, disk = Patience(FakeRuntime()), Disk(refusals=float("inf"))
    ended = await asyncio.gather(*(patience.outlast(disk.attempt) for _ in range(10)), return_exceptions=True)
    assert {str(error) for error in ended} == {FULL}
    assert disk.attempts <= PATIENCE_SECONDS / RETRY_SECONDS + 1 + 10
    attempts = disk.attempts
    with pytest.raises(ServiceUnavailable):
        await patience.outlast(disk.attempt)
    assert disk.attempts == attempts + 1, "who comes later finds out by himself, and waits no more"
    disk.refusals = 0
    await patience.outlast(disk.attempt)
    assert patience.error is None


async def test_when_the_one_that_asks_is_cancelled_another_one_asks() -> None:
    patience, disk = Patience(FakeRuntime(), float("inf")), Disk(refusals=float("inf"))
    asking = asyncio.create_task(patience.outlast(disk.attempt))
    await until(lambda: disk.attempts > 3)
    waiting = asyncio.create_task(patience.outlast(disk.attempt))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    disk.refusals = 2
    await asyncio.wait_for(waiting, 10)
    assert patience.error is None


async def test_an_outage_that_nobody_waits_for_any_more_is_none() -> None:
    patience, disk = Patience(FakeRuntime(), float("inf")), Disk(refusals=float("inf"))
    asking = [asyncio.create_task(patience.outlast(disk.attempt)) for _ in range(2)]
    await until(lambda: disk.attempts > 3)
    for task, is_last in zip(asking, (False, True), strict=True):
        task.cancel()
        await asyncio.wait({task})
        assert (patience.error is None) is is_last


@pytest.mark.parametrize("error", [LedgerCorrupt("the ledger is damaged"), DeletionHeld("a deletion is held back")])
async def test_what_is_no_outage_is_raised_at_once(error: IngestorError) -> None:
    patience = Patience(FakeRuntime(), float("inf"))

    async def refused() -> None:
        raise error

    with pytest.raises(type(error)):
        await patience.outlast(refused)
    assert patience.error is None


async def test_who_must_not_wait_is_told_at_once_and_asks_nothing() -> None:
    runtime = FakeRuntime()
    patience, calls = Patience(runtime, 0.0), list[str]()
    lane = PatientLane(ThreadLane("ledger"), patience)

    def full() -> None:
        calls.append("full")
        raise ServiceUnavailable(FULL)

    try:
        for run in (lane.run, lane.impatient.run):
            with pytest.raises(ServiceUnavailable):
                await run(full)
        assert calls == ["full"]
        assert not runtime.slept_seconds
        await lane.run(calls.append, "well")
        await lane.impatient.run(calls.append, "well")
        assert calls == ["full", "well", "well"]
    finally:
        lane.close()


class Failing:
    """A ledger whose every method fails a few times from its n-th call on, or all of them while it is full.

    Where it is `late`, the calls have done what they were asked for before they fail.
    """

    def __init__(self, inner: MemoryLedger, nth: int = 0, times: int = 2, *, is_late: bool = False) -> None:
        self._inner = inner
        self._nth = nth
        self._times = times
        self._is_late = is_late
        self.is_full = False
        self.counts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the double has
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def called(*args: object, **kwargs: object) -> object:
            count = self.counts[name] = self.counts.get(name, 0) + 1
            if self.is_full or self._nth <= count < self._nth + self._times:
                if self._is_late:
                    found(*args, **kwargs)
                raise ServiceUnavailable(FULL)
            return found(*args, **kwargs)

        return called


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(patience_module, "RETRY_SECONDS", 0.01)
    made = World()
    for number in range(6):
        made.folder.write(f"file{number}.md", f"text {number}\nanother of {number}".encode())
    return made


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
async def test_whichever_call_of_the_ledger_fails_the_work_goes_on(world: World, nth: int, *, is_late: bool) -> None:
    failing = Failing(world.ledger, nth, is_late=is_late)
    world.ledger = cast("MemoryLedger", failing)
    await world.sync()
    world.folder.write("file0.md", b"text 0\nedited")
    world.folder.write("file6.md", b"\0binary")
    world.folder.delete("file1.md")
    failing.counts.clear()
    await world.sync()
    assert world.records() == [row for row in world.expected() if row[0] != "file6.md"]
    assert len(world.embedded_texts()) == len(set(world.embedded_texts())), "no text is paid for twice"
    assert failing.counts.keys() >= {"lease", "commit", "mark", "enqueue", "glances", "entries", "kin", "set_note"}


async def test_a_daemon_outlives_a_ledger_that_takes_nothing_says_so_and_goes_on(world: World) -> None:
    failing = Failing(world.ledger)
    world.ledger = cast("MemoryLedger", failing)
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected())
    await until(lambda: "ready" in life.heard.states)
    failing.is_full = True
    world.folder.write("late.md", b"a late text")
    life.watch.emit(Hint("late.md"))
    await until(lambda: any(FULL in state for state in life.heard.states))
    alive = life.heard.states.count("alive")
    await until(lambda: life.heard.states.count("alive") > alive + 5)
    assert FULL in life.pipeline.outage
    assert not running.done()
    failing.is_full = False
    await until(lambda: world.records() == world.expected())
    assert not life.pipeline.outage
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_daemon_whose_ledger_takes_nothing_ends_in_order_when_it_is_told_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestor.engine.daemon.GRACE_SECONDS", 0.2)
    failing = Failing(world.ledger)
    world.ledger = cast("MemoryLedger", failing)
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: "ready" in life.heard.states)
    failing.is_full = True
    await until(lambda: bool(life.pipeline.outage))
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_vectors_without_room_hold_calls_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestor.engine.daemon.BEAT_SECONDS", 0.02)
    has_room = False

    def see_room(_vectors: int, _dimensions: int) -> None:
        if not has_room:
            raise ServiceUnavailable("the disk of the vector store is full", remedy="free disk space")

    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected())
    paid = len(world.embedded_texts())
    monkeypatch.setattr(world.vectors, "see_room", see_room)
    world.folder.write("late.md", b"a late text")
    life.watch.emit(Hint("late.md"))
    await until(lambda: "is full" in life.pipeline.outage)
    world.folder.delete("file0.md")
    life.watch.emit(Hint("file0.md"))
    await until(lambda: not any(source == "file0.md" for source, _, _ in world.records()))
    assert len(world.embedded_texts()) == paid, "what could not be kept is not paid for"
    has_room = True
    await until(lambda: world.records() == world.expected())
    assert not life.pipeline.outage
    life.stop.set()
    await asyncio.wait_for(running, 10)
