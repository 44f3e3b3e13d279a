"""Suspicion: whether a call failed because of the provider, or because of a text that it carried.

Theory of operation
-------------------
Providers, and what stands before them, answer a text that they cannot do as they would in an outage: with 500, 403, a
reset, silence. One answer shows nothing; what other calls get at the same time does. While others are answered, a call
that fails is parted until the text that fails stands alone; while nobody is, a text of our own that nothing can mind
shows whether the provider works.

Invariants: no text is set aside unless it failed by itself, again and again, and others were answered each time; a
provider that answers nobody is down, whatever it says, and no document is blamed for it. Pure: times are arguments, in
monotonic seconds.
"""

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from typing import Generic, TypeVar

from ingestor.core.errors import (
    FatalError,
    IngestorError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    UnusableVectors,
)

_Key = TypeVar("_Key", bound=Hashable)
_Thing = TypeVar("_Thing")

PROBE = "hello"
"""The text of our own: no filter minds it, no model has trouble with it, and it costs next to nothing."""
PROOFS = 2
"""Failures of a lone text beside which others were answered, after its first failure, until it is set aside."""
MAX_MORE_PROOFS = 4
"""How many more it takes at a provider that fails at this and that."""
PATIENT_SECONDS = 60.0
"""For how long texts are asked to slow down before it is asked whether others are, too: most limits are of a minute."""
PATIENT_REFUSALS = 3
"""After so many in a row a call that is asked to slow down rests longer than others."""
BUSY_PROOFS = 7
"""Of a lone text that is asked to slow down beside others that are answered, until it is set aside."""
_RECENT_SECONDS = 60.0
"""An answer that is older says nothing of now."""
_DOUBTFUL = 3
"""Failures in a row, over all calls, after which nobody is believed to be answered."""
_AWARE_SECONDS = 600.0
"""How long a text at fault makes another one likely."""


class Kind(Enum):
    """What a failure may be about."""

    BUSY = auto()
    """The provider asks to slow down."""
    DOWN = auto()
    """No text has anything to do with it: out of reach, no quota."""
    NONSENSE = auto()
    """The provider answers, and what it says is no answer: the next one would be paid for, too."""
    SOME = auto()
    """Some texts of the call have no vector, and others have."""
    REFUSAL = auto()
    """The request was looked at and refused."""
    UNCLEAR = auto()
    """A text, or an outage."""


class Outlook(Enum):
    """What other calls say of the provider."""

    WORKING = auto()
    DOUBTFUL = auto()
    """Whatever went out has failed, again and again."""
    SILENT = auto()
    """Nobody has asked for anything lately."""


class Step(Enum):
    """What to do about a call that failed."""

    PAUSE = auto()
    """Make it again a little later; nothing goes out instead of it meanwhile."""
    REST = auto()
    """Try its only text again later; others go meanwhile."""
    PART = auto()
    """Embed its texts in smaller calls."""
    ASK = auto()
    """Find out whether others are answered."""
    SET_ASIDE = auto()
    """Its only text is at fault."""


@dataclass(slots=True)
class Case:
    """What is known against the texts of one call."""

    failures: int = 0
    proofs: int = 0
    """Failures beside which others were answered."""
    refusals: int = 0
    """How often the provider has asked to slow down."""
    busy_since_seconds: float | None = None
    """When it did so first, of a call that carried these texts; None: never."""

    def bear(self, now_seconds: float) -> float:
        """The provider asks to slow down once more; for how many seconds it has done so."""
        self.refusals += 1
        if self.busy_since_seconds is None:
            self.busy_since_seconds = now_seconds
        return now_seconds - self.busy_since_seconds

    def of_a_part(self) -> "Case":
        """What is known against a part of these texts."""
        return Case(busy_since_seconds=self.busy_since_seconds)


def kind_of(error: IngestorError, size: int) -> Kind:
    """What the failure of a call of so many texts may be about."""
    kind = Kind.DOWN
    match error:
        case RateLimited():
            kind = Kind.BUSY
        case RejectedByModel():
            kind = Kind.REFUSAL
        case UnusableVectors() if len(error.positions) < size:
            kind = Kind.SOME
        case UnusableVectors() if size == 1:
            kind = Kind.UNCLEAR
        case ServiceUnavailable() if not error.may_be_a_text and error.billed_tokens is not None:
            kind = Kind.NONSENSE
        case ServiceUnavailable() if not error.may_be_a_text:
            kind = Kind.DOWN
        case ServiceUnavailable() | FatalError():
            kind = Kind.UNCLEAR
    return kind


