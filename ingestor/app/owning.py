"""Owning, put together: the collection of this data folder claimed, before anything is written to it.

Where the database lies in the data folder nobody else can have it, and whatever is in there is this data folder's.
Elsewhere the collection's own metadata decides (`core/owning.py`). A collection that names no owner was made before
collections did: it belongs to the data folder whose ledger speaks of it, or to whoever comes first while no document of
ingestor's is in it.

Invariant: the id of a data folder is that of its owner file, or else that of its ledgers; it is made anew only when
both are lost.
"""

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.chroma_faults import translation
from ingestor.adapters.chroma_hold import ANOTHER_NAME, PART_COPY, TAKE_OVER, Hold, another_owner, orphaned, rivalled
from ingestor.adapters.chroma_records import ChromaRecords
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.adapters.owner_file import OwnerFile, place_of, where_of
from ingestor.app.parts import OWNER_NOTE
from ingestor.core.errors import ForeignCollection, IngestorError, ServiceUnavailable
from ingestor.core.fingerprint import is_owned, owner_tag_of
from ingestor.core.owning import (
    BEAT_KEY,
    OWNER_KEY,
    PLACE_KEY,
    PROCESS_KEY,
    Owner,
    Standing,
    former_of,
    is_fresh,
    labels,
    left_seconds,
    standing,
    told,
)
from ingestor.core.records import Selection
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.ports import MAX_READ
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_LEDGERS = "ledger*.sqlite3"
_OF_DOCUMENTS = Selection(where={"chunk": {"$gte": 0}})
"""What every record of a document has, and few others."""
_SECOND_LOOK_SECONDS = 0.5
"""Two newcomers may claim a collection at one moment: whoever has written last has it."""
_RELEASE_SECONDS = 2.0
"""How long the end of a process may be held up by saying so: a Chroma that hangs would hold it up for a minute."""

_log = structlog.get_logger(__name__)


def claim(sources: Sequence[Settings], client: "ClientAPI", *, takes_over: bool = False) -> Hold:
    """The hold on the collection that these sources fill, which `open_sink` writes down.

    Raises `ForeignCollection` for one that is not theirs, `ServiceUnavailable` while it cannot be told whether another
    process is at work with the same id.
    """
    settings = sources[0]
    name = settings.chroma.collection
    file = OwnerFile(settings.data_dir)
    owner = _owner(sources, file)
    row = ChromaCatalog(client).find(name)
    held: Mapping[str, Any] = row.metadata if row is not None else {}
    before = str(held.get(OWNER_KEY, ""))
    is_shared = settings.chroma.mode in {"http", "cloud"}
    with translation("asking Chroma for the time", ServiceUnavailable):
        now_seconds = client.heartbeat() / 1_000_000_000
    if row is not None and not takes_over and not _is_private(settings):
        try:
            _judge(row, owner, settings, client, now_seconds)
        except ForeignCollection as error:
            file.note_refusal(name, error.sentence)
            raise
    if takes_over and row is not None and not before:
        owner = replace(owner, former=owner.former | set(_tags(row, client)))
    if before not in {"", owner.id}:
        _log.warning("collection.taken_over", collection=name, former=told(held))
    return Hold(
        labels(owner, held, uuid.uuid4().hex, beat_seconds=now_seconds if is_shared else 0),
        is_shared=is_shared,
        is_new=before != owner.id,
        predecessor=str(held.get(PROCESS_KEY, "")),
        on_rival=file.note_rival,
    )


def settle(sources: Sequence[Settings], sink: ChromaSink, hold: Hold) -> None:
    """Make sure that a claim that was written down is the one that stands. Raises `ForeignCollection`."""
    settings = sources[0]
    if hold.is_new and not _is_private(settings):
        time.sleep(_SECOND_LOOK_SECONDS)
        sink.confirm()
    _note(settings, hold)


def make_own(sources: Sequence[Settings], client: "ClientAPI", *, takes_over: bool = False) -> None:
    """See that a collection is the one of these sources, before another is put in its place; one that is not there is.

    Raises what `claim` raises.
    """
    settings = sources[0]
    row = ChromaCatalog(client).find(settings.chroma.collection)
    if row is None:
        return
    hold = claim(sources, client, takes_over=takes_over)
    if takes_over:
        ChromaCatalog(client).modify(row, hold.labels, {})
        _note(settings, hold)


def release(sink: ChromaSink) -> None:
    """Say that this process has ended its work, unless that takes long: then the next one elsewhere waits a while."""

    def say() -> None:
        try:
            sink.release()
        except IngestorError as error:
            _log.info("collection.not_released", reason=str(error))

    saying = threading.Thread(target=say, name="release", daemon=True)
    saying.start()
    saying.join(_RELEASE_SECONDS)


