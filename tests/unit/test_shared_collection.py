"""Two sources with one collection: each looks after its own records, and leaves those of the other alone."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from ingestor.core.fingerprint import document_id_of, source_of
from ingestor.engine.pipeline import Pipeline, running
from tests.doubles_ledger import MemoryLedger
from tests.world import World


@pytest.fixture
def worlds() -> list[World]:
    one, other = World(), World()
    other.sink, other.embedder, other.vectors = one.sink, one.embedder, one.vectors
    one.folder.write("a.md", b"one\ntwo")
    one.folder.write("b.md", b"three")
    other.folder.write("a.md", b"one\nfour")
    return [one, other]


@asynccontextmanager
async def opened(worlds: Sequence[World], names: Sequence[str] = ("one", "other")) -> AsyncIterator[list[Pipeline]]:
    async with AsyncExitStack() as stack:
        pipelines: list[Pipeline] = []
        for world, name in zip(worlds, names, strict=True):
            world.embedder.is_closed = False
            pipeline = world.pipeline(name, beside=pipelines)
            stack.push_async_callback(pipeline.close)
            pipelines.append(pipeline)
        for place, pipeline in enumerate(pipelines):
            pipeline.share_collection(pipelines[:place] + pipelines[place + 1 :], is_first=place == 0)
        for pipeline in pipelines:
            await pipeline.prepare()
        yield pipelines


async def synced(worlds: Sequence[World]) -> None:
    async with opened(worlds) as pipelines, running(pipelines):
        for pipeline in pipelines:
            await pipeline.reconciler.reconcile()
            await pipeline.worker.run(until_idle=True)


def test_a_document_id_tells_its_source() -> None:
    assert source_of(document_id_of("notes", "7f3a")) == "notes"
    assert source_of(document_id_of("", "7f3a")) == ""
    assert source_of(document_id_of("a_b", "7f3a")) == "a_b"


async def test_the_number_of_records_is_right_for_both_and_an_audit_finds_nothing(worlds: list[World]) -> None:
    await synced(worlds)
    assert len(worlds[0].sink.held) == 5
    assert len(worlds[0].embedder.calls[0]) + sum(map(len, worlds[0].embedder.calls[1:])) == 4
    async with opened(worlds) as pipelines:
        for pipeline, records in zip(pipelines, (3, 2), strict=True):
            assert not await pipeline.auditor.is_off()
            audit = await pipeline.auditor.audit(is_deep=True, is_alone=True)
            assert (audit.is_sound, audit.records, audit.foreign) == (True, records, 0)


async def test_a_source_that_has_lost_its_ledger_takes_its_own_records_back(worlds: list[World]) -> None:
    await synced(worlds)
    calls = len(worlds[0].embedder.calls)
    worlds[1].ledger = MemoryLedger()
    async with opened(worlds) as (one, other):
        assert (await one.auditor.audit(is_alone=True)).is_sound
        assert len(worlds[1].ledger.glances()) == 1
        assert not await other.auditor.is_off()
    await synced(worlds)
    assert (len(worlds[0].sink.held), len(worlds[0].embedder.calls)) == (5, calls)


async def test_records_of_a_source_that_is_no_more_are_found_by_the_first_one_and_go(worlds: list[World]) -> None:
    await synced(worlds)
    async with opened(worlds[:1], ["one"]) as pipelines, running(pipelines):
        await pipelines[0].reconciler.reconcile()
        await pipelines[0].worker.run(until_idle=True)
    assert worlds[0].records() == worlds[0].expected()


async def test_pipelines_with_one_model_share_its_line_and_close_it_once(worlds: list[World]) -> None:
    async with opened(worlds) as (one, other):
        assert one.embedding is other.embedding
        assert one.account is other.account
        assert not worlds[0].embedder.is_closed
    assert worlds[0].embedder.is_closed
