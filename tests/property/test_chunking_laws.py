import random
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.core.chunking import Cutter
from ingestor.core.tokens import estimate_tokens, running_count

NAMES = ("a.txt", "a.md", "a.py", "a.js", "a.csv")
PIECES = (
    *"aZ9.,;#-=`()[]{}\"'\n\n\t\r\f\0\x1c\x80\x85\u2028\u3000\u200d\ufe0f\u0301 ",
    *("  ", "    ", "\n\n", "中", "文字", "。", "\uff01", "\uff1f”", "カ", "한", "ж", "ي", "😀", "👩‍👩‍👧", "e\u0301"),
    *("word", "Long Words", "def f(x):\n", "    return 1\n", "class A:\n", "'''", "# Head\n", "## Sub\n\n", "```\n"),
    *("---\n", "===\n", "title: T\n", "- one\n", "a,b,c\n", "x" * 50, "中" * 40, " " * 70, "0" * 33, "!" * 20),
)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=250).map("".join)
REPEATED = st.builds(lambda part, count: part * count, TEXTS.filter(lambda text: len(text) < 200), st.integers(1, 60))


@settings(max_examples=150, deadline=None)
@given(
    text=TEXTS | REPEATED,
    name=st.sampled_from(NAMES),
    max_tokens=st.integers(16, 120),
    overlap_share=st.sampled_from([0, 0, 0.1, 0.5]),
)
@example(text="0A0\x80\x80" * 4, name="a.txt", max_tokens=16, overlap_share=0)
@example(text="x" * 3_000, name="a.py", max_tokens=16, overlap_share=0.5)
def test_chunks_cover_the_text_in_order_within_the_limit(
    text: str, name: str, max_tokens: int, overlap_share: float
) -> None:
    cutter = Cutter(max_tokens, int(max_tokens * overlap_share))
    title, chunks = cutter.cut(text, name)
    assert title
    lines = text.split("\n")
    covered = 0
    for chunk in chunks:
        assert chunk.text.strip()
        assert estimate_tokens(chunk.text) <= max_tokens
        assert 1 <= chunk.start_line <= chunk.end_line <= len(lines)
        assert chunk.text in "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        assert chunk.text.count("\n") == chunk.end_line - chunk.start_line
    if overlap_share == 0:
        for chunk in chunks:
            place = text.index(chunk.text, covered)
            assert not text[covered:place].strip()
            covered = place + len(chunk.text)
        assert not text[covered:].strip()
    assert cutter.cut(text, name) == (title, chunks)


SCALE = settings().max_examples // 100 or 1
ODD_SIGNS = (
    *(
        "\r",
        "\n\r",
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x1c",
        "\x85",
        "\xad",
        "\u2028",
        "\u2029",
        "\u200b",
        "\ufeff",
        "\ufffd",
    ),
    *(
        "\u202e",
        "\u2066",
        "\u2069",
        "\u061c",
        "שלום",
        "مرحبا",
        "\U000e0041",
        "\U0010ffff",
        "\ue000",
        "\ufdd0",
        "𠮷",
        "\U0001d518",
        "🏳️‍🌈",
    ),
    *("e" + "\u0301" * 30, "ก็", "한\u1100\u1161", "\t" * 9, "\xa0" * 9, "\u3000"),
)
ANY_TEXTS = st.lists(st.sampled_from((*PIECES, *ODD_SIGNS)) | st.text(max_size=20), max_size=120).map("".join)
ANY_NAMES = st.sampled_from(
    (
        *(
            "a.txt",
            "a.markdown",
            "a.pyi",
            "A.PY",
            "a.jsonl",
            "a.html",
            "Makefile",
            "README",
            ".md",
            ".env",
            "a.",
            "a.tar.gz",
        ),
        *(
            "caf\udce9.md",
            "\udcff.py",
            "新闻.md",
            "a\nb.md",
            "-rf.py",
            "x" * 251 + ".md",
            "..md",
            "a.md ",
            "\u202egnp.md",
        ),
    )
)


