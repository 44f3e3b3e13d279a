"""Calls: a batch of texts goes to the provider, and what comes back is vectors, or a judgement.

The one retry policy is here and in `Pace`, bounded by `Backoff.max_attempts` and `PATIENCE_SECONDS`; what a failure
means is decided by `core.suspicion`. While the provider is down, one call at a time asks whether it is back, with a
text of our own: it fails for no reason of its own, and costs next to nothing should the answer be paid for.

Invariants: what was, or may have been, paid for is counted before anything is concluded from it, and no call goes out
that the day's limit does not allow, but for one a question; a key or a model that was accepted once in this process is
never a reason to end.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from ingestor.core.errors import (
    BudgetSpent,
    CallTooLarge,
    FatalError,
    IngestorError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    TransientError,
    UnusableVectors,
)
from ingestor.core.model import Purpose, Usage
from ingestor.core.profiles import PROVIDERS
from ingestor.core.suspicion import (
    BUSY_PROOFS,
    PATIENT_REFUSALS,
    PATIENT_SECONDS,
    PROBE,
    Case,
    Kind,
    Step,
    Witnesses,
    kind_of,
    step_after,
    step_when_others_are_answered,
)
from ingestor.engine.account import Account
from ingestor.engine.pace import Pace
from ingestor.ports import Clock, Embedder, Vectors

_log = structlog.get_logger(__name__)


class Suspected(Exception):
    """Texts of a call may be at fault: they are to be embedded in smaller ones, a lone text once more, later."""

    def __init__(self, error: IngestorError, pause_seconds: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause_seconds = pause_seconds


@dataclass(slots=True)
class _Call:
    """A batch, and how far its embedding has come."""

    texts: Sequence[str]
    tokens: int
    case: Case
    joined: int
    """`Pace.round` when it was taken up."""
    is_urgent: bool
    attempts: int = 0
    began_seconds: float = 0.0
    """When its latest attempt began."""


class Calls:
    """The provider, as the line of waiting texts sees it."""

    def __init__(self, embedder: Embedder, clock: Clock, *, pace: Pace, account: Account) -> None:
        self._embedder = embedder
        self._clock = clock
        self._pace = pace
        self._account = account
        self._witnesses = Witnesses()
        self._told_reason = ""
        self._asking = asyncio.Lock()
        self._probe = embedder.recipe.text_to_send(PROBE, Purpose.DOCUMENT)
        provider = PROVIDERS.get(embedder.recipe.provider)
        self._is_billed = provider is None or not provider.is_in_process

    @property
    def expects_faults(self) -> bool:
        """Whether what is left of a call that failed is likely to hold a text that is at fault."""
        return self._witnesses.expects_faults(self._clock.monotonic_seconds())

    async def embed(self, texts: Sequence[str], tokens: int, case: Case, *, is_urgent: bool = False) -> Vectors:
        """The vectors of texts of so many estimated tokens; urgent calls wait for nobody.

        Raises `Suspected`, never for an urgent text alone; `RejectedByModel` and `UnusableVectors` where texts of the
        call are at fault, of a lone text proven; `TransientError` when the attempts are used up, and `FatalError`:
        then no call of anybody can succeed now.
        """
        call = _Call(texts, tokens, case, self._pace.round, is_urgent)
        while True:
            call.attempts += 1
            answer = await self._attempt(call)
            if not isinstance(answer, IngestorError):
                if case.failures:
                    self.were_not_at_fault(call.began_seconds)
                return answer
            if is_urgent and await self._account.left_tokens() == 0:
                raise answer  # a question may be asked when the day's tokens are spent: once
            pause_seconds = await self._judge(call, answer)
            self._tell_retry(str(answer), call.attempts, pause_seconds)
            await self._clock.sleep(pause_seconds)
            if not is_urgent:
                self._account.see_that_it_may_cost()

    def _tell_retry(self, reason: str, attempts: int, pause_seconds: float) -> None:
        """That a provider is down is told when it goes down; what it answers again and again then is no news."""
        is_news = reason != self._told_reason or not self._pace.is_given_up
        self._told_reason = reason
        tell = _log.warning if is_news else _log.debug
        tell("embedding.retry", reason=reason, attempt=attempts, pause_seconds=round(pause_seconds, 1))

    async def sample(self, text: str, tokens: int) -> Vectors:
        """The vector of one text, by a request that is not repeated and waits for nobody. Raises what it meets."""
        if self._pace.hold_seconds:
            raise ServiceUnavailable(self._pace.waits_for())
        left_tokens = await self._account.left_tokens()
        if left_tokens is not None and left_tokens < tokens:
            raise BudgetSpent("what embedding may cost in a day is spent")  # which need not be so for a smaller text
        with self._pace.call(tokens):
            answer = await self._ask([text], tokens)
        if isinstance(answer, IngestorError):
            raise answer
        return answer

    def were_not_at_fault(self, began_seconds: float = float("inf")) -> None:
        """A call that began then, or lately, has failed, and all of its texts have got vectors afterwards."""
        self._witnesses.was_mistaken(self._clock.monotonic_seconds())
        self._pace.was_overloaded(began_seconds)

    async def _attempt(self, call: _Call) -> Vectors | IngestorError:
        if not call.is_urgent:
            while not await self._pace.admits(call.tokens, joined=call.joined):
                await self._wait_until_it_is_back(call.joined)
        call.began_seconds = self._clock.monotonic_seconds()
        with self._pace.call(call.tokens):
            return await self._ask(call.texts, call.tokens)

    async def _ask(self, texts: Sequence[str], tokens: int) -> Vectors | IngestorError:
        """The vectors of one request, or what went wrong; what it has cost is counted in either case."""
        began_seconds = self._clock.monotonic_seconds()
        try:
            vectors, usage = await self._embedder.embed(texts)
        except IngestorError as error:
            if isinstance(error, ServiceUnavailable) and error.billed_tokens is not None:
                spent = Usage(1, len(texts), error.billed_tokens, self._milliseconds_since(began_seconds))
                self._account.count_waste(spent, tokens)
                await self._account.tell()
            return error
        except asyncio.CancelledError:
            # It is under way, and may be answered: who ends has to pay for it all the same.
            if self._is_billed:
                self._account.count_waste(
                    Usage(1, len(texts), milliseconds=self._milliseconds_since(began_seconds)), tokens
                )
            raise
        self._account.count(replace(usage, milliseconds=self._milliseconds_since(began_seconds)), tokens)
        self._pace.answered(tokens, began_seconds)
        self._witnesses.answered(self._clock.monotonic_seconds())
        return vectors

    def _milliseconds_since(self, began_seconds: float) -> int:
        return round(1_000 * (self._clock.monotonic_seconds() - began_seconds))

    async def _judge(self, call: _Call, error: IngestorError) -> float:
        """For how many seconds a call that failed rests until it is made again; raises what becomes of it else."""
        kind = kind_of(error, len(call.texts))
        if kind is Kind.SOME:
            raise error
        if kind is Kind.BUSY and not call.is_urgent:
            return await self._bear(call, _passing(error))
        if kind in {Kind.BUSY, Kind.DOWN}:
            return self._rest(call, _passing(error))
        self._witnesses.failed()
        call.case.failures += 1
        now_seconds = self._clock.monotonic_seconds()
        step = step_after(kind, len(call.texts), call.case.failures, self._witnesses.outlook(now_seconds))
        if isinstance(error, FatalError) and not self._witnesses.has_ever_answered:
            step = Step.ASK
        if step is Step.ASK:
            was_accepted = self._witnesses.has_ever_answered
            silence = await self._silence_since(call)
            if not was_accepted and isinstance(error, FatalError) and isinstance(silence, FatalError):
                raise error
            if silence is not None:
                return self._outage(call, kind, silence)
            call.case.proofs += len(call.texts) == 1
            needed = self._witnesses.proofs_needed(now_seconds)
            step = step_when_others_are_answered(kind, len(call.texts), call.case.proofs, needed)
        return self._carry_out(step, call, error)

    async def _bear(self, call: _Call, error: TransientError) -> float:
        """For how long a call rests at a provider that is busy; raises when it is so for this call alone."""
        busy_seconds = call.case.bear(self._clock.monotonic_seconds())
        pause_seconds = self._rest(call, error)
        if call.case.refusals >= PATIENT_REFUSALS:
            pause_seconds = max(pause_seconds, self._pace.pause_seconds(call.case.refusals))
        if busy_seconds < PATIENT_SECONDS or await self._silence_since(call) is not None:
            return pause_seconds
        if len(call.texts) > 1:
            return self._carry_out(Step.PART, call, error)
        call.case.failures += 1
        call.case.proofs += 1
        is_enough = call.case.proofs >= BUSY_PROOFS
        return self._carry_out(Step.SET_ASIDE if is_enough else Step.REST, call, error)

    def _outage(self, call: _Call, kind: Kind, silence: IngestorError) -> float:
        """For how long a call rests whose texts fare no worse than a text of our own; raises when that is enough."""
        error = _passing(silence)
        if isinstance(silence, RateLimited) or (call.is_urgent and kind is not Kind.REFUSAL):
            return self._rest(call, error)
        self._pace.taken_for_down(error, call.began_seconds)
        if kind is Kind.REFUSAL:
            # What is refused now is refused in a minute, too.
            if not call.is_urgent:
                self._pace.give_up()
            raise error
        return 0.0

    def _carry_out(self, step: Step, call: _Call, error: IngestorError) -> float:
        if step is not Step.PAUSE:
            _log.info("embedding.suspected", reason=str(error), texts=len(call.texts), step=step.name.lower())
        if step is Step.PART:
            raise error if isinstance(error, RejectedByModel) else Suspected(error)
        if step in {Step.REST, Step.SET_ASIDE}:
            self._witnesses.found_at_fault(self._clock.monotonic_seconds())
        if step is Step.SET_ASIDE:
            raise _at_fault(error)
        pause_seconds = self._pace.pause_seconds(call.case.failures)
        if step is Step.REST and not call.is_urgent:
            raise Suspected(error, pause_seconds)
        return pause_seconds

    def _rest(self, call: _Call, error: TransientError) -> float:
        """For how long a call rests that failed for no reason of its own; raises the error when that is enough."""
        pause_seconds = self._pace.failed(error, call.began_seconds, call.attempts)
        most_tokens = self._pace.max_call_tokens
        is_too_large = bool(most_tokens) and call.tokens > (most_tokens or 0) and len(call.texts) > 1
        if isinstance(error, RateLimited) and is_too_large:
            raise CallTooLarge(str(error), remedy=error.remedy, max_tokens=most_tokens) from error
        # How often a busy provider was asked says little: limits that nobody names are mostly those of a minute.
        is_given_up = (
            self._pace.is_to_be_given_up(pause_seconds)
            if isinstance(error, RateLimited) and not call.is_urgent
            else self._pace.is_exhausted(call.attempts, pause_seconds)
        )
        if is_given_up:
            if not call.is_urgent:
                self._pace.give_up()
            raise error
        return pause_seconds

    async def _silence_since(self, call: _Call) -> IngestorError | None:
        """What a text of our own gets while a call has failed; None when that, or any other call since, is answered.

        Others that are under way are waited for: mostly one of them is answered, and nothing has to be asked.
        """
        while self._pace.running and not self._witnesses.has_answered_since(call.began_seconds):
            await self._pace.ends()
        async with self._asking:
            if self._witnesses.has_answered_since(call.began_seconds):
                return None
            tokens = len(self._probe)
            if not call.is_urgent:
                self._account.see_that_it_may_cost(tokens)
            if not call.is_urgent and not await self._pace.admits(tokens, joined=call.joined):
                return self._pace.reason
            with self._pace.call(tokens):
                answer = await self._ask([self._probe], tokens)
        return answer if isinstance(answer, IngestorError) else None

    async def _wait_until_it_is_back(self, joined: int) -> None:
        """Ask a provider that is down, after growing pauses, until it answers; raises its error when it is given up."""
        async with self._asking:
            while self._pace.is_given_up:
                tokens = len(self._probe)
                self._account.see_that_it_may_cost(tokens)
                await self._pace.admits(tokens, joined=joined, is_probe=True)
                began_seconds = self._clock.monotonic_seconds()
                with self._pace.call(tokens):
                    answer = await self._ask([self._probe], tokens)
                if not isinstance(answer, IngestorError):
                    return
                if isinstance(answer, FatalError) and not self._witnesses.has_ever_answered:
                    raise answer
                error = _passing(answer)
                pause_seconds = self._pace.failed(error, began_seconds, 1)
                if self._pace.is_exhausted(1, pause_seconds):
                    self._pace.give_up()
                    raise error


def _passing(error: IngestorError) -> TransientError:
    """What is said of an error that every text gets: nobody's document is at fault, and it may pass."""
    if isinstance(error, TransientError) and not isinstance(error, UnusableVectors):
        return error
    said, remedy = str(error), error.remedy  # without the positions of vectors: they are those of another call
    if isinstance(error, RejectedByModel):
        said = f"whatever text it is, {error}"
    elif isinstance(error, FatalError):
        remedy = f"it was accepted before, and may be again; if it is not, {error.remedy}"
    passing = ServiceUnavailable(said, remedy=remedy)
    passing.service = error.service
    return passing


def _at_fault(error: IngestorError) -> RejectedByModel:
    """What a document is set aside with whose text failed by itself while others were answered."""
    if isinstance(error, RejectedByModel):
        return error
    if isinstance(error, UnusableVectors):
        remedy = "change the file, or run `ingestor retry` when the provider has mended its model"
        return RejectedByModel(f"the model has no vector for a text: {error}", remedy=remedy)
    if isinstance(error, RateLimited):
        remedy = "it may be more than the provider takes in a minute: lower chunk.max_tokens, or ask for a higher limit"
        return RejectedByModel(f"a text is put off again and again while others get vectors: {error}", remedy=remedy)
    remedy = (
        "something in the text is at fault, or a firewall in front of the model blocks it: change the file, or run"
        " `ingestor retry` when the endpoint has been mended"
    )
    return RejectedByModel(f"a text fails again and again while others get vectors: {error}", remedy=remedy)
