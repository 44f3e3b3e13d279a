"""`evaluate`: models compared on the documents of a folder."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ingestor.adapters.plot import draw_bars, see_that_it_can_be_drawn
from ingestor.adapters.runtime import SystemRuntime
from ingestor.app.choice import embedding_for
from ingestor.app.embed import running_model
from ingestor.app.embedder import currency_of, price_of
from ingestor.app.parts import folder_of, reader_of
from ingestor.core.errors import ConfigError, IngestorError
from ingestor.core.evaluating import Examined, Survey, examined, survey
from ingestor.core.profiles import LOCAL, profile_for
from ingestor.engine.evaluation import Measured, measure
from ingestor.engine.reading import Reader
from ingestor.settings import EmbeddingSettings, Settings

MIN_TEXTS = 2
"""Of one text alone every model finds it."""
FEW_QUESTIONS = 30
"""Below this a single question moves the figures more than most models differ."""

READING = "reading"

Tell = Callable[[str, int], None]
"""Takes what has got on by one - reading, or a model by its name - and how many of them there are."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be evaluated; `models` are names as for `embedding_for`, none for those of the settings."""

    models: Sequence[str]
    sample: int
    seed: int
    max_texts: int
    plot: Path | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One model and what became of it."""

    name: str
    provider: str
    model: str
    price_per_million_tokens: float | None
    currency: str
    measured: Measured

    def as_json(self) -> dict[str, Any]:
        """What `ingestor evaluate --json` prints of a model; `texts_per_second` is null where all was cached."""
        measured = self.measured
        speed = measured.texts_per_second
        return {
            "name": self.name,
            "provider": self.provider,
            "model": self.model,
            "dimensions": measured.dimensions,
            **{name: round(value, 6) for name, value in asdict(measured.quality).items()},
            "refused": measured.refused,
            "texts_embedded": measured.usage.texts,
            "tokens": measured.usage.tokens,
            "texts_per_second": None if speed is None else round(speed, 1),
            "price_per_million_tokens": self.price_per_million_tokens,
            "currency": self.currency,
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was asked, and the models in the order in which they were named."""

    folder: str
    seed: int
    documents: int
    survey: Survey
    models: Sequence[Judged]
    notes: Sequence[str]
    """What was left out and what to mind, in sentences."""

    def as_json(self) -> dict[str, Any]:
        """What `ingestor evaluate --json` prints."""
        return {
            "folder": self.folder,
            "seed": self.seed,
            "documents": self.documents,
            "questions": len(self.survey.questions),
            "questions_found": self.survey.questions_found,
            "texts": len(self.survey.texts),
            "texts_found": self.survey.texts_found,
            "notes": list(self.notes),
            "models": [judged.as_json() for judged in self.models],
        }


async def evaluate(settings: Settings, plan: Plan, tell: Tell) -> Evaluation:
    """Compare models on the documents of the watched folder.

    Nothing is written but vectors that were paid for, and the plot. Raises `ConfigError` before anything is embedded
    when a model, its key, the plot or enough questions are missing.
    """
    if plan.plot is not None:
        see_that_it_can_be_drawn(plan.plot)
    chosen = _chosen(settings, plan.models)
    async with AsyncExitStack() as stack:
        running = {
            name: await stack.enter_async_context(running_model(settings, each)) for name, each in chosen.items()
        }
        documents, unread = await asyncio.to_thread(_examined, settings, tell)
        found = survey(documents, sample=plan.sample, seed=plan.seed, max_texts=plan.max_texts)
        _see_that_it_is_enough(settings, found)
        judged = []
        total = len(found.texts) + len(found.questions)
        for name, model in running.items():
            measured = await measure(model, found, SystemRuntime(), partial(tell, name, total))
            profile = profile_for(model.recipe.provider, model.recipe.model)
            price, currency = price_of(chosen[name]), currency_of(chosen[name])
            judged.append(Judged(name, profile.provider, profile.model, price, currency, measured))
    if plan.plot is not None:
        _draw(plan.plot, found, judged)
    notes = [*_notes(found, plan, unread), *_cautions(settings, chosen, judged)]
    return Evaluation(str(settings.watch_dir), plan.seed, len(documents), found, judged, notes)


