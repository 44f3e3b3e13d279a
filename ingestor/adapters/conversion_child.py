"""The child that converts: it reads files from standard input and writes their texts to standard output.

It is a program by itself, started by its path, and imports nothing of ingestor, so that it starts fast and knows
nothing but the bytes it is given. Arguments: most bytes of its memory, most bytes of a text, seconds for one file,
seconds to wait for the next. One file goes in as a line `FORMAT SIZE` and its bytes; one answer comes out as a line of
JSON, with `size` and `pages` when the bytes of a text follow it, else with `refused` or `too_large`.

Invariant: before it reads the first byte of a file, it can open no file and no connection, write no file, and take no
more memory than allowed. It ends when its input does, and in any case when a file takes too long.
"""

import codecs
import json
import os
import re
import resource
import secrets
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from html import unescape
from importlib import import_module
from io import BytesIO
from itertools import accumulate
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final, TypeAlias
from zipfile import ZipFile

Paged: TypeAlias = tuple[str, list[int]]
"""A text, and the lines that its pages begin with."""

CANNOT_START: Final = 3
"""Exit code of a child that never came to its first file."""
_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_MIME: Final = {
    "pdf": "application/pdf",
    "docx": f"{_OFFICE}.wordprocessingml.document",
    "pptx": f"{_OFFICE}.presentationml.presentation",
    "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    "epub": "application/epub+zip",
    "html": "text/html",
}
_NICENESS: Final = 5
_GRACE_SECONDS: Final = 2
"""By so much the kernel's alarm comes after the parent's: it is for a parent that has died."""
_TITLE: Final = re.compile(r"<title\b[^>]*>(.*?)</title\s*>", re.IGNORECASE | re.DOTALL)
_HEAD: Final = re.compile(r"<(?:meta|link|base)\b[^>]*>", re.IGNORECASE)
_EMBEDDED: Final = re.compile(r"\(data:[^)\s]*\)")
"""A picture in the middle of a text: some ten thousand letters that mean nothing."""
_SMALLEST_PDF: Final = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj trailer<</Root 1 0 R>>\n%%EOF\n"
)
_ESCAPED: Final = re.compile(r"\\([&<>*_~\[\].!()+-])")
"""Signs that the library takes for Markdown in what people have written as text."""
_REFERENCE: Final = re.compile(rb"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});")
_SIGNS: Final = {chr(0xF1120 + ord(sign)): sign for sign in "&<>\"'"}
"""A character of private use, and the sign that it stands for on its way through the library."""
_UNSPARED: Final = re.compile(f"[{''.join(_SIGNS)}]")
_MAX_UNPACKED_BYTES: Final = 128 * 1024 * 1024
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")


