"""Events: what happens now, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

What comes is the log of the process, from info upwards. Invariant: a reader that is slow, or gone, holds nothing up: it
misses the oldest entries, and is told how many.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ingestor.engine.news import happens_within
from ingestor.language import translated
from ingestor.logs import Entry, recent
from ingestor.web.bounds import Bound
from ingestor.web.faults import described

MAX_STREAMS: Final = 32
QUIET_SECONDS: Final = 15.0
"""After which a comment is sent: proxies give up a connection on which nothing comes."""
_RUN: Final = secrets.token_hex(4)
"""Tells the numbers of this process from those of another."""
_MAX_DIGITS: Final = 18
_SENTENCES: Final = frozenset({"reason", "remedy"})
"""What of an entry is said to people."""

router = APIRouter(prefix="/api")


class Streams:
    """The streams that are open; used by the thread of the loop alone."""

    def __init__(self) -> None:
        self.bound = Bound(MAX_STREAMS, "streams")
        self.is_closed = False
        self._open: set[asyncio.Event] = set()

    def close(self) -> None:
        """End them all."""
        self.is_closed = True
        for news in self._open:
            news.set()

    @contextmanager
    def news(self) -> Iterator[asyncio.Event]:
        """An event that is set when there is something to send, or when the stream is to end."""
        news = asyncio.Event()
        self._open.add(news)
        try:
            with recent.told_by(news):
                yield news
        finally:
            self._open.discard(news)


class _Response(StreamingResponse):
    """A stream that holds a place for as long as it is sent, whether it was ever read or not."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, after: int, language: str) -> None:
        super().__init__(_told(streams, after, language))
        self._bound = streams.bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._bound.place():
            await super().__call__(scope, receive, send)


_ANSWER: Final = {
    "description": "Entries of the log, one JSON object an event; events called `lost` tell how many were missed.",
    "content": {"text/event-stream": {}},
}


@router.get(
    "/events", tags=["state"], response_class=StreamingResponse, responses={200: _ANSWER, **described(400, 401, 429)}
)
async def events(
    request: Request,
    lang: Annotated[Literal["en", "zh"], Query(description="The language of reasons and remedies.")] = "en",
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """What happened last, and then what happens, until who asks goes."""
    return _Response(request.app.state.streams, _number_of(last_event_id), lang)


def _number_of(identity: str) -> int:
    """The number of the last entry that a reader has; 0 for one that has none of this process."""
    run, _, number = identity.partition("-")
    is_ours = run == _RUN and number.isascii() and number.isdecimal() and len(number) <= _MAX_DIGITS
    return int(number) if is_ours else 0


def _events(entries: Sequence[Entry], language: str) -> str:
    """Entries as events, their sentences in a language. To translate takes longer than a loop may stand still."""
    told = []
    for entry in entries:
        fields = entry.as_json()
        said = {name: fields[name] for name in _SENTENCES & fields.keys()}
        fields |= {name: translated(each, language) for name, each in said.items() if isinstance(each, str)}
        told.append(f"id: {_RUN}-{entry.number}\ndata: {json.dumps(fields)}\n\n")
    return "".join(told)


async def _told(streams: Streams, number: int, language: str) -> AsyncIterator[str]:
    with streams.news() as news:
        while not streams.is_closed:
            news.clear()
            lost, entries = recent.after(number)
            told = f"event: lost\ndata: {json.dumps({'lost': lost})}\n\n" if lost and number else ""
            if entries:
                told += await asyncio.to_thread(_events, entries, language)
                number = entries[-1].number
            if told:
                yield told  # at once: each part is a call of the kernel
            if not await happens_within(news, QUIET_SECONDS):
                yield ":\n\n"
