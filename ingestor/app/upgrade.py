"""Upgrade: ledgers that an older version has left, brought to the schema of this one.

Invariant: only the holder of the instance lock upgrades, so that no older version is at work with tables that it does
not know.
"""

from pathlib import Path

from ingestor.adapters.instance import Instance
from ingestor.adapters.ledger_schema import is_behind, upgrade
from ingestor.core.errors import AlreadyRunning


def ledgers_in(data_dir: Path) -> list[Path]:
    """The ledgers of all sources, those that a rebuild fills or has kept, and those of sources configured no more."""
    return sorted(data_dir.glob("ledger*.sqlite3"))


def upgrade_ledgers(data_dir: Path) -> None:
    """Upgrade every ledger of a data folder; the caller holds its instance lock and has not introduced itself.

    Raises `ConfigError` for one of a newer schema, `ServiceUnavailable` when there is no space for the copy that is
    kept, `LedgerCorrupt`.
    """
    for ledger in ledgers_in(data_dir):
        if is_behind(ledger):
            upgrade(ledger)


def upgrade_to_look(data_dir: Path, ledger: Path) -> None:
    """Have a ledger upgraded that a process without the instance lock wants to look into.

    A holder of the lock that has introduced itself has upgraded before, or is of an older version: then the ledger is
    left as it is, and opening it says so. Raises as `upgrade_ledgers`.
    """
    if not is_behind(ledger):
        return
    instance = Instance(data_dir)
    try:
        instance.acquire()
    except AlreadyRunning:
        return
    try:
        upgrade_ledgers(data_dir)
    finally:
        instance.release()
