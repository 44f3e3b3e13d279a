"""Embedding: from texts to vectors, at the lowest cost.

Texts of all documents in work wait in one line, those of live changes before those of the backfill. Who asks for a
text that is in the vector store gets it from there; who asks for a text that somebody else is waiting for, waits with
them; the rest is packed into calls up to the provider's limits. A call that is not full goes out as soon as nobody is
about to add to it, so that a lone file does not wait; one with live texts does not wait for the backfill.

A call that fails because of what it carries is parted, half by half, until the text that is at fault stands alone. It
then rests, and what nothing is known against goes first.

Invariant: a vector is in the vector store before anybody gets it, so that what was paid for survives a crash; a text
is never in two calls at once; every caller gets a vector or an error.

What a call may carry is learned from refusals: a limit that the provider names is believed, another one is found by
halving.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import structlog

from ingestor.core.errors import CallTooLarge, IngestorError, RejectedByModel, TransientError, UnusableVectors
from ingestor.core.fingerprint import vector_key
from ingestor.core.model import Purpose, Usage
from ingestor.core.packing import CallLimits, batch_length
from ingestor.core.precedence import Precedence
from ingestor.core.suspicion import Case, Suspects
from ingestor.engine.account import Account
from ingestor.engine.calls import Calls, Suspected
from ingestor.engine.news import happens_within
from ingestor.engine.pace import Pace
from ingestor.engine.patience import Patience
from ingestor.ports import BACKFILL_SHARE, Clock, Embedder, Lane, Vector, VectorStore

LINGER_SECONDS = 0.5
"""How long a call that is not full waits for documents that are being read."""
SUSPECTS_SHARE = 32
"""Of so many turns at least one goes to a text that has failed, so that it comes to an end however much waits."""
LIVE_LINGER_SECONDS = 0.1
"""How long one with live texts waits for other live documents that are being read."""
_UNKNOWN_DIMENSIONS = 4_096
"""Taken for the length of a vector before the model has given one."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: some vectors are known already, the others are awaited."""

    keys: Sequence[bytes]
    known: Mapping[bytes, Vector]
    awaited: Mapping[bytes, "asyncio.Future[Vector]"]
    embedded: int
    """Distinct texts that this request put into the line; the other ones cost nothing."""

    async def vectors(self) -> list[Vector]:
        """Wait for the vectors, in the order of the texts asked for.

        Raises `RejectedByModel` when the model refuses one of them, `TransientError` when the attempts are used up,
        `FatalError` when no call can succeed.
        """
        if self.awaited:
            await asyncio.wait(self.awaited.values())
        found = {**self.known, **{key: future.result() for key, future in self.awaited.items()}}
        return [found[key] for key in self.keys]


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: bytes
    sent_text: str
    tokens: int
    vector: "asyncio.Future[Vector]"
    is_live: bool
    """Whether it was a live document that asked for it first."""


