import pytest

from ingestor.core.headings import outline


def titles(text: str) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in outline(text).headings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One", [(1, "One")]),
        ("   ### Three ###  \n", [(3, "Three")]),
        ("# C#", [(1, "C#")]),
        ("##", [(2, "")]),
        ("#One", []),
        ("    # code", []),
        ("####### seven", []),
        ("One\n===\n\nTwo\n---\n", [(1, "One"), (2, "Two")]),
        ("a paragraph\nof two lines\n---\n", []),
        ("- one\n---\n", []),
        ("| a |\n---\n", []),
        ("text\n\n---\n\ntext\n", []),
        ("---\n---\n---\n", []),
        ("```\n# no\n```\n# yes\n", [(1, "yes")]),
        ("~~~ python\n# no\n```\n# no\n~~~\n# yes\n", [(1, "yes")]),
        ("````\n```\n# no\n````\n# yes\n", [(1, "yes")]),
        ("```\n# never closed\n", []),
        ("`` ` ``\n# yes\n", [(1, "yes")]),
        ("# " + "x" * 400, []),
        ("x" * 400 + "\n---\n", []),
        ("# 中文标题\r\n", [(1, "中文标题")]),
    ],
)
def test_headings(text: str, expected: list[tuple[int, str]]) -> None:
    assert titles(text) == expected


def test_path_is_that_of_the_headings_above() -> None:
    text = "intro\n# A\nx\n### B\ny\n## C\nz\n# D\n"
    shape = outline(text)
    assert [heading.path for heading in shape.headings] == ["A", "A > B", "A > C", "D"]
    assert [shape.path_at(text.index(part)) for part in ("intro", "# A", "x", "y", "z")] == [
        "",
        "A",
        "A",
        "A > B",
        "A > C",
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("## Sub\n\n# Main\n\n# Other\n", "Main"),
        ("---\ntitle: From Front\nid: 1\n---\n# Main\n", "From Front"),
        ('---\ntitle: "Quoted: yes"\n---\n', "Quoted: yes"),
        ("---\ntitle: '中文'\n...\n", "中文"),
        ("---\nname: x\n# not a heading\n---\n# Main\n", "Main"),
        ("---\ntitle: never closed\n", ""),
        ("text\n---\ntitle: no\n---\n", ""),
        ("no heading", ""),
    ],
)
def test_title(text: str, title: str) -> None:
    assert outline(text).title == title


def test_a_title_longer_than_a_heading_may_be_is_none() -> None:
    assert outline(f"---\ntitle: {'x' * 300}\n---\n# One\n").title == "x" * 300
    assert outline(f"---\ntitle: {'x' * 301}\n---\n# One\n").title == "One"
