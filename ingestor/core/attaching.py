"""What is attached to a file: folders' settings (`.ingestor.toml`), its sidecar (`name.meta.json`), its converter.

What folders say is laid over what the settings say, from the root down; then comes what the file says of itself, then
its sidecar. A name of what is attached goes into the ledger with the cutting recipe, so that a comparison finds a
change of it as it finds one of the file.

Invariant: a file to which nothing is attached has the empty name. A `.ingestor.toml` with a fault takes nothing away:
its settings are left out, its files differ from the ledger only by themselves, and what its `ignore` may keep back is
not read before that can be told.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from ingestor.core.errors import UnusableMetadata
from ingestor.core.escaping import escaped
from ingestor.core.metadata import MAX_BYTES, Layer, expanded, layer_of, overlaid
from ingestor.core.model import NOTHING, Attached, ChunkSize, Content, Metadata, Version
from ingestor.core.sizes import DEFAULT_MAX_TOKENS, MIN_MAX_TOKENS

SETTINGS_FILE: Final = ".ingestor.toml"
SIDECAR_END: Final = ".meta.json"
UNTELLABLE: Final = "+?"
"""The name of what is attached below a `.ingestor.toml` with a fault."""

_MARK: Final = "+"
"""Stands between a recipe and the name of what is attached: no recipe holds it."""
_NAME_BYTES: Final = 8
_TABLES: Final = frozenset({"metadata", "chunk", "ignore"})
_SIZES: Final = frozenset({"max_tokens", "overlap_tokens"})
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Ground:
    """What holds in a source where no folder says otherwise; a text of `most_tokens` is the largest a model takes."""

    layer: Layer = field(default_factory=dict)
    size: ChunkSize = field(default_factory=lambda: ChunkSize(DEFAULT_MAX_TOKENS, 0))
    most_tokens: int = 8192

    @property
    def attached(self) -> Attached:
        """What is attached to a file of the root."""
        return Attached(self.layer) if self.layer else NOTHING


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """What one `.ingestor.toml` says; with a fault, nothing but what to ignore."""

    layer: Layer = field(default_factory=dict)
    max_tokens: int | None = None
    overlap_tokens: int | None = None
    ignore: tuple[str, ...] = ()
    fault: UnusableMetadata | None = None


def name_of(attached: Attached, sidecar: Version | None = None) -> str:
    """Name what is attached to a file; "" where nothing is."""
    if not attached.is_known:
        return UNTELLABLE
    if sidecar is None and not attached.layer and attached.size is None:
        return ""
    size = attached.size and [attached.size.max_tokens, attached.size.overlap_tokens]
    told = json.dumps([sorted(attached.layer.items()), size, sidecar], ensure_ascii=True)
    return _MARK + blake2b(told.encode(), digest_size=_NAME_BYTES).hexdigest()


def with_converter(name: str, converter: str) -> str:
    """The name of what is attached to a file that a converter makes the text of; "" for none."""
    return name if name == UNTELLABLE or not converter else f"{name}{_MARK}{converter}"


def recipe_in(cutting: str) -> str:
    """The cutting recipe alone, without what is attached; "" for a document that was not cut."""
    return cutting.partition(_MARK)[0]


@lru_cache(maxsize=512)
def folder_settings(raw: bytes, path: str) -> FolderSettings:
    """Read a `.ingestor.toml`.

    Raises `UnusableMetadata` when it cannot be told what it ignores: to go on without that could send to a model what
    somebody wanted to keep back. Any other fault comes with what could be told.
    """
    place = escaped(path)
    try:
        values = _parsed(raw, place)
    except UnusableMetadata as fault:
        if b"ignore" in raw:
            raise
        return FolderSettings(fault=fault)
    ignore = values.get("ignore", [])
    is_swallowed = any(isinstance(table, dict) and "ignore" in table for table in values.values())
    if is_swallowed or not isinstance(ignore, list) or not all(isinstance(line, str) for line in ignore):
        message = f"the key ignore in {place} is no list of patterns above all tables"
        raise UnusableMetadata(message, remedy='write ignore = ["*.log"] at the top of the file')
    try:
        return _told(values, place, tuple(ignore))
    except UnusableMetadata as fault:
        return FolderSettings(ignore=tuple(ignore), fault=fault)


def deepened(attached: Attached, inner: FolderSettings, ground: Ground, path: str) -> Attached:
    """What is attached in a folder whose `.ingestor.toml` says `inner`.

    Raises `UnusableMetadata` for sizes of chunks that do not fit each other, or the model.
    """
    if inner.fault is not None:
        raise inner.fault
    outer = attached.size or ground.size
    size = ChunkSize(
        outer.max_tokens if inner.max_tokens is None else inner.max_tokens,
        outer.overlap_tokens if inner.overlap_tokens is None else inner.overlap_tokens,
    )
    place = f"in {escaped(path)}"
    if size.max_tokens > ground.most_tokens:
        message = (
            f"the key chunk.max_tokens {place} is more than the {ground.most_tokens:,} tokens that the model takes"
        )
        raise UnusableMetadata(message, remedy="lower it")
    if size.overlap_tokens * 2 > size.max_tokens:
        message = f"the key chunk.overlap_tokens {place}, or above it, is more than half of chunk.max_tokens"
        raise UnusableMetadata(message, remedy="set overlap_tokens lower there, too")
    return Attached(
        overlaid(attached.layer, inner.layer), None if size == ground.size else size, is_known=attached.is_known
    )


def sidecar_layer(raw: bytes, path: str) -> Layer:
    """Read the sidecar of a file at a path. Raises `UnusableMetadata` for what is no JSON object of metadata."""
    place = f"the sidecar {escaped(path + SIDECAR_END)}"
    if len(raw) > MAX_BYTES:
        raise UnusableMetadata(f"{place} has more than {MAX_BYTES:,} bytes", remedy="shorten it")
    try:
        values = json.loads(raw.removeprefix(_BYTE_ORDER_MARK).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnusableMetadata(f"{place} is no JSON: {escaped(str(error))}", remedy="mend or delete it") from error
    if not isinstance(values, dict):
        raise UnusableMetadata(f"{place} is no JSON object", remedy='write it as {"key": "value"}')
    return layer_of(values, place)


def own_metadata(content: Content, path: str, front: Layer) -> Metadata:
    """All that a file's folders, the file itself and its sidecar say, in scalars. Raises `UnusableMetadata`."""
    layer = overlaid(content.attached.layer, front)
    return expanded(layer if content.sidecar is None else overlaid(layer, sidecar_layer(content.sidecar, path)))


