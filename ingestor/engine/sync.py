"""The write protocol: how plans become records, so that a crash at any point heals.

Theory of operation
-------------------
For a group of documents, in this order:

1. ledger: every id about to be added or dropped is marked doubtful, every id about to be retagged loses its tag; a
   document that is held back from deletion is refused here, in the same transaction, whatever has led to its deletion;
2. Chroma: damaged records, which are rare, are deleted; the new records are added;
3. Chroma: the metadata of changed (and of doubtful) records is updated;
4. Chroma: the records that are no longer wanted are deleted;
5. ledger: the new entries, nothing doubtful, and the changes that led here are acknowledged, in one transaction. What
   Chroma holds is noted in any case; a change whose file is another one by now is not acknowledged, and stays leased
   until its task gives it back.

A process that dies before 1 has done nothing. One that dies between 1 and 5 leaves entries that say themselves that
they are unfinished; a reconcile finds them different and plans them again, and every step may be repeated at will. New
records are there before old ones go: a reader may briefly see both, never neither, but for a damaged record, which
has to go before its sound form can come under the same id. An error of Chroma does not tell
whether the write happened (it may even happen later), so an error leaves the same state as a crash does.

Vectors are in the vector store before step 1, so no repetition costs an embedding.

Documents are grouped, because one call with a hundred records costs little more than one with a single record. The
order holds for each document: while Chroma is at one group, the ledger may be told of those before and behind it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ingestor.core.model import Change, Plan
from ingestor.core.planning import doubtful_entry
from ingestor.ports import Lane, Ledger, Sink, Vector


@dataclass(frozen=True, slots=True)
class Write:
    """A plan, the vectors of `plan.embed` in its order, and the change that is acknowledged with it."""

    plan: Plan
    vectors: Sequence[Vector]
    change: Change
    is_overdue: bool = False
    """Whether it is carried out although its file is another one by now: it was put off for that before, and a file
    that never rests is to be found all the same. What is known to be gone is never written."""


class Protocol:
    """Carries out groups of plans, in three parts: each write is marked, then applied, then committed.

    Every part raises what the ports raise, and leaves every document of its group unfinished then.
    """

    def __init__(self, ledger: Ledger, ledger_lane: Lane, sink: Sink, sink_lane: Lane) -> None:
        self._ledger = ledger
        self._ledger_lane = ledger_lane
        self._sink = sink
        self._sink_lane = sink_lane

    async def mark(self, group: Sequence[Write]) -> None:
        """Step 1; may be repeated. Raises `DeletionHeld` when one of the group is a deletion that is held back."""
        plans = [write.plan for write in group if write.plan.touches_chroma]
        removed = [write.plan.path for write in group if write.plan.after is None]
        if plans or removed:
            # Counted before they are deleted, and again with each repetition: rather too many than too few.
            dropped = sum(len(plan.drop) + len(plan.replace) for plan in plans)
            entries = [doubtful_entry(plan) for plan in plans]
            await self._ledger_lane.run(self._ledger.mark, entries, dropped, removed)

    async def apply(self, group: Sequence[Write]) -> None:
        """Steps 2 to 4, for writes that were marked. One group at a time."""
        touching = [write for write in group if write.plan.touches_chroma]
        plans = [write.plan for write in touching]
        replaced = [record_id for plan in plans for record_id in plan.replace]
        if replaced:
            await self._sink_lane.run(self._sink.drop, replaced)
        records = [record for plan in plans for record in plan.embed]
        if records:
            vectors = [vector for write in touching for vector in write.vectors]
            await self._sink_lane.run(self._sink.add, records, vectors)
        retagged = [record for plan in plans for record in plan.retag]
        if retagged:
            await self._sink_lane.run(self._sink.retag, retagged)
        dropped = [record_id for plan in plans for record_id in plan.drop]
        if dropped:
            await self._sink_lane.run(self._sink.drop, dropped)

    async def commit(self, group: Sequence[Write], left: Collection[Change] = ()) -> None:
        """Step 5, for writes that were applied; the changes that are `left` are not acknowledged."""
        plans = [write.plan for write in group]
        changes = [write.change for write in group if write.change not in left]
        await self._ledger_lane.run(self._ledger.commit, plans, changes)
