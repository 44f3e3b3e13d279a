"""Data folders that want one and the same collection, and what the product itself says to each of them.

Who may have the collection is decided by `app.owning.claim` and by the real sink's `confirm` and `keep`, over a server
that knows of collections only what they need. Records of another owner lie in the collection besides; nobody may touch
them.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from chromadb.errors import NotFoundError

from ingestor.adapters.chroma_sink import ChromaSink, HnswConfig, open_sink
from ingestor.adapters.owner_file import OWNER_FILE, OwnerFile
from ingestor.app.owning import claim
from ingestor.core.errors import ForeignCollection, ServiceUnavailable
from ingestor.core.fingerprint import document_id_of, recipe_fingerprint
from ingestor.core.model import Scalar
from ingestor.core.owning import OWNER_KEY, PLACE_KEY, former_of, tag_of
from ingestor.settings import Settings
from tests.doubles_sink import Held, MemorySink
from tests.simulation.faults import RECIPE

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_STRANGER = "5" * 32
"""Another owner, whose data folder nobody has seen."""


@dataclass(slots=True)
class _Collection:
    """What Chroma's client gives of a collection: its metadata as of that moment."""

    server: "Server"
    metadata: Mapping[str, Any]
    id: str = "simulated"
    name: str = "documents"
    configuration_json: Mapping[str, Any] = field(default_factory=lambda: HnswConfig().as_configuration())

    def modify(self, metadata: Mapping[str, Any]) -> None:
        self.server.metadata = dict(metadata)

    def get(self, offset: int | None = None, **_: object) -> Mapping[str, Any]:
        held = {} if offset else self.server.sink.held
        return {"ids": list(held), "metadatas": [each.metadata for each in held.values()], "documents": None}


class Server:
    """`ClientAPI`, as far as claims ask it."""

    def __init__(self, sink: MemorySink, now_seconds: Callable[[], float]) -> None:
        self.sink = sink
        self.metadata: Mapping[str, Any] | None = None
        """That of the one collection; None until it is made."""
        self._now_seconds = now_seconds

    def heartbeat(self) -> int:
        return int(self._now_seconds() * 1e9)

    def get_collection(self, name: str, **_: object) -> _Collection:
        if self.metadata is None:
            raise NotFoundError(name)
        return _Collection(self, dict(self.metadata))

    def create_collection(self, name: str, metadata: Mapping[str, Any], **_: object) -> _Collection:
        self.metadata = dict(metadata)
        return self.get_collection(name)


class DataFolder:
    """Whoever fills collections from a folder; knows who it is, because it has filled another one before."""

    def __init__(self, path: Path, owner_id: str) -> None:
        path.mkdir()
        self._path = path
        OwnerFile(path).claimed("another", owner_id, "elsewhere", frozenset())

    def copy(self, path: Path) -> "DataFolder":
        """A copy, as a backup or the image of a machine has it."""
        found = object.__new__(DataFolder)
        found._path = path
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        shutil.copy(self._path / OWNER_FILE, path)
        return found

    def open(self, server: Server, *, takes_over: bool = False) -> ChromaSink:
        """Start a process that is to fill the collection. Raises what `claim` and `open_sink` raise."""
        settings = Settings.model_validate(
            {
                "watch_dir": self._path / "watched",
                "data_dir": self._path,
                "chroma": {"mode": "http", "port": 1},
                "embedding": {"provider": "openai", "model": RECIPE.model, "dimensions": 8, "api_key": "k"},
            }
        )
        client = cast("ClientAPI", server)
        hold = claim([settings], client, takes_over=takes_over)
        fingerprint = recipe_fingerprint(RECIPE)
        sink = open_sink(client, "documents", RECIPE, HnswConfig(), fingerprint=fingerprint, hold=hold)
        owner_id, place = str(hold.labels[OWNER_KEY]), str(hold.labels[PLACE_KEY])
        OwnerFile(self._path).claimed("documents", owner_id, place, former_of(hold.labels))
        return sink


class Owners:
    """Those who want the collection of one seed; `chance` is theirs alone, so that they disturb no other seed."""

    def __init__(self, sink: MemorySink, now_seconds: Callable[[], float], chance: Random) -> None:
        self.chance = chance
        self.foreign: dict[str, Held] = {}
        """The records of another owner, which stay as they are."""
        self._sink = sink
        self._server = Server(sink, now_seconds)
        self._root = TemporaryDirectory(prefix="simulation-")
        root = Path(self._root.name)
        self._own, self._other = DataFolder(root / "own", "1" * 32), DataFolder(root / "other", "2" * 32)

    def close(self) -> None:
        """Nobody wants it any more."""
        self._root.cleanup()

    def open(self) -> ChromaSink:
        """The process starts whose collection it is. Raises what `DataFolder.open` raises."""
        return self._own.open(self._server)

    def take_over(self) -> None:
        """Another owner has been told to take the collection."""
        self._other.open(self._server, takes_over=True)

    def is_let_in(self, *, is_copy: bool) -> bool:
        """Whether another owner, or a copy of the data folder, may fill the collection as well."""
        folder = self._own.copy(Path(self._root.name) / "copy") if is_copy else self._other
        try:
            folder.open(self._server)
        except (ForeignCollection, ServiceUnavailable):
            return False
        return True

    @property
    def has_begun(self) -> bool:
        """Whether the collection is somebody's."""
        return self._server.metadata is not None

    def put_foreign(self, source: str) -> str:
        """Another owner has written a record, of a file that may be called as one here is; returns its id."""
        document_id = document_id_of("", f"{self.chance.getrandbits(128):032x}", tag_of(_STRANGER))
        metadata: dict[str, Scalar] = {"document_id": document_id, "source": source, "chunk": 0}
        held = Held("of a stranger", metadata, np.zeros(RECIPE.dimensions, dtype=np.float32))
        id_ = f"{document_id}:0"
        self.foreign[id_] = self._sink.held[id_] = held
        return id_

    def touched(self) -> list[str]:
        """The records of another owner that are not as they were."""
        return [id_ for id_, held in self.foreign.items() if self._sink.held.get(id_) is not held]
