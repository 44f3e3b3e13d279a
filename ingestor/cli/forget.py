"""`ingestor forget`: a document gone for good."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import EXIT_PROBLEMS, errors_explained, out, print_json, print_rows, shown
from ingestor.cli.signals import run_in_order
from ingestor.core.escaping import spelled

if TYPE_CHECKING:
    from ingestor.app.forget import Forgotten


def forget(
    path: Annotated[str, typer.Argument(help="The document, in the file system or relative to the watched folder.")],
    delete_file: Annotated[bool, typer.Option("--delete-file", help="Delete the file itself, too.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete all that is known of a document, and prove that no data file holds anything of it.

    Exit code 0 only when that is proven. Stop a running daemon first.
    """
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import forget as app

        found = run_in_order(app.forget(loaded.settings, path, deletes_file=delete_file))
        if as_json:
            print_json(_as_json(found))
        else:
            _print(found)
        if not found.is_proven:
            raise typer.Exit(EXIT_PROBLEMS)


def _as_json(found: "Forgotten") -> dict[str, Any]:
    return {
        "path": spelled(found.path),
        "is_proven": found.is_proven,
        "records": found.records,
        "texts": found.texts,
        "shared_texts": found.shared,
        "too_short": found.too_short,
        "vectors": found.vectors,
        "files_searched": found.files,
        "found": [{"file": spelled(residue.file), "kind": residue.kind} for residue in found.residues],
        "seconds": found.seconds,
    }


def _print(found: "Forgotten") -> None:
    print_rows(
        {
            "document": found.path,
            "deleted": f"{found.records} records, {found.vectors} vectors",
            "looked for": f"{found.texts} texts with their vectors and names, in {found.files} files",
            "left alone": f"{found.shared} texts that other records hold too, {found.too_short} too short to look for",
        }
    )
    for residue in found.residues:
        out.print(f"[bold red]found[/]: its {residue.kind} in [cyan]{shown(residue.file)}[/]")
    if found.residues:
        out.print("it is not forgotten yet: end whatever uses these files, then run the command again")
    elif found.is_proven:
        out.print("nothing of it is left in any data file")
    else:
        out.print("nothing of it is left in our files; those of the Chroma server could not be looked at")
