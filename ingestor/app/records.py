"""Records, read and written by hand beside those of the files.

Invariants: a record that belongs to a file is changed by nobody but the file; what is asked for is done for all the
chosen records or, as far as it can be told before, for none. A text is embedded by the collection's own recipe, through
the vector store, so that it is paid for once.
"""

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.chroma_records import ChromaRecords
from ingestor.adapters.chroma_sink import RECIPE_KEY, refuse_other_recipe
from ingestor.adapters.instance import Instance
from ingestor.app.collection import configured, indexed, open_client, refuse_renamed, settings_for, sink_of
from ingestor.app.collections import found, refuse_memory
from ingestor.app.embed import running_model, text_of
from ingestor.app.embedder import recipe_of
from ingestor.app.parts import ledger_of
from ingestor.app.status import relative_path
from ingestor.core.errors import (
    ConfigError,
    OversizeDocument,
    RecipeMismatch,
    TransientError,
    UnreadableDocument,
)
from ingestor.core.handmade import (
    HandMade,
    checked_id,
    checked_text,
    checked_vector,
    named_ids,
    refuse_disguise,
    refuse_files,
    refuse_repeats,
)
from ingestor.core.model import Purpose, Usage
from ingestor.core.profiles import profile_for
from ingestor.core.records import PARTS, Selection, StoredRecord
from ingestor.core.tokens import estimate_tokens
from ingestor.engine.verify import FOREIGN_NOTE
from ingestor.ports import Vector
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI


_NOTHING_SPENT = Usage()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """Records of a collection."""

    collection: str
    records: Sequence[StoredRecord]
    has_more: bool = False
    """Whether the selection has records beyond these."""


@dataclass(frozen=True, slots=True)
class Written:
    """Ids of the records that were written or deleted, and what embedding has cost."""

    collection: str
    ids: Sequence[str]
    usage: Usage = _NOTHING_SPENT


@dataclass(frozen=True, slots=True)
class Target:
    """A collection that is open."""

    row: CollectionRow
    records: ChromaRecords
    settings: Settings
    """Of the source that fills it, or the general ones."""

    @property
    def where(self) -> str:
        """For people."""
        return f"the collection {self.row.name!r}"


def count(settings: Settings, name: str | None) -> int:
    """How many records a collection holds: the named one, or the configured one."""
    with _opened(settings, name) as target:
        return target.records.count()


def get(  # noqa: PLR0913 - what may be chosen
    settings: Settings,
    name: str | None,
    selection: Selection,
    *,
    source: str = "",
    parts: Sequence[str] = PARTS[:2],
    limit: int,
    offset: int = 0,
) -> Page:
    """Some records of a collection, and whether there are more; `source` is the path of a file.

    Raises `ConfigError` for ids that there are not, and for filters that Chroma refuses.
    """
    if source:
        of_file: Mapping[str, Any] = {"source": relative_path(settings, source)}
        both = {"$and": [of_file, selection.where]} if selection.where else of_file
        selection = replace(selection, where=both)
    with _opened(settings, name) as target:
        held(target, selection.ids)
        records = target.records.get(selection, parts, limit + 1, offset)
        return Page(target.row.name, records[:limit], has_more=len(records) > limit)


def add(  # noqa: PLR0913 - the parts of records
    settings: Settings,
    name: str | None,
    *,
    texts: Sequence[str],
    ids: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]],
    embeddings: Sequence[object],
    replaces: bool,
) -> Written:
    """Add records, or with `replaces` change those that exist; each part is given once a record.

    A single one of `metadatas` is that of all. Without `ids` the records get their own. Raises `ConfigError` for what
    is none, does not fit together or belongs to a file, `RecipeMismatch` when texts would need another model.
    """
    number = max(len(texts), len(embeddings))
    if not number:
        raise ConfigError("there is nothing to add", remedy="give --document, --file or --embedding")
    records = _made(number, ids, texts, metadatas)
    with _opened(settings, name, is_made=True) as target:
        records = _with_given_vectors(target, records, embeddings)
        there = target.records.held([record.id for record in records])
        refuse_files(there)
        if there and not replaces:
            raise ConfigError(
                f"{target.where} has records of these ids already: {named_ids(list(there))}",
                remedy="choose other ids, or write over them with --upsert",
            )
        _refuse_merged_disguise(records, there)
        records, usage = _with_vectors(target, records)
        target.records.put(records, replaces=replaces)
        _note_foreign(settings, target, len(records) - len(there))
        return Written(target.row.name, [record.id for record in records], usage)


