"""A double of the catalog of collections, which outlives the process."""

from dataclasses import replace

from ingestor.adapters.chroma_catalog import CollectionRow
from ingestor.core.errors import CollectionLost, ConfigError


class MemoryCatalog:
    """Collections by id, each with a number of records."""

    def __init__(self, *names: str) -> None:
        self._rows = {f"id-of-{name}": CollectionRow(f"id-of-{name}", name, {}, {}) for name in names}
        self.records = dict.fromkeys(self._rows, 1)

    def names(self) -> dict[str, str]:
        return {row.id: row.name for row in self._rows.values()}

    def put(self, name: str, records: int) -> str:
        """Somebody makes a collection."""
        id_ = f"id-{len(self.records)}"
        self._rows[id_] = CollectionRow(id_, name, {}, {})
        self.records[id_] = records
        return id_

    def force_name(self, id_: str, name: str) -> None:
        self._rows[id_] = replace(self._rows[id_], name=name)

    def rows(self) -> list[CollectionRow]:
        return sorted(self._rows.values(), key=lambda row: row.name)

    def rename(self, row: CollectionRow, name: str) -> None:
        if name in self.names().values():
            raise ConfigError(f"there is a collection {name!r} already")
        self._rows[row.id] = replace(self._current(row), name=name)

    def delete(self, row: CollectionRow) -> None:
        self._current(row)
        del self._rows[row.id]

    def delete_if_empty(self, row: CollectionRow) -> bool:
        if self.records[self._current(row).id]:
            return False
        self.delete(row)
        return True

    def _current(self, row: CollectionRow) -> CollectionRow:
        if self._rows.get(row.id) != row:
            raise CollectionLost(f"the collection {row.name!r} was replaced by somebody else")
        return row
