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
    text = "Text\n\n```\na\n\nb\n```\nText\n\nText\n"
    assert levels(text, "a.md")[1:] == [BLANK, WRAPPED, SENTENCE, WRAPPED, LINE, BLANK]


def test_prose_goes_by_blank_lines_lines_and_wrapped_lines() -> None:
    text = "A sentence that\ngoes on.\nNext\n\n  indented\n\nmore\n\nend"
    assert levels(text, "a.txt")[1:] == [WRAPPED, LINE, BLANK - 1, BLANK, BLANK]


@pytest.mark.parametrize("file_name", ["a.txt", "a.md", "a.log"])
def test_a_lone_blank_line_counts_for_nothing(file_name: str) -> None:
    lines = "A line of its own.\n" * 500
    assert set(levels(f"{lines}\nA paragraph.\n\n{lines}", file_name)[1:]) == {LINE}
    assert levels(lines + "\nA paragraph.\n" * 3, file_name)[-3:] == [BLANK] * 3


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
