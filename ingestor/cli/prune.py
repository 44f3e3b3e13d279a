"""`ingestor prune`: the space and the speed that deleted records take."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, print_json, print_rows, sized
from ingestor.cli.signals import run_in_order

if TYPE_CHECKING:
    from ingestor.app.prune import Pruned


def prune(
    collection: Annotated[
        str, typer.Option("--collection", help="Which one, where several sources have one each.", metavar="NAME")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Get rid of what Chroma keeps of deleted records.

    Nothing is embedded. Stop a running daemon first; it compacts its collection by itself.
    """
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import prune as app

        found = run_in_order(app.prune(loaded.settings, collection))
        if as_json:
            print_json(_as_json(found))
        else:
            print_rows(_rows(found))


def _as_json(found: "Pruned") -> dict[str, Any]:
    return {
        "collection": found.collection,
        "records": found.records,
        "before": asdict(found.before),
        "after": asdict(found.after),
        "cleaned": asdict(found.cleaned) if found.cleaned else None,
        "seconds": found.seconds,
    }


def _rows(found: "Pruned") -> dict[str, str]:
    rows = {"collection": f"{found.collection} ({found.records} records)"}
    if found.before.tombstones is not None:
        rows["deleted"] = f"{found.before.tombstones} records in the index, now {found.after.tombstones}"
    if found.cleaned is None or found.before.bytes is None or found.after.bytes is None:
        rows["files"] = "they are the server's: ask its operator for `chroma vacuum` and for folders of no collection"
    else:
        rows["files"] = f"{sized(found.before.bytes)} before, {sized(found.after.bytes)} after"
        rows["orphaned"] = f"{found.cleaned.folders} folders and {found.cleaned.rows} rows, now none"
    return rows
