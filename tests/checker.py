"""Whether a collection equals a folder, found out without any code of the product but its `Cutter`.

The folder is walked with `os.walk`, Chroma is asked through its own client. Where chunks begin and end is the cutter's
to decide; that they hold the whole text, that their lines are right and that everything else that a record says is true
is told from the files alone.

Invariant: `differences` is empty only if every file that belongs has exactly its chunks, in order, each once, under one
document id of its own, and nothing else is there.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as day_time
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import yaml
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import InternalError

from ingestor.core.chunking import Cutter
from tests.embedding_server import vector_of

COLLECTION = "documents"
PAGE_RECORDS = 500
READS = 20
START_SECONDS = 60.0
"""How long a Chroma server may take until it listens: the daemon may have to start it again first."""
READ_PAUSE_SECONDS = 0.1
SETTINGS_FILE = ".ingestor.toml"
SIDECAR_END = ".meta.json"
_LEFT_OUT_ENDS = ("~", ".swp", ".tmp", ".temp", ".part", ".crdownload", SIDECAR_END)
_LEFT_OUT_NAMES = {"#recycle", "#snapshot", "lost+found", "id_rsa"}
"""Some of many."""
_OURS = {
    "source",
    "file_name",
    "file_type",
    "file_size",
    "last_modified",
    "content_hash",
    "document_id",
    "chunk",
    "start_line",
    "end_line",
    "heading",
    "embedding_model",
    "ingested_at",
    "page",
}
_NANOSECONDS = 1_000_000_000
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A record as Chroma tells it."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    embedding: tuple[float, ...]

    @property
    def source(self) -> str:
        return str(self.metadata["source"])

    @property
    def document_id(self) -> str:
        return str(self.metadata["document_id"])


Reads = Callable[[], list[Row]]


def _connected(port: int) -> ClientAPI:
    give_up_seconds = time.monotonic() + START_SECONDS
    while True:
        try:
            return chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
        except ValueError:  # what the client makes of a refused connection
            if time.monotonic() > give_up_seconds:
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def client_of(port: int) -> Iterator[ClientAPI]:
    """The client that any program may have of the server on a port; waits for one that is just started again."""
    client = _connected(port)
    try:
        yield client
    finally:
        _close(client)


@contextlib.contextmanager
def served(port: int, collection: str = COLLECTION) -> Iterator[Reads]:
    """Read a collection through the server on a port."""
    with client_of(port) as client:
        yield lambda: _rows(client, collection)


def at_rest(path: Path) -> list[Row]:
    """Read the collection in a folder that nobody has open.

    In a process of its own: a second `PersistentClient` of one process would go on telling what the first has seen.
    """
    told = subprocess.run(
        [sys.executable, "-m", "tests.checker", path],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    return [Row(row["id"], row["text"], row["metadata"], tuple(row["embedding"])) for row in json.loads(told.stdout)]


def belongs(path: str) -> bool:
    """Whether a file with this relative path is one that users expect in the collection."""
    names = path.split("/")
    return not any(name.startswith(".") or name in _LEFT_OUT_NAMES for name in names) and not path.endswith(
        _LEFT_OUT_ENDS
    )


def files_of(folder: Path, wanted: Callable[[str], bool] = belongs) -> dict[str, Path]:
    """Every regular file that belongs, by its path relative to the folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            relative = file.relative_to(folder).as_posix()
            if file.is_file() and not file.is_symlink() and wanted(relative):
                found[relative] = file
    return found


def text_of(raw: bytes) -> str:
    """What a UTF-8 file says, with "\\n" line ends."""
    return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def front_matter_of(text: str, name: str) -> tuple[dict[str, Any], int]:
    """What stands between the fences at the top of a Markdown text, and how many lines that takes."""
    lines = text.split("\n")
    if not name.lower().endswith((".md", ".markdown", ".mdx")) or lines[0].rstrip() != "---":
        return {}, 0
    closing = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() in {"---", "..."}), 0)
    with contextlib.suppress(yaml.YAMLError):
        told = yaml.safe_load("\n".join(lines[1:closing]))
        if isinstance(told, dict) and told:
            return told, closing + 1
    return {}, 0


