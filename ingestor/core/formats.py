"""Formats of files that hold a text without being one: which they are, by file name and first bytes.

Invariant: what is no such format, or has its ending only, is a text like any other.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Format(StrEnum):
    """What a file has to be converted from; the values are those of `convert.formats`."""

    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"
    EPUB = "epub"
    HTML = "html"
    IPYNB = "ipynb"

    @property
    def is_text(self) -> bool:
        """Whether a file of it can be read by people as it is, and is indexed so where it is not converted."""
        return self in _TEXTS

    @property
    def file_type(self) -> str:
        """Its MIME type."""
        return _FILE_TYPES[self]

    def begins(self, raw: bytes) -> bool:
        """Whether bytes may be of this format: an ending lies at times."""
        if self is Format.PDF:
            return b"%PDF-" in raw[:_MAX_PDF_PREAMBLE_BYTES]
        return self.is_text or raw.startswith(_ZIP)


_TEXTS: Final = frozenset({Format.HTML, Format.IPYNB})
_ZIP: Final = b"PK\x03\x04"
_MAX_PDF_PREAMBLE_BYTES: Final = 1024
"""Readers look for the mark of a PDF so far: ISO 32000 lets junk go before it."""
_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_FILE_TYPES: Final = {
    Format.PDF: "application/pdf",
    Format.DOCX: f"{_OFFICE}.wordprocessingml.document",
    Format.PPTX: f"{_OFFICE}.presentationml.presentation",
    Format.XLSX: f"{_OFFICE}.spreadsheetml.sheet",
    Format.EPUB: "application/epub+zip",
    Format.HTML: "text/html",
    Format.IPYNB: "application/x-ipynb+json",
}
_ENDINGS: Final = {each.value: each for each in Format} | {"htm": Format.HTML, "xhtml": Format.HTML}
_LAST_LETTERS: Final = frozenset("".join(ending[-1] + ending[-1].upper() for ending in _ENDINGS))


def format_of(path: str) -> Format | None:
    """The format that the name of a file tells; None for a text."""
    _, dot, ending = path.rpartition(".")
    return _ENDINGS.get(ending.lower()) if dot else None


def formats_of(paths: Iterable[str]) -> dict[str, Format]:
    """The formats of those of very many paths that have one: to look at a last letter takes a sixth of the time."""
    return {path: format_ for path in paths if path[-1] in _LAST_LETTERS and (format_ := format_of(path)) is not None}
