"""Which files are converted, and what becomes of their texts; by a double of the converter."""

import asyncio
import threading
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from ingestor.adapters import conversion as installed
from ingestor.adapters.decoding import decode
from ingestor.adapters.folder import Folder
from ingestor.adapters.rules import Rules
from ingestor.app.parts import folder_of
from ingestor.core.chunking import Cutter
from ingestor.core.errors import DocumentError, OversizeDocument, UnconvertibleDocument
from ingestor.core.formats import Format, format_of, formats_of
from ingestor.core.model import Chunk, Converted, Document, Snapshot
from ingestor.core.planning import plan_document
from ingestor.core.reconciling import difference
from ingestor.engine.reading import Reader
from ingestor.settings import Settings
from tests.doubles_folder import MemoryFolder
from tests.world import World

PDF = b"%PDF-1.7 ..."


class Conversion:
    """Converts everything to the same, or raises; `is_free` is cleared to let it hang."""

    def __init__(self, converted: Converted | DocumentError, formats: frozenset[Format] = frozenset(Format)) -> None:
        self.formats = formats
        self.max_children = 2
        self.given: list[tuple[bytes, Format]] = []
        self.is_free = threading.Event()
        self.is_free.set()
        self._converted = converted

    def convert(self, raw: bytes, format_: Format) -> Converted:
        self.given.append((raw, format_))
        assert self.is_free.wait(30)
        if isinstance(self._converted, DocumentError):
            raise self._converted
        return self._converted

    def close(self) -> None:
        self.is_free.set()


def read(path: str, raw: bytes, conversion: Conversion | None) -> Document:
    folder = MemoryFolder()
    folder.write(path, raw)
    return Reader(folder, lambda raw: decode(raw).text, Cutter(), conversion=conversion).read(path)


@pytest.mark.parametrize(
    ("path", "format_"),
    [
        ("a.pdf", Format.PDF),
        ("x.y/A.B.PDF", Format.PDF),
        ("报告.docx", Format.DOCX),
        ("a.xhtml", Format.HTML),
        ("a.htm", Format.HTML),
        ("a.ipynb", Format.IPYNB),
        ("a.doc", None),
        ("a.md", None),
        ("pdf", None),
        ("a.pdf/readme", None),
    ],
)
def test_the_ending_of_a_name_tells_the_format(path: str, format_: Format | None) -> None:
    assert format_of(path) is format_


def test_chunks_of_a_document_with_pages_end_with_their_page_and_carry_its_number() -> None:
    text = "# Title\n\nfirst\n\nsecond\n\n## Part\n\nfourth\n"
    document = read("a.pdf", PDF, Conversion(Converted(text, (1, 5, 7, 7))))
    assert [(chunk.text, chunk.page, chunk.start_line, chunk.heading) for chunk in document.chunks] == [
        ("# Title\n\nfirst", 1, 1, "Title"),
        ("second", 2, 5, "Title"),
        ("## Part\n\nfourth", 4, 7, "Title > Part"),
    ]
    assert (document.file_type, document.title) == ("application/pdf", "Title")


def test_a_page_that_is_larger_than_a_chunk_is_cut_as_any_text_and_one_without_pages_is_cut_as_before() -> None:
    cutter = Cutter(64)
    first, second = (" ".join(f"word{n} of {name}." for n in range(200)) for name in ("one", "two"))
    text = f"{first}\n{second}"
    _, chunks = cutter.cut(text, "a.md", (1, 2))
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())
    assert not any("of one" in chunk.text and "of two" in chunk.text for chunk in chunks)
    assert cutter.cut(text, "a.md", ()) == cutter.cut(text, "a.md")


def test_only_records_of_pages_tell_a_page() -> None:
    document = read("a.docx", b"PK\x03\x04", Conversion(Converted("words")))
    paged = replace(document, chunks=(Chunk("words", 1, 1, page=3),))
    told = [
        plan_document(each, None, document_id="d", cutting="c", model="m", now_seconds=0.0).embed[0].metadata
        for each in (document, paged)
    ]
    assert "page" not in told[0]
    assert told[1] == {**told[0], "page": 3}


