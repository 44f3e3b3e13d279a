"""From texts to vectors: nothing twice, calls full, faults bounded."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from ingestor.core.backoff import Backoff
from ingestor.core.errors import AuthenticationFailed, RateLimited, RejectedByModel, ServiceUnavailable
from ingestor.core.model import Usage
from ingestor.core.suspicion import PROBE
from ingestor.ports import Vector, Vectors
from tests.doubles_embedder import HashEmbedder
from tests.doubles_ledger import MemoryLedger, MemoryVectors
from tests.doubles_runtime import FakeRuntime
from tests.line import running

RETRY = Backoff(first_seconds=1.0, max_seconds=8.0, max_attempts=3)


def gated() -> tuple[HashEmbedder, asyncio.Event]:
    gate = asyncio.Event()
    return HashEmbedder(gate=gate, max_concurrency=1), gate


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_equal_texts_of_a_document_are_sent_once() -> None:
    embedder = HashEmbedder()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        assert await line.ask("a", "b", "a") == 2
        assert embedder.calls == [("a", "b")]


async def test_a_text_that_was_embedded_once_is_not_sent_again() -> None:
    embedder = HashEmbedder()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        await line.ask("a")
        assert await line.ask("a") == 0
        assert len(embedder.calls) == 1


async def test_no_call_goes_out_empty_when_the_line_fails_while_it_is_asked_whether_calls_may_go_out() -> None:
    asked, may_answer, sent = asyncio.Event(), asyncio.Event(), list[Sequence[str]]()

    class Noting(HashEmbedder):
        async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
            sent.append(texts)
            return await super().embed(texts)

    async with running(Noting(), FakeRuntime(), RETRY) as line:

        async def held() -> None:
            asked.set()
            await may_answer.wait()

        line.embedding._held = held
        asking = asyncio.create_task(line.ask("a"))
        await asked.wait()
        line.embedding._fail_with_line([], ServiceUnavailable("another call found out that the endpoint is away"))
        may_answer.set()
        with pytest.raises(ServiceUnavailable):
            await asking
        await asyncio.sleep(0.01)
        assert not sent
        line.embedding._held = None
        await line.ask("b")
        assert [list(texts) for texts in sent] == [["b"]]


async def test_a_text_in_flight_is_not_sent_a_second_time() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        first = asyncio.create_task(line.ask("a"))
        await until(lambda: embedder.in_flight == 1)
        second = asyncio.create_task(line.ask("a"))
        await asyncio.sleep(0.01)
        gate.set()
        assert [await first, await second] == [1, 0]
        assert embedder.calls == [("a",)]


async def test_texts_of_different_documents_share_a_call() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        blocker = asyncio.create_task(line.ask("blocker"))
        await until(lambda: embedder.in_flight == 1)
        others = [asyncio.create_task(line.ask(text)) for text in ("a", "b", "c")]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(blocker, *others)
        assert embedder.calls == [("blocker",), ("a", "b", "c")]


async def test_a_lone_document_does_not_wait_for_a_call_to_fill() -> None:
    clock = FakeRuntime()
    async with running(HashEmbedder(max_batch_inputs=100), clock, RETRY) as line:
        await line.ask("a")
        assert clock.monotonic_seconds() == 0.0, "no time has passed"


async def test_calls_keep_to_the_limits() -> None:
    embedder = HashEmbedder(max_batch_inputs=3, max_batch_tokens=10)
    async with running(embedder, FakeRuntime(), RETRY) as line:
        await line.ask("aaaa", "bbbb", "cccc", "d", "e", "f", "g", "x" * 50)
        assert all(len(call) <= 3 for call in embedder.calls)
        assert all(len(call) == 1 or sum(map(len, call)) <= 10 for call in embedder.calls)


async def test_vectors_are_in_the_store_before_anybody_gets_them() -> None:
    async with running(HashEmbedder(), FakeRuntime(), RETRY) as line:
        await line.ask("a")
        assert len(line.vectors.held) == 1


async def test_a_transient_fault_is_tried_again_after_a_pause() -> None:
    embedder = HashEmbedder()
    embedder.faults.append(ServiceUnavailable("down"))
    clock = FakeRuntime()
    async with running(embedder, clock, RETRY) as line:
        await line.ask("a")
        assert 0.5 <= clock.slept_seconds[0] <= 1.0


async def test_a_pause_is_never_shorter_than_retry_after() -> None:
    embedder = HashEmbedder()
    embedder.faults.append(RateLimited("slow down", retry_after_seconds=30.0))
    clock = FakeRuntime()
    async with running(embedder, clock, RETRY) as line:
        await line.ask("a")
        assert clock.slept_seconds == [30.0]


async def test_attempts_are_bounded_and_everybody_waiting_is_told() -> None:
    gate = asyncio.Event()
    embedder = HashEmbedder(max_concurrency=1, max_batch_inputs=1, gate=gate)
    embedder.faults.extend(ServiceUnavailable("down") for _ in range(RETRY.max_attempts))
    async with running(embedder, FakeRuntime(), RETRY) as line:
        requests = [await line.embedding.request([text]) for text in ("a", "b", "c")]
        gate.set()
        results = await asyncio.gather(*(request.vectors() for request in requests), return_exceptions=True)
        assert [type(result) for result in results] == [ServiceUnavailable] * 3
        assert len(embedder.attempts) == RETRY.max_attempts
        assert await line.ask("a") == 1, "the next one finds the service up again"


async def test_a_text_that_the_model_refuses_does_not_take_the_others_with_it() -> None:
    embedder = HashEmbedder(max_batch_inputs=16, rejects=["bad"])
    async with running(embedder, FakeRuntime(), RETRY) as line:
        with line.embedding.announced():
            good = [await line.embedding.request([f"good {number}"]) for number in range(7)]
            bad = await line.embedding.request(["bad"])
        for request in good:
            assert len(await request.vectors()) == 1
        with pytest.raises(RejectedByModel):
            await bad.vectors()


async def test_a_key_that_a_text_of_our_own_is_refused_with_too_reaches_everybody_at_once() -> None:
    embedder = HashEmbedder()
    embedder.faults.extend([AuthenticationFailed("401"), AuthenticationFailed("401")])
    async with running(embedder, FakeRuntime(), RETRY) as line:
        with pytest.raises(AuthenticationFailed):
            await line.ask("a")
        assert embedder.attempts == [("a",), (PROBE,)]


async def test_a_question_is_not_queued_behind_documents() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        backfill = asyncio.create_task(line.ask(*[f"text {number}" for number in range(100)]))
        await until(lambda: embedder.in_flight == 1)
        question = asyncio.create_task(line.embedding.query_vector("why?"))
        await until(lambda: ("why?",) in embedder.attempts)
        gate.set()
        assert np.isfinite(await question).all()
        await backfill


async def test_usage_counts_what_was_spent() -> None:
    async with running(HashEmbedder(max_batch_inputs=2), FakeRuntime(), RETRY) as line:
        await line.ask("a", "b", "c")
        assert (line.account.usage.requests, line.account.usage.texts) == (2, 3)


async def test_tokens_that_a_provider_does_not_count_are_estimated() -> None:
    embedder = HashEmbedder()
    embedder.counts_tokens = False
    async with running(embedder, FakeRuntime(), RETRY) as line:
        await line.ask("four", "fives")
        assert line.account.usage.tokens == 9


async def test_a_live_text_overtakes_ten_thousand_that_wait() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        backfill = await line.embedding.request([f"text {number}" for number in range(10_000)])
        await until(lambda: embedder.in_flight == 1)
        live = await line.embedding.request(["live"], is_live=True)
        gate.set()
        await live.vectors()
        assert embedder.calls[1] == ("live",), "by itself, because a small call is answered sooner"
        await backfill.vectors()
        assert embedder.texts.count("text 9999") == 1


async def test_a_text_that_waits_already_moves_up_when_a_live_document_wants_it() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        backfill = await line.embedding.request([f"text {number}" for number in range(1_000)])
        await until(lambda: embedder.in_flight == 1)
        live = await line.embedding.request(["text 999"], is_live=True)
        assert live.embedded == 0
        gate.set()
        await live.vectors()
        assert embedder.calls[1] == ("text 999",)
        await backfill.vectors()
        assert len(embedder.texts) == 1_000


async def test_the_backfill_goes_on_however_many_live_texts_wait() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeRuntime(), RETRY) as line:
        blocker = await line.embedding.request(["blocker"], is_live=True)
        await until(lambda: embedder.in_flight == 1)
        backfill = await line.embedding.request(["backfill"])
        live = await line.embedding.request([f"live {number}" for number in range(160)], is_live=True)
        gate.set()
        await backfill.vectors()
        first = [call[0] for call in embedder.calls]
        assert first[:5] == ["blocker", "live 0", "live 16", "live 32", "backfill"]
        await live.vectors()
        await blocker.vectors()


async def test_a_live_text_does_not_wait_for_documents_of_the_backfill_that_are_being_read() -> None:
    clock = FakeRuntime()
    async with running(HashEmbedder(max_batch_inputs=100), clock, RETRY) as line:
        with line.embedding.announced():
            with line.embedding.announced(is_live=True):
                live = await line.embedding.request(["live"], is_live=True)
            await live.vectors()
            assert clock.monotonic_seconds() == 0.0, "no time has passed"


async def test_live_texts_wait_for_each_other_to_share_a_call() -> None:
    embedder = HashEmbedder(max_batch_inputs=100)
    async with running(embedder, FakeRuntime(), RETRY) as line:
        with line.embedding.announced(is_live=True):
            first = await line.embedding.request(["a"], is_live=True)
            await asyncio.sleep(0.01)
            second = await line.embedding.request(["b"], is_live=True)
        await first.vectors()
        await second.vectors()
        assert embedder.calls == [("a", "b")]


async def test_who_waits_for_a_vector_does_not_wait_for_what_it_costs_to_be_counted() -> None:
    ledger = StuckLedger()
    async with running(HashEmbedder(), FakeRuntime(), RETRY, ledger=ledger) as line:
        await asyncio.wait_for(line.ask("a"), 5)
        assert ledger.usage.texts == 0
        ledger.may_count.set()
        await until(lambda: ledger.usage.texts == 1)


async def test_what_is_paid_for_and_not_kept_is_never_more_than_the_calls_that_may_run_at_once() -> None:
    embedder, vectors = HashEmbedder(max_concurrency=2, max_batch_inputs=1), StuckVectors()
    async with running(embedder, FakeRuntime(), RETRY, vectors=vectors) as line:
        request = await line.embedding.request(["a", "b", "c"])
        await until(lambda: embedder.calls == [("a",), ("b",)])
        await asyncio.sleep(0.05)
        assert embedder.calls == [("a",), ("b",)]
        vectors.may_keep.set()
        assert len(await request.vectors()) == 3
        assert embedder.calls == [("a",), ("b",), ("c",)]


async def test_a_call_goes_out_while_the_cost_of_the_last_one_is_being_counted() -> None:
    embedder, ledger = HashEmbedder(max_concurrency=1, max_batch_inputs=1), StuckLedger()
    async with running(embedder, FakeRuntime(), RETRY, ledger=ledger) as line:
        request = await line.embedding.request(["a", "b"])
        await until(lambda: embedder.calls == [("a",), ("b",)])
        assert ledger.usage.texts == 0
        ledger.may_count.set()
        assert len(await request.vectors()) == 2


class StuckLedger(MemoryLedger):
    """Counts nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_count = threading.Event()

    def add_usage(self, usage: Usage, day: str) -> None:
        assert self.may_count.wait(10)
        super().add_usage(usage, day)


class StuckVectors(MemoryVectors):
    """Keeps nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_keep = threading.Event()

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        assert self.may_keep.wait(10)
        super().put(vectors)
