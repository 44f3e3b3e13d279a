"""Check: what the ledgers tell: whether they can be read, what waits, what went wrong."""

from collections.abc import Iterator, Sequence

from ingestor.adapters.instance import InstanceRecord
from ingestor.adapters.ledger_schema import is_behind
from ingestor.app.doctor.premises import Premises
from ingestor.app.parts import ledger_of
from ingestor.app.status import state_of
from ingestor.app.waits import reason_of, told_wait
from ingestor.core.diagnosing import Finding, failure, hint, warning, well
from ingestor.core.errors import IngestorError
from ingestor.engine.gate import UNDECIDED_NOTE, held_by
from ingestor.engine.guard import holding_in
from ingestor.ports import Totals
from ingestor.settings import Settings

_NAME = "ledger"


def check(premises: Premises) -> Sequence[Finding]:
    """Each ledger; none is made."""
    running = premises.running()
    found: list[Finding] = []
    for settings in premises.sources:
        try:
            found += _of(settings, running)
        except IngestorError as error:
            found.append(failure(_NAME, error))
    return found


def _of(settings: Settings, running: InstanceRecord | None) -> Iterator[Finding]:
    is_attended = running is not None
    file = settings.data_dir / settings.ledger_file
    if not is_attended and is_behind(file):
        sentence = f"{file} was left by an older version of ingestor"
        yield hint(_NAME, sentence, "the next start upgrades it, and keeps a copy")
        return
    with ledger_of(settings, may_upgrade=False) as ledger:
        if ledger is None:
            yield well(_NAME, "nothing has been indexed yet")
            return
        totals = ledger.totals()
        undecided = held_by(ledger.note(UNDECIDED_NOTE))
        held = len(holding_in(ledger).waiting)
        outage = str(state_of(ledger, running).get("outage", ""))
    sentence = f"{file} can be read: documents {totals.documents:,}, waiting {totals.queued:,}"
    yield well(_NAME, sentence, documents=totals.documents, chunks=totals.chunks, queued=totals.queued)
    yield from _left(totals, is_attended=is_attended)
    if held:
        remedy = "see that the folder is complete, then run `ingestor approve`"
        yield warning(_NAME, f"deletions that are held back: {held:,}", remedy, held=held)
    if undecided:
        yield warning(_NAME, f"new texts are not embedded: {undecided}", undecided.remedy)
    for wait in totals.waits if not outage and not undecided else ():
        sentence = told_wait(wait, is_attended=is_attended)
        yield warning(_NAME, sentence, reason_of(wait), waits=wait.documents)
    if outage and not undecided:
        yield warning(_NAME, f"the daemon waits: {outage}", "it tries again by itself", outage=outage)


def _left(totals: Totals, *, is_attended: bool) -> Iterator[Finding]:
    if totals.in_flight and not is_attended:
        sentence = f"documents in work when a process ended: {totals.in_flight:,}"
        yield hint(_NAME, sentence, "no need to do anything: the next start takes them up", leases=totals.in_flight)
    if problems := totals.problems + totals.retrying:
        sentence = f"documents with a problem: {problems:,}"
        yield warning(_NAME, sentence, "`ingestor problems` lists them with their remedies", problems=problems)
