"""A fresh collection, filled with the records of another as they are; a part of the sink.

Invariant: the copy has the index, the embedding function and the metadata of the collection that it is made from, and
of each record that was taken the id, text, URI, metadata and vector, those of others included. The collection that it
is made from is never written to. A copy that was begun and not put to use is deleted by the next one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ingestor.adapters.chroma_faults import finds_no_id, translation
from ingestor.adapters.chroma_function import keep_from_building, stand_in
from ingestor.core.asking import Function
from ingestor.core.errors import ConfigError, RejectedByChroma, ServiceUnavailable
from ingestor.core.owning import Ours
from ingestor.ports import Vector

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection as Held
    from chromadb.api.types import GetResult

_TOLERANCE = 1e-5
"""Chroma scales a vector to the length of one, and the copy of it once more."""

VectorsOf = Callable[[Mapping[str, str]], Mapping[str, Vector]]
"""From texts by record id to those of their vectors, by record id, that are known without asking a model."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A record as Chroma tells of it; None for what it has not."""

    text: str | None
    metadata: Mapping[str, Any] | None
    uri: str | None
    vector: Vector | None

    def is_same_but_for_metadata(self, other: "_Row") -> bool:
        return (
            (self.text, self.uri) == (other.text, other.uri)
            and self.vector is not None
            and other.vector is not None
            and np.allclose(self.vector, other.vector, rtol=_TOLERANCE, atol=_TOLERANCE)
        )


class ChromaCopy:
    """Copies the collection `name` into `copy_name`. Use from one thread, that of the client."""

    def __init__(self, client: "ClientAPI", name: str, copy_name: str, vectors_of: VectorsOf) -> None:
        self._client = client
        self._name = name
        self._copy_name = copy_name
        self._vectors_of = vectors_of
        self._source: Held | None = None
        self._copy: Held | None = None
        self._taken: set[str] = set()
        self.tombstones = 0
        """Records that were taken and deleted again, because they had changed."""

    @property
    def source_id(self) -> str:
        """Chroma's id of the collection that is copied; after `begin`."""
        return str(_begun(self._source).id)

    @property
    def copy_id(self) -> str:
        """Chroma's id of the copy; after `begin`."""
        return str(_begun(self._copy).id)

    def begin(self) -> list[str]:
        """Make the copy, empty, and list the ids of the records there are to take."""
        with translation(f"looking for the collection {self._name!r}", ServiceUnavailable):
            source = self._client.get_collection(self._name, embedding_function=None)
        keep_from_building(source)
        with translation(f"making the collection {self._copy_name!r}", ConfigError):
            for found in self._client.list_collections():
                if found.name == self._copy_name:
                    self._client.delete_collection(self._copy_name)
            self._copy = self._client.create_collection(
                self._copy_name,
                configuration=_configuration(source.configuration_json),  # type: ignore[arg-type]  # a plain dictionary
                metadata=dict(source.metadata) if source.metadata else None,
                embedding_function=None,
            )
        self._source = source
        self._taken = set()
        self.tombstones = 0
        return self._ids(source)

    def take(self, ids: Sequence[str]) -> set[str]:
        """Let the copy hold these records as they are now, or no longer; returns the ids of those that are not ours.

        Raises `ServiceUnavailable`, also when a vector is lost in the index and nowhere else to be had.
        """
        source, copy = _begun(self._source), _begun(self._copy)
        if not ids:
            return set()
        rows = _rows(source, ids)
        again = [id_ for id_ in ids if id_ in self._taken]
        copied = _rows(copy, again) if again else {}
        retagged = {
            id_: row.metadata
            for id_, row in copied.items()
            if id_ in rows and rows[id_].is_same_but_for_metadata(row) and not _has_list(row.metadata)
        }
        gone = [id_ for id_ in again if id_ not in retagged]
        if gone:
            with translation(f"deleting {len(gone)} records", ServiceUnavailable):
                copy.delete(ids=gone)
            self._taken.difference_update(gone)
            self.tombstones += len(gone)
        self._retag(copy, retagged, rows)
        fresh = {id_: row for id_, row in rows.items() if id_ not in retagged}
        self._add(copy, self._with_vectors(fresh))
        self._taken.update(fresh)
        ours = Ours.of(source.metadata)
        return {id_ for id_, row in rows.items() if not ours.has(id_, row.metadata)}

    def differences(self) -> set[str]:
        """Ids that only one of both collections holds."""
        return set(self._ids(_begun(self._source))) ^ set(self._ids(_begun(self._copy)))

    @staticmethod
    def _ids(collection: "Held") -> list[str]:
        with translation("listing the records", ServiceUnavailable):
            return list(collection.get(include=[])["ids"])

    @staticmethod
    def _retag(copy: "Held", held: Mapping[str, Mapping[str, Any] | None], rows: Mapping[str, _Row]) -> None:
        changes = {}
        for id_, before in held.items():
            old, new = dict(before or {}), dict(rows[id_].metadata or {})
            if old != new:
                changes[id_] = dict.fromkeys(old.keys() - new.keys()) | new
        if changes:
            with translation(f"changing the metadata of {len(changes)} records", ServiceUnavailable):
                copy.update(ids=list(changes), metadatas=list(changes.values()))

    def _with_vectors(self, rows: Mapping[str, _Row]) -> dict[str, tuple[_Row, Vector]]:
        lost = {id_: row.text or "" for id_, row in rows.items() if row.vector is None}
        paid = self._vectors_of(lost) if lost else {}
        if missing := lost.keys() - paid.keys():
            raise ServiceUnavailable(
                f"Chroma has lost the vectors of {len(missing)} records of the collection {self._name!r}",
                remedy="run `ingestor verify --repair` first",
            )
        return {id_: (row, paid[id_] if row.vector is None else row.vector) for id_, row in rows.items()}

    def _add(self, copy: "Held", rows: Mapping[str, tuple[_Row, Vector]]) -> None:
        """Add records; in halves where they are too large for one call."""
        if not rows:
            return
        ids = list(rows)
        try:
            with translation(f"copying {len(ids)} records", RejectedByChroma):
                uris = [row.uri for row, _ in rows.values()]
                copy.add(
                    ids=ids,
                    embeddings=np.stack([vector for _, vector in rows.values()]),
                    metadatas=[dict(row.metadata) if row.metadata else None for row, _ in rows.values()],  # type: ignore[misc]  # records of others may have none
                    documents=[row.text for row, _ in rows.values()],  # type: ignore[misc]  # as above
                    uris=uris if any(uri is not None for uri in uris) else None,  # type: ignore[arg-type]  # as above
                )
        except RejectedByChroma:
            if len(ids) == 1:
                raise
            for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                self._add(copy, {id_: rows[id_] for id_ in half})


