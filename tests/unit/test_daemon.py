"""The life of the daemon: ready, alive, and an orderly end."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.backoff import Backoff
from ingestor.core.errors import (
    AuthenticationFailed,
    ChromaUnavailable,
    ForeignCollection,
    RateLimited,
    ServiceUnavailable,
)
from ingestor.core.model import Change, Hint, Priority, Snapshot, Stat
from ingestor.engine import daemon as daemon_module
from ingestor.engine import patrol, verify
from ingestor.engine import pipeline as pipeline_module
from ingestor.engine import worker as worker_module
from ingestor.engine.daemon import IN_STEP, LOOKING, STATE_NOTE, Daemon, Line
from ingestor.engine.guard import APPROVED_NOTE
from ingestor.engine.worker import RETRY_NOTE
from tests.doubles_embedder import HashEmbedder
from tests.doubles_watch import ScriptedWatch
from tests.world import World


@dataclass
class Heard:
    """A service manager that writes down what it hears."""

    watchdog_seconds: float | None = 0.02
    states: list[str] = field(default_factory=list)

    def ready(self) -> None:
        self.states.append("ready")

    def alive(self) -> None:
        self.states.append("alive")

    def status(self, sentence: str) -> None:
        self.states.append(sentence)

    def stopping(self) -> None:
        self.states.append("stopping")


@dataclass
class Service:
    """An outside service, which is started again when it is dead."""

    is_dead: bool = False

    def supervise(self, _: str) -> bool:
        was_dead, self.is_dead = self.is_dead, False
        return was_dead


class Life:
    """A daemon over doubles."""

    def __init__(self, world: World, supervise: Callable[[str], bool] | None = None) -> None:
        self.world = world
        self.watch = ScriptedWatch()
        self.heard = Heard()
        self.stop = asyncio.Event()
        self.pipeline = world.pipeline()
        follower = self.pipeline.follower(self.watch, quiet_seconds=0.1, rules_file=".ingestorignore")
        self.daemon = Daemon(
            [Line(self.pipeline, follower, self.watch)],
            self.heard,
            SystemRuntime(),
            supervise=supervise,
            life="this life",
        )

    async def run(self) -> None:
        await self.pipeline.prepare()
        try:
            await self.daemon.run(self.stop)
        finally:
            await self.pipeline.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def world() -> World:
    made = World()
    made.folder.write("a.md", b"one\ntwo")
    return made


async def test_it_says_ready_stays_alive_and_ends_in_order(world: World) -> None:
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected() and life.heard.states.count("alive") > 3)
    life.stop.set()
    await asyncio.wait_for(running, 10)
    assert [state for state in life.heard.states if state in {"ready", "stopping"}] == ["ready", "stopping"]
    assert not life.watch.is_running


async def test_before_the_first_comparison_it_does_not_claim_to_be_in_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(world)
    gate, scan = threading.Event(), world.folder.scan

    def slow(below: str = "") -> Snapshot:
        assert gate.wait(10)
        return scan(below)

    monkeypatch.setattr(world.folder, "scan", slow)
    running = asyncio.create_task(life.run())
    await until(lambda: life.heard.states.count("alive") > 3 and STATE_NOTE in world.ledger.notes)
    assert set(life.heard.states) == {"alive", "the folder is compared for the first time"}
    assert json.loads(world.ledger.notes[STATE_NOTE])["is_behind"]
    gate.set()
    await until(lambda: "the collection equals the folder" in life.heard.states)
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_the_service_manager_hears_what_work_waits_for(world: World) -> None:
    world.embedder = HashEmbedder(gate=asyncio.Event())
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: "1 change to do" in life.heard.states)
    life.pipeline.tally.outages["the provider"] = "the provider is away - wait"
    await until(lambda: "1 change to do, waiting: the provider is away - wait" in life.heard.states)
    running.cancel()
    await asyncio.wait({running}, timeout=10)


async def test_it_is_not_in_step_while_what_was_heard_of_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: life.heard.states[-2:] == ["alive", IN_STEP])
    gate, look = threading.Event(), world.folder.look

    def slow(path: str) -> Stat | None:
        assert gate.wait(10)
        return look(path)

    monkeypatch.setattr(world.folder, "look", slow)
    world.folder.delete("a.md")
    life.watch.emit(Hint("a.md"))
    life.heard.states.clear()
    await until(lambda: life.heard.states.count("alive") > 3)
    assert IN_STEP not in life.heard.states[2:]
    assert LOOKING in life.heard.states
    assert json.loads(world.ledger.notes[STATE_NOTE])["is_behind"]
    gate.set()
    await until(lambda: life.heard.states[-1] == IN_STEP)
    assert not world.records()
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_it_is_not_in_step_while_a_file_that_was_done_twice_is_in_work(world: World) -> None:
    gate = asyncio.Event()
    world.embedder = HashEmbedder(gate=gate)
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.embedder.in_flight == 1)
    # Heard of while it is in work: queued once, done twice.
    life.pipeline.tally.finished += 1
    life.heard.states.clear()
    await until(lambda: life.heard.states.count("alive") > 3)
    assert IN_STEP not in life.heard.states
    # Expected, and taken out of the queue by who found that there is nothing to do.
    life.pipeline.tally.expected += 5
    gate.set()
    await until(lambda: life.heard.states[-1] == IN_STEP)
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_an_outage_ends_with_the_last_change_that_waited_for_it(world: World) -> None:
    world.embedder.faults.append(ServiceUnavailable("the endpoint is away", retry_after_seconds=3600.0))
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: "1 change to do, waiting: the endpoint is away" in life.heard.states)
    world.folder.delete("a.md")
    life.watch.emit(Hint("a.md"))
    await until(lambda: life.heard.states[-1] == IN_STEP)
    assert not life.pipeline.outage
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_it_is_not_in_step_while_deletions_wait_for_approval(world: World) -> None:
    for name in ("b", "c", "d"):
        world.folder.write(name, name.encode())
    world.approves = False
    await world.sync()
    world.folder.delete("")
    world.embedder.is_closed = False
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: "4 deletions wait for approval" in life.heard.states)
    assert IN_STEP not in life.heard.states
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_an_approval_is_heeded_although_a_comparison_of_a_part_held_nothing(world: World) -> None:
    for name in ("b", "c", "d"):
        world.folder.write(name, name.encode())
    world.approves = False
    await world.sync()
    world.folder.delete("")
    world.embedder.is_closed = False
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: life.pipeline.reconciler.held == 4)
    # A comparison of a part, in between, has counted what it misses itself.
    life.pipeline.reconciler._guard.held = 0
    world.ledger.approve(world.ledger.held())
    world.ledger.set_note(APPROVED_NOTE, "4")
    await until(lambda: not world.records())
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_the_service_manager_hears_that_nothing_is_watched(world: World) -> None:
    life = Life(world)
    life.watch.start_faults.append(ServiceUnavailable("the disk is away"))
    running = asyncio.create_task(life.run())
    await until(lambda: "the folder is watched not at the moment: the disk is away" in life.heard.states)
    running.cancel()
    await asyncio.wait({running}, timeout=10)


async def test_a_file_that_was_queued_and_renamed_while_nothing_ran_keeps_its_document(world: World) -> None:
    await world.sync()
    before = {held.metadata["document_id"] for held in world.sink.held.values() if held.metadata is not None}
    world.ledger.enqueue(["a.md"], Change("", Priority.LIVE, enqueued_seconds=0.0, not_before_seconds=0.0))
    world.folder.rename("a.md", "b.md")
    life = Life(world)
    world.embedder.is_closed = False
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected() and "ready" in life.heard.states)
    assert {held.metadata["document_id"] for held in world.sink.held.values() if held.metadata is not None} == before
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_the_model_is_opened_before_there_is_anything_to_embed() -> None:
    life = Life(World())
    running = asyncio.create_task(life.run())
    await until(lambda: life.world.embedder.openings == 1)
    assert "ready" in life.heard.states
    assert not life.world.embedder.attempts
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_model_that_does_not_open_is_told_and_stops_nobody(world: World) -> None:
    world.embedder.open_faults.append(ImportError("a package is missing"))
    life = Life(world)
    with capture_logs() as told:
        running = asyncio.create_task(life.run())
        await until(lambda: world.records() == world.expected() and world.embedder.openings == 1)
        life.stop.set()
        await asyncio.wait_for(running, 10)
    assert [entry["reason"] for entry in told if entry["event"] == "embedding.not_open"] == [
        "ImportError: a package is missing"
    ]


async def test_what_is_in_work_at_the_signal_is_finished(world: World) -> None:
    gate = asyncio.Event()
    world.embedder = HashEmbedder(gate=gate)
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.embedder.in_flight == 1)
    life.stop.set()
    await asyncio.sleep(0.05)
    assert not running.done()
    gate.set()
    await asyncio.wait_for(running, 10)
    assert world.records() == world.expected()


async def test_what_does_not_finish_in_time_is_abandoned_and_heals(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "GRACE_SECONDS", 0.05)
    world.embedder = HashEmbedder(gate=asyncio.Event())
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.embedder.in_flight == 1)
    life.stop.set()
    await asyncio.wait_for(running, 10)
    assert world.records() == []
    world.embedder = HashEmbedder()
    await world.sync()
    assert world.records() == world.expected()


async def test_a_refused_key_ends_the_process_with_its_error(world: World) -> None:
    world.embedder.faults.extend([AuthenticationFailed("the key was refused")] * 2)
    with pytest.RaisesGroup(AuthenticationFailed, flatten_subgroups=True):
        await asyncio.wait_for(Life(world).run(), 10)


async def test_a_service_that_is_down_does_not_end_the_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "SUPERVISE_SECONDS", 0.01)
    asked = 0

    def supervise(_: str) -> bool:
        nonlocal asked
        asked += 1
        raise ServiceUnavailable("the server died", retry_after_seconds=0.01)

    life = Life(world, supervise)
    running = asyncio.create_task(life.run())
    await until(lambda: asked > 3)
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_service_that_was_started_again_gets_what_waits_for_it_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "SUPERVISE_SECONDS", 0.01)
    world.sink.fail("add", ServiceUnavailable("the server died"))
    service = Service()
    life = Life(world, service.supervise)
    running = asyncio.create_task(life.run())
    await until(lambda: bool(world.ledger.totals().waits))
    assert world.ledger.totals().waits[0].next_try_seconds > time.time() + 1
    service.is_dead = True
    await until(lambda: world.records() == world.expected())
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_what_a_service_has_lost_by_its_restart_is_found_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "SUPERVISE_SECONDS", 0.01)
    service = Service()
    life = Life(world, service.supervise)
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected() and not world.ledger.waiting())
    await asyncio.sleep(0.1)  # the round of the start is over, and the next one is a minute away
    world.sink.held.popitem()
    assert world.records() != world.expected()
    service.is_dead = True
    await until(lambda: world.records() == world.expected())
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_service_that_does_not_answer_is_told_although_there_is_nothing_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patrol, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(patrol, "AWAY_SECONDS", 0.01)
    life = Life(world)

    def outage() -> str:
        return str(json.loads(world.ledger.note(STATE_NOTE) or "{}").get("outage", ""))

    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected() and not world.ledger.waiting())
    assert life.pipeline.chroma_failing_seconds() == 0
    with capture_logs() as told:
        world.sink.fail("confirm", ServiceUnavailable("Chroma was out of reach"), times=1_000_000)
        await until(lambda: life.pipeline.chroma_failing_seconds() > 0.1)
        assert life.pipeline.chroma_stuck_seconds() == 0, "it is no reason to start it again"
        await until(lambda: outage() == "Chroma was out of reach")
        world.sink._faults.clear()
        await until(lambda: life.pipeline.chroma_failing_seconds() == 0 and not outage())
    assert [entry["event"] for entry in told].count("patrol.put_off") == 1
    life.stop.set()
    await asyncio.wait_for(running, 10)


@pytest.mark.parametrize("is_seen", [True, False])
async def test_what_waits_for_chroma_is_tried_as_soon_as_it_answers_again(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_seen: bool
) -> None:
    monkeypatch.setattr(patrol, "AWAY_SECONDS", 0.01)
    monkeypatch.setattr(worker_module, "RETRY", Backoff(first_seconds=900.0, max_seconds=900.0, max_attempts=8))
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected() and not world.ledger.waiting())
    await asyncio.sleep(0.1)  # the round of the start is over, and the next one is a minute away
    world.sink.fail("drop", ChromaUnavailable("Chroma is out of reach"), times=1)
    if is_seen:
        world.sink.fail("confirm", ServiceUnavailable("Chroma is out of reach"), times=5)
    world.folder.delete("a.md")
    life.watch.emit(Hint("a.md"))
    await until(lambda: not world.records())
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_service_that_answers_and_writes_nothing_is_not_asked_without_a_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patrol, "AWAY_SECONDS", 0.01)
    monkeypatch.setattr(patrol, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(verify, "LOOK_PAUSE_SECONDS", 0.0)
    world.sink.fail("add", ChromaUnavailable("the database is locked"), times=1_000_000)
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: [verb for verb, _ in world.sink.calls].count("confirm") >= 20)
    assert [verb for verb, _ in world.sink.calls].count("add") <= 2
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_service_that_lives_and_fails_at_everything_is_complained_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "SUPERVISE_SECONDS", 0.01)
    monkeypatch.setattr(daemon_module, "STUCK_SECONDS", 0.2)
    world.sink.fail("add", ChromaUnavailable("the database is locked"), times=1_000_000)
    complaints: list[str] = []

    def supervise(complaint: str) -> bool:
        if complaint:
            complaints.append(complaint)
            world.sink._faults.clear()
        return bool(complaint)

    life = Life(world, supervise)
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected())
    # The record is there a moment before the worker hears of it.
    await until(lambda: life.pipeline.chroma_failing_seconds() == 0)
    assert len(complaints) == 1
    assert "failed at all it was asked" in complaints[0]
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_usage_and_state_are_kept_for_other_processes(world: World) -> None:
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.ledger.usage.texts == 2 and STATE_NOTE in world.ledger.notes)
    await until(lambda: not json.loads(world.ledger.notes[STATE_NOTE])["is_behind"])
    assert json.loads(world.ledger.notes[STATE_NOTE]) == {
        "life": "this life",
        "watching": "scripted",
        "outage": "",
        "is_behind": False,
        "restless": [],
        "next_call_seconds": None,
    }
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_retry_of_another_process_has_a_provider_asked_that_wanted_to_be_left_alone(world: World) -> None:
    world.embedder.faults.append(RateLimited("slow down", retry_after_seconds=3_600.0))
    life = Life(world)
    running = asyncio.create_task(life.run())

    def state() -> dict[str, object]:
        return dict(json.loads(world.ledger.notes.get(STATE_NOTE) or "{}"))

    await until(lambda: bool(world.ledger.waiting()) and state().get("next_call_seconds") is not None)
    told = state()
    assert told["outage"] == "slow down"
    assert told["next_call_seconds"] == pytest.approx(time.time() + 3_600.0, abs=120.0), "until when"
    world.folder.write("new.md", b"a new file")
    life.pipeline.worker.wake()
    await asyncio.sleep(0.2)
    assert len(world.embedder.attempts) == 1, "nobody asks before it is time"
    now_seconds = time.time()
    world.ledger.set_note(RETRY_NOTE, str(now_seconds))
    world.ledger.enqueue(list(world.ledger.waiting()), Change("", Priority.LIVE, now_seconds, now_seconds))
    await until(lambda: bool(world.embedder.calls))
    await until(lambda: state().get("next_call_seconds") is None)
    life.stop.set()
    await asyncio.wait_for(running, 10)


async def test_whoever_has_lost_the_collection_to_another_owner_ends_and_writes_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patrol, "ROUND_SECONDS", 0.01)
    life = Life(world)
    running = asyncio.create_task(life.run())
    await until(lambda: world.records() == world.expected() and not world.ledger.waiting())
    await until(lambda: ("ids", 0) in world.sink.calls)
    held, world.sink.rival = dict(world.sink.held), "two:/data"
    world.sink.held.clear()
    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(running, 10)
    assert ended.value.subgroup(ForeignCollection) is not None
    assert not world.sink.held, "what the next owner deletes is not put back"
    assert held


async def test_a_process_says_again_and_again_that_it_works_on_the_collection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "BEAT_SECONDS", 0.01)

    def signs() -> int:
        return world.sink.calls.count(("keep", 0))

    with capture_logs() as told:
        async with asyncio.timeout(10):
            pipeline = world.pipeline()
            await pipeline.prepare()
            try:
                async with pipeline.running():
                    await until(lambda: signs() >= 3)
                    world.sink.fail("keep", ServiceUnavailable("Chroma was out of reach"), times=5)
                    await until(lambda: signs() >= 12)
                with pytest.raises(ExceptionGroup) as ended:  # noqa: PT012 - it ends while it waits
                    async with pipeline.running():
                        world.sink.rival = "two:/data"
                        await asyncio.sleep(10)
            finally:
                await pipeline.close()
    assert ended.value.subgroup(ForeignCollection) is not None
    assert [entry["event"] for entry in told].count("collection.not_kept") == 1
