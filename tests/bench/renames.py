"""Renames: a folder with a tenth of the files gets another name under a running daemon.

The floors are Chroma's own updates of the same records on the same server, in turns with the renames: of all metadata,
and of `source` alone, the one key that differs. The latter leaves a wrong value behind, which the next rename replaces.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from chromadb.api import ClientAPI

from tests.bench.corpus import TOP_FOLDERS, write_corpus
from tests.bench.figure import Figure
from tests.bench.floors import updating_seconds
from tests.bench.runs import LogTail
from tests.bench.services import provider_served, workplace
from tests.checker import COLLECTION, client_of
from tests.daemon import Site

FILES = 4_000
BOUND = 1.3
_TURNS = 3


@dataclass(frozen=True, slots=True)
class _Turn:
    """One rename, and what Chroma's own updates took after it."""

    records: int
    seconds: float
    first_seconds: float
    """Until the first document had followed."""
    whole_seconds: float
    """Of an update of all metadata."""
    floor_seconds: float
    """Of an update of the one key that differs."""


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """From the rename to the last document that the daemon tells to have followed it."""
    files = max(len(TOP_FOLDERS), round(FILES * scale))
    moved = len(range(0, files, len(TOP_FOLDERS)))
    with workplace() as place, provider_served(is_instant=True) as provider, Site(place, provider.settings()) as site:
        write_corpus(site.folder, files)
        daemon = site.start("run")
        tail = LogTail(daemon, site.root / "daemon-0.log")
        tail.await_events(files, lambda event: event.get("outcome") == "added")
        with client_of(site.port) as client:
            turns = [_turn(site, turn, tail, moved, client) for turn in range(_TURNS)]
    moved_part = f"{moved:,} of {files:,} files, {turns[0].records:,} records"
    seconds = median(turn.seconds for turn in turns)
    first_seconds = median(turn.first_seconds for turn in turns)
    note = (
        f"medians of {_TURNS}; noticing and settling included: the first document had followed in {first_seconds:.2f} s"
    )
    floors = {
        "all metadata": [turn.whole_seconds for turn in turns],
        "what differs": [turn.floor_seconds for turn in turns],
    }
    for what, floor in floors.items():
        name = f"rename of a folder, to an update of {what} ({moved_part})"
        yield Figure(name, seconds, median(floor), "s", BOUND, note=note)


def _turn(site: Site, turn: int, tail: LogTail, moved: int, client: ClientAPI) -> _Turn:
    renamed = site.folder / f"renamed-{turn}"
    began_seconds = perf_counter()
    (site.folder / (f"renamed-{turn - 1}" if turn else TOP_FOLDERS[0])).rename(renamed)
    first_seconds, last_seconds = tail.await_events(moved, lambda event: event.get("outcome") == "renamed")
    # Read without a filter, which Chroma would answer slower than all of it.
    rows = client.get_collection(COLLECTION, embedding_function=None).get(include=["metadatas"])
    known = {
        id_: metadata
        for id_, metadata in zip(rows["ids"], rows["metadatas"] or [], strict=True)
        if str(metadata["source"]).startswith(f"{renamed.name}/")
    }
    assert known
    ids, metadatas = list(known), list(known.values())
    others = [{"source": f"floor/{metadata['source']}"} for metadata in metadatas]
    return _Turn(
        records=len(ids),
        seconds=last_seconds - began_seconds,
        first_seconds=first_seconds - began_seconds,
        whole_seconds=updating_seconds(client, COLLECTION, ids, metadatas),
        floor_seconds=updating_seconds(client, COLLECTION, ids, others),
    )
