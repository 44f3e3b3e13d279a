"""Searches of a real Chroma, whose index and database may disagree for a moment."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_sink import ChromaSink, HnswConfig, open_sink
from ingestor.core.errors import ChromaUnavailable
from ingestor.core.model import Recipe, Record

if TYPE_CHECKING:
    from chromadb.api.types import QueryResult

NEAR = np.array([1, 0, 0], dtype=np.float32)


class Stumbling:
    """Chroma's own collection, whose searches ask for an id that there is not, as often as told."""

    def __init__(self, sink: ChromaSink, monkeypatch: pytest.MonkeyPatch) -> None:
        self._query = sink._collection.query
        self.stumbles = 0
        monkeypatch.setattr(sink._collection, "query", self.query)

    def query(self, **question: Any) -> "QueryResult":  # noqa: ANN401 - what Chroma's own takes
        if self.stumbles:
            self.stumbles -= 1
            question |= {"ids": ["nobody"]}
        return self._query(**question)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[ChromaSink]:
    client = connect("persistent", path=tmp_path)
    try:
        sink = open_sink(client, "documents", Recipe("test", "letters", 3), HnswConfig(), fingerprint="f")
        sink.add([Record("a:1", "A text.", {"source": "a.txt"}, "t")], NEAR[np.newaxis, :])
        yield sink
    finally:
        disconnect(client)


def test_a_search_that_finds_what_is_deleted_just_now_is_put_again(
    sink: ChromaSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    chroma = Stumbling(sink, monkeypatch)
    chroma.stumbles = 2
    assert [hit.id for hit in sink.search(NEAR, 1, None, None)] == ["a:1"]
    chroma.stumbles = 2
    assert sink.unreachable(["a:1"], NEAR[np.newaxis, :]) == []


def test_an_index_that_has_lost_a_record_is_told_of_in_the_end(
    sink: ChromaSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    chroma = Stumbling(sink, monkeypatch)
    chroma.stumbles = 100
    with pytest.raises(ChromaUnavailable, match="Error finding id"):
        sink.search(NEAR, 1, None, None)
    assert chroma.stumbles == 97
