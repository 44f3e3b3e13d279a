"""What a Chroma collection holds of one document, and what it holds besides; a part of the sink.

Invariant: only records of ours are deleted, and only those of the path that was named.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ingestor.adapters.chroma_faults import translation
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import Scalar
from ingestor.core.owning import Ours
from ingestor.ports import MAX_READ, Vector

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

SOURCE_KEY = "source"


@dataclass(frozen=True, slots=True)
class Trace:
    """A record, and whatever of it can be read."""

    id: str
    text: str
    metadata: dict[str, Scalar]
    vector: Vector | None


class ChromaTraces:
    """The records of the collection `name`; every method may raise `ServiceUnavailable`, `CollectionLost`."""

    def __init__(self, client: "ClientAPI", name: str) -> None:
        with translation(f"opening the collection {name!r}", ServiceUnavailable):
            self._collection = client.get_collection(name, embedding_function=None)
        self._ours = Ours.of(self._collection.metadata)

    def of_path(self, path: str) -> list[Trace]:
        """The records of ours that a document at this path has."""
        if any("\ud800" <= sign < "\ue000" for sign in path):
            return []  # Chroma holds no name that is no UTF-8
        with translation(f"looking for the records of {path!r}", ServiceUnavailable):
            ids = self._collection.get(where={SOURCE_KEY: path}, include=["metadatas"])["ids"]
        return [
            found
            for start in range(0, len(ids), MAX_READ)
            for found in self._read(ids[start : start + MAX_READ])
            if self._ours.has(found.id, found.metadata)
        ]

    def all_but(self, ids: Collection[str]) -> Iterator[Trace]:
        """Every other record; in pages, so that few are in memory at once."""
        with translation("listing the records", ServiceUnavailable):
            others = [id_ for id_ in self._collection.get(include=[])["ids"] if id_ not in ids]
        for start in range(0, len(others), MAX_READ):
            yield from self._read(others[start : start + MAX_READ])

    def delete(self, ids: Collection[str]) -> None:
        """Delete records."""
        listed = list(ids)
        for start in range(0, len(listed), MAX_READ):
            with translation("deleting records", ServiceUnavailable):
                self._collection.delete(ids=listed[start : start + MAX_READ])

    def _read(self, ids: list[str]) -> list[Trace]:
        with translation(f"reading {len(ids)} records", ServiceUnavailable):
            page = self._collection.get(ids=ids, include=["metadatas", "documents"])
        vectors = self._vectors(page["ids"])
        nothing = [None] * len(page["ids"])
        return [
            Trace(id_, text or "", dict(metadata or {}), vectors.get(id_))  # type: ignore[arg-type]  # lists are passed over
            for id_, text, metadata in zip(
                page["ids"], page["documents"] or nothing, page["metadatas"] or nothing, strict=True
            )
        ]

    def _vectors(self, ids: list[str]) -> dict[str, Vector]:
        """Vectors as the index has them; none of a call where it has lost one: those of the vector store do."""
        try:
            with translation(f"reading {len(ids)} vectors", ServiceUnavailable):
                page = self._collection.get(ids=ids, include=["embeddings"])
        except ServiceUnavailable:
            return {}
        held = page["embeddings"]
        return {} if held is None else dict(zip(page["ids"], np.asarray(held, dtype=np.float32), strict=False))
