"""What the page says of hits and of errors, in either language."""

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment
from starlette.datastructures import QueryParams

from ingestor.app.finding import Question
from ingestor.core.model import Hit
from ingestor.web import drawing, page
from ingestor.web.bounds import MAX_SEARCHES, searches
from ingestor.web.words import words_of


def told(sentence: str) -> str:
    environment: Environment = drawing._environment()
    return environment.from_string('{% import "marks.html" as marks %}{{ marks.coded(sentence) }}').render(
        sentence=sentence
    )


@pytest.mark.parametrize(("language", "said"), [("en", "a.pdf:3-4 (page 1)"), ("zh", "a.pdf:3-4 (第 1 页)")])
def test_a_page_is_told_in_the_readers_language(language: str, said: str) -> None:
    hit = Hit("a:1", 0.5, 0.5, "text", {"source": "a.pdf", "start_line": 3, "end_line": 4, "page": 1})
    assert page._hit(hit, Question("text"), QueryParams(""), words_of(language))["place"] == said


@pytest.mark.parametrize(("language", "said"), [("en", "under way"), ("zh", "请稍后再试")])
async def test_a_search_too_many_is_told_on_the_page(language: str, said: str) -> None:
    live: Any = SimpleNamespace(searchers=None)
    with ExitStack() as others:
        for _ in range(MAX_SEARCHES):
            others.enter_context(searches.place())
        viewed = await page._viewed(live, words_of(language), "search", QueryParams("q=lamp"))
    assert said in viewed["fault"]["sentence"]


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("run `ingestor approve`, or put it back", "run <code>ingestor approve</code>, or put it back"),
        ("`a` and `<b>`", "<code>a</code> and <code>&lt;b&gt;</code>"),
        ("a ` alone <i>", "a ` alone &lt;i&gt;"),
        ("", ""),
    ],
)
def test_what_is_to_be_typed_is_shown_as_code_and_escaped(sentence: str, shown: str) -> None:
    assert told(sentence) == shown
