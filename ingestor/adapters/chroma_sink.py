"""A Chroma collection as the sink of records.

Invariant: a collection is written only by one recipe (provider, model, dimensions, document prefix) and one distance;
both are in its metadata and configuration, and `open_sink` refuses a collection that names others, or that is not ours.
Records are written with our vectors only; the embedding function that the collection names is for who asks by text.

Batches stay at or below 500 records and 16 MB, because Chroma refuses bodies over 40 MiB and slows down long before.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ingestor.adapters.chroma_faults import finds_no_id, translation
from ingestor.adapters.chroma_function import keep_from_building, name_function, stand_in
from ingestor.adapters.chroma_hold import Hold
from ingestor.core.asking import Function
from ingestor.core.auditing import Held
from ingestor.core.errors import (
    CollectionLost,
    ConfigError,
    RecipeMismatch,
    RejectedByChroma,
    ServiceUnavailable,
)
from ingestor.core.fingerprint import UNTAGGED
from ingestor.core.model import Hit, Recipe, Record, Retag, Scalar
from ingestor.core.owning import BEAT_KEY, Ours
from ingestor.ports import MAX_GROUP_RECORDS, Vector, Vectors

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from chromadb.api.types import GetResult, QueryResult

RECIPE_KEY = "ingestor_recipe"
"""The key of a collection's metadata that makes it ours."""
_MAX_BATCH_RECORDS = MAX_GROUP_RECORDS
"""A group of documents is one call: 100 records a call take a third more of Chroma's time."""
_MAX_BATCH_BYTES = 16_000_000
_RECORD_BYTES = 1_000
"""What a record takes of a call's body besides its text, words and vector."""
_MAX_BATCH_QUERIES = 100
_TRIES = 3
"""Of a search that has found a record which was deleted at that moment."""
_FEW = 25
_NEAREST = 10
"""Among how many hits a record has to be when its own vector is searched for."""
_SAME_DISTANCE = 1e-4
"""Distances that differ by less are the same: they are computed in 32 bits."""
_SPACES = ("cosine", "l2", "ip")

Space = Literal["cosine", "l2", "ip"]


@dataclass(frozen=True, slots=True)
class HnswConfig:
    """The index of a new collection. Raises `ConfigError` for numbers that Chroma would take and suffer from.

    `space`, `ef_construction` and `max_neighbors` are settled when the collection is made; `ef_search` and
    `sync_threshold` follow the settings. `num_threads` is accepted, and ignored by every Chroma but a distributed one.
    """

    space: Space = "cosine"
    ef_construction: int = 64
    ef_search: int = 100
    max_neighbors: int = 32
    """Of 2,000 among 60,000 records whose vectors are much alike (a cosine of 0.8), a search by its own vector did not
    find 116 with Chroma's own 16 links and an `ef_construction` of 100, 28 with 24, 12 with 32. To build these took a
    third longer; with an `ef_construction` of 64 it took 7 % longer, and 17 were not found.
    """
    sync_threshold: int = 100
    """After how many written rows the graph goes to the disk. Until then each call applies all rows before it again.

    A lone record takes half the time that it takes with 500, one in a call of 128 an eighth less, in a call of 500 the
    same.
    """
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.space not in _SPACES:
            raise ConfigError(
                f"there is no distance {self.space!r}",
                remedy=f"set INGESTOR_CHROMA__HNSW__SPACE to one of {', '.join(_SPACES)}",
            )
        lowest = {"ef_construction": 1, "ef_search": 1, "max_neighbors": 2, "sync_threshold": 2, "num_threads": 1}
        for name, least in lowest.items():
            number = getattr(self, name)
            if number is not None and number < least:
                raise ConfigError(
                    f"{name} is {number}, and has to be at least {least}",
                    remedy=f"set INGESTOR_CHROMA__HNSW__{name.upper()}",
                )

    def as_configuration(self) -> dict[str, Any]:
        """What `create_collection` takes."""
        names = ("space", "ef_construction", "ef_search", "max_neighbors", "sync_threshold", "num_threads")
        return {"hnsw": {name: getattr(self, name) for name in names if getattr(self, name) is not None}}


