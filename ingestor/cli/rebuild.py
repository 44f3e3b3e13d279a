"""`ingestor rebuild`: the collection built anew for other settings, without a moment in which nothing is found."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ingestor.cli.completion import collection_names
from ingestor.cli.options import ConfigOption, DebugOption, FolderArgument, JsonOption, TakeOverOption, settings_of
from ingestor.cli.output import (
    EXIT_OUT_OF_REACH,
    EXIT_PROBLEMS,
    err,
    errors_explained,
    out,
    print_json,
    print_rows,
    says_yes,
    shown,
)
from ingestor.cli.progress import progress_told
from ingestor.cli.signals import run_in_order
from ingestor.core.errors import ConfigError
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.app.beside import Beside
    from ingestor.app.rebuild import Rebuilt
    from ingestor.settings import Settings


def rebuild(  # noqa: PLR0913, PLR0917 - the options of the command
    folder: FolderArgument = None,
    status: Annotated[bool, typer.Option("--status", help="Tell what is unfinished and what is kept.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Take the kept collection back.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete the kept collection.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Drop the unfinished rebuild.")] = False,
    drop_foreign: Annotated[
        bool, typer.Option("--drop-foreign", help="Leave behind records of others that have no text.")
    ] = False,
    collection: Annotated[
        str,
        typer.Option(
            "--collection",
            help="Which one, where several sources have one each.",
            metavar="NAME",
            autocompletion=collection_names,
        ),
    ] = "",
    take_over: TakeOverOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask what it may cost.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Build the collection anew for changed settings, while the old one serves. Exit code 3: it was not switched."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, folder=folder, is_quiet=err.is_terminal)
        wanted = [name for name, is_asked in _asked(status, rollback, prune, abandon).items() if is_asked]
        if len(wanted) > 1:
            raise ConfigError(f"{' and '.join(wanted)} are two commands", remedy="give one of them")
        settings = loaded.settings
        match wanted:
            case ["--status"]:
                _tell_status(settings, collection, as_json=as_json)
            case [command]:
                _change(settings, collection, command, as_json=as_json)
            case _:
                is_sure = yes or as_json
                _rebuild(
                    settings,
                    collection,
                    drops_foreign=drop_foreign,
                    takes_over=take_over,
                    is_sure=is_sure,
                    as_json=as_json,
                )


def _asked(status: bool, rollback: bool, prune: bool, abandon: bool) -> dict[str, bool]:
    return {"--status": status, "--rollback": rollback, "--prune": prune, "--abandon": abandon}


def _rebuild(  # noqa: PLR0913 - the options of the command
    settings: "Settings", collection: str, *, drops_foreign: bool, takes_over: bool, is_sure: bool, as_json: bool
) -> None:
    from ingestor.app import rebuild as app

    if not is_sure and err.is_terminal and sys.stdin.isatty():
        _ask(settings, collection)
    with progress_told() as tell:
        work = app.rebuild(settings, tell, collection=collection, drops_foreign=drops_foreign, takes_over=takes_over)
        found = run_in_order(work)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    if found.outage:
        err.print(f"[bold red]error:[/] not all is done: {shown(found.outage)} - `ingestor rebuild` goes on from here")
        raise typer.Exit(EXIT_OUT_OF_REACH)
    if found.is_needed and not found.is_switched:
        for difference in found.comparison["differences"]:
            err.print(f"[bold red]error:[/] not switched: {shown(difference)}")
        raise typer.Exit(EXIT_PROBLEMS)


def _ask(settings: "Settings", collection: str = "") -> None:
    """Tell what it may cost, and ask; a text that several sources have is counted for each."""
    from ingestor.app.beside import next_ledger, next_name
    from ingestor.app.plan import plan
    from ingestor.app.rebuild import of_collection

    planned = [
        plan(each.varied(ledger_file=next_ledger(each), collection=next_name(each)), lambda _done, _all: None)
        for each in of_collection(settings, collection)
    ]
    texts, tokens = (sum(getattr(each.forecast.texts, name) for each in planned) for name in ("paid", "tokens"))
    if not texts:
        return
    costs = [each.price.cost for each in planned if each.price.cost is not None]
    price = f"for about {sum(costs):.4f} {planned[0].price.currency}".rstrip() if costs else "of unknown price"
    sentence = f"{texts} texts, about {tokens} tokens, are embedded by {planned[0].model}, {price}. Go on?"
    if not says_yes(sentence):
        raise typer.Abort


def _print(found: "Rebuilt") -> None:
    if not found.is_needed:
        out.print(f"the collection {shown(found.collection)} is as the settings have it: nothing to rebuild")
        return
    compared, usage = found.comparison, asdict(found.usage)
    if compared:
        out.print(
            f"documents: {compared['documents']} (served before: {compared['serving_documents']}), "
            f"{compared['problems']} with a problem\n"
            f"chunks: {compared['chunks']} (served before: {compared['serving_chunks']})\n"
            f"records of others: {compared['carried']} carried over\n"
            f"sample: {compared['found']} of {compared['sampled']} records found by their own text"
        )
    counts = ", ".join(f"{usage[name]} {name}" for name in ("requests", "texts", "tokens"))
    out.print(f"embedding: {counts}")
    out.print(f"{found.seconds:.1f} s")
    if found.is_switched:
        out.print(
            f"the collection {shown(found.collection)} is the new one; the old one is kept as {shown(found.kept)}:\n"
            "`ingestor rebuild --rollback` takes it back, `ingestor rebuild --prune` deletes it"
        )


def _tell_status(settings: "Settings", collection: str, *, as_json: bool) -> None:
    from ingestor.app.rebuild import beside_of

    following, before = beside_of(settings, collection)
    if as_json:
        print_json(
            {
                "unfinished": following.as_json() if following else None,
                "kept": before.as_json() if before else None,
            }
        )
        return
    print_rows({"unfinished": told_unfinished(following) or "none", "kept": told_kept(before) or "none"})


def told_unfinished(found: "Beside | None") -> str:
    """An unfinished rebuild for people; empty without one."""
    if found is None:
        return ""
    return (
        f"{found.name} for {found.model}: {found.documents} of {found.documents_expected} documents; "
        "`ingestor rebuild` goes on, `--abandon` drops it"
    )


def told_kept(found: "Beside | None") -> str:
    """A kept collection for people; empty without one."""
    if found is None:
        return ""
    return f"{found.name} of {found.model}: {found.chunks} records; `ingestor rebuild --prune` deletes it"


def _change(settings: "Settings", collection: str, command: str, *, as_json: bool) -> None:
    from ingestor.app import rebuild as app

    work = {"--rollback": app.rollback, "--prune": app.prune, "--abandon": app.abandon}[command]
    found = run_in_order(work(settings, collection))
    if as_json:
        print_json(found.as_json())
        return
    name = app.of_collection(settings, collection)[0].chroma.collection
    told = {
        "--rollback": f"the collection {name} is the one of {found.model} again: set that model in the settings,"
        " then run `ingestor sync`; the newer one is kept as an unfinished rebuild",
        "--prune": f"{found.name} is deleted, with {found.chunks} records",
        "--abandon": f"{found.name} is deleted: {found.documents} documents had been done",
    }
    out.print_verbatim(shown(translated(told[command])))
