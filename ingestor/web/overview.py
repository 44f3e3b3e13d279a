"""Overview: the state of the daemon as the page tells it."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingestor.app.freshness import oldest_change_seconds
from ingestor.app.live import Live
from ingestor.app.status import MAX_EXAMPLES, Cost, Status, status, waits_of
from ingestor.app.waits import told_wait
from ingestor.core.escaping import listed, spelled
from ingestor.engine.following import NOT_NOW
from ingestor.web.words import Words

RATE_SECONDS: Final = 60.0
_FEW: Final = 5
"""Paths of one notice."""
_MOODS: Final = {
    "starting": "is-busy",
    "outage": "is-bad",
    "unwatched": "is-bad",
    "undecided": "is-warn",
    "held": "is-warn",
    "problems": "is-warn",
    "busy": "is-busy",
    "good": "is-good",
}
"""How a daemon may be, and how that looks; of several that hold, the first one is told."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A watched folder."""

    name: str
    folder: str
    collection: str
    documents: int
    watching: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody should know, and do something about."""

    name: str
    mood: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What the card tells."""

    health: str
    documents: int
    chunks: int
    queued: int
    in_flight: int
    problems: int
    rate: int | None
    """Documents a minute; None while nothing is done."""
    oldest_seconds: float | None
    """For how long the oldest change has waited; None when none does."""
    compared_seconds: float | None
    """When the folder was compared last; of several, that which was compared first."""
    cost: str
    tokens: int
    wasted_tokens: int
    tokens_today: int
    tokens_per_day: int | None
    pid: int
    started_seconds: float
    sources: Sequence[SourceRow]
    notices: Sequence[Notice]

    @property
    def mood(self) -> str:
        """How it looks."""
        return _MOODS[self.health]


class Rate:
    """Documents a minute, by what was done when somebody looked."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, finished: int, now_seconds: float) -> int | None:
        """The rate of the last minute, when so many were finished by now; None when none was."""
        while self._seen and self._seen[0][0] < now_seconds - RATE_SECONDS:
            self._seen.popleft()
        if self._seen and self._seen[-1][1] > finished:
            self._seen.clear()
        if not self._seen or self._seen[-1][0] < now_seconds - 1:
            self._seen.append((now_seconds, finished))
        since_seconds, before = self._seen[0]
        if finished == before:
            return None
        return max(1, round((finished - before) * 60 / max(1.0, now_seconds - since_seconds)))


def overview_of(live: Live, rate: Rate, words: Words) -> Overview:
    """Put together what the ledgers tell and what the process knows of itself. Blocks."""
    found, oldest_seconds = status(live.settings), oldest_change_seconds(live.settings)
    totals = [each.totals for each in found if each.totals is not None]
    compared = [each.last_reconcile["at_seconds"] for each in found if each.last_reconcile]
    held = sum(each.held_deletions for each in found)
    queued, in_flight = sum(each.queued for each in totals), sum(each.in_flight for each in totals)
    daemon = found[0].daemon
    notices = list(_notices(live, found, held, words))
    unreadable = sum(each.unreadable_folders for each in found)
    signs = {notice.name for notice in notices} | {"good"}
    signs |= {"problems"} if unreadable + sum(each.problems for each in totals) else set()
    signs |= {"busy"} if queued + in_flight or any(line.is_behind for line in live.lines) else set()
    return Overview(
        health=next(name for name in _MOODS if name in signs),
        documents=sum(each.documents for each in totals),
        chunks=sum(each.chunks for each in totals),
        queued=queued,
        in_flight=in_flight,
        problems=sum(each.problems + each.retrying for each in totals) + unreadable,
        rate=rate.of(sum(line.pipeline.tally.finished for line in live.lines), time.monotonic()),
        oldest_seconds=None if oldest_seconds is None else max(0.0, time.time() - oldest_seconds),
        compared_seconds=min(compared, default=None),
        cost=cost_of([each.cost for each in found]),
        tokens=sum(each.usage.tokens for each in totals),
        wasted_tokens=sum(each.usage.wasted_tokens for each in totals),
        tokens_today=sum(each.cost.tokens_today for each in found),
        tokens_per_day=found[0].cost.tokens_per_day if len(found) == 1 else None,
        pid=daemon.pid if daemon else 0,
        started_seconds=daemon.started_seconds if daemon else 0.0,
        sources=[
            SourceRow(
                each.source,
                each.watch_dir,
                each.collection,
                each.totals.documents if each.totals is not None else 0,
                each.watching,
            )
            for each in found
        ],
        notices=notices,
    )


def _notices(live: Live, found: Sequence[Status], held: int, words: Words) -> Sequence[Notice]:
    notices = []
    if faults := live.faults():
        is_failing = any(line.pipeline.chroma_failing_seconds() for line in live.lines)
        name, mood = ("outage", "is-bad") if is_failing else ("starting", "")
        notices.append(Notice(name, mood, faults[0]))
    waits = waits_of(found)
    notices += [Notice("outage", "is-bad", told_wait(wait, is_attended=True, has_reason=True)) for wait in waits]
    outages = dict.fromkeys(each.outage for each in found if each.outage and not waits)
    notices += [Notice("outage", "is-bad", sentence) for sentence in outages]
    away = dict.fromkeys(each.watching for each in found if each.watching.startswith(NOT_NOW))
    notices += [Notice("unwatched", "is-bad", sentence) for sentence in away]
    notices += [Notice("undecided", "is-warn", each.undecided) for each in found if each.undecided]
    if held:
        examples = listed([path for each in found for path in each.held_examples][:MAX_EXAMPLES], held)
        notices.append(Notice("held", "is-warn", words("held.how", count=held, examples=examples)))
    restless = [spelled(path) for each in found for path in each.restless]
    if restless:
        count, names = len(restless), ", ".join(restless[:_FEW])
        notices.append(Notice("restless", "", words("restless.how", count=count, names=names)))
    for each in found:
        if (beside := each.unfinished) is not None:
            counts = {"documents": beside.documents, "expected": beside.documents_expected}
            notices.append(Notice("rebuild", "", words("rebuild.how", name=beside.name, **counts)))
    return notices


def cost_of(costs: Sequence[Cost]) -> str:
    """Money by currency, where a price is known."""
    amounts: dict[str, float] = {}
    for each in costs:
        if each.amount:
            amounts[each.currency] = amounts.get(each.currency, 0.0) + each.amount
    return " + ".join(f"{amount:,.4f} {currency}".strip() for currency, amount in amounts.items())
