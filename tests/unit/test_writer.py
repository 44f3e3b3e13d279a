"""The writer: who goes together, and who goes first."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import cast

import pytest

from ingestor.core.errors import IngestorError, RejectedByChroma, ServiceUnavailable
from ingestor.core.model import Change, Entry, Outcome, Plan, Priority, Record, Stat
from ingestor.core.reconciling import Standing
from ingestor.engine.in_work import Overtaken
from ingestor.engine.looking import Looker
from ingestor.engine.sync import Protocol, Write
from ingestor.engine.writer import SHORT_GROUP_RECORDS, SHORT_GROUPS, Writer
from ingestor.ports import MAX_GROUP_RECORDS


class GatedProtocol:
    """Notes the paths of every group that is applied, and is done with it when the gate is open."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.gate = asyncio.Semaphore(0)
        self.refused = ""
        self.marked: list[list[str]] = []
        self.committed: list[list[str]] = []
        self.left: list[Change] = []
        self.mark_fault: IngestorError | None = None
        self.commit_gate = asyncio.Event()
        self.commit_gate.set()

    async def mark(self, group: Sequence[Write]) -> None:
        if self.mark_fault is not None:
            raise self.mark_fault
        self.marked.append(paths_of(group))

    async def apply(self, group: Sequence[Write]) -> None:
        paths = paths_of(group)
        assert set(paths) <= {path for marked in self.marked for path in marked}, "none is applied that is not marked"
        self.groups.append(paths)
        await self.gate.acquire()
        if self.refused in paths:
            raise RejectedByChroma("refused")

    async def commit(self, group: Sequence[Write], left: Collection[Change]) -> None:
        await self.commit_gate.wait()
        self.left += left
        self.committed.append(paths_of(group))


class StillFolder:
    """Finds all as it was planned, but for what `found` says of a path."""

    def __init__(self) -> None:
        self.found: dict[str, Standing] = {}

    async def standings(self, plans: Sequence[Plan]) -> list[Standing]:
        return [self.found.get(plan.path, Standing.AS_PLANNED) for plan in plans]


def paths_of(group: Sequence[Write]) -> list[str]:
    return [write.change.path for write in group]


def write(path: str, priority: Priority = Priority.BACKFILL, records: int = 1) -> Write:
    embed = tuple(Record(f"{path}:{number}", "text", {}, "") for number in range(records))
    return Write(Plan(path, Outcome.ADDED, None, None, embed=embed), (), Change(path, priority, 0.0, 0.0))


def live(path: str) -> Write:
    return write(path, Priority.LIVE)


@asynccontextmanager
async def running(
    protocol: GatedProtocol, looker: "StillFolder | None" = None
) -> AsyncIterator[tuple[Writer, asyncio.TaskGroup]]:
    writer = Writer(cast("Protocol", protocol), cast("Looker", looker or StillFolder()))
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
    assert [type(each) for each in ended] == [Standing, RejectedByChroma, Standing]
    with pytest.raises(RejectedByChroma):
        others[1].result()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_while_chroma_is_at_a_group_the_next_one_is_marked_if_it_is_full() -> None:
    protocol = GatedProtocol()
    waiting = [write(f"b{number}") for number in range(2 * MAX_GROUP_RECORDS + 1)]
    async with running(protocol) as (writer, tasks):
        await handed_in(writer, tasks, [write("first")])
        await handed_in(writer, tasks, waiting[:MAX_GROUP_RECORDS])
        await settled()
        assert protocol.marked == [["first"]], "what may still grow is marked when Chroma is free"
        await handed_in(writer, tasks, waiting[MAX_GROUP_RECORDS:])
        await settled()
        assert protocol.marked == [["first"], paths_of(waiting[:MAX_GROUP_RECORDS])], "one group ahead, and no more"
        for _ in range(4):
            protocol.gate.release()
    assert sorted(path for group in protocol.marked for path in group) == sorted(["first", *paths_of(waiting)])


async def test_a_live_change_overtakes_the_group_that_is_marked_already() -> None:
    protocol = GatedProtocol()
    async with running(protocol) as (writer, tasks):
        await handed_in(writer, tasks, [write("first")])
        await handed_in(writer, tasks, [write(f"b{number}") for number in range(2 * MAX_GROUP_RECORDS)])
        await settled()
        assert len(protocol.marked[1]) == MAX_GROUP_RECORDS
        await handed_in(writer, tasks, [live("live")])
        await settled()
        assert protocol.marked[2:] == [["live"]]
        protocol.gate.release()
        await settled()
        assert protocol.groups[1][0] == "live"
        assert len(protocol.groups[1]) == SHORT_GROUP_RECORDS
        for _ in range(20):
            protocol.gate.release()


async def test_chroma_gets_the_next_group_while_the_last_one_is_committed() -> None:
    protocol = GatedProtocol()
    protocol.commit_gate.clear()
    async with running(protocol) as (writer, tasks):
        await handed_in(writer, tasks, [write("a")])
        await handed_in(writer, tasks, [write("b"), write("c")])
        protocol.gate.release()
        await settled()
        assert (protocol.groups, protocol.committed) == ([["a"], ["b", "c"]], [])
        await handed_in(writer, tasks, [write("d")])
        protocol.gate.release()
        protocol.gate.release()
        await settled()
        protocol.commit_gate.set()
    assert protocol.committed == [["a"], ["b", "c", "d"]], "what Chroma had meanwhile is committed together"


async def test_a_ledger_that_fails_ahead_is_asked_again_and_fails_those_whose_turn_it_is() -> None:
    protocol = GatedProtocol()
    async with running(protocol) as (writer, tasks):
        await handed_in(writer, tasks, [write("first")])
        protocol.mark_fault = ServiceUnavailable("the disk is full")
        others = [asyncio.ensure_future(writer.write(write(f"b{number}"))) for number in range(MAX_GROUP_RECORDS + 1)]
        await settled()
        assert not any(each.done() for each in others), "their turn has not come"
        protocol.gate.release()
        ended = await asyncio.gather(*others, return_exceptions=True)
    assert {type(each) for each in ended} == {ServiceUnavailable}
    assert protocol.groups == [["first"]]


@pytest.mark.parametrize("outcome", [Outcome.DELETED, Outcome.PROBLEM])
async def test_what_cannot_be_looked_at_loses_no_records(outcome: Outcome) -> None:
    protocol, folder = GatedProtocol(), StillFolder()
    folder.found["a"] = Standing.UNKNOWN
    entry = Entry("a", "a", Stat(1, 1, 1, 1, 1), "hash", "cutting", {"a:1": "tag"})
    after = None if outcome is Outcome.DELETED else entry
    lost = Write(Plan("a", outcome, entry, after, drop=("a:1",)), (), Change("a", Priority.LIVE, 0.0, 0.0))
    async with running(protocol, folder) as (writer, _):
        with pytest.raises(Overtaken):
            await writer.write(lost)
        protocol.gate.release()
        added = replace(write("a", Priority.LIVE), plan=replace(live("a").plan, after=entry))
        assert await writer.write(added) is Standing.UNKNOWN, "what adds to it is written, and looked at again"
    assert protocol.groups == [["a"]]
