"""Health: how a source is, in a word, with the reason and what to do about it.

Invariant: of several words that fit, the one that asks most of people is told.
"""

from dataclasses import dataclass
from enum import StrEnum

from ingestor.app.status import Status
from ingestor.app.waits import told_wait
from ingestor.core.counting import counted
from ingestor.engine.daemon import IN_STEP, LOOKING
from ingestor.engine.following import NOT_NOW


class State(StrEnum):
    """Words for people, by how much they ask of them."""

    TROUBLE = "trouble"
    """Somebody has to decide or mend something."""
    STOPPED = "stopped"
    """Nothing runs that follows the folder."""
    WAITING = "waiting"
    """For an outside service; goes on by itself."""
    WORKING = "working"
    IN_STEP = "in step"
    """The collection equals the folder."""


@dataclass(frozen=True, slots=True)
class Health:
    """A state, and a sentence that says why."""

    state: State
    reason: str

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}"


def health(found: Status) -> Health:
    """How a source is."""
    return _trouble(found) or _stopped(found) or _waiting(found) or _working(found)


def held_back(deletions: int) -> str:
    """How many deletions wait for approval, as a sentence."""
    return counted(
        deletions,
        "1 deletion is held back until `ingestor approve`, or the file comes back",
        f"{deletions} deletions are held back until `ingestor approve`, or the files come back",
    )


def _trouble(found: Status) -> Health | None:
    faulty = found.unreadable_folders + (found.totals.problems if found.totals else 0)
    if found.refused:
        sentence = found.refused
    elif found.held_deletions:
        sentence = held_back(found.held_deletions)
    elif found.undecided:
        sentence = found.undecided
    elif found.daemon and found.watching.startswith(NOT_NOW):
        sentence = f"the folder is watched {found.watching}"
    elif faulty:
        sentence = counted(
            faulty,
            "1 document has a problem: `ingestor problems` tells which",
            f"{faulty} documents have a problem: `ingestor problems` lists them",
        )
    else:
        return None
    return Health(State.TROUBLE, sentence)


def _stopped(found: Status) -> Health | None:
    if found.daemon:
        return None
    if found.totals is None:
        sentence = "nothing was indexed yet: `ingestor run` begins"
    elif found.totals.queued:
        sentence = counted(
            found.totals.queued,
            "1 change waits, and nothing is at work: start `ingestor run`",
            f"{found.totals.queued} changes wait, and nothing is at work: start `ingestor run`",
        )
    else:
        sentence = "nothing follows the folder: start `ingestor run`"
    return Health(State.STOPPED, sentence)


def _waiting(found: Status) -> Health | None:
    if found.totals and found.totals.waits:
        return Health(State.WAITING, told_wait(found.totals.waits[0], is_attended=found.daemon is not None))
    if found.outage:
        return Health(State.WAITING, found.outage)
    if found.totals and found.totals.retrying:
        sentence = counted(
            found.totals.retrying,
            "1 document is tried again later: `ingestor problems` tells why",
            f"{found.totals.retrying} documents are tried again later: `ingestor problems` tells why",
        )
        return Health(State.WAITING, sentence)
    return None


def _working(found: Status) -> Health:
    if found.totals and (changes := found.totals.queued + found.totals.in_flight):
        return Health(State.WORKING, counted(changes, "1 change to do", f"{changes} changes to do"))
    if found.last_reconcile is None:
        return Health(State.WORKING, "the folder is compared for the first time")
    if found.is_behind:
        return Health(State.WORKING, LOOKING)
    return Health(State.IN_STEP, IN_STEP)
