"""`ingestor evaluate`: which model finds one's own documents best."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingestor.cli.completion import model_names
from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import err, errors_explained, out, priced, print_json, shown
from ingestor.cli.signals import run_in_order
from ingestor.core.escaping import spelled
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.app.evaluate import Evaluation, Tell

_COLUMNS = ("model", "dimensions", "Recall@1", "Recall@10", "MRR", "texts/s", "price/M tokens")


def evaluate(  # noqa: PLR0913, PLR0917 - the options of the command
    folder: Annotated[
        Path | None, typer.Argument(help="The folder with the documents (default: the setting watch_dir).")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="PROVIDER/MODEL[@DIMENSIONS], or a model of the configured provider; give it once for each model "
            "(default: the setting evaluation.models, or else the configured model and the built-in one).",
            metavar="NAME",
            autocompletion=model_names,
        ),
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Most questions that are asked.", metavar="N")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws another sample.", metavar="N")] = 0,
    max_texts: Annotated[
        int, typer.Option("--max-texts", min=2, help="Most texts that are embedded as possible answers.", metavar="N")
    ] = 5_000,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the result into this .png or .svg file.", metavar="FILE")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare models on a folder: whether titles and headings, as questions, find the texts below them.

    Embeds what the vector store does not have yet, with every model that is compared; a second run costs nothing.
    """
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, folder=folder, is_quiet=True, is_only_read=True)
        from ingestor.app import evaluate as app

        plan = app.Plan(model or (), sample=sample, seed=seed, max_texts=max_texts, plot=plot)
        with _progress_told() as tell:
            found = run_in_order(app.evaluate(loaded.settings, plan, tell))
        if as_json:
            fields = found.as_json()
            print_json(fields | {"folder": spelled(fields["folder"]), "notes": [spelled(note) for note in found.notes]})
        else:
            _print(found)
            if plot is not None:
                out.print(f"drawn: {shown(str(plot))}")


def _print(found: "Evaluation") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(_COLUMNS):
        # Where room is short, names are broken and not cut: models often differ in their last letters.
        table.add_column(heading, justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    for judged in found.models:
        quality, speed = judged.measured.quality, judged.measured.texts_per_second
        table.add_row(
            shown(judged.name),
            f"{judged.measured.dimensions:,}",
            f"{quality.recall_at_1:.3f}",
            f"{quality.recall_at_10:.3f}",
            f"{quality.mrr:.3f}",
            translated("cached") if speed is None else f"{speed:,.1f}",
            priced(judged.price_per_million_tokens, judged.currency),
        )
    out.print(table)
    survey = found.survey
    out.print(
        f"\n{len(survey.questions):,} questions, {len(survey.texts):,} texts of {found.documents:,} documents, "
        f"seed {found.seed}"
    )
    for note in found.notes:
        out.print_verbatim(f"- {shown(translated(note))}")


@contextmanager
def _progress_told() -> Iterator["Tell"]:
    if not err.is_terminal:
        yield lambda _what, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err.console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(shown(translated(what)), total=total)
            bar.advance(tasks[what])

        yield tell
