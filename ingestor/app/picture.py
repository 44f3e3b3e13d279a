"""Picture: a sample of a collection as points of a plane.

Invariant: the same collection gives the same sample, and a change of it changes little: what is in it depends on the
ids of records alone. Records are read beside the work of the daemon, a few hundred at a time, and the loop goes on.
"""

import asyncio
import hashlib
import heapq
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.app.live import Live
from ingestor.app.searching import Searcher
from ingestor.core.auditing import Held
from ingestor.core.projection import projected
from ingestor.ports import MAX_READ

MAX_POINTS: Final = 2_000
MAX_TEXT_CHARACTERS: Final = 240
REST: Final = 20
"""After a picture was made, no other is made for so many times as long as that took."""
_KEY_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Point:
    """A record in the plane; `x` and `y` lie from -1 to 1."""

    x: float
    y: float
    source: str
    """Path of its file; empty for a record that was added by hand."""
    start_line: int
    """0 where it has none; so for `end_line`."""
    end_line: int
    text: str
    """Its beginning, in one line."""
    folder: int
    """Place of its folder in `Picture.folders`."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A collection to look at."""

    records: int
    """How many it holds; there may be fewer points."""
    points: Sequence[Point]
    folders: Sequence[str]
    """The topmost folders of the points, those with most points first; "" is the watched folder itself."""


@dataclass(frozen=True, slots=True)
class _Kept:
    picture: Picture
    state: object
    until_seconds: float
    """By the monotonic clock."""


class Pictures:
    """The pictures of a running daemon, each kept until its collection has changed."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._kept: dict[str, _Kept] = {}
        self._drawing = asyncio.Lock()

    async def of(self, collection: str = "") -> Picture:
        """The picture of a collection, or of the only one. Raises what `Searchers.of` and the sink raise."""
        searcher = await self._live.opened_searchers().of(collection)
        async with self._drawing:
            kept = self._kept.get(collection)
            if kept is not None and time.monotonic() < kept.until_seconds:
                return kept.picture
            count = await searcher.look(ChromaSink.count)
            state = (count, self._done())
            if kept is not None and kept.state == state:
                return kept.picture
            began_seconds = time.monotonic()
            picture = await _drawn(searcher, count)
            now_seconds = time.monotonic()
            self._kept[collection] = _Kept(picture, state, now_seconds + REST * (now_seconds - began_seconds))
            return picture

    def _done(self) -> tuple[tuple[int, ...], ...]:
        """What the daemon has done so far: it grows with everything that the daemon writes."""
        tallies = [line.pipeline.tally for line in self._live.lines]
        return tuple((each.embedded, each.reused, each.retagged, each.dropped) for each in tallies)


async def _drawn(searcher: Searcher, count: int) -> Picture:
    ids = await asyncio.to_thread(_sample, await searcher.look(ChromaSink.ids))
    held: list[Held] = []
    for start in range(0, len(ids), MAX_READ):
        part = ids[start : start + MAX_READ]
        held += await searcher.look(partial(_read, part))
    return await asyncio.to_thread(_arranged, count, held)


def _read(ids: Sequence[str], sink: ChromaSink) -> list[Held]:
    return sink.read(ids, with_vectors=True)


def _sample(ids: Sequence[str]) -> list[str]:
    return heapq.nsmallest(MAX_POINTS, ids, key=_key)


def _key(id_: str) -> bytes:
    return hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def _arranged(count: int, held: Sequence[Held]) -> Picture:
    # Chroma answers in an order of its own, and the picture depends on the order.
    seen = sorted((each for each in held if each.vector is not None), key=lambda each: _key(each.id))
    if not seen:
        return Picture(count, (), ())
    places = projected(np.stack([each.vector for each in seen if each.vector is not None]))
    sources = [str(each.metadata.get("source", "")) for each in seen]
    tops = [source.partition("/")[0] if "/" in source else "" for source in sources]
    folders = [folder for folder, _ in sorted(Counter(tops).items(), key=lambda found: (-found[1], found[0]))]
    places_of = {folder: place for place, folder in enumerate(folders)}
    points = [
        Point(
            x=round(float(x), 4),
            y=round(float(y), 4),
            source=source,
            start_line=_line(each, "start_line"),
            end_line=_line(each, "end_line"),
            text=" ".join(each.text.split())[:MAX_TEXT_CHARACTERS],
            folder=places_of[top],
        )
        for each, (x, y), source, top in zip(seen, places, sources, tops, strict=True)
    ]
    return Picture(count, points, folders)


def _line(held: Held, name: str) -> int:
    line = held.metadata.get(name)
    return line if isinstance(line, int) else 0
