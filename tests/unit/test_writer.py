"""The writer: who goes together, and who goes first."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from ingestor.core.errors import RejectedByChroma
from ingestor.core.model import Change, Outcome, Plan, Priority, Record
from ingestor.engine.sync import Protocol, Write
from ingestor.engine.writer import MAX_GROUP_RECORDS, SHORT_GROUP_RECORDS, SHORT_GROUPS, Writer


class GatedProtocol:
    """Notes the paths of every group, and is done with it when the gate is open."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.gate = asyncio.Semaphore(0)
        self.refused = ""

    async def write(self, group: Sequence[Write]) -> None:
        paths = [write.change.path for write in group]
        self.groups.append(paths)
        await self.gate.acquire()
        if self.refused in paths:
            raise RejectedByChroma("refused")


def write(path: str, priority: Priority = Priority.BACKFILL, records: int = 1) -> Write:
    embed = tuple(Record(f"{path}:{number}", "text", {}, "") for number in range(records))
    return Write(Plan(path, Outcome.ADDED, None, None, embed=embed), (), Change(path, priority, 0.0, 0.0))


def live(path: str) -> Write:
    return write(path, Priority.LIVE)


@asynccontextmanager
async def running(protocol: GatedProtocol) -> AsyncIterator[tuple[Writer, asyncio.TaskGroup]]:
    writer = Writer(cast("Protocol", protocol))
    serving = asyncio.create_task(writer.run())
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        yield writer, tasks
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def handed_in(writer: Writer, tasks: asyncio.TaskGroup, writes: Sequence[Write]) -> None:
    for each in writes:
        tasks.create_task(writer.write(each))
    for _ in range(3):
        await asyncio.sleep(0)


async def groups_of(first: Sequence[Write], then: Sequence[Write]) -> list[list[str]]:
    """The groups in which writes are carried out, when the later ones come during the first group."""
    protocol = GatedProtocol()
    async with running(protocol) as (writer, tasks):
        await handed_in(writer, tasks, first)
        await handed_in(writer, tasks, then)
        for _ in range(len(first) + len(then)):
            protocol.gate.release()
    return protocol.groups


async def test_a_lone_document_goes_at_once_and_what_is_ready_meanwhile_goes_together() -> None:
    assert await groups_of([write("a")], [write("b"), write("c")]) == [["a"], ["b", "c"]]


async def test_a_live_change_overtakes_ten_thousand_that_wait() -> None:
    waiting = [write(f"b{number}") for number in range(10_000)]
    groups = await groups_of([write("first")], [*waiting, live("live")])
    assert groups[0] == ["first"]
    assert groups[1][:2] == ["live", "b0"]


async def test_groups_are_short_while_live_changes_come_and_grow_when_they_end() -> None:
    waiting = [write(f"b{number}") for number in range(4_000)]
    groups = await groups_of([write("first")], [*waiting, live("live")])
    lengths = [len(group) for group in groups[1:]]
    assert lengths[: SHORT_GROUPS + 1] == [SHORT_GROUP_RECORDS] * SHORT_GROUPS + [MAX_GROUP_RECORDS]


async def test_live_changes_by_the_thousand_go_in_large_groups() -> None:
    groups = await groups_of([live("first")], [live(f"l{number}") for number in range(1_000)])
    assert [len(group) for group in groups] == [1, MAX_GROUP_RECORDS, MAX_GROUP_RECORDS]


async def test_the_backfill_goes_on_however_many_live_changes_come() -> None:
    waiting = [live(f"l{number}") for number in range(10 * MAX_GROUP_RECORDS)]
    groups = await groups_of([live("first")], [write("backfill"), *waiting])
    assert ["backfill" in group for group in groups[1:]] == [False] * 3 + [True] + [False] * 7


async def test_a_document_larger_than_a_group_is_a_group_of_its_own() -> None:
    large = write("large", records=MAX_GROUP_RECORDS + 1)
    assert await groups_of([write("a")], [write("b"), large, write("c")]) == [["a"], ["b"], ["large"], ["c"]]


async def test_a_refused_record_takes_no_other_document_with_it() -> None:
    protocol = GatedProtocol()
    protocol.refused = "b"
    async with running(protocol) as (writer, tasks):
        others = [asyncio.ensure_future(writer.write(write(path))) for path in ("a", "b", "c")]
        await handed_in(writer, tasks, [])
        for _ in range(4):
            protocol.gate.release()
        ended = await asyncio.gather(*others, return_exceptions=True)
    assert [type(each) for each in ended] == [type(None), RejectedByChroma, type(None)]
    with pytest.raises(RejectedByChroma):
        others[1].result()