def test_text_formats_are_decoded_before_they_are_converted() -> None:
    conversion = Conversion(Converted("# 标题"))
    document = read("a.html", "<h1>两个沿海国家就专属经济区的界线争执了二十年</h1>".encode("gb18030"), conversion)
    assert conversion.given == [("<h1>两个沿海国家就专属经济区的界线争执了二十年</h1>".encode(), Format.HTML)]
    assert (document.title, document.file_type) == ("标题", "text/html")


def test_a_page_of_the_web_that_cannot_be_converted_is_the_text_that_it_is() -> None:
    document = read("a.html", b"<p>words", Conversion(UnconvertibleDocument("no text")))
    assert [chunk.text for chunk in document.chunks] == ["<p>words"]
    with pytest.raises(OversizeDocument):
        read("a.html", b"<p>words", Conversion(OversizeDocument("too large")))
    with pytest.raises(UnconvertibleDocument):
        read("a.pdf", PDF, Conversion(UnconvertibleDocument("no text")))


@pytest.mark.parametrize("path", ["a.pdf", "a.docx", "a.txt"])
def test_an_ending_that_lies_is_not_believed(path: str) -> None:
    conversion = Conversion(Converted("converted"))
    assert [chunk.text for chunk in read(path, b"a text", conversion).chunks] == ["a text"]
    assert conversion.given == []


def test_without_a_converter_what_is_text_stays_text() -> None:
    for conversion in (None, Conversion(Converted("converted"), frozenset({Format.PDF}))):
        document = read("a.html", b"<p>words", conversion)
        assert [chunk.text for chunk in document.chunks] == ["<p>words"]
        assert document.file_type == "text/html"


def test_a_reader_tells_what_it_converts_and_what_it_lacks() -> None:
    reader = Reader(
        MemoryFolder(), bytes.decode, Cutter(), conversion=Conversion(Converted(""), frozenset({Format.PDF}))
    )
    paths = ("a.pdf", "a.docx", "a.html", "a.txt")
    assert [(reader.converts(path), reader.lacks(path)) for path in paths] == [
        (True, False),
        (False, True),
        (False, False),
        (False, False),
    ]


def test_a_folder_lists_what_cannot_be_converted_by_itself_and_lets_it_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.pdf", "sub/c.PDF", "d.docx", "left.pdf"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    rules = Rules([], ["left.*"])
    folder = Folder(
        tmp_path, rules, follow_symlinks=False, max_file_bytes=100, unconverted=frozenset({Format.PDF, Format.EPUB})
    )
    found = folder.scan()
    assert (sorted(found.files), found.unconverted) == (["a.txt", "d.docx"], frozenset({"b.pdf", "sub/c.PDF"}))
    assert folder.scan("sub").unconverted == {"sub/c.PDF"}
    assert folder.look("b.pdf") is not None


async def test_another_converter_is_another_text_of_what_it_converts_and_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, conversion = World(), Conversion(Converted("same\nold"))
    monkeypatch.setattr("tests.world.Reader", lambda *arguments: Reader(*arguments, conversion=conversion))
    world.folder.converters = dict.fromkeys(Format, "one")
    for path, raw in {"a.pdf": PDF, "b.txt": b"a text", "c.html": b"<p>"}.items():
        world.folder.write(path, raw)
    await world.sync()
    entries = {path: entry.cutting for path, entry in world.ledger.entries(["a.pdf", "b.txt", "c.html"]).items()}
    assert entries == {"a.pdf": "lines+one", "b.txt": "lines", "c.html": "lines+one"}
    ids, paid = set(world.sink.ids()), world.embedded_texts()

    world.folder.reads.clear()
    world.folder.converters = dict.fromkeys(Format, "one") | {Format.PDF: "two"}
    await world.sync()
    assert world.folder.reads == ["a.pdf"]
    assert (set(world.sink.ids()), world.embedded_texts()) == (ids, paid), "equal texts are left as they are"
    conversion._converted = Converted("same\nnew")
    world.folder.converters = dict.fromkeys(Format, "two")
    await world.sync()
    assert world.folder.reads == ["a.pdf", "c.html"]
    conversion.formats = frozenset({Format.PDF})
    world.folder.converters = {Format.PDF: "two"}
    await world.sync()
    assert world.folder.reads == ["a.pdf", "c.html", "c.html"]
    await world.sync()
    assert world.folder.reads == ["a.pdf", "c.html", "c.html"], "never again"
    assert world.records() == [("a.pdf", "old", 2), ("a.pdf", "same", 1), ("b.txt", "a text", 1), ("c.html", "<p>", 1)]
    assert sorted(set(world.embedded_texts()) - set(paid)) == ["<p>", "new"]


