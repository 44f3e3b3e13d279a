"""`ingestor completion`: what a shell asks when Tab is pressed, and the answers that only the settings know.

Invariant: an answer costs no import of chromadb and no request; what cannot be answered is answered with nothing, since
nobody reads an error between two keys.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingestor.core.errors import IngestorError
from ingestor.core.escaping import escaped

if TYPE_CHECKING:
    from ingestor.settings import Settings

VARIABLE = "_INGESTOR_COMPLETE"
"""Set by the scripts: the program is to answer a shell, and to do nothing else."""
_SCRIPTS = Path(__file__).parent / "shells"


class Shell(StrEnum):
    """Shells that have a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell that you use.")]) -> None:
    """Print the script that completes commands, options, collections and models when Tab is pressed."""
    typer.echo((_SCRIPTS / f"ingestor.{shell}").read_text(encoding="utf-8"), nl=False)


def answer_shells() -> None:
    """Let Typer answer when a script asks: it knows shells only once it has been asked for its own options."""
    if os.environ.get(VARIABLE):
        from typer.completion import get_completion_inspect_parameters

        get_completion_inspect_parameters()


def collection_names(context: typer.Context, incomplete: str) -> list[str]:
    """The collections that the sources fill."""
    settings = _settings(context)
    names = [each.chroma.collection for each in settings.each()] if settings else []
    return _matching(names, incomplete)


def problem_paths(context: typer.Context, incomplete: str) -> list[str]:
    """The paths of documents that have a problem."""
    from ingestor.app.status import problems

    settings = _settings(context)
    try:
        found = problems(settings) if settings else []
    except IngestorError:
        return []
    return _matching([path for _, path, _ in found], incomplete)


def model_names(incomplete: str) -> list[str]:
    """The models that are known."""
    from ingestor.core.profiles import MODELS

    return _matching([f"{model.provider}/{model.model}" for model in MODELS], incomplete)


def _settings(context: typer.Context) -> "Settings | None":
    from ingestor.settings import load_settings

    try:
        return load_settings(context.params.get("config"), {}).settings
    except IngestorError:
        return None


def _matching(names: list[str], incomplete: str) -> list[str]:
    """Those that begin so; without those that a terminal would act upon, which nobody can type either."""
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete) and escaped(name) == name]