def update(  # noqa: PLR0913 - the parts of records
    settings: Settings,
    name: str | None,
    *,
    ids: Sequence[str],
    texts: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]],
    embeddings: Sequence[object],
) -> Written:
    """Change records that exist; a part is given once a record, or not at all. A new text is embedded anew.

    Keys of the metadata are merged into what is there, and null takes one away. Raises as `add`.
    """
    if not texts and not metadatas and not embeddings:
        raise ConfigError("nothing is to be changed", remedy="give --document, --metadata or --embedding")
    records = _made(len(ids), ids, texts, metadatas)
    with _opened(settings, name) as target:
        records = _with_given_vectors(target, records, embeddings)
        there = held(target, ids)
        refuse_files(there)
        _refuse_merged_disguise(records, there)
        records, usage = _with_vectors(target, records)
        target.records.update(records)
        return Written(target.row.name, list(ids), usage)


def chosen(settings: Settings, name: str | None, selection: Selection) -> Sequence[str]:
    """Ids of the records that `delete` would take away. Raises as `delete`."""
    with _opened(settings, name) as target:
        return _chosen(target, selection)


def delete(settings: Settings, name: str | None, selection: Selection) -> Written:
    """Delete records. Raises `ConfigError` for ids that there are not, and when one of them belongs to a file."""
    with _opened(settings, name) as target:
        ids = _chosen(target, selection)
        target.records.delete(ids)
        _note_foreign(settings, target, -len(ids))
        return Written(target.row.name, ids)


def read_file(settings: Settings, path: Path) -> str:
    """A file's text. Raises `UnreadableDocument`, `OversizeDocument`, `UndecodableDocument`."""
    most = settings.watch.max_file_bytes
    try:
        with path.open("rb") as opened:
            raw = opened.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableDocument(f"the file {path} cannot be read: {reason}", remedy="check --file") from error
    if len(raw) > most:
        message = f"the file {path} has more than {most:,} bytes (watch.max_file_bytes)"
        raise OversizeDocument(message, remedy="put it into the watched folder, where it is cut")
    return text_of(raw)


@contextmanager
def _opened(settings: Settings, name: str | None, *, is_made: bool = False) -> Iterator[Target]:
    """Open a collection as it is; with `is_made`, the configured one is made when it is missing."""
    refuse_memory(settings)
    own = settings_for(settings, name or "")
    running = Instance(settings.data_dir).running() if is_made else indexed(settings)
    with ExitStack() as stack:
        client = open_client(settings, running, stack)
        yield opened_target(own, client, is_ours=own.chroma.collection in configured(settings), is_made=is_made)


def opened_target(settings: Settings, client: "ClientAPI", *, is_ours: bool, is_made: bool = False) -> Target:
    """The collection of these settings, as it is; `is_ours`: a source fills it. Raises `ConfigError` for none."""
    name = settings.chroma.collection
    catalog = ChromaCatalog(client)
    if is_ours:
        refuse_renamed(settings, client)
        if is_made and catalog.find(name) is None:
            sink_of(settings, client)
    return Target(found(catalog, name), ChromaRecords(client, name), settings)


def refuse_texts(target: Target) -> None:
    """Raise when texts cannot be compared with what a collection holds: `RecipeMismatch`, `ConfigError`."""
    if RECIPE_KEY not in target.row.metadata:
        raise ConfigError(
            f"{target.where} was not made by ingestor, and nobody knows its model",
            remedy="give --embedding with the vector",
        )
    refuse_other_recipe(target.row.name, target.row.metadata, recipe_of(target.settings.embedding))


def _made(
    number: int, ids: Sequence[str], texts: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
) -> list[HandMade]:
    """Records without their vectors, of parts that fit together."""
    for option, given in (("--id", len(ids)), ("--document or --file", len(texts)), ("--metadata", len(metadatas))):
        if given not in {0, number} and (option != "--metadata" or given != 1):
            message = f"{option} is given {given} times, for {number} record{'s' if number > 1 else ''}"
            raise ConfigError(message, remedy="give each once a record")
    refuse_repeats(ids)
    shared = list(metadatas) * number if len(metadatas) == 1 else metadatas
    return [
        HandMade(
            checked_id(ids[place]) if ids else str(uuid.uuid4()),
            checked_text(texts[place]) if texts else None,
            shared[place] if shared else None,
        )
        for place in range(number)
    ]


