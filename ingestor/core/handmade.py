"""Hand-made records: what users may write into a collection beside the records of their files.

Invariant: what passes here is never taken for a file's record, by anybody: neither does its id name its `document_id`,
nor has its id the form that a file's record gets.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestor.core.errors import ConfigError
from ingestor.core.escaping import escaped
from ingestor.core.fingerprint import is_owned

_OF_A_FILE = re.compile(r"[0-9a-f]{32}:[0-9a-f]{32}(:\d+)?")
"""The form of `fingerprint.record_id`."""
_SHOWN_FILES = 5
_SHOWN_CHARACTERS = 80
_LAYOUT = "\t\n\r\f\v"
_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**63 - 1

Value = str | int | float | bool | None
"""Of metadata; None takes a key away."""


@dataclass(frozen=True, slots=True)
class HandMade:
    """A record to write, or what of one is to be changed: None and {} leave things as they are."""

    id: str
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    vector: NDArray[np.float32] | None = None


def checked_id(identity: str) -> str:
    """An id that can be shown in a line. Raises `ConfigError`."""
    if not identity or not identity.isprintable():
        raise ConfigError(
            f"the id {_quoted(identity)} is empty, or holds a control character or bytes that are no UTF-8",
            remedy="give another with --id, or none: a record then gets one",
        )
    return identity


def checked_text(text: str, named: str = "a document") -> str:
    """A text that can be embedded and kept. Raises `ConfigError`."""
    if not text.strip():
        raise ConfigError(f"{named} is empty: no model has a vector for nothing", remedy="leave it out")
    _refuse_controls(text, named)
    return text


def checked_metadata(value: object, *, takes_away: bool = False) -> dict[str, Any]:
    """Metadata that Chroma keeps as it is; with `takes_away`, null removes a key. Raises `ConfigError`."""
    if not isinstance(value, dict):
        raise ConfigError("--metadata must be a JSON object", remedy='for example: {"author": "Ada"}')
    if not value:
        raise ConfigError("--metadata is empty", remedy="leave it out")
    for key, each in value.items():
        if not key or not key.isprintable() or key.startswith(("$", "#", "chroma:")):
            raise ConfigError(
                f"the metadata key {_quoted(key)} is one that Chroma does not take",
                remedy="a key is not empty, has no control characters, and does not begin with $, # or chroma:",
            )
        if each is None and takes_away:
            continue
        if isinstance(each, list):
            _check_list(key, each)
        else:
            _check_scalar(key, each)
    return value


def checked_vector(value: object, dimensions: int, where: str) -> NDArray[np.float32]:
    """A vector of shape (dimensions,), for a collection of vectors of that length; 0 where there is none yet.

    `where` names the collection for people. Raises `ConfigError`.
    """
    remedy = "for example: [0.1, -0.2, 0.3]"
    if not isinstance(value, list) or not value or not all(_is_number(each) for each in value):
        raise ConfigError("--embedding must be a JSON array of finite numbers", remedy=remedy)
    with np.errstate(over="ignore"):
        vector = np.asarray(value, dtype=np.float32)
    if not np.all(np.isfinite(vector)) or not np.any(vector):
        message = "--embedding holds a number too large for 32 bits, or nothing but zeros"
        raise ConfigError(message, remedy="give a vector that has a direction")
    if dimensions and len(vector) != dimensions:
        raise ConfigError(
            f"--embedding has {len(vector)} numbers, and the vectors of {where} have {dimensions}",
            remedy="take the model that the collection was built with",
        )
    return vector


def refuse_files(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `ConfigError` when one of the records (id -> metadata) belongs to a file, naming the files."""
    owned = {id_: str(metadata.get("source", "?")) for id_, metadata in records.items() if is_owned(id_, metadata)}
    if not owned:
        return
    files = list(dict.fromkeys(owned.values()))
    named = ", ".join(escaped(file) for file in files[:_SHOWN_FILES])
    if len(files) > _SHOWN_FILES:
        named = f"{named} and {len(files) - _SHOWN_FILES} more"
    if len(owned) == 1:
        message = f"record {_quoted(next(iter(owned)))} belongs to {named}"
    else:
        message = f"{len(owned)} of the {len(records)} records belong to files: {named}"
    remedy = f"edit {'that file' if len(files) == 1 else 'those files'}; nothing was changed"
    raise ConfigError(message, remedy=remedy)


def refuse_disguise(identity: str, metadata: Mapping[str, Any]) -> None:
    """Raise `ConfigError` when a record of this id and metadata would be taken for a file's, or may come to be."""
    if _OF_A_FILE.fullmatch(identity):
        raise ConfigError(
            f"the id {_quoted(identity)} has the form of those that records of files get", remedy="give another --id"
        )
    if is_owned(identity, metadata):
        raise ConfigError(
            f"record {_quoted(identity)} would look like a file's: its id begins with its document_id",
            remedy="give another --id, or leave document_id out of --metadata",
        )


def refuse_repeats(ids: Sequence[str]) -> None:
    """Raise `ConfigError` when an id is named twice."""
    seen: set[str] = set()
    for identity in ids:
        if identity in seen:
            raise ConfigError(f"the id {_quoted(identity)} is given twice", remedy="give each record an id of its own")
        seen.add(identity)


def named_ids(ids: Sequence[str]) -> str:
    """Some ids, for a sentence."""
    shown = ", ".join(map(_quoted, ids[:_SHOWN_FILES]))
    return f"{shown} and {len(ids) - _SHOWN_FILES} more" if len(ids) > _SHOWN_FILES else shown


def _check_list(key: str, values: list[Any]) -> None:
    if not values or any(type(each) is not type(values[0]) for each in values):
        raise ConfigError(
            f"the list of the metadata key {_quoted(key)} is empty or mixed",
            remedy="a list holds texts, or numbers of one kind, or truth values",
        )
    for each in values:
        _check_scalar(key, each)


def _check_scalar(key: str, value: object) -> None:
    if isinstance(value, str):
        _refuse_controls(value, f"the metadata value of {_quoted(key)}")
        return
    if isinstance(value, int) and _LEAST_INTEGER <= value <= _GREATEST_INTEGER:
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    raise ConfigError(
        f"the metadata value of {_quoted(key)} is none that Chroma keeps",
        remedy="a value is a text, a finite number of 64 bits, true, false, or a list of these",
    )


def _refuse_controls(text: str, named: str) -> None:
    for character in text:
        if character not in _LAYOUT and unicodedata.category(character) in {"Cc", "Cs"}:
            raise ConfigError(
                f"{named} holds a control character or bytes that are no UTF-8: {escaped(character)}",
                remedy="take it out",
            )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _quoted(text: str) -> str:
    short = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return f"'{escaped(short)}'"
