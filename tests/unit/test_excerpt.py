"""Excerpts: the passage that answers, and the words that are marked."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestor.core.excerpt import Excerpt, excerpt

FILLER = "Lorem ipsum dolor sit amet. " * 30
CHINESE_FILLER = "春天的花园里开满了玫瑰。" * 40


def drawn(found: Excerpt) -> str:
    return "".join(f"[{part}]" if is_marked else part for part, is_marked in found.parts())


def test_a_short_text_is_there_as_a_whole_on_one_line() -> None:
    assert drawn(excerpt("Two\n\nstates  argue.", "who argued", 240)) == "Two states [argue]."


def test_without_a_word_in_common_it_is_the_beginning() -> None:
    found = excerpt(FILLER, "ambassador", 60)
    assert found.text.startswith("Lorem ipsum")
    assert found.text.endswith("…")
    assert not found.marks


def test_the_passage_is_the_one_that_answers_and_begins_with_its_sentence() -> None:
    text = FILLER + "The panel ruled on tariffs in an international dispute. " + FILLER
    found = excerpt(text, "What is the international dispute on tariffs?", 80)
    assert drawn(found).startswith("…The panel ruled on [tariffs] in an [international] [dispute].")


def test_in_chinese_the_passage_is_found_by_pairs_of_characters() -> None:
    text = CHINESE_FILLER + "两国把海洋划界的国际争端提交仲裁。" + CHINESE_FILLER
    assert "…两国把海洋划界的[国际争端]提交仲裁。" in drawn(excerpt(text, "国际争端是什么？", 60))


def test_a_single_character_is_found_too() -> None:
    assert drawn(excerpt("一只 猫 在睡觉", "猫", 60)) == "一只 [猫] 在睡觉"


def test_a_rare_word_outweighs_one_that_is_everywhere() -> None:
    text = "The court sat. " * 40 + "The court heard an ambassador. " + "The court rose. " * 40
    assert "ambassador" in excerpt(text, "ambassador court", 60).text


@pytest.mark.parametrize(
    ("question", "marked"),
    [
        ("disputes", "[dispute]"),
        ("ARBITRATE", "[arbitration]"),
        ("story", "[stories]"),
        ("the", "the"),
        ("cafe\u0301", "[café]"),
        ("\uff4e\uff4f\uff54\uff45", "[notes]"),
    ],
    ids=["plural", "verb", "y", "common", "accent", "fullwidth"],
)
def test_words_match_but_for_case_ending_and_spelling(question: str, marked: str) -> None:
    document = marked.strip("[]")
    assert drawn(excerpt(document, question, 60)) == marked


@pytest.mark.parametrize(
    "cluster", ["e\u0301", "👩\u200d🔬", "👍🏽", "🇩🇪", "한"], ids=["accent", "joined", "skin", "flag", "jamo"]
)
def test_no_character_is_cut_in_two(cluster: str) -> None:
    cluster = unicodedata.normalize("NFD", cluster)
    for room in range(3, 30):
        found = excerpt(cluster * 40, "", room).text.removesuffix("…")
        assert found == cluster * (len(found) // len(cluster))


@example(document="x" * 10 + "\u0301" * 50, question="x", max_characters=5)
@example(document="🇩" * 31 + "国" * 9, question="国", max_characters=7)
@given(document=st.text(max_size=300), question=st.text(max_size=20), max_characters=st.integers(3, 80))
def test_an_excerpt_is_a_part_of_the_text_that_fits_and_its_marks_are_in_order(
    document: str, question: str, max_characters: int
) -> None:
    found = excerpt(document, question, max_characters)
    line = " ".join(document.split())
    assert len(found.text) <= max_characters
    assert found.text == line or found.text.removeprefix("…").removesuffix("…") in line
    assert "".join(part for part, _ in found.parts()) == found.text
    edges = [edge for mark in found.marks for edge in mark]
    assert edges == sorted(set(edges))
    assert not edges or (edges[0] >= 0 and edges[-1] <= len(found.text))
