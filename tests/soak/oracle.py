"""Whether a collection is a folder, judged without a line of the product's code.

The folder is walked with `os.walk` and read as bytes; Chroma is asked through its own client. What a record has to say
follows from the file alone: the records of a file, in their order, hold its whole text but for white space, and nothing
else; their metadata are true; their vectors are those of their texts. Where a chunk begins is nobody's business here.
"""

import fnmatch
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

from tests.embedding_server import vector_of

COLLECTION = "documents"
RULES_FILE = ".ingestorignore"
FOLDER_FILE = ".ingestor.toml"
SIDECAR_END = ".meta.json"
_PAGE_RECORDS = 300
_FRONT = re.compile(r"\A---\nmark: (\d+)\n---\n")
_MARK_LINE = re.compile(r"^metadata\.shelf_mark = (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """A record as Chroma returns it."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    vector: tuple[float, ...]


def rows_of(port: int) -> list[Row]:
    """Everything that the collection of the server on a port holds; raises what Chroma's client raises."""
    client = chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
    try:
        collection = client.get_collection(COLLECTION, embedding_function=None)
        ids = list(collection.get(include=[])["ids"])
        rows: list[Row] = []
        for start in range(0, len(ids), _PAGE_RECORDS):
            page = collection.get(
                ids=ids[start : start + _PAGE_RECORDS], include=["documents", "metadatas", "embeddings"]
            )
            texts, facts, vectors = page["documents"], page["metadatas"], page["embeddings"]
            assert texts is not None
            assert facts is not None
            assert vectors is not None
            told = zip(page["ids"], texts, facts, list(vectors), strict=True)
            rows += [Row(id_, str(text), dict(about), tuple(vector)) for id_, text, about, vector in told]
        return rows
    finally:
        client.close()  # type: ignore[attr-defined]  # every client has it, the interface does not name it


def files_of(root: Path) -> dict[str, Path]:
    """The files that belong to the collection, by their path relative to the folder."""
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(place, name)
            path = file.relative_to(root).as_posix()
            hidden = name.startswith(".") or name.endswith((SIDECAR_END, "~", ".tmp", ".part"))
            if file.is_file() and not file.is_symlink() and not hidden and not _is_ruled_out(root, path):
                found[path] = file
    return found


def differences(root: Path, rows: Sequence[Row], dimensions: int) -> list[str]:
    """What is wrong, in words; empty when the collection is the folder."""
    files = files_of(root)
    by_source: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_source[str(row.metadata.get("source"))].append(row)
    found = [f"{path}: orphan, {len(by_source[path])} records" for path in sorted(by_source.keys() - files.keys())]
    owners = Counter(str(group[0].metadata.get("document_id")) for group in by_source.values())
    found += [f"document {id_}: {count} files" for id_, count in owners.items() if count > 1]
    for path, file in files.items():
        records = sorted(by_source.get(path, ()), key=lambda row: int(row.metadata["chunk"]))
        found += [f"{path}: {fault}" for fault in _faults(root, file, records)]
    if wrong := [row.id for row in rows if not np.allclose(row.vector, vector_of(row.text, dimensions), atol=1e-5)]:
        found.append(f"{len(wrong)} records have the vector of another text, such as {wrong[0]}")
    return found


def _faults(root: Path, file: Path, records: Sequence[Row]) -> Iterator[str]:
    try:
        raw, status = file.read_bytes(), file.stat()
    except FileNotFoundError:
        yield "vanished while it was compared"
        return
    text = raw.decode()
    front = _FRONT.match(text) if file.suffix == ".md" else None
    body = text[front.end() :] if front else text
    if [record.metadata["chunk"] for record in records] != list(range(len(records))):
        yield f"its records are numbered {[record.metadata['chunk'] for record in records]}"
    if _ink("".join(record.text for record in records)) != _ink(body):
        yield f"{len(records)} records do not hold its text of {len(raw)} bytes"
    truth: dict[str, Any] = {"file_size": len(raw), "content_hash": hashlib.sha256(raw).hexdigest()}
    truth["mark"] = int(front.group(1)) if front else None
    truth["shelf_mark"] = _shelf_mark(root, file)
    sidecar = file.with_name(file.name + SIDECAR_END)
    truth["side_mark"] = json.loads(sidecar.read_text("utf-8"))["side_mark"] if sidecar.is_file() else None
    for record in records:
        for key, value in truth.items():
            if record.metadata.get(key) != value:
                yield f"{key} is {record.metadata.get(key)}, not {value}"
                return
    if len({record.metadata["document_id"] for record in records}) > 1:
        yield "more than one document id"
    if int(status.st_size) != len(raw):
        yield "changed while it was compared"


def _shelf_mark(root: Path, file: Path) -> int | None:
    """What the nearest folder file says, from the file's own folder upwards."""
    for folder in file.relative_to(root).parents:
        told = root / folder / FOLDER_FILE
        if told.is_file() and (match := _MARK_LINE.search(told.read_text("utf-8"))):
            return int(match.group(1))
    return None


def _is_ruled_out(root: Path, path: str) -> bool:
    """Whether a rules file at the top leaves the path out; its lines are plain patterns of file names."""
    rules = root / RULES_FILE
    lines = rules.read_text("utf-8").split() if rules.is_file() else []
    return any(fnmatch.fnmatchcase(part, line) for line in lines for part in path.split("/"))


def _ink(text: str) -> str:
    return "".join(text.split())
