"""`ingestor init`: the first settings file."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption
from ingestor.cli.output import err, errors_explained, out, print_json, says_yes, shown
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.app.init import Answers, Begun


def init(  # noqa: PLR0913, PLR0917 - the options of the command
    folder: Annotated[str, typer.Argument(help="The folder to watch (default: watched_dir).", metavar="FOLDER")] = "",
    provider: Annotated[str, typer.Option(help="Embedding provider (default: local).", metavar="NAME")] = "",
    model: Annotated[str, typer.Option(help="Model (default: the provider's).", metavar="NAME")] = "",
    base_url: Annotated[str, typer.Option(help="Endpoint (default: the provider's).", metavar="URL")] = "",
    key_variable: Annotated[str, typer.Option(help="Variable that the key is read from.", metavar="NAME")] = "",
    chroma_mode: Annotated[str, typer.Option(help="How Chroma is had (default: managed).", metavar="MODE")] = "",
    chroma_host: Annotated[str, typer.Option(help="Host of a Chroma server.", metavar="HOST")] = "",
    chroma_port: Annotated[int | None, typer.Option(help="Port of Chroma.", metavar="N", min=1, max=65535)] = None,
    collection: Annotated[str, typer.Option(help="Collection (default: documents).", metavar="NAME")] = "",
    make_folder: Annotated[bool, typer.Option("--make-folder", help="Make the folder when it is missing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a settings file that is there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, and take the defaults.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a settings file in which every value is explained; asks on a terminal."""
    with errors_explained(debug=debug):
        from ingestor.app import init as app

        file = config or app.default_file()
        given = {
            "watch_dir": folder,
            "provider": provider,
            "model": model,
            "base_url": base_url,
            "key_variable": key_variable,
            "mode": chroma_mode,
            "host": chroma_host,
            "port": chroma_port,
            "collection": collection,
        }
        answers = app.Answers(**{name: value for name, value in given.items() if value})  # type: ignore[arg-type]  # each is its field's
        if not force:
            app.refuse_existing(file)
        if not (yes or as_json) and err.is_terminal and sys.stdin.isatty():
            answers = _asked(answers, {name for name, value in given.items() if value})
            make_folder = make_folder or _is_to_be_made(answers.watch_dir)
        begun = app.init(file, answers, is_forced=force, makes_folder=make_folder)
        if as_json:
            print_json(_as_json(begun))
        else:
            out.print(f"{shown(str(begun.file))} is written; every setting is explained there")
        _warn(begun)
        if not as_json:
            out.print_verbatim(translated("next:") + "".join(f"\n  {shown(each)}" for each in _next(begun)))


def _asked(answers: "Answers", given: set[str]) -> "Answers":
    """Ask for what was not given, and again for what cannot be."""
    from ingestor.app import init as app
    from ingestor.core.profiles import PROVIDERS
    from ingestor.settings import ChromaSettings

    def ask(name: str, question: str, default: str, choice: Sequence[str] = ()) -> None:
        nonlocal answers
        if name in given:
            return
        before = app.mistake_in(answers)

        def mistake_in(answer: str) -> str:
            if choice and answer not in choice:
                return f"choose one of {', '.join(choice)}"
            mistake = app.mistake_in(replace(answers, **{name: answer}))  # type: ignore[arg-type]  # a port that is no number is a mistake
            return "" if mistake == before else mistake  # what was wrong before, this answer cannot mend

        answer = _answer(question, default, choice, mistake_in)
        answers = replace(answers, **{name: int(answer) if name == "port" else answer})  # type: ignore[arg-type]  # each is its field's

    ask("watch_dir", "Folder to watch", answers.watch_dir)
    ask("provider", "Embedding provider", answers.provider, tuple(PROVIDERS))
    chosen = PROVIDERS.get(answers.provider)
    if chosen is not None and not chosen.is_in_process:
        ask("model", "Model", chosen.default_model)
        ask("base_url", "Endpoint", chosen.base_url)
        if answers.base_url == chosen.base_url:
            answers = replace(answers, base_url="")
        if variable := app.key_variable_of(answers):
            names = tuple(app.key_variables(answers.provider))
            ask("key_variable", "Variable that the key is read from", variable, names)
    modes = get_args(ChromaSettings.model_fields["mode"].annotation)
    ask("mode", "Chroma", answers.mode, modes)
    if answers.mode == "http":
        ask("host", "Host of the Chroma server", "127.0.0.1")
        ask("port", "Port of the Chroma server", "8000")
    ask("collection", "Collection", answers.collection)
    return answers


def _answer(question: str, default: str, choice: Sequence[str], mistake_in: Callable[[str], str]) -> str:
    asked = translated(question)
    told = f"{asked} ({', '.join(choice)})" if choice else asked
    while True:
        answer: str = typer.prompt(told, default=default, err=True)
        if not (mistake := mistake_in(answer)):
            return answer
        err.print(f"[bold red]error:[/] {shown(translated(mistake))}")


def _is_to_be_made(folder: str) -> bool:
    place = Path(folder).expanduser()
    return not place.exists() and says_yes(f"{folder} does not exist. Make it?", default=True)


def _warn(begun: "Begun") -> None:
    """Tell what is missing before ingestor can work."""
    warnings = []
    if begun.key_variable and not begun.has_key:
        warnings.append(f"{begun.key_variable} is not set: set it, or put a file of that name into the secrets folder")
    if not begun.has_folder:
        warnings.append(f"the folder {begun.watch_dir} does not exist yet: make it, or name another in the file")
    warnings += [f"{origin} goes before {name} of the file" for name, origin in begun.outranked.items()]
    warnings += begun.suggestions
    for warning in warnings:
        err.print(f"[bold yellow]warning:[/] {shown(translated(warning))}")


def _next(begun: "Begun") -> list[str]:
    """The next two commands."""
    import shlex

    from ingestor.app.init import default_file

    named = "" if begun.file == default_file() else f" --config {shlex.quote(str(begun.file))}"
    return [f"ingestor doctor{named}", f"ingestor run{named}"]


def _as_json(begun: "Begun") -> dict[str, Any]:
    return {
        "file": str(begun.file),
        "watch_dir": str(begun.watch_dir),
        "has_folder": begun.has_folder,
        "key_variable": begun.key_variable or None,
        "has_key": begun.has_key,
        "outranked": dict(begun.outranked),
        "suggestions": list(begun.suggestions),
        "next": _next(begun),
    }
