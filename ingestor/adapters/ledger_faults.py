"""What is wrong with the file of a ledger, in the words of the errors that its users know."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingestor.core.errors import LedgerCorrupt, LedgerLost, ServiceUnavailable
from ingestor.core.shortage import shortage

UNUSABLE_REMEDY = "free disk space, check the folder's permissions, or end the process that locks the file"


def unusable(path: Path | str, reason: object) -> ServiceUnavailable:
    """What is raised for a ledger that cannot be used now, and may be again."""
    return ServiceUnavailable(f"the ledger {path} cannot be used: {reason}", remedy=UNUSABLE_REMEDY)


def damaged(path: Path | str, reason: object) -> LedgerCorrupt:
    """What is raised for a ledger that cannot be read."""
    remedy = "move the file away; the next start rebuilds it from the collection and the folder"
    return LedgerCorrupt(f"the ledger {path} is damaged: {reason}", remedy=remedy)


def lost(path: Path | str) -> LedgerLost:
    """What is raised when a ledger that is in use is no longer the file at its path."""
    remedy = (
        "start again: the ledger is read as it is now, or made anew from the collection, without embedding anything"
    )
    return LedgerLost(f"the ledger {path} was deleted or replaced while it was in use", remedy=remedy)


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Turn faults of SQLite and of the disk into errors that name the ledger.

    Raises `ServiceUnavailable` when another process locks it or the disk is full, and `LedgerCorrupt`.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
    except OSError as error:
        raise shortage(error) or error from error
