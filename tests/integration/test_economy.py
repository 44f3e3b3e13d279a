"""What a provider sees of us, over real HTTP: it counts requests, texts and tokens, and enforces its limits.

Time may run twenty times as fast for the line as for the provider, so that a minute's budget takes seconds to watch.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.backoff import Backoff
from ingestor.core.errors import BudgetSpent, ServiceUnavailable, TransientError
from ingestor.core.model import Recipe
from ingestor.core.pacing import FAILURES_TO_OPEN, FIRST_CALLS, Allowance
from ingestor.core.suspicion import PROBE
from ingestor.core.tokens import estimate_tokens
from tests.doubles_ledger import MemoryLedger
from tests.embedding_server import DEFAULT_DIMENSIONS, EmbeddingServer, Fault, FaultKind, tokens_of
from tests.line import UNLIMITED, Line, running

RETRY = Backoff(first_seconds=0.5, max_seconds=20.0, max_attempts=6)
SPEED = 20.0
MINUTE_SECONDS = 50 / SPEED
"""The provider's minute; a little short, because the haste makes seconds of what the machine delays by milliseconds."""


class FastRuntime(SystemRuntime):
    """`ports.Runtime` whose clock runs faster than others."""

    def __init__(self, speed: float) -> None:
        self._speed = speed

    def monotonic_seconds(self) -> float:
        return time.monotonic() * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)


@asynccontextmanager
async def line_to(  # noqa: PLR0913 - what a test may want otherwise
    server: EmbeddingServer,
    *,
    allowance: Allowance = UNLIMITED,
    max_inputs: int = 10,
    max_tokens: int = 1_000_000,
    max_calls: int = 8,
    ledger: MemoryLedger | None = None,
    speed: float = SPEED,
) -> AsyncIterator[Line]:
    embedder = OpenAIEmbedder(
        Recipe("openai", "test", DEFAULT_DIMENSIONS),
        base_url=server.base_url,
        api_key="",
        max_batch_inputs=max_inputs,
        max_batch_tokens=max_tokens,
        max_concurrency=max_calls,
        timeout_seconds=10.0,
        sends_dimensions=False,
    )
    async with running(
        embedder, FastRuntime(speed), RETRY, allowance=allowance, ledger=ledger, estimate_tokens=estimate_tokens
    ) as line:
        yield line


def texts_of(count: int, *, words: int = 8) -> list[str]:
    return [" ".join([f"text {number}", *("word",) * words]) for number in range(count)]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


async def test_ten_texts_a_call_are_filled_by_all_documents_that_wait() -> None:
    texts = texts_of(1_000)
    with EmbeddingServer(max_inputs=10) as server:
        async with line_to(server) as line:
            with line.embedding.announced():
                requests = [await line.embedding.request(texts[place : place + 7]) for place in range(0, 1_000, 7)]
            await asyncio.gather(*(request.vectors() for request in requests))
        assert server.texts == 1_000
        assert 100 <= server.requests <= 103, "a call goes out unfilled only where the machine is late with texts"


async def test_a_text_that_many_ask_for_at_once_is_sent_once() -> None:
    with EmbeddingServer(latency_seconds=0.05) as server:
        async with line_to(server) as line:
            paid = await asyncio.gather(*(line.ask(*texts_of(25)) for _ in range(20)))
        assert sum(paid) == server.texts == 25
        assert server.counters.repeated_texts == 0