def _begun(collection: "Held | None") -> "Held":
    if collection is None:
        raise RuntimeError("the copy was not begun")
    return collection


def _configuration(told: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a collection with the same configuration; what is not set is left to the server."""
    made: dict[str, Any] = {
        kind: {name: value for name, value in told[kind].items() if value is not None}
        for kind in ("hnsw", "spann")
        if told.get(kind)
    }
    function = told.get("embedding_function") or {}
    if function.get("name"):
        made["embedding_function"] = stand_in(Function(function["name"], function.get("config") or {}))
    return made


def _rows(collection: "Held", ids: Sequence[str]) -> dict[str, _Row]:
    """The records of these ids that exist; where the index has lost vectors, those come without."""
    with translation(f"reading {len(ids)} records", ServiceUnavailable):
        page = collection.get(ids=list(ids), include=["metadatas", "documents", "uris"])
    vectors = _vectors(collection, page["ids"])
    nothing = [None] * len(page["ids"])
    return {
        id_: _Row(text, metadata, uri, vectors.get(id_))
        for id_, text, metadata, uri in zip(
            page["ids"],
            page["documents"] or nothing,
            page["metadatas"] or nothing,
            page["uris"] or nothing,
            strict=True,
        )
    }


def _vectors(collection: "Held", ids: Sequence[str]) -> dict[str, Vector]:
    """The vectors that can be read: where one is lost, Chroma reads none of a call, so that halves are asked for."""
    if not ids:
        return {}
    page: GetResult | None = None
    with translation(f"reading {len(ids)} vectors", ServiceUnavailable):
        try:
            page = collection.get(ids=list(ids), include=["embeddings"])
        except Exception as error:
            if not finds_no_id(error):
                raise
    embeddings = None if page is None else page["embeddings"]
    if page is not None and embeddings is not None and len(embeddings) == len(page["ids"]):
        return dict(zip(page["ids"], np.asarray(embeddings, dtype=np.float32), strict=True))
    if len(ids) == 1:
        return {}
    return _vectors(collection, ids[: len(ids) // 2]) | _vectors(collection, ids[len(ids) // 2 :])


def _has_list(metadata: Mapping[str, Any] | None) -> bool:
    return any(isinstance(value, Collection) and not isinstance(value, str) for value in (metadata or {}).values())
