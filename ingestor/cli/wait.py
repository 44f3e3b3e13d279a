"""`ingestor wait`: for scripts that go on when what they have written can be found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import (
    EXIT_OUT_OF_REACH,
    EXIT_PROBLEMS,
    err,
    errors_explained,
    out,
    print_json,
    shown,
)
from ingestor.cli.progress import now_and_then
from ingestor.core.escaping import spelled
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.app.wait import Awaited, Waited

_MAX_TOLD = 20
_YEAR_SECONDS = 366 * 24 * 3600


def wait(
    paths: Annotated[list[str], typer.Argument(help="Files, or folders with all files below.", metavar="PATH")],
    timeout_seconds: Annotated[
        float, typer.Option("--timeout-seconds", min=0, max=_YEAR_SECONDS, help="When to give up.", metavar="N")
    ] = 600.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Wait until files are searchable as they are now. Exit code 3: some have a problem; 4: some still wait.

    A file that is not there is done (gone) when none of its records is left.
    """
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import wait as app

        waited = app.wait(loaded.settings, paths, timeout_seconds, now_and_then(_tell_progress))
        if as_json:
            print_json(_as_json(waited))
        else:
            counts = ", ".join(f"{len(waited.of(state))} {state.value}" for state in app.State if waited.of(state))
            told = translated(counts or "nothing to wait for")
            out.print(f"{told}; {waited.seconds:.1f} s")
        _tell(waited.of(app.State.PROBLEM))
        waiting = waited.of(app.State.WAITING)
        _tell([each for each in waiting if not each.waits_for])
        _tell_services([each for each in waiting if each.waits_for])
        if waiting:
            remedy = "see `ingestor status`, or wait longer with --timeout-seconds"
            if not waited.is_attended:
                remedy = "no daemon is at work: run `ingestor run` or `ingestor sync`"
            err.print(f"[bold red]error:[/] {len(waiting)} of {len(waited.paths)} are not searchable yet - {remedy}")
            raise typer.Exit(EXIT_OUT_OF_REACH)
        if waited.of(app.State.PROBLEM):
            raise typer.Exit(EXIT_PROBLEMS)


def _tell_progress(done: int, pending: int) -> None:
    err.print(f"{done:,} done, {pending:,} waiting")


def _tell(paths: "Sequence[Awaited]") -> None:
    for each in paths[:_MAX_TOLD]:
        why = translated(" - ".join(filter(None, (each.reason, each.remedy))))
        err.print_verbatim(
            f"[bold]{translated(each.state.value)}[/]  [cyan]{shown(each.path)}[/]  {shown(why)}".rstrip()
        )
    if len(paths) > _MAX_TOLD:
        err.print(f"and {len(paths) - _MAX_TOLD:,} more")


def _tell_services(paths: "Sequence[Awaited]") -> None:
    """What waits for a service is told once for each service."""
    from ingestor.core.counting import counted

    services = {each.waits_for: each for each in paths}
    for service, latest in sorted(services.items()):
        count = sum(each.waits_for == service for each in paths)
        told = translated(counted(count, f"1 file waits for {service}", f"{count} files wait for {service}"))
        why = translated(" - ".join(filter(None, (latest.reason, latest.remedy))))
        err.print_verbatim(f"[bold]{translated(latest.state.value)}[/]  {shown(told)}: {shown(why)}")


def _as_json(waited: "Waited") -> dict[str, Any]:
    return {
        "is_attended": waited.is_attended,
        "seconds": waited.seconds,
        "paths": [
            {
                **({"source": each.source} if each.source else {}),
                "path": spelled(each.path),
                "state": each.state.value,
                "reason": spelled(each.reason),
                "remedy": each.remedy,
                "waits_for": each.waits_for,
            }
            for each in waited.paths
        ],
    }
