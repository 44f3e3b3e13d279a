"""Switch: a collection, filled beside the serving one, put in its place with its ledgers.

The journal, named after the first of them, says that a switch was begun; `core/switching.py` says what is left of it.
To begin is to write the journal and to resume, so there is one way through the steps.

Invariant: whoever opens a collection to write to it resumes first (`app/collection.py`), so that nobody ever works with
the ledger of one collection and the records of another.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog

from ingestor.adapters.chroma_catalog import ChromaCatalog, CollectionRow
from ingestor.adapters.journal import Journal
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.core.errors import ConfigError
from ingestor.core.switching import Scene, Step, Swap, Switch, next_step
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.settings import Settings

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

ASIDE_NOTE = "aside_name"
"""In a ledger that is kept: the name of its collection."""

_JOURNAL = ".switch.json"
_NAMES = ("name", "serving_id", "aside_name", "next_id")

_log = structlog.get_logger(__name__)


def pending(settings: Settings) -> Switch | None:
    """The switch of the collection of these settings that was begun and not ended; None when there is none."""
    switches = (switch for _, switch in _begun(settings))
    return next((switch for switch in switches if switch.name == settings.chroma.collection), None)


def _begun(settings: Settings) -> Iterator[tuple[Journal, Switch]]:
    """Every switch that was begun in the data folder and not ended, with its journal."""
    for path in sorted(settings.data_dir.glob(f"*{_JOURNAL}")):
        journal = Journal(path)
        fields = journal.read()
        if fields is not None:
            yield journal, switch_of(fields)


def fields_of(switch: Switch) -> Mapping[str, str]:
    """A switch as the journal holds it: texts."""
    swaps = json.dumps([asdict(swap) for swap in switch.swaps])
    return {**{name: getattr(switch, name) for name in _NAMES}, "swaps": swaps}


def switch_of(fields: Mapping[str, str]) -> Switch:
    """What a journal tells; before a switch could name several ledgers it held the fields of the only one.

    Raises `ConfigError`.
    """
    others = {name: value for name, value in fields.items() if name not in _NAMES}
    try:
        told = json.loads(others.pop("swaps")) if "swaps" in others else [others]
        name, serving_id, aside_name, next_id = (fields[each] for each in _NAMES)
        return Switch(name, serving_id, aside_name, next_id, tuple(Swap(**each) for each in told))
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            "the journal of a switch was written by another version of ingestor", remedy="run that version once"
        ) from error


def begin(settings: Settings, client: "ClientAPI", switch: Switch) -> None:
    """Carry out a switch. The caller holds the instance lock, and has closed every ledger that the switch names.

    Raises what `resume` raises. Before the journal is written nothing has changed.
    """
    name = f"{switch.swaps[0].ledger.removesuffix('.sqlite3')}{_JOURNAL}"
    Journal(settings.data_dir / name).write(fields_of(switch))
    resume(settings, client)


def resume(settings: Settings, client: "ClientAPI") -> None:
    """Complete what was begun, of whatever source's collection. The caller holds the instance lock.

    Raises `ServiceUnavailable` (Chroma, a full disk), `LedgerCorrupt`, `ConfigError` when somebody has put records
    under the name meanwhile; whatever was raised, the next call goes on from there.
    """
    for journal, switch in _begun(settings):
        Exchange(switch, ChromaCatalog(client), LedgerFiles(settings.data_dir), journal).carry_out()


class Exchange:
    """Carries a switch out, from wherever it is."""

    def __init__(self, switch: Switch, catalog: ChromaCatalog, ledgers: LedgerFiles, journal: Journal) -> None:
        self._switch = switch
        self._catalog = catalog
        self._ledgers = ledgers
        self._journal = journal
        self._acts: dict[Step, Callable[[Mapping[str, CollectionRow], Swap], None]] = {
            Step.KEEP_LEDGER: self._keep_ledger,
            Step.STEP_ASIDE: lambda rows, _: catalog.rename(rows[switch.serving_id], switch.aside_name),
            Step.CLEAR: self._clear,
            Step.STEP_IN: lambda rows, _: catalog.rename(rows[switch.next_id], switch.name),
            Step.STEP_BACK: lambda rows, _: catalog.rename(rows[switch.serving_id], switch.name),
            Step.TAKE_LEDGER: lambda _, swap: ledgers.take(swap.next_ledger, swap.ledger),
            Step.NOTE_LEDGER: lambda _, swap: ledgers.set_note(swap.ledger, COLLECTION_NOTE, switch.next_id),
            Step.DROP_LEDGER: lambda _, swap: ledgers.drop(swap.next_ledger),
        }

    def carry_out(self) -> None:
        """Go on until the switch is ended. Each step is taken once, or else something undoes it behind our back."""
        for _ in range(len(Step) * len(self._switch.swaps)):
            rows = {row.id: row for row in self._catalog.rows()}
            step, swap = next_step(self._switch, Scene({id_: row.name for id_, row in rows.items()}, self._notes()))
            if step is Step.END:
                self._journal.remove()
                is_switched = self._switch.next_id in rows
                _log.info("collection.switched" if is_switched else "collection.not_switched", name=self._switch.name)
                return
            self._acts[step](rows, swap)
        raise ConfigError(
            f"the switch of the collection {self._switch.name!r} does not come to an end: somebody undoes its steps",
            remedy="end other programs that rename collections, then start again",
        )

    def _notes(self) -> dict[str, str]:
        files = [file for swap in self._switch.swaps for file in swap.files]
        found = {file: self._ledgers.note(file, COLLECTION_NOTE) for file in files}
        return {file: note for file, note in found.items() if note is not None}

    def _keep_ledger(self, _: Mapping[str, CollectionRow], swap: Swap) -> None:
        self._ledgers.copy(swap.ledger, swap.kept_ledger, {ASIDE_NOTE: self._switch.aside_name})

    def _clear(self, rows: Mapping[str, CollectionRow], _: Swap) -> None:
        (occupant,) = (row for row in rows.values() if row.name == self._switch.name)
        if not self._catalog.delete_if_empty(occupant):
            raise ConfigError(
                f"somebody has put records into a new collection {self._switch.name!r} while it was switched",
                remedy="rename or delete that collection, then start again",
            )
