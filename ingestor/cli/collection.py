"""`ingestor query` and `ingestor status`: the commands that only read."""

from contextlib import suppress
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
    from ingestor.settings import Settings


def query(  # noqa: PLR0913, PLR0917 - the options of the command
    text: Annotated[str | None, typer.Argument(help="The question.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="How many hits.", metavar="N")] = 5,
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
        from ingestor.app.shape import statuses_json

        found = app.status(loaded.settings)
        if as_json:
            print_json(statuses_json(found))
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
