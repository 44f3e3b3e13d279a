"""The collections of one Chroma database: which there are, and their lives as a whole.

Invariant: a collection is renamed or deleted as the one of the id that the caller has seen: one that somebody has made
meanwhile under the same name is left alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestor.adapters.chroma_faults import translation
from ingestor.core.errors import CollectionLost, ConfigError, ServiceUnavailable

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_PAGE_COLLECTIONS = 100


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection, as Chroma tells of it without a look at its records."""

    id: str
    """Chroma's own id: stays through a rename."""
    name: str
    metadata: Mapping[str, Any]
    configuration: Mapping[str, Any]


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

        with translation(f"looking for the collection {name!r}", ServiceUnavailable):
            try:
                return _row(self._client.get_collection(name, embedding_function=None))
            except NotFoundError:
                return None

    def rename(self, row: CollectionRow, name: str) -> None:
        """Rename a collection. Raises `ConfigError` for a name that is taken, `CollectionLost` when `row` is gone."""
        if self.find(name) is not None:
            raise ConfigError(
                f"there is a collection {name!r} already", remedy="choose another name, or delete that collection"
            )
        with translation(f"renaming the collection {row.name!r}", ConfigError):
            self._current(row).modify(name=name)

    def delete(self, row: CollectionRow) -> None:
        """Delete a collection with all its records. Raises `CollectionLost` when it is not there any more."""
        self._current(row)
        with translation(f"deleting the collection {row.name!r}", ConfigError):
            self._client.delete_collection(row.name)

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
        return found

    def _collections(self) -> Iterator["Collection"]:
        offset = 0
        while page := self._client.list_collections(limit=_PAGE_COLLECTIONS, offset=offset):
            yield from page
            offset += len(page)


def _row(collection: "Collection") -> CollectionRow:
    return CollectionRow(
        str(collection.id), collection.name, dict(collection.metadata or {}), collection.configuration_json
    )
