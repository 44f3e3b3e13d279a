"""`collections`: the collections of the database that the settings name, and their lives as a whole.

Invariant: the configured collection is renamed and deleted only while no daemon works on it. Whoever dies between
Chroma's rename and the change of the settings leaves a note, so that nobody fills a new collection of the old name.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.chroma_files import index_bytes
from ingestor.adapters.chroma_sink import RECIPE_KEY, HnswConfig, open_sink
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.adapters.rename_note import Renamed, RenameNote
from ingestor.adapters.settings_file import replace_settings, with_setting
from ingestor.app.collection import configured, hold, indexed, open_client
from ingestor.app.embedder import recipe_of
from ingestor.app.owning import refusal_of
from ingestor.core.errors import AlreadyRunning, ConfigError
from ingestor.core.fingerprint import recipe_fingerprint
from ingestor.core.model import Scalar
from ingestor.core.owning import PREFIX, told
from ingestor.settings import CONFIG_FILE, DOTENV_FILE, Loaded, Settings, variable

SETTING = "chroma.collection"
_OURS = (RECIPE_KEY, "document_prefix")
_OURS_BEGIN = ("embedding_", "hnsw:", PREFIX)


@dataclass(frozen=True, slots=True)
class Listed:
    """A collection, for people."""

    name: str
    count: int
    space: str
    provider: str
    """Empty where the collection is not ours, as `model`."""
    model: str
    dimensions: int
    """0 until there is a vector."""
    index_bytes: int | None
    """Size of its index on the disk; None where that cannot be told."""
    is_configured: bool
    owner: str
    """The data folder that fills it, and from where; empty where none is known."""
    metadata: Mapping[str, Any]
    index: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Renaming:
    """What a rename has done."""

    old: str
    new: str
    was_configured: bool
    changed_file: str
    """The settings file that names the collection now; empty where none was changed."""
    to_change: str
    """What is left to do for the user, in one sentence; empty when nothing is."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion has taken away."""

    name: str
    records: int
    was_configured: bool


def listed(settings: Settings) -> list[Listed]:
    """Every collection of the database, by name."""
    with _opened(settings, indexed(settings)) as catalog:
        is_local = settings.chroma.mode in {"managed", "persistent"}
        sizes = index_bytes(settings.chroma_path) if is_local else {}
        return [
            Listed(
                name=row.name,
                count=catalog.count(row),
                space=row.space,
                provider=str(row.metadata.get("embedding_provider", "")) if RECIPE_KEY in row.metadata else "",
                model=str(row.metadata.get("embedding_model", "")) if RECIPE_KEY in row.metadata else "",
                dimensions=row.dimensions,
                index_bytes=sizes.get(row.id),
                is_configured=row.name in configured(settings),
                owner=told(row.metadata),
                metadata=row.metadata,
                index=row.index,
            )
            for row in catalog.rows()
        ]


def create(
    settings: Settings, name: str, metadata: Mapping[str, Scalar], index: Mapping[str, Any], *, is_foreign: bool
) -> None:
    """Make a collection: for the configured model, or one that is not ours and takes vectors of anybody.

    `index` are fields of `HnswConfig` that differ from the settings. Raises `ConfigError` for a name that is taken.
    """
    _refuse_protected(metadata)
    hnsw = HnswConfig(**{**settings.chroma.hnsw.model_dump(), **index})
    refuse_memory(settings)
    with ExitStack() as stack:
        client = open_client(settings, Instance(settings.data_dir).running(), stack)
        catalog = ChromaCatalog(client)
        catalog.refuse_name(name)
        if is_foreign:
            catalog.create(name, hnsw.as_configuration(), metadata)
            return
        recipe = recipe_of(settings.embedding)
        open_sink(client, name, recipe, hnsw, fingerprint=recipe_fingerprint(recipe))
        if metadata:
            catalog.modify(found(catalog, name), metadata, {})


