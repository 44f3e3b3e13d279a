"""One model asked the questions of a survey: what it costs, how fast it is, what it refuses."""

import asyncio
from collections.abc import Sequence

import pytest

from ingestor.core.backoff import Backoff
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.evaluating import Question, Survey
from ingestor.core.model import Recipe, Usage
from ingestor.core.suspicion import PROBE
from ingestor.engine.evaluation import Measured, Model, measure
from ingestor.ports import Vectors
from tests.doubles_embedder import HashEmbedder
from tests.doubles_ledger import MemoryVectors
from tests.doubles_runtime import FakeRuntime
from tests.line import running

RETRY = Backoff(first_seconds=1.0, max_seconds=8.0, max_attempts=3)
TEXTS = tuple(f"{word} {word}s" for word in ("apple", "banjo", "cedar", "delta", "ember", "fjord", "grape", "heron"))
SURVEY = Survey(
    questions=tuple(Question("a.md", text.split()[0], (place,)) for place, text in enumerate(TEXTS)),
    texts=TEXTS,
    questions_found=8,
    texts_found=8,
    repeated_titles=0,
    too_wide_questions=0,
)
PREFIXED = Recipe("double", "hash", 64, document_prefix="d: ", query_prefix="q: ")


class SlowEmbedder(HashEmbedder):
    """Takes a second for each text."""

    clock = FakeRuntime()

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        answer = await super().embed(texts)
        self.clock.advance(len(texts))
        return answer


async def measured(
    embedder: HashEmbedder,
    survey: Survey = SURVEY,
    vectors: MemoryVectors | None = None,
    told: list[None] | None = None,
) -> Measured:
    clock = embedder.clock if isinstance(embedder, SlowEmbedder) else FakeRuntime()
    async with running(embedder, clock, RETRY, vectors=vectors) as line:
        model = Model(embedder.recipe, line.embedding)
        return await measure(model, survey, clock, lambda: None if told is None else told.append(None))


@pytest.mark.parametrize("recipe", [None, PREFIXED], ids=["one kind of text", "questions are marked"])
async def test_a_model_that_tells_texts_apart_finds_them(recipe: Recipe | None) -> None:
    embedder, told = HashEmbedder(recipe), list[None]()

    found = await measured(embedder, told=told)

    assert (found.quality.recall_at_1, found.quality.mrr, found.dimensions, found.refused) == (1.0, 1.0, 64, 0)
    assert (found.usage.texts, len(set(embedder.texts))) == (16, 16)
    assert len(told) == 16


async def test_questions_share_calls_and_are_marked_as_such_where_the_model_wants_it() -> None:
    one_kind, marked = HashEmbedder(), HashEmbedder(PREFIXED)

    await measured(one_kind)
    await measured(marked)

    assert len(one_kind.calls) == 3, "a probe, the texts, the questions"
    assert {text for text in marked.texts if text.startswith("q: ")} == {f"q: {q.text}" for q in SURVEY.questions}


@pytest.mark.parametrize("recipe", [None, PREFIXED], ids=["one kind of text", "questions are marked"])
async def test_a_second_evaluation_costs_nothing_and_finds_the_same(recipe: Recipe | None) -> None:
    vectors = MemoryVectors()
    first = await measured(HashEmbedder(recipe), vectors=vectors)
    embedder = HashEmbedder(recipe)

    second = await measured(embedder, vectors=vectors)

    assert embedder.calls == []
    assert (second.quality, second.dimensions) == (first.quality, first.dimensions)
    assert (second.usage.texts, second.texts_per_second) == (0, None)


async def test_the_speed_is_that_of_what_was_embedded() -> None:
    vectors = MemoryVectors()
    half = Survey(SURVEY.questions[:4], TEXTS[:4], 4, 4, 0, 0)
    await measured(SlowEmbedder(max_concurrency=1), half, vectors)

    found = await measured(SlowEmbedder(max_concurrency=1), vectors=vectors)

    assert found.usage.texts == 8
    assert found.texts_per_second == pytest.approx(1.0)


async def test_what_a_model_refuses_is_not_found_and_ends_nothing() -> None:
    found = await measured(HashEmbedder(rejects=["banjos", "fjord"]))

    assert found.refused == 3, "two texts and one question"
    assert found.quality.recall_at_10 == 6 / 8


async def test_a_model_that_refuses_one_question_after_the_other_ends_the_evaluation() -> None:
    embedder = HashEmbedder(rejects=["a", "e"])

    with pytest.raises(ServiceUnavailable, match="whatever text it is, the double refuses"):
        await measured(embedder)

    assert [call for call in embedder.attempts if call != (PROBE,)] == embedder.attempts[:1], "asked once, and a probe"


async def test_a_provider_that_is_out_of_reach_ends_the_evaluation_and_keeps_what_was_paid_for() -> None:
    embedder, vectors = HashEmbedder(max_batch_inputs=4, max_concurrency=1), MemoryVectors()

    async def fail_after_the_first_calls() -> None:
        while len(embedder.calls) < 2:
            await asyncio.sleep(0)
        embedder.faults.extend(ServiceUnavailable("down") for _ in range(20))

    failing = asyncio.create_task(fail_after_the_first_calls())
    with pytest.raises(ServiceUnavailable):
        await measured(embedder, vectors=vectors)
    await failing

    paid = len(embedder.texts)
    assert 0 < paid < 16
    assert (await measured(HashEmbedder(), vectors=vectors)).usage.texts == 16 - paid