def settings_of(folder: Path, path: str) -> Iterator[dict[str, Any]]:
    """What the folders that a file lies in set, from the root down."""
    for depth in range(len(Path(path).parts)):
        place = folder.joinpath(*Path(path).parts[:depth], SETTINGS_FILE)
        if place.is_file():
            yield tomllib.loads(place.read_text("utf-8"))


def cutter_of(folder: Path, path: str, cutter: Cutter) -> Cutter:
    """The cutter of a file whose folders may have sizes of their own."""
    sizes: dict[str, int] = {}
    for settings in settings_of(folder, path):
        sizes |= settings.get("chunk", {})
    return Cutter(**sizes) if sizes else cutter


def own_of(folder: Path, path: str, front: Mapping[str, Any]) -> dict[str, Any]:
    """All that a user says of a file, as its records are to tell it."""
    layers = [settings.get("metadata", {}) for settings in settings_of(folder, path)]
    sidecar = folder / (path + SIDECAR_END)
    is_told = os.path.isfile(sidecar)  # noqa: PTH113 - `Path.is_file` raises for a name that is too long
    layers += [front, json.loads(sidecar.read_text("utf-8-sig")) if is_told else {}]
    own: dict[str, Any] = {}
    for layer in layers:
        told = dict(_flat(layer))
        own = {key: value for key, value in own.items() if not any(_same(key, each) for each in told)} | told
    found: dict[str, Any] = {}
    for key, value in own.items():
        if isinstance(value, list):
            found[key] = ", ".join(map(_word, value))
            found |= {f"{key}.{_word(each)}": True for each in value}
        elif value is not None:
            found[key] = value.isoformat() if isinstance(value, date | day_time) else value
    return found


