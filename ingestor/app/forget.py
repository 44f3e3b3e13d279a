"""`forget`: a document gone for good, and the proof that no data file holds anything of it.

Theory of operation
-------------------
What is to be looked for at the end is gathered first, and written beside a journal before anything is deleted: whoever
dies on the way is run again, and still knows it. Then, in this order, each step being one that may be repeated: the
records are deleted, each collection that had some is copied into a fresh one that takes its place, the files of Chroma
are cleaned, vectors and ledger rows go, these two files are rewritten. At last every file is read byte by byte.

Invariant: text that another record holds too stays, and is not looked for. Nothing is embedded. The journal goes when
the search has found nothing, or could not be made; until then every start tells that a document is not forgotten yet.
"""

import asyncio
import base64
import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.chroma_sink import RECIPE_KEY
from ingestor.adapters.chroma_traces import ChromaTraces, Trace
from ingestor.adapters.ledger import SqliteLedger, note_in
from ingestor.adapters.ledger_schema import drop_copies
from ingestor.adapters.residue import Needles, Residue, residues
from ingestor.app.collection import FORGET_FILE, forgetting, hold, indexed, open_collection
from ingestor.app.compaction import retire
from ingestor.app.embedder import recipe_of
from ingestor.app.parts import VECTORS_FILE, folder_of, in_data_dir, ledger_of, vectors_of
from ingestor.app.prune import clean_files, has_files, refuse_memory, renew
from ingestor.app.status import below
from ingestor.app.upgrade import ledgers_in
from ingestor.core.compacting import is_left_over
from ingestor.core.errors import ConfigError
from ingestor.core.fingerprint import source_of, vector_key
from ingestor.core.model import Recipe
from ingestor.core.planning import plan_removal
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.ports import Vector
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_NEEDLES_FILE = "forget.npz"
_TELLING_KEYS = ("source", "file_name", "title", "heading", "content_hash", "document_id")
"""Metadata that is of this document, unless other records have it too."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted, and what the search for the rest has found."""

    path: str
    records: int
    texts: int
    """Texts that were looked for."""
    shared: int
    """Texts that other records hold as well: they stay."""
    too_short: int
    """Texts and names that are too short to be looked for."""
    vectors: int
    """Vectors that were deleted from the vector store."""
    files: int
    """Files that were searched."""
    residues: tuple[Residue, ...]
    is_proven: bool
    """Whether every file was searched, and nothing found; never where Chroma's files are a server's."""
    seconds: float


@dataclass(slots=True)
class _Found:
    """What there is of the document."""

    records: dict[str, set[str]] = field(default_factory=dict)
    """Ids by the name of their collection."""
    texts: set[str] = field(default_factory=set)
    keys: set[bytes] = field(default_factory=set)
    """Keys of vectors that no other record needs."""
    recipes: set[Recipe] = field(default_factory=set)
    """Of the collections that it is in."""
    shared: set[str] = field(default_factory=set)
    traces: list[Trace] = field(default_factory=list)


async def forget(settings: Settings, wanted: str, *, deletes_file: bool = False) -> Forgotten:
    """Forget the document at a path: of the file system, or relative to the watched folder.

    Raises `AlreadyRunning` while a daemon runs, `ConfigError` when the file is still in the folder (unless it is to be
    deleted) or another document is not forgotten yet, `ServiceUnavailable`.
    """
    began_seconds = time.monotonic()
    refuse_memory(settings)
    every = settings
    settings, path = _meant(settings, wanted)
    source = folder_of(settings)
    async with AsyncExitStack() as stack:
        hold(settings, "forget", stack)
        indexed(settings)
        unfinished = forgetting(settings).read()
        if unfinished is not None and unfinished["path"] != path:
            message = f"the document {unfinished['path']!r} is not forgotten yet"
            raise ConfigError(message, remedy=f"run `ingestor forget {unfinished['path']}` again first")
        if source.look(path) is not None:
            if not deletes_file:
                message = f"{path!r} is still in the watched folder, and the next sync would index it again"
                raise ConfigError(message, remedy="delete it, exclude it (watch.exclude), or add --delete-file")
            (settings.watch_dir / path).unlink()
        return await _forget(settings, every, path, began_seconds)


def _meant(settings: Settings, wanted: str) -> tuple[Settings, str]:
    """The source whose document is meant, and its path there. Raises `ConfigError` when there is none, or several."""
    sources = settings.each()
    places = {each.source_name: place for each in sources if (place := below(each, wanted))}
    found = [each for each in sources if ".." not in places.get(each.source_name, "..").split("/")]
    if len(found) > 1:
        unfinished = forgetting(settings).read() or {}
        begun = (unfinished.get("source"), unfinished.get("path"))
        found = [each for each in found if (each.source_name, places[each.source_name]) == begun] or [
            each for each in found if _is_known(each, places[each.source_name])
        ]
    if len(found) != 1:
        folders = " or ".join(str(each.watch_dir) for each in sources)
        raise ConfigError(f"{wanted} is not one document of {folders}", remedy="name a file below, by its full path")
    return found[0], places[found[0].source_name]