@pytest.mark.parametrize("is_outspoken", [True, False], ids=["told", "found"])
async def test_texts_a_call_are_learned_from_a_refusal(*, is_outspoken: bool) -> None:
    with EmbeddingServer(max_inputs=10, is_outspoken=is_outspoken) as server:
        async with line_to(server, max_inputs=64, max_calls=1) as line:
            await line.ask(*texts_of(1_000))
        assert (server.texts, server.counters.repeated_texts) == (1_000, 0)
        # Told, the first call alone is refused; found by halving, 64, 32 and 16 are, before 8 are taken; and 16 again
        # after 64 calls, because the reason was only guessed.
        assert server.counters.too_large <= (1 if is_outspoken else 5)
        assert server.counters.calls <= (100 if is_outspoken else 1_000 // 8 + 1)


@pytest.mark.parametrize("is_outspoken", [True, False], ids=["told", "found"])
async def test_tokens_a_call_are_learned_from_a_refusal(*, is_outspoken: bool) -> None:
    texts = texts_of(400, words=40)
    with EmbeddingServer(max_tokens=1_000, is_outspoken=is_outspoken) as server:
        async with line_to(server, max_inputs=128, max_calls=1) as line:
            await line.ask(*texts)
        assert (server.texts, server.counters.repeated_texts) == (400, 0)
        assert server.counters.too_large <= 12
        assert server.counters.calls <= 2 * tokens_of(texts) / 1_000 + 1


async def test_tokens_a_call_are_kept_to() -> None:
    texts = texts_of(200, words=40)
    with EmbeddingServer(max_tokens=2_000) as server:
        async with line_to(server, max_inputs=128, max_tokens=1_500) as line:
            await line.ask(*texts)
        assert server.counters.too_large == 0
        assert server.requests <= -(-sum(map(estimate_tokens, texts)) // (1_500 - max(map(estimate_tokens, texts))))


async def test_an_answer_of_413_without_words_halves_the_call(server: EmbeddingServer) -> None:
    server.inject(Fault(FaultKind.STATUS, status=413))
    async with line_to(server, max_inputs=64, max_calls=1) as line:
        await line.ask(*texts_of(320))
    assert (server.texts, server.counters.repeated_texts) == (320, 0)
    assert server.calls == 320 / 32
    assert max(len(received.texts) for received in server.received[1:]) == 32


@pytest.mark.parametrize("is_outspoken", [True, False], ids=["retry-after", "bare-429"])
async def test_a_rate_that_the_provider_enforces_loses_nothing_and_pays_nothing_twice(*, is_outspoken: bool) -> None:
    with EmbeddingServer(window_seconds=0.5, window_requests=10, is_outspoken=is_outspoken) as server:
        async with line_to(server) as line:
            await line.ask(*texts_of(300))
        assert (server.calls, server.texts, server.counters.repeated_texts) == (30, 300, 0)
        assert 0 < server.counters.too_many <= server.calls * 3, "most of what is sent is answered"


async def test_a_budget_of_requests_a_minute_is_never_exceeded() -> None:
    with EmbeddingServer(window_seconds=MINUTE_SECONDS, window_requests=10) as server:
        async with line_to(server, allowance=Allowance(requests_per_minute=10)) as line:
            await line.ask(*texts_of(250))
        assert (server.calls, server.counters.too_many) == (25, 0)


async def test_a_budget_of_tokens_a_minute_is_never_exceeded() -> None:
    texts = texts_of(60)
    budget = 20 * estimate_tokens(texts[-1])
    with EmbeddingServer(window_seconds=MINUTE_SECONDS, window_tokens=2 * budget) as server:
        async with line_to(server, allowance=Allowance(tokens_per_minute=budget)) as line:
            began_seconds = line.pace.max_call_tokens
            await line.ask(*texts)
        assert began_seconds == budget
        assert (server.texts, server.counters.too_many) == (60, 0)
        assert max(len(received.texts) for received in server.received) == 10
        assert server.requests >= 6


async def test_limits_of_a_minute_are_learned_from_a_429(server: EmbeddingServer) -> None:
    told = "Rate limit reached on requests per min (RPM): Limit 4, Used 4, Requested 1. Please try again in 1s."
    server.inject(Fault(FaultKind.STATUS, status=429, body=f'{{"error": {{"message": "{told}"}}}}'))
    async with line_to(server, max_calls=1) as line:
        began_seconds = time.monotonic()
        await line.ask(*texts_of(90))
        minutes = (time.monotonic() - began_seconds) * SPEED / 60
    assert (server.calls, server.texts) == (9, 90)
    assert minutes >= 2, "ten requests at four a minute"


async def test_a_call_larger_than_the_learned_tokens_a_minute_is_cut_to_them(server: EmbeddingServer) -> None:
    texts = texts_of(64)
    budget = 16 * max(map(estimate_tokens, texts))
    told = f"Request too large on tokens per min (TPM): Limit {budget}, Requested {budget * 4}."
    server.inject(Fault(FaultKind.STATUS, status=429, body=f'{{"error": {{"message": "{told}"}}}}'))
    async with line_to(server, max_inputs=64) as line:
        await line.ask(*texts)
    assert (server.texts, server.counters.repeated_texts) == (64, 0)
    assert max(len(received.texts) for received in server.received[1:]) <= 17


async def test_calls_grow_with_a_provider_that_keeps_up() -> None:
    with EmbeddingServer(latency_seconds=0.02) as server:
        async with line_to(server, max_inputs=1, max_calls=16, speed=1) as line:
            assert line.pace.calls == FIRST_CALLS
            await line.ask(*texts_of(300))
            assert line.pace.calls == 16
        assert FIRST_CALLS < server.counters.max_in_flight <= 16


async def test_calls_shrink_when_answers_become_slow() -> None:
    # Calls beyond the first only wait for it: of sixteen at once each takes sixteen times as long.
    with EmbeddingServer(latency_seconds=0.1, capacity=1) as server:
        async with line_to(server, max_inputs=1, max_calls=16, speed=1) as line:
            seen = []
            asked = asyncio.create_task(line.ask(*texts_of(80)))
            while not asked.done():
                await asyncio.sleep(0.05)
                seen.append(line.pace.calls)
        assert max(seen) < 12
        assert server.texts == 80


async def test_a_provider_that_is_down_is_probed_one_call_at_a_time_and_nothing_is_lost(
    server: EmbeddingServer,
) -> None:
    down = FIRST_CALLS + 4
    server.inject(*[Fault(FaultKind.STATUS, status=503)] * down)
    async with line_to(server, max_inputs=1, max_calls=16) as line:
        await line.ask(*texts_of(100))
    assert (server.texts, server.counters.repeated_texts) == (100 + 1, 0)
    assert server.times_embedded(PROBE) == 1, "the first thing that is answered is a text of our own"
    assert server.requests == 100 + down + 1
    assert down > FAILURES_TO_OPEN
    assert server.counters.max_in_flight <= 16


async def test_an_outage_costs_few_requests_however_much_waits() -> None:
    with EmbeddingServer(latency_seconds=0.01) as server:
        server.inject(*[Fault(FaultKind.STATUS, status=503)] * 10_000)
        async with line_to(server, max_inputs=1, max_calls=16) as line:
            ends = await line.ask_each(texts_of(200))
        assert all(isinstance(end, ServiceUnavailable) for end in ends)
        # What runs at once when it begins, and then a probe at a time, as often as one call is tried.
        assert server.requests <= 2 * FIRST_CALLS + RETRY.max_attempts


async def test_a_long_pause_that_the_provider_asks_for_is_spent_in_the_queue(server: EmbeddingServer) -> None:
    server.inject(Fault(FaultKind.STATUS, status=429, headers={"retry-after": "3600"}))
    async with line_to(server, max_inputs=1) as line:
        ends = await line.ask_each(texts_of(50))
    waits = [end.retry_after_seconds for end in ends if isinstance(end, TransientError)]
    assert waits
    assert all(3_500 < (wait or 0) <= 3_600 for wait in waits)
    assert server.requests <= FIRST_CALLS


async def test_a_question_does_not_wait_for_a_backfill() -> None:
    with EmbeddingServer(latency_seconds=0.02) as server:
        async with line_to(server, max_inputs=1, max_calls=1) as line:
            backfill = asyncio.create_task(line.ask(*texts_of(100)))
            while not server.requests:
                await asyncio.sleep(0)
            await line.embedding.query_vector("question")
            asked = [received.texts[0] for received in server.received]
            assert asked.index("question") <= 5
            await backfill


async def test_a_days_tokens_are_never_exceeded_and_the_rest_waits_for_the_next_day(server: EmbeddingServer) -> None:
    texts = texts_of(100)
    budget = 35 * max(map(estimate_tokens, texts))
    ledger = MemoryLedger()
    async with line_to(server, allowance=Allowance(tokens_per_day=budget), ledger=ledger) as line:
        ends = await line.ask_each(texts)
    waits = [end.retry_after_seconds for end in ends if isinstance(end, BudgetSpent)]
    assert 0 < len(waits) < 100
    assert all(0 < (wait or 0) <= 25 * 3_600 for wait in waits)
    assert server.texts + len(waits) == 100
    assert sum(ledger.tokens.values()) == server.counters.tokens <= budget
    async with line_to(server, allowance=Allowance(tokens_per_day=budget), ledger=ledger) as line:
        paid = server.texts
        with pytest.raises(BudgetSpent):
            await line.ask("another " * budget)
        assert server.texts == paid, "the next process knows what this day has cost"
    async with line_to(server, ledger=ledger) as line:
        assert await line.ask_each(texts) == [1] * 100, "nothing was lost"
