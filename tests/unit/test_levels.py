import pytest

from ingestor.core.grammars import Kind, kind_of
from ingestor.core.headings import outline
from ingestor.core.levels import BLANK, DEFINITION, HEADING, INSIDE, LINE, SENTENCE, WRAPPED, line_levels


def levels(text: str, file_name: str) -> list[int]:
    return line_levels(text, kind_of(file_name), outline(text))[1]


def test_starts_are_those_of_lines_that_are_not_blank_and_the_first_is_zero() -> None:
    assert line_levels("\n \n  a\n\n\n b\nc", Kind.PROSE, outline(""))[0] == [0, 9, 12]


def test_a_heading_and_what_follows_it_stay_together() -> None:
    assert levels("text\n\n## A\n\ntext\n\ntext\n", "a.md")[1:] == [HEADING + 4, INSIDE, BLANK]
    assert levels("text\n\nA\n===\n\ntext\n", "a.md")[1:] == [HEADING + 5, INSIDE, INSIDE]
    assert levels("# A\n## B\ntext\n", "a.md")[1:] == [INSIDE, INSIDE]


def test_a_fence_is_below_its_surroundings() -> None:
    assert levels("Text\n\n```\na\n\nb\n```\nText\n", "a.md")[1:] == [BLANK, WRAPPED, SENTENCE, WRAPPED, LINE]


def test_prose_goes_by_blank_lines_lines_and_wrapped_lines() -> None:
    text = "A sentence that\ngoes on.\nNext\n\n  indented\n\nend"
    assert levels(text, "a.txt")[1:] == [WRAPPED, LINE, BLANK - 1, BLANK]


def test_code_goes_by_depth_and_blank_lines() -> None:
    text = "import a\n\nclass A:\n    b = 1\n\n    def c(d):\n\tif d:\n                e()\n    }\n"
    assert levels(text, "a.js")[1:] == [DEFINITION + 1, LINE + 2, DEFINITION, LINE + 2, LINE, WRAPPED]


@pytest.mark.parametrize(
    ("file_name", "kind"),
    [
        ("a.MD", Kind.MARKDOWN),
        ("b/a.py", Kind.CODE),
        ("Makefile", Kind.CODE),
        ("a.csv", Kind.LINES),
        ("a.rst", Kind.PROSE),
        ("LICENSE", Kind.PROSE),
    ],
)
def test_kind_of_a_file_goes_by_its_name(file_name: str, kind: Kind) -> None:
    assert kind_of(file_name) is kind
