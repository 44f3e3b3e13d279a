"""Evaluating models: questions that one's own documents ask and answer, and how well vectors find the answers.

A question is the title of a section or of a document; its right answers are the pieces of text that hold something of
it. Titles are taken out of all texts, or else a question would find itself.

Invariant: what is asked and what may be found depends on the documents, the seed and the limits alone, never on the
order in which documents come or on the process; a right answer of a question is always among the texts.
"""

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.core.grammars import Kind, kind_of
from ingestor.core.headings import Outline, outline
from ingestor.core.model import Chunk

RECALL_AT: Final = (1, 10)
_MAX_SCORES: Final = 1 << 22
"""Scores held at once: 16 MB."""
_SAME_SCORE: Final = 1e-6
"""Cosines that differ by less are equal: the difference is of the arithmetic, not of the model."""
_WORD: Final = re.compile(r"[^\W_]+")
_FIRST_CJK: Final = "\u2e80"
_MIN_NAME_WORDS: Final = 2


@dataclass(frozen=True, slots=True)
class Topic:
    """A title, and the places of the passages that it stands above."""

    title: str
    passages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Examined:
    """A document: its chunks without titles, and what they are about."""

    path: str
    passages: tuple[str, ...]
    topics: tuple[Topic, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A title as a question; `answers` are places in the texts of the survey, ascending, at least one."""

    path: str
    text: str
    answers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What every model is asked, and what it may answer."""

    questions: tuple[Question, ...]
    texts: tuple[str, ...]
    """Distinct, in the order of paths and lines."""
    questions_found: int
    texts_found: int
    repeated_titles: int
    """Titles that stand above more than one section of the folder: nobody could tell which is asked for."""
    too_wide_questions: int
    """Questions that were passed over because their answers alone are more than the texts that are wanted."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a model finds answers; shares from 0 to 1, higher for better."""

    recall_at_1: float
    recall_at_10: float
    mrr: float
    """Mean of 1 / rank of the first right answer; 0 where there is none."""


def examined(path: str, text: str, chunks: Sequence[Chunk]) -> Examined:
    """What a document asks and answers; `text` is what the chunks were cut from."""
    kind = kind_of(path)
    shape = outline(text) if kind is Kind.MARKDOWN else Outline()
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    spans = list(_spans(path, kind, shape, starts))
    titles = {_words(title) for title, _, _ in spans}
    hidden = set(_title_lines(text, shape, starts))
    passages: list[str] = []
    lines: list[tuple[int, int]] = []
    for chunk in chunks:
        kept = [
            (number, line)
            for number, line in enumerate(chunk.text.split("\n"), chunk.start_line)
            if number not in hidden and not (_WORD.search(line) and _words(line) in titles)
        ]
        told = [number for number, line in kept if _WORD.search(line)]
        if told:
            lines += [(number, len(passages)) for number in told]
            passages.append("\n".join(line for _, line in kept).strip())
    lines.sort()
    topics = []
    for title, first, last in spans:
        below = lines[bisect_left(lines, (first, -1)) : bisect_right(lines, (last, len(passages)))]
        if below:
            topics.append(Topic(title, tuple(sorted({place for _, place in below}))))
    return Examined(path, tuple(passages), tuple(topics))


def survey(documents: Iterable[Examined], *, sample: int, seed: int, max_texts: int) -> Survey:
    """Choose at most `sample` questions, and at most `max_texts` texts that hold all their answers.

    Equal texts count once. Whatever is chosen is chosen by a hash, so that it does not change with what else is there.
    """
    texts: dict[str, int] = {}
    asked: list[Question] = []
    for document in sorted(documents, key=lambda each: each.path):
        places = [texts.setdefault(passage, len(texts)) for passage in document.passages]
        for topic in document.topics:
            answers = tuple(sorted({places[passage] for passage in topic.passages}))
            asked.append(Question(document.path, topic.title, answers))
    times = Counter(_words(question.text) for question in asked)
    unique = [question for question in asked if times[_words(question.text)] == 1]
    chosen: list[Question] = []
    needed: set[int] = set()
    too_wide = 0
    for question in sorted(unique, key=lambda each: _lot(seed, each.path, each.text)):
        if len(chosen) == sample:
            break
        if len(needed) + sum(answer not in needed for answer in question.answers) > max_texts:
            too_wide += 1
            continue
        chosen.append(question)
        needed.update(question.answers)
    others = sorted((text for text, place in texts.items() if place not in needed), key=lambda text: _lot(seed, text))
    kept = sorted(needed.union(texts[text] for text in others[: max_texts - len(needed)]))
    place_of = {place: index for index, place in enumerate(kept)}
    all_texts = list(texts)
    return Survey(
        questions=tuple(
            Question(question.path, question.text, tuple(place_of[answer] for answer in question.answers))
            for question in chosen
        ),
        texts=tuple(all_texts[place] for place in kept),
        questions_found=len(unique),
        texts_found=len(texts),
        repeated_titles=len(asked) - len(unique),
        too_wide_questions=too_wide,
    )


def first_ranks(
    questions: NDArray[np.float32], texts: NDArray[np.float32], answers: Sequence[Sequence[int]]
) -> NDArray[np.int64]:
    """For each question the rank, from 1, of its first right answer by cosine; equal texts come in their order.

    Shapes (questions, dimensions), (texts, dimensions) and (questions,). A zero row is a text without a vector: it is
    never found, and finds nothing. The rank is 0 where no right answer can be found.
    """
    ranks = np.zeros(len(questions), dtype=np.int64)
    asked, is_asked = _units(questions)
    found, is_there = _units(texts)
    block = max(1, _MAX_SCORES // max(1, len(texts)))
    for start in range(0, len(questions), block):
        scores = asked[start : start + block] @ found.T
        scores[:, ~is_there] = -np.inf
        for index, row in enumerate(scores, start):
            right = np.asarray(answers[index])
            best = row[right].max()
            if is_asked[index] and np.isfinite(best):
                first = right[np.argmax(row[right] >= best - _SAME_SCORE)]
                before = np.count_nonzero(row[:first] >= best - _SAME_SCORE)
                ranks[index] = 1 + before + np.count_nonzero(row[first:] > best + _SAME_SCORE)
    return ranks


def quality(ranks: NDArray[np.int64]) -> Quality:
    """Sum up the ranks of at least one question; see `first_ranks`."""
    is_found = ranks > 0
    recall_at_1, recall_at_10 = (float(np.mean(is_found & (ranks <= limit))) for limit in RECALL_AT)
    return Quality(recall_at_1, recall_at_10, float(np.mean(np.where(is_found, 1 / np.maximum(ranks, 1), 0.0))))


def _spans(path: str, kind: Kind, shape: Outline, starts: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Titles, each with the first and the last line that it stands above; a section includes those below it."""
    last_line = len(starts)
    if shape.front_title:
        yield shape.front_title, 1, last_line
    for index, heading in enumerate(shape.headings):
        is_front_again = heading.level == 1 and _words(heading.title) == _words(shape.front_title)
        if not _WORD.search(heading.title) or is_front_again:
            continue
        later = (shape.headings[place] for place in range(index + 1, len(shape.headings)))
        end = next((_line_at(starts, each.start) - 1 for each in later if each.level <= heading.level), last_line)
        yield heading.title, _line_at(starts, heading.end), end
    if not (shape.front_title or shape.headings) and kind in {Kind.MARKDOWN, Kind.PROSE}:
        name = _WORD.findall(PurePosixPath(path).stem)
        # A file that was named by what it says, not `notes` or `IMG_0042`.
        if sum(_weight(word) for word in name) >= _MIN_NAME_WORDS:
            yield " ".join(name), 1, last_line


def _title_lines(text: str, shape: Outline, starts: Sequence[int]) -> Iterator[int]:
    """Numbers of the lines that are titles by their place."""
    for heading in shape.headings:
        yield from range(_line_at(starts, heading.start), _line_at(starts, heading.end - 1) + 1)
    if shape.front_title:
        front = text[: shape.fences[0][1]].split("\n")
        yield next(number for number, line in enumerate(front, 1) if line.startswith("title:"))


def _line_at(starts: Sequence[int], place: int) -> int:
    return bisect_right(starts, place)


def _words(text: str) -> str:
    """A text by its words alone: titles that differ in nothing else are the same."""
    return " ".join(_WORD.findall(text.casefold()))


def _weight(word: str) -> int:
    """How many words a part of a file name is: none without a letter, several where they are written as one."""
    return sum(letter >= _FIRST_CJK for letter in word) or int(any(letter.isalpha() for letter in word))


def _lot(seed: int, *parts: str) -> bytes:
    """What is drawn for something that is named so."""
    drawn = hashlib.blake2b(str(seed).encode(), digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        drawn.update(len(encoded).to_bytes(8, "big"))
        drawn.update(encoded)
    return drawn.digest()


def _units(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows of length 1, and which of them are not zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    units = (vectors / np.where(lengths > 0, lengths, 1.0)[:, np.newaxis]).astype(np.float32)
    return units, lengths > 0
