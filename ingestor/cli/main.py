"""The `ingestor` command: the list of its commands."""

import gc
import os
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from ingestor.cli import (
    collection,
    collections,
    daemon,
    databases,
    documents,
    embed,
    evaluate,
    forget,
    models,
    plan,
    prune,
    rebuild,
    records,
    settings,
    verify,
)
from ingestor.cli.allocator import give_back_freed_memory
from ingestor.language import ENGLISH, language_of

NEW_OBJECTS = 10_000
"""After how many of them Python searches the newest for garbage; its own choice is 700."""

app = typer.Typer(
    name="ingestor",
    help="The folder is the collection: keeps a Chroma collection equal to the text files of a folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: to draw it takes four times as long as all else
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("ingestor"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 - its own callback has done all
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""
    give_back_freed_memory()


_COMMANDS: Mapping[str, Callable[..., None]] = {
    "run": daemon.run,
    "sync": daemon.sync,
    "plan": plan.plan,
    "query": collection.query,
    "count": records.count,
    "peek": records.peek,
    "get": records.get,
    "add": records.add,
    "update": records.update,
    "delete": records.delete,
    "status": collection.status,
    "problems": documents.problems,
    "retry": documents.retry,
    "approve": documents.approve,
    "verify": verify.verify,
    "rebuild": rebuild.rebuild,
    "prune": prune.prune,
    "forget": forget.forget,
    "models": models.models,
    "evaluate": evaluate.evaluate,
    "embed": embed.embed,
    "similarity": embed.similarity,
    "config": settings.config,
}
for _name, _command in _COMMANDS.items():
    # Given as a short help, what a command does is told in full in the list of all; otherwise it is cut off.
    app.command(_name, short_help=(_command.__doc__ or "").partition("\n\n")[0])(_command)
app.add_typer(collections.app, name="collections", short_help=collections.HELP)
app.add_typer(databases.app, name="databases", short_help=databases.HELP)


def main() -> None:
    """Run the command line."""
    # A start makes a million objects that stay: to search them for garbage takes a tenth of its time.
    gc.set_threshold(NEW_OBJECTS)
    try:
        if language_of(os.environ) == ENGLISH:
            app()
        else:
            from ingestor.cli.interpreter import run_translated

            run_translated(app)
    finally:
        # The interpreter looks for garbage when it ends, which takes up to a second where chromadb was imported.
        gc.freeze()