class Embedding:
    """The line of waiting texts, and the calls that serve it. `run` must be running for calls to go out."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        embedder: Embedder,
        vectors: VectorStore,
        lane: Lane,
        clock: Clock,
        *,
        pace: Pace,
        account: Account,
        estimate_tokens: Callable[[str], int],
        held: Callable[[], Awaitable[TransientError | None]] | None = None,
    ) -> None:
        self._embedder = embedder
        self._calls = Calls(embedder, clock, pace=pace, account=account)
        # As configured: the keys must not change when a model's own dimension becomes known.
        self._recipe = embedder.recipe
        self._vectors = vectors
        self._lane = lane
        self._clock = clock
        self._pace = pace
        self._account = account
        self._estimate_tokens = estimate_tokens
        self._held = held
        """What has to be decided before new texts go out, asked before each call; None: nothing ever has."""
        self._store = Patience(clock)
        """Waits while the vector store cannot be asked."""
        self._room = Patience(clock)
        """Waits while what is paid for could not be kept."""
        self._on_their_way = 0
        """Texts that are paid for, or about to be, and whose vectors are not kept yet; for these there is room."""
        self._line: Precedence[bytes, _Waiting] = Precedence(BACKFILL_SHARE)
        self._suspects: Suspects[bytes, tuple[_Waiting, Case]] = Suspects(SUSPECTS_SHARE)
        self._resting: dict[bytes, _Waiting] = {}
        self._promised: dict[bytes, asyncio.Future[Vector]] = {}
        self._rests = asyncio.TaskGroup()
        """That of `run`, once it runs."""
        self._announced = self._announced_live = 0
        self._news = asyncio.Event()
        self._serving = 0
        self._kept = 0
        """Those of the batches served whose vectors are kept: what is left to do keeps no other call waiting."""
        self._limits = CallLimits(embedder.max_batch_inputs, embedder.max_batch_tokens)

    @property
    def usage(self) -> Usage:
        """What was spent since the start of this process."""
        return self._account.usage

    @property
    def is_down(self) -> bool:
        """Whether the provider is taken for down, which was told."""
        return self._pace.is_given_up

    def waits_for(self) -> str:
        """What calls wait for just now, for people; empty while they go out."""
        return self.storage_outage or self._pace.waits_for()

    @property
    def complaint(self) -> str:
        """What the provider answers, instead of vectors, to texts that wait for it; empty when none does."""
        return self._pace.complaint if self._promised else ""

    @property
    def storage_outage(self) -> str:
        """Why no vector can be kept or found just now; empty when they can."""
        error = self._room.error or self._store.error
        return error.sentence if error else ""

    async def has_room_again(self) -> bool:
        """Whether there was no room for vectors when it was looked last, and now there is."""
        if self._room.error is None:
            return False
        try:
            await self._lane.run(self._vectors.see_room, self._on_their_way, self._dimensions)
        except TransientError:
            return False
        self._room.end()
        return True

    @property
    def next_call_seconds(self) -> float | None:
        """When the provider may be asked again, since the epoch; None when it may be asked now."""
        hold_seconds = self._pace.hold_seconds
        return self._clock.now_seconds() + hold_seconds if hold_seconds else None

    def release(self) -> None:
        """Somebody wants what waits tried now, whatever the provider has asked for."""
        self._pace.release()

    @contextmanager
    def announced(self, *, is_live: bool = False) -> Iterator[None]:
        """Say that texts may be asked for soon: calls that are not full wait for them, up to `LINGER_SECONDS`.

        Calls of live texts wait for live ones alone, up to `LIVE_LINGER_SECONDS`.
        """
        self._announced += 1
        self._announced_live += is_live
        try:
            yield
        finally:
            self._announced -= 1
            self._announced_live -= is_live
            self._news.set()

    async def request(
        self, texts: Sequence[str], purpose: Purpose = Purpose.DOCUMENT, *, is_live: bool = False
    ) -> "Request":
        """Ask for the vectors of texts, equal ones allowed; returns when they are in the line."""
        sent = {text: self._recipe.text_to_send(text, purpose) for text in texts}
        keys = {text: vector_key(self._recipe, sent_text) for text, sent_text in sent.items()}
        known = await self._store.outlast(lambda: self._lane.run(self._vectors.get, keys.values())) if keys else {}
        self._account.count(Usage(lookups=len(keys), hits=len(known)))
        awaited: dict[bytes, asyncio.Future[Vector]] = {}
        embedded = 0
        for text, key in keys.items():
            if key in known:
                continue
            if key not in self._promised:
                self._promise(key, sent[text], is_live=is_live)
                embedded += 1
            elif is_live:
                self._line.move_up(key)
            awaited[key] = self._promised[key]
        self._news.set()
        return Request([keys[text] for text in texts], known, awaited, embedded)

    async def query_vector(self, question: str) -> Vector:
        """Vector of a question: sent at once, not behind the waiting documents; tried as often as they are."""
        sent_text = self._recipe.text_to_send(question, Purpose.QUERY)
        key = vector_key(self._recipe, sent_text)
        try:
            known = await self._lane.run(self._vectors.get, [key])
        except TransientError:
            known = {}  # the store only saves money, and one question costs next to nothing
        if key in known:
            return known[key]
        future: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(key, sent_text, self._estimate_tokens(sent_text), future, is_live=True)
        await self._embed([waiting], Case(), is_urgent=True)
        return waiting.vector.result()

    async def sample(self, text: str) -> Vector:
        """Vector of a text, by one call of its own that is not repeated. Raises what the call raises."""
        sent_text = self._recipe.text_to_send(text)
        vector: Vector = (await self._calls.sample(sent_text, self._estimate_tokens(sent_text)))[0]
        return vector

    async def run(self) -> None:
        """Serve the line until cancelled; what still waits then is cancelled too."""
        try:
            async with asyncio.TaskGroup() as calls:
                self._rests = calls
                while True:
                    batch, case = await self._next_batch()
                    self._serving += 1
                    tokens = sum(_tokens(batch))
                    self._account.reserve(tokens)
                    calls.create_task(self._serve(batch, case)).add_done_callback(partial(self._served, tokens))
        finally:
            for future in self._promised.values():
                future.cancel()

    def _served(self, tokens: int, _: "asyncio.Task[bool]") -> None:
        self._serving -= 1
        self._account.release(tokens)
        self._news.set()

    def _promise(self, key: bytes, sent_text: str, *, is_live: bool) -> None:
        future: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        # A caller that was cancelled never looks at its error; that is no reason for asyncio to complain.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._promised[key] = future
        waiting = _Waiting(key, sent_text, self._estimate_tokens(sent_text), future, is_live)
        self._line.put(key, waiting, is_live=is_live)

    async def _next_batch(self) -> tuple[list[_Waiting], Case]:
        deadline_seconds = float("inf")
        is_let_go = False
        while True:
            self._news.clear()
            left_tokens = await self._account.left_tokens()
            is_free = self._serving - self._kept < self._pace.calls
            if is_free and (suspect := self._suspect(left_tokens)):
                if await self._is_held(suspect[0]):
                    continue
                return suspect
            budgets = (self._limits.max_tokens, self._pace.max_call_tokens, left_tokens)
            # Live texts go by themselves: the time of a call grows with what it carries.
            foremost = self._line.foremost
            length = batch_length(
                _tokens(islice(foremost, self._limits.max_inputs + 1)),
                max_inputs=self._limits.max_inputs,
                max_tokens=min(budget for budget in budgets if budget is not None),
            )
            now_seconds = self._clock.monotonic_seconds()
            deadline_seconds = min(deadline_seconds, now_seconds + self._linger_seconds())
            is_full = length < len(foremost) or length >= self._limits.max_inputs
            is_wanted = bool(foremost) and (is_full or now_seconds >= deadline_seconds)
            if is_wanted and is_free:
                if not is_let_go:
                    # All is reckoned again then: while it was asked, the line may have failed, and nothing be left.
                    is_let_go = not await self._is_held([])
                    continue
                if left_tokens is None or next(iter(foremost)).tokens <= left_tokens:
                    self._suspects.pass_over()
                    return self._line.take(length), Case()
                if not self._serving:
                    # Nothing is on its way that could turn out cheaper than it was taken for.
                    self._fail_with_line([], self._account.close_day())
                    continue
            is_let_go = False
            # With nothing to wait for but the end of a call, its end is the news.
            timeout_seconds = deadline_seconds - now_seconds if foremost and not is_wanted else None
            await happens_within(self._news, timeout_seconds)

    async def _is_held(self, batch: Sequence[_Waiting]) -> bool:
        """Whether somebody has to decide before anything goes out; then a batch fails with the line."""
        error = await self._held() if self._held is not None else None
        if error is not None:
            self._fail_with_line(batch, error)
        return error is not None

    def _suspect(self, left_tokens: int | None) -> tuple[list[_Waiting], Case] | None:
        """A lone text that has failed and is to be tried again now, if there is one."""
        found = self._suspects.take(others_wait=bool(self._line))
        if found is None:
            return None
        waiting, case = found
        if left_tokens is not None and waiting.tokens > left_tokens:
            self._fail_with_line([waiting], self._account.close_day())
            return None
        return [waiting], case

    def _linger_seconds(self) -> float:
        """How long a call of what waits now may wait for more."""
        if self._line.has_live:
            return LIVE_LINGER_SECONDS if self._announced_live else 0.0
        if self._line:
            return LINGER_SECONDS if self._announced else 0.0
        return float("inf")

    async def _serve(self, batch: Sequence[_Waiting], case: Case, *, is_part: bool = False) -> bool:
        """Embed a batch; whether all of it got vectors.

        The next call goes out when the vectors of a batch are kept, so that a killed process loses no more than the
        calls that may run at once; not between two parts of a batch: what they teach of the limits is not known before
        the last of them.
        """
        try:
            await self._embed(batch, case, is_last_call=not is_part)
        except (Suspected, IngestorError) as error:
            await self._part_or_fail(batch, case, error)
            return False
        self._limits.are_kept(len(batch))
        return True

    async def _part_or_fail(self, batch: Sequence[_Waiting], case: Case, error: Suspected | IngestorError) -> None:
        is_alone = len(batch) == 1
        match error:
            case Suspected() if is_alone:
                self._let_rest(batch[0], case, error.pause_seconds)
            case Suspected():
                await self._serve_halves(batch, error.error, case)
            case RejectedByModel() if is_alone:
                self._fail(batch, error)
            case CallTooLarge() if self._limits.are_told(_tokens(batch), error.max_inputs, error.max_tokens):
                self._tell_limits()
                self._put_back(batch)
            case RejectedByModel():
                await self._serve_halves(batch, error, case)
            case UnusableVectors() if len(error.positions) < len(batch):
                await self._serve_apart(batch, error)
            case _:
                # The line would fare no better: it fails with this call, instead of attempt by attempt after it.
                self._fail_with_line(batch, error)

    async def _serve_halves(self, batch: Sequence[_Waiting], error: IngestorError, case: Case) -> None:
        """Embed a batch that failed in two calls, because one bad text must not take the others with it.

        Where a text was at fault lately, a half that does well leaves the blame with the other one: that is parted
        without being tried as a whole, and a text alone is tried when what nothing is known against has gone.
        """
        middle = (len(batch) + 1) // 2
        first, second = batch[:middle], batch[middle:]
        is_first_sound = await self._serve(first, case.of_a_part(), is_part=True)
        is_second_to_blame = is_first_sound and self._calls.expects_faults
        if len(second) > self._limits.max_inputs:
            # Learned meanwhile that it would be refused, too.
            self._put_back(second)
        elif is_second_to_blame and len(second) == 1:
            self._let_rest(second[0], case.of_a_part(), 0.0)
        elif is_second_to_blame:
            await self._serve_halves(second, error, case)
        elif await self._serve(second, case.of_a_part(), is_part=True) and is_first_sound:
            self._learn(first, second, error)

    def _learn(self, first: Sequence[_Waiting], second: Sequence[_Waiting], error: IngestorError) -> None:
        """Each half alone was no offence: together they were too much, or nothing was wrong with any text."""
        is_known = isinstance(error, RejectedByModel)
        (self._limits.are_guessed if is_known else self._limits.are_suspected)(_tokens(first), _tokens(second))
        if is_known:
            self._tell_limits()
        else:
            self._calls.were_not_at_fault()

    def _let_rest(self, waiting: _Waiting, case: Case, pause_seconds: float) -> None:
        """Try a lone text again later. What nothing is known against goes meanwhile."""
        self._resting[waiting.key] = waiting
        self._rests.create_task(self._rest(waiting, case, pause_seconds))

    async def _rest(self, waiting: _Waiting, case: Case, pause_seconds: float) -> None:
        await self._clock.sleep(pause_seconds)
        if self._resting.get(waiting.key) is waiting:  # else it was given up with the line
            del self._resting[waiting.key]
            self._suspects.put(waiting.key, (waiting, case), is_live=waiting.is_live)
            self._news.set()

    def _put_back(self, batch: Sequence[_Waiting]) -> None:
        for is_live in (True, False):
            kind = {waiting.key: waiting for waiting in batch if waiting.is_live is is_live}
            self._line.put_back(kind, is_live=is_live)

    def _tell_limits(self) -> None:
        _log.info("embedding.limit_learned", max_inputs=self._limits.max_inputs, max_tokens=self._limits.max_tokens)

    async def _serve_apart(self, batch: Sequence[_Waiting], error: UnusableVectors) -> None:
        """Embed the texts that got a sound vector without those that got none, and these by themselves."""
        sound = [waiting for position, waiting in enumerate(batch) if position not in error.positions]
        await self._serve(sound, Case(), is_part=True)
        for waiting in (waiting for position, waiting in enumerate(batch) if position in error.positions):
            self._let_rest(waiting, Case(failures=1), 0.0)

    async def _embed(
        self, batch: Sequence[_Waiting], case: Case, *, is_urgent: bool = False, is_last_call: bool = False
    ) -> None:
        # A question may be asked whatever becomes of its vector: it costs next to nothing.
        room = 0 if is_urgent else len(batch)
        if room:
            await self._room.outlast(lambda: self._take_room(room))
        try:
            texts = [waiting.sent_text for waiting in batch]
            vectors = await self._calls.embed(texts, sum(_tokens(batch)), case, is_urgent=is_urgent)
            pairs = {waiting.key: vector for waiting, vector in zip(batch, vectors, strict=True)}
            await self._lane.run(self._vectors.put, pairs)
        finally:
            self._on_their_way -= room
        self._kept += is_last_call
        self._news.set()
        for waiting in batch:
            self._promised.pop(waiting.key, None)
            if not waiting.vector.done():
                waiting.vector.set_result(pairs[waiting.key])
        try:
            # Who waits does not wait for the count, which is asked for before anything that they ask the ledger for.
            await self._account.tell()
        finally:
            self._kept -= is_last_call

    async def _take_room(self, texts: int) -> None:
        """Raise `ServiceUnavailable` while so many texts more could not be kept: nothing is to be paid for them."""
        self._on_their_way += texts
        try:
            await self._lane.run(self._vectors.see_room, self._on_their_way, self._dimensions)
        except BaseException:
            self._on_their_way -= texts
            raise

    @property
    def _dimensions(self) -> int:
        return self._embedder.recipe.dimensions or _UNKNOWN_DIMENSIONS

    def _fail_with_line(self, batch: Sequence[_Waiting], error: IngestorError) -> None:
        rested = [waiting for waiting, _ in self._suspects]
        self._fail([*batch, *self._line, *rested, *self._resting.values()], error)
        self._line.clear()
        self._suspects.clear()
        self._resting.clear()

    def _fail(self, batch: Sequence[_Waiting], error: IngestorError) -> None:
        for waiting in batch:
            self._promised.pop(waiting.key, None)
            if not waiting.vector.done():
                waiting.vector.set_exception(error)


def _tokens(batch: Iterable[_Waiting]) -> list[int]:
    return [waiting.tokens for waiting in batch]