def _note(settings: Settings, hold: Hold) -> None:
    OwnerFile(settings.data_dir).claimed(
        settings.chroma.collection,
        str(hold.labels[OWNER_KEY]),
        str(hold.labels[PLACE_KEY]),
        former_of(hold.labels),
    )


def refusal_of(settings: Settings, name: str, metadata: Mapping[str, Any]) -> ForeignCollection | None:
    """Why a collection is another data folder's, as far as its metadata says; None when it may be this one's."""
    if _is_private(settings) or metadata.get(OWNER_KEY) in {None, _owner([settings], OwnerFile(settings.data_dir)).id}:
        return None
    return another_owner(name, metadata)


def _owner(sources: Sequence[Settings], file: OwnerFile) -> Owner:
    data_dir = sources[0].data_dir
    folders = dict.fromkeys(str(each.watch_dir.absolute()) for each in sources)
    return Owner(
        id=file.id or _note_of_ledgers(sources[0]) or uuid.uuid4().hex,
        place=place_of(data_dir),
        where=where_of(data_dir),
        sources=", ".join(folders),
        former=file.former,
    )


def _note_of_ledgers(settings: Settings) -> str:
    """The id that the ledgers have noted; empty when none has."""
    files = LedgerFiles(settings.data_dir)
    notes = (files.note(path.name, OWNER_NOTE) for path in sorted(settings.data_dir.glob(_LEDGERS)))
    return next(filter(None, notes), "")


def _judge(row: CollectionRow, owner: Owner, settings: Settings, client: "ClientAPI", now_seconds: float) -> None:
    file = OwnerFile(settings.data_dir)
    recalled = file.recalled(row.name)
    found = standing(row.metadata, owner, recalled, now_seconds)
    match found:
        case Standing.ANOTHERS if row.metadata.get(PLACE_KEY) == owner.place:
            raise orphaned(row.name, row.metadata)
        case Standing.ANOTHERS:
            raise another_owner(row.name, row.metadata, is_at_work=is_fresh(row.metadata, now_seconds))
        case Standing.COPIED:
            raise ForeignCollection(
                f"the collection {row.name!r} was filled meanwhile by a copy of this data folder: {told(row.metadata)}",
                remedy=f"{PART_COPY}, {TAKE_OVER}",
            )
        case Standing.RIVALLED:
            raise rivalled(row.name, row.metadata)
        case Standing.BUSY:
            file.note_rival(str(row.metadata.get(PROCESS_KEY, "")), float(row.metadata.get(BEAT_KEY) or 0))
            raise ServiceUnavailable(
                f"a process with a copy of this data folder may be at work on the collection {row.name!r}: "
                f"{told(row.metadata)}",
                remedy=f"if it has ended: try again in {left_seconds(row.metadata, now_seconds):.0f} s",
            )
        case Standing.UNOWNED if not _is_known(row, settings) and next(_tags(row, client), None) is not None:
            raise ForeignCollection(
                f"the collection {row.name!r} holds documents of an unknown data folder",
                remedy=f"{ANOTHER_NAME}, {TAKE_OVER}",
            )
        case Standing.OWN if recalled.place != owner.place and (original := file.original()):
            raise ForeignCollection(
                f"the data folder {settings.data_dir} is a copy of {original} that fills the collection {row.name!r}",
                remedy=f"{PART_COPY}, {TAKE_OVER}",
            )


def _is_known(row: CollectionRow, settings: Settings) -> bool:
    """Whether a ledger of the data folder speaks of a collection."""
    files = LedgerFiles(settings.data_dir)
    names = (path.name for path in settings.data_dir.glob(_LEDGERS))
    return any(files.note(name, COLLECTION_NOTE) == row.id for name in names)


def _tags(row: CollectionRow, client: "ClientAPI") -> Iterator[str]:
    """The tags of the owners of all documents in a collection, one for each record."""
    records, seen = ChromaRecords(client, row.name), 0
    while page := records.get(_OF_DOCUMENTS, ["metadatas"], MAX_READ, seen):
        for record in page:
            if is_owned(record.id, record.metadata):
                yield owner_tag_of(str((record.metadata or {})["document_id"]))
        seen += len(page)


def _is_private(settings: Settings) -> bool:
    """Whether the database ends with the process or lies in the data folder, so that nobody else can have it."""
    if settings.chroma.mode == "memory":
        return True
    if settings.chroma.mode not in {"managed", "persistent"}:
        return False
    database, data_dir = (os.path.realpath(path) for path in (settings.chroma_path, settings.data_dir))
    return os.path.commonpath([database, data_dir]) == data_dir
