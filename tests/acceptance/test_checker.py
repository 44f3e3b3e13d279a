"""The checker itself: it calls a right collection right, and finds every way of being wrong that it is there for."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.checker import Row, differences
from tests.daemon import Site, provider_settings
from tests.embedding_server import EmbeddingServer, vector_of

DIMENSIONS = 64


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (
        EmbeddingServer(dimensions=DIMENSIONS) as server,
        Site(tmp_path_factory.mktemp("checked"), provider_settings(server)) as site,
    ):
        for name in ("one", "two"):
            lines = [f"Line {number} of {name} is told here at some length.\n" for number in range(200)]
            (site.folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
        (site.folder / "one.txt.meta.json").write_text('{"own": 1}', encoding="utf-8")
        site.sync()
        yield site


@pytest.fixture(scope="module")
def right(site: Site) -> list[Row]:
    """The collection, sorted by file and place."""
    return sorted(site.at_rest(), key=lambda row: (row.source, int(row.metadata["chunk"])))


def with_metadata(row: Row, **changed: object) -> Row:
    return replace(row, metadata={**row.metadata, **changed})


def test_a_right_collection_has_no_differences_whatever_its_order(site: Site, right: list[Row]) -> None:
    assert len(right) > 6
    assert not differences(site.folder, right[::-1], dimensions=DIMENSIONS)


WRONG: dict[str, Callable[[list[Row]], list[Row]]] = {
    "nothing there": lambda rows: rows[:0],
    "one document missing": lambda rows: [row for row in rows if row.source != "two.txt"],
    "first chunk missing": lambda rows: rows[1:],
    "last chunk missing": lambda rows: rows[:-1],
    "a record twice": lambda rows: [*rows, rows[0]],
    "a chunk twice under another id": lambda rows: [*rows, replace(rows[0], id=f"{rows[0].id}:2")],
    "an orphan": lambda rows: [*rows, with_metadata(rows[0], source="gone.txt")],
    "two texts changed about": lambda rows: [
        replace(rows[0], text=rows[1].text),
        replace(rows[1], text=rows[0].text),
        *rows[2:],
    ],
    "two places changed about": lambda rows: [
        with_metadata(rows[0], chunk=1),
        with_metadata(rows[1], chunk=0),
        *rows[2:],
    ],
    "a text cut short": lambda rows: [replace(rows[0], text=rows[0].text[:-1]), *rows[1:]],
    "a word of another edition": lambda rows: [replace(rows[0], text=rows[0].text.replace("Line", "Lime")), *rows[1:]],
    "cut at another place": lambda rows: [
        replace(rows[0], text=f"{rows[0].text}\n{rows[1].text.splitlines()[0]}"),
        replace(rows[1], text="\n".join(rows[1].text.splitlines()[1:])),
        *rows[2:],
    ],
    "another text's vector": lambda rows: [
        replace(rows[0], embedding=tuple(float(number) for number in vector_of(rows[1].text, DIMENSIONS))),
        *rows[1:],
    ],
    "an old hash": lambda rows: [with_metadata(rows[0], content_hash="0" * 64), *rows[1:]],
    "an old size": lambda rows: [with_metadata(rows[0], file_size=1), *rows[1:]],
    "an old time": lambda rows: [with_metadata(rows[0], last_modified="2001-01-01T00:00:00+00:00"), *rows[1:]],
    "an old name": lambda rows: [with_metadata(rows[0], file_name="former.txt"), *rows[1:]],
    "metadata of one's own missing": lambda rows: [
        replace(rows[0], metadata={key: value for key, value in rows[0].metadata.items() if key != "own"}),
        *rows[1:],
    ],
    "metadata of one's own too many": lambda rows: [with_metadata(rows[0], other=1), *rows[1:]],
    "metadata of one's own of another type": lambda rows: [with_metadata(rows[0], own=True), *rows[1:]],
    "another title": lambda rows: [with_metadata(rows[0], title="two"), *rows[1:]],
    "lines of another chunk": lambda rows: [
        with_metadata(rows[0], start_line=rows[1].metadata["start_line"], end_line=rows[1].metadata["end_line"]),
        *rows[1:],
    ],
    "one document with two ids": lambda rows: [
        replace(with_metadata(rows[0], document_id="other"), id="other:1"),
        *rows[1:],
    ],
    "two documents with one id": lambda rows: [with_metadata(row, document_id=rows[0].document_id) for row in rows],
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_every_way_of_being_wrong_is_found(
    site: Site, right: list[Row], change: Callable[[list[Row]], list[Row]]
) -> None:
    assert differences(site.folder, change(right), dimensions=DIMENSIONS)


def test_a_file_that_came_changed_or_went_is_found(site: Site, right: list[Row]) -> None:
    one, new = site.folder / "one.txt", site.folder / "new.txt"
    text = one.read_text(encoding="utf-8")

    new.write_text("New.", encoding="utf-8")
    assert differences(site.folder, right)
    new.unlink()
    assert not differences(site.folder, right)
    one.write_text(text.replace("Line 7 ", "Line seven "), encoding="utf-8")
    assert differences(site.folder, right)
    one.unlink()
    assert differences(site.folder, right)
