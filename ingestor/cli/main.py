"""The `ingestor` command: the list of its commands."""

import gc
import os
import shutil
from collections.abc import Mapping
from typing import Annotated

import typer

from ingestor.cli import (
    collection,
    collections,
    completion,
    daemon,
    databases,
    doctor,
    documents,
    embed,
    evaluate,
    forget,
    init,
    mcp,
    models,
    plan,
    prune,
    rebuild,
    records,
    settings,
    verify,
    wait,
)
from ingestor.cli.allocator import give_back_freed_memory
from ingestor.cli.closed_streams import stand_in_for_closed_streams
from ingestor.cli.completion import answer_shells
from ingestor.cli.listing import Command, Grouped, without_types
from ingestor.language import ENGLISH, language_of, translated

EXIT_USAGE = 2
NEW_OBJECTS = 10_000
"""After how many of them Python searches the newest for garbage; its own choice is 700."""

_MAX_COLUMNS = 80
_BEGINNING = """\
The folder is the collection: keeps a Chroma collection equal
to the text files of a folder.

  ingestor run FOLDER          follow a folder: its texts can be found
  ingestor query "a question"  find it by meaning, in another terminal

`ingestor --help` lists all commands."""

app = typer.Typer(
    name="ingestor",
    cls=Grouped,
    invoke_without_command=True,
    add_completion=False,  # `ingestor completion` has scripts of our own
    epilog="`ingestor COMMAND --help` tells all options of a command, with examples.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: to draw it takes four times as long as all else
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": min(_MAX_COLUMNS, shutil.get_terminal_size().columns) - 2,
    },
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("ingestor"))
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its own callback has done all
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The folder is the collection: keeps a Chroma collection equal to the text files of a folder."""
    give_back_freed_memory()
    if context.invoked_subcommand is None:
        typer.echo(translated(_BEGINNING))
        raise typer.Exit(EXIT_USAGE)


_COMMANDS: Mapping[str, tuple[Command, ...]] = {
    "Beginning": (
        Command(
            "init",
            init.init,
            "Write a first settings file.",
            ("ingestor init", "ingestor init ~/notes --provider dashscope --yes"),
        ),
        Command("doctor", doctor.doctor, "Check all that surrounds ingestor, and tell the remedies."),
    ),
    "Every day": (
        Command(
            "run",
            daemon.run,
            "Follow a folder until it is stopped: the daemon.",
            ("ingestor run", "ingestor run ~/notes", "ingestor run --rebuild    after another model was chosen"),
        ),
        Command(
            "sync",
            daemon.sync,
            "Make the collection equal to a folder, once.",
            ("ingestor sync", "ingestor sync ~/notes --json"),
        ),
        Command("plan", plan.plan, "Tell what a sync would do and cost.", ("ingestor plan", "ingestor plan ~/notes")),
        Command(
            "query",
            collection.query,
            "Search by meaning.",
            (
                'ingestor query "who settles disputes at sea?"',
                'ingestor query "国际争端" -n 2',
                """ingestor query "tariffs" --where '{"file_type": "text/markdown"}' --json""",
            ),
        ),
        Command(
            "status",
            collection.status,
            "Tell how the collection is, and what it has cost.",
            ("ingestor status", "ingestor status --watch", "ingestor status --json | jq .queued"),
        ),
        Command("problems", documents.problems, "List what could not be indexed, with reason and remedy."),
        Command(
            "retry",
            documents.retry,
            "Try documents with a problem again now.",
            ("ingestor retry", "ingestor retry reports/2026"),
        ),
        Command(
            "wait",
            wait.wait,
            "Wait until files are searchable.",
            ("ingestor wait report.md", "ingestor wait docs/ --timeout-seconds 60"),
        ),
        Command("approve", documents.approve, "Let deletions and embedding go on that wait for you."),
    ),
    "Records by hand": (
        Command("count", records.count, "Count the records of a collection."),
        Command("peek", records.peek, "Show the first records of a collection."),
        Command(
            "get",
            records.get,
            "Show records by id, by file, or by what they hold.",
            ("ingestor get --source notes/today.md", """ingestor get --where '{"title": "Today"}' --limit 5"""),
        ),
        Command(
            "add",
            records.add,
            "Add records that no sync touches.",
            ('ingestor add --document "The keys are in the blue box."', "ingestor add --file letter.txt --id letter"),
        ),
        Command("update", records.update, "Change records that were added by hand."),
        Command("delete", records.delete, "Delete records that were added by hand; asks first."),
    ),
    "Models": (
        Command("models", models.models, "List the embedding models that are known."),
        Command(
            "evaluate",
            evaluate.evaluate,
            "Compare models on your own documents.",
            ("ingestor evaluate", "ingestor evaluate ~/notes --model ollama/bge-m3 --plot models.svg"),
        ),
        Command("embed", embed.embed, "Print the vectors of texts."),
        Command("similarity", embed.similarity, "Compare texts with a query, the nearest first."),
    ),
    "Care": (
        Command("verify", verify.verify, "Compare folder, ledger and collection; mend what differs."),
        Command(
            "rebuild",
            rebuild.rebuild,
            "Build the collection anew for changed settings.",
            ("ingestor rebuild", "ingestor rebuild --status", "ingestor rebuild --rollback"),
        ),
        Command("prune", prune.prune, "Get rid of what Chroma keeps of deleted records."),
        Command(
            "forget",
            forget.forget,
            "Delete all that is known of a document, and prove it.",
            ("ingestor forget notes/private.md --delete-file",),
        ),
    ),
    "Settings": (
        Command(
            "mcp",
            mcp.mcp,
            "Let a language model search: an MCP server.",
            ("ingestor mcp", "ingestor mcp --http --port 8766"),
        ),
        Command("config", settings.config, "Print every setting in force and where it came from."),
        Command(
            "completion",
            completion.completion,
            "Print the script that lets your shell complete commands.",
            (
                "ingestor completion bash > ~/.local/share/bash-completion/completions/ingestor",
                "ingestor completion zsh > ~/.zfunc/_ingestor    a folder of fpath, before compinit",
                "ingestor completion fish > ~/.config/fish/completions/ingestor.fish",
            ),
        ),
    ),
}
_DATABASE = "Database"
for _heading, _group in _COMMANDS.items():
    for _command in _group:
        app.command(_command.name, short_help=_command.told, epilog=_command.epilog, rich_help_panel=_heading)(
            _command.work
        )
app.add_typer(
    collections.app,
    name="collections",
    short_help="List, make, rename, change or delete collections.",
    rich_help_panel=_DATABASE,
)
app.add_typer(databases.app, name="databases", short_help="List, make or delete databases.", rich_help_panel=_DATABASE)


def main() -> None:
    """Run the command line."""
    stand_in_for_closed_streams()
    # A start makes a million objects that stay: to search them for garbage takes a tenth of its time.
    gc.set_threshold(NEW_OBJECTS)
    answer_shells()
    context = Grouped.context_class
    context.formatter_class = without_types(context.formatter_class)
    try:
        if language_of(os.environ) == ENGLISH:
            app(prog_name="ingestor")
        else:
            from ingestor.cli.interpreter import run_translated

            run_translated(app)
    finally:
        # The interpreter looks for garbage when it ends, which takes up to a second where chromadb was imported.
        gc.freeze()
