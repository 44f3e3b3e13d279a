"""Embedding: from texts to vectors, at the lowest cost.

Texts of all documents in work wait in one line. Who asks for a text that is in the vector store gets it from there; who
asks for a text that somebody else is waiting for, waits with them; the rest is packed into calls up to the provider's
limits. A call that is not full goes out as soon as nobody is about to add to it, so that a lone file does not wait.

Invariant: a vector is in the vector store before anybody gets it, so that what was paid for survives a crash; a text
is never in two calls at once; every caller gets a vector or an error. A text that the model cannot do is parted from
the others of its call, and fails alone.

The provider's client does not retry: the one retry policy is here, bounded by `Backoff.max_attempts`.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import structlog

from ingestor.core.backoff import Backoff
from ingestor.core.errors import IngestorError, RejectedByModel, TransientError, UnusableVectors
from ingestor.core.fingerprint import vector_key
from ingestor.core.model import Purpose, Usage
from ingestor.core.packing import batch_length
from ingestor.engine.lane import Lane
from ingestor.engine.news import happens_within
from ingestor.ports import Clock, Embedder, Vector, VectorStore

LINGER_SECONDS = 0.2
"""How long a call that is not full waits for documents that are being read."""

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


class Embedding:
    """The line of waiting texts, and the calls that serve it. `run` must be running for calls to go out."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        embedder: Embedder,
        vectors: VectorStore,
        lane: Lane,
        clock: Clock,
        *,
        backoff: Backoff,
        estimate_tokens: Callable[[str], int],
    ) -> None:
        self._embedder = embedder
        # As configured: the keys must not change when a model's own dimension becomes known.
        self._recipe = embedder.recipe
        self._vectors = vectors
        self._lane = lane
        self._clock = clock
        self._backoff = backoff
        self._estimate_tokens = estimate_tokens
        self._line: deque[_Waiting] = deque()
        self._promised: dict[bytes, asyncio.Future[Vector]] = {}
        self._announced = 0
        self._news = asyncio.Event()
        self.usage = Usage()
        """What was spent since the start of this process."""

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Say that texts may be asked for soon: calls that are not full wait for them, up to `LINGER_SECONDS`."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1
            self._news.set()

    async def request(self, texts: Sequence[str]) -> "Request":
        """Ask for the vectors of a document's texts, equal texts allowed; returns when they are in the line."""
        sent = {text: self._recipe.text_to_send(text, Purpose.DOCUMENT) for text in texts}
        keys = {text: vector_key(self._recipe, sent_text) for text, sent_text in sent.items()}
        known = await self._lane.run(self._vectors.get, keys.values()) if keys else {}
        awaited: dict[bytes, asyncio.Future[Vector]] = {}
        embedded = 0
        for text, key in keys.items():
            if key in known:
                continue
            if key not in self._promised:
                self._promise(key, sent[text])
                embedded += 1
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
        waiting = _Waiting(key, sent_text, self._estimate_tokens(sent_text), asyncio.get_running_loop().create_future())
        await self._embed([waiting])
        return waiting.vector.result()

    async def run(self) -> None:
        """Serve the line until cancelled; what still waits then is cancelled too."""
        slots = asyncio.Semaphore(self._embedder.max_concurrency)
        try:
            async with asyncio.TaskGroup() as calls:
                while True:
                    await slots.acquire()
                    batch = await self._next_batch()
                    call = calls.create_task(self._serve(batch))
                    call.add_done_callback(lambda _: slots.release())
        finally:
            for future in self._promised.values():
                future.cancel()

    def _promise(self, key: bytes, sent_text: str) -> None:
        future: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        # A caller that was cancelled never looks at its error; that is no reason for asyncio to complain.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._promised[key] = future
        self._line.append(_Waiting(key, sent_text, self._estimate_tokens(sent_text), future))

    async def _next_batch(self) -> list[_Waiting]:
        deadline_seconds: float | None = None
        while True:
            self._news.clear()
            length = batch_length(
                [waiting.tokens for waiting in islice(self._line, self._embedder.max_batch_inputs + 1)],
                max_inputs=self._embedder.max_batch_inputs,
                max_tokens=self._embedder.max_batch_tokens,
            )
            now_seconds = self._clock.monotonic_seconds()
            if self._line and deadline_seconds is None:
                deadline_seconds = now_seconds + LINGER_SECONDS
            is_full = length < len(self._line) or length >= self._embedder.max_batch_inputs
            is_due = deadline_seconds is not None and (not self._announced or now_seconds >= deadline_seconds)
            if self._line and (is_full or is_due):
                return [self._line.popleft() for _ in range(length)]
            await happens_within(self._news, None if deadline_seconds is None else deadline_seconds - now_seconds)

    async def _serve(self, batch: Sequence[_Waiting], *, are_suspects: bool = False) -> None:
        """Embed a batch; `are_suspects` when an answer was sound but for these texts."""
        try:
            await self._embed(batch)
        except RejectedByModel as error:
            if len(batch) == 1:
                self._fail(batch, error)
                return
            # One bad text must not take the others with it: halve until it stands alone.
            middle = len(batch) // 2
            await self._serve(batch[:middle], are_suspects=are_suspects)
            await self._serve(batch[middle:], are_suspects=are_suspects)
        except UnusableVectors as error:
            await self._serve_apart(batch, error, are_suspects=are_suspects)
        except IngestorError as error:
            # The line would fare no better: it fails with this call, instead of attempt by attempt after it.
            self._fail_with_line(batch, error)

    async def _serve_apart(self, batch: Sequence[_Waiting], error: UnusableVectors, *, are_suspects: bool) -> None:
        """Embed the texts that got a sound vector without those that got none, and these by themselves."""
        sound = [waiting for position, waiting in enumerate(batch) if position not in error.positions]
        if sound:
            await self._serve(sound, are_suspects=are_suspects)
            unusable = [waiting for position, waiting in enumerate(batch) if position in error.positions]
            await self._serve(unusable, are_suspects=True)
        elif are_suspects:
            remedy = "change the file, or run `ingestor retry` when the provider has mended its model"
            self._fail(batch, RejectedByModel(f"the model has no vector for a text: {error}", remedy=remedy))
        elif len(batch) > 1:
            self._fail_with_line(batch, error)
        else:
            # A lone text proves nothing: neither is the line given up, nor the text.
            self._fail(batch, error)

    async def _embed(self, batch: Sequence[_Waiting]) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                vectors, usage = await self._embedder.embed([waiting.sent_text for waiting in batch])
            except TransientError as error:
                are_others_sound = isinstance(error, UnusableVectors) and len(error.positions) < len(batch)
                if are_others_sound or self._backoff.is_exhausted(attempt):
                    raise
                jitter = random.random()  # noqa: S311 - spreads retries, guards nothing
                pause_seconds = self._backoff.pause_seconds(attempt, jitter, error.retry_after_seconds)
                _log.warning(
                    "embedding.retry", reason=str(error), attempt=attempt, pause_seconds=round(pause_seconds, 1)
                )
                await self._clock.sleep(pause_seconds)
            else:
                break
        self.usage += usage
        pairs = {waiting.key: vector for waiting, vector in zip(batch, vectors, strict=True)}
        await self._lane.run(self._vectors.put, pairs)
        for waiting in batch:
            self._promised.pop(waiting.key, None)
            if not waiting.vector.done():
                waiting.vector.set_result(pairs[waiting.key])

    def _fail_with_line(self, batch: Sequence[_Waiting], error: IngestorError) -> None:
        self._fail([*batch, *self._line], error)
        self._line.clear()

    def _fail(self, batch: Sequence[_Waiting], error: IngestorError) -> None:
        for waiting in batch:
            self._promised.pop(waiting.key, None)
            if not waiting.vector.done():
                waiting.vector.set_exception(error)