def modify(settings: Settings, name: str, metadata: Mapping[str, Scalar | None], index: Mapping[str, int]) -> None:
    """Change metadata, of which None removes a key, and numbers of the index of a collection."""
    _refuse_protected(metadata)
    if not metadata and not index:
        raise ConfigError("nothing is to be changed", remedy="give --metadata, --ef-search or --sync-threshold")
    if index and name in configured(settings):
        raise ConfigError(
            f"the index of {name!r}, the configured collection, follows the settings at each start",
            remedy=f"set chroma.hnsw.ef_search ({variable('chroma.hnsw.ef_search')}) instead",
        )
    with _opened(settings, indexed(settings)) as catalog:
        catalog.modify(found(catalog, name), metadata, index)


def fork(settings: Settings, name: str, new: str) -> None:
    """Copy a collection within Chroma Cloud, which alone can do it. Raises `ConfigError` elsewhere."""
    if settings.chroma.mode != "cloud":
        raise ConfigError(
            "only Chroma Cloud can fork a collection",
            remedy=f"make another with `ingestor collections create {new}`, and let a sync fill it: what the vector "
            "store has costs nothing",
        )
    with _opened(settings, indexed(settings)) as catalog:
        catalog.fork(found(catalog, name), new)


def rename(loaded: Loaded, config: Path | None, old: str, new: str) -> Renaming:
    """Rename a collection; where it is the configured one, the settings follow as far as they are in a file.

    One that was interrupted is finished by the same call. Raises `AlreadyRunning` while a daemon works on the
    configured collection, `ConfigError` for a name that is taken or missing, `ForeignCollection` for the configured one
    when it is another data folder's.
    """
    settings = loaded.settings
    is_configured = old in configured(settings)
    with _exclusive(settings, "collections rename", is_configured=is_configured) as catalog:
        if not is_configured:
            catalog.rename(found(catalog, old), new)
            return Renaming(old, new, was_configured=False, changed_file="", to_change="")
        file, told = _place_of_setting(loaded, config, old, new)
        text = with_setting(file, _keys_of_setting(settings, old), new) if file is not None else ""
        note = RenameNote(settings.data_dir)
        before = note.read()
        if not _is_done(catalog, before, old, new):
            row = _own(settings, catalog, old)
            catalog.refuse_name(new)
            note.write(Renamed(row.id, old, new))
            catalog.rename(row, new)
        if file is None:
            # The note stays until the settings name it: who opens the collection before is told.
            return Renaming(old, new, was_configured=True, changed_file="", to_change=told)
        try:
            replace_settings(file, text)
        except OSError as error:
            reason = f"{file} cannot be written ({error.strerror}): {told}"
            return Renaming(old, new, was_configured=True, changed_file="", to_change=reason)
        note.clear()
        return Renaming(old, new, was_configured=True, changed_file=str(file), to_change="")


def records_of(settings: Settings, name: str) -> int:
    """How many records a deletion of the collection would take away. Raises `ConfigError` when there is none."""
    with _opened(settings, indexed(settings)) as catalog:
        return catalog.count(found(catalog, name))


def delete(settings: Settings, name: str) -> Deletion:
    """Delete a collection with all its records.

    Raises `AlreadyRunning` while a daemon works on it, `ConfigError` when there is none, `ForeignCollection` when it is
    the configured one and another data folder's.
    """
    is_configured = name in configured(settings)
    with _exclusive(settings, "collections delete", is_configured=is_configured) as catalog:
        row = _own(settings, catalog, name) if is_configured else found(catalog, name)
        records = catalog.count(row)
        catalog.delete(row)
        return Deletion(name, records, was_configured=is_configured)


def refuse_memory(settings: Settings) -> None:
    """Raise `ConfigError` for a database that ends with this process."""
    if settings.chroma.mode == "memory":
        raise ConfigError(
            "a database in memory ends with each command: there is nothing to look at or to change",
            remedy="set INGESTOR_CHROMA__MODE to managed, http or persistent",
        )


