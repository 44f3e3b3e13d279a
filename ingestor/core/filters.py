"""Filters: what people choose of the metadata of records, as the filter that Chroma takes.

Invariant: what comes out is a filter that Chroma accepts: one operator at the top, `$and` where there are several.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ingestor.core.errors import ConfigError
from ingestor.core.escaping import escaped
from ingestor.core.model import Scalar

_TRUTHS: Final = {"true": True, "false": False}
_LEAST_INTEGER: Final = -(2**63)


def pair_of(written: str) -> tuple[str, str]:
    """Key and value of `key = value`; the value may hold equals signs. Raises `ConfigError` for another form."""
    key, sign, value = (part.strip() for part in written.partition("="))
    if not (key and sign and value) or key.startswith(("$", "#")):
        raise ConfigError(
            f"the filter {escaped(written)!r} is not of the form key = value",
            remedy="write a key of the documents' metadata, an equals sign and its value, such as author = Ada",
        )
    return key, value


def filter_of(
    pairs: Sequence[tuple[str, str]] = (), *, file_type: str = "", document_ids: Sequence[str] | None = None
) -> Mapping[str, Any] | None:
    """The filter that all of it fits: metadata, MIME type, and documents to look among; None where nothing is chosen.

    A value that was written may be the text, the number or the truth that it reads as: Chroma tells these apart.
    """
    conditions = [_any_of(key, _readings(value)) for key, value in pairs]
    if file_type:
        conditions.append({"file_type": {"$eq": file_type}})
    if document_ids is not None:
        conditions.append({"document_id": {"$in": list(document_ids)}})
    return _joined("$and", conditions)


def _any_of(key: str, values: Sequence[Scalar]) -> Mapping[str, Any]:
    return _joined("$or", [{key: {"$eq": value}} for value in values]) or {}


def _joined(operator: str, conditions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    if len(conditions) > 1:
        return {operator: list(conditions)}
    return conditions[0] if conditions else None


def _readings(written: str) -> list[Scalar]:
    found: list[Scalar] = [written]
    if written.lower() in _TRUTHS:
        found.append(_TRUTHS[written.lower()])
    if written.isascii() and "_" not in written:
        try:
            number = float(written)
        except ValueError:
            return found
        if math.isfinite(number):
            if number.is_integer() and _LEAST_INTEGER <= int(number) < -_LEAST_INTEGER:
                found.append(int(written) if written.lstrip("+-").isdigit() else int(number))
            found.append(number)
    return found
