"""Compaction, put together: the copy of a collection, the switch to it, and the end of what was replaced."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.chroma_cleaning import index_elements, remove_orphans
from ingestor.adapters.chroma_copy import ChromaCopy
from ingestor.adapters.chroma_sink import RECIPE_KEY
from ingestor.app.embedder import recipe_of
from ingestor.app.parts import Sourced, vectors_of
from ingestor.app.switch import begin, pending
from ingestor.core.compacting import aside_name, copy_name, is_left_over
from ingestor.core.errors import CollectionLost, TransientError
from ingestor.core.fingerprint import vector_key
from ingestor.core.switching import Swap, Switch
from ingestor.engine.compaction import Compactor
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import Vector
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI


def compactors_of(sources: Sequence[Sourced], pipelines: Sequence[Pipeline]) -> list[Compactor]:
    """What looks after the index of each collection while the pipelines that fill it run."""
    filling: dict[str, list[int]] = {}
    for place, each in enumerate(sources):
        filling.setdefault(each.settings.chroma.collection, []).append(place)
    return [
        _compactor_of([sources[place] for place in places], [pipelines[place] for place in places])
        for places in filling.values()
    ]


def _compactor_of(sources: Sequence[Sourced], pipelines: Sequence[Pipeline]) -> Compactor:
    settings, sink = sources[0].settings, sources[0].sink
    ledgers = [each.settings.ledger_file for each in sources]
    copy = copy_of(settings, sink.client)

    def switch() -> None:
        try:
            sink.confirm()
            put_in_place(settings, sink.client, copy, ledgers)
            sink.reopen()
        except TransientError as error:
            if pending(settings) is None and sink.collection_id == _id_of(settings, sink.client):
                raise
            # What is written from now on would go to a collection that is on its way out.
            message = f"the switch to a compacted copy of {settings.chroma.collection!r} was interrupted: {error}"
            raise CollectionLost(message, remedy="start again: the switch is completed then") from error

    # Of a database that this very process has open, no file is opened a second time.
    is_beside = settings.chroma.mode == "managed"

    def count_index() -> int | None:
        return index_elements(settings.chroma_path, settings.chroma.collection) if is_beside else None

    return Compactor(
        pipelines,
        copy,
        switch=switch,
        retire=lambda: retire(settings, sink.client, with_graphs=is_beside),
        count_index=count_index,
        max_ratio=settings.chroma.max_tombstone_ratio,
    )


def _id_of(settings: Settings, client: "ClientAPI") -> str:
    """Id of the collection that bears the name; "" when that cannot be told."""
    try:
        row = ChromaCatalog(client).find(settings.chroma.collection)
    except TransientError:
        return ""
    return row.id if row else ""


def copy_of(settings: Settings, client: "ClientAPI", name: str = "") -> ChromaCopy:
    """A copy of the collection `name`, or of the one that the settings name, to be made."""
    recipe = recipe_of(settings.embedding)
    copied = name or settings.chroma.collection

    def paid(texts: Mapping[str, str]) -> Mapping[str, Vector]:
        keys = {id_: vector_key(recipe, recipe.text_to_send(text)) for id_, text in texts.items()}
        with contextlib.closing(vectors_of(settings)) as store:
            found = store.get(keys.values())
        return {id_: found[key] for id_, key in keys.items() if key in found}

    return ChromaCopy(client, copied, copy_name(copied), paid)


def put_in_place(
    settings: Settings, client: "ClientAPI", copy: ChromaCopy, ledgers: Sequence[str], name: str = ""
) -> None:
    """Let the copy bear the name, that of the settings unless another is given, with the ledgers of before.

    Raises what `resume` raises.
    """
    served = name or settings.chroma.collection
    begin(
        settings,
        client,
        Switch(
            name=served,
            serving_id=copy.source_id,
            aside_name=aside_name(served, copy.source_id),
            next_id=copy.copy_id,
            swaps=tuple(map(Swap, ledgers)),
        ),
    )


def retire(settings: Settings, client: "ClientAPI", name: str = "", *, with_graphs: bool = False) -> int:
    """Delete what compactions have left behind; returns how many collections.

    Where another process has the database open, the folders of all graphs without a collection go, too: those of what
    is deleted here, and those that a death in between has left.
    """
    catalog = ChromaCatalog(client)
    gone = [
        row
        for row in catalog.rows()
        if is_left_over(row.name, name or settings.chroma.collection) and RECIPE_KEY in row.metadata
    ]
    for row in gone:
        catalog.delete(row)
    if with_graphs:
        remove_orphans(settings.chroma_path)
    return len(gone)