def _flat(layer: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in layer.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _same(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _word(element: object) -> str:
    return json.dumps(element) if isinstance(element, bool) else str(element)


def expected_texts(folder: Path, cutter: Cutter, wanted: Callable[[str], bool] = belongs) -> dict[str, tuple[str, ...]]:
    """Chunk texts of every file that belongs, in order."""
    found = {}
    for path, file in files_of(folder, wanted).items():
        whole = text_of(file.read_bytes())
        text = "\n".join(whole.split("\n")[front_matter_of(whole, file.name)[1] :])
        found[path] = tuple(chunk.text for chunk in cutter.cut(text, file.name)[1])
    return found


def differences(
    folder: Path,
    rows: Sequence[Row],
    *,
    wanted: Callable[[str], bool] = belongs,
    cutter: Cutter | None = None,
    dimensions: int = 0,
) -> list[str]:
    """What is wrong, in words; `dimensions` says that the vectors are to be those of the tests' embedding server."""
    cutter = cutter or Cutter()
    files = files_of(folder, wanted)
    of_source: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_source[row.source].append(row)
    found = [f"{path}: orphan, {len(of_source[path])} records" for path in sorted(of_source.keys() - files.keys())]
    found += [f"id {id_}: {count} times" for id_, count in Counter(row.id for row in rows).items() if count > 1]
    sources_of = defaultdict(set)
    for row in rows:
        sources_of[row.document_id].add(row.source)
    found += [f"document {id_}: {len(sources)} sources" for id_, sources in sources_of.items() if len(sources) > 1]
    for path, file in files.items():
        told = sorted(of_source.get(path, ()), key=lambda row: int(row.metadata["chunk"]))
        try:
            found += [f"{path}: {fault}" for fault in _faults(folder, file, told, cutter)]
        except FileNotFoundError:
            found.append(f"{path}: vanished while it was compared")
    if dimensions:
        found += [f"{row.id}: another text's vector" for row in rows if not _is_vector_of(row, dimensions)]
    return found


def shown(found: Sequence[str]) -> str:
    """Differences for a message."""
    return "\n".join([f"{len(found)} differences:", *found[:_SHOWN]])


def document_ids(rows: Sequence[Row]) -> dict[str, str]:
    """Document id of every source."""
    return {row.source: row.document_id for row in rows}


def fingerprint(rows: Sequence[Row]) -> str:
    """Names everything that Chroma holds, the time of ingestion included."""
    told = sorted((row.id, row.text, sorted(row.metadata.items()), row.embedding) for row in rows)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _faults(folder: Path, file: Path, told: Sequence[Row], cutter: Cutter) -> Iterator[str]:
    raw = file.read_bytes()
    status = file.stat()
    whole = text_of(raw)
    lines = whole.split("\n")
    front, front_lines = front_matter_of(whole, file.name)
    text = "\n".join(lines[front_lines:])
    if [row.metadata["chunk"] for row in told] != list(range(len(told))):
        yield f"chunks are numbered {[row.metadata['chunk'] for row in told]}"
    if _ink("".join(row.text for row in told)) != _ink(text):
        yield f"{len(told)} records do not hold the whole text of {len(raw)} bytes"
    path = file.relative_to(folder).as_posix()
    title, chunks = cutter_of(folder, path, cutter).cut(text, file.name)
    own = own_of(folder, path, front)
    wanted = {"title": str(own.pop("title", title)), **own}
    if [row.text for row in told] != [chunk.text for chunk in chunks]:
        yield f"{len(told)} records are not the {len(chunks)} chunks"
    truth = {
        "file_name": file.name,
        "file_size": len(raw),
        "content_hash": hashlib.sha256(raw).hexdigest(),
        "last_modified": datetime.fromtimestamp(status.st_mtime_ns // _NANOSECONDS, UTC).isoformat(),
    }
    for row in told:
        theirs = {key: value for key, value in row.metadata.items() if key not in _OURS}
        if _typed(theirs) != _typed(wanted):
            yield f"metadata of its own is {theirs}, not {wanted}"
        yield from (f"{key} is {row.metadata[key]}" for key, value in truth.items() if row.metadata[key] != value)
        start, end = int(row.metadata["start_line"]), int(row.metadata["end_line"])
        if start <= front_lines or row.text not in "\n".join(lines[start - 1 : end]):
            yield f"chunk {row.metadata['chunk']} is not in lines {start} to {end}"
        if not row.id.startswith(f"{row.document_id}:"):
            yield f"record {row.id} of document {row.document_id}"
    if len({row.document_id for row in told}) > 1:
        yield "more than one document id"


def _typed(metadata: Mapping[str, Any]) -> dict[str, tuple[type, Any]]:
    """Metadata in which 1, 1.0 and true are three values."""
    return {key: (type(value), value) for key, value in metadata.items()}


def _ink(text: str) -> str:
    return "".join(text.split())


def _is_vector_of(row: Row, dimensions: int) -> bool:
    return bool(np.allclose(row.embedding, vector_of(row.text, dimensions), atol=1e-5))


def _rows(client: ClientAPI, name: str = COLLECTION) -> list[Row]:
    """Everything the collection holds.

    Chroma looks vectors up after the ids, and fails or comes short when one of them is deleted in between.
    """
    for _ in range(READS - 1):
        with contextlib.suppress(InternalError, ShortPage):
            return _read(client, name)
        time.sleep(READ_PAUSE_SECONDS)
    return _read(client, name)


class ShortPage(Exception):
    """A page with fewer vectors than records."""


def _read(client: ClientAPI, name: str) -> list[Row]:
    collection = client.get_collection(name, embedding_function=None)
    rows: list[Row] = []
    while True:
        page = collection.get(limit=PAGE_RECORDS, offset=len(rows), include=["documents", "metadatas", "embeddings"])
        documents, metadatas, embeddings = page["documents"], page["metadatas"], page["embeddings"]
        assert documents is not None
        assert metadatas is not None
        assert embeddings is not None
        if len(embeddings) != len(page["ids"]):
            raise ShortPage
        rows += [
            Row(id_, text, dict(metadata), tuple(float(number) for number in embedding))
            for id_, text, metadata, embedding in zip(page["ids"], documents, metadatas, embeddings, strict=True)
        ]
        if len(page["ids"]) < PAGE_RECORDS:
            return rows


def _close(client: ClientAPI) -> None:
    """Chroma leaves the sockets of its clients open."""
    client.close()  # type: ignore[attr-defined]  # every client has it, the interface does not tell
    for owner in (client, getattr(client, "_admin_client", None)):
        session = getattr(getattr(owner, "_server", None), "_session", None)
        if session is not None:
            session.close()


def main() -> None:
    """Print the collection of a folder as JSON."""
    client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
    rows = [
        {"id": row.id, "text": row.text, "metadata": row.metadata, "embedding": row.embedding} for row in _rows(client)
    ]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main()
