"""Files of every format that is converted, by real children."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.adapters import conversion
from ingestor.adapters.conversion import Converter
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.formats import Format
from ingestor.core.model import Converted
from tests import documents
from tests.daemon import eventually, lives

MEGABYTE = 1 << 20


def converter_of(*, timeout_seconds: float = 60.0, max_children: int = 2) -> Converter:
    return Converter(
        frozenset(Format),
        timeout_seconds=timeout_seconds,
        max_memory_bytes=1024 * MEGABYTE,
        max_text_bytes=MEGABYTE,
        max_children=max_children,
    )


@pytest.fixture(scope="module")
def converter() -> Iterator[Converter]:
    converter = converter_of()
    yield converter
    converter.close()


@pytest.mark.parametrize(
    ("format_", "raw", "converted"),
    [
        pytest.param(
            Format.PDF,
            documents.pdf([["# Lighthouses 灯塔", "看守人记录每一艘船。", "Ships pass."], [], ["第三页 volcanoes"]]),
            Converted("# Lighthouses 灯塔\n\n看守人记录每一艘船。\nShips pass.\n\n第三页 volcanoes", (1, 6, 6)),
            id="pdf",
        ),
        pytest.param(
            Format.DOCX,
            documents.docx(
                documents.paragraph("海洋划界", "Heading1") + documents.paragraph("两国 & <more> *that* is a_b")
            ),
            Converted("## 海洋划界\n\n两国 & <more> *that* is a_b\n"),
            id="docx",
        ),
        pytest.param(
            Format.PPTX,
            documents.pptx([("第一张", "first words"), ("Second", "第二张 & 要点 <b>")]),
            Converted("## 第一张\n\nfirst words\n\n## Second\n\n第二张 & 要点 <b>", (1, 5)),
            id="pptx",
        ),
        pytest.param(
            Format.XLSX,
            documents.xlsx({"销售": [["城市", "a & b"], ["上海", "twelve"]], "Empty": [], "Third": [["x"]]}),
            Converted(
                "## 销售\n\n| 城市 | a & b |\n| --- | --- |\n| 上海 | twelve |\n\n## Third\n\n| x |\n| --- |\n",
                (1, 7, 7),
            ),
            id="xlsx",
        ),
        pytest.param(
            Format.EPUB,
            documents.epub([("第一章", "海上的灯。"), ("Second", "The end.")]),
            Converted("# 第一章\n\n海上的灯。\n\n# Second\n\nThe end."),
            id="epub",
        ),
        pytest.param(
            Format.HTML,
            (
                "<!doctype html><html><head><meta charset='gbk'><title>灯塔 &amp; ships</title><style>p{}</style>"
                "<script>evil()</script></head><body><h2>光</h2><p>看守人 <b>writes</b> &lt;much&gt;</p>"
                "<img alt='a lamp' src='data:image/png;base64,QUJD'></body></html>"
            ).encode(),
            Converted("# 灯塔 & ships\n\n## 光\n\n看守人 **writes** <much>\n\n![a lamp]()\n"),
            id="html",
        ),
        pytest.param(
            Format.IPYNB,
            documents.notebook([("markdown", "# 笔记\n\n海上的灯"), ("code", "lamp = 1\nprint(lamp)")]),
            Converted("# 笔记\n\n海上的灯\n\n```\nlamp = 1\nprint(lamp)\n```"),
            id="ipynb",
        ),
    ],
)
def test_a_file_says_as_markdown_what_it_says(
    converter: Converter, format_: Format, raw: bytes, converted: Converted
) -> None:
    assert converter.convert(raw, format_) == converted
    assert converter.convert(raw, format_) == converted, "the same again"


def test_a_child_serves_one_file_after_the_other_and_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    fresh = converter_of()
    for _ in range(3):
        fresh.convert(b"<p>x", Format.HTML)
    (pid,) = fresh.children
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getsid(pid) == pid, "Ctrl-C does not reach it"
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    opened = [int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()]
    assert f"Max open files            {max(opened) + 1} " in limits, "it can open nothing more, and connect to nobody"
    assert f"Max address space         {1024 * MEGABYTE} " in limits
    assert not any(Path(f"/proc/{pid}/fd/{each}").is_file() for each in opened)
    fresh.close()
    assert not lives(pid)


def test_at_most_so_many_children_work_at_once() -> None:
    limited = converter_of(max_children=2)
    long = documents.pdf([["words " * 10] * 40] * 30)
    done: list[Converted] = []
    threads = [threading.Thread(target=lambda: done.append(limited.convert(long, Format.PDF))) for _ in range(5)]
    seen: list[int] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(len(limited.children))
        time.sleep(0.01)
    assert max(seen) == 2
    assert len(done) == 5
    limited.close()


def test_a_child_that_has_nothing_to_do_ends_by_itself_and_the_next_file_gets_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversion, "IDLE_SECONDS", 1)
    idle = converter_of()
    assert idle.convert(b"<p>one", Format.HTML).text == "one\n"
    eventually(lambda: not idle.children, lambda: "the child waits on")
    assert idle.convert(b"<p>two", Format.HTML).text == "two\n"
    idle.close()


@pytest.mark.parametrize("close", [Converter.close, lambda converter: (converter.close(), converter.close())])
def test_nothing_is_converted_once_it_is_closed(close: Callable[[Converter], object]) -> None:
    closed = converter_of()
    closed.convert(b"<p>one", Format.HTML)
    close(closed)
    assert closed.children == []
    with pytest.raises(ServiceUnavailable, match="closed"):
        closed.convert(b"<p>two", Format.HTML)
