"""Reading: from a path to a document, cut into chunks.

Invariant: the document is what the file held at one instant; nothing of it is left out.
"""

import mimetypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

import structlog

from ingestor.core.attaching import own_metadata
from ingestor.core.errors import IngestorError, UncuttableDocument
from ingestor.core.frontmatter import front_matter_of
from ingestor.core.grammars import Kind, kind_of
from ingestor.core.metadata import TITLE
from ingestor.core.model import Chunk, ChunkSize, Content, Document, Text
from ingestor.core.shortage import shortage
from ingestor.ports import Source

Decode = Callable[[bytes], str]
"""Bytes to text with "\\n" line ends; raises `UndecodableDocument`."""


class Cutter(Protocol):
    """Cuts text into chunks."""

    @property
    def recipe(self) -> str:
        """Fingerprint of everything that decides where chunks begin and end."""

    def cut(self, text: str, file_name: str) -> tuple[str, tuple[Chunk, ...]]:
        """Title and chunks of a text."""


_TEXT_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".toml": "application/toml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".log": "text/plain",
}
"""What the standard library does not know, or knows only on some machines."""


_log = structlog.get_logger(__name__)


class Reader:
    """Reads, decodes and cuts; runs on any thread. `sized` gives the cutter of a folder that has sizes of its own."""

    def __init__(
        self, source: Source, decode: Decode, cutter: Cutter, sized: Callable[[ChunkSize], Cutter] | None = None
    ) -> None:
        self._source = source
        self._decode = decode
        self._cutter = cutter
        self._sized = sized or (lambda _: cutter)
        self._types = mimetypes.MimeTypes()

    @property
    def cutting(self) -> str:
        """Fingerprint of the cutting recipe."""
        return self._cutter.recipe

    def read(self, path: str) -> Document:
        """Read and cut a document; raises `DocumentError` or `TransientError`."""
        return self.document_of(self.text_of(path))

    def text_of(self, path: str) -> Text:
        """Read a document, without cutting it; raises `DocumentError` or `TransientError`.

        The bytes of the file end with this call: to cut a text takes several times its size.
        """
        content = self._source.read(path)
        with _fault_told(path):
            return _with_own(path, content, self._decode(content.raw))

    def document_of(self, text: Text) -> Document:
        """Cut a text; raises `DocumentError` or `TransientError`."""
        name = PurePosixPath(text.path).name
        with _fault_told(text.path):
            cutter = self._cutter if text.size is None else self._sized(text.size)
            title, chunks = cutter.cut(text.text[text.begin :], name)
        if lines_above := text.text.count("\n", 0, text.begin):
            chunks = tuple(
                replace(each, start_line=each.start_line + lines_above, end_line=each.end_line + lines_above)
                for each in chunks
            )
        own = dict(text.metadata)
        return Document(
            path=text.path,
            stat=text.stat,
            content_hash=text.content_hash,
            file_type=self._file_type(name),
            title=str(own.pop(TITLE, title)),
            chunks=chunks,
            metadata=own,
        )

    def _file_type(self, name: str) -> str:
        suffix = PurePosixPath(name).suffix.lower()
        return _TEXT_TYPES.get(suffix) or self._types.guess_type(name)[0] or "text/plain"


def _with_own(path: str, content: Content, text: str) -> Text:
    """A text with what its front matter and what is attached to it say. Raises `UnusableMetadata`."""
    front = front_matter_of(text, path) if kind_of(PurePosixPath(path).name) is Kind.MARKDOWN else None
    return Text(
        path,
        content.stat,
        content.content_hash,
        text,
        metadata=own_metadata(content, path, front.layer if front else {}),
        size=content.attached.size,
        begin=front.end if front else 0,
    )


@contextmanager
def _fault_told(path: str) -> Iterator[None]:
    """Make a fault of ours, met in decoding or cutting, the document's; what the ports raise passes."""
    try:
        yield
    except (IngestorError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and (passing := shortage(error)) is not None:
            raise passing from error
        # A panic of the splitter is no Exception. Whatever it is, one file that hits a fault of ours must not end
        # the process at every start.
        _log.exception("document.uncuttable", path=path)
        message = f"it cannot be cut: {type(error).__name__}: {error}"
        raise UncuttableDocument(message, remedy="this is a fault of ingestor: please report it") from error
