"""Check: times of files, and of what was noted, against the clock."""

import json
import time
from collections.abc import Iterator, Sequence

from ingestor.app.doctor.folders import MAX_FACTS, named
from ingestor.app.doctor.premises import Premises
from ingestor.app.parts import ledger_of
from ingestor.core.diagnosing import Finding, hint, warning, well
from ingestor.core.errors import IngestorError
from ingestor.engine.reconcile import LAST_RECONCILE_NOTE

_NAME = "clock"
_NANOSECONDS = 1_000_000_000
_TOLERANCE_SECONDS = 60.0
"""Clocks of file servers differ by seconds."""


def check(premises: Premises) -> Sequence[Finding]:
    """Files from the future, and a clock that was set back."""
    now_seconds = time.time()
    found = [*_files(premises, now_seconds), *_notes(premises, now_seconds)]
    return found or [well(_NAME, "no file and no note is from the future", now_seconds=now_seconds)]


def _files(premises: Premises, now_seconds: float) -> Iterator[Finding]:
    last_ns = int((now_seconds + _TOLERANCE_SECONDS) * _NANOSECONDS)
    for seen in premises.surveys:
        ahead = [path for path, (_, _, mtime_ns, *_) in seen.snapshot.files.items() if mtime_ns > last_ns]
        if ahead:
            where = seen.settings.watch_dir
            sentence = f"files changed in the future, below {where}: {len(ahead):,} ({named(ahead)})"
            remedy = "they are indexed all the same; `touch` them, and see that the clocks agree"
            yield hint(_NAME, sentence, remedy, count=len(ahead), paths=sorted(ahead)[:MAX_FACTS])


def _notes(premises: Premises, now_seconds: float) -> Iterator[Finding]:
    for settings in premises.sources:
        try:
            with ledger_of(settings, may_upgrade=False) as ledger:
                told = ledger.note(LAST_RECONCILE_NOTE) if ledger else None
        except IngestorError:
            continue  # told where ledgers are looked at
        ahead_seconds = float(json.loads(told or "{}").get("at_seconds", 0.0)) - now_seconds
        if ahead_seconds > _TOLERANCE_SECONDS:
            sentence = f"the last comparison was made {ahead_seconds:,.0f} s in the future: the clock was set back"
            yield warning(_NAME, sentence, "see that the clock is right (timedatectl)", ahead_seconds=ahead_seconds)
