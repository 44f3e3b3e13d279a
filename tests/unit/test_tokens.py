import pytest

from ingestor.core.tokens import estimate_tokens, running_count


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("word", 1),
        ("words", 2),
        ("a b c", 3),
        ("HTTP", 2),
        ("2026-11-23", 6),
        ("f(x)", 4),
        ("今天天气很好。", 7),
        ("カタカナ", 4),
        ("한국어", 3),
        ("привет", 2),
        ("😀", 1),
        (" " * 63, 0),
        (" " * 64, 1),
        ("\udcff", 1),
    ],
)
def test_counts(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_running_count_gives_the_tokens_before_every_place_and_at_the_end() -> None:
    assert running_count("word 中文").tolist() == [0, 1, 1, 1, 1, 1, 2, 3]


def test_a_long_text_is_counted_as_its_windows_are() -> None:
    text = "some words and 中文 " * 40_000
    assert estimate_tokens(text) == int(running_count(text)[-1])
