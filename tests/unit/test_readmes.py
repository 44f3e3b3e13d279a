"""The two READMEs say the same: whatever is not prose is alike in both, part by part, in the same order.

A part is a heading, a paragraph, an entry of a list, a cell of a table, or a line of a code block. Two parts are alike
when they are of one kind and hold the same code, numbers and targets of links; in a block, all but comments counts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from ingestor.adapters.rules import DEFAULT_EXCLUDE

PROJECT = Path(__file__).parents[2]
ENGLISH, CHINESE = "README.md", "README.zh.md"
COMMENTED = ("sh", "toml", "python")

BEGIN = r"(?:\#+|\d+\.|[-*])\ "
PART = re.compile(
    rf"""  ^```(?P<language>\w+)\n (?P<code>(?:[^\n]*\n)*?) ```$
         | ^\|(?P<row>[^\n]*)\|$
         | ^(?P<mark>{BEGIN})? (?P<prose>(?!```)[^\s|][^\n]* (?:\n(?!```|\||{BEGIN})[^\n]*\S[^\n]*)*)""",
    re.MULTILINE | re.VERBOSE,
)
CELL_END = re.compile(r"(?<!\\)\|")
COMMENT = re.compile(r"(?:^|\s+)#.*")
CODE = re.compile(r"(`+)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SET_AS_ENGLISH = re.compile(r"[一-鿿]([A-Za-z0-9]|[,;:!?()]| [一-鿿])|([A-Za-z0-9]|[,;:!?()] ?)[一-鿿]")


@dataclass(frozen=True, slots=True)
class Part:
    line: int
    kind: str
    alike: frozenset[str]
    prose: str = ""


@pytest.mark.parametrize("name", [ENGLISH, CHINESE])
def test_the_readmes_list_what_is_left_out_by_default(name: str) -> None:
    told = {code for _, code in CODE.findall((PROJECT / name).read_text("utf-8"))}
    kinds = {code for code in told if f"id_{code}" in DEFAULT_EXCLUDE}
    expected = {line.replace("\\", "") for line in DEFAULT_EXCLUDE if not line.startswith("!")}
    told |= {code.replace("rsa", kind) for code in told if "_rsa" in code for kind in kinds}
    assert expected <= told


def parts(text: str) -> Iterator[Part]:
    """The parts of a Markdown text, each with what is the same in every language."""
    anchors = anchors_of(text)
    for found in PART.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if language := found["language"]:
            yield Part(line, f"a block of {language}", frozenset())
            for number, code in enumerate(found["code"].splitlines(), start=line + 1):
                counts = COMMENT.sub("", code) if language in COMMENTED else code
                yield Part(number, f"a line of {language}", frozenset({counts} - {""}))
        elif found["prose"]:
            mark = (found["mark"] or "").strip()
            kind = f"a heading of level {len(mark)}" if "#" in mark else "an entry of a list" if mark else "a paragraph"
            yield Part(line, kind, alike(found["prose"], anchors), found["prose"])
        else:
            for column, cell in enumerate(CELL_END.split(found["row"]), start=1):
                yield Part(line, f"a cell in column {column}", alike(cell, anchors), cell)


def anchors_of(text: str) -> list[str]:
    """How links within the page name its headings, as GitHub has it."""
    headings = [found["prose"] for found in PART.finditer(text) if "#" in (found["mark"] or "")]
    return ["#" + re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def alike(prose: str, anchors: list[str]) -> frozenset[str]:
    codes = {f"`{code}`" for _, code in CODE.findall(prose)}
    bare = CODE.sub("", prose)
    targets = {target_of(link, anchors) for link in LINK.findall(bare)}
    return frozenset(codes | targets | set(NUMBER.findall(LINK.sub("", bare))))


def target_of(link: str, anchors: list[str]) -> str:
    if link in anchors:
        return f"a link to heading {anchors.index(link) + 1}"
    return "a link to the other README" if link in (ENGLISH, CHINESE) else f"a link to {link}"


def difference(english: str, chinese: str) -> str:
    """The first difference between the two, with the lines that it is in; empty when they agree."""
    for ours, theirs in zip_longest(parts(english), parts(chinese)):
        if ours is None or theirs is None or ours.kind != theirs.kind:
            return f"{ENGLISH} has {placed(ours)} where {CHINESE} has {placed(theirs)}"
        if ours.alike != theirs.alike:
            only_ours, only_theirs = sorted(ours.alike - theirs.alike), sorted(theirs.alike - ours.alike)
            return f"{ENGLISH} has {only_ours} in {placed(ours)} where {CHINESE} has {only_theirs} in {placed(theirs)}"
    return ""


def placed(part: Part | None) -> str:
    return f"{part.kind}, line {part.line}" if part else "its end"


def readme(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def test_the_two_readmes_agree() -> None:
    if found := difference(readme(ENGLISH), readme(CHINESE)):
        pytest.fail(found, pytrace=False)


def test_each_readme_links_to_the_other_in_its_first_lines() -> None:
    assert "[中文](README.zh.md)" in readme(ENGLISH).splitlines()[:3]
    assert "[English](README.md)" in readme(CHINESE).splitlines()[:3]


@pytest.mark.parametrize("name", [ENGLISH, CHINESE])
def test_every_line_of_a_readme_belongs_to_a_part_and_every_link_leads_somewhere(name: str) -> None:
    assert PART.sub("", readme(name)).strip() == ""
    links = {link for part in parts(readme(name)) for link in LINK.findall(CODE.sub("", part.prose))}
    own = {link for link in links if not link.startswith("https://")} - set(anchors_of(readme(name)))
    assert {link for link in own if not (PROJECT / link).exists()} == set()


def test_chinese_has_its_own_punctuation_and_a_space_beside_latin_words_and_code() -> None:
    latin = [(part.line, LINK.sub("x", CODE.sub("x", part.prose))) for part in parts(readme(CHINESE))]
    assert [(line, found[0]) for line, prose in latin for found in SET_AS_ENGLISH.finditer(prose)] == []


SOME_ENGLISH = """# Title

