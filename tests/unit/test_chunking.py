import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ingestor.core.chunking import Cutter
from ingestor.core.tokens import estimate_tokens

FULL_STOPS = "。\uff01\uff1f"
MARKDOWN = """---
title: The Book
---
# Part

{intro}

## First

{first}

```python
# no heading

## nor this
```

Setext
------

{second}
"""


def sentences(word: str, count: int) -> str:
    return " ".join(f"This is sentence number {number} about {word}." for number in range(count))


def test_markdown_has_title_headings_and_lines() -> None:
    text = MARKDOWN.format(intro=sentences("it", 5), first=sentences("one", 10), second=sentences("two", 10))
    title, chunks = Cutter(150).cut(text, "book.md")
    assert title == "The Book"
    assert [(chunk.start_line, chunk.end_line, chunk.heading) for chunk in chunks] == [
        (1, 6, ""),
        (8, 16, "Part > First"),
        (18, 21, "Part > Setext"),
    ]


def test_a_heading_stays_with_what_it_is_the_heading_of() -> None:
    text = "".join(f"## Section {number}\n\n{sentences(str(number), 12)}\n\n" for number in range(20))
    _, chunks = Cutter(200).cut(text, "a.md")
    assert not [chunk for chunk in chunks if chunk.text.split("\n")[-1].startswith("#")]


def test_nothing_in_a_fence_governs_a_chunk() -> None:
    text = "# Real\n\n```sh\n" + "# comment\nrun the command\n\n" * 100 + "```\n"
    _, chunks = Cutter(100).cut(text, "a.md")
    assert len(chunks) > 2
    assert {chunk.heading for chunk in chunks} == {"Real"}


@pytest.mark.parametrize(
    ("file_name", "title"),
    [("notes.txt", "notes"), ("sub/a.b.csv", "a.b"), (".profile", ".profile"), ("x\udcff", "x?")],
)
def test_title_is_the_stem_where_the_text_has_none(file_name: str, title: str) -> None:
    assert Cutter().cut("# not markdown\n", file_name)[0] == title
    assert Cutter().cut("no heading", "readme.md")[0] == "readme"


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t\r\n \u3000\u2028"])
def test_blank_text_has_no_chunks(text: str) -> None:
    for name in ("a.txt", "a.md", "a.py", "a.csv"):
        assert Cutter().cut(text, name) == ("a", ())


def test_chinese_is_cut_after_sentences() -> None:
    text = "".join(
        f"这是第{number}句话它说的是同一件事情没有别的意思{mark}" for number, mark in enumerate(FULL_STOPS * 40)
    )
    _, chunks = Cutter(100).cut(text, "a.txt")
    assert len(chunks) > 20
    assert all(chunk.text[-1] in FULL_STOPS for chunk in chunks)


def test_english_is_cut_after_sentences_and_not_after_abbreviations() -> None:
    text = " ".join(f"Number {number} is 3.14 or so, e.g. this one, and ends here." for number in range(100))
    _, chunks = Cutter(100).cut(text, "a.txt")
    assert len(chunks) > 15
    assert all(chunk.text.endswith("here.") for chunk in chunks)


def test_paragraphs_come_before_sentences() -> None:
    text = "\n\n".join(sentences(str(number), 3) for number in range(40))
    _, chunks = Cutter(150).cut(text, "a.txt")
    assert all(chunk.text.startswith("This is sentence number 0") for chunk in chunks)


def test_a_cut_comes_before_the_largest_of_many_paragraphs() -> None:
    for largest in range(4, 8):
        paragraphs = [sentences(str(number), 7 if number == largest else 2) for number in range(11)]
        _, chunks = Cutter(300).cut("\n\n".join(paragraphs), "a.txt")
        assert [chunk.text.split("\n\n")[0] for chunk in chunks] == [paragraphs[0], paragraphs[largest]]


def test_lines_of_tables_and_logs_stay_whole() -> None:
    text = "".join(f'{number},name. Of {number},"a; b",{number * 7}\n' for number in range(500))
    _, chunks = Cutter(100).cut(text, "a.csv")
    assert "\n".join(chunk.text for chunk in chunks) == text.rstrip()


