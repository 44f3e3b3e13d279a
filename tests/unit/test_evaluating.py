"""Questions out of documents, and how well they are answered, by numbers that anybody can check."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import ArrayLike

from ingestor.core.chunking import Cutter
from ingestor.core.evaluating import Examined, Survey, Topic, examined, first_ranks, quality, survey
from ingestor.core.model import Chunk

SEA = """\
---
title: The sea
tags: [water]
---
# Tides

Twice a day the water rises.

## Moon

It pulls.

Moon
----

## Sun ##

It pulls, too, but less.

# Waves

They come from the wind.
"""


def chunks_of(text: str, *ends: int) -> list[Chunk]:
    """The lines of a text as chunks that end after these lines."""
    lines = text.split("\n")
    bounds = [0, *ends, len(lines)]
    return [
        Chunk("\n".join(lines[first:last]), first + 1, last)
        for first, last in pairwise(bounds)
        if "".join(lines[first:last]).strip()
    ]


def topics(document: Examined) -> dict[str, tuple[int, ...]]:
    return {topic.title: topic.passages for topic in document.topics}


def test_a_section_is_answered_by_all_that_holds_something_of_it() -> None:
    text = "# A\n\none\n\n## B\n\ntwo\n\nthree\n\n# C\n\nfour\n"

    found = examined("notes.md", text, chunks_of(text, 3, 7, 9))

    assert found.passages == ("one", "two", "three", "four")
    assert topics(found) == {"A": (0, 1, 2), "B": (1, 2), "C": (3,)}


def test_a_chunk_that_holds_several_sections_answers_each() -> None:
    text = "# A\n\none\n\n## B\n\ntwo\n"

    found = examined("notes.md", text, chunks_of(text))

    assert found.passages == ("one\n\n\ntwo",)
    assert topics(found) == {"A": (0,), "B": (0,)}


def test_no_title_is_left_in_any_text() -> None:
    found = examined("sea.md", SEA, chunks_of(SEA, 8, 16))

    whole = "\n".join(found.passages)
    for title in ("The sea", "Tides", "Moon", "Sun", "Waves", "----"):
        assert title not in whole
    for body in ("tags: [water]", "Twice a day", "It pulls.", "too, but less", "from the wind"):
        assert body in whole
    assert topics(found)["The sea"] == (0, 1, 2)


def test_a_line_that_only_repeats_a_title_is_no_answer() -> None:
    text = "潮汐的成因\n\n月亮的引力。\n"

    found = examined("海洋/潮汐的成因.txt", text, chunks_of(text))

    assert (found.passages, topics(found)) == (("月亮的引力。",), {"潮汐的成因": (0,)})


def test_a_section_without_a_body_asks_nothing() -> None:
    text = "# A\n\n## B\n\n***\n\n## C\n\ntext\n"

    assert topics(examined("a.md", text, chunks_of(text, 2, 6))) == {"A": (0,), "C": (0,)}


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("trade/cup-final_2024.txt", "cup final 2024"),
        ("停火谈判.txt", "停火谈判"),
        ("a b.md", "a b"),
        ("notes.txt", None),
        ("IMG_0042.txt", None),
        ("2024-01-02.txt", None),
        ("cup-final.py", None),
        ("cup-final.csv", None),
        ("\udcff\udcfe.txt", None),
    ],
)
def test_a_file_name_is_a_title_where_it_reads_like_one(path: str, title: str | None) -> None:
    asked = topics(examined(path, "text\n", chunks_of("text\n")))

    assert list(asked) == ([] if title is None else [title])


def test_headings_go_before_the_file_name_and_the_title_before_an_equal_heading() -> None:
    text = "---\ntitle: 'A  title'\n---\n# A Title\n\none\n\n## B\n\ntwo\n"

    assert topics(examined("file-name.md", text, chunks_of(text, 7))) == {"A  title": (0, 1), "B": (1,)}


def test_comments_of_code_are_no_headings() -> None:
    text = "# A heading?\nprint()\n"

    found = examined("two-words.py", text, chunks_of(text))

    assert (found.passages, found.topics) == ((text.strip(),), ())


def test_what_the_cutter_makes_of_a_document_is_examined_as_it_is() -> None:
    text = "".join(f"# Part {letter}\n\n{'word ' * 40}{letter}.\n\n" for letter in "abcdefg")
    _, chunks = Cutter(32, 8).cut(text, "parts.md")

    found = examined("parts.md", text, chunks)

    assert len(found.topics) == 7
    for topic in found.topics:
        answers = [found.passages[place] for place in topic.passages]
        assert any(f"{topic.title[-1]}." in answer for answer in answers)
    assert not any("Part" in passage for passage in found.passages)


def document(path: str, *topics: tuple[str, str]) -> Examined:
    """A document whose sections have one passage each: (title, text)."""
    return Examined(path, tuple(text for _, text in topics), tuple(Topic(t, (n,)) for n, (t, _) in enumerate(topics)))


LIBRARY = [document(f"{name}.md", *((f"{name}{n}", f"text {name}{n}") for n in range(10))) for name in "abcdefgh"]


def test_a_sample_does_not_depend_on_the_order_of_the_documents() -> None:
    first = survey(LIBRARY, sample=12, seed=0, max_texts=30)

    assert survey(reversed(LIBRARY), sample=12, seed=0, max_texts=30) == first
    assert survey(LIBRARY, sample=12, seed=1, max_texts=30).questions != first.questions
    assert (len(first.questions), len(first.texts)) == (12, 30)
    assert (first.questions_found, first.texts_found) == (80, 80)


def test_a_sample_is_the_same_in_every_process() -> None:
    found = survey(LIBRARY, sample=4, seed=0, max_texts=80)

    assert [question.text for question in found.questions] == ["f8", "a0", "e9", "h5"]


def test_a_question_stays_in_the_sample_when_documents_are_added() -> None:
    few = {question.text for question in survey(LIBRARY[:4], sample=20, seed=0, max_texts=80).questions}
    many = {question.text for question in survey(LIBRARY, sample=40, seed=0, max_texts=80).questions}

    old = {text for text in many if text[0] in "abcd"}
    assert old <= few or few <= old


def test_the_answers_are_among_the_texts_however_few_are_wanted() -> None:
    found = survey(LIBRARY, sample=10, seed=3, max_texts=11)

    assert len(found.texts) == 11
    assert [found.texts[question.answers[0]] for question in found.questions] == [
        f"text {question.text}" for question in found.questions
    ]


def test_questions_whose_answers_do_not_fit_are_passed_over_and_told() -> None:
    wide = Examined("wide.md", tuple(f"w{n}" for n in range(50)), (Topic("wide", tuple(range(50))),))

    found = survey([wide, *LIBRARY], sample=100, seed=0, max_texts=20)

    assert len(found.texts) == 20
    assert len(found.questions) == 20
    assert found.too_wide_questions == 61
    assert "wide" not in {question.text for question in found.questions}


def test_titles_that_stand_more_than_once_are_not_asked_for() -> None:
    found = survey(
        [document("a.md", ("Usage", "a"), ("Origin", "b")), document("b.md", ("usage", "c"), ("End", "d"))],
        sample=10, seed=0, max_texts=10,
    )  # fmt: skip

    assert {question.text for question in found.questions} == {"Origin", "End"}
    assert (found.repeated_titles, found.questions_found) == (2, 2)


def test_equal_texts_are_one_text_and_answer_for_each_other() -> None:
    found = survey(
        [document("a.md", ("One", "same"), ("Two", "other")), document("b.md", ("Three", "same"))],
        sample=10, seed=0, max_texts=10,
    )  # fmt: skip

    assert found.texts == ("same", "other")
    assert {question.text: question.answers for question in found.questions} == {
        "One": (0,),
        "Two": (1,),
        "Three": (0,),
    }


def ranks(questions: ArrayLike, texts: ArrayLike, *answers: Sequence[int]) -> list[int]:
    found: list[int] = first_ranks(np.array(questions, np.float32), np.array(texts, np.float32), answers).tolist()
    return found


def test_ranks_by_hand() -> None:
    texts = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (3.0, 3.0)]

    assert ranks([(1.0, 0.1)] * 4, texts, [0], [3], [1], [2]) == [1, 2, 3, 4]
    assert ranks([(0.1, 1.0)], texts, [0, 2, 3]) == [2], "the first right answer counts"


def test_length_is_no_advantage() -> None:
    assert ranks([(1.0, 0.0)], [(9.0, 9.0), (0.1, 0.0)], [1]) == [1]


def test_equal_scores_come_in_the_order_of_the_texts() -> None:
    vector = np.random.default_rng(5).normal(size=384)
    texts = np.repeat(vector[np.newaxis], 1_001, axis=0)

    assert ranks(texts[:3], texts, [0], [500], [1_000]) == [1, 501, 1_001]


def test_scores_that_differ_by_arithmetic_alone_are_equal() -> None:
    numbers = np.random.default_rng(7)
    questions = numbers.normal(size=(3, 384))
    texts = numbers.uniform(0.1, 9.0, size=(1_001, 1)) * (questions.sum(axis=0) + numbers.normal(size=384))

    assert ranks(questions, texts, [0], [500], [1_000]) == [1, 501, 1_001]


def test_many_questions_are_ranked_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(6)
    questions, texts = numbers.normal(size=(50, 16)), numbers.normal(size=(70, 16))
    answers = [[n, n + 3] for n in range(50)]
    whole = ranks(questions, texts, *answers)

    monkeypatch.setattr("ingestor.core.evaluating._MAX_SCORES", 200)

    assert ranks(questions, texts, *answers) == whole
    units = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    for question, (first, second), rank in zip(questions, answers, whole, strict=True):
        order = np.argsort(-(units @ question)).tolist()
        assert rank == 1 + min(order.index(first), order.index(second))


def test_what_has_no_vector_is_never_found_and_finds_nothing() -> None:
    nothing = (0.0, 0.0)

    assert ranks([(-1.0, 0.0)], [nothing, (1.0, 0.0)], [0]) == [0]
    assert ranks([(-1.0, 0.0)], [nothing, (1.0, 0.0)], [0, 1]) == [1]
    assert ranks([nothing], [(1.0, 0.0), (0.0, 1.0)], [0]) == [0]


def test_quality_by_hand() -> None:
    found = quality(np.array([1, 2, 10, 11, 0]))

    assert (found.recall_at_1, found.recall_at_10) == (1 / 5, 3 / 5)
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11 + 0) / 5)


def test_nothing_is_asked_of_nothing() -> None:
    assert survey([], sample=5, seed=0, max_texts=5) == Survey((), (), 0, 0, 0, 0)
