"""The `ingestor` command: the list of its commands."""

import gc
from typing import Annotated

import typer

from ingestor.cli import collection, daemon, documents, embed, evaluate, models, plan, settings, verify

app = typer.Typer(
    name="ingestor",
    help="The folder is the collection: keeps a Chroma collection equal to the text files of a folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from ingestor import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


app.command("run")(daemon.run)
app.command("sync")(daemon.sync)
app.command("plan")(plan.plan)
app.command("query")(collection.query)
app.command("status")(collection.status)
app.command("problems")(documents.problems)
app.command("retry")(documents.retry)
app.command("approve")(documents.approve)
app.command("verify")(verify.verify)
app.command("models")(models.models)
app.command("evaluate")(evaluate.evaluate)
app.command("embed")(embed.embed)
app.command("similarity")(embed.similarity)
app.command("config")(settings.config)


def main() -> None:
    """Run the command line."""
    try:
        app()
    finally:
        # The interpreter looks for garbage when it ends, which takes up to a second where chromadb was imported.
        gc.freeze()
