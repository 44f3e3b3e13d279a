"""Comparing: whether a collection that was filled beside the serving one may take its place.

Invariant: nothing is compared by a count alone. The folder is compared with the ledger, the ledger with every record,
and a sample of records is searched for by the vectors of their own texts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingestor.engine.carrying import Carried
from ingestor.engine.pipeline import Pipeline
from ingestor.ports import MAX_READ, Sink

SAMPLE_RECORDS = 50
MAX_LOST_RECORDS = 1
"""Of the sample: an index that is searched approximately may miss one of thousands."""
_MAX_SHOWN = 3
_SEED = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, in numbers, and what speaks against the switch, in sentences."""

    documents: int
    serving_documents: int
    chunks: int
    serving_chunks: int
    problems: int
    sampled: int
    found: int
    """Of the sample, how many a search by their own text finds."""
    carried: int
    """Records of others."""
    differences: tuple[str, ...] = ()


async def compare(
    serving: Sequence[Pipeline], following: Sequence[Pipeline], sink: Sink, carried: Carried, *, drops_foreign: bool
) -> Comparison | None:
    """Compare the folders, ledgers and the collection of `following`; None when a folder has just changed.

    Both collections have a pipeline for each source. Raises what the ports raise.
    """
    reconciled = [await pipeline.reconcile() for pipeline in following]
    audits = [await pipeline.auditor.audit() for pipeline in following]
    if any(each.present or each.gone for each in reconciled):
        return None
    told = [await pipeline.totals() for pipeline in following]
    before = [await pipeline.totals() for pipeline in serving]
    sampled, lost = await _searched(following[0], sink)
    differences = [
        f"{finding.path}: {finding.kind.value} {finding.reason}".strip()
        for audit in audits
        for finding in audit.findings
    ]
    # The two know the same documents, but not from the same moment on.
    if held := sum(max(pair) for pair in zip(_held(serving), _held(following), strict=True)):
        differences.append(f"{held} deletions wait for `ingestor approve`")
    if more := sum(max(0, now.problems - then.problems) for now, then in zip(told, before, strict=True)):
        differences.append(f"{more} documents that are in the serving collection cannot be indexed by the new model")
    if lost > MAX_LOST_RECORDS:
        differences.append(f"{lost} of {sampled} records are not found by their own text")
    foreign = audits[0].foreign
    if foreign != carried.carried:
        differences.append(f"{foreign} records of others, and {carried.carried} of them were to be carried over")
    if carried.left and not drops_foreign:
        names = ", ".join(carried.left[:_MAX_SHOWN])
        differences.append(
            f"{len(carried.left)} records of others have no text that could be embedded ({names}):"
            " give them a document, or leave them behind with --drop-foreign"
        )
    return Comparison(
        documents=sum(each.documents for each in told),
        serving_documents=sum(each.documents for each in before),
        chunks=sum(each.chunks for each in told),
        serving_chunks=sum(each.chunks for each in before),
        problems=sum(each.problems for each in told),
        sampled=sampled,
        found=sampled - lost,
        carried=carried.carried,
        differences=tuple(differences),
    )


def _held(pipelines: Sequence[Pipeline]) -> list[int]:
    return [pipeline.reconciler.held for pipeline in pipelines]


async def _searched(pipeline: Pipeline, sink: Sink) -> tuple[int, int]:
    """How many records of a sample were searched for by their text, and how many were not found."""
    lane = pipeline.services.sink_lane
    ids = sorted(await lane.run(sink.ids))
    chosen = random.Random(_SEED).sample(ids, min(SAMPLE_RECORDS, MAX_READ, len(ids)))  # noqa: S311 - a sample, no secret
    records = await lane.run(sink.read, chosen)
    if not records:
        return 0, 0
    with pipeline.embedding.announced():
        request = await pipeline.embedding.request([held.text for held in records])
    vectors = np.stack(await request.vectors())
    lost = await lane.run(sink.unreachable, [held.id for held in records], vectors)
    return len(records), len(lost)
