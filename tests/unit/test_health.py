"""How a source is, in a word, and what watching does when the ledger cannot be read."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ingestor.adapters.instance import InstanceRecord
from ingestor.app import status as app
from ingestor.app.health import State, health
from ingestor.app.status import Cost, Status
from ingestor.cli import panel
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import Usage
from ingestor.ports import Totals
from ingestor.settings import Settings

TOTALS = Totals(documents=8, chunks=9, queued=0, in_flight=0, problems=0, retrying=0, usage=Usage())
QUIET = Status(
    source="",
    watch_dir="watched_dir",
    data_dir=".ingestor",
    collection="documents",
    chroma="http://127.0.0.1:1",
    daemon=InstanceRecord(1, "run", "watched_dir", 0.0),
    totals=TOTALS,
    cost=Cost(None, "", 0, None),
    tombstones=0,
    vectors_bytes=0,
    max_vectors_bytes=1,
    last_reconcile={"at_seconds": 0.0, "same": 8, "present": 0, "gone": 0},
    held_deletions=0,
    held_examples=(),
    unreadable_folders=0,
    watching="inotify",
    outage="",
    is_behind=False,
    next_call_seconds=None,
    restless=(),
    undecided="",
    unfinished=None,
    kept=None,
)
OUTAGE = "the endpoint is out of reach - start it"


@pytest.mark.parametrize(
    ("changed", "state", "reason"),
    [
        ({}, State.IN_STEP, "the collection equals the folder"),
        ({"totals": replace(TOTALS, queued=2, in_flight=1)}, State.WORKING, "3 changes to do"),
        ({"last_reconcile": None}, State.WORKING, "for the first time"),
        ({"is_behind": True}, State.WORKING, "what has changed is being looked at"),
        ({"outage": OUTAGE, "totals": replace(TOTALS, queued=2, retrying=2)}, State.WAITING, OUTAGE),
        ({"totals": replace(TOTALS, queued=2, retrying=2)}, State.WAITING, "2 documents are tried again later"),
        ({"daemon": None}, State.STOPPED, "`ingestor run`"),
        ({"daemon": None, "totals": None}, State.STOPPED, "nothing was indexed yet"),
        ({"daemon": None, "totals": replace(TOTALS, queued=2)}, State.STOPPED, "2 changes wait"),
        ({"totals": replace(TOTALS, problems=1), "outage": OUTAGE}, State.TROUBLE, "1 document has a problem"),
        ({"unreadable_folders": 1, "daemon": None}, State.TROUBLE, "`ingestor problems`"),
        ({"watching": "not at the moment: it is unmounted"}, State.TROUBLE, "it is unmounted"),
        ({"held_deletions": 9, "totals": replace(TOTALS, problems=1)}, State.TROUBLE, "`ingestor approve`"),
    ],
    ids=[
        "quiet",
        "queued",
        "new",
        "behind",
        "outage",
        "retried",
        "stopped",
        "empty",
        "stopped-with-work",
        "problem",
        "unreadable",
        "unwatched",
        "held",
    ],
)
def test_the_word_that_asks_most_of_people_is_told_with_its_reason(
    changed: dict[str, Any], state: State, reason: str
) -> None:
    found = health(replace(QUIET, **changed))
    assert found.state is state
    assert reason in found.reason


async def test_watching_outlives_a_ledger_that_cannot_be_read_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns: Iterator[list[Status] | ServiceUnavailable] = iter(
        [[QUIET], ServiceUnavailable("the ledger is locked", remedy="wait"), [QUIET], [QUIET]]
    )
    is_over = asyncio.Event()

    def status(_settings: Settings) -> list[Status]:
        turn = next(turns, None)
        if turn is None:
            is_over.set()
            return [QUIET]
        if isinstance(turn, ServiceUnavailable):
            raise turn
        return turn

    monkeypatch.setattr(app, "status", status)
    monkeypatch.setattr(panel, "WATCH_SECONDS", 0.001)
    watching = asyncio.create_task(panel.watch(Settings()))
    async with asyncio.timeout(10):
        await is_over.wait()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    told = [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines()]
    in_step = "8 documents, 9 chunks; in step: the collection equals the folder"
    assert told == [in_step, "the ledger is locked - wait", in_step]
