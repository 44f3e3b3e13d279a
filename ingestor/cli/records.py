"""`ingestor count`, `peek`, `get`, `add`, `update` and `delete`: records, read and written by hand."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.chosen import (
    CollectionOption,
    IdOption,
    MetadataOption,
    WhereDocumentOption,
    WhereOption,
    YesOption,
    confirm,
    parsed,
    parsed_object,
)
from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, out, print_json, shown
from ingestor.core.errors import ConfigError
from ingestor.core.escaping import spelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingestor.app.records import Page, Written
    from ingestor.core.records import Selection, StoredRecord
    from ingestor.settings import Settings

_METADATA = '{"author": "Ada"}'
_VECTOR = "[0.1, -0.2, 0.3]"
_EXCERPT_CHARACTERS = 240
_SHOWN_NUMBERS = 4


class Part(StrEnum):
    """What a record consists of, besides its id."""

    DOCUMENTS = "documents"
    METADATAS = "metadatas"
    EMBEDDINGS = "embeddings"
    URIS = "uris"


DocumentOption = Annotated[
    list[str] | None,
    typer.Option("--document", help="Text of a record; may be repeated; - is standard input.", metavar="TEXT"),
]
EmbeddingOption = Annotated[
    list[str] | None,
    typer.Option("--embedding", help="Vector of a record, instead of the model's; may be repeated.", metavar="JSON"),
]


def count(
    collection: CollectionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Count the records of a collection."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import records as work

        number = work.count(loaded.settings, collection)
        if as_json:
            print_json({"collection": collection or loaded.settings.chroma.collection, "count": number})
        else:
            out.print(str(number))


def peek(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="How many records.", metavar="N")] = 10,
    collection: CollectionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the first records of a collection, with a glance at their vectors."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import records as work

        parts = [Part.DOCUMENTS, Part.METADATAS, Part.EMBEDDINGS]
        _show(work.get(loaded.settings, collection, _selection(), parts=parts, limit=limit), as_json=as_json)


def get(  # noqa: PLR0913, PLR0917 - the options of the command
    id_: IdOption = None,
    source: Annotated[str, typer.Option(help="Records of this file.", metavar="PATH")] = "",
    where: WhereOption = None,
    where_document: WhereDocumentOption = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=1, max=100_000, help="How many records at most.", metavar="N")
    ] = 100,
    offset: Annotated[int, typer.Option(min=0, help="How many records to pass over.", metavar="N")] = 0,
    include: Annotated[
        str, typer.Option(help="What to show of: documents, metadatas, embeddings, uris.", metavar="PARTS")
    ] = "documents,metadatas",
    collection: CollectionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show records by id, by file, or by what they hold."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        chosen = _selection(id_, where, where_document)
        parts = _parts(include)
        from ingestor.app import records as work

        page = work.get(loaded.settings, collection, chosen, source=source, parts=parts, limit=limit, offset=offset)
        _show(page, as_json=as_json)


def add(  # noqa: PLR0913, PLR0917 - the options of the command
    document: DocumentOption = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", help="File with the text of a record; may be repeated.", metavar="FILE"),
    ] = None,
    metadata: MetadataOption = None,
    id_: IdOption = None,
    embedding: EmbeddingOption = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Write over records of the same ids.")] = False,
    collection: CollectionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Add records by hand, which no sync touches: texts, embedded by the collection's model, or vectors of your own."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import records as work

        done = work.add(
            loaded.settings,
            collection,
            texts=_texts(loaded.settings, document, file),
            ids=id_ or [],
            metadatas=_metadatas(metadata),
            embeddings=_embeddings(embedding),
            replaces=upsert,
        )
        _tell(done, "written", as_json=as_json, are_told=not id_)


def update(  # noqa: PLR0913, PLR0917 - the options of the command
    id_: Annotated[list[str], typer.Option("--id", help="Id of a record; may be repeated.", metavar="ID")],
    document: DocumentOption = None,
    metadata: MetadataOption = None,
    embedding: EmbeddingOption = None,
    collection: CollectionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Change records that were added by hand; a new text is embedded anew, null takes a key of the metadata away."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import records as work

        done = work.update(
            loaded.settings,
            collection,
            ids=id_,
            texts=_texts(loaded.settings, document, None),
            metadatas=_metadatas(metadata, takes_away=True),
            embeddings=_embeddings(embedding),
        )
        _tell(done, "changed", as_json=as_json)


def delete(  # noqa: PLR0913, PLR0917 - the options of the command
    id_: IdOption = None,
    where: WhereOption = None,
    where_document: WhereDocumentOption = None,
    yes: YesOption = False,
    collection: CollectionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete records that were added by hand; asks first."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        selection = _selection(id_, where, where_document)
        from ingestor.app import records as work

        if not yes:
            found = work.chosen(loaded.settings, collection, selection)
            confirm(f"delete {len(found)} record{_plural(len(found))}?", is_agreed=not found)
            # Those that were asked about, and none that has come since.
            selection = _selection(list(found)) if found else selection
        _tell(work.delete(loaded.settings, collection, selection), "deleted", as_json=as_json)


def _selection(
    ids: "list[str] | None" = None, where: str | None = None, where_document: str | None = None
) -> "Selection":
    filters = {
        "where": parsed_object("--where", where),
        "where_document": parsed_object("--where-document", where_document, '{"$contains": "law"}'),
    }
    from ingestor.core.records import Selection

    return Selection(ids or [], **filters)


def _parts(include: str) -> list[str]:
    named = [name.strip() for name in include.split(",") if name.strip()]
    for name in named:
        if name not in set(Part):
            raise ConfigError(f"--include names {name!r}", remedy=f"choose from {', '.join(Part)}")
    return named


def _texts(settings: "Settings", documents: "list[str] | None", files: "list[Path] | None") -> list[str]:
    from ingestor.app import embed, records

    if [*(documents or []), *map(str, files or [])].count("-") > 1:
        raise ConfigError("standard input is read twice", remedy="give - once")

    def read() -> str:
        return embed.text_of(sys.stdin.buffer.read())

    texts = [read() if text == "-" else text for text in documents or []]
    return texts + [read() if str(file) == "-" else records.read_file(settings, file) for file in files or []]


def _metadatas(text: str | None, *, takes_away: bool = False) -> "Sequence[dict[str, Any]]":
    if text is None:
        return []
    value = parsed("--metadata", text, _METADATA)
    from ingestor.core.handmade import checked_metadata

    return [checked_metadata(each, takes_away=takes_away) for each in (value if isinstance(value, list) else [value])]


def _embeddings(texts: "list[str] | None") -> list[object]:
    return [parsed("--embedding", text, _VECTOR) for text in texts or []]


def _tell(done: "Written", verb: str, *, as_json: bool, are_told: bool = False) -> None:
    if as_json:
        usage = done.usage
        embedding = {"requests": usage.requests, "texts": usage.texts, "tokens": usage.tokens}
        print_json({"collection": done.collection, "ids": list(done.ids), "embedding": embedding})
        return
    for identity in done.ids if are_told else ():
        out.print_verbatim(shown(identity))
    number, plural = len(done.ids), _plural(len(done.ids))
    told = {
        "written": f"{number} record{plural} written",
        "changed": f"{number} record{plural} changed",
        "deleted": f"{number} record{plural} deleted",
    }
    out.print(told[verb])


def _plural(number: int) -> str:
    return "" if number == 1 else "s"


def _show(page: "Page", *, as_json: bool) -> None:
    if as_json:
        records = [_as_json(record) for record in page.records]
        print_json({"collection": page.collection, "records": records, "has_more": page.has_more})
        return
    for record in page.records:
        _print(record)
    if page.has_more:
        out.print("… and more: --limit and --offset show them")
    if not page.records:
        out.print("no records")


def _as_json(record: "StoredRecord") -> dict[str, Any]:
    parts = {
        "document": record.document,
        "metadata": dict(record.metadata) if record.metadata is not None else None,
        "embedding": record.embedding.tolist() if record.embedding is not None else None,
        "uri": record.uri,
    }
    return {"id": spelled(record.id), **{name: part for name, part in parts.items() if part is not None}}


def _print(record: "StoredRecord") -> None:
    out.print_verbatim(f"[bold]{shown(record.id)}[/]")
    if record.document is not None:
        excerpt = " ".join(record.document.split())
        if len(excerpt) > _EXCERPT_CHARACTERS:
            excerpt = excerpt[: _EXCERPT_CHARACTERS - 1] + "…"
        out.print_verbatim(f"       {shown(excerpt)}")
    if record.metadata:
        pairs = ", ".join(f"{key}={value}" for key, value in sorted(record.metadata.items()))
        out.print_verbatim(f"       {shown(pairs)}")
    if record.uri is not None:
        out.print_verbatim(f"       {shown(record.uri)}")
    if record.embedding is not None:
        numbers = ", ".join(f"{number:.4f}" for number in record.embedding[:_SHOWN_NUMBERS])
        out.print(f"       {len(record.embedding)} dimensions: {numbers}…")
