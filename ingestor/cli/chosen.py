"""Options that choose a collection and records of it, what is asked before any go, and what is told afterwards."""

import json
import sys
from typing import Annotated, Any

import typer

from ingestor.cli.completion import collection_names
from ingestor.cli.output import out, print_json, says_yes, shown
from ingestor.core.errors import ConfigError
from ingestor.language import translated

CollectionOption = Annotated[
    str | None,
    typer.Option(
        "--collection",
        help="Name of the collection (default: the configured one).",
        metavar="NAME",
        autocompletion=collection_names,
    ),
]
IdOption = Annotated[list[str] | None, typer.Option("--id", help="Id of a record; may be repeated.", metavar="ID")]
WhereOption = Annotated[str | None, typer.Option(help="Chroma filter on metadata.", metavar="JSON")]
WhereDocumentOption = Annotated[str | None, typer.Option(help="Chroma filter on the text.", metavar="JSON")]
MetadataOption = Annotated[str | None, typer.Option("--metadata", help="Keys and values.", metavar="JSON")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_FILTER = '{"file_name": "notes.md"}'


def parsed(option: str, text: str, example: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A value given as JSON. Raises `ConfigError` that names the option."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{option} is no JSON: {reason}", remedy=f"for example: {example}") from error


def parsed_object(option: str, text: str | None, example: str = _FILTER) -> dict[str, Any] | None:
    """A JSON object, or None where none was given. Raises `ConfigError` for anything else."""
    if text is None:
        return None
    value = parsed(option, text, example)
    if not isinstance(value, dict):
        raise ConfigError(f"{option} must be a JSON object", remedy=f"for example: {example}")
    return value


def group_only(context: typer.Context, group: str, *options: object) -> bool:
    """Whether a command of a group follows, which has options of its own. Raises `ConfigError` for any before it."""
    if context.invoked_subcommand is not None and any(options):
        command = f"{group} {context.invoked_subcommand}"
        raise ConfigError(
            "the options of a command come after its name", remedy=f"for example: ingestor {command} --json"
        )
    return context.invoked_subcommand is not None


def tell(result: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    """Print what was done: as JSON, or as lines."""
    if as_json:
        print_json(result)
    else:
        for line in sentence.split("\n"):
            out.print_verbatim(shown(translated(line)))


def confirm(question: str, *, is_agreed: bool) -> None:
    """Ask on a terminal whether to go on, unless it was agreed to. Raises `ConfigError` where nobody can be asked."""
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"this cannot be undone: {question}", remedy="say so with --yes")
    if not says_yes(question):
        raise typer.Abort
