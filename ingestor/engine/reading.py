"""Reading: from a path to a document, cut into chunks.

Invariant: the document is what the file held at one instant; nothing of it is left out.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

import structlog

from ingestor.core.attaching import own_metadata
from ingestor.core.errors import IngestorError, UnconvertibleDocument, UncuttableDocument
from ingestor.core.formats import Format, format_of
from ingestor.core.frontmatter import front_matter_of
from ingestor.core.grammars import Kind, kind_of
from ingestor.core.metadata import TITLE
from ingestor.core.model import Chunk, ChunkSize, Content, Converted, Document, Text
from ingestor.core.shortage import shortage
from ingestor.engine.file_types import file_type_of
from ingestor.ports import Source

Decode = Callable[[bytes], str]
"""Bytes to text with "\\n" line ends; raises `UndecodableDocument`."""


class Cutter(Protocol):
    """Cuts text into chunks."""

    @property
    def recipe(self) -> str:
        """Fingerprint of everything that decides where chunks begin and end."""

    def cut(self, text: str, file_name: str, pages: Sequence[int] = ()) -> tuple[str, tuple[Chunk, ...]]:
        """Title and chunks of a text; none holds parts of two of the pages, which begin with these lines, from 1."""


class Conversion(Protocol):
    """Makes text of other formats; thread-safe."""

    @property
    def formats(self) -> frozenset[Format]:
        """What is converted."""

    @property
    def max_children(self) -> int:
        """How many files are converted at once; a further one waits."""

    def convert(self, raw: bytes, format_: Format) -> Converted:
        """The text of a file; HTML and notebooks are given in UTF-8. Raises `DocumentError` or `TransientError`."""

    def close(self) -> None:
        """End what runs. May be called twice."""


_log = structlog.get_logger(__name__)


class Reader:
    """Reads, decodes, converts and cuts; runs on any thread. Without a `conversion` only what is text can be read.

    `sized` gives the cutter of a folder that has sizes of its own.
    """

    def __init__(
        self,
        source: Source,
        decode: Decode,
        cutter: Cutter,
        sized: Callable[[ChunkSize], Cutter] | None = None,
        *,
        conversion: Conversion | None = None,
    ) -> None:
        self._source = source
        self._decode = decode
        self._cutter = cutter
        self._sized = sized or (lambda _: cutter)
        self._conversion = conversion

    @property
    def cutting(self) -> str:
        """Fingerprint of the cutting recipe."""
        return self._cutter.recipe

    @property
    def max_conversions(self) -> int:
        """How many files are converted at once."""
        return self._conversion.max_children if self._conversion else 1

    def converts(self, path: str) -> bool:
        """Whether a file is to be converted, which may take long."""
        return self._conversion is not None and format_of(path) in self._conversion.formats

    def lacks(self, path: str) -> bool:
        """Whether a file would have to be converted, and nothing here can."""
        format_ = format_of(path)
        return format_ is not None and not format_.is_text and not self.converts(path)

    def close(self) -> None:
        """End conversions that run."""
        if self._conversion is not None:
            self._conversion.close()

    def read(self, path: str) -> Document:
        """Read and cut a document; raises `DocumentError` or `TransientError`."""
        return self.document_of(self.text_of(path))

    def text_of(self, path: str) -> Text:
        """Read a document, without cutting it; raises `DocumentError` or `TransientError`.

        The bytes of the file end with this call: to cut a text takes several times its size.
        """
        content = self._source.read(path)
        with _fault_told(path):
            format_ = format_of(path) if self.converts(path) else None
            if self._conversion is None or format_ is None or not format_.begins(content.raw):
                return _text(path, content, self._decode(content.raw))
            if not format_.is_text:
                converted = self._conversion.convert(content.raw, format_)
                return _text(path, content, converted.text, format_, converted.pages)
            source = self._decode(content.raw)
            try:
                return _text(path, content, self._conversion.convert(source.encode(), format_).text, format_)
            except UnconvertibleDocument as error:
                # It is text all the same, and is indexed as where nothing converts it.
                _log.info("document.taken_as_text", path=path, reason=str(error))
                return _text(path, content, source)

    def document_of(self, text: Text) -> Document:
        """Cut a text; raises `DocumentError` or `TransientError`."""
        name = PurePosixPath(text.path).name
        with _fault_told(text.path):
            cutter = self._cutter if text.size is None else self._sized(text.size)
            kind = name if text.converted_from is None else f"{PurePosixPath(name).stem}.md"
            title, chunks = cutter.cut(text.text[text.begin :], kind, text.pages)
        if lines_above := text.text.count("\n", 0, text.begin):
            chunks = tuple(
                replace(each, start_line=each.start_line + lines_above, end_line=each.end_line + lines_above)
                for each in chunks
            )
        if text.pages:
            chunks = tuple(replace(each, page=bisect_right(text.pages, each.start_line)) for each in chunks)
        own = dict(text.metadata)
        return Document(
            path=text.path,
            stat=text.stat,
            content_hash=text.content_hash,
            file_type=text.converted_from.file_type if text.converted_from else file_type_of(name),
            title=str(own.pop(TITLE, title)),
            chunks=chunks,
            metadata=own,
        )


def _text(
    path: str, content: Content, text: str, converted_from: Format | None = None, pages: tuple[int, ...] = ()
) -> Text:
    """A text with what its front matter and what is attached to it say. Raises `UnusableMetadata`."""
    is_markdown = converted_from is None and kind_of(PurePosixPath(path).name) is Kind.MARKDOWN
    front = front_matter_of(text, path) if is_markdown else None
    return Text(
        path,
        content.stat,
        content.content_hash,
        text,
        metadata=own_metadata(content, path, front.layer if front else {}),
        size=content.attached.size,
        begin=front.end if front else 0,
        converted_from=converted_from,
        pages=pages,
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
