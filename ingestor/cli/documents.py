"""`ingestor problems`, `retry` and `approve`: what failed, another try, and leave to delete."""

from collections.abc import Sequence
from typing import Annotated

import typer

from ingestor.cli.completion import problem_paths
from ingestor.cli.daemon import finish
from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import EXIT_OUT_OF_REACH, EXIT_PROBLEMS, errors_explained, moment, out, print_json, shown
from ingestor.cli.signals import run_in_order
from ingestor.core.escaping import spelled
from ingestor.language import translated


def problems(config: ConfigOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the documents that could not be indexed, and why. Exit code 3: some could not; 4: some wait."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug)
        from ingestor.app import status as app
        from ingestor.app.shape import problem_json
        from ingestor.app.waits import told_wait
        from ingestor.cli.panel import told_restless

        found = app.problems(loaded.settings)
        if as_json:
            print_json([problem_json(source, path, problem) for source, path, problem in found])
        for source, path, problem in found if not as_json else ():
            when = f"next try {moment(problem.next_try_seconds)}" if problem.next_try_seconds else "until it changes"
            remedy = f" - {problem.remedy}" if problem.remedy else ""
            place = f"{source}: {path}" if source else path
            out.print_verbatim(f"[cyan]{shown(place)}[/]: {shown(translated(problem.reason + remedy))}")
            plural = "s" if problem.attempts > 1 else ""
            history = f"{problem.attempts} attempt{plural} since {moment(problem.since_seconds)}, {when}"
            out.print_verbatim(f"       {translated(problem.stage.value)}, {problem.kind}, {translated(history)}")
        stated = app.status(loaded.settings)
        waits = app.waits_of(stated)
        if not as_json:
            for wait in waits:
                told = told_wait(wait, is_attended=stated[0].daemon is not None, has_reason=True)
                out.print_verbatim(shown(translated(told)))
            for each in stated:
                if each.restless:
                    out.print_verbatim(shown(translated(told_restless(each.restless))))
        if found or waits:
            raise typer.Exit(EXIT_PROBLEMS if found else EXIT_OUT_OF_REACH)
        if not as_json:
            out.print("no problems")


def retry(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files or folders (default: every problem).", autocompletion=problem_paths),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Try documents with a problem again now: by the running daemon, or at once when there is none."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug)
        from ingestor.app import status as app

        queued = app.queue_again(loaded.settings, paths or [])
        if not queued or app.is_daemon_running(loaded.settings):
            if as_json:
                print_json({"queued": [spelled(path) for path in queued]})
            else:
                out.print(f"{len(queued)} queued" if queued else _nothing_to_retry(app.problems(loaded.settings)))
            return
        from ingestor.app.sync import sync

        report = run_in_order(sync(loaded.settings, lambda _: None, only_queued=True))
        finish(report, as_json=as_json)


def _nothing_to_retry(problems: Sequence[object]) -> str:
    if not problems:
        return "no problems"
    return "no document can be retried: mend the folders that `ingestor problems` lists; they are then compared again"


def approve(
    config: ConfigOption = None,
    is_list: Annotated[bool, typer.Option("--list", help="List what is held back without approving it.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Carry out deletions that were held back, and embed new texts that wait for a decision.

    What goes missing later is held back anew.
    """
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug)
        from ingestor.app import status as app

        held = app.held(loaded.settings)
        places = [(source, path) for source, paths in held.items() for path in paths]
        if is_list:
            _list_held(places, as_json=as_json)
            return
        count = app.approve(loaded.settings, held)
        decided = app.approve_embedding(loaded.settings)
        if as_json:
            print_json({"approved": count} | ({"decided": decided} if decided else {}))
            return
        for reason in decided:
            out.print(f"new texts are embedded again, although {shown(reason)}")
        if not count and not decided:
            out.print("nothing is held back")
        elif count:
            if app.is_daemon_running(loaded.settings):
                out.print(f"{count} deletions approved; the daemon carries them out now")
            else:
                out.print(f"{count} deletions approved; the next `ingestor sync` or `ingestor run` carries them out")
            _list_held(places[: app.MAX_EXAMPLES], as_json=False)
            if more := len(places[app.MAX_EXAMPLES :]):
                out.print(f"and {more} more")


def _list_held(places: Sequence[tuple[str, str]], *, as_json: bool) -> None:
    if as_json:
        print_json([{**({"source": source} if source else {}), "path": spelled(path)} for source, path in places])
    elif not places:
        out.print("nothing is held back")
    for source, path in places if not as_json else ():
        out.print_verbatim(shown(f"{source}: {path}" if source else path))