async def test_a_document_that_was_refused_is_tried_again_by_another_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    world, conversion = World(), Conversion(UnconvertibleDocument("no text"))
    monkeypatch.setattr("tests.world.Reader", lambda *arguments: Reader(*arguments, conversion=conversion))
    world.folder.converters = {Format.PDF: "one"}
    world.folder.write("a.pdf", PDF)
    await world.sync()
    await world.sync()
    assert (len(conversion.given), world.records()) == (1, [])
    conversion._converted = Converted("words")
    world.folder.converters = {Format.PDF: "two"}
    await world.sync()
    await world.sync()
    assert (len(conversion.given), world.records()) == (2, [("a.pdf", "words", 1)])


def test_the_formats_of_many_paths_are_those_of_each() -> None:
    names = [f"a.{ending}" for each in Format for ending in (each, each.upper(), each.capitalize())]
    paths = [*names, "b.htm", "B.XHTML", "c.md", "d.txt", "pdf", "e.xml", "f.pdf/readme", "g.Pdf", "h."]
    assert formats_of(paths) == {path: format_of(path) for path in paths if format_of(path)}


@pytest.mark.parametrize("is_installed", [True, False])
def test_the_converter_of_a_folder_is_the_one_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_installed: bool
) -> None:
    monkeypatch.setattr(installed, "is_installed", lambda: is_installed)
    (tmp_path / "a.html").write_text("<p>words", encoding="utf-8")
    (tmp_path / "a.ipynb").write_text("{}", encoding="utf-8")
    settings = Settings.model_validate(
        {"watch_dir": tmp_path, "data_dir": tmp_path / "data", "convert": {"formats": ["html"]}}
    )
    name = f"+{installed.LIBRARY}-{version(installed.LIBRARY)}-{installed.REVISION}"
    assert folder_of(settings).scan().attached == ({"a.html": name} if is_installed else {})


def test_what_cannot_be_converted_any_more_is_not_gone() -> None:
    glance = ((1, 1, 1, 1, True), "cut", False)
    glances = {"a.pdf": glance, "b.pdf": glance}
    assert difference(Snapshot({}, unconverted=frozenset({"a.pdf"})), glances, "cut").gone == ("b.pdf",)


async def test_text_files_do_not_wait_for_conversions_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    world, conversion = World(), Conversion(Converted("words of a document"))
    monkeypatch.setattr("tests.world.Reader", lambda *arguments: Reader(*arguments, conversion=conversion))
    conversion.is_free.clear()
    for number in range(30):
        world.folder.write(f"a{number}.pdf", PDF + b"%d" % number)
        world.folder.write(f"b{number}.txt", b"text %d" % number)
    working = asyncio.create_task(world.sync())
    for _ in range(3_000):
        if world.sink.count() == 30:
            break
        await asyncio.sleep(0.01)
    held = world.sink.read(world.sink.ids())
    assert {each.metadata["file_type"] for each in held if each.metadata} == {"text/plain"}
    assert len(conversion.given) == 1, "one more is free for live changes"
    conversion.is_free.set()
    await working
    assert world.sink.count() == 60
