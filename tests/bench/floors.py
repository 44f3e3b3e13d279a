"""Floors: what the outside parts cost alone, at their best, on the very data that the product was measured with.

Invariant: no code of the product runs inside what is timed here.
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
from chromadb.api import ClientAPI
from numpy.typing import NDArray

from tests.bench.services import DIMENSIONS, MODEL, chroma_served, workplace
from tests.daemon import KEY

BATCHES = (100, 300, 500)
"""Records a call that are tried: the best ones known lie here."""
_PROBE_RECORDS = 2_000
_PAGE_RECORDS = 500
_NAME = "floor"
_STATS = "SELECT path, size_bytes, mtime_ns, ctime_ns, device, inode, is_regular, cutting, is_unfinished FROM documents"


@dataclass(frozen=True, slots=True)
class Records:
    """What a collection holds, in the order in which it was added; `vectors` has shape (records, dimensions)."""

    ids: list[str]
    texts: list[str]
    metadatas: list[Mapping[str, Any]]
    vectors: NDArray[np.float32]
    configuration: Mapping[str, Any]
    """Of the index: what a collection has to be made with to be its like."""

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int) -> "Records":
        """The first so many of them."""
        return Records(
            self.ids[:count], self.texts[:count], self.metadatas[:count], self.vectors[:count], self.configuration
        )


def records_of(client: ClientAPI, collection: str) -> Records:
    """Read a whole collection."""
    held = client.get_collection(collection, embedding_function=None)
    ids: list[str] = []
    texts: list[str] = []
    metadatas: list[Mapping[str, Any]] = []
    vectors: list[NDArray[np.float32]] = []
    while True:
        page = held.get(limit=_PAGE_RECORDS, offset=len(ids), include=["documents", "metadatas", "embeddings"])
        if not page["ids"]:
            break
        ids += page["ids"]
        texts += page["documents"] or []
        metadatas += page["metadatas"] or []
        vectors.append(np.asarray(page["embeddings"], dtype=np.float32))
    index = held.configuration_json.get("hnsw") or {}
    kept = ("space", "ef_construction", "ef_search", "max_neighbors", "sync_threshold")
    return Records(ids, texts, metadatas, np.concatenate(vectors), {key: index[key] for key in kept if key in index})


def embedding_seconds(base_url: str, texts: Sequence[str], *, texts_a_call: int, calls_at_once: int) -> float:
    """Embed texts over plain HTTP, in full calls, as many at once as allowed; each answer becomes an array."""

    async def ask(client: httpx.AsyncClient, batches: Iterator[Sequence[str]]) -> None:
        for batch in batches:
            answer = await client.post(
                "/embeddings",
                json={"model": MODEL, "input": batch, "encoding_format": "float", "dimensions": DIMENSIONS},
            )
            rows = json.loads(answer.raise_for_status().content)["data"]
            assert np.array([row["embedding"] for row in rows], np.float32).shape == (len(batch), DIMENSIONS)

    async def ask_all() -> None:
        batches = iter([texts[start : start + texts_a_call] for start in range(0, len(texts), texts_a_call)])
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60, trust_env=False) as client:
            await asyncio.gather(*(ask(client, batches) for _ in range(calls_at_once)))

    began_seconds = perf_counter()
    asyncio.run(ask_all())
    return perf_counter() - began_seconds


def adding_seconds(records: Records, batch: int) -> float:
    """Add all records to an empty collection of their like, on a server and in a folder of its own."""
    with workplace() as folder, chroma_served(folder / "chroma") as served:
        collection = served.client.create_collection(
            _NAME,
            configuration={"hnsw": dict(records.configuration)},  # type: ignore[arg-type]  # a plain dictionary of the same keys
            embedding_function=None,
        )
        began_seconds = perf_counter()
        for start in range(0, len(records), batch):
            stop = start + batch
            collection.add(
                ids=records.ids[start:stop],
                embeddings=records.vectors[start:stop],
                metadatas=records.metadatas[start:stop],
                documents=records.texts[start:stop],
            )
        return perf_counter() - began_seconds


def best_batch(records: Records) -> int:
    """Records a call with which the first ones are added fastest."""
    few = records.first(_PROBE_RECORDS)
    return min(BATCHES, key=lambda batch: adding_seconds(few, batch))


def updating_seconds(
    client: ClientAPI, collection: str, ids: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
) -> float:
    """Update the metadata of records, in the largest batches that are among the best."""
    held = client.get_collection(collection, embedding_function=None)
    batch = BATCHES[-1]
    began_seconds = perf_counter()
    for start in range(0, len(ids), batch):
        stop = start + batch
        held.update(ids=list(ids[start:stop]), metadatas=[dict(metadata) for metadata in metadatas[start:stop]])
    return perf_counter() - began_seconds


def looking_seconds(folder: Path, ledger: Path) -> float:
    """List every folder, stat every file, and load what the ledger knows of their stats; nothing is compared."""
    began_seconds = perf_counter()
    found: dict[str, os.stat_result] = {}
    pending = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for entry in listing:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    found[entry.path] = entry.stat(follow_symlinks=False)
    connection = sqlite3.connect(ledger)
    try:
        known = connection.execute(_STATS).fetchall()
    finally:
        connection.close()
    seconds = perf_counter() - began_seconds
    assert len(known) == len(found)
    return seconds


def starting_seconds(*arguments: str) -> float:
    """Run Python to its end, from a start of its own."""
    began_seconds = perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - began_seconds
