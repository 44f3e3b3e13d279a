"""Switch: a collection, filled beside the serving one, put in its place with its ledger.

The journal says that a switch was begun; `core/switching.py` says what is left of it. To begin is to write the journal
and to resume, so there is one way through the steps.

Invariant: whoever opens a collection to write to it resumes first (`app/collection.py`), so that nobody ever works with
the ledger of one collection and the records of another.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.journal import Journal
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.core.errors import ConfigError
from ingestor.core.switching import Scene, Step, Switch, next_step
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

ASIDE_NOTE = "aside_name"
"""In a ledger that is kept: the name of its collection."""

_log = structlog.get_logger(__name__)


def journal_of(settings: Settings) -> Journal:
    """Where a switch of the collection of these settings is noted while it is under way."""
    return Journal(settings.data_dir / f"{settings.ledger_file.removesuffix('.sqlite3')}.switch.json")


def pending(settings: Settings) -> Switch | None:
    """The switch that was begun and not ended; None when there is none."""
    fields = journal_of(settings).read()
    if fields is None:
        return None
    try:
        return Switch(**fields)
    except TypeError as error:
        raise ConfigError(
            "the journal of a switch was written by another version of ingestor", remedy="run that version once"
        ) from error


def begin(settings: Settings, client: "ClientAPI", switch: Switch) -> None:
    """Carry out a switch. The caller holds the instance lock, and has closed every ledger that the switch names.

    Raises what `resume` raises. Before the journal is written nothing has changed.
    """
    journal_of(settings).write(asdict(switch))
    resume(settings, client)


def resume(settings: Settings, client: "ClientAPI") -> Switch | None:
    """Complete the switch that was begun, if any; returns it. The caller holds the instance lock.

    Raises `ServiceUnavailable` (Chroma, a full disk), `LedgerCorrupt`, `ConfigError` when somebody has put records
    under the name meanwhile; whatever was raised, the next call goes on from there.
    """
    switch = pending(settings)
    if switch is not None:
        Exchange(switch, ChromaCatalog(client), LedgerFiles(settings.data_dir), journal_of(settings)).carry_out()
    return switch


class Exchange:
    """Carries a switch out, from wherever it is."""

    def __init__(self, switch: Switch, catalog: ChromaCatalog, ledgers: LedgerFiles, journal: Journal) -> None:
        self._switch = switch
        self._catalog = catalog
        self._ledgers = ledgers
        self._journal = journal
        self._acts: dict[Step, Callable[[dict[str, CollectionRow]], None]] = {
            Step.KEEP_LEDGER: self._keep_ledger,
            Step.STEP_ASIDE: lambda rows: catalog.rename(rows[switch.serving_id], switch.aside_name),
            Step.CLEAR: self._clear,
            Step.STEP_IN: lambda rows: catalog.rename(rows[switch.next_id], switch.name),
            Step.STEP_BACK: lambda rows: catalog.rename(rows[switch.serving_id], switch.name),
            Step.TAKE_LEDGER: lambda _: ledgers.take(switch.next_ledger, switch.ledger),
            Step.NOTE_LEDGER: lambda _: self._note_ledgers(),
            Step.DROP_LEDGER: lambda _: ledgers.drop(switch.next_ledger),
        }

    def carry_out(self) -> None:
        """Go on until the switch is ended. Each step is taken once, or else something undoes it behind our back."""
        for _ in Step:
            rows = {row.id: row for row in self._catalog.rows()}
            step = next_step(self._switch, Scene({id_: row.name for id_, row in rows.items()}, self._notes()))
            if step is Step.END:
                self._journal.remove()
                is_switched = self._switch.next_id in rows
                _log.info("collection.switched" if is_switched else "collection.not_switched", name=self._switch.name)
                return
            self._acts[step](rows)
        raise ConfigError(
            f"the switch of the collection {self._switch.name!r} does not come to an end: somebody undoes its steps",
            remedy="end other programs that rename collections, then start again",
        )

    def _notes(self) -> dict[str, str]:
        switch = self._switch
        files = filter(None, (switch.ledger, switch.next_ledger, switch.kept_ledger, *switch.sharing_ledgers))
        found = {file: self._ledgers.note(file, COLLECTION_NOTE) for file in files}
        return {file: note for file, note in found.items() if note is not None}

    def _keep_ledger(self, _: dict[str, CollectionRow]) -> None:
        switch = self._switch
        self._ledgers.copy(switch.ledger, switch.kept_ledger, {ASIDE_NOTE: switch.aside_name})

    def _note_ledgers(self) -> None:
        switch, notes = self._switch, self._notes()
        # One that speaks of anything else has missed something, and is compared at the next start.
        others = [file for file in switch.sharing_ledgers if notes.get(file) == switch.serving_id]
        for file in [*([switch.ledger] if switch.ledger in notes else []), *others]:
            self._ledgers.set_note(file, COLLECTION_NOTE, switch.next_id)

    def _clear(self, rows: dict[str, CollectionRow]) -> None:
        (occupant,) = (row for row in rows.values() if row.name == self._switch.name)
        if not self._catalog.delete_if_empty(occupant):
            raise ConfigError(
                f"somebody has put records into a new collection {self._switch.name!r} while it was switched",
                remedy="rename or delete that collection, then start again",
            )
