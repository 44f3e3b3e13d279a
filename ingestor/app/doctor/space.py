"""Check: room on the disks, against what the files of the folders will take."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingestor.adapters.chroma_cleaning import size_bytes
from ingestor.app.doctor.folders import nearest
from ingestor.app.doctor.premises import Premises, Survey
from ingestor.app.embedder import recipe_of
from ingestor.core.diagnosing import Finding, hint, warning, well

_NAME = "space"
_LEAST_BYTES = 64 * 1024**2
"""Below this, SQLite and Chroma soon fail, whatever is to be indexed."""
_NEAR = 2
"""Times what is needed: with less, it is worth knowing."""
_TEXT_BYTES = 14
"""What Chroma's database takes for a byte of text, its trigrams and its log included. This and the next three were
measured with 800 files of the benchmark's corpus, at 384 and at 1,024 dimensions."""
_CHUNK_BYTES = 1_350
"""Of a chunk besides text and vector: index, ledger, vector store."""
_DIMENSION_BYTES = 8
"""A vector is kept in the index and in the vector store, in 32 bits."""
_BYTES_OF_TOKEN = 1.8
"""Bytes of text in a chunk, by the most tokens that it may have."""
_DIMENSIONS = 1_024
"""Where only the first answer tells."""


def check(premises: Premises) -> Sequence[Finding]:
    """Free space where our folders are, or will be."""
    settings = premises.settings
    folders = [settings.data_dir]
    if premises.has_own_chroma:
        folders.append(settings.chroma_path)
    needed_bytes = sum(map(estimated_bytes, premises.surveys))
    found: list[Finding] = []
    for place in _disks(folders):
        on_it = [folder for folder in folders if _device(folder) == _device(place)]
        held_bytes = sum(size_bytes(folder) for folder in on_it if not _is_in_any(folder, on_it))
        found += _of(place, max(0, needed_bytes - held_bytes), held_bytes)
    return found


def estimated_bytes(seen: Survey) -> int:
    """What the files of a folder take once all are indexed, roughly."""
    text_bytes = seen.size_bytes
    chunks = text_bytes / (seen.settings.chunk.max_tokens * _BYTES_OF_TOKEN) + len(seen.snapshot.files)
    dimensions = recipe_of(seen.settings.embedding).dimensions or _DIMENSIONS
    return round(text_bytes * _TEXT_BYTES + chunks * (_CHUNK_BYTES + dimensions * _DIMENSION_BYTES))


def _of(place: Path, needed_bytes: int, held_bytes: int) -> Iterator[Finding]:
    free_bytes = shutil.disk_usage(nearest(place)).free
    facts = {"folder": str(place), "free_bytes": free_bytes, "needed_bytes": needed_bytes, "held_bytes": held_bytes}
    free, needed = (f"{size / 1024**2:,.0f} MiB" for size in (free_bytes, needed_bytes))
    sentence = f"{free} are free for {place}; about {needed} more are needed for what is in the folders"
    remedy = "free disk space, or set data_dir to a folder on a larger disk"
    if free_bytes < max(_LEAST_BYTES, needed_bytes):
        yield warning(_NAME, sentence, remedy, **facts)
    elif free_bytes < needed_bytes * _NEAR:
        yield hint(_NAME, sentence, remedy, **facts)
    else:
        yield well(_NAME, sentence, **facts)


def _disks(folders: Sequence[Path]) -> list[Path]:
    """The first of the folders on each disk."""
    return list({_device(folder): folder for folder in reversed(folders)}.values())[::-1]


def _device(folder: Path) -> int:
    return os.stat(nearest(folder)).st_dev  # noqa: PTH116 - of the folder, or of the one that it will be made in


def _is_in_any(folder: Path, folders: Sequence[Path]) -> bool:
    return any(other != folder and folder.absolute().is_relative_to(other.absolute()) for other in folders)