[中文](README.zh.md)

Some `code`, wrapped
over lines, and [more](deploy/README.md) for 12 files: [below](#rows).

## Rows

| `key` | told |
|---|---|
| `a \\| b` | one |

- `entry`

```sh
run it   # at once
```

```text
plain  # no comment
```
"""
SOME_CHINESE = """# 标题

[English](README.md)

12 个文件的[更多内容](deploy/README.md)，一些 `code`：[见下](#表格)。

## 表格

| `key` | 含义 |
|---|---|
| `a \\| b` | 一 |

- `entry`

```sh
run it  # 立即
```

```text
plain  # no comment
```
"""


def test_a_translation_agrees() -> None:
    assert difference(SOME_ENGLISH, SOME_CHINESE) == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("## 表格", "### 表格", "a heading of level 2, line 8 where README.zh.md has a heading of level 3, line 7"),
        ("| `a \\| b` | 一 |\n", "", "a cell in column 1, line 12 where README.zh.md has an entry of a list, line 12"),
        ("`a \\| b`", "`a`", "['`a \\\\| b`'] in a cell in column 1, line 12 where README.zh.md has ['`a`'] in"),
        (" | 一 |", " | 一 | 二 |", "an entry of a list, line 14 where README.zh.md has a cell in column 3, line 11"),
        ("run it", "run", "['run it'] in a line of sh, line 17 where README.zh.md has ['run'] in a line of sh"),
        ("# no comment", "# 无", "['plain  # no comment'] in a line of text, line 21"),
        ("```text\n", "```text\nmore\n", "line 21 where README.zh.md has ['more'] in a line of text, line 20"),
        ("deploy/README.md", "deploy", "['a link to deploy/README.md'] in a paragraph, line 5"),
        ("#表格", "#标题", "['a link to heading 2'] in a paragraph, line 5 where README.zh.md has ['a link to hea"),
        ("12 个", "13 个", "['12'] in a paragraph, line 5 where README.zh.md has ['13'] in a paragraph, line 5"),
        ("```text\nplain  # no comment\n```\n", "", "a block of text, line 20 where README.zh.md has its end"),
    ],
    ids=["heading", "row", "code", "column", "command", "output", "longer", "link", "anchor", "number", "end"],
)
def test_a_difference_is_told_with_its_lines(old: str, new: str, told: str) -> None:
    assert SOME_CHINESE.count(old) == 1
    assert told in difference(SOME_ENGLISH, SOME_CHINESE.replace(old, new))
