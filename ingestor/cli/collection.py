"""`ingestor query` and `ingestor status`: the commands that only read."""

from contextlib import suppress
from dataclasses import asdict
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
from ingestor.cli.output import errors_explained, out, print_json
from ingestor.cli.signals import run_in_order
from ingestor.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingestor.app.status import Status
    from ingestor.core.model import Hit
    from ingestor.settings import Settings

_SUMMED = ("documents", "chunks", "queued", "in_flight", "problems", "held_deletions")


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

        hits = asyncio.run(
            app.query(loaded.settings, asked, limit=limit, ids=id_ or [], collection=collection, **filters)
        )
        if as_json:
            print_json([_as_json(hit) for hit in hits])
        else:
            from ingestor.cli.hits import print_hit

            for hit in hits:
                print_hit(hit, text or "", app.file_of(loaded.settings, hit, collection))
            if not hits:
                out.print("nothing found")


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew each second, until Ctrl-C.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell how the collection is: what is indexed, what is queued, what it cost, and whether a daemon is alive."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug)
        if watch:
            _watch(loaded.settings, as_json=as_json)
            return
        from ingestor.app import status as app

        found = app.status(loaded.settings)
        if as_json:
            print_json(_status_json(found[0]) if len(found) == 1 else _sources_json(found))
        else:
            from ingestor.cli.panel import print_status

            print_status(found)


def _watch(settings: "Settings", *, as_json: bool) -> None:
    if as_json:
        raise ConfigError("--watch is for people, and --json for programs", remedy="give one of them")
    from ingestor.cli.panel import watch

    with suppress(KeyboardInterrupt):  # that is how it is ended
        run_in_order(watch(settings))


def _asked(text: str | None, embedding: str | None) -> Any:  # noqa: ANN401 - whatever JSON holds, until it is checked
    if (text is None) == (embedding is None):
        raise ConfigError("a search is for a question or for a vector", remedy="give TEXT or --embedding, one of them")
    return text if embedding is None else parsed("--embedding", embedding, "[0.1, -0.2, 0.3]")


def _as_json(hit: "Hit") -> dict[str, Any]:
    metadata = hit.metadata
    return {
        "id": hit.id,
        "score": round(hit.score, 6),
        "distance": round(hit.distance, 6),
        "source": metadata.get("source"),
        "start_line": metadata.get("start_line"),
        "end_line": metadata.get("end_line"),
        "heading": metadata.get("heading"),
        "document": hit.document,
        "metadata": dict(metadata),
    }


def _status_json(found: "Status") -> dict[str, Any]:
    from ingestor.core.model import Usage

    totals = found.totals
    return {
        "watch_dir": found.watch_dir,
        "data_dir": found.data_dir,
        "collection": found.collection,
        "chroma": found.chroma,
        "daemon": asdict(found.daemon) if found.daemon else None,
        "documents": totals.documents if totals else 0,
        "chunks": totals.chunks if totals else 0,
        "tombstones": found.tombstones,
        "queued": totals.queued if totals else 0,
        "in_flight": totals.in_flight if totals else 0,
        "problems": totals.problems + totals.retrying + found.unreadable_folders if totals else 0,
        "embedding": asdict(totals.usage if totals else Usage()),
        "cost": asdict(found.cost),
        "vectors": {"bytes": found.vectors_bytes, "max_bytes": found.max_vectors_bytes},
        "held_deletions": found.held_deletions,
        "last_reconcile": found.last_reconcile,
        "watching": found.watching,
        "outage": found.outage,
        "rebuild": {
            "unfinished": found.unfinished.as_json() if found.unfinished else None,
            "kept": found.kept.as_json() if found.kept else None,
        },
    }


def _sources_json(found: "Sequence[Status]") -> dict[str, Any]:
    """Sums, and what there is to tell of each source."""
    each = {status.source: _status_json(status) for status in found}
    shared = {name: next(iter(each.values()))[name] for name in ("data_dir", "chroma", "daemon", "vectors")}
    sums = {name: sum(fields[name] for fields in each.values()) for name in _SUMMED}
    return shared | sums | {"sources": each}