@settings(max_examples=300 * SCALE, deadline=None, derandomize=SCALE == 1)
@given(text=ANY_TEXTS, name=ANY_NAMES, max_tokens=st.sampled_from([16, 17, 33, 440]))
@example(text="\r" * 200 + "a", name="a.py", max_tokens=16)
@example(text="---\ntitle: \u2028x\n---\n# \x00\n", name="a.md", max_tokens=16)
@example(text="'''" + "\u2028" * 99 + "\r" * 99 + "😀" * 99, name="a.py", max_tokens=16)
def test_any_signs_under_any_name_are_cut_alike_every_time(text: str, name: str, max_tokens: int) -> None:
    title, chunks = Cutter(max_tokens).cut(text, name)
    title.encode()  # no lone surrogate goes into the metadata
    assert len(title) <= 300
    assert Cutter(max_tokens).cut(text, name) == (title, chunks)
    lines = text.split("\n")
    covered = 0
    last_line = 1
    for chunk in chunks:
        assert chunk.text.strip()
        assert estimate_tokens(chunk.text) <= max_tokens
        assert last_line <= chunk.start_line <= chunk.end_line <= len(lines)
        assert chunk.text in "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        assert len(chunk.heading) <= 6 * 300 + 5 * len(" > ")
        last_line = chunk.end_line
        place = text.index(chunk.text, covered)
        assert not text[covered:place].strip()
        covered = place + len(chunk.text)
    assert not text[covered:].strip()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("a.md", f"---\ntitle: x{' ' * 1_000_000}y\n---\nwords\n", id="blanks inside a title"),
        pytest.param("a.md", f"---\ntitle:{' ' * 1_000_000}\n---\nwords\n", id="blanks instead of a title"),
        pytest.param("a.md", f"---\n{'--- ' * 250_000}\n", id="front matter that never ends"),
        pytest.param("a.md", f"# {' #' * 500_000}\n", id="closing marks of a heading"),
        pytest.param("a.md", "`" * 1_000_000, id="a fence in one line"),
        pytest.param("a.txt", f"a{' ' * 1_000_000}b", id="blanks in one line"),
        pytest.param("a.txt", '."' * 500_000, id="ends of sentences without a sentence"),
        pytest.param("a.txt", "e" + "\u0301" * 1_000_000, id="one letter with a million accents"),
        pytest.param("a.py", "(" * 1_000_000, id="brackets that are never closed"),
        pytest.param("a.py", "'''\n" * 250_000, id="quotes in every line of a program"),
        pytest.param("a.json", '{"a":[' * 160_000, id="nested without end"),
    ],
)
def test_a_million_characters_made_to_take_long_are_cut(name: str, text: str) -> None:
    """Where the work grew with the square of the length, this would take hours."""
    title, chunks = Cutter().cut(text, name)
    assert len(title) <= 300
    assert sum(len("".join(chunk.text.split())) for chunk in chunks) == len("".join(text.split()))


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.data())
def test_estimate_is_bounded_and_nearly_additive(text: str, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(text)))
    counts = running_count(text)
    assert int(counts[-1]) == estimate_tokens(text) <= len(text)
    assert estimate_tokens(text[:place]) == counts[place]
    assert estimate_tokens(text[place:]) <= counts[-1] - counts[place] + 1


WORDS = (
    "time",
    "year",
    "people",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "school",
    "state",
    "family",
    "group",
)
CHINESE = (
    "我们",
    "系统",
    "用户",
    "文件夹",
    "数据库",
    "模型",
    "检索",
    "修改了",
    "保存了",
    "没有发现",
    "报告",
    "记录",
    "计划",
)


def english(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 20))).capitalize() + "."


def chinese(rng: random.Random) -> str:
    return "".join(rng.choice(CHINESE) for _ in range(rng.randint(3, 12))) + rng.choice("。。\uff01\uff1f")


def paragraph(rng: random.Random) -> str:
    return " ".join(english(rng) for _ in range(rng.randint(1, 5))) + "\n\n"


def wrapped_paragraph(rng: random.Random) -> str:
    return textwrap.fill(paragraph(rng), 72) + "\n\n"