def _parsed(raw: bytes, place: str) -> Mapping[str, object]:
    if len(raw) > MAX_BYTES:
        raise UnusableMetadata(f"{place} has more than {MAX_BYTES:,} bytes", remedy="shorten it")
    try:
        return tomllib.loads(raw.removeprefix(_BYTE_ORDER_MARK).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnusableMetadata(f"{place} is no TOML: {escaped(str(error))}", remedy="mend it") from error


def _told(values: Mapping[str, object], place: str, ignore: tuple[str, ...]) -> FolderSettings:
    metadata, chunk = _table(values, "metadata", place), _table(values, "chunk", place)
    unknown = [*(values.keys() - _TABLES), *(f"chunk.{key}" for key in chunk.keys() - _SIZES)]
    if unknown:
        remedy = "there are [metadata], [chunk] with max_tokens and overlap_tokens, and ignore"
        raise UnusableMetadata(f"the key {escaped(min(unknown))} in {place} is unknown", remedy=remedy)
    return FolderSettings(
        layer=layer_of(metadata, f"[metadata] of {place}"),
        max_tokens=_size(chunk, "max_tokens", MIN_MAX_TOKENS, place),
        overlap_tokens=_size(chunk, "overlap_tokens", 0, place),
        ignore=ignore,
    )


def _table(values: Mapping[str, object], key: str, place: str) -> Mapping[object, object]:
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise UnusableMetadata(f"the key {key} in {place} is no table", remedy=f"write [{key}] above its keys")
    return table


def _size(chunk: Mapping[object, object], key: str, least: int, place: str) -> int | None:
    size = chunk.get(key)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < least):
        message = f"the key chunk.{key} in {place} is no whole number of at least {least}"
        raise UnusableMetadata(message, remedy="change it")
    return size if isinstance(size, int) else None