class Converter:
    """The library, and what it is asked for."""

    def __init__(self) -> None:
        self._library: Any = import_module("kreuzberg")
        self._ways: dict[str, Callable[[bytes], Paged]] = {
            "pdf": self._pdf,
            "docx": self._word,
            "pptx": self._slides,
            "xlsx": self._sheets,
            "epub": self._book,
            "html": self._page_of_the_web,
            "ipynb": _notebook,
        }

    def convert(self, format_name: str, raw: bytes) -> Paged:
        """The text of a file as Markdown; raises what the library raises."""
        return self._ways[format_name](raw)

    def _book(self, raw: bytes) -> Paged:
        return self._extracted("epub", raw).content, []

    def _word(self, raw: bytes) -> Paged:
        text = _ESCAPED.sub(r"\1", self._extracted("docx", _spared(raw)).content)
        return _UNSPARED.sub(lambda sign: _SIGNS[sign[0]], text), []

    def _extracted(self, format_name: str, raw: bytes, **options: Any) -> Any:  # noqa: ANN401 - as the library has it
        library = self._library
        everything = library.ContentFilterConfig(
            include_headers=True, include_footers=True, include_watermarks=True, strip_repeating_text=False
        )
        config = library.ExtractionConfig(
            use_cache=False,
            enable_quality_processing=False,
            output_format="markdown",
            content_filter=everything,
            concurrency=library.ConcurrencyConfig(max_threads=1),
            **options,
        )
        return library.extract_bytes_sync(raw, _MIME[format_name], config)

    def _pdf(self, raw: bytes) -> Paged:
        """The text layer, page by page, as it is: what the library makes of its layout loses and misreads letters.

        From there come the headings alone, where a line of the page is one.
        """
        found = self._extracted(
            "pdf",
            raw,
            pages=self._library.PageConfig(extract_pages=True),
            include_document_structure=True,
        )
        headings: dict[int, dict[str, int]] = {}
        for node in (found.document or {"nodes": []})["nodes"]:
            content = node["content"]
            if content["node_type"] == "heading" and node.get("page"):
                headings.setdefault(node["page"], {}).setdefault(_squeezed(content["text"]), content["level"])
        pages = sorted(found.pages or [], key=lambda page: int(page["page_number"]))
        return _joined([_with_headings(page["content"], headings.get(page["page_number"], {})) for page in pages])

    def _slides(self, raw: bytes) -> Paged:
        """Slides parted by a mark that no file can know beforehand."""
        mark = f"slide{secrets.token_hex(8)}x"
        config = self._library.PageConfig(insert_page_markers=True, marker_format=f"\n\n{mark}{{page_num}}\n\n")
        text = _ESCAPED.sub(r"\1", self._extracted("pptx", raw, pages=config).content)
        before, *slides = re.split(rf"^{mark}\d+$", text, flags=re.MULTILINE)
        return _joined([before + slides[0], *slides[1:]]) if slides else (text, [])

    def _sheets(self, raw: bytes) -> Paged:
        """Sheets, each a heading and a table; an empty one is left out, and still counts."""
        found = self._extracted("xlsx", raw)
        text = _ESCAPED.sub(r"\1", found.content)
        starts = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith("## ")]
        sheets = [int(table.page_number) for table in found.tables]
        if len(starts) != len(sheets) or sheets != sorted(set(sheets)):
            return text, []
        pages: list[int] = []
        for start, sheet in zip(starts, sheets, strict=True):
            pages += [start] * (sheet - len(pages))
        return text, pages

    def _page_of_the_web(self, raw: bytes) -> Paged:
        """The body, below its title; what else its head says would come out as text."""
        source = raw.decode()
        title = _TITLE.search(source)
        body = _HEAD.sub("", _TITLE.sub("", source))
        text = _EMBEDDED.sub("()", self._extracted("html", body.encode()).content)
        name = " ".join(unescape(title[1]).split()) if title else ""
        has_own = re.search(r"^# ", text, re.MULTILINE) is not None
        return (f"# {name}\n\n{text}" if name and text.strip() and not has_own else text), []


def _spared(raw: bytes) -> bytes:
    """A Word document whose references to signs such as "&" are signs that no text has: the library drops them.

    Raises what a broken archive leads to, and ValueError for one that holds too much.
    """
    written = BytesIO()
    with ZipFile(BytesIO(raw)) as given, ZipFile(written, "w") as spared:
        # Pictures and the like are of no use here.
        parts = [part for part in given.infolist() if part.filename.endswith((".xml", ".rels"))]
        if sum(part.file_size for part in parts) > _MAX_UNPACKED_BYTES:
            message = f"it unpacks to more than {_MAX_UNPACKED_BYTES:,} bytes"
            raise ValueError(message)
        for part in parts:
            content = given.read(part)
            is_text = part.filename.startswith("word/") and part.filename.endswith(".xml")
            spared.writestr(part.filename, _REFERENCE.sub(_sparing, content) if is_text else content)
    return written.getvalue()


def _sparing(reference: re.Match[bytes]) -> bytes:
    sign = unescape(reference[0].decode())
    return next((spare for spare, its in _SIGNS.items() if its == sign), sign).encode()


