"""`ingestor doctor`: what stands in the way of ingestor, before it does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, out, padded, print_json, shown
from ingestor.cli.signals import run_in_order
from ingestor.core.errors import ConfigError
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.core.diagnosing import Finding

_COLOURS = {"ok": "green", "hint": "cyan", "warning": "yellow", "error": "bold red"}
_LEVEL_CELLS = 8
_CHECK_CELLS = 12


def doctor(
    no_call: Annotated[
        bool, typer.Option("--no-call", help="Do not call the embedding endpoint, which costs a few tokens.")
    ] = False,
    in_folder: Annotated[
        bool, typer.Option("--in-folder", help="Try events in the watched folder, too, with a file that is removed.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check settings, folders, limits, disks, Chroma and the model, and tell the remedies; nothing is changed.

    Exit code 0: all well; 3: warnings; with errors that of the worst: 2 settings, 6 ledger, 5 another instance,
    4 a service.
    """
    with errors_explained(debug=debug):
        from ingestor.core.diagnosing import exit_code_of, failure

        try:
            loaded = settings_of(config, debug=debug, is_quiet=True)
        except ConfigError as error:
            found = [failure("settings", error)]
        else:
            from ingestor.app.doctor.examination import examine

            found = run_in_order(examine(loaded, is_calling=not no_call, tries_folders=in_folder))
        if as_json:
            print_json([_as_json(each) for each in found])
        elif out.is_terminal:
            _print_table(found)
        else:
            _print_lines(found)
        if code := exit_code_of(found):
            raise typer.Exit(code)


def _as_json(found: "Finding") -> dict[str, Any]:
    return {
        "name": found.check,
        "level": found.level.value,
        "sentence": found.sentence,
        "remedy": found.remedy,
        "facts": dict(found.facts),
    }


def _print_lines(found: "Sequence[Finding]") -> None:
    for each in found:
        told = translated(f"{each.sentence} - {each.remedy}" if each.remedy else each.sentence)
        level, check = padded(each.level.value, _LEVEL_CELLS), padded(each.check, _CHECK_CELLS)
        out.print_verbatim(f"{level}{check}{shown(told)}")


def _print_table(found: "Sequence[Finding]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for each in found:
        told = shown(translated(each.sentence))
        if each.remedy:
            told += f"\n[dim]{shown(translated(each.remedy))}[/]"
        level = f"[{_COLOURS[each.level.value]}]{translated(each.level.value)}[/]"
        table.add_row(level, f"[bold]{translated(each.check)}[/]", told)
    out.print(table)