def _chosen(settings: Settings, names: Sequence[str]) -> dict[str, EmbeddingSettings]:
    """The models by what they are called in the result; a model that is named twice is compared once."""
    wanted = names or settings.evaluation.models or ("", LOCAL)
    chosen = [embedding_for(settings, name) for name in wanted]
    return {_name(each): each for each in chosen}


def _name(chosen: EmbeddingSettings) -> str:
    dimensions = f"@{chosen.dimensions}" if chosen.dimensions else ""
    return f"{chosen.provider}/{chosen.model_name}{dimensions}"


def _examined(settings: Settings, tell: Tell) -> tuple[list[Examined], dict[str, str]]:
    """The documents of the folder, and the paths that could not be read with the reasons."""
    if len(settings.each()) > 1:
        raise ConfigError("the settings name several sources", remedy="name the folder: `ingestor evaluate FOLDER`")
    source = folder_of(settings)
    snapshot = source.scan()
    documents: list[Examined] = []
    unread = dict(snapshot.unreadable)
    with contextlib.closing(reader_of(settings, source)) as reader:
        for path in sorted(snapshot.files):
            try:
                documents.append(_read(reader, path))
            except IngestorError as error:
                unread[path] = str(error)
            tell(READING, len(snapshot.files))
    return documents, unread


def _read(reader: Reader, path: str) -> Examined:
    text = reader.text_of(path)
    return examined(path, text.text, reader.document_of(text).chunks)


def _see_that_it_is_enough(settings: Settings, found: Survey) -> None:
    if found.questions and len(found.texts) >= MIN_TEXTS:
        return
    if found.too_wide_questions:
        message = f"no question has its answers within --max-texts: {found.too_wide_questions:,} need more texts"
        raise ConfigError(message, remedy="raise --max-texts")
    message = (
        f"{settings.watch_dir} has too little to ask: {found.questions_found:,} titles that stand above one section "
        f"alone, and {found.texts_found:,} texts to find"
    )
    remedy = "name a folder whose documents have headings (Markdown), a `title:`, or file names of several words"
    raise ConfigError(message, remedy=remedy)


def _notes(found: Survey, plan: Plan, unread: dict[str, str]) -> Iterator[str]:
    questions, texts = len(found.questions), len(found.texts)
    if questions < found.questions_found - found.too_wide_questions:
        yield f"{questions:,} of {found.questions_found:,} questions were asked: --sample {plan.sample}"
    if texts < found.texts_found:
        left_out = found.texts_found - texts
        yield f"{left_out:,} of {found.texts_found:,} texts were left out: --max-texts {plan.max_texts}"
    if found.too_wide_questions:
        yield f"{found.too_wide_questions:,} questions were left out: their answers did not fit into --max-texts"
    if found.repeated_titles:
        yield f"{found.repeated_titles:,} titles were left out: they stand above more than one section"
    if unread:
        path, reason = next(iter(unread.items()))
        yield f"{len(unread):,} paths could not be read, such as {path}: {reason}"
    if questions < FEW_QUESTIONS:
        yield f"there are only {questions} questions: one of them is {1 / questions:.0%} of a recall"


def _cautions(settings: Settings, chosen: dict[str, EmbeddingSettings], judged: Sequence[Judged]) -> Iterator[str]:
    for each in judged:
        if each.measured.refused:
            yield f"{each.name} has no vector for {each.measured.refused:,} texts or questions: it finds none of them"
    for name, settled in chosen.items():
        profile = profile_for(settled.provider, settled.model_name)
        if profile.is_known and profile.max_text_tokens < settings.chunk.max_tokens:
            yield f"{name} takes {profile.max_text_tokens:,} tokens a text, less than chunk.max_tokens: it may cut"


def _draw(file: Path, found: Survey, judged: Sequence[Judged]) -> None:
    qualities = [each.measured.quality for each in judged]
    draw_bars(
        file,
        title=f"{len(found.questions):,} questions, {len(found.texts):,} texts",
        labels=[each.name for each in judged],
        series={
            "Recall@1": [quality.recall_at_1 for quality in qualities],
            "Recall@10": [quality.recall_at_10 for quality in qualities],
            "MRR": [quality.mrr for quality in qualities],
        },
    )
