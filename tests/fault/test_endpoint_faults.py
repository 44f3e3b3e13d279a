"""An embedding endpoint that fails in every way it can, under a daemon that runs.

Invariant of every test: the collection equals the folder in the end, with the right vectors only, and a text is paid
for again only where the fault itself has eaten the answer.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.core.backoff import Backoff
from ingestor.core.errors import RejectedByModel, ServiceUnavailable
from ingestor.core.model import Recipe
from ingestor.engine.embedding import Embedding
from tests.checker import belongs
from tests.daemon import KEY, Daemon, Site, assert_equal, eventually, provider_settings
from tests.doubles_runtime import FakeRuntime
from tests.embedding_server import EmbeddingServer, Fault, FaultKind
from tests.line import running

pytestmark = pytest.mark.slow

BATCH_INPUTS = 16
DIMENSIONS = 64
ANSWER_SECONDS = 3
"""After how long the daemon gives an embedding call up."""
RETRY = Backoff(first_seconds=1.0, max_seconds=8.0, max_attempts=4)
"""Of one call, where the test is not about a daemon."""
ATTEMPTS = RETRY.max_attempts
POISON = "this text is refused"
SPOILED = "this text has no vector"


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, reject_marker=POISON, spoil_marker=SPOILED, api_key=KEY) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, provider: EmbeddingServer) -> Iterator[Site]:
    # One call at a time, so that each fault meets the call that it is meant for.
    settings = provider_settings(
        provider,
        EMBEDDING__MAX_CONCURRENCY=1,
        EMBEDDING__MAX_BATCH_INPUTS=BATCH_INPUTS,
        EMBEDDING__TIMEOUT_SECONDS=ANSWER_SECONDS,
    )
    with Site(tmp_path, settings) as made:
        yield made


def drop(site: Site, name: str, count: int) -> None:
    """Put files with texts of their own into the folder, one chunk each."""
    for number in range(count):
        file = site.folder / f"{name}-{number}.txt"
        file.write_text(f"The {name} file with the number {number} tells of {name}.\n", encoding="utf-8")


def converge(site: Site, *, but: str = "") -> None:
    """Wait until the collection is the folder, one file left out; every vector is the server's own."""
    with site.reading() as collection:
        collection.dimensions = DIMENSIONS
        collection.wait_equal(lambda path: belongs(path) and path != but)


def wait_for_requests(provider: EmbeddingServer, count: int, daemon: Daemon) -> None:
    eventually(lambda: provider.requests >= count, lambda: f"{provider.requests} requests\n{daemon.log()[-3_000:]}")


SLOW_DOWN = Fault(FaultKind.STATUS, status=429, headers={"Retry-After": "1.5"})
UNANSWERED = [
    [SLOW_DOWN],
    [Fault(FaultKind.STATUS, status=429), Fault(FaultKind.STATUS, status=502)],
    [Fault(FaultKind.RESET), Fault(FaultKind.STATUS, status=500, body="<html>Bad gateway</html>")],
    [Fault(FaultKind.HANG, seconds=60.0)],
]
EATEN = [
    [Fault(FaultKind.DRIP)],
    [Fault(FaultKind.CUT), Fault(FaultKind.MALFORMED), Fault(FaultKind.FEWER)],
    [Fault(FaultKind.NOT_A_NUMBER), Fault(FaultKind.ZERO), Fault(FaultKind.WRONG_DIMENSION)],
]
"""The server has done the work and counts it, and what the daemon gets of it is nothing, or wrong in itself."""
TOLD = ["no complete answer", "no JSON", "0 vectors for 1", "not finite", "zero vector", "65 dimensions where 64"]
"""Words of the log about them."""