def step_after(kind: Kind, size: int, failures: int, outlook: Outlook) -> Step:
    """What to do about a call of so many texts that has failed so often, the last time of a kind that may be a text."""
    if kind is Kind.REFUSAL and size > 1:
        return Step.PART
    if kind is Kind.REFUSAL:
        return Step.SET_ASIDE if outlook is Outlook.WORKING else Step.ASK
    if kind is Kind.NONSENSE:
        return Step.ASK
    if size > 1 and outlook is Outlook.WORKING:
        return Step.PART
    if failures > 1 or outlook is Outlook.DOUBTFUL:
        return Step.ASK
    return Step.REST if outlook is Outlook.WORKING else Step.PAUSE


def step_when_others_are_answered(kind: Kind, size: int, proofs: int, needed: int) -> Step:
    """The same, once it is known that others are answered; `proofs` are those that there are with this one."""
    if size > 1:
        return Step.PART
    return Step.SET_ASIDE if kind is Kind.REFUSAL or proofs >= needed else Step.REST


class Witnesses:
    """What all calls say of the provider."""

    def __init__(self) -> None:
        self._answered_seconds = float("-inf")
        self._failed_in_a_row = 0
        self._mistaken: deque[float] = deque(maxlen=MAX_MORE_PROOFS)
        self._at_fault_seconds = float("-inf")

    @property
    def has_ever_answered(self) -> bool:
        """Whether the provider has ever answered in this process: its key and its model are right, then."""
        return self._answered_seconds > float("-inf")

    def has_answered_since(self, began_seconds: float) -> bool:
        """Whether a call has been answered since then."""
        return self._answered_seconds >= began_seconds

    def outlook(self, now_seconds: float) -> Outlook:
        """What other calls say, the latest failure counted."""
        if self._failed_in_a_row >= _DOUBTFUL:
            return Outlook.DOUBTFUL
        return Outlook.WORKING if now_seconds - self._answered_seconds <= _RECENT_SECONDS else Outlook.SILENT

    def proofs_needed(self, now_seconds: float) -> int:
        """How many proofs set a text aside now: more where calls fail that have nothing wrong with them."""
        return PROOFS + sum(now_seconds - at_seconds <= _RECENT_SECONDS for at_seconds in self._mistaken)

    def expects_faults(self, now_seconds: float) -> bool:
        """Whether a text was at fault lately, so that what is left of a call that failed is likely to hold another."""
        return now_seconds - self._at_fault_seconds <= _AWARE_SECONDS

    def answered(self, now_seconds: float) -> None:
        """A call was answered well."""
        self._answered_seconds = now_seconds
        self._failed_in_a_row = 0

    def failed(self) -> None:
        """A call failed, it may be because of a text."""
        self._failed_in_a_row += 1

    def found_at_fault(self, now_seconds: float) -> None:
        """A lone text failed, and others were answered."""
        self._at_fault_seconds = now_seconds

    def was_mistaken(self, now_seconds: float) -> None:
        """A call failed, and all of its texts got vectors afterwards."""
        self._mistaken.append(now_seconds)


class Suspects(Generic[_Key, _Thing]):
    """Lone texts that have failed, have rested, and wait to be tried again.

    Those that nothing is known against go first: one of these is tried while others wait only when somebody waits for
    it who has just changed a file, or when its turn has come, once in `share` turns.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._turns = 0
        self._live: dict[_Key, _Thing] = {}
        self._backfill: dict[_Key, _Thing] = {}

    def __iter__(self) -> Iterator[_Thing]:
        return chain(self._live.values(), self._backfill.values())

    def put(self, key: _Key, thing: _Thing, *, is_live: bool) -> None:
        """Add one behind those of its kind."""
        (self._live if is_live else self._backfill)[key] = thing

    def take(self, *, others_wait: bool) -> _Thing | None:
        """One that is to be tried now, if there is one."""
        is_turn = not others_wait or self._turns + 1 >= self._share
        kind = self._live or (self._backfill if is_turn else {})
        if not kind:
            return None
        self._turns = 0
        return kind.pop(next(iter(kind)))

    def pass_over(self) -> None:
        """A turn has gone to others."""
        self._turns += 1

    def clear(self) -> None:
        """Forget all of them."""
        self._live.clear()
        self._backfill.clear()
