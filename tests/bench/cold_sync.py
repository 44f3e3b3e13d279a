"""Cold sync: a folder that nothing is known of becomes a collection.

The floor is the slower of the two outside parts alone: all chunks embedded in full calls at full concurrency, or all
records added to a Chroma server of its own in the best batches. Both overlap in a sync, so their sum is no floor.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from ingestor.app.embedder import MAX_BATCH_INPUTS
from ingestor.settings import Settings
from tests.bench.corpus import write_corpus
from tests.bench.figure import Figure
from tests.bench.floors import Records, adding_seconds, best_batch, embedding_seconds, records_of
from tests.bench.runs import Timed, timed_sync
from tests.bench.services import Provider, chroma_served, cpu_seconds, provider_served, workplace
from tests.checker import COLLECTION
from tests.daemon import Site

FILES = 4_000
BOUND = 1.15
_TURNS = 2
"""Each sync is followed by an adding of all records: the machine is never equally busy for minutes."""


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """A sync into a Chroma server elsewhere, and one with a server of its own, as `ingestor sync` has by default."""
    files = max(1, round(FILES * scale))
    adding: list[float] = []
    served: list[Timed] = []
    own: list[Timed] = []
    batch = 0
    with workplace() as place, provider_served() as provider:
        for turn in range(_TURNS):
            synced, records, told_served = _over_server(place / f"served-{turn}", provider, files)
            served.append(synced)
            batch = batch or best_batch(records)
            adding.append(adding_seconds(records, batch))
            own.append(_over_its_own(place / f"own-{turn}", provider, files))
            adding.append(adding_seconds(records, batch))
        chosen = Settings().embedding
        embedding = embedding_seconds(
            provider.base_url,
            list(dict.fromkeys(records.texts)),
            texts_a_call=chosen.max_batch_inputs or MAX_BATCH_INPUTS,
            calls_at_once=chosen.max_concurrency,
        )
    what = f"{files:,} files, {len(records):,} records"
    floor = max(mean(adding), embedding)
    parts = (
        f"means of {_TURNS} turns; floor: adding {_listed(adding)} s in batches of {batch}, "
        f"embedding {embedding:.2f} s; the value includes start and end of the process, and of a server of its own"
    )
    for name, timed, told in (
        ("elsewhere", served, f"in the last turn {told_served}"),
        ("of its own", own, "in turns with the others"),
    ):
        yield Figure(
            f"cold sync, Chroma {name} ({what})",
            mean(each.seconds for each in timed),
            floor,
            "s",
            BOUND,
            note=f"{_listed([each.seconds for each in timed])} s, {told}; {parts}",
        )


def _over_server(root: Path, provider: Provider, files: int) -> tuple[Timed, Records, str]:
    root.mkdir()
    with chroma_served(root / "server") as served:
        elsewhere = {"INGESTOR_CHROMA__MODE": "http", "INGESTOR_CHROMA__PORT": str(served.port)}
        provider_cpu, chroma_cpu = cpu_seconds(provider.pid), cpu_seconds(served.pid)
        timed = _synced(root, provider.settings() | elsewhere, files)
        told = (
            "CPU of the provider "
            f"{cpu_seconds(provider.pid) - provider_cpu:.1f} s, Chroma {cpu_seconds(served.pid) - chroma_cpu:.1f} s"
        )
        records = records_of(served.client, COLLECTION)
    assert len(records) >= timed.report["chunks"]["embedded"] > 0
    return timed, records, told


def _over_its_own(root: Path, provider: Provider, files: int) -> Timed:
    root.mkdir()
    return _synced(root, provider.settings(), files)


def _synced(root: Path, settings: dict[str, str], files: int) -> Timed:
    with Site(root, settings) as site:
        write_corpus(site.folder, files)
        timed = timed_sync(site)
    assert timed.report["documents"]["added"] == files, timed.report
    return timed


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in seconds)
