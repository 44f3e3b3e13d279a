"""Faults of what the engine depends on: the weather, and ports that it blows through.

A *spell* is a span of bad weather over one service: each call then fails with some probability, in one of the ways of
that service. Between spells every call does what it should, after a delay of its own.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from random import Random
from typing import Any

import numpy as np

from ingestor.core.errors import (
    ChromaUnavailable,
    IngestorError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    UnusableVectors,
)
from ingestor.core.fingerprint import vector_key
from ingestor.core.model import Recipe, Usage
from ingestor.ports import Vector, Vectors
from tests.doubles_ledger import MemoryVectors
from tests.embedding_server import tokens_of, vector_of
from tests.simulation.history import History

RECIPE = Recipe(provider="simulated", model="hash", dimensions=8)
CALL_TIMEOUT_SECONDS = 30.0
"""After which a client gives up a call of Chroma or of the endpoint."""
KEPT_SECONDS = 1.0
"""How long it may take until a vector that was answered is kept."""
POISON = "poison"
"""A text that holds this is refused by the model."""

KINDS: Mapping[str, Sequence[str]] = {
    "endpoint": ("429", "500", "reset", "time-out", "nonsense", "unusable", "slow"),
    "chroma": ("fails", "lost", "late", "slow", "restarted"),
    "ledger": ("fails", "lost", "slow"),
    "vectors": ("fails", "slow"),
    "thread": ("slow",),
}
"""Service -> the ways in which it may misbehave."""
_BASE_SECONDS = {"chroma": 0.008, "ledger": 0.002, "vectors": 0.002, "thread": 0.002}
_SLOW_SECONDS = {"chroma": 6.0, "ledger": 3.0, "vectors": 3.0, "thread": 3.0}
_ERRORS: Mapping[str, type[IngestorError]] = {
    "chroma": ChromaUnavailable,
    "ledger": ServiceUnavailable,
    "vectors": ServiceUnavailable,
}
_WRITES = frozenset({"add", "retag", "drop"})
_QUIET = frozenset(
    {"lease", "next_due_seconds", "note", "confirm", "count", "totals", "tokens_on", "glances_of", "waiting"}
)
"""Calls that are made all the time, and are no news when they bring none."""


@dataclass(frozen=True, slots=True)
class Spell:
    """Bad weather over a service."""

    kind: str
    until_seconds: float
    likelihood: float


@dataclass(slots=True)
class Weather:
    """`runtime.Weather`; `behind_backs` carries out what has its effect when nobody waits for it any more."""

    loop: asyncio.AbstractEventLoop
    chance: Random
    history: History
    behind_backs: Callable[[Callable[[], object]], None]
    without: frozenset[str] = frozenset()
    spells: dict[str, Spell] = field(default_factory=dict)
    was_restarted: bool = False
    """Whether Chroma's server was started again since somebody asked."""
    pending: int = 0
    """Effects that are still to come, of calls that nobody waits for any more."""
    _held_seconds: dict[str, float] = field(default_factory=dict)

    def begin(self, service: str, kind: str, seconds: float, likelihood: float) -> None:
        """Let a spell begin."""
        self.spells[service] = Spell(kind, self.loop.time() + seconds, likelihood)
        self.history.figures.faults[f"{service} {kind}"] += 1
        self.history.tell(f"~ {service}: {kind} for {seconds:.1f} s, {likelihood:.0%} of the calls")
        # New texts come before the old ones go, and wait for the model: for its outage, and for the pauses that it asks
        # for and that follow several failures.
        is_endpoint = service == "endpoint"
        self.history.excuse(2 * seconds + 60 if is_endpoint else seconds, f"{service} {kind}", is_for_edits=is_endpoint)
        if kind == "restarted":
            self.was_restarted = True

    def clear_up(self) -> None:
        """Let all spells end."""
        self.spells.clear()

    def struck(self, service: str) -> str | None:
        """The way in which a call of a service misbehaves now; None for not at all."""
        spell = self.spells.get(service)
        if spell is None:
            return None
        if spell.until_seconds <= self.loop.time():
            del self.spells[service]
            self.history.tell(f"~ {service}: well again")
            return None
        return spell.kind if self.chance.random() < spell.likelihood else None

    def delays(self, service: str) -> tuple[float, float]:
        """See `runtime.Weather.delays`."""
        chance = self.chance.random
        base_seconds = _BASE_SECONDS[service]
        if chance() < 0.03:
            base_seconds *= 40
        before_seconds, after_seconds = base_seconds * chance(), base_seconds * chance()
        if service in self.spells and self.struck(service) == "slow":
            slow_seconds = _SLOW_SECONDS[service] * chance()
            before_seconds += slow_seconds
            self.history.excuse(slow_seconds, f"{service} is slow")
        return before_seconds, after_seconds + self._held_seconds.pop(service, 0.0)

    def meet(self, service: str, verb: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the port gives
        """Carry out a call of a port as the weather lets it be carried out."""
        self.history.figures.calls += 1
        kind = self.struck(service) if self.spells else None
        if kind is None or kind == "slow":
            found = call(*args, **kwargs)
            if found or verb not in _QUIET:
                self.history.tell(f"  {service}.{verb}{_short(args)}{_outcome(found)}")
            return found
        if kind == "lost":
            call(*args, **kwargs)
            if self.chance.random() < 0.3:
                self._hold(service)
        elif kind == "late" and verb in _WRITES:
            self.later(partial(call, *args, **kwargs), f"chroma.{verb}{_short(args)}", 0.5 + 20 * self.chance.random())
        self.history.tell(f"  {service}.{verb}{_short(args)} ! {kind}")
        raise _ERRORS[service](f"{service} {kind}")

    def later(self, effect: Callable[[], object], what: str, seconds: float) -> None:
        """Let a call have its effect although nobody waits for it any more."""
        self.pending += 1
        self.history.excuse(seconds, "a call is still to come")

        def happen() -> None:
            self.pending -= 1
            self.history.tell(f"~ {what} happens at last")
            self.behind_backs(effect)

        self.loop.call_later(seconds, happen)

    def orphaned(self, service: str, effect: Callable[[], None]) -> None:
        """See `runtime.Weather.orphaned`."""
        fate = self.chance.random()
        if fate < 0.4:
            effect()
        elif service == "chroma" and fate < 0.7 and "chroma late" not in self.without:
            self.later(effect, "what the dead process has sent to Chroma", 3 * self.chance.random())

    def _hold(self, service: str) -> None:
        """Let the caller wait for an answer until it gives up."""
        self._held_seconds[service] = CALL_TIMEOUT_SECONDS
        self.history.excuse(CALL_TIMEOUT_SECONDS, f"{service} does not answer")


class Blown:
    """A port in the weather: does what the one behind it does, if it can."""

    def __init__(self, inner: object, service: str, weather: Weather) -> None:
        self._inner = inner
        self._service = service
        self._weather = weather

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the port has
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        blown = partial(self._weather.meet, self._service, name, found)
        setattr(self, name, blown)
        return blown


class UnreliableVectors(MemoryVectors):
    """The vectors of one process over a store that may fail: what could not be kept dies with the process."""

    def __init__(self, store: MemoryVectors, weather: Weather, kept: Callable[[Iterable[bytes]], None]) -> None:
        super().__init__()
        self._store = store
        self._weather = weather
        self._tell_kept = kept

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """See the port."""
        found: dict[bytes, Vector] = self._weather.meet("vectors", "get", self._get, list(keys))
        return found

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """See the port."""
        super().put(vectors)
        try:
            self._weather.meet("vectors", "put", self._keep)
        except ServiceUnavailable:
            return  # kept in memory, as the port says

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        self._keep()
        return self._store.get(keys)

    def _keep(self) -> None:
        self._store.put(self.held)
        self._tell_kept(self.held)
        self.held.clear()


class Endpoint:
    """`ports.Embedder`: one provider for all processes; it bills what it has worked on."""

    recipe = RECIPE
    max_batch_inputs = 4
    max_batch_tokens = 8_192
    max_concurrency = 3

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Random, weather: Weather, history: History) -> None:
        self._loop = loop
        self._chance = chance
        self._weather = weather
        self._history = history
        self._unusable: set[str] = set()
        """Texts that had no vector once."""
        self.in_flight: list[tuple[str, ...]] = []
        self.unkept: dict[bytes, tuple[str, float]] = {}
        """Texts that were answered, and whose vectors are in no store yet, and since when."""
        self.paths_of: Callable[[Sequence[str]], frozenset[str]] = lambda _: frozenset()

    async def open(self) -> None:
        """See the port."""

    async def close(self) -> None:
        """See the port."""

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """See the port."""
        call = tuple(texts)
        kind = self._weather.struck("endpoint")
        seconds = 0.05 + 0.3 * self._chance.random() + (15 * self._chance.random() if kind == "slow" else 0.0)
        if kind == "time-out":
            seconds = CALL_TIMEOUT_SECONDS
        if kind == "unusable" and not self._unusable.isdisjoint(call):
            kind = None  # a text that has no vector again and again is a fault of that text
        self._history.tell(f"  endpoint.embed({len(call)}: {', '.join(call)})")
        # Who waits for the answer may let the changes of its files wait.
        self._history.excuse(seconds, "a call of the endpoint", self.paths_of(call))
        self.in_flight.append(call)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.in_flight.remove(call)
        try:
            self._refuse(call, kind)
        except IngestorError as error:
            self._history.tell(f"  endpoint ! {kind or error} for {len(call)}")
            raise
        self._history.pay(call)
        self._history.tell(f"  endpoint answers {len(call)}: {', '.join(call)}")
        self.unkept |= {vector_key(RECIPE, text): (text, self._loop.time()) for text in call}
        rows = np.stack([_vector_of(text) for text in call])
        return rows, Usage(requests=1, texts=len(call), tokens=tokens_of(call))

    def _refuse(self, call: Sequence[str], kind: str | None) -> None:
        if kind in {"time-out", "nonsense", "unusable"}:
            # Paid, and of no use.
            self._history.pay(call)
            self._history.let_pay_again(call)
        if kind == "429":
            raise RateLimited("slow down", retry_after_seconds=self._chance.choice((None, 1.0, 5.0)))
        if kind == "unusable":
            place = self._chance.randrange(len(call))
            self._unusable.add(call[place])
            raise UnusableVectors("no vector", positions=frozenset({place}))
        if kind in {"500", "reset", "time-out", "nonsense"}:
            raise ServiceUnavailable(f"the endpoint: {kind}")
        if any(POISON in text for text in call):
            raise RejectedByModel("the model refuses a text")

    def kept(self, keys: Iterable[bytes]) -> None:
        """The vectors of texts are in the store now."""
        for key in keys:
            self.unkept.pop(key, None)

    def caller_died(self) -> None:
        """What is in flight, and what was answered and is not kept, is paid in vain."""
        for call in self.in_flight:
            self._history.pay(call)
            self._history.let_pay_again(call)
        now_seconds = self._loop.time()
        for text, since_seconds in self.unkept.values():
            # Not one that has waited for long for no reason: it has to be kept before anybody gets it.
            excused_seconds = self._history.excused_seconds("", since_seconds, now_seconds, is_edit=False)
            if now_seconds <= since_seconds + KEPT_SECONDS + excused_seconds:
                self._history.let_pay_again([text])
        self.unkept.clear()


@lru_cache(maxsize=100_000)
def _vector_of(text: str) -> Vector:
    return vector_of(text, RECIPE.dimensions)


def _short(args: Sequence[Any]) -> str:
    return f"({', '.join(map(_named, args))})"


def _outcome(found: object) -> str:
    return "" if found is None else f" -> {_named(found)}"


def _named(value: object) -> str:
    """A value in so many words as a reader of a trace needs."""
    if isinstance(value, bytes):
        return value.hex()[:6]
    for name in ("path", "source", "id"):
        if (found := getattr(value, name, None)) is not None:
            return str(found)[-14:] if name == "id" else str(found)
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(map(_named, value)))}}}"
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        if isinstance(value, np.ndarray) or len(value) > 12 or (value and isinstance(next(iter(value)), np.ndarray)):
            return f"[{len(value)}]"
        words = map(_named, value)
        return f"[{', '.join(sorted(words) if isinstance(value, set | frozenset) else words)}]"
    return str(value)[:60]
