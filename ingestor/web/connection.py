"""Connection: what somebody who connects may keep of this process, and for how long, whatever is sent or never read.

uvicorn waits without end for a request that does not come whole, and for an answer to be taken. Invariant: who asks for
nothing holds a descriptor for `SILENT_SECONDS` at most, and no more than `MAX_CONNECTIONS` are held by anybody. What is
held of a head is bounded by h11, of which this is a part; uvicorn's other protocols do not bound it.
"""

import asyncio
import logging
import math
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 512
"""Then the longest silent one ends: each takes a descriptor, of which the daemon needs some itself."""
SILENT_SECONDS: Final = 30.0
"""Within which the head of a request has to come, and an answer has to be taken."""


class Connection(H11Protocol):
    """One connection of uvicorn's, which ends by itself."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for a request; where all places are taken, in that of who has been silent for longest."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > MAX_CONNECTIONS:
            known = (each for each in self.connections if isinstance(each, Connection))
            min(known, key=lambda each: each.silent_until_seconds).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        self._forgive()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the answer to be taken, and for the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the answer to be taken."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; where an answer is under way, or was given, by ending the connection."""
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # this is the answer, whatever the application comes to
        super().send_400_response(msg)

    @property
    def silent_until_seconds(self) -> float:
        """Until when it may be silent, by the clock of the loop; never ends while it is not, or ends already."""
        return math.inf if self._limit is None or self.transport.is_closing() else self._limit.when()

    def _watch(self) -> None:
        """Have the time run while the other side is waited for; more of a head does not begin it anew."""
        is_asked = self.cycle is not None and not self.cycle.response_complete
        if is_asked and not self.flow.write_paused:
            self._forgive()
        elif self._limit is None:
            self._limit = self.loop.call_later(SILENT_SECONDS, self.transport.abort)

    def _forgive(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


class _News(logging.Filter):
    """Lets through what uvicorn says of itself: not what strangers send, nor what ends because everything does."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is told."""
        error = record.exc_info[1] if record.exc_info else None
        return record.levelno >= logging.ERROR and not isinstance(error, asyncio.CancelledError)


def hush() -> None:
    """Keep what anybody who connects could fill the log with out of it."""
    log = logging.getLogger("uvicorn.error")
    if not any(isinstance(each, _News) for each in log.filters):
        log.addFilter(_News())