def _is_known(settings: Settings, path: str) -> bool:
    with ledger_of(settings) as ledger:
        return os.path.lexists(settings.watch_dir / path) or (ledger is not None and bool(ledger.glances_of([path])))


async def _forget(settings: Settings, every: Settings, path: str, began_seconds: float) -> Forgotten:
    with ExitStack() as stack:
        sharing = [each for each in every.each() if each.chroma.collection == settings.chroma.collection]
        sink = await asyncio.to_thread(open_collection, sharing, None, stack)
        retire(settings, sink.client)
        found, needles = await asyncio.to_thread(_gather, settings, every, sink.client, path)
        found.keys |= _stored_keys(settings)
        _keep(settings, path, needles, found.keys)
        for name, ids in found.records.items():
            await asyncio.to_thread(ChromaTraces(sink.client, name).delete, ids)
        beside = _beside(settings, every, ChromaCatalog(sink.client).rows())
    # Also when no record is left: those that an earlier attempt, or a sync, has deleted are in the index still.
    await renew(settings, every)
    for name, ledgers in beside.items():
        await renew(settings, every, name, ledgers)
    await clean_files(settings)
    gone = await asyncio.to_thread(_forget_here, settings, path, found.keys)
    files = list(_files(settings))
    left = await asyncio.to_thread(residues, files, needles)
    if not left:
        _needles_file(settings).unlink(missing_ok=True)
        forgetting(settings).remove()
    return Forgotten(
        path=path,
        records=sum(len(ids) for ids in found.records.values()),
        texts=len(found.texts - found.shared),
        shared=len(found.shared),
        too_short=needles.too_short,
        vectors=gone,
        files=len(files),
        residues=tuple(left),
        is_proven=not left and has_files(settings),
        seconds=round(time.monotonic() - began_seconds, 3),
    )


def _gather(settings: Settings, every: Settings, client: "ClientAPI", path: str) -> tuple[_Found, Needles]:
    """Find what there is of a document in all collections that are its own, and what of it others hold too."""
    rows = ChromaCatalog(client).rows()
    own = {settings.chroma.collection, *_beside(settings, every, rows)}
    found = _Found()
    others = _others(settings, every, path)
    for row in rows:
        if row.name in own and RECIPE_KEY in row.metadata:
            traces = [trace for trace in ChromaTraces(client, row.name).of_path(path) if not others.have(trace)]
            if traces:
                found.records[row.name] = {trace.id for trace in traces}
                found.traces += traces
                found.recipes |= _recipes(row)
    found.texts = {trace.text for trace in found.traces if trace.text}
    needles = _stored(settings)
    for trace in found.traces:
        needles.add("text", trace.text.encode())
        for key in _TELLING_KEYS:
            if value := trace.metadata.get(key):
                needles.add_whole(key, str(value).encode())
    needles.add_whole("source", os.fsencode(path))
    keys_of = {
        text: {
            vector_key(recipe, recipe.text_to_send(text)) for recipe in {recipe_of(settings.embedding), *found.recipes}
        }
        for text in found.texts
    }
    with contextlib.closing(vectors_of(settings)) as store:
        vectors = list(store.get(chain.from_iterable(keys_of.values())).values())
    for raw in _forms([*vectors, *(trace.vector for trace in found.traces)]):
        needles.add("vector", raw)
    found.shared = _leave_others(client, rows, found, needles, settings)
    found.keys = {key for text, keys in keys_of.items() if text not in found.shared for key in keys}
    return found, needles


@dataclass(frozen=True, slots=True)
class _Others:
    """What other sources of the same collection have at the same path."""

    names: frozenset[str]
    ids: frozenset[str]

    def have(self, trace: Trace) -> bool:
        """Whether a record is of one of them."""
        return trace.id in self.ids or source_of(str(trace.metadata["document_id"])) in self.names


def _others(settings: Settings, every: Settings, path: str) -> _Others:
    ids: set[str] = set()
    names: set[str] = set()
    for each in every.each():
        if each.source_name == settings.source_name or each.chroma.collection != settings.chroma.collection:
            continue
        names.add(each.source_name)
        with ledger_of(each) as ledger:
            for entry in ledger.entries([path]).values() if ledger is not None else ():
                ids |= entry.tags.keys() | entry.doubtful
    return _Others(frozenset(names), frozenset(ids))


def _leave_others(
    client: "ClientAPI", rows: Iterable[CollectionRow], found: _Found, needles: Needles, settings: Settings
) -> set[str]:
    """Look for nothing that other records hold, or that the settings say; returns the texts that are held elsewhere."""
    shared: set[str] = set()
    needles.leave(os.fsencode(settings.watch_dir.absolute()))
    needles.leave(os.fsencode(settings.data_dir.absolute()))
    for row in rows:
        if is_left_over(row.name, settings.chroma.collection):
            continue
        needles.leave(json.dumps(dict(row.metadata), ensure_ascii=False).encode())
        for other in ChromaTraces(client, row.name).all_but(found.records.get(row.name, ())):
            needles.leave(other.text.encode())
            for raw in _forms([other.vector]):
                needles.leave(raw)
            for value in other.metadata.values():
                if isinstance(value, str):
                    needles.leave(value.encode())
            if other.text in found.texts:
                shared.add(other.text)
    return shared


