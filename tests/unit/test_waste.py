"""Money: what is paid for is counted, also where the answer was of no use, and the day's limit holds whatever comes."""

import asyncio
from dataclasses import replace

import pytest

from ingestor.core.errors import BudgetSpent, ServiceUnavailable, UnusableVectors
from ingestor.core.model import Usage
from ingestor.core.pacing import Allowance
from ingestor.core.suspicion import PROBE
from ingestor.engine.account import local_day
from ingestor.engine.pipeline import EMBEDDING_RETRY
from tests import virtual
from tests.line import Line, running
from tests.unit.test_poison import Fault, Provider, outcomes

FILES = [f"a small file with the number {number}" for number in range(31)]
NONSENSE: dict[str, Fault] = {
    "not told": lambda _: ServiceUnavailable("answered nonsense: another dimension", billed_tokens=0),
    "told": lambda texts: ServiceUnavailable("answered nonsense: no index", billed_tokens=sum(map(len, texts))),
    "no vectors": lambda texts: UnusableVectors(
        "answered nonsense: no numbers", positions=frozenset(range(len(texts))), billed_tokens=sum(map(len, texts))
    ),
    "silence": lambda _: ServiceUnavailable("no answer within 30 s", may_be_a_text=True, billed_tokens=0),
}


def paid(provider: Provider) -> int:
    """Tokens that the provider has billed."""
    return sum(len(text) * times for text, times in provider.sent.items())


async def asked_again_and_again(line: Line, seconds: float) -> set[type]:
    """As a queue does: what failed is asked for again, later and later; which errors there were."""
    found = set[type]()
    pause_seconds, loop = 5.0, asyncio.get_running_loop()
    while loop.time() < seconds:
        found |= {type(end) for end in (await outcomes(line, FILES)).values()}
        await asyncio.sleep(pause_seconds)
        pause_seconds *= 2
    return found


@pytest.mark.parametrize("fault", NONSENSE.values(), ids=NONSENSE)
def test_answers_that_are_paid_for_and_of_no_use_are_counted_and_asked_for_less_and_less(fault: Fault) -> None:
    provider = Provider(fault)
    provider.minds = lambda _: True

    async def work() -> Usage:
        async with running(provider, virtual.VirtualRuntime(), EMBEDDING_RETRY) as line:
            assert await asked_again_and_again(line, 300.0) <= {ServiceUnavailable, UnusableVectors}
            await line.account.tell()
            assert line.ledger.usage == line.account.usage, "nothing is lost with the process"
            return line.account.usage

    usage = virtual.run(work())
    assert usage.requests == usage.wasted_requests == provider.requests
    assert usage.tokens == usage.wasted_tokens == paid(provider)
    assert provider.requests <= 40, "412 would be asked for"
    assert provider.sent.total() - provider.sent[PROBE] <= 4 * 10, "only those that were under way; then a word"


@pytest.mark.parametrize("fault", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("limit", [200, 1_000])
def test_the_limit_of_a_day_holds_under_answers_that_are_of_no_use(fault: Fault, limit: int) -> None:
    provider = Provider(fault, max_calls=2)
    provider.minds = lambda _: True

    async def work() -> set[type]:
        runtime = virtual.VirtualRuntime()
        day = Allowance(tokens_per_day=limit)
        async with running(provider, runtime, EMBEDDING_RETRY, allowance=day) as line:
            found = await asked_again_and_again(line, 3_600.0)
            assert line.ledger.tokens_on(local_day(runtime.now_seconds())) == paid(provider)
            return found

    assert BudgetSpent in virtual.run(work())
    assert paid(provider) <= limit


def test_what_another_process_spends_counts_against_the_limit_of_the_day() -> None:
    provider = Provider()

    async def work() -> dict[str, BaseException | None]:
        runtime = virtual.VirtualRuntime()
        day = Allowance(tokens_per_day=400)
        async with running(provider, runtime, EMBEDDING_RETRY, allowance=day) as line:
            await outcomes(line, FILES[:2])
            line.ledger.add_usage(Usage(requests=1, texts=1, tokens=300), local_day(runtime.now_seconds()))
            await outcomes(line, FILES[2:3])
            return await outcomes(line, FILES[3:])

    ends = virtual.run(work())
    assert {type(end) for end in ends.values()} == {BudgetSpent}


@pytest.mark.parametrize(("name", "is_counted"), [("double", True), ("local", False)])
def test_a_call_that_is_under_way_at_the_end_is_paid_for_all_the_same(name: str, is_counted: bool) -> None:  # noqa: FBT001 - a parameter
    provider = Provider(call_seconds=10.0)
    provider.recipe = replace(provider.recipe, provider=name)

    async def work() -> Usage:
        async with running(provider, virtual.VirtualRuntime(), EMBEDDING_RETRY) as line:
            waiting = asyncio.create_task(outcomes(line, FILES[:5]))
            await asyncio.sleep(1.0)
        await line.account.tell()
        await asyncio.wait([waiting])
        return line.ledger.usage

    usage = virtual.run(work())
    assert usage.tokens == usage.wasted_tokens == (paid(provider) if is_counted else 0)
    assert bool(usage.tokens) is is_counted
