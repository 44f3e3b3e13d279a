"""Evaluation: one model, asked the questions of a survey.

Invariant: what the vector store has is not embedded again. A text that the model refuses ends no evaluation: nobody
finds it, as in a search.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ingestor.core.errors import RejectedByModel
from ingestor.core.evaluating import Quality, Survey, first_ranks, quality
from ingestor.core.model import Purpose, Recipe, Usage
from ingestor.engine.embedding import Embedding
from ingestor.ports import Runtime, Vector, Vectors

PROBES = 3
"""Questions that a model may refuse, before it is taken for one that refuses everything."""

Tell: TypeAlias = Callable[[], None]
Answer: TypeAlias = Vector | RejectedByModel


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose line runs, and what it has cost."""

    recipe: Recipe
    embedding: Embedding

    @property
    def usage(self) -> Usage:
        """What was spent; what the vector store had is no part of it."""
        return self.embedding.usage

    async def vectors(self, texts: Sequence[str], purpose: Purpose) -> list[Vector]:
        """The vectors of texts, in their order.

        Raises `RejectedByModel` for a text that the model refuses, `TransientError` when the attempts are used up,
        `FatalError` when no call can succeed.
        """
        vectors = []
        for answer in await self.answers(texts, purpose, lambda: None):
            if isinstance(answer, RejectedByModel):
                raise answer
            vectors.append(answer)
        return vectors

    async def answers(self, texts: Sequence[str], purpose: Purpose, tell: Tell) -> list[Answer]:
        """For each of different texts its vector, or why the model refuses it; `tell` is called as each is had.

        Raises as `vectors`, but for refusals.
        """
        request = await self.embedding.request(texts, purpose)
        for _ in request.known:
            tell()
        for future in request.awaited.values():
            future.add_done_callback(lambda _: tell())
        if request.awaited:
            await asyncio.wait(request.awaited.values())
        found = {**request.known, **{key: _settled(future) for key, future in request.awaited.items()}}
        return [found[key] for key in request.keys]


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of a survey with one model."""

    quality: Quality
    dimensions: int
    refused: int
    """Texts and questions that the model has no vector for."""
    usage: Usage
    """What the model has cost: nothing where all vectors were in the store."""
    texts_per_second: float | None
    """Texts that were embedded, by the time that it took; None when none was."""


async def measure(model: Model, survey: Survey, runtime: Runtime, tell: Tell) -> Measured:
    """Ask a model the questions of a survey; `tell` is called for each text and question as its vector is had.

    Raises `TransientError` when the attempts of a call are used up, `RejectedByModel` when the model refuses one
    question after the other, `FatalError` when no call can succeed; what was embedded until then is kept.
    """
    asked = [question.text for question in survey.questions]
    # A model that runs in this process is loaded with its first text: that is no part of its speed.
    await _probe(model, asked)
    probed_texts, began_seconds = model.usage.texts, runtime.monotonic_seconds()
    texts = await model.answers(survey.texts, Purpose.DOCUMENT, tell)
    questions = await model.answers(asked, Purpose.QUERY, tell)
    seconds = runtime.monotonic_seconds() - began_seconds
    embedded = model.usage.texts - probed_texts
    vectors = [answer for answer in (*texts, *questions) if not isinstance(answer, RejectedByModel)]
    dimensions = len(vectors[0])
    answers = [question.answers for question in survey.questions]
    ranks = await runtime.in_thread(first_ranks, _rows(questions, dimensions), _rows(texts, dimensions), answers)
    return Measured(
        quality=quality(ranks),
        dimensions=dimensions,
        refused=len(texts) + len(questions) - len(vectors),
        usage=model.usage,
        texts_per_second=embedded / seconds if embedded and seconds else None,
    )


async def _probe(model: Model, questions: Sequence[str]) -> None:
    """Raise `RejectedByModel` when the model refuses one question after the other: its settings are at fault."""
    for attempt, question in enumerate(questions[:PROBES], 1):
        try:
            await model.vectors([question], Purpose.QUERY)
        except RejectedByModel:
            if attempt == min(PROBES, len(questions)):
                raise
        else:
            return


def _settled(future: "asyncio.Future[Vector]") -> Answer:
    error = future.exception()
    return error if isinstance(error, RejectedByModel) else future.result()


def _rows(answers: Sequence[Answer], dimensions: int) -> Vectors:
    """Vectors in rows, a zero row for each text that was refused."""
    rows = np.zeros((len(answers), dimensions), dtype=np.float32)
    for row, answer in zip(rows, answers, strict=True):
        if not isinstance(answer, RejectedByModel):
            row[:] = answer
    return rows
