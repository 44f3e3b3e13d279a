"""What a terminal would act upon is shown instead."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.escaping import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("新闻/a b.md", "新闻/a b.md"),
        ("👩‍👩‍👧 e\u0301 \u00a0|", "👩‍👩‍👧 e\u0301 \u00a0|"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[31m\x07\x7f", r"\x1b[31m\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("caf\udce9.txt", r"caf\xe9.txt"),
        ("\ud800", r"\ud800"),
        ("\u2028\u202egnp\u2066", r"\u2028\u202egnp\u2066"),
    ],
)
def test_what_acts_is_shown_and_what_is_text_stays(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_acts_any_more(text: str) -> None:
    shown = escaped(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(each) for each in shown}
    assert escaped(shown) == shown
