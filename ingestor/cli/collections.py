"""`ingestor collections`: the collections of the database, made, renamed, changed and deleted."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.chosen import MetadataOption, YesOption, confirm, group_only, parsed_object, tell
from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, out, print_json, shown, sized
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.app.collections import Listed

_EXAMPLE = '{"topic": "law"}'

HELP = "List the collections of the database; make, rename, change or delete one."

app = typer.Typer(rich_markup_mode=None)
NameArgument = Annotated[str, typer.Argument(help="Name of the collection.")]
EfSearchOption = Annotated[
    int | None, typer.Option(min=1, max=10_000, help="Candidates looked at by a search.", metavar="N")
]


class Space(StrEnum):
    """Distances."""

    COSINE = "cosine"
    L2 = "l2"
    IP = "ip"


@app.callback(invoke_without_command=True)
def collections(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List the collections of the database; make, rename, change or delete one. It lists them without a command."""
    with errors_explained(debug=debug):
        if group_only(context, "collections", config, as_json, debug):
            return
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import collections as work

        listed = work.listed(loaded.settings)
        if as_json:
            print_json([asdict(row) for row in listed])
        else:
            _print(listed)


def create(  # noqa: PLR0913, PLR0917 - the options of the command
    name: NameArgument,
    metadata: MetadataOption = None,
    space: Annotated[Space | None, typer.Option(help="Distance; cannot be changed later.")] = None,
    ef_construction: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Candidates looked at by an insertion.", metavar="N")
    ] = None,
    ef_search: EfSearchOption = None,
    max_neighbors: Annotated[
        int | None, typer.Option(min=2, max=512, help="Links of a record in the graph.", metavar="N")
    ] = None,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="Make it for vectors of any model, and not for the configured one.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a collection, ready for the configured model; what is not given is as in the settings."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import collections as work

        index: dict[str, Any] = {
            "space": space.value if space else None,
            "ef_construction": ef_construction,
            "ef_search": ef_search,
            "max_neighbors": max_neighbors,
        }
        given = {key: value for key, value in index.items() if value is not None}
        work.create(loaded.settings, name, _metadata(metadata), given, is_foreign=foreign)
        tell({"created": name}, f"made the collection {name}", as_json=as_json)


def rename(
    old: NameArgument,
    new: Annotated[str, typer.Argument(help="Its new name.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Rename a collection; the settings file follows, and nothing is embedded or written again."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import collections as work

        done = work.rename(loaded, config, old, new)
        sentence = f"renamed the collection {old} to {new}"
        if done.changed_file:
            sentence = f"renamed the collection {old} to {new}, and changed chroma.collection in {done.changed_file}"
        if done.to_change:
            sentence += f"\nnow, before anything else: {done.to_change}"
        tell(asdict(done), sentence, as_json=as_json)


def modify(  # noqa: PLR0913, PLR0917 - the options of the command
    name: NameArgument,
    metadata: MetadataOption = None,
    ef_search: EfSearchOption = None,
    sync_threshold: Annotated[
        int | None,
        typer.Option(min=2, max=1_000_000, help="Written rows after which the graph goes to the disk.", metavar="N"),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Change a collection's metadata (null takes a key away) or index; its distance and links stay."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import collections as work

        index = {"ef_search": ef_search, "sync_threshold": sync_threshold}
        given = {key: value for key, value in index.items() if value is not None}
        work.modify(loaded.settings, name, _metadata(metadata, takes_away=True), given)
        tell({"modified": name}, f"changed the collection {name}", as_json=as_json)


def fork(
    name: NameArgument,
    new: Annotated[str, typer.Argument(help="Name of the copy.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy a collection at once; only Chroma Cloud can."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import collections as work

        work.fork(loaded.settings, name, new)
        tell({"created": new}, f"made the collection {new} of {name}", as_json=as_json)


def delete(
    name: NameArgument,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete a collection with all its records; asks first."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import collections as work

        if not yes:
            count = work.records_of(loaded.settings, name)
            confirm(f"delete the collection {name} with its {count} records?", is_agreed=False)
        done = work.delete(loaded.settings, name)
        sentence = f"deleted the collection {done.name} with its {done.records} records"
        if done.was_configured:
            sentence += (
                "\nit is the configured one: the next `ingestor run` or `ingestor sync` makes it again and fills it "
                "from the folder for nothing; records that were added by hand are gone"
            )
        tell(asdict(done), sentence, as_json=as_json)


for _command in (create, rename, modify, fork, delete):
    # Given as a short help, what a command does is told in full in the list of all.
    app.command(_command.__name__, short_help=_command.__doc__)(_command)


def _metadata(text: str | None, *, takes_away: bool = False) -> dict[str, Any]:
    from ingestor.core.handmade import checked_metadata

    value = parsed_object("--metadata", text, _EXAMPLE)
    return {} if value is None else checked_metadata(value, takes_away=takes_away)


def _print(listed: "list[Listed]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("", "collection", "records", "distance", "model", "dimensions", "index", "owner"):
        is_number = heading in {"records", "dimensions", "index"}
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in listed:
        model = f"{row.provider}/{row.model}" if row.model else translated("not ours")
        table.add_row(
            "*" if row.is_configured else "",
            shown(row.name),
            f"{row.count:,}",
            row.space,
            shown(model),
            str(row.dimensions or ""),
            "" if row.index_bytes is None else sized(row.index_bytes),
            shown(row.owner),
        )
    out.print(table if listed else "no collections")
    if any(row.is_configured for row in listed):
        out.print("* the configured one")