def found(catalog: ChromaCatalog, name: str) -> CollectionRow:
    """The collection of this name. Raises `ConfigError` when there is none."""
    row = catalog.find(name)
    if row is None:
        raise ConfigError(
            f"there is no collection {name!r}",
            remedy="`ingestor collections` lists those that there are, `ingestor collections create` makes one",
        )
    return row


def _own(settings: Settings, catalog: ChromaCatalog, name: str) -> CollectionRow:
    """The configured collection of this name. Raises as `found`, and `ForeignCollection`."""
    row = found(catalog, name)
    if (refusal := refusal_of(settings, name, row.metadata)) is not None:
        raise refusal
    return row


@contextmanager
def _opened(settings: Settings, running: InstanceRecord | None) -> Iterator[ChromaCatalog]:
    refuse_memory(settings)
    with ExitStack() as stack:
        yield ChromaCatalog(open_client(settings, running, stack))


@contextmanager
def _exclusive(settings: Settings, command: str, *, is_configured: bool) -> Iterator[ChromaCatalog]:
    """Open the catalog; where it is about the configured collection, nobody else works on that until the end."""
    running = indexed(settings)
    with ExitStack() as stack:
        if is_configured:
            if running is not None:
                raise AlreadyRunning(
                    f"`ingestor {running.command}` (process id {running.pid}) works on the collection "
                    f"{', '.join(configured(settings))} just now",
                    remedy="stop it first, and start it again afterwards",
                )
            hold(settings, command, stack)
        yield stack.enter_context(_opened(settings, running))


def _is_done(catalog: ChromaCatalog, before: Renamed | None, old: str, new: str) -> bool:
    """Whether a rename that was interrupted is done as far as Chroma is concerned."""
    if before is None or (before.old, before.new) != (old, new) or catalog.find(old) is not None:
        return False
    renamed = catalog.find(new)
    return renamed is not None and renamed.id == before.id


def _keys_of_setting(settings: Settings, name: str) -> list[tuple[str | int, ...]]:
    """Where in a settings file the collection of this name is named."""
    own = [
        ("sources", place, "collection") for place, source in enumerate(settings.sources) if source.collection == name
    ]
    is_general = settings.chroma.collection == name and (
        not settings.sources or any(not source.collection for source in settings.sources)
    )
    return [*own, *([("chroma", "collection")] if is_general else [])]


def _place_of_setting(loaded: Loaded, config: Path | None, old: str, new: str) -> tuple[Path | None, str]:
    """The file to change so that the settings name another collection, if it is one; and what to tell otherwise."""
    name = variable(SETTING)
    told = {
        "environment": f"set {name}={new} in the environment",
        f"{DOTENV_FILE} file": f"set {name}={new} in the file {DOTENV_FILE}",
        "secrets folder": f"let the secret {name} hold {new}",
    }
    label = loaded.origins.get(SETTING, "")
    if label in told and old == loaded.settings.chroma.collection:
        return None, told[label]
    if loaded.settings.sources and (label := loaded.origins.get("sources", "")) in told:
        return None, f"let {variable('sources')} ({label}) name {new}"
    file = config or Path(os.environ.get("INGESTOR_CONFIG") or CONFIG_FILE)
    return file, f'set {SETTING} to "{new}" in it'


def noted(row: CollectionRow) -> dict[str, Scalar]:
    """What people have noted on a collection: its metadata without what says how it was built, and without lists."""
    return {
        key: value
        for key, value in row.metadata.items()
        if not _is_ours(key) and isinstance(value, str | int | float | bool)
    }


def _is_ours(key: str) -> bool:
    return key in _OURS or key.startswith(_OURS_BEGIN)


def _refuse_protected(metadata: Mapping[str, Any]) -> None:
    for key, value in metadata.items():
        if _is_ours(key):
            raise ConfigError(
                f"the metadata key {key!r} says how the collection was built, and is not to be changed",
                remedy="leave it out of --metadata",
            )
        if isinstance(value, list):
            # A list in a collection's metadata makes the server drop the connection.
            raise ConfigError(f"the metadata key {key!r} holds a list", remedy="a collection's takes single values")
