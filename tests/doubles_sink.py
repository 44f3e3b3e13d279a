"""An in-memory sink, held to the same contract as Chroma by `tests/contract/test_sink.py`."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingestor.core import auditing
from ingestor.core.errors import (
    CollectionLost,
    ConfigError,
    ForeignCollection,
    IngestorError,
    RecipeMismatch,
    RejectedByChroma,
)
from ingestor.core.fingerprint import UNTAGGED
from ingestor.core.model import Hit, Metadata, Record, Retag, Scalar
from ingestor.core.owning import Ours
from ingestor.ports import Vector, Vectors


@dataclass(frozen=True, slots=True)
class Held:
    """What the sink holds for an id. `metadata` and `document` are None for a foreign record without them."""

    document: str | None
    metadata: dict[str, Scalar] | None
    vector: Vector


@dataclass(slots=True)
class Fault:
    """An error that the next calls of `verb` raise, before or after they have had their effect."""

    verb: str
    error: IngestorError
    is_after: bool
    times: int


class MemorySink:
    """`ports.Sink` over a dictionary, with distance "cosine".

    `calls` lists every call as (verb, number of records); `held` is the truth to assert on. `fail` injects faults,
    `delete_collection` does what somebody else may do to a real one.
    """

    def __init__(self, dimensions: int = 0) -> None:
        self.dimensions = dimensions
        self.held: dict[str, Held] = {}
        self.hidden: set[str] = set()
        """Records that no search finds, until they are deleted and added again."""
        self.is_renamed = False
        self.ours = Ours()
        self.rival = ""
        """Who has taken the collection over; empty: nobody."""
        self.calls: list[tuple[str, int]] = []
        self._faults: list[Fault] = []
        self._generations = itertools.count(1)
        self._collection_id = self._next_id()
        self._is_deleted = False

    @property
    def writes(self) -> list[tuple[str, int]]:
        """The calls that were to change something."""
        return [call for call in self.calls if call[0] in {"add", "retag", "drop"}]

    @property
    def collection_id(self) -> str:
        return self._collection_id

    def fail(self, verb: str, error: IngestorError, *, is_after: bool = False, times: int = 1) -> None:
        """Let the next `times` calls of `verb` ("add", "retag", "drop", "search", "count", …) raise `error`."""
        self._faults.append(Fault(verb, error, is_after, times))

    def delete_collection(self) -> None:
        """Every call raises `ServiceUnavailable` from now on, until `make_again`."""
        self._is_deleted = True

    def make_again(self) -> None:
        """An empty collection of the same name."""
        self.held.clear()
        self._collection_id = self._next_id()
        self._is_deleted = False

    def put_foreign(self, identity: str, vector: Vector, metadata: dict[str, Scalar] | None = None) -> None:
        """A record that somebody else wrote."""
        self.held[identity] = Held(None, metadata, vector)

    def add(self, records: Sequence[Record], vectors: Vectors | Sequence[Vector]) -> None:
        _refuse_twice([record.id for record in records])
        rows = np.asarray(vectors, dtype=np.float32)
        if records and (rows.ndim != 2 or len(rows) != len(records)):
            raise ValueError(f"{len(records)} records with vectors of shape {rows.shape}")

        def write() -> None:
            if not records:
                return
            if self.dimensions and self.dimensions != rows.shape[1]:
                raise RecipeMismatch(f"{self.dimensions} dimensions are held and {rows.shape[1]} are given")
            if not np.isfinite(rows).all():
                raise RejectedByChroma("a vector is not finite")
            for record in records:
                _refuse_surrogates(record.id, record.metadata, record.text)
            self.dimensions = rows.shape[1]
            for record, row in zip(records, rows, strict=True):
                self.held.setdefault(record.id, Held(record.text, dict(record.metadata), row.copy()))

        self._do("add", len(records), write)

    def retag(self, retags: Sequence[Retag]) -> None:
        _refuse_twice([retag.id for retag in retags])

        def write() -> None:
            for retag in retags:
                _refuse_surrogates(retag.id, retag.metadata)
            for retag in retags:
                before = self.held.get(retag.id)
                if before is not None:
                    self.held[retag.id] = Held(before.document, _retagged(before, retag), before.vector)

        self._do("retag", len(retags), write)

    def drop(self, ids: Sequence[str]) -> None:
        _refuse_twice(ids)

        def write() -> None:
            for identity in ids:
                self.held.pop(identity, None)
                self.hidden.discard(identity)

        self._do("drop", len(ids), write)

    def search(
        self,
        vector: Vector,
        limit: int,
        where: Mapping[str, Any] | None,
        where_document: Mapping[str, Any] | None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        if limit < 1:
            raise ValueError(f"limit is {limit}")
        hits: list[Hit] = []

        def read() -> None:
            if self.held and len(vector) != self.dimensions:
                raise RecipeMismatch(f"{self.dimensions} dimensions are held and {len(vector)} are asked for")
            for identity, held in self.held.items():
                is_wanted = where is None or _fits(held.metadata or {}, where)
                has_words = where_document is None or _fits_document(held.document or "", where_document)
                is_named = ids is None or identity in ids
                if is_wanted and is_named and has_words and identity not in self.hidden:
                    distance = _cosine_distance(held.vector, vector)
                    hits.append(Hit(identity, 1 - distance, distance, held.document or "", held.metadata or {}))

        self._do("search", limit, read)
        return sorted(hits, key=lambda hit: hit.distance)[:limit]

    def count(self) -> int:
        self._do("count", 0, lambda: None)
        return len(self.held)

    def ids(self) -> list[str]:
        self._do("ids", 0, lambda: None)
        return list(self.held)

    def page(self, offset: int, limit: int) -> dict[str, Mapping[str, Any]]:
        self._do("page", 0, lambda: None)
        return {id_: self.held[id_].metadata or {} for id_ in list(self.held)[offset : offset + limit]}

    def read(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[auditing.Held]:
        _refuse_twice(ids)
        self._do("read", len(ids), lambda: None)
        return [
            auditing.Held(
                identity, held.document or "", dict(held.metadata or {}), held.vector if with_vectors else None
            )
            for identity in ids
            if (held := self.held.get(identity)) is not None
        ]

    def unreachable(self, ids: Sequence[str], vectors: Vectors) -> list[str]:
        assert len(ids) == len(vectors)
        self._do("unreachable", len(ids), lambda: None)
        return [identity for identity in ids if identity in self.hidden or identity not in self.held]

    def confirm(self) -> None:
        self._do("confirm", 0, self._refuse_others)

    def keep(self) -> None:
        self._do("keep", 0, self._refuse_others)

    def _refuse_others(self) -> None:
        if self.is_renamed:
            raise CollectionLost("the collection was renamed by somebody else")
        if self.rival:
            raise ForeignCollection(f"the collection belongs to {self.rival}")

    def reopen(self) -> None:
        self._do("reopen", 0, lambda: None)
        self._collection_id = self._next_id()

    def _next_id(self) -> str:
        return f"collection-{next(self._generations)}"

    def _do(self, verb: str, size: int, effect: Callable[[], None]) -> None:
        self.calls.append((verb, size))
        if self._is_deleted:
            raise CollectionLost("the collection was deleted by somebody else")
        fault = next((fault for fault in self._faults if fault.verb == verb and fault.times > 0), None)
        if fault is None:
            effect()
            return
        fault.times -= 1
        if fault.is_after:
            effect()
        raise fault.error


def _retagged(before: Held, retag: Retag) -> dict[str, Scalar]:
    held = before.metadata or {}
    if not retag.is_whole:
        return held | dict(retag.metadata)
    return dict(retag.metadata) | {key: held[key] for key in UNTAGGED & held.keys() & retag.metadata.keys()}


def _refuse_twice(ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        raise ValueError("an id is named twice in one call")


def _refuse_surrogates(identity: str, metadata: Metadata, document: str = "") -> None:
    for text in (identity, document, *metadata.values()):
        if isinstance(text, str) and not text.isascii() and any(0xD800 <= ord(sign) < 0xE000 for sign in text):
            raise RejectedByChroma("a text is not valid UTF-8")


def _cosine_distance(left: Vector, right: Vector) -> float:
    scale = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return 1.0 - float(np.dot(left, right)) / scale if scale else 1.0


def _is_same(held: object, wanted: object) -> bool:
    """A bool equals no number in Chroma."""
    return isinstance(held, bool) == isinstance(wanted, bool) and bool(held == wanted)


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _is_same,
    "$ne": lambda held, wanted: not _is_same(held, wanted),
    "$in": lambda held, wanted: any(_is_same(held, each) for each in wanted),
    "$nin": lambda held, wanted: all(not _is_same(held, each) for each in wanted),
    "$gt": lambda held, wanted: held > wanted,
    "$gte": lambda held, wanted: held >= wanted,
    "$lt": lambda held, wanted: held < wanted,
    "$lte": lambda held, wanted: held <= wanted,
}
_ABSENT_FITS = {"$ne", "$nin"}
_ORDERING = {"$gt", "$gte", "$lt", "$lte"}


def _fits(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    key, wanted = _only(where)
    if key in {"$and", "$or"}:
        if not isinstance(wanted, list) or len(wanted) < 2:
            raise ConfigError(f"Expected where value for $and or $or to be a list with at least two, got {wanted}")
        parts = [_fits(metadata, part) for part in wanted]
        return all(parts) if key == "$and" else any(parts)
    sign, operand = _only(wanted) if isinstance(wanted, dict) else ("$eq", wanted)
    if sign not in _COMPARISONS or operand is None or operand == []:
        raise ConfigError(f"Expected where operator to be one of {', '.join(_COMPARISONS)}, got {sign} {operand}")
    if sign in _ORDERING and (isinstance(operand, str) or not math.isfinite(operand)):
        raise ConfigError(f"Expected operand value to be an int or a float for operator {sign}, got {operand}")
    if key not in metadata:
        return sign in _ABSENT_FITS
    if sign in _ORDERING and isinstance(metadata[key], str | bool):
        return False
    return _COMPARISONS[sign](metadata[key], operand)


def _fits_document(document: str, where_document: Mapping[str, Any]) -> bool:
    sign, operand = _only(where_document)
    if sign in {"$and", "$or"}:
        parts = [_fits_document(document, part) for part in operand]
        return all(parts) if sign == "$and" else any(parts)
    if not isinstance(operand, str) or not operand:
        raise ConfigError(f"Expected where document operand value for operator {sign} to be a non-empty str")
    try:
        meanings = {
            "$contains": operand in document,
            "$not_contains": operand not in document,
            "$regex": sign.endswith("regex") and re.search(operand, document) is not None,
            "$not_regex": sign.endswith("regex") and re.search(operand, document) is None,
        }
    except re.error as error:
        raise ConfigError(f"Regex syntax error: {error}") from error
    if sign not in meanings:
        raise ConfigError(f"Expected where document operator to be one of {', '.join(meanings)}, got {sign}")
    return meanings[sign]


def _only(mapping: Mapping[str, Any]) -> tuple[str, Any]:
    if len(mapping) != 1:
        raise ConfigError(f"Expected where to have exactly one operator, got {dict(mapping)}")
    return next(iter(mapping.items()))
