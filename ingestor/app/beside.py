"""Beside: what stands beside the serving collection - one that is being filled, one that was kept.

Each has a ledger of its own in the data folder for every source, whose notes say which collection it is, and of which
model.

Invariant: those files are the only mark: a collection without one is nothing that anybody goes on with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ingestor.adapters.ledger import SqliteLedger
from ingestor.app.parts import ledger_of
from ingestor.app.switch import ASIDE_NOTE
from ingestor.core.auditing import UNTRIED
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.settings import Settings

MODEL_NOTE = "model"
"""In every ledger of a rebuild: the recipe of its collection, for people."""
_MAX_NAME_CHARACTERS = 480
_ENDING = ".sqlite3"


@dataclass(frozen=True, slots=True)
class Beside:
    """A collection beside the serving one, as its ledger tells."""

    collection_id: str
    name: str
    model: str
    documents: int
    """Documents that it holds whole."""
    documents_expected: int
    chunks: int

    def as_json(self) -> Mapping[str, object]:
        """Name, model, documents, documents_expected, chunks."""
        return {
            "name": self.name,
            "model": self.model,
            "documents": self.documents,
            "documents_expected": self.documents_expected,
            "chunks": self.chunks,
        }


def next_ledger(settings: Settings) -> str:
    """File name of the ledger of a collection that is being filled."""
    return f"{settings.ledger_file.removesuffix(_ENDING)}.next{_ENDING}"


def kept_ledger(settings: Settings) -> str:
    """File name of the ledger of a collection that was kept."""
    return f"{settings.ledger_file.removesuffix(_ENDING)}.before{_ENDING}"


def next_name(settings: Settings) -> str:
    """Name of the collection that is being filled."""
    return f"{settings.chroma.collection[:_MAX_NAME_CHARACTERS]}-next"


def aside_name(settings: Settings, moment: str) -> str:
    """Name of a collection that is kept; `moment` tells it from others: "20261124-031500"."""
    return f"{settings.chroma.collection[:_MAX_NAME_CHARACTERS]}-before-{moment}"


def unfinished(settings: Settings) -> Beside | None:
    """The collection that is being filled; None when no rebuild is under way."""
    found = _beside(settings, next_ledger(settings), next_name(settings))
    if found is None:
        return None
    with ledger_of(settings) as serving:
        totals = serving.totals() if serving is not None else None
    expected = totals.documents + totals.problems if totals is not None else 0
    return replace(found, documents_expected=max(expected, found.documents))


def kept(settings: Settings) -> Beside | None:
    """The collection that was kept at a switch; None when there is none."""
    return _beside(settings, kept_ledger(settings), "")


def together(found: Iterable[Beside | None]) -> Beside | None:
    """What the ledgers of all sources of a collection tell of what is beside it; None when none tells anything."""
    told = [each for each in found if each is not None]
    if not told:
        return None
    return replace(
        told[0],
        name=", ".join(dict.fromkeys(each.name for each in told)),
        documents=sum(each.documents for each in told),
        documents_expected=sum(each.documents_expected for each in told),
        chunks=sum(each.chunks for each in told),
    )


def _beside(settings: Settings, file: str, name: str) -> Beside | None:
    with ledger_of(settings.varied(ledger_file=file, collection=settings.chroma.collection)) as ledger:
        if ledger is None:
            return None
        done = _done(ledger)
        return Beside(
            collection_id=ledger.note(COLLECTION_NOTE) or "",
            name=name or ledger.note(ASIDE_NOTE) or "",
            model=ledger.note(MODEL_NOTE) or "",
            documents=done,
            documents_expected=done,
            chunks=ledger.totals().chunks,
        )


def _done(ledger: SqliteLedger) -> int:
    return sum(cutting != UNTRIED and not is_unfinished for _, cutting, is_unfinished in ledger.glances().values())
