"""What `ingestor status` shows: a panel for each source on a terminal, rows elsewhere, and both again and again.

Invariant: nothing is told by colour alone; watching reads the ledger once a second, whatever happens there.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from ingestor.cli.output import folded_rows, moment, out, print_rows, shown, sized
from ingestor.cli.rebuild import told_kept, told_unfinished
from ingestor.core.counting import counted
from ingestor.core.errors import TransientError
from ingestor.core.escaping import listed, spelled
from ingestor.language import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from ingestor.app.health import Health
    from ingestor.app.status import Cost, Status
    from ingestor.core.model import Usage
    from ingestor.settings import Settings

WATCH_SECONDS = 1.0
_COLOURS = {"trouble": "red", "stopped": "magenta", "waiting": "yellow", "working": "cyan", "in step": "green"}
_MAX_WIDTH = 120
_FEW = 5
"""Paths of one row."""
_INTERRUPT_CELLS = 2
"""What a terminal writes behind the last line when Ctrl-C is pressed: with room for it, no line is folded."""


def print_status(found: "Sequence[Status]") -> None:
    """Print how each source is."""
    if out.is_terminal:
        out.print_folded(_panels(found, out.folding.width))
        return
    for each in found:
        if each.source:
            out.print_verbatim(f"[bold]{shown(each.source)}[/]")
        print_rows(_rows(each))


async def watch(settings: "Settings") -> None:
    """Show how the sources are until cancelled: panels that are drawn anew, or, on no terminal, a line for a change."""
    if out.is_terminal:
        from rich.live import Live

        with Live(console=out.folding, auto_refresh=False) as live:
            while True:
                live.update(_seen(settings), refresh=True)
                await asyncio.sleep(WATCH_SECONDS)
    told: dict[str, str] = {}
    while True:
        lines = _lines(settings)
        for name, line in lines.items():
            if told.get(name) != line:
                out.print_verbatim(shown(f"{moment(time.time())} {line}"))
        told = lines
        await asyncio.sleep(WATCH_SECONDS)


def _seen(settings: "Settings") -> "Group | str":
    from ingestor.app.status import status

    try:
        return _panels(status(settings), out.folding.width - _INTERRUPT_CELLS)
    except TransientError as error:
        return shown(translated(error.sentence))


def _lines(settings: "Settings") -> dict[str, str]:
    """A line for each source; of what cannot be read just now, the reason."""
    from ingestor.app.status import status

    try:
        return {each.source: _line(each) for each in status(settings)}
    except TransientError as error:
        return {"": translated(error.sentence)}


def _line(found: "Status") -> str:
    from ingestor.app.health import health

    totals = found.totals
    documents, chunks = (totals.documents, totals.chunks) if totals else (0, 0)
    told = f"{translated(f'{documents} documents, {chunks} chunks')}; {_told(health(found))}"
    return f"{found.source}: {told}" if found.source else told


def _panels(found: "Sequence[Status]", width: int) -> "Group":
    from rich.console import Group
    from rich.panel import Panel

    from ingestor.app.health import health

    panels = []
    for each in found:
        state = health(each).state
        name = shown(each.source or each.collection)
        panels.append(
            Panel(
                folded_rows(_rows(each)),
                title=f"[bold]{name}[/] [bold {_COLOURS[state]}]{translated(state)}[/]",
                title_align="left",
                border_style=_COLOURS[state],
                width=min(width, _MAX_WIDTH),
            )
        )
    return Group(*panels)


def _rows(found: "Status") -> dict[str, str]:
    """What there is to tell of a source, under its names."""
    from ingestor.app.health import health
    from ingestor.core.model import Usage
    from ingestor.engine.reconcile import CONVERTER_REMEDY

    daemon, totals, reconcile = found.daemon, found.totals, found.last_reconcile
    usage = totals.usage if totals else Usage()
    alive = "not running"
    if daemon:
        alive = f"`ingestor {daemon.command}` with process id {daemon.pid}, since {moment(daemon.started_seconds)}"
    scanned = "never"
    if reconcile:
        scanned = (
            f"{moment(reconcile['at_seconds'])} ({reconcile['same']} as known, {reconcile['present']} new or changed"
            f", {reconcile['gone']} gone)"
        )
    rows = {
        "health": _told(health(found)),
        "daemon": alive,
        **({"http": daemon.http_url} if daemon and daemon.http_url else {}),
        "folder": f"{found.watch_dir} ({found.watching})" if found.watching else found.watch_dir,
        "collection": f"{found.collection} ({found.chroma})",
        "documents": f"{totals.documents if totals else 0} ({totals.chunks if totals else 0} chunks)",
        "queue": f"{totals.queued if totals else 0} waiting, {totals.in_flight if totals else 0} in work",
        "problems": str(totals.problems + totals.retrying + found.unreadable_folders if totals else 0),
        "last reconcile": scanned,
        "embedding": f"{usage.requests} requests, {usage.texts} texts, {usage.tokens} tokens" + _money(found.cost),
        "vector store": _store(found, usage.lookups, usage.hits),
    }
    if found.tombstones:
        rows["deleted"] = f"{found.tombstones} records that the index still holds"
    if found.cost.tokens_per_day is not None:
        rows["today"] = f"{found.cost.tokens_today} of {found.cost.tokens_per_day} tokens"
    if found.held_deletions:
        examples = listed(found.held_examples, found.held_deletions)
        rows["held back"] = (
            f"{found.held_deletions} deletions, until `ingestor approve` or the files come back: {examples}"
        )
    if reconcile and (left_out := reconcile.get("unconverted")):
        rows["left out"] = f"{left_out} files that nothing here converts to text: {CONVERTER_REMEDY}"
    if found.restless:
        rows["restless"] = told_restless(found.restless)
    rows |= _wasted(usage) | _outage(found)
    if found.unfinished:
        rows["rebuild"] = told_unfinished(found.unfinished)
    if found.kept:
        rows["kept"] = told_kept(found.kept)
    return rows


def told_restless(paths: "Sequence[str]") -> str:
    """Which files change all the time, and what that means."""
    names = ", ".join(spelled(path) for path in paths[:_FEW])
    if len(paths) > _FEW:
        return f"{names} and {len(paths) - _FEW} more change all the time, and are looked at once a minute at most"
    return counted(
        len(paths),
        f"{names} changes all the time, and is looked at once a minute at most",
        f"{names} change all the time, and are looked at once a minute at most",
    )


def _wasted(usage: "Usage") -> dict[str, str]:
    if not usage.wasted_requests:
        return {}
    return {"wasted": f"{usage.wasted_requests} requests, {usage.wasted_tokens} tokens, for answers of no use"}


def _outage(found: "Status") -> dict[str, str]:
    from ingestor.app.waits import reason_of, told_wait

    waits = found.totals.waits if found.totals else ()
    told = {"refused": found.refused, "undecided": found.undecided}
    rows = {name: said for name, said in told.items() if said}
    if waits:
        rows["waiting"] = "; ".join(told_wait(wait, is_attended=found.daemon is not None) for wait in waits)
    if outage := found.outage or next(map(reason_of, waits), ""):
        rows["outage"] = outage
    if found.next_call_seconds is not None:
        rows["next call"] = f"{moment(found.next_call_seconds)}, or at once with `ingestor retry`"
    return rows


def _told(health: "Health") -> str:
    """The reason is told first: a sentence about problems may begin with anything, and would take the state for it."""
    return translated(f"{health.state}: {translated(health.reason)}")


def _money(cost: "Cost") -> str:
    return f", {cost.amount:.4f} {cost.currency}".rstrip() if cost.amount else ""


def _store(found: "Status", lookups: int, hits: int) -> str:
    size = f"{sized(found.vectors_bytes)} / {sized(found.max_vectors_bytes)}"
    return f"{size}, {hits} of {lookups} texts found there ({hits / lookups:.0%})" if lookups else size
