"""What the reader holds of a file while it works on it."""

from collections.abc import Sequence

from ingestor.core.model import UNKNOWN_STAT, Chunk, Content
from ingestor.engine.reading import Reader
from tests.doubles_folder import MemoryFolder

EVENTS: list[str] = []


class Raw(bytes):
    """Bytes whose end is seen."""

    __slots__ = ()

    def __del__(self) -> None:
        EVENTS.append("bytes let go")


class Folder(MemoryFolder):
    """One that keeps nothing of what it hands out."""

    def read(self, path: str) -> Content:
        return Content(UNKNOWN_STAT, Raw(path.encode()), "hash")


class Lines:
    """A cutter that notes when it is at work."""

    recipe = "lines"

    def cut(self, text: str, file_name: str, pages: Sequence[int] = ()) -> tuple[str, tuple[Chunk, ...]]:
        assert not pages
        EVENTS.append("cut")
        return file_name, (Chunk(text, 1, 1),)


def test_the_bytes_of_a_file_are_let_go_before_its_text_is_cut() -> None:
    EVENTS.clear()
    document = Reader(Folder(), lambda raw: raw.decode(), Lines()).read("a/b.md")
    assert EVENTS == ["bytes let go", "cut"]
    assert (document.title, document.content_hash, document.file_type) == ("b.md", "hash", "text/markdown")
    assert [chunk.text for chunk in document.chunks] == ["a/b.md"]
