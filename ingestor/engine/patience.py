"""Patience: what cannot be kept now is kept later.

A disk that is full or fails and a file that is locked are outages, as those of a service are: no document is at fault,
and nobody has to start anything again. Whoever needs the disk waits here until it takes what it is given.

Invariant: while one call asks whether it is over, the others wait for its answer, so that an outage costs one attempt
a second however much waits. An outage is logged when it begins and when it ends.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import structlog

from ingestor.core.errors import ServiceUnavailable
from ingestor.ports import Clock, Lane

RETRY_SECONDS = 1.0
"""Pause between two attempts."""
PATIENCE_SECONDS = 30.0
"""How long an outage may last before whoever waits is told; a daemon waits without an end."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class Patience:
    """Waits out the outages of one thing that is kept on a disk."""

    def __init__(self, clock: Clock, most_seconds: float = PATIENCE_SECONDS) -> None:
        self._clock = clock
        self.most_seconds = most_seconds
        """How long an outage is waited out."""
        self._error: ServiceUnavailable | None = None
        self._since_seconds = 0.0
        self._is_asked = False
        """Whether a call is out, or about to go out, that finds out whether the outage is over."""
        self._answered = asyncio.Event()
        self._inside = 0
        """How many calls are being carried out, or wait."""

    @property
    def error(self) -> ServiceUnavailable | None:
        """What was said last of the outage that lasts; None when there is none."""
        return self._error

    async def outlast(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Carry out an attempt, again and again while it fails and time is left.

        Raises the `ServiceUnavailable` of an outage that has lasted for `most_seconds`, and at once whatever else it
        raises: a deletion that is held back is no outage of the ledger that says so.
        """
        self._inside += 1
        try:
            return await self._outlast(attempt)
        except asyncio.CancelledError:
            if self._inside == 1:
                self._error = None  # it is nobody's any more, and nobody would find out that it is over
            raise
        finally:
            self._inside -= 1

    async def _outlast(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        is_asking = False
        try:
            while True:
                while self._is_asked and not is_asking:
                    await self._answered.wait()
                    if self._error is not None and self._is_exhausted:
                        raise self._error
                try:
                    result = await attempt()
                except ServiceUnavailable as error:
                    if self._is_asked and not is_asking:
                        continue  # it was on its way already: the other one's answer holds for it as well
                    is_asking = True
                    self._ask(error)
                    if self._is_exhausted:
                        raise
                    await self._clock.sleep(RETRY_SECONDS)
                else:
                    if is_asking or not self._is_asked:
                        self.end()
                    return result
        finally:
            if is_asking:
                self._is_asked = False
                self._answered.set()

    @property
    def _is_exhausted(self) -> bool:
        return self._clock.monotonic_seconds() - self._since_seconds >= self.most_seconds

    def _ask(self, error: ServiceUnavailable) -> None:
        self._is_asked = True
        self._answered.clear()
        if self._error is None:
            self._since_seconds = self._clock.monotonic_seconds()
            if self.most_seconds > 0:  # else whoever is told at once tells of it
                _log.error("storage.down", reason=str(error), remedy=error.remedy)
        self._error = error

    def end(self) -> None:
        """Say that an outage is over, for one that somebody else has asked about."""
        if self._error is not None:
            self._error = None
            _log.info("storage.back", seconds=round(self._clock.monotonic_seconds() - self._since_seconds, 1))


class PatientLane:
    """`ports.Lane` whose calls wait until they succeed, as `Patience.outlast` does.

    An answer still comes after those of the calls that were carried out before: one that failed was carried out never.
    """

    def __init__(self, lane: Lane, patience: Patience) -> None:
        self._lane = lane
        self.patience = patience

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See `ports.Lane.run`; raises a `ServiceUnavailable` of the call when its outage lasts too long."""
        return await self.patience.outlast(lambda: self._lane.run(call, *args, **kwargs))

    def close(self) -> bool:
        """See `ports.Lane.close`."""
        return self._lane.close()

    @property
    def impatient(self) -> Lane:
        """The same lane for what must not wait: its calls fail at once, without an attempt while an outage lasts."""
        return _ImpatientLane(self._lane, self.patience)


class _ImpatientLane:
    def __init__(self, lane: Lane, patience: Patience) -> None:
        self._lane = lane
        self._patience = patience

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See `ports.Lane.run`; raises the error of an outage that lasts."""
        if self._patience.error is not None:
            raise self._patience.error
        return await self._lane.run(call, *args, **kwargs)

    def close(self) -> bool:
        """See `ports.Lane.close`."""
        return self._lane.close()
