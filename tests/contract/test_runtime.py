"""The contract of `ports.Runtime`, over the process itself, the double, and the process of the simulation."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeAlias

import pytest

from ingestor.adapters.runtime import SystemRuntime
from ingestor.ports import Runtime
from tests.doubles_runtime import FakeRuntime
from tests.simulation import loop
from tests.simulation.runtime import SimulatedRuntime

Body: TypeAlias = Callable[[Runtime], Awaitable[None]]


class _Calm:
    """Weather in which every call takes a moment, a later one often less."""

    def __init__(self) -> None:
        self._chance = Random(7)

    def delays(self, _: str) -> tuple[float, float]:
        return self._chance.random(), self._chance.random()

    def orphaned(self, _: str, effect: Callable[[], None]) -> None:
        effect()


async def _in_a_simulation(virtual: loop.VirtualLoop, body: Body) -> None:
    await body(SimulatedRuntime(virtual, Random(1), _Calm()))


async def _in_real_time(body: Body, runtime: Runtime) -> None:
    await body(runtime)


@pytest.fixture(params=["system", "fake", "simulated"])
def run(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    def run_it(body: Body) -> None:
        if request.param == "simulated":
            loop.run(lambda virtual: _in_a_simulation(virtual, body))
        else:
            asyncio.run(_in_real_time(body, SystemRuntime() if request.param == "system" else FakeRuntime()))

    return run_it


def test_time_passes_while_one_sleeps_and_not_backwards(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        began, began_seconds = runtime.monotonic_seconds(), runtime.now_seconds()
        await runtime.sleep(0.02)
        assert runtime.monotonic_seconds() - began >= 0.019
        assert runtime.now_seconds() - began_seconds >= 0.01
        assert runtime.now_seconds() > 1_600_000_000

    run(body)


def test_others_go_on_while_one_sleeps(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        seen: list[str] = []

        async def other() -> None:
            seen.append("other")

        task = asyncio.create_task(other())
        await runtime.sleep(0.01)
        assert seen == ["other"]
        await task

    run(body)


def test_chance_is_a_fraction_and_ids_are_new(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        assert all(0 <= runtime.fraction() < 1 for _ in range(100))
        ids = [runtime.new_id() for _ in range(1000)]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)

    run(body)


def test_a_call_on_a_thread_gives_its_result_or_its_error(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        assert await runtime.in_thread(divmod, 7, 2) == (3, 1)
        assert await runtime.in_thread(sorted, [1, 2], reverse=True) == [2, 1]
        with pytest.raises(ZeroDivisionError):
            await runtime.in_thread(divmod, 7, 0)

    run(body)


def test_a_wait_for_a_thread_that_is_cancelled_does_not_stop_the_call(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        done: list[int] = []
        task = asyncio.create_task(runtime.in_thread(done.append, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        while not done:
            await asyncio.sleep(0.01)

    run(body)


def test_a_lane_runs_calls_in_their_order_and_answers_in_it(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        lane = runtime.lane("ledger")
        ran: list[int] = []
        answered: list[int] = []

        async def call(number: int) -> None:
            await lane.run(ran.append, number)
            answered.append(number)

        await asyncio.gather(*(call(number) for number in range(30)))
        assert ran == answered == list(range(30))
        assert lane.close()

    run(body)


def test_an_error_in_a_lane_is_its_callers_and_the_next_call_runs(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        lane = runtime.lane("ledger")
        failing = asyncio.create_task(lane.run(divmod, 7, 0))
        assert await lane.run(sorted, [2, 1], reverse=True) == [2, 1]
        with pytest.raises(ZeroDivisionError):
            await failing
        assert lane.close()

    run(body)


def test_a_wait_for_a_lane_that_is_cancelled_stops_neither_its_call_nor_the_next(
    run: Callable[[Body], None],
) -> None:
    async def body(runtime: Runtime) -> None:
        lane = runtime.lane("ledger")
        ran: list[int] = []
        first = asyncio.create_task(lane.run(ran.append, 1))
        await asyncio.sleep(0)
        first.cancel()
        await lane.run(ran.append, 2)
        assert ran == [1, 2]
        assert lane.close()

    run(body)


def test_a_lane_that_is_closed_finishes_what_it_was_asked_for(run: Callable[[Body], None]) -> None:
    async def body(runtime: Runtime) -> None:
        lane = runtime.lane("ledger")
        ran: list[int] = []
        tasks = [asyncio.create_task(lane.run(ran.append, number)) for number in range(3)]
        await asyncio.sleep(0)
        assert lane.close()
        await asyncio.gather(*tasks)
        assert ran == [0, 1, 2]

    run(body)


def test_a_process_that_has_died_does_nothing_more() -> None:
    """Of the simulation alone: what was running may have happened, what was asked for behind it has not."""

    async def body(virtual: loop.VirtualLoop) -> None:
        runtime = SimulatedRuntime(virtual, Random(1), _Calm())
        lane = runtime.lane("ledger")
        ran: list[int] = []
        tasks = [asyncio.create_task(lane.run(ran.append, number)) for number in range(3)]
        tasks.append(asyncio.create_task(runtime.in_thread(ran.append, 3)))
        await asyncio.sleep(0)
        runtime.die()
        for task in tasks:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await runtime.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await lane.run(ran.append, 4)
        await asyncio.sleep(100)
        assert ran == [0]

    loop.run(body)