def test_one_daemon_meets_every_fault_in_turn(site: Site, provider: EmbeddingServer) -> None:
    daemon = site.start("run").wait_ready()
    for number, faults in enumerate(UNANSWERED + EATEN):
        before = provider.snapshot()
        provider.inject(*faults)
        files = 1 if faults in EATEN else 3
        drop(site, f"round-{number}", files)
        wait_for_requests(provider, before["requests"] + len(faults), daemon)
        converge(site)
        after = provider.snapshot()
        # What is paid for in vain may be asked for with a text of our own before it is asked for again.
        assert after["requests"] - before["requests"] <= len(faults) + files + (2 if faults in EATEN else 0), faults
        eaten = after["repeated_texts"] - before["repeated_texts"]
        assert eaten <= (len(faults) + 1 if faults in EATEN else 0), faults
    retries = daemon.events("embedding.retry")
    assert retries[0]["pause_seconds"] >= 1.5, "sooner than the server has asked for"
    failed = [*retries, *daemon.events("embedding.suspected"), *daemon.events("embedding.down")]
    told = [event["reason"] for event in failed]
    assert [words for words in TOLD if any(words in reason for reason in told)] == TOLD
    assert not daemon.events("service.away"), "a fault that passes costs no document its place"

    refuse_one_text(site, provider, daemon)
    revoke_the_key(site, provider, daemon)
    # One is gone, and one was a probe.
    assert provider.texts - provider.counters.repeated_texts == len(list(site.folder.iterdir())) + 2
    assert daemon.terminate() == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)


def refuse_one_text(site: Site, provider: EmbeddingServer, daemon: Daemon) -> None:
    """One refused text takes no other with it, and comes in when its file is mended."""
    before = provider.snapshot()
    provider.latency_seconds = 1.0
    drop(site, "first", 1)
    wait_for_requests(provider, before["requests"] + 1, daemon)
    # These wait in the line while that call is under way, and fill the next one.
    bad = site.folder / "bad.txt"
    bad.write_text(f"Here {POISON}.\n", encoding="utf-8")
    drop(site, "good", BATCH_INPUTS - 1)
    wait_for_requests(provider, before["requests"] + 2, daemon)
    provider.latency_seconds = 0.0
    eventually(lambda: daemon.events("document.problem"), lambda: daemon.log()[-3_000:])
    converge(site, but="bad.txt")
    refused = [request for request in provider.received if any(POISON in text for text in request.texts)]
    assert len(refused) <= math.log2(BATCH_INPUTS) + 1
    after = provider.snapshot()
    # On a slow machine a straggler goes by itself.
    assert after["requests"] - before["requests"] <= 1 + 2 * math.log2(BATCH_INPUTS) + 1 + 1 + 1
    assert after["texts"] - before["texts"] - BATCH_INPUTS in {0, 1}, "a probe may tell whether others are answered"
    assert after["repeated_texts"] - before["repeated_texts"] <= 1
    (problem,) = site.command("problems", "--json").json()
    assert (problem["path"], problem["stage"], problem["kind"]) == ("bad.txt", "embed", "RejectedByModel")
    assert "inappropriate content" in problem["reason"]
    assert problem["next_try_seconds"] is None
    bad.write_text("Here all is well again.\n", encoding="utf-8")
    converge(site)
    assert provider.requests == after["requests"] + 1
    assert site.command("problems", "--json").json() == []


def revoke_the_key(site: Site, provider: EmbeddingServer, daemon: Daemon) -> None:
    """A key that was accepted and is refused now is waited for, and what needs no model goes on."""
    provider.api_key = "another-key-than-the-daemon-has"
    before = provider.requests
    drop(site, "locked-out", 1)

    def refused() -> list[dict[str, Any]]:
        return [down for down in daemon.events("embedding.down") if "refuses the key" in down["reason"]]

    eventually(refused, lambda: daemon.log()[-3_000:])
    (down,) = refused()
    assert "INGESTOR_EMBEDDING__API_KEY" in down["remedy"]
    (site.folder / "good-0.txt").unlink()
    converge(site, but="locked-out-0.txt")
    eventually(lambda: "refuses the key" in site.command("status", "--json").json()["outage"], daemon.log)
    assert daemon.process.poll() is None
    assert provider.requests - before <= 10, "asked by one probe after the other"
    assert KEY not in daemon.log()
    provider.api_key = KEY
    site.command("retry")
    converge(site)


