"""The collections of one Chroma database: which there are, and their lives as a whole.

Invariant: a collection is renamed or deleted as the one of the id that the caller has seen: one that somebody has made
meanwhile under the same name is left alone.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestor.adapters.chroma_faults import translation
from ingestor.adapters.chroma_function import keep_from_building
from ingestor.core.errors import CollectionLost, ConfigError, ServiceUnavailable
from ingestor.core.model import Scalar
from ingestor.core.owning import BEAT_KEY

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_PAGE_COLLECTIONS = 100
_WRITES = 5
_SETTLE_SECONDS = 0.2
"""Between a process's look at metadata and what it writes, and much more."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection, as Chroma tells of it without a look at its records."""

    id: str
    """Chroma's own id: stays through a rename."""
    name: str
    metadata: Mapping[str, Any]
    configuration: Mapping[str, Any]
    dimensions: int = 0
    """Length of the vectors; 0 until there is one."""

    @property
    def index(self) -> Mapping[str, Any]:
        """The configuration of the index, whose kind depends on the server (cloud: spann)."""
        return self.configuration.get("hnsw") or self.configuration.get("spann") or {}

    @property
    def space(self) -> str:
        """The distance."""
        return str(self.index.get("space", "l2"))


class ChromaCatalog:
    """The collections behind a client; every method may raise `ServiceUnavailable`."""

    def __init__(self, client: "ClientAPI") -> None:
        self._client = client

    def rows(self) -> list[CollectionRow]:
        """Every collection, by name."""
        with translation("listing the collections", ServiceUnavailable):
            return sorted((_row(collection) for collection in self._collections()), key=lambda row: row.name)

    def find(self, name: str) -> CollectionRow | None:
        """The collection of this name; None when there is none."""
        from chromadb.errors import NotFoundError  # noqa: PLC0415 - the client has imported chromadb already

        if not _NAME.fullmatch(name):
            return None
        with translation(f"looking for the collection {name!r}", ServiceUnavailable):
            try:
                return _row(self._client.get_collection(name, embedding_function=None))
            except NotFoundError:
                return None

    def count(self, row: CollectionRow) -> int:
        """How many records a collection holds. Raises `CollectionLost` when it is not there any more."""
        with translation(f"counting the records of {row.name!r}", ServiceUnavailable):
            return self._current(row).count()

    def create(self, name: str, configuration: Mapping[str, Any], metadata: Mapping[str, Scalar] | None) -> None:
        """Make a collection without an embedding function.

        Raises `ConfigError` for a name that is taken or none, `ServiceUnavailable`. A collection that somebody makes
        under this name at the same moment is left alone.
        """
        self.refuse_name(name)
        with translation(f"making the collection {name!r}", ConfigError):
            self._client.create_collection(
                name,
                configuration=dict(configuration),  # type: ignore[arg-type]  # a plain dictionary of the same keys
                metadata=dict(metadata) if metadata else None,
                embedding_function=None,
            )

    def modify(self, row: CollectionRow, metadata: Mapping[str, Scalar | None], index: Mapping[str, int]) -> None:
        """Change keys of the metadata, of which None removes one, and numbers of the index.

        Raises `ConfigError` for what Chroma refuses, `CollectionLost` when `row` is gone.
        """
        collection = self._current(row)
        held = dict(collection.metadata or {})
        # Chroma replaces metadata as a whole, and takes none that is empty.
        wanted = {key: value for key, value in (held | dict(metadata)).items() if value is not None}
        if held and not wanted:
            raise ConfigError(
                f"the collection {row.name!r} would be without metadata, which Chroma does not take",
                remedy="leave one key, or give another in the same call",
            )
        kind = "hnsw" if row.configuration.get("hnsw") else "spann"
        if wanted != held:
            self._write(row, wanted, metadata)
        with translation(f"changing the collection {row.name!r}", ConfigError):
            if index:
                collection.modify(configuration={kind: dict(index)})  # type: ignore[arg-type]  # as in create

    def _write(self, row: CollectionRow, wanted: Mapping[str, Any], changes: Mapping[str, Scalar | None]) -> None:
        """Write metadata, until it stands: a sign of life that was begun before writes back what it had found."""
        for _ in range(_WRITES):
            with translation(f"changing the collection {row.name!r}", ConfigError):
                self._current(row).modify(metadata=dict(wanted))
            if BEAT_KEY not in wanted:
                return
            time.sleep(_SETTLE_SECONDS)
            held = dict(self._current(row).metadata or {})
            if all(held.get(key) == value for key, value in changes.items()):
                return
            wanted = {key: value for key, value in (held | dict(changes)).items() if value is not None}

    def fork(self, row: CollectionRow, name: str) -> None:
        """Copy a collection, which Chroma Cloud alone can do. Raises `ConfigError` elsewhere, and as `create`."""
        self.refuse_name(name)
        with translation(f"forking the collection {row.name!r}", ConfigError):
            try:
                self._current(row).fork(name)
            except NotImplementedError as error:  # what the client of a local database says
                raise ConfigError("only Chroma Cloud can fork a collection") from error

    def rename(self, row: CollectionRow, name: str) -> None:
        """Rename a collection. Raises `ConfigError` for a name that is taken, `CollectionLost` when `row` is gone."""
        self.refuse_name(name)
        with translation(f"renaming the collection {row.name!r}", ConfigError):
            self._current(row).modify(name=name)

    def delete(self, row: CollectionRow) -> None:
        """Delete a collection with all its records. Raises `CollectionLost` when it is not there any more."""
        self._current(row)
        with translation(f"deleting the collection {row.name!r}", ConfigError):
            self._client.delete_collection(row.name)

    def refuse_name(self, name: str) -> None:
        """Raise `ConfigError` for a name that Chroma does not take, or that a collection has."""
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"no collection can be called {name!r}",
                remedy="a name has 3 to 512 characters of a-z, A-Z, 0-9, dot, underscore and hyphen, and begins and "
                "ends with a letter or a digit",
            )
        if self.find(name) is not None:
            raise ConfigError(
                f"there is a collection {name!r} already", remedy="choose another name, or delete that collection"
            )

    def delete_if_empty(self, row: CollectionRow) -> bool:
        """Delete a collection unless it holds records; returns whether it is gone. Raises `CollectionLost`."""
        with translation(f"counting the records of {row.name!r}", ServiceUnavailable):
            is_empty = self._current(row).count() == 0
        if is_empty:
            self.delete(row)
        return is_empty

    def _current(self, row: CollectionRow) -> "Collection":
        with translation(f"looking for the collection {row.name!r}", ServiceUnavailable):
            found = self._client.get_collection(row.name, embedding_function=None)
        if str(found.id) != row.id:
            raise CollectionLost(f"the collection {row.name!r} was replaced by somebody else", remedy="look again")
        keep_from_building(found)
        return found

    def _collections(self) -> Iterator["Collection"]:
        offset = 0
        while page := self._client.list_collections(limit=_PAGE_COLLECTIONS, offset=offset):
            yield from page
            offset += len(page)


def _row(collection: "Collection") -> CollectionRow:
    metadata = dict(collection.metadata or {})
    # The length that Chroma itself knows is in no public attribute.
    known = getattr(getattr(collection, "_model", None), "dimension", None)
    noted = metadata.get("embedding_dimensions")
    dimensions = known or (noted if isinstance(noted, int) else 0)
    return CollectionRow(str(collection.id), collection.name, metadata, collection.configuration_json, int(dimensions))