class ChromaSink:
    """The contract of `ports.Sink` over one open collection; made by `open_sink`.

    Scores are 1 - distance for "cosine" (the cosine) and "ip" (the inner product, so not bounded by 1), and
    1 / (1 + distance) for "l2", where Chroma's distance is the squared one.
    """

    def __init__(  # noqa: PLR0913 - what was found out when the collection was opened
        self,
        client: "ClientAPI",
        collection: "Collection",
        metadata: Mapping[str, Scalar],
        space: str,
        unapplied: Sequence[str] = (),
        *,
        hold: Hold | None = None,
    ) -> None:
        self._client = client
        self._collection = collection
        self._metadata = dict(metadata)
        self._space = space
        self._hold = hold
        self.unapplied = tuple(unapplied)
        """Sentences on settings that this collection was not made with and cannot take any more."""

    @property
    def collection_id(self) -> str:
        """Chroma's own id."""
        return str(self._collection.id)

    @property
    def ours(self) -> Ours:
        """See `ports.Sink.ours`."""
        return Ours.of(self._metadata)

    @property
    def client(self) -> "ClientAPI":
        """What it was opened with, for what concerns collections as a whole."""
        return self._client

    @property
    def metadata(self) -> Mapping[str, Scalar]:
        """That of the collection itself, as it was when it was opened."""
        return self._metadata

    @property
    def dimensions(self) -> int:
        """Length of the vectors; 0 until the first add of a model that does not say."""
        return int(self._metadata["embedding_dimensions"])

    def add(self, records: Sequence[Record], vectors: Vectors | Sequence[Vector]) -> None:
        """Write new records; one that exists stays as it is. `vectors` are of shape (records, dimensions).

        A call of more than one batch may have written the first ones when it fails. Raises `RecipeMismatch` for
        vectors of another length, `RejectedByChroma`, `ServiceUnavailable`; `ValueError` for ids that are not unique
        or vectors that do not fit the records.
        """
        ids = _unique(record.id for record in records)
        if not ids:
            return
        dimensions = len(vectors[0]) if len(vectors) else 0
        if len(vectors) != len(ids) or any(vector.shape != (dimensions,) for vector in vectors):
            raise ValueError(f"{len(ids)} records with {len(vectors)} vectors, of different shapes or too few")
        self._settle_dimensions(dimensions)
        sizes = [_body_bytes(record.metadata, record.text, dimensions) for record in records]
        for start, stop in _bounds(sizes):
            with translation(f"adding {stop - start} records", RejectedByChroma):
                self._collection.add(
                    ids=ids[start:stop],
                    # Stacked by the batch: those of a large document would be in memory twice.
                    embeddings=np.asarray(vectors[start:stop], dtype=np.float32),
                    # A record of somebody else's may have none, and Chroma refuses what is empty.
                    metadatas=[dict(record.metadata) or None for record in records[start:stop]],  # type: ignore[misc]  # it takes None
                    documents=[record.text for record in records[start:stop]],
                )

    def retag(self, retags: Sequence[Retag]) -> None:
        """Replace the metadata of records that exist, as the contract says.

        Chroma merges, and loses a key only when it is told None for it; so what is there is read first, unless the
        retag says what has changed. Only what differs is sent: each key costs as much as a record by itself.
        """
        _unique(retag.id for retag in retags)
        for start, stop in _bounds([_body_bytes(retag.metadata) for retag in retags]):
            batch = retags[start:stop]
            with translation(f"changing the metadata of {len(batch)} records", RejectedByChroma):
                held = self._metadata_of([retag.id for retag in batch if retag.is_whole])
                changes = {
                    retag.id: _difference(held[retag.id], retag.metadata) if retag.is_whole else dict(retag.metadata)
                    for retag in batch
                    if not retag.is_whole or retag.id in held
                }
                differing = {identity: change for identity, change in changes.items() if change}
                if differing:
                    self._collection.update(ids=list(differing), metadatas=list(differing.values()))

    def drop(self, ids: Sequence[str]) -> None:
        """Delete records; an id that does not exist is ignored."""
        unique = _unique(ids)
        for start in range(0, len(unique), _MAX_BATCH_RECORDS):
            batch = unique[start : start + _MAX_BATCH_RECORDS]
            with translation(f"deleting {len(batch)} records", RejectedByChroma):
                self._collection.delete(ids=batch)

    def search(
        self,
        vector: Vector,
        limit: int,
        where: Mapping[str, Any] | None,
        where_document: Mapping[str, Any] | None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The nearest records, best first; `vector` has shape (dimensions,). Foreign records are found as well.

        `ids` are those to search among, all of which have to exist. Raises `ConfigError` with Chroma's own words for a
        filter that it refuses, `RecipeMismatch` for a vector of another length, `ServiceUnavailable`; `ValueError` for
        a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}")
        with translation("searching", ConfigError):
            found = self._nearest(
                query_embeddings=np.asarray(vector, dtype=np.float32)[np.newaxis, :],
                n_results=limit,
                ids=list(ids) if ids is not None else None,
                where=dict(where) if where is not None else None,
                where_document=dict(where_document) if where_document is not None else None,
                include=["documents", "metadatas", "distances"],
            )
        distances, documents, metadatas = found["distances"], found["documents"], found["metadatas"]
        if distances is None or documents is None or metadatas is None:
            raise ServiceUnavailable("Chroma answers a search without what was asked for")
        return [
            Hit(identity, self._score(distance), distance, document or "", _scalars(metadata))
            for identity, distance, document, metadata in zip(
                found["ids"][0], distances[0], documents[0], metadatas[0], strict=True
            )
        ]

    def count(self) -> int:
        """How many records the collection holds, foreign ones included."""
        with translation("counting", ServiceUnavailable):
            return int(self._collection.count())

    def ids(self) -> list[str]:
        """The id of every record, foreign ones included, in one call: pages would shift under a writer."""
        with translation("listing the records", ServiceUnavailable):
            return list(self._collection.get(include=[])["ids"])

    def page(self, offset: int, limit: int) -> dict[str, Mapping[str, Any]]:
        """See `ports.Sink.page`."""
        with translation("looking at some records", ServiceUnavailable):
            found = self._collection.get(limit=limit, offset=offset, include=["metadatas"])
        nothing = [None] * len(found["ids"])
        return {
            id_: dict(metadata or {}) for id_, metadata in zip(found["ids"], found["metadatas"] or nothing, strict=True)
        }

    def read(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Held]:
        """The records of these ids that exist, at most `MAX_READ`.

        Where the index has lost vectors, Chroma reads none of a call that names one of them. So such a call is made
        again in parts, and the records of a part that fails come without their vectors.
        """
        unique = _unique(ids)
        if not unique:
            return []
        with translation(f"reading {len(unique)} records", ServiceUnavailable):
            page = self._page(unique, with_vectors=with_vectors)
            if page is None and len(unique) > _FEW:
                parts = [unique[start : start + _FEW] for start in range(0, len(unique), _FEW)]
                return [held for part in parts for held in self.read(part, with_vectors=True)]
            page = page or self._collection.get(ids=unique, include=["metadatas", "documents"])
        nothing = [None] * len(page["ids"])
        vectors = nothing if page["embeddings"] is None else np.asarray(page["embeddings"], dtype=np.float32)
        return [
            Held(identity, document or "", dict(metadata or {}), vector)
            for identity, document, metadata, vector in zip(
                page["ids"], page["documents"] or nothing, page["metadatas"] or nothing, vectors, strict=True
            )
        ]

    def unreachable(self, ids: Sequence[str], vectors: Vectors) -> list[str]:
        """Those of the records that a search for their own vector, shape (records, dimensions), does not find.

        A record that is not among the nearest ones, all of which are as near as it is itself, counts as found: copies
        of a text have the same vector.
        """
        rows = np.asarray(vectors, dtype=np.float32)
        lost: list[str] = []
        for start in range(0, len(ids), _MAX_BATCH_QUERIES):
            page, asked = ids[start : start + _MAX_BATCH_QUERIES], rows[start : start + _MAX_BATCH_QUERIES]
            with translation(f"searching for {len(page)} records", ServiceUnavailable):
                found = self._nearest(query_embeddings=asked, n_results=_NEAREST, include=["distances"])
            distances = found["distances"]
            if distances is None:
                raise ServiceUnavailable("Chroma answers a search without what was asked for")
            for identity, own, near, far in zip(page, self._own_distances(asked), found["ids"], distances, strict=True):
                is_crowded_out = len(near) == _NEAREST and far[-1] <= own + _SAME_DISTANCE * (1 + abs(own))
                if identity not in near and not is_crowded_out:
                    lost.append(identity)
        return lost

    def confirm(self) -> None:
        """Raise `CollectionLost` when somebody has renamed the collection, or made another one of its name.

        Raises `ForeignCollection` when somebody else has taken it over.
        """
        self._current()

    def keep(self) -> None:
        """See `ports.Sink.keep`."""
        found = self._current()
        if self._hold is not None and (self._hold.is_shared or not self._hold.is_told(found.metadata or {})):
            self._sign(found, self._hold, is_at_work=self._hold.is_shared)

    def release(self) -> None:
        """Say that this process has ended its work, unless somebody else has the collection by now."""
        if self._hold is not None and self._hold.is_shared:
            self._sign(self._current(), self._hold, is_at_work=False)

    def _sign(self, found: "Collection", hold: Hold, *, is_at_work: bool) -> None:
        with translation("leaving a sign of life", ServiceUnavailable):
            beat_seconds = self._client.heartbeat() // 1_000_000_000 if is_at_work else 0
            found.modify(metadata={**(found.metadata or {}), **hold.labels, BEAT_KEY: beat_seconds})

    def _current(self) -> "Collection":
        """The collection as it is now. Raises as `confirm`."""
        name = self._collection.name
        with translation(f"looking for the collection {name!r}", ServiceUnavailable):
            found = self._client.get_collection(name, embedding_function=None)
        if found.id != self._collection.id:
            raise CollectionLost(
                f"the collection {name!r} was replaced by somebody else",
                remedy="start again: it is filled anew, without an embedding call",
            )
        if self._hold is not None:
            self._hold.check(name, found.metadata or {})
        keep_from_building(found)
        return found

    def reopen(self) -> None:
        """Work with the collection that bears the name now. Raises `CollectionLost` when none does."""
        name = self._collection.name
        with translation(f"opening the collection {name!r}", ServiceUnavailable):
            self._collection = self._client.get_collection(name, embedding_function=None)
        self._metadata = _scalars(self._collection.metadata)

    def _page(self, ids: list[str], *, with_vectors: bool) -> "GetResult | None":
        """Records as Chroma tells of them; None when it has lost the vector of one, or drops it just now."""
        if not with_vectors:
            return self._collection.get(ids=ids, include=["metadatas", "documents"])
        try:
            page = self._collection.get(ids=ids, include=["metadatas", "documents", "embeddings"])
        except Exception as error:
            if finds_no_id(error):
                return None
            raise
        return page if page["embeddings"] is not None and len(page["embeddings"]) == len(page["ids"]) else None

    def _nearest(self, **question: Any) -> "QueryResult":  # noqa: ANN401 - what Chroma's own `query` takes
        """What Chroma finds. Of a search that fails for what is deleted meanwhile, the next try has an answer."""
        for _ in range(_TRIES - 1):
            try:
                return self._collection.query(**question)
            except Exception as error:
                if not finds_no_id(error):
                    raise
        return self._collection.query(**question)

    def _own_distances(self, vectors: Vectors) -> list[float]:
        """The distance of each vector to itself."""
        if self._space != "ip":
            return [0.0] * len(vectors)
        return [float(distance) for distance in 1.0 - np.einsum("ij,ij->i", vectors, vectors)]

    def _metadata_of(self, ids: list[str]) -> dict[str, Mapping[str, Any]]:
        if not ids:
            return {}  # Chroma would take it for all
        page = self._collection.get(ids=ids, include=["metadatas"])
        return dict(zip(page["ids"], (metadata or {} for metadata in page["metadatas"] or []), strict=True))

    def _settle_dimensions(self, dimensions: int) -> None:
        """Hold the length of vectors against the collection's; note it, before the first record is there."""
        if self.dimensions == dimensions:
            return
        if self.dimensions:
            raise RecipeMismatch(
                f"the collection {self._collection.name!r} holds vectors of {self.dimensions} dimensions,"
                f" and the model gives {dimensions}",
                remedy="take the old embedding settings back, or choose another INGESTOR_CHROMA__COLLECTION",
            )
        found = self._current()
        with translation("noting the dimensions", ServiceUnavailable):
            found.modify(metadata={**(found.metadata or {}), "embedding_dimensions": dimensions})
        self._metadata["embedding_dimensions"] = dimensions

    def _score(self, distance: float) -> float:
        return 1.0 / (1.0 + distance) if self._space == "l2" else 1.0 - distance