def _notebook(raw: bytes) -> Paged:
    """The cells of a notebook and what they have printed. The library misreads letters beyond ASCII in them.

    Raises what JSON that is no notebook leads to.
    """
    parts: list[str] = []
    for cell in json.loads(raw)["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", ()):
            printed = output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", "")
            parts.append("".join(printed))
    return "\n\n".join(part.strip() for part in parts if part.strip()), []


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _with_headings(page: str, headings: dict[str, int]) -> str:
    """A page of a PDF with its headings marked; each counts once."""
    lines = []
    for line in page.splitlines():
        level = headings.pop(_squeezed(line), 0)
        lines.append(f"\n{'#' * level} {line.strip()}\n" if level else line)
    return "\n".join(lines)


def _joined(pages: list[str]) -> Paged:
    parts = [page.strip() for page in pages]
    lengths = [part.count("\n") + 2 if part else 0 for part in parts]
    starts = [1, *(1 + total for total in accumulate(lengths[:-1]))]
    return "\n\n".join(part for part in parts if part), starts


def _limit(kind: int, wanted: int) -> None:
    """Set a limit for good, unless a lower one is set."""
    _, hard = resource.getrlimit(kind)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (most, most))


def _opened() -> Converter:
    """The library with all that it opens when it is first used.

    It writes a shared library of its own into the folder for temporary files and loads it from there, under a name that
    other users could take: it gets a folder that is ours alone, and that nobody needs once it is loaded.
    """
    with TemporaryDirectory(prefix="ingestor-") as own:
        os.environ["TMPDIR"] = own
        converter = Converter()
        converter.convert("html", b"<p>it opens what it needs</p>")
        converter.convert("pdf", _SMALLEST_PDF)
    codecs.lookup("cp437")  # of names in archives
    return converter


def _open_no_more() -> None:
    """Let no file and no connection be opened from here on, and no file be written."""
    free = os.dup(0)
    os.close(free)
    _limit(resource.RLIMIT_NOFILE, free)
    _limit(resource.RLIMIT_FSIZE, 0)


def _reason(error: BaseException) -> str:
    said = str(error).removeprefix(f"{type(error).__name__}: ")
    return said if isinstance(error, Exception) and said else type(error).__name__


def _answer(output: BinaryIO, fields: dict[str, object], text: bytes = b"") -> None:
    output.write(json.dumps(fields).encode() + b"\n" + text)
    output.flush()


def main() -> None:
    """Convert until the input ends, or nothing comes for a while."""
    max_memory_bytes, max_text_bytes, timeout_seconds, idle_seconds = map(int, sys.argv[1:])
    with suppress(PermissionError):  # a courtesy to the work on text files; a service may be kept from it
        os.nice(_NICENESS)
    try:
        _limit(resource.RLIMIT_AS, max_memory_bytes)
        _limit(resource.RLIMIT_CORE, 0)
        converter = _opened()
        _open_no_more()
    except Exception:  # noqa: BLE001 - whatever it is, the parent is told that no file is at fault
        sys.exit(CANNOT_START)
    given, output = sys.stdin.buffer, sys.stdout.buffer
    while select.select([given], [], [], idle_seconds)[0] and (line := given.readline()):
        format_name, size = line.decode().split()
        raw = given.read(int(size))
        # The default action of the signal ends the process, whatever it is at.
        signal.alarm(timeout_seconds + _GRACE_SECONDS)
        try:
            text, pages = converter.convert(format_name, raw)
            encoded = _NO_TEXT.sub("\ufffd", text).encode()
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception; it goes to the parent
            _answer(output, {"refused": _reason(error)})
        else:
            if len(encoded) > max_text_bytes:
                _answer(output, {"too_large": len(encoded)})
            else:
                _answer(output, {"size": len(encoded), "pages": pages}, encoded)
        signal.alarm(0)
        del raw


if __name__ == "__main__":
    main()
