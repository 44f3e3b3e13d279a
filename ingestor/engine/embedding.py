"""Embedding: from texts to vectors, at the lowest cost.

Texts of all documents in work wait in one line, those of live changes before those of the backfill. Who asks for a
text that is in the vector store gets it from there; who asks for a text that somebody else is waiting for, waits with
them; the rest is packed into calls up to the provider's limits. A call that is not full goes out as soon as nobody is
about to add to it, so that a lone file does not wait; one with live texts does not wait for the backfill.

Invariant: a vector is in the vector store before anybody gets it, so that what was paid for survives a crash; a text
is never in two calls at once; every caller gets a vector or an error. A text that the model cannot do is parted from
the others of its call, and fails alone.

The provider's client does not retry: the one retry policy is here and in `Pace`, bounded by `Backoff.max_attempts`.
What a call may carry is learned from refusals: a limit that the provider names is believed, another one is found by
halving.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import structlog

from ingestor.core.errors import (
    CallTooLarge,
    IngestorError,
    RateLimited,
    RejectedByModel,
    TransientError,
    UnusableVectors,
)
from ingestor.core.fingerprint import vector_key
from ingestor.core.model import Purpose, Usage
from ingestor.core.packing import CallLimits, batch_length
from ingestor.core.precedence import Precedence
from ingestor.engine.account import Account
from ingestor.engine.news import happens_within
from ingestor.engine.pace import Pace
from ingestor.ports import BACKFILL_SHARE, Clock, Embedder, Lane, Vector, Vectors, VectorStore

LINGER_SECONDS = 0.5
"""How long a call that is not full waits for documents that are being read."""
LIVE_LINGER_SECONDS = 0.1
"""How long one with live texts waits for other live documents that are being read."""

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
    ) -> None:
        self._embedder = embedder
        # As configured: the keys must not change when a model's own dimension becomes known.
        self._recipe = embedder.recipe
        self._vectors = vectors
        self._lane = lane
        self._clock = clock
        self._pace = pace
        self._account = account
        self._estimate_tokens = estimate_tokens
        self._line: Precedence[bytes, _Waiting] = Precedence(BACKFILL_SHARE)
        self._promised: dict[bytes, asyncio.Future[Vector]] = {}
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

    def waits_for(self) -> str:
        """What calls wait for just now, for people; empty while they go out."""
        return self._pace.waits_for()

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
        known = await self._lane.run(self._vectors.get, keys.values()) if keys else {}
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
        await self._embed([waiting], is_urgent=True)
        return waiting.vector.result()

    async def run(self) -> None:
        """Serve the line until cancelled; what still waits then is cancelled too."""
        try:
            async with asyncio.TaskGroup() as calls:
                while True:
                    batch = await self._next_batch()
                    self._serving += 1
                    tokens = sum(_tokens(batch))
                    self._account.reserve(tokens)
                    calls.create_task(self._serve(batch)).add_done_callback(partial(self._served, tokens))
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

    async def _next_batch(self) -> list[_Waiting]:
        deadline_seconds = float("inf")
        while True:
            self._news.clear()
            left_tokens = await self._account.left_tokens()
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
            if is_wanted and self._serving - self._kept < self._pace.calls:
                if left_tokens is None or next(iter(foremost)).tokens <= left_tokens:
                    return self._line.take(length)
                if not self._serving:
                    # Nothing is on its way that could turn out cheaper than it was taken for.
                    self._fail_with_line([], self._account.close_day())
                    continue
            # With nothing to wait for but the end of a call, its end is the news.
            timeout_seconds = deadline_seconds - now_seconds if foremost and not is_wanted else None
            await happens_within(self._news, timeout_seconds)

    def _linger_seconds(self) -> float:
        """How long a call of what waits now may wait for more."""
        if self._line.has_live:
            return LIVE_LINGER_SECONDS if self._announced_live else 0.0
        if self._line:
            return LINGER_SECONDS if self._announced else 0.0
        return float("inf")

    async def _serve(self, batch: Sequence[_Waiting], *, is_part: bool = False, are_suspects: bool = False) -> bool:
        """Embed a batch; whether no text was refused. `are_suspects` when an answer was sound but for these texts.

        The next call goes out when the vectors of a batch are kept, so that a killed process loses no more than the
        calls that may run at once; not between two parts of a batch: what they teach of the limits is not known before
        the last of them.
        """
        try:
            await self._embed(batch, is_last_call=not is_part)
        except RejectedByModel as error:
            if len(batch) == 1:
                self._fail(batch, error)
            elif isinstance(error, CallTooLarge) and self._limits.are_told(
                _tokens(batch), error.max_inputs, error.max_tokens
            ):
                self._tell_limits()
                self._put_back(batch)
            else:
                return await self._serve_halves(batch, are_suspects=are_suspects)
            return False
        except UnusableVectors as error:
            await self._serve_apart(batch, error, are_suspects=are_suspects)
            return False
        except IngestorError as error:
            # The line would fare no better: it fails with this call, instead of attempt by attempt after it.
            self._fail_with_line(batch, error)
            return False
        self._limits.are_kept()
        return True

    async def _serve_halves(self, batch: Sequence[_Waiting], *, are_suspects: bool) -> bool:
        """Embed a batch that was refused in two calls, because one bad text must not take the others with it."""
        middle = (len(batch) + 1) // 2
        first, second = batch[:middle], batch[middle:]
        is_first_sound = await self._serve(first, is_part=True, are_suspects=are_suspects)
        if len(second) > self._limits.max_inputs:
            # Learned meanwhile that it would be refused, too.
            self._put_back(second)
        elif await self._serve(second, is_part=True, are_suspects=are_suspects) and is_first_sound:
            # Each half alone was no offence: together they were too much.
            self._limits.are_guessed(_tokens(first), _tokens(second))
            self._tell_limits()
        return False

    def _put_back(self, batch: Sequence[_Waiting]) -> None:
        for is_live in (True, False):
            kind = {waiting.key: waiting for waiting in batch if waiting.is_live is is_live}
            self._line.put_back(kind, is_live=is_live)

    def _tell_limits(self) -> None:
        _log.info("embedding.limit_learned", max_inputs=self._limits.max_inputs, max_tokens=self._limits.max_tokens)

    async def _serve_apart(self, batch: Sequence[_Waiting], error: UnusableVectors, *, are_suspects: bool) -> None:
        """Embed the texts that got a sound vector without those that got none, and these by themselves."""
        sound = [waiting for position, waiting in enumerate(batch) if position not in error.positions]
        if sound:
            await self._serve(sound, is_part=True, are_suspects=are_suspects)
            unusable = [waiting for position, waiting in enumerate(batch) if position in error.positions]
            await self._serve(unusable, is_part=True, are_suspects=True)
        elif are_suspects:
            remedy = "change the file, or run `ingestor retry` when the provider has mended its model"
            self._fail(batch, RejectedByModel(f"the model has no vector for a text: {error}", remedy=remedy))
        elif len(batch) > 1:
            self._fail_with_line(batch, error)
        else:
            # A lone text proves nothing: neither is the line given up, nor the text.
            self._fail(batch, error)

    async def _embed(self, batch: Sequence[_Waiting], *, is_urgent: bool = False, is_last_call: bool = False) -> None:
        texts = [waiting.sent_text for waiting in batch]
        tokens = sum(_tokens(batch))
        joined, attempt = self._pace.round, 0
        while True:
            attempt += 1
            async with self._pace.turn(tokens, joined=joined, is_urgent=is_urgent):
                answer = await self._call(texts, tokens, attempt, is_urgent=is_urgent)
            if not isinstance(answer, float):
                break
            await self._clock.sleep(answer)
        pairs = {waiting.key: vector for waiting, vector in zip(batch, answer, strict=True)}
        await self._lane.run(self._vectors.put, pairs)
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

    async def _call(self, texts: Sequence[str], tokens: int, attempt: int, *, is_urgent: bool) -> Vectors | float:
        """The vectors of one call, or the seconds to wait before it is made again."""
        began_seconds = self._clock.monotonic_seconds()
        try:
            vectors, usage = await self._embedder.embed(texts)
        except RejectedByModel:
            self._pace.seen_alive()
            raise
        except TransientError as error:
            if isinstance(error, UnusableVectors) and len(error.positions) < len(texts):
                raise  # the fault lies with these texts
            pause_seconds = self._pace.failed(error, began_seconds, attempt)
            most_tokens = self._pace.max_call_tokens
            if isinstance(error, RateLimited) and most_tokens and tokens > most_tokens and len(texts) > 1:
                raise CallTooLarge(str(error), remedy=error.remedy, max_tokens=most_tokens) from error
            if self._pace.is_exhausted(attempt, pause_seconds):
                if not (is_urgent or isinstance(error, UnusableVectors)):
                    self._pace.give_up()
                raise
            _log.warning("embedding.retry", reason=str(error), attempt=attempt, pause_seconds=round(pause_seconds, 1))
            return pause_seconds
        self._pace.answered(tokens, began_seconds)
        seconds = self._clock.monotonic_seconds() - began_seconds
        # A provider that does not say what it counted is believed to count as we do.
        counted = replace(usage, tokens=usage.tokens or tokens, milliseconds=round(1000 * seconds))
        self._account.count(counted, tokens)
        return vectors

    def _fail_with_line(self, batch: Sequence[_Waiting], error: IngestorError) -> None:
        self._fail([*batch, *self._line], error)
        self._line.clear()

    def _fail(self, batch: Sequence[_Waiting], error: IngestorError) -> None:
        for waiting in batch:
            self._promised.pop(waiting.key, None)
            if not waiting.vector.done():
                waiting.vector.set_exception(error)


def _tokens(batch: Iterable[_Waiting]) -> list[int]:
    return [waiting.tokens for waiting in batch]
