"""Freshness: how far the collection is behind the folder."""

import time

from ingestor.adapters.ledger_census import census_of
from ingestor.engine.account import local_day
from ingestor.settings import Settings


def oldest_change_seconds(settings: Settings) -> float | None:
    """When the oldest change that waits was queued, in seconds since the epoch; None when none does.

    Raises `ServiceUnavailable` when a ledger cannot be read just now.
    """
    ledgers = [each.data_dir / each.ledger_file for each in settings.each()]
    today = local_day(time.time())
    backlogs = [backlog for path in ledgers if path.is_file() for backlog in census_of(path, today).queue.values()]
    return min((each.since_seconds for each in backlogs if each.since_seconds is not None), default=None)