def block(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.2:
        return f"{'#' * rng.randint(2, 4)} {rng.choice(WORDS)} {rng.random()}\n\n"
    if kind < 0.3:
        return "".join(f"{'  ' * rng.randint(0, 1)}- {english(rng)}\n" for _ in range(rng.randint(2, 8))) + "\n"
    if kind < 0.4:
        return "```\n" + "".join(statement(rng) for _ in range(rng.randint(2, 15))) + "```\n\n"
    return paragraph(rng) if kind < 0.7 else wrapped_paragraph(rng)


def chinese_line(rng: random.Random) -> str:
    return "".join(chinese(rng) for _ in range(rng.randint(1, 8))) + "\n"


def log_line(rng: random.Random) -> str:
    seconds = f"{rng.randint(10, 59)}:{rng.randint(10, 59)}"
    return f"2026-11-23 12:{seconds} INFO worker-{rng.randint(0, 9)} id={rng.random():.20f}\n"


def csv_line(rng: random.Random) -> str:
    return f"{rng.randint(0, 10**6)},{rng.choice(WORDS)},{rng.choice(WORDS)},{rng.random():.2f}\n"


def statement(rng: random.Random) -> str:
    return f"    {rng.choice(WORDS)} = {rng.choice(WORDS)}({rng.randint(0, 10**6)})\n"


def function(rng: random.Random) -> str:
    return f"def {rng.choice(WORDS)}_{rng.randint(0, 10**6)}(a, b):\n" + "".join(
        statement(rng) for _ in range(rng.randint(1, 25))
    ) + "\n\n"  # fmt: skip


def short_function(rng: random.Random) -> str:
    return f"def {rng.choice(WORDS)}_{rng.randint(0, 10**6)}(a, b):\n" + statement(rng) * 3 + "\n\n"


def comment(rng: random.Random) -> str:
    return textwrap.fill(paragraph(rng), 72, initial_indent="# ", subsequent_indent="# ") + "\n\n"


def long_paragraph(rng: random.Random) -> str:
    return " ".join(english(rng) for _ in range(12)) + "\n\n"


def log_lines(rng: random.Random) -> str:
    return "".join(log_line(rng) for _ in range(6))


Maker = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Edit:
    """Texts made of parts, and what is inserted into them after some mark."""

    name: str
    part: Maker
    insertion: Maker
    mark: str
    size_characters: int = 50_000

    def changes(self, rng: random.Random, texts: int, each: int) -> Counter[int]:
        """How many chunks are new, by count: `each` times at the top, within and at the end of each text."""
        cutter = Cutter()
        new_chunks: Counter[int] = Counter()
        for _ in range(texts):
            text = ""
            while len(text) < self.size_characters:
                text += self.part(rng)
            before = {chunk.text for chunk in cutter.cut(text, self.name)[1]}
            for _ in range(each):
                within = text.find(self.mark, rng.randrange(len(text) - 2_000)) + len(self.mark)
                for place in (0, within, len(text)):
                    edited = text[:place] + self.insertion(rng) + text[place:]
                    after = {chunk.text for chunk in cutter.cut(edited, self.name)[1]}
                    new_chunks[len(after - before)] += 1
        return new_chunks


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(Edit("a.md", block, paragraph, "\n\n"), id="markdown"),
        pytest.param(Edit("a.txt", paragraph, paragraph, "\n\n"), id="english"),
        pytest.param(Edit("a.txt", wrapped_paragraph, wrapped_paragraph, "\n\n"), id="english in short lines"),
        pytest.param(Edit("a.txt", chinese_line, chinese_line, "\n", 17_000), id="chinese without blank lines"),
        pytest.param(Edit("a.txt", chinese, chinese, "。", 17_000), id="chinese in one line"),
        pytest.param(Edit("a.log", log_line, log_line, "\n"), id="log of equal lengths"),
        pytest.param(Edit("a.log", log_line, paragraph, "\n"), id="english and a blank line in a log"),
        pytest.param(Edit("a.csv", csv_line, csv_line, "\n"), id="csv"),
        pytest.param(Edit("a.py", function, short_function, "\n\n\n"), id="python function"),
        pytest.param(Edit("a.py", function, comment, "\n\n\n"), id="python comment"),
        pytest.param(Edit("a.py", function, statement, "\n"), id="python statement"),
    ],
)
def test_an_inserted_paragraph_changes_two_chunks_and_rarely_a_third(edit: Edit) -> None:
    """One in a hundred may change a third one, none more, wherever it is; with a greedy cut it is nearly all chunks.

    Of 9 000 or more cases a kind with up to 100 tokens, 0.0 % changed a third one in prose, 0.2 % in Markdown, 0.4 % in
    tables, 0.6 % in logs and 0.9 % in source code of the standard library.
    """
    changed = edit.changes(random.Random(7), texts=10, each=10)
    assert max(changed) <= 3
    assert changed[3] <= changed.total() // 100
    assert sum(changed.elements()) <= 1.5 * changed.total()


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(Edit("a.md", block, long_paragraph, "\n\n"), id="markdown"),
        pytest.param(Edit("a.txt", paragraph, long_paragraph, "\n\n"), id="english"),
        pytest.param(Edit("a.log", log_line, log_lines, "\n"), id="log"),
    ],
)
def test_an_insertion_of_half_a_chunk_changes_two_chunks_in_most_cases(edit: Edit) -> None:
    """Three, where it and the rest of the chunk that it is put into are too large for one."""
    changed = edit.changes(random.Random(7), texts=4, each=10)
    assert max(changed) <= 4
    assert changed[3] + changed[4] <= 0.2 * changed.total()


def test_equal_lines_fill_chunks_and_a_line_put_into_them_changes_few() -> None:
    line = "the same words in every line\n"
    cutter = Cutter()
    chunks = cutter.cut(line * 2_000, "a.log")[1]
    before = {chunk.text for chunk in chunks}
    assert len(before) <= 3
    assert sum(estimate_tokens(chunk.text) for chunk in chunks) >= 0.9 * 440 * len(chunks)
    for lines_above in range(900, 1_000):
        after = cutter.cut(line * lines_above + "a line of its own\n" + line * (2_000 - lines_above), "a.log")[1]
        assert len({chunk.text for chunk in after} - before) <= 4


@pytest.mark.parametrize(
    ("name", "part"), [("a.txt", paragraph), ("a.md", block), ("a.log", log_line), ("a.py", function)]
)
def test_no_chunk_of_a_long_text_is_tiny(name: str, part: Maker) -> None:
    rng = random.Random(7)
    _, chunks = Cutter(400).cut("".join(part(rng) for _ in range(1_000)), name)
    assert min(estimate_tokens(chunk.text) for chunk in chunks) >= 400 / 5 - 5


def test_chunks_are_half_full_in_the_mean() -> None:
    rng = random.Random(7)
    text = "".join(paragraph(rng) for _ in range(400))
    _, chunks = Cutter(400).cut(text, "a.txt")
    assert sum(estimate_tokens(chunk.text) for chunk in chunks) >= 0.5 * 400 * len(chunks)