def test_python_is_cut_where_statements_begin() -> None:
    function = (
        "def function_{0}(a, b):\n    text = '''\nno statement\n'''\n"
        "    return call(\n        a,\n        {0},\n    )\n\n\n"
    )
    text = "".join(function.format(number) for number in range(60))
    _, chunks = Cutter(150).cut(text, "a.py")
    assert len(chunks) > 15
    assert all(chunk.text.startswith("def ") for chunk in chunks)


def test_grammar_knows_statements_that_indentation_does_not_tell() -> None:
    body = "".join(f"    value_{number} = '''\nlooks like a line {number}\n'''\n" for number in range(60))
    _, chunks = Cutter(150).cut("def function():\n" + body, "a.py")
    assert len(chunks) > 5
    assert all(chunk.text.lstrip().startswith(("def", "value_")) for chunk in chunks)


def test_indentation_of_the_first_line_is_kept() -> None:
    text = "class A:\n" + "".join(f"\n    def m{number}(self):\n        return {number}\n" for number in range(80))
    _, chunks = Cutter(100).cut(text, "a.py")
    assert all(chunk.text.startswith("    def ") for chunk in chunks[1:])


def test_code_without_grammar_is_cut_by_indentation() -> None:
    text = "".join(
        f"function f{number}(a) {{\n  if (a) {{\n    g({number});\n  }}\n  return a;\n}}\n\n" for number in range(60)
    )
    _, chunks = Cutter(100).cut(text, "a.js")
    assert all(chunk.text.startswith("function") for chunk in chunks)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.log"])
@pytest.mark.parametrize("unit", ["a", "中", "a b", ".", "é́", "x" * 300 + "\n"])
def test_pathological_lines_are_cut_within_the_limit(name: str, unit: str) -> None:
    text = unit * (40_000 // len(unit))
    _, chunks = Cutter(100).cut(text, name)
    assert max(estimate_tokens(chunk.text) for chunk in chunks) <= 100
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())


def test_overlap_repeats_the_end_of_the_chunk_before() -> None:
    text = " ".join(f"Sentence {number} is a short one." for number in range(200))
    _, chunks = Cutter(100, 20).cut(text, "a.txt")
    assert all(estimate_tokens(chunk.text) <= 100 for chunk in chunks)
    places = [(text.index(chunk.text), len(chunk.text)) for chunk in chunks]
    assert all(place + length > after for (place, length), (after, _) in pairwise(places))


@pytest.mark.parametrize(("max_tokens", "overlap_tokens"), [(15, 0), (100, -1), (100, 51)])
def test_sizes_without_room_are_refused(max_tokens: int, overlap_tokens: int) -> None:
    with pytest.raises(ValueError, match="_tokens is"):
        Cutter(max_tokens, overlap_tokens)


def test_recipe_tells_sizes_apart_and_is_stable() -> None:
    assert Cutter().recipe == Cutter().recipe
    assert len({Cutter(*sizes).recipe for sizes in ((100, 0), (101, 0), (100, 1))}) == 3


def test_every_module_of_the_project_is_covered_whole() -> None:
    for path in Path(__file__).parents[2].joinpath("ingestor").rglob("*.py"):
        text = path.read_text("utf-8")
        _, chunks = Cutter(120).cut(text, path.name)
        assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())


@pytest.mark.timeout(30)
def test_the_grammar_is_not_asked_about_a_line_that_it_would_take_minutes_for() -> None:
    text = "text = '''\n" + "中" * 19_000 + "\n'''\n"
    _, chunks = Cutter(60).cut(text, "a.py")
    assert len(chunks) > 19_000 / 60


def test_the_first_texts_of_a_process_are_cut_on_many_threads_at_once() -> None:
    # numpy imports parts of itself when they are first used, and two threads that do so at once recurse without end.
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from ingestor.core.chunking import Cutter
sys.setswitchinterval(1e-6)
before = {name for name in sys.modules if name.startswith("numpy")}
text = "# Title\\n\\n" + "".join(f"Paragraph {number} has some words of its own.\\n\\n" for number in range(300))
with ThreadPoolExecutor(8) as threads:
    chunks = list(threads.map(lambda name: Cutter().cut(text, name), ["a.md", "a.txt", "a.py", "a.log"] * 4))
print(sorted({name for name in sys.modules if name.startswith("numpy")} - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