def _forms(vectors: Iterable[Vector | None]) -> Iterator[bytes]:
    """Vectors as files hold them: as they were paid for, and as an index with cosines scales them."""
    for vector in vectors:
        if vector is None:
            continue
        length = np.float32(np.sqrt(np.sum(vector * vector, dtype=np.float32)))
        yield vector.astype("<f4").tobytes()
        if length > 0:
            yield (vector / length).astype("<f4").tobytes()


def _forget_here(settings: Settings, path: str, keys: Iterable[bytes]) -> int:
    """Delete from ledgers and vector store, and rewrite their files; returns how many vectors went."""
    for file in (settings.data_dir / settings.ledger_file, *_ledgers_beside(settings)):
        if note_in(file, "schema_version") is not None:
            with contextlib.closing(SqliteLedger(file)) as ledger:
                ledger.release_all()
                entry = ledger.entries([path]).get(path)
                ledger.commit([] if entry is None else [plan_removal(entry)], [])
                ledger.dequeue([path])
                ledger.rewrite_file()
    for file in ledgers_in(settings.data_dir):
        drop_copies(file)
    with contextlib.closing(vectors_of(settings)) as store:
        gone = store.forget(keys)
    for aside in settings.data_dir.glob(f"{VECTORS_FILE}.damaged*"):
        aside.unlink()
    return gone


def _recipes(row: CollectionRow) -> set[Recipe]:
    """What the vectors of a collection were made with; a model may not have told its dimensions when it was asked."""
    told = row.metadata
    made = Recipe(
        str(told.get("embedding_provider", "")),
        str(told.get("embedding_model", "")),
        int(told.get("embedding_dimensions", 0)),
        str(told.get("document_prefix", "")),
    )
    return {made, replace(made, dimensions=0)}


def _beside(settings: Settings, every: Settings, rows: Iterable[CollectionRow]) -> dict[str, list[str]]:
    """The collections that were kept, or are being filled, beside the one of the settings.

    By their names; with the file names of all their ledgers, one for each source.
    """
    name_of = {row.id: row.name for row in rows}
    found: dict[str, list[str]] = {}
    for each in every.each():
        for file in _ledgers_beside(each) if each.chroma.collection == settings.chroma.collection else ():
            name = name_of.get(note_in(file, COLLECTION_NOTE) or "")
            if name not in {None, settings.chroma.collection}:
                found.setdefault(str(name), []).append(file.name)
    return found


def _ledgers_beside(settings: Settings) -> list[Path]:
    """Ledgers that are named after the one of the settings."""
    return sorted(settings.data_dir.glob(f"{settings.ledger_file.removesuffix('.sqlite3')}.*.sqlite3"))


def _files(settings: Settings) -> Iterator[Path]:
    """Every file of ours, but for what says what is to be forgotten."""
    own = {(settings.data_dir / name).absolute() for name in (FORGET_FILE, _NEEDLES_FILE)}
    watched = settings.watch_dir.absolute()
    folders = {settings.data_dir.absolute(), *([settings.chroma_path.absolute()] if has_files(settings) else [])}
    seen: set[Path] = set()
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                file = Path(place, name)
                is_ours = file not in seen and watched not in file.parents and not file.is_symlink()
                if is_ours and file.is_file() and file not in own:
                    seen.add(file)
                    yield file


def _needles_file(settings: Settings) -> Path:
    return settings.data_dir / _NEEDLES_FILE


def _keep(settings: Settings, path: str, needles: Needles, keys: Iterable[bytes]) -> None:
    """Write down what is looked for, windows as hashes, before anything is deleted; the journal last."""
    fresh = in_data_dir(settings, f"{_NEEDLES_FILE}.new")
    with fresh.open("wb") as file:
        np.savez(file, allow_pickle=False, **needles.windows)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(_needles_file(settings))
    patterns = [[kind, base64.b64encode(pattern).decode()] for kind, pattern in sorted(needles.patterns)]
    told = {
        "source": settings.source_name,
        "path": path,
        "patterns": json.dumps(patterns),
        "keys": json.dumps(sorted(key.hex() for key in keys)),
    }
    forgetting(settings).write(told)


def _stored_keys(settings: Settings) -> set[bytes]:
    told = forgetting(settings).read()
    return set() if told is None else {bytes.fromhex(key) for key in json.loads(told["keys"])}


def _stored(settings: Settings) -> Needles:
    """What an earlier attempt has written down."""
    told = forgetting(settings).read()
    if told is None:
        return Needles()
    patterns = [(kind, base64.b64decode(encoded)) for kind, encoded in json.loads(told["patterns"])]
    if not _needles_file(settings).is_file():
        return Needles(patterns=patterns)
    with np.load(_needles_file(settings)) as held:
        return Needles({kind: held[kind] for kind in held.files}, patterns)
