"""Texts that a provider answers as it would in an outage, among texts that have nothing wrong with them.

In virtual time: a call takes 80 ms and carries ten texts, eight run at once, whatever the machine is at.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest

from ingestor.core.errors import (
    AuthenticationFailed,
    CallTooLarge,
    ConfigError,
    IngestorError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    UnusableVectors,
)
from ingestor.core.model import Recipe, Usage
from ingestor.core.pacing import Allowance
from ingestor.core.suspicion import PROBE
from ingestor.engine.measured import MeasuredEmbedder
from ingestor.engine.pipeline import EMBEDDING_RETRY as RETRY
from ingestor.ports import Vectors
from tests import virtual
from tests.line import UNLIMITED, Line, running

CALL_SECONDS = 0.08
GOOD = [f"good text {number}" for number in range(2_000)]

Fault = Callable[[Sequence[str]], IngestorError]


def server_error(_: Sequence[str]) -> IngestorError:
    return ServiceUnavailable("it fails (HTTP 500): internal error", may_be_a_text=True)


def is_poison(text: str) -> bool:
    return text.startswith("poison")


class Provider:
    """`ports.Embedder` in virtual time. `fault` is what a call gets that carries a text that `minds` is true of."""

    def __init__(self, fault: Fault = server_error, *, max_calls: int = 8, call_seconds: float = CALL_SECONDS) -> None:
        self.recipe = Recipe("double", "none", 4)
        self.max_batch_inputs, self.max_batch_tokens, self.max_concurrency = 10, 1_000_000, max_calls
        self.fault = fault
        self.fault_seconds = call_seconds
        self.call_seconds = call_seconds
        self.minds: Callable[[str], bool] = is_poison
        self.down: Callable[[float], IngestorError | None] = lambda _: None
        """What every call gets at that time, whatever it carries."""
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.requests = 0
        self.last_good_seconds = 0.0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        self.requests += 1
        self.sent.update(texts)
        loop = asyncio.get_running_loop()
        is_minded = any(map(self.minds, texts))
        await asyncio.sleep(self.fault_seconds if is_minded else self.call_seconds)
        if error := self.down(loop.time()):
            raise error
        if is_minded:
            raise self.fault(texts)
        self.answered.update(texts)
        if PROBE not in texts:
            self.last_good_seconds = loop.time()
        return np.ones((len(texts), 4), dtype=np.float32), Usage(1, len(texts), sum(map(len, texts)))


async def outcomes(line: Line, texts: Sequence[str]) -> dict[str, BaseException | None]:
    """Ask for each text as a file of its own; what each got instead of its vector."""
    with line.embedding.announced():
        requests = [await line.embedding.request([text]) for text in texts]
    ends = await asyncio.gather(*(request.vectors() for request in requests), return_exceptions=True)
    return {text: end if isinstance(end, BaseException) else None for text, end in zip(texts, ends, strict=True)}


def worked(
    provider: Provider, texts: Sequence[str], *, allowance: Allowance = UNLIMITED
) -> dict[str, BaseException | None]:
    async def work() -> dict[str, BaseException | None]:
        async with running(provider, virtual.VirtualRuntime(), RETRY, allowance=allowance) as line:
            return await outcomes(line, texts)

    return virtual.run(work())


def mixed(poison: int, good: Sequence[str] = GOOD) -> list[str]:
    """Good texts with so many others spread among them."""
    texts = list(good)
    for number in range(poison):
        texts.insert((number * 7_919 + 13) % len(texts), f"poison {number}")
    return texts


FAULTS: dict[str, Fault] = {
    "500": server_error,
    "firewall": lambda _: ServiceUnavailable("a page (HTTP 403)", may_be_a_text=True),
    "403": lambda _: AuthenticationFailed("refuses the key (HTTP 403)", remedy="check the key"),
    "404": lambda _: ConfigError("knows no model (HTTP 404)", remedy="check the model"),
    "reset": lambda _: ServiceUnavailable("is out of reach: reset", may_be_a_text=True),
    "413": lambda _: CallTooLarge("too large (HTTP 413)"),
    "400": lambda _: RejectedByModel("refused (HTTP 400)"),
    "nonsense": lambda _: ServiceUnavailable("answered nonsense: no JSON", billed_tokens=0),
}


@pytest.mark.parametrize(("poison", "times"), [(20, 2.0), (200, 6.0)], ids=["1%", "10%"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_good_texts_get_their_vectors_in_good_time_whatever_is_among_them(
    fault: Fault, poison: int, times: float
) -> None:
    alone, among = Provider(), Provider(fault)
    assert not any(worked(alone, GOOD).values())
    ends = worked(among, mixed(poison))
    assert {text for text, end in ends.items() if end is not None} == {f"poison {number}" for number in range(poison)}
    assert all(end is None or isinstance(end, RejectedByModel) for end in ends.values())
    assert among.last_good_seconds <= times * alone.last_good_seconds
    assert max(among.sent[text] for text in GOOD) <= 8


def kinds(ends: dict[str, BaseException | None]) -> set[type]:
    return {type(end) for end in ends.values()}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_provider_that_fails_at_everything_is_down_and_no_text_is_blamed(fault: Fault) -> None:
    provider = Provider(fault)
    provider.minds = lambda _: True
    ends = worked(provider, GOOD)
    assert kinds(ends) <= {ServiceUnavailable, AuthenticationFailed, ConfigError}
    assert provider.requests <= 32, "what was under way, halved where it was refused, and a probe at a time"
    assert provider.sent[PROBE] <= 8


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_provider_that_stops_answering_anybody_is_down_and_costs_few_calls(fault: Fault) -> None:
    provider = Provider()
    provider.down = lambda now_seconds: fault(()) if now_seconds > 1.0 else None
    ends = worked(provider, GOOD)
    assert kinds(ends) == {type(None), ServiceUnavailable}, "a key that was accepted before is no reason to end"
    assert provider.requests - provider.answered.total() / 10 <= 60


def test_a_provider_that_comes_and_goes_blames_no_text() -> None:
    provider = Provider(call_seconds=0.8)
    provider.down = lambda now_seconds: server_error(()) if now_seconds % 10 < 3 else None

    async def work() -> Counter[type]:
        found = Counter[type]()
        async with running(provider, virtual.VirtualRuntime(), RETRY) as line:
            left = list(GOOD)
            while left:
                ends = await outcomes(line, left)
                found.update(map(type, ends.values()))
                left = [text for text, end in ends.items() if end is not None]
        return found

    found = virtual.run(work())
    assert found[RejectedByModel] == 0
    assert found[type(None)] == len(GOOD)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_a_provider_that_fails_at_this_and_that_blames_hardly_any_text(share: float) -> None:
    provider, chance = Provider(), Random(7)
    provider.down = lambda _: server_error(()) if chance.random() < share else None
    ends = worked(provider, GOOD)
    blamed = sum(isinstance(end, RejectedByModel) for end in ends.values())
    assert blamed <= 2


def test_half_of_all_texts_at_fault_keep_no_other_one_from_its_vector() -> None:
    provider = Provider()
    ends = worked(provider, mixed(500, GOOD[:500]))
    assert {text for text, end in ends.items() if end is None} == set(GOOD[:500])
    assert max(provider.sent[text] for text in GOOD) <= 8


def test_a_call_that_never_ends_because_of_a_text_holds_the_others_up_for_a_while() -> None:
    provider = Provider(lambda _: ServiceUnavailable("no answer within 30 s", may_be_a_text=True, billed_tokens=0))
    provider.fault_seconds = 30.0
    ends = worked(provider, mixed(3, GOOD[:300]))
    assert {text for text, end in ends.items() if end is None} == set(GOOD[:300])
    assert {type(end) for text, end in ends.items() if is_poison(text)} == {RejectedByModel}


@pytest.mark.parametrize(
    ("calls", "seconds", "retry_after_seconds"), [(20, 2.0, 1.0), (20, 60.0, None)], ids=["two seconds", "a minute"]
)
def test_a_rate_that_is_enforced_meanwhile_blames_nobody(
    calls: int, seconds: float, retry_after_seconds: float | None
) -> None:
    provider = Provider()
    window: deque[float] = deque(maxlen=calls)

    def too_fast(now_seconds: float) -> IngestorError | None:
        if len(window) == calls and now_seconds - window[0] < seconds:
            return RateLimited("slow down", retry_after_seconds=retry_after_seconds)
        window.append(now_seconds)
        return None

    provider.down = too_fast
    ends = worked(provider, mixed(20, GOOD[:500]))
    assert {text for text, end in ends.items() if end is None} == set(GOOD[:500])
    assert {type(end) for text, end in ends.items() if is_poison(text)} == {RejectedByModel}


def test_a_provider_that_keeps_asking_to_slow_down_is_given_up_in_the_end_and_bears_a_full_one() -> None:
    provider = Provider()
    provider.down = lambda _: RateLimited("slow down")

    async def work(is_for_ever: bool) -> tuple[set[type], float]:  # noqa: FBT001 - which of two worlds
        provider.requests = 0
        async with running(provider, virtual.VirtualRuntime(), RETRY) as line:
            began_seconds = asyncio.get_running_loop().time()
            if not is_for_ever:
                provider.down = lambda now_seconds: RateLimited("slow down") if now_seconds < 61.0 else None
            ends = await outcomes(line, GOOD[:100])
            return kinds(ends), asyncio.get_running_loop().time() - began_seconds

    found, seconds = virtual.run(work(is_for_ever=True))
    assert found == {RateLimited}
    assert 60.0 < seconds <= 150.0
    assert provider.requests <= 24

    found, seconds = virtual.run(work(is_for_ever=False))
    assert found == {type(None)}, "a limit of a minute costs no document its place"
    assert seconds <= 100.0


def test_what_a_provider_answers_is_told_while_texts_wait_for_it_and_no_longer() -> None:
    provider = Provider()

    async def work() -> list[str]:
        async with running(provider, virtual.VirtualRuntime(), RETRY) as line:
            provider.down = lambda now_seconds: RateLimited("slow down", remedy="wait") if now_seconds < 40.0 else None
            waiting = asyncio.create_task(outcomes(line, GOOD[:10]))
            told: list[str] = []
            for _ in range(2):
                await asyncio.sleep(1.0 if not told else 29.0)
                told.append(line.embedding.complaint)
            assert kinds(await waiting) == {type(None)}
            provider.down = lambda _: ServiceUnavailable("away", remedy="look")
            assert kinds(await outcomes(line, ["a text that nobody waits for"])) == {ServiceUnavailable}
            return [*told, line.embedding.complaint]

    assert virtual.run(work()) == ["", "slow down - wait", ""]


def test_a_provider_that_never_answers_is_given_up_long_before_all_attempts_have_run_out() -> None:
    provider = Provider(lambda _: ServiceUnavailable("no answer within 60 s", may_be_a_text=True, billed_tokens=0))
    provider.fault_seconds, provider.minds = 60.0, lambda _: True

    async def work() -> float:
        async with running(provider, virtual.VirtualRuntime(), RETRY) as line:
            assert kinds(await outcomes(line, GOOD[:100])) == {ServiceUnavailable}
            return asyncio.get_running_loop().time()

    assert virtual.run(work()) <= 270.0


@pytest.mark.parametrize("others", [0, 300])
def test_a_text_that_alone_is_asked_to_slow_down_stops_nobody_and_is_set_aside_in_the_end(others: int) -> None:
    provider = Provider(lambda _: RateLimited("slow down", retry_after_seconds=1.0))
    ends = worked(provider, mixed(2, GOOD[:others]) if others else ["poison 0"])
    assert {text for text, end in ends.items() if end is None} == set(GOOD[:others])
    assert {type(end) for text, end in ends.items() if is_poison(text)} == {RejectedByModel}
    assert all("put off again" in str(end) for end in ends.values() if end is not None)
    assert max((provider.sent[text] for text in GOOD[:others]), default=0) <= 14
    assert max(provider.sent[text] for text in ends if is_poison(text)) <= 24
    assert provider.last_good_seconds <= 240.0, "a minute of patience, and some for parting"


@pytest.mark.parametrize(
    ("answer", "was_accepted"),
    [
        (UnusableVectors("no vector of numbers", positions=frozenset({0}), billed_tokens=0), True),
        (AuthenticationFailed("refuses the key", remedy="check it"), True),
        (RejectedByModel("refused (HTTP 400)"), False),
    ],
    ids=["vectors", "key", "request"],
)
def test_an_outage_is_one_of_the_provider_however_it_was_told(answer: IngestorError, was_accepted: bool) -> None:  # noqa: FBT001 - a parameter
    provider = Provider()

    async def work() -> dict[str, BaseException | None]:
        measured = MeasuredEmbedder(provider, virtual.VirtualRuntime(), "http://provider")
        async with running(measured, virtual.VirtualRuntime(), RETRY) as line:
            if was_accepted:
                assert kinds(await outcomes(line, ["accepted"])) == {type(None)}
            provider.down = lambda _: answer
            return await outcomes(line, ["refused"])

    (end,) = virtual.run(work()).values()
    assert isinstance(end, ServiceUnavailable)
    assert end.service == "http://provider"


def test_a_lone_text_is_set_aside_after_three_failures_beside_two_answers() -> None:
    provider = Provider(lambda _: ServiceUnavailable("it fails (HTTP 500): words of the server", may_be_a_text=True))
    (end,) = worked(provider, ["poison"]).values()
    assert isinstance(end, RejectedByModel)
    assert "words of the server" in str(end)
    assert "ingestor retry" in end.remedy
    assert (provider.sent["poison"], provider.sent[PROBE]) == (3, 2)


def test_a_text_that_fails_once_is_tried_once_more_and_nothing_is_asked_besides() -> None:
    provider = Provider()
    provider.minds = lambda text: not provider.sent[PROBE] and provider.sent[text] == 1
    assert worked(provider, ["text"]) == {"text": None}
    assert provider.sent == {"text": 2}


def test_a_key_that_is_refused_from_the_start_ends_it_after_a_probe() -> None:
    provider = Provider(FAULTS["403"])
    provider.minds = lambda _: True
    assert kinds(worked(provider, GOOD)) == {AuthenticationFailed}
    assert provider.requests <= 4 + 4


def test_a_key_that_is_refused_once_the_provider_is_up_ends_it_too() -> None:
    provider = Provider(FAULTS["403"])
    provider.minds = lambda _: True
    provider.down = lambda now_seconds: server_error(()) if now_seconds < 3.0 else None
    assert kinds(worked(provider, GOOD)) == {AuthenticationFailed}


def test_a_first_call_that_a_firewall_refuses_is_no_reason_to_end() -> None:
    provider = Provider(FAULTS["403"])
    ends = worked(provider, ["poison 1", *GOOD[:9]])
    assert isinstance(ends.pop("poison 1"), RejectedByModel)
    assert not any(ends.values())


@pytest.mark.parametrize(
    ("minds", "kind"),
    [(is_poison, RejectedByModel), (lambda _: True, AuthenticationFailed)],
    ids=["text", "key"],
)
def test_a_question_that_fails_is_told_apart_from_a_key_that_is_refused(
    minds: Callable[[str], bool], kind: type[Exception]
) -> None:
    provider = Provider(FAULTS["403"])
    provider.minds = minds

    async def ask() -> None:
        async with running(provider, virtual.VirtualRuntime(), RETRY) as line:
            await line.embedding.query_vector("poison?")

    with pytest.raises(kind):
        virtual.run(ask())
    assert provider.requests <= 6


def test_texts_without_a_vector_among_others_are_set_aside_alone() -> None:
    provider = Provider(
        lambda texts: UnusableVectors(
            "not finite",
            positions=frozenset(place for place, text in enumerate(texts) if is_poison(text)),
            billed_tokens=10,
        )
    )
    ends = worked(provider, mixed(5, GOOD[:200]))
    assert {text for text, end in ends.items() if end is None} == set(GOOD[:200])
    assert max(provider.sent[text] for text in GOOD) == 2


def test_an_endpoint_that_takes_one_text_a_call_is_found_out() -> None:
    provider = Provider(lambda _: ServiceUnavailable("nonsense: 1 vectors for 10 texts", billed_tokens=0))
    real = provider.embed

    async def embed(texts: Sequence[str]) -> tuple[Vectors, Usage]:
        provider.minds = lambda _: len(texts) > 1
        return await real(texts)

    provider.embed = embed  # type: ignore[method-assign]
    assert not any(worked(provider, GOOD[:400]).values())
    assert provider.requests <= 400 * 1.5