@contextlib.asynccontextmanager
async def line_of(provider: EmbeddingServer) -> AsyncIterator[Embedding]:
    """The daemon's way of embedding, with a clock that does not make anybody wait."""
    embedder = OpenAIEmbedder(
        Recipe("openai", "unheard-of-model", DIMENSIONS),
        base_url=provider.base_url,
        api_key=KEY,
        max_batch_inputs=BATCH_INPUTS,
        max_batch_tokens=100_000,
        max_concurrency=1,
        timeout_seconds=30.0,
        sends_dimensions=True,
    )
    async with running(embedder, FakeRuntime(), RETRY) as line:
        yield line.embedding


async def results_of(line: Embedding, texts: Sequence[str]) -> list[BaseException | None]:
    """Ask for each text as a document of its own, all in one call; what each got instead of its vector."""
    with line.announced():
        requests = [await line.request([text]) for text in texts]
    results = await asyncio.gather(*(request.vectors() for request in requests), return_exceptions=True)
    assert all(np.isfinite(result).all() for result in results if not isinstance(result, BaseException))
    return [result if isinstance(result, BaseException) else None for result in results]


GOOD = [f"good text {number}" for number in range(BATCH_INPUTS - 1)]


async def test_a_text_without_a_vector_is_parted_from_the_others_and_fails_alone(provider: EmbeddingServer) -> None:
    async with line_of(provider) as line:
        *good, bad = await results_of(line, [*GOOD, SPOILED])

        assert good == [None] * len(GOOD)
        assert isinstance(bad, RejectedByModel)
        assert "not finite" in str(bad)
        assert "ingestor retry" in bad.remedy
        assert provider.requests <= 1 + 1 + 2 * 2, "all; the good ones; the bad one twice, a probe each"
        assert max(provider.times_embedded(text) for text in GOOD) == 2


async def test_a_vector_that_is_missing_once_costs_two_calls_and_no_document(provider: EmbeddingServer) -> None:
    provider.inject(Fault(FaultKind.ZERO))
    async with line_of(provider) as line:
        assert await results_of(line, GOOD) == [None] * len(GOOD)
    assert provider.requests == 3
    assert max(provider.times_embedded(text) for text in GOOD) == 2


async def test_a_lone_text_without_a_vector_fails_alone_and_holds_nobody_up(provider: EmbeddingServer) -> None:
    provider.latency_seconds = 0.3
    async with line_of(provider) as line:
        alone = await line.request([SPOILED])
        await asyncio.to_thread(eventually, lambda: provider.requests == 1, lambda: "nothing was asked")
        provider.latency_seconds = 0.0

        assert await results_of(line, GOOD) == [None] * len(GOOD)

        with pytest.raises(RejectedByModel, match="has no vector for a text"):
            await alone.vectors()
        assert provider.requests <= 3 + 2 + 1, "three failures, two probes, and the good ones"
        assert provider.times_embedded(GOOD[0]) == 1


async def test_a_model_that_has_no_vector_for_anything_is_an_outage(provider: EmbeddingServer) -> None:
    provider.spoil_marker = "e"  # which is in any text, also in one of our own
    provider.latency_seconds = 0.2  # all of the line waits before the first call is given up
    async with line_of(provider) as line:
        results = await results_of(line, [*GOOD, *(f"text behind {number}" for number in range(BATCH_INPUTS))])

        assert {type(result) for result in results} == {ServiceUnavailable}
        assert provider.requests <= 1 + ATTEMPTS, "the line is given up with the first call, and a probe at a time"
        provider.spoil_marker = ""
        assert await results_of(line, GOOD) == [None] * len(GOOD)