def open_sink(  # noqa: PLR0913 - what a collection is made of
    client: "ClientAPI",
    name: str,
    recipe: Recipe,
    hnsw: HnswConfig,
    *,
    fingerprint: str,
    function: Function | None = None,
    hold: Hold | None = None,
) -> ChromaSink:
    """Make the collection `name`, or open it when its recipe and its distance are ours.

    An empty collection is no obstacle: one that somebody else made is taken over, one of ours is made again.
    `fingerprint` of the recipe is written into the collection's metadata; what is compared are the recipe's fields.
    `function` is what the collection names for those who ask by text; None leaves what it names. `hold` is that of the
    process that is to write, which has judged that it may; None leaves the owner that the collection names.
    Raises `RecipeMismatch`, `ConfigError` (a foreign collection, a name that Chroma refuses), `ServiceUnavailable`,
    `AuthenticationFailed`.
    """
    metadata: dict[str, Scalar] = {
        RECIPE_KEY: fingerprint,
        "embedding_provider": recipe.provider,
        "embedding_model": recipe.model,
        "embedding_dimensions": recipe.dimensions,
        "document_prefix": recipe.document_prefix,
        **(hold.labels if hold else {}),
    }
    with translation(f"opening the collection {name!r}", ConfigError):
        collection = _get_or_make(client, name, metadata, hnsw, function)
    keep_from_building(collection)
    held = _scalars(collection.metadata)
    index = _index_of(collection)
    space = str(index.get("space", "l2"))
    if RECIPE_KEY in held:
        mismatch = _mismatch(name, held, space, recipe, hnsw)
        if mismatch is not None and _count(collection) == 0:
            # Nothing to lose: whoever mistyped a model's name has to correct only that.
            with translation(f"making the empty collection {name!r} again", ConfigError):
                client.delete_collection(name)
            return open_sink(client, name, recipe, hnsw, fingerprint=fingerprint, function=function, hold=hold)
        if mismatch is not None:
            raise mismatch
        metadata["embedding_dimensions"] = recipe.dimensions or held.get("embedding_dimensions", 0)
    else:
        _refuse_foreign(collection, space, hnsw)
    kept = {key: value for key, value in held.items() if not key.startswith("hnsw:")}
    with translation(f"settling the collection {name!r}", ConfigError):
        if held != held | metadata:
            collection.modify(metadata=kept | metadata)
        changed = _changed(index, hnsw, ("ef_search", "sync_threshold"))
        if changed:
            collection.modify(configuration={"hnsw": changed})  # type: ignore[arg-type]  # a plain dictionary of the same keys
    unapplied = [
        f"{key} is {index[key]} in the collection {name!r} and {value} in the settings: it is settled when a collection"
        " is made"
        for key, value in _changed(index, hnsw, ("ef_construction", "max_neighbors")).items()
    ]
    if function is not None:
        collection, unnamed = name_function(client, collection, function)
        unapplied += [unnamed] if unnamed else []
    return ChromaSink(client, collection, kept | metadata, space, unapplied, hold=hold)


