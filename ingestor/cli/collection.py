"""`ingestor query` and `ingestor status`: the commands that only read."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.chosen import (
    CollectionOption,
    IdOption,
    WhereDocumentOption,
    WhereOption,
    parsed,
    parsed_object,
)
from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, moment, out, print_json, print_rows, shown, sized
from ingestor.cli.rebuild import told_kept, told_unfinished
from ingestor.core.errors import ConfigError

if TYPE_CHECKING:
    from ingestor.app.status import Cost, Status
    from ingestor.core.model import Hit

_EXCERPT_CHARACTERS = 240


def query(  # noqa: PLR0913, PLR0917 - the options of the command
    text: Annotated[str | None, typer.Argument(help="The question.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="How many hits.")] = 5,
    where: WhereOption = None,
    where_document: WhereDocumentOption = None,
    id_: IdOption = None,
    embedding: Annotated[str | None, typer.Option(help="A vector, instead of a question.", metavar="JSON")] = None,
    collection: CollectionOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Search the collection by meaning, beside a running daemon or without one."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug)
        filters = {
            "where": parsed_object("--where", where),
            "where_document": parsed_object("--where-document", where_document),
        }
        asked = _asked(text, embedding)
        import asyncio

        from ingestor.app import query as app
        from ingestor.app.shape import hit_json

        hits = asyncio.run(
            app.query(loaded.settings, asked, limit=limit, ids=id_ or [], collection=collection, **filters)
        )
        if as_json:
            print_json([hit_json(hit) for hit in hits])
        else:
            for hit in hits:
                _print(hit)
            if not hits:
                out.print("nothing found")


def status(config: ConfigOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Tell what is indexed, what is queued, and whether a daemon is alive."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug)
        from ingestor.app import status as app
        from ingestor.app.shape import statuses_json

        found = app.status(loaded.settings)
        if as_json:
            print_json(statuses_json(found))
        else:
            for each in found:
                _print_status(each)


def _asked(text: str | None, embedding: str | None) -> Any:  # noqa: ANN401 - whatever JSON holds, until it is checked
    if (text is None) == (embedding is None):
        raise ConfigError("a search is for a question or for a vector", remedy="give TEXT or --embedding, one of them")
    return text if embedding is None else parsed("--embedding", embedding, "[0.1, -0.2, 0.3]")


def _print(hit: "Hit") -> None:
    metadata = hit.metadata
    place = hit.id
    if "source" in metadata:
        place = f"{metadata['source']}:{metadata.get('start_line', '?')}-{metadata.get('end_line', '?')}"
    if page := metadata.get("page"):
        place += f" (page {page})"
    heading = metadata.get("heading") or metadata.get("title") or ""
    excerpt = " ".join(hit.document.split())
    if len(excerpt) > _EXCERPT_CHARACTERS:
        excerpt = excerpt[: _EXCERPT_CHARACTERS - 1] + "…"
    out.print_verbatim(f"[bold]{hit.score:.3f}[/]  [cyan]{shown(place)}[/]  {shown(str(heading))}")
    out.print_verbatim(f"       {shown(excerpt)}\n")


def _money(cost: "Cost") -> str:
    return f", {cost.amount:.4f} {cost.currency}".rstrip() if cost.amount else ""


def _store(found: "Status", lookups: int, hits: int) -> str:
    size = f"{sized(found.vectors_bytes)} of {sized(found.max_vectors_bytes)}"
    return f"{size}, {hits} of {lookups} texts found there ({hits / lookups:.0%})" if lookups else size


def _print_status(found: "Status") -> None:
    from ingestor.app.shape import status_json
    from ingestor.engine.reconcile import CONVERTER_REMEDY

    if found.source:
        out.print(f"[bold]{shown(found.source)}[/]")
    fields = status_json(found)
    daemon = found.daemon
    alive = f"`ingestor {daemon.command}` with process id {daemon.pid}" if daemon else "not running"
    since = f", since {moment(daemon.started_seconds)}" if daemon else ""
    reconcile = found.last_reconcile
    scanned = "never"
    if reconcile:
        scanned = (
            f"{moment(reconcile['at_seconds'])} ({reconcile['same']} as known, {reconcile['present']} new or changed, "
            f"{reconcile['gone']} gone)"
        )
    usage = fields["embedding"]
    rows = {
        "daemon": alive + since,
        **({"http": daemon.http_url} if daemon and daemon.http_url else {}),
        "folder": f"{found.watch_dir} ({found.watching})" if found.watching else found.watch_dir,
        "collection": f"{found.collection} at {found.chroma}",
        "documents": f"{fields['documents']} ({fields['chunks']} chunks)",
        "queue": f"{fields['queued']} waiting, {fields['in_flight']} in work",
        "problems": str(fields["problems"]),
        "last reconcile": scanned,
        "embedding": f"{usage['requests']} requests, {usage['texts']} texts, {usage['tokens']} tokens"
        + _money(found.cost),
        "vector store": _store(found, usage["lookups"], usage["hits"]),
    }
    if found.tombstones:
        rows["deleted"] = f"{found.tombstones} records that the index still holds"
    if found.cost.tokens_per_day is not None:
        rows["today"] = f"{found.cost.tokens_today} of {found.cost.tokens_per_day} tokens"
    if found.held_deletions:
        rows["held back"] = f"{found.held_deletions} deletions, until `ingestor approve` or the files come back"
    if reconcile and (left_out := reconcile.get("unconverted")):
        rows["left out"] = f"{left_out} files that nothing here converts to text: {CONVERTER_REMEDY}"
    if found.outage:
        rows["outage"] = found.outage
    if found.unfinished:
        rows["rebuild"] = told_unfinished(found.unfinished)
    if found.kept:
        rows["kept"] = told_kept(found.kept)
    print_rows(rows)
