"""The records of any Chroma collection, as people read and write them by hand.

Invariant: a write names every record that it touches by its id, so that it changes none that the caller has not seen.
Nothing here knows which records belong to files: who writes has to ask that first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ingestor.adapters.chroma_faults import translation
from ingestor.adapters.chroma_function import keep_from_building
from ingestor.core.errors import ConfigError, RejectedByChroma, ServiceUnavailable
from ingestor.core.handmade import HandMade
from ingestor.core.records import PARTS, Selection, StoredRecord
from ingestor.ports import MAX_GROUP_RECORDS, MAX_READ

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.types import GetResult

_DIMENSIONS_KEY = "embedding_dimensions"


class ChromaRecords:
    """The records of one collection; every method may raise `ServiceUnavailable`, `CollectionLost`."""

    def __init__(self, client: "ClientAPI", name: str) -> None:
        self._client = client
        with translation(f"opening the collection {name!r}", ServiceUnavailable):
            self._collection = client.get_collection(name, embedding_function=None)
        keep_from_building(self._collection)

    def count(self) -> int:
        """How many records there are."""
        with translation("counting", ServiceUnavailable):
            return int(self._collection.count())

    def get(
        self, selection: Selection, parts: Sequence[str] = PARTS[:2], limit: int | None = None, offset: int = 0
    ) -> list[StoredRecord]:
        """The records of a selection, in Chroma's order; `parts` are some of `PARTS`.

        Raises `ConfigError` with Chroma's own words for a filter that it refuses.
        """
        with translation("reading records", ConfigError):
            page = self._collection.get(
                ids=list(selection.ids) or None,
                where=dict(selection.where) if selection.where is not None else None,
                where_document=dict(selection.where_document) if selection.where_document is not None else None,  # type: ignore[arg-type]  # refused by Chroma where it does not fit
                limit=limit,
                offset=offset or None,
                include=list(parts),  # type: ignore[arg-type]  # the words are the same
            )
        return list(_rows(page))

    def held(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The metadata of those of the records that there are, by id."""
        found: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(ids), MAX_READ):
            for record in self.get(Selection(ids[start : start + MAX_READ]), ["metadatas"]):
                found[record.id] = record.metadata or {}
        return found

    def note_dimensions(self, dimensions: int) -> None:
        """Note the length of vectors in a collection made for a model whose length nobody knew."""
        if (self._collection.metadata or {}).get(_DIMENSIONS_KEY) != 0:
            return
        with translation("noting the dimensions", ServiceUnavailable):
            # Chroma replaces metadata as a whole, and a daemon may have changed it since the collection was opened.
            held = dict(self._client.get_collection(self._collection.name, embedding_function=None).metadata or {})
            self._collection.modify(metadata=held | {_DIMENSIONS_KEY: dimensions})

    def put(self, records: Sequence[HandMade], *, replaces: bool) -> None:
        """Write records, each with a vector; `replaces` those that exist, which otherwise stay as they are.

        Metadata of a record that is replaced is merged, as Chroma does it. Raises `RejectedByChroma`.
        """
        write = self._collection.upsert if replaces else self._collection.add
        for start in range(0, len(records), MAX_GROUP_RECORDS):
            batch = records[start : start + MAX_GROUP_RECORDS]
            with translation(f"writing {len(batch)} records", RejectedByChroma):
                for part in _alike(batch):
                    write(
                        ids=[record.id for record in part],
                        embeddings=np.stack([record.vector for record in part if record.vector is not None]),
                        metadatas=_metadatas(part),
                        documents=_documents(part),
                    )

    def update(self, records: Sequence[HandMade]) -> None:
        """Change of records that exist what is given: text with its vector, vector, keys of the metadata.

        Raises `RejectedByChroma`.
        """
        for start in range(0, len(records), MAX_GROUP_RECORDS):
            batch = records[start : start + MAX_GROUP_RECORDS]
            with translation(f"changing {len(batch)} records", RejectedByChroma):
                for part in _alike(batch):
                    vectors = [record.vector for record in part if record.vector is not None]
                    self._collection.update(
                        ids=[record.id for record in part],
                        embeddings=np.stack(vectors) if vectors else None,
                        metadatas=_metadatas(part),
                        documents=_documents(part),
                    )

    def delete(self, ids: Sequence[str]) -> None:
        """Delete records; one that is gone already is no error."""
        for start in range(0, len(ids), MAX_GROUP_RECORDS):
            batch = list(ids[start : start + MAX_GROUP_RECORDS])
            with translation(f"deleting {len(batch)} records", RejectedByChroma):
                self._collection.delete(ids=batch)


def _rows(page: "GetResult") -> Iterator[StoredRecord]:
    nothing = [None] * len(page["ids"])
    embeddings = page["embeddings"]
    vectors = nothing if embeddings is None else np.asarray(embeddings, dtype=np.float32)
    for identity, document, metadata, vector, uri in zip(
        page["ids"],
        page["documents"] or nothing,
        page["metadatas"] or nothing,
        vectors,
        page["uris"] or nothing,
        strict=True,
    ):
        yield StoredRecord(identity, document, metadata, vector, uri)


def _alike(batch: Sequence[HandMade]) -> Iterator[list[HandMade]]:
    """Records that have the same parts: a call of Chroma gives a part to each of its records, or to none."""
    kinds: dict[tuple[bool, ...], list[HandMade]] = {}
    for record in batch:
        kind = (record.text is None, not record.metadata, record.vector is None)
        kinds.setdefault(kind, []).append(record)
    yield from kinds.values()


def _metadatas(part: Sequence[HandMade]) -> "list[Any] | None":
    return [dict(record.metadata or {}) for record in part] if part[0].metadata else None


def _documents(part: Sequence[HandMade]) -> list[str] | None:
    return [record.text or "" for record in part] if part[0].text is not None else None
