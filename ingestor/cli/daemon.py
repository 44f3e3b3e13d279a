"""`ingestor run` and `ingestor sync`: the commands that write the collection."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ingestor.cli.options import ConfigOption, DebugOption, FolderArgument, JsonOption, TakeOverOption, settings_of
from ingestor.cli.output import (
    EXIT_OUT_OF_REACH,
    EXIT_PROBLEMS,
    err,
    errors_explained,
    out,
    print_json,
    says_yes,
    shown,
)
from ingestor.cli.progress import progress_told
from ingestor.cli.signals import run_in_order

if TYPE_CHECKING:
    from ingestor.app.sync import Report
    from ingestor.settings import Settings


def run(
    folder: FolderArgument = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rebuild a collection of other settings while it is followed.")
    ] = False,
    take_over: TakeOverOption = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Follow a folder until SIGINT, SIGTERM or SIGHUP: the daemon."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, folder=folder)
        import asyncio

        from ingestor.app import daemon as app
        from ingestor.web.server import front

        is_served = loaded.settings.http.enabled
        asyncio.run(
            app.run(loaded.settings, is_rebuild=rebuild, takes_over=take_over, front=front if is_served else None)
        )


def sync(
    folder: FolderArgument = None,
    take_over: TakeOverOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make the collection equal to a folder, once. Exit code 3: some documents have a problem."""
    with errors_explained(debug=debug):
        # On a terminal the bar tells what the lines would, and lines would tear it apart.
        loaded = settings_of(config, debug=debug, folder=folder, is_quiet=err.is_terminal)
        from ingestor.app import sync as app
        from ingestor.app.suggesting import first_suggestions

        for suggestion in first_suggestions(loaded.settings):
            err.print(f"[yellow]{shown(suggestion)}[/]")
        if err.is_terminal and sys.stdin.isatty() and not as_json:
            _ask(loaded.settings)
        with progress_told() as tell:
            report = run_in_order(app.sync(loaded.settings, tell, takes_over=take_over))
        finish(report, as_json=as_json)


def _ask(settings: "Settings") -> None:
    """Ask whether a first sync may cost what it is about to. Raises `typer.Abort` when it may not."""
    from ingestor.app.costing import agree, costly

    if reasons := [str(held) for held in costly(settings)]:
        for reason in reasons:
            err.print(shown(reason))
        if not says_yes("Go on?"):
            raise typer.Abort
        agree(settings)


def finish(report: "Report", *, as_json: bool) -> None:
    """Print what a sync has done, and end with its exit code."""
    from ingestor.app.waits import told_wait

    if as_json:
        print_json(report.as_json())
    else:
        documents = ", ".join(f"{count} {name}" for name, count in report.documents.items())
        chunks = ", ".join(f"{count} {name}" for name, count in report.chunks.items())
        usage = ", ".join(f"{report.embedding[name]} {name}" for name in ("requests", "texts", "tokens"))
        out.print(f"documents: {documents}\nchunks: {chunks}\nembedding: {usage}\n{report.seconds:.1f} s")
    if report.held_deletions:
        err.print(
            f"[bold red]error:[/] {report.held_deletions} documents seem to be deleted, so many that they are kept: "
            "see that the folder is what it should be (mounted, complete), then run `ingestor approve` and sync again; "
            "`ingestor approve --list` names them"
        )
    for wait in report.waits:
        told = told_wait(wait, is_attended=False, has_reason=True)
        err.print(f"[bold red]error:[/] not all is done: {shown(told)}")
    if report.outage and not report.waits:
        err.print(f"[bold red]error:[/] not all is done: {shown(report.outage)}")
    if report.outage:
        raise typer.Exit(EXIT_OUT_OF_REACH)
    if report.documents["problems"]:
        err.print("some documents have a problem: `ingestor problems` lists them")
    if report.documents["problems"] or report.held_deletions:
        raise typer.Exit(EXIT_PROBLEMS)