def view_sink(client: "ClientAPI", name: str) -> ChromaSink:
    """A sink over a collection as it is, whoever made it, to be searched. Raises `CollectionLost` for none."""
    with translation(f"opening the collection {name!r}", ConfigError):
        collection = client.get_collection(name, embedding_function=None)
    return ChromaSink(client, collection, _scalars(collection.metadata), str(_index_of(collection).get("space", "l2")))


def refuse_other_recipe(name: str, metadata: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise `RecipeMismatch` when a collection of ours was built with another recipe, whatever its distance."""
    hnsw = HnswConfig()
    if (mismatch := _mismatch(name, _scalars(metadata), hnsw.space, recipe, hnsw)) is not None:
        raise mismatch


def _get_or_make(
    client: "ClientAPI", name: str, metadata: Mapping[str, Scalar], hnsw: HnswConfig, function: Function | None
) -> "Collection":
    """Chroma's own get_or_create tells neither what it did nor, in HTTP, takes metadata of an existing collection."""
    from chromadb.errors import ChromaError, NotFoundError  # noqa: PLC0415 - the client has imported chromadb already

    try:
        return client.get_collection(name, embedding_function=None)
    except NotFoundError:
        pass
    named = {"embedding_function": stand_in(function)} if function else {}
    try:
        return client.create_collection(
            name,
            configuration=hnsw.as_configuration() | named,  # type: ignore[arg-type]  # a plain dictionary of the same keys
            metadata=dict(metadata),
            embedding_function=None,
        )
    except ChromaError as error:
        if "already exists" not in str(error):
            raise
        return client.get_collection(name, embedding_function=None)


def _mismatch(
    name: str, held: Mapping[str, Scalar], space: str, recipe: Recipe, hnsw: HnswConfig
) -> RecipeMismatch | None:
    theirs = Recipe(
        provider=str(held.get("embedding_provider", "")),
        model=str(held.get("embedding_model", "")),
        dimensions=int(held.get("embedding_dimensions", 0)),
        document_prefix=str(held.get("document_prefix", "")),
    )
    is_same_model = (theirs.provider, theirs.model, theirs.document_prefix) == (
        recipe.provider,
        recipe.model,
        recipe.document_prefix,
    )
    is_same_length = not theirs.dimensions or not recipe.dimensions or theirs.dimensions == recipe.dimensions
    if is_same_model and is_same_length and space == hnsw.space:
        return None
    return RecipeMismatch(
        f"the collection {name!r} was built with {_described(theirs, space)},"
        f" and the settings name {_described(recipe, hnsw.space)}",
        remedy="run `ingestor rebuild` to build it anew beside the old one, take the old settings back,"
        " or choose another INGESTOR_CHROMA__COLLECTION",
    )


def _count(collection: "Collection") -> int:
    with translation("counting", ServiceUnavailable):
        return collection.count()


def _refuse_foreign(collection: "Collection", space: str, hnsw: HnswConfig) -> None:
    count = _count(collection)
    if count:
        raise ConfigError(
            f"the collection {collection.name!r} holds {count} records and was not made by ingestor",
            remedy="choose another INGESTOR_CHROMA__COLLECTION",
        )
    if space != hnsw.space:
        raise RecipeMismatch(
            f"the empty collection {collection.name!r} was made with the distance {space},"
            f" and the settings name {hnsw.space}",
            remedy="delete that collection, or set INGESTOR_CHROMA__HNSW__SPACE or another INGESTOR_CHROMA__COLLECTION",
        )


def _described(recipe: Recipe, space: str) -> str:
    length = f"{recipe.dimensions} dimensions" if recipe.dimensions else "dimensions not known yet"
    prefix = f"document prefix {recipe.document_prefix!r}" if recipe.document_prefix else "no document prefix"
    return f"{recipe.provider}/{recipe.model} ({length}, {prefix}, distance {space})"


def _index_of(collection: "Collection") -> Mapping[str, Any]:
    """The configuration of the index, whose kind depends on the server (cloud: spann)."""
    configuration = collection.configuration_json
    return configuration.get("hnsw") or configuration.get("spann") or {}


def _changed(index: Mapping[str, Any], hnsw: HnswConfig, names: Sequence[str]) -> dict[str, int]:
    """Numbers of the settings that differ from those that the index names."""
    return {name: getattr(hnsw, name) for name in names if name in index and index[name] != getattr(hnsw, name)}


def _scalars(metadata: Mapping[str, Any] | None) -> dict[str, Scalar]:
    """Metadata without lists: foreign records may carry some, and in a collection's they kill the server."""
    return {key: value for key, value in (metadata or {}).items() if isinstance(value, str | int | float | bool)}


def _difference(held: Mapping[str, Any], wanted: Mapping[str, Scalar]) -> dict[str, Any]:
    """What makes of the metadata that is held the one that is wanted: None for a key that has to go."""
    return dict.fromkeys(held.keys() - wanted.keys()) | {
        key: value
        for key, value in wanted.items()
        if key not in held or (key not in UNTAGGED and (type(held[key]), held[key]) != (type(value), value))
    }


def _unique(ids: "Iterator[str] | Sequence[str]") -> list[str]:
    listed = list(ids)
    if len(set(listed)) != len(listed):
        raise ValueError("an id is named twice in one call")
    return listed


def _body_bytes(metadata: Mapping[str, Scalar], text: str = "", dimensions: int = 0) -> int:
    """How much of a call's body a record takes, estimated from above."""
    words = len(text) + sum(len(value) for value in metadata.values() if isinstance(value, str))
    return 4 * words + 20 * dimensions + _RECORD_BYTES


def _bounds(sizes_bytes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Bounds of batches that Chroma takes in one call."""
    start, size_bytes = 0, 0
    for position, record_bytes in enumerate(sizes_bytes):
        is_full = position - start >= _MAX_BATCH_RECORDS or size_bytes + record_bytes > _MAX_BATCH_BYTES
        if is_full and position > start:
            yield start, position
            start, size_bytes = position, 0
        size_bytes += record_bytes
    if start < len(sizes_bytes):
        yield start, len(sizes_bytes)
