"""Carrying: records that others have put into a collection, brought into the one that takes its place.

Theory of operation
-------------------
What others have written has no file that it could be read from again: its text is what there is. So a record with a
document is embedded by the new model, whoever made its vector before. One without a document cannot be carried, and is
named: what becomes of it is for people to decide.

Invariant: after `carry` the new collection holds of others' records exactly those of the old one that have a document;
records of ours are never touched. It may be repeated, and pays for no text twice.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from ingestor.core.auditing import Held
from ingestor.core.model import Record
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import MAX_READ, Sink


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of others' records."""

    carried: int
    """How many the new collection holds."""
    left: tuple[str, ...]
    """Ids of those without a document."""


async def carry(old: Sink, new: Sink, pipeline: Pipeline) -> Carried:
    """Bring others' records from one collection into another, whose pipeline embeds them.

    Raises what the ports raise; what was carried by then stays.
    """
    lane = pipeline.services.sink_lane
    carried, left = 0, []
    async for page in _foreign(old, pipeline):
        left += [held.id for held in page if not held.text]
        wanted = {held.id: held for held in page if held.text}
        there = {held.id: held for held in await lane.run(new.read, list(wanted))} if wanted else {}
        stale = [id_ for id_, held in there.items() if _content(held) != _content(wanted[id_])]
        fresh = [held for id_, held in wanted.items() if id_ not in there or id_ in stale]
        if fresh:
            with pipeline.embedding.announced():
                request = await pipeline.embedding.request([held.text for held in fresh])
            vectors = await request.vectors()
            await lane.run(new.drop, stale)
            await lane.run(new.add, [Record(held.id, held.text, held.metadata, "") for held in fresh], vectors)
        carried += len(wanted)
    async for page in _foreign(new, pipeline):
        there = {held.id: held for held in await lane.run(old.read, [held.id for held in page])}
        await lane.run(new.drop, [held.id for held in page if held.id not in there])
    return Carried(carried, tuple(left))


async def _foreign(sink: Sink, pipeline: Pipeline) -> AsyncIterator[Sequence[Held]]:
    """Others' records, page by page."""
    lane = pipeline.services.sink_lane
    ids = await lane.run(sink.ids)
    for start in range(0, len(ids), MAX_READ):
        page = await lane.run(sink.read, ids[start : start + MAX_READ])
        foreign = [held for held in page if not sink.ours.has(held.id, held.metadata)]
        if foreign:
            yield foreign


def _content(held: Held) -> tuple[str, dict[str, object]]:
    return held.text, dict(held.metadata)