def _with_given_vectors(target: Target, records: Sequence[HandMade], embeddings: Sequence[object]) -> list[HandMade]:
    if not embeddings:
        return list(records)
    if len(embeddings) != len(records):
        message = f"--embedding is given {len(embeddings)} times, for {len(records)} records"
        raise ConfigError(message, remedy="give each once a record")
    vectors = [checked_vector(embeddings[0], target.row.dimensions, target.where)]
    vectors += [checked_vector(each, len(vectors[0]), target.where) for each in embeddings[1:]]
    return [replace(record, vector=vector) for record, vector in zip(records, vectors, strict=True)]


def _with_vectors(target: Target, records: Sequence[HandMade]) -> tuple[list[HandMade], Usage]:
    """The records with the vectors of their texts, where none was given, and what these have cost."""
    settings = target.settings
    lacking = [record.text for record in records if record.vector is None and record.text is not None]
    made, usage = list(records), Usage()
    if lacking:
        refuse_texts(target)
        refuse_long(settings, lacking)
        vectors, usage = asyncio.run(_embedded(settings, lacking))
        if target.row.dimensions not in {0, len(vectors[0])}:
            raise RecipeMismatch(
                f"{target.where} holds vectors of {target.row.dimensions} dimensions, and the model gives "
                f"{len(vectors[0])}",
                remedy="take the old embedding settings back, or choose another collection",
            )
        by_text = dict(zip(lacking, vectors, strict=True))
        made = [
            replace(record, vector=by_text[record.text])
            if record.vector is None and record.text is not None
            else record
            for record in records
        ]
    lengths = {len(record.vector) for record in made if record.vector is not None}
    if lengths:
        target.records.note_dimensions(lengths.pop())
    return made, usage


async def _embedded(settings: Settings, texts: Sequence[str]) -> tuple[list[Vector], Usage]:
    async with running_model(settings, settings.embedding) as model:
        return await model.vectors(texts, Purpose.DOCUMENT), model.usage


def refuse_long(settings: Settings, texts: Sequence[str]) -> None:
    """Raise `ConfigError` for a text over the model's limit: some providers cut it off without a word."""
    profile = profile_for(settings.embedding.provider, settings.embedding.model_name)
    recipe = recipe_of(settings.embedding)
    for text in texts:
        tokens = estimate_tokens(recipe.text_to_send(text))
        if tokens > profile.max_text_tokens:
            raise ConfigError(
                f"a document of about {tokens:,} tokens is over the limit of {profile.model}: "
                f"{profile.max_text_tokens:,} tokens a text",
                remedy="cut it into parts, or put it as a file into the watched folder, where it is cut",
            )


def held(target: Target, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Metadata of the records of these ids. Raises `ConfigError` when one of them does not exist."""
    refuse_repeats(ids)
    there = target.records.held(ids)
    missing = [identity for identity in ids if identity not in there]
    if missing:
        raise ConfigError(
            f"{target.where} has no record {named_ids(missing)}",
            remedy="`ingestor get` and `ingestor peek` list the records that there are",
        )
    return there


def _chosen(target: Target, selection: Selection) -> Sequence[str]:
    if selection.is_all:
        raise ConfigError("nothing says which records", remedy="give --id, --where or --where-document")
    there = held(target, selection.ids)
    if selection.where is not None or selection.where_document is not None:
        records = target.records.get(selection, ["metadatas"])
        there = {record.id: record.metadata or {} for record in records}
    refuse_files(there)
    return list(there)


def _refuse_merged_disguise(records: Sequence[HandMade], there: Mapping[str, Mapping[str, Any]]) -> None:
    for record in records:
        refuse_disguise(record.id, {**there.get(record.id, {}), **(record.metadata or {})})


def _note_foreign(settings: Settings, target: Target, difference: int) -> None:
    """Let the daemon's patrol know how many more records are nobody's file; without this it looks at all of them."""
    try:
        for each in settings.each():
            if each.chroma.collection != target.row.name or not difference:
                continue
            with ledger_of(each) as ledger:
                if ledger is not None:
                    noted = int(ledger.note(FOREIGN_NOTE) or 0)
                    ledger.set_note(FOREIGN_NOTE, str(max(0, noted + difference)))
    except TransientError as error:
        # What was asked for is done, and the patrol finds out by itself.
        _log.warning("foreign_records.not_noted", reason=str(error), remedy=error.remedy)
