"""The page's words: alike in every language, and chosen by what the reader wants."""

import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from ingestor.web.words import LANGUAGES, language_for, words_of

PACKAGE = Path(str(files("ingestor")))
PLACE = re.compile(r"\{(\w+)\}")
SAID = re.compile(r"""(?:words|say)\(\s*["']([a-z_.]+)["']\s*[,)]""")
BEGUN = re.compile(r"""(?:words\(\s*"([a-z_.]+)"\s*~|say\(\s*`([a-z_.]+)\$\{|words\(\s*f"([a-z_.]+)\{)""")


def sources() -> str:
    web = files("ingestor.web")
    names = [web / "templates", web / "static"]
    texts = [
        each.read_text(encoding="utf-8") for folder in names for each in folder.iterdir() if ".svg" not in each.name
    ]
    texts += [each.read_text(encoding="utf-8") for each in web.iterdir() if each.name.endswith(".py")]
    return "\n".join(texts)


def keys(language: str) -> dict[str, str]:
    return dict(words_of(language)._words)


@pytest.mark.parametrize(("one", "other"), list(pairwise(LANGUAGES)))
def test_every_language_says_the_same_with_the_same_values(one: str, other: str) -> None:
    ours, theirs = keys(one), keys(other)
    assert list(ours) == list(theirs)
    assert {key: set(PLACE.findall(said)) for key, said in ours.items()} == {
        key: set(PLACE.findall(said)) for key, said in theirs.items()
    }


def test_what_the_page_says_is_there_and_nothing_else_is() -> None:
    text = sources()
    begun = tuple({next(filter(None, found)) for found in BEGUN.findall(text)})
    known = {key for key in keys("en") if not key.endswith(".one")}
    assert set(SAID.findall(text)) - known == set()
    unsaid = {key for key in known if f'"{key}"' not in text and f"'{key}'" not in text}
    assert {key for key in unsaid if not key.startswith(begun)} == set()


def test_events_that_are_told_in_words_are_events_of_the_log() -> None:
    source = "\n".join(each.read_text(encoding="utf-8") for each in PACKAGE.rglob("*.py"))
    told = [key.removeprefix("event.") for key in keys("en") if key.startswith("event.")]
    assert told
    assert [event for event in told if f'"{event}"' not in source] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_of_something_is_told_as_one(language: str) -> None:
    words = words_of(language)
    assert words("documents.total", count=1) == keys(language)["documents.total.one"]
    assert "1,234" in words("documents.total", count=1_234)


def test_a_value_with_braces_is_told_as_it_is() -> None:
    assert words_of("en")("rebuild.how", name="{0.__class__}", documents=1, expected=2).startswith(
        "{0.__class__}: 1 of 2"
    )


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "en-GB,zh;q=0.9", "en"),
        ("", "fr, zh;q=0.1", "zh"),
        ("", "zh;q=0, en;q=0.5", "en"),
        ("", "zh;q=none", "en"),
        ("en", "zh", "en"),
        ("xx", "zh", "zh"),
        ("", "," * 10_000 + "zh", "en"),
    ],
)
def test_the_language_is_what_was_chosen_or_what_is_understood_best(chosen: str, accepted: str, language: str) -> None:
    assert language_for(chosen, accepted) == language
