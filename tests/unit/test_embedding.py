"""From texts to vectors: nothing twice, calls full, faults bounded."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from ingestor.core.backoff import Backoff
from ingestor.core.errors import AuthenticationFailed, RateLimited, RejectedByModel, ServiceUnavailable
from tests.doubles_clock import FakeClock
from tests.doubles_embedder import HashEmbedder
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
    async with running(embedder, FakeClock(), RETRY) as line:
        assert await line.ask("a", "b", "a") == 2
        assert embedder.calls == [("a", "b")]


async def test_a_text_that_was_embedded_once_is_not_sent_again() -> None:
    embedder = HashEmbedder()
    async with running(embedder, FakeClock(), RETRY) as line:
        await line.ask("a")
        assert await line.ask("a") == 0
        assert len(embedder.calls) == 1


async def test_a_text_in_flight_is_not_sent_a_second_time() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeClock(), RETRY) as line:
        first = asyncio.create_task(line.ask("a"))
        await until(lambda: embedder.in_flight == 1)
        second = asyncio.create_task(line.ask("a"))
        await asyncio.sleep(0.01)
        gate.set()
        assert [await first, await second] == [1, 0]
        assert embedder.calls == [("a",)]


async def test_texts_of_different_documents_share_a_call() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeClock(), RETRY) as line:
        blocker = asyncio.create_task(line.ask("blocker"))
        await until(lambda: embedder.in_flight == 1)
        others = [asyncio.create_task(line.ask(text)) for text in ("a", "b", "c")]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(blocker, *others)
        assert embedder.calls == [("blocker",), ("a", "b", "c")]


async def test_a_lone_document_does_not_wait_for_a_call_to_fill() -> None:
    clock = FakeClock()
    async with running(HashEmbedder(max_batch_inputs=100), clock, RETRY) as line:
        await line.ask("a")
        assert clock.monotonic_seconds() == 0.0, "no time has passed"


async def test_calls_keep_to_the_limits() -> None:
    embedder = HashEmbedder(max_batch_inputs=3, max_batch_tokens=10)
    async with running(embedder, FakeClock(), RETRY) as line:
        await line.ask("aaaa", "bbbb", "cccc", "d", "e", "f", "g", "x" * 50)
        assert all(len(call) <= 3 for call in embedder.calls)
        assert all(len(call) == 1 or sum(map(len, call)) <= 10 for call in embedder.calls)


async def test_vectors_are_in_the_store_before_anybody_gets_them() -> None:
    async with running(HashEmbedder(), FakeClock(), RETRY) as line:
        await line.ask("a")
        assert len(line.vectors.held) == 1


async def test_a_transient_fault_is_tried_again_after_a_pause() -> None:
    embedder = HashEmbedder()
    embedder.faults.append(ServiceUnavailable("down"))
    clock = FakeClock()
    async with running(embedder, clock, RETRY) as line:
        await line.ask("a")
        assert 0.5 <= clock.slept_seconds[0] <= 1.0


async def test_a_pause_is_never_shorter_than_retry_after() -> None:
    embedder = HashEmbedder()
    embedder.faults.append(RateLimited("slow down", retry_after_seconds=30.0))
    clock = FakeClock()
    async with running(embedder, clock, RETRY) as line:
        await line.ask("a")
        assert clock.slept_seconds == [30.0]


async def test_attempts_are_bounded_and_everybody_waiting_is_told() -> None:
    gate = asyncio.Event()
    embedder = HashEmbedder(max_concurrency=1, max_batch_inputs=1, gate=gate)
    embedder.faults.extend(ServiceUnavailable("down") for _ in range(RETRY.max_attempts))
    async with running(embedder, FakeClock(), RETRY) as line:
        requests = [await line.embedding.request([text]) for text in ("a", "b", "c")]
        gate.set()
        results = await asyncio.gather(*(request.vectors() for request in requests), return_exceptions=True)
        assert [type(result) for result in results] == [ServiceUnavailable] * 3
        assert len(embedder.attempts) == RETRY.max_attempts
        assert await line.ask("a") == 1, "the next one finds the service up again"


async def test_a_text_that_the_model_refuses_does_not_take_the_others_with_it() -> None:
    embedder = HashEmbedder(max_batch_inputs=16, rejects=["bad"])
    async with running(embedder, FakeClock(), RETRY) as line:
        with line.embedding.announced():
            good = [await line.embedding.request([f"good {number}"]) for number in range(7)]
            bad = await line.embedding.request(["bad"])
        for request in good:
            assert len(await request.vectors()) == 1
        with pytest.raises(RejectedByModel):
            await bad.vectors()


async def test_a_refused_key_reaches_everybody_at_once() -> None:
    embedder = HashEmbedder()
    embedder.faults.append(AuthenticationFailed("401"))
    async with running(embedder, FakeClock(), RETRY) as line:
        with pytest.raises(AuthenticationFailed):
            await line.ask("a")
        assert len(embedder.attempts) == 1


async def test_a_question_is_not_queued_behind_documents() -> None:
    embedder, gate = gated()
    async with running(embedder, FakeClock(), RETRY) as line:
        backfill = asyncio.create_task(line.ask(*[f"text {number}" for number in range(100)]))
        await until(lambda: embedder.in_flight == 1)
        question = asyncio.create_task(line.embedding.query_vector("why?"))
        await until(lambda: ("why?",) in embedder.attempts)
        gate.set()
        assert np.isfinite(await question).all()
        await backfill


async def test_usage_counts_what_was_spent() -> None:
    async with running(HashEmbedder(max_batch_inputs=2), FakeClock(), RETRY) as line:
        await line.ask("a", "b", "c")
        assert (line.account.usage.requests, line.account.usage.texts) == (2, 3)


async def test_tokens_that_a_provider_does_not_count_are_estimated() -> None:
    embedder = HashEmbedder()
    embedder.counts_tokens = False
    async with running(embedder, FakeClock(), RETRY) as line:
        await line.ask("four", "fives")
        assert line.account.usage.tokens == 9
