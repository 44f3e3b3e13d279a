"""`ingestor plan`: what a sync would do, before it does it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ingestor.cli.options import ConfigOption, DebugOption, FolderArgument, JsonOption, settings_of
from ingestor.cli.output import err, errors_explained, out, print_json, print_rows, shown, sized
from ingestor.cli.progress import now_and_then
from ingestor.core.escaping import spelled
from ingestor.language import translated

if TYPE_CHECKING:
    from rich.table import Table

    from ingestor.app.plan import Planned

_MINUTE_SECONDS = 60
_HOUR_SECONDS = 3_600
_KIND_COLUMNS = ("to index", "files", "size", "chunks", "texts to embed")


def plan(
    folder: FolderArgument = None, config: ConfigOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Tell what a sync would do and cost; nothing is written, sent or locked."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, folder=folder, is_quiet=True)
        from ingestor.app import plan as app

        with _progress_told() as tell:
            planned = {each.source_name: app.plan(each, tell) for each in loaded.settings.each()}
        if as_json:
            each = {source: _as_json(of_it) for source, of_it in planned.items()}
            print_json(each.get("", {"sources": each}))
            return
        for source, of_it in planned.items():
            if source:
                out.print(f"\n[bold]{shown(source)}[/]")
            _print(of_it)


def _as_json(planned: "Planned") -> dict[str, Any]:
    fields = planned.as_json()
    for problem in fields["problems"]:
        problem["examples"] = [spelled(path) for path in problem["examples"]]
    return fields


def _print(planned: "Planned") -> None:
    forecast = planned.forecast
    files, chunks, texts = forecast.files, forecast.chunks, forecast.texts
    rows = {
        "folder": f"{planned.watch_dir} ({_counted(files.found, 'file')}), for the collection {planned.collection}",
        "documents": f"{files.added:,} added, {files.changed:,} changed, {files.renamed:,} renamed, "
        f"{files.deleted:,} deleted, {files.unchanged:,} unchanged, {files.problems:,} problems",
        "chunks": f"{chunks.added:,} added, {chunks.kept:,} kept, {chunks.retagged:,} retagged, "
        f"{chunks.dropped:,} dropped: then {chunks.total:,}",
        "texts": f"{texts.paid:,} to embed in {_counted(texts.requests, 'request')}, {texts.known:,} known already",
        "tokens": f"about {texts.tokens:,} ({planned.model})" if texts.tokens else "none",
        "price": _price(planned),
        "time": _time(planned),
    }
    if files.retried:
        rows["retried"] = f"{_counted(files.retried, 'file')} with a known problem"
    if forecast.held_deletions:
        rows["held back"] = f"{_counted(forecast.held_deletions, 'deletion')}, until `ingestor approve`"
    if planned.caveat:
        rows["mind"] = planned.caveat
    print_rows(rows)
    for suggestion in planned.suggestions:
        out.print(f"[yellow]{shown(suggestion)}[/]")
    if forecast.kinds:
        out.print()
        out.print(_kinds(planned))
    for obstacle in forecast.obstacles:
        names, left_out = ", ".join(obstacle.examples), obstacle.count - len(obstacle.examples)
        if left_out > 0:
            names = translated(f"{names} and {left_out:,} more")
        told = f"{names}: {translated(obstacle.reason)}"
        out.print_verbatim(f"\n[bold]{obstacle.count:,} {shown(obstacle.kind)}[/]  {shown(told)}")


def _kinds(planned: "Planned") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(_KIND_COLUMNS):
        table.add_column(heading, justify="right" if place else "left")
    for kind, counts in planned.forecast.kinds.items():
        table.add_row(
            translated(kind.value),
            f"{counts.files:,}",
            sized(counts.size_bytes),
            f"{counts.chunks:,}",
            f"{counts.texts:,}",
        )
    return table


def _price(planned: "Planned") -> str:
    price = planned.price
    if price.cost is None:
        return "unknown: set embedding.price_per_million_tokens"
    if not price.cost:
        return "free"
    money = f"about {_rounded(price.cost)} {price.currency}".rstrip()
    return f"{money} ({price.per_million_tokens:g} a million tokens)"


def _time(planned: "Planned") -> str:
    if planned.days is None:
        return f"never: {planned.limited_by} allows nothing"
    if planned.days > 1:
        return f"{planned.days:,} days: {planned.limited_by} allows no more at once"
    lasting = _lasting(planned.duration.seconds)
    if not planned.forecast.texts.paid:
        return lasting
    calls = planned.duration.measured_calls
    return f"{lasting} (from {_counted(calls, 'call')} measured here)" if calls else f"{lasting} (nothing measured yet)"


def _lasting(seconds: float) -> str:
    whole = math.ceil(seconds)
    if whole < 2 * _MINUTE_SECONDS:
        return f"about {whole} s"
    if whole < 2 * _HOUR_SECONDS:
        return f"about {math.ceil(seconds / _MINUTE_SECONDS)} min"
    return f"about {math.ceil(seconds / _HOUR_SECONDS)} h"


def _rounded(amount: float) -> str:
    """Two digits that say something, however little it is."""
    places = max(2, 1 - math.floor(math.log10(amount)))
    return f"{amount:,.{places}f}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


@contextmanager
def _progress_told() -> Iterator[Callable[[int, int], None]]:
    if err.is_terminal:
        with _bar() as tell:
            yield tell
    else:
        yield now_and_then(_tell_plainly)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(translated("files read")), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err.console, transient=True) as bar:
        task = bar.add_task("plan", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _tell_plainly(done: int, total: int) -> None:
    err.print(f"{done} of {total} files read")
