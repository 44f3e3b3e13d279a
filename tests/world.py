"""Doubles that outlive the process, and processes that come and go over them."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import cast

from ingestor.adapters.runtime import SystemRuntime
from ingestor.core.errors import UndecodableDocument
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Change, Chunk, Priority
from ingestor.engine.guard import APPROVED_NOTE
from ingestor.engine.pipeline import Parts, Pipeline
from ingestor.engine.reading import Reader
from ingestor.ports import Runtime
from tests.doubles_embedder import HashEmbedder
from tests.doubles_folder import MemoryFolder
from tests.doubles_ledger import MemoryLedger, MemoryVectors
from tests.doubles_sink import MemorySink


class LineCutter:
    """One chunk a line."""

    def __init__(self, recipe: str = "lines") -> None:
        self.recipe = recipe

    def cut(self, text: str, file_name: str, pages: Sequence[int] = ()) -> tuple[str, tuple[Chunk, ...]]:
        assert not pages
        lines = enumerate(text.split("\n"), start=1)
        return PurePosixPath(file_name).stem, tuple(Chunk(line, number, number) for number, line in lines if line)


def decode(raw: bytes) -> str:
    if b"\0" in raw:
        raise UndecodableDocument("the file is binary", remedy="convert it to text")
    return raw.decode()


class _Unlimited(DeletionLimit):
    def holds_back(self, *, gone: int, known: int, found: int) -> bool:  # noqa: ARG002 - asked as any limit is
        return False


UNLIMITED = _Unlimited(max_ratio=1.0, min_documents=10**9)


class World:
    """Doubles that outlive the process, and processes that come and go."""

    def __init__(self) -> None:
        self.folder = MemoryFolder()
        self.ledger: MemoryLedger = MemoryLedger()
        self.vectors = MemoryVectors()
        self.sink: MemorySink = MemorySink()
        self.embedder = HashEmbedder(max_batch_inputs=4)
        self.cutter = LineCutter()
        self.limit = DeletionLimit(max_ratio=0.5, min_documents=4)
        self.approves = True
        """Whether deletions are never held back, however many they are."""

    def pipeline(self, name: str = "", beside: Sequence[Pipeline] = (), runtime: Runtime | None = None) -> Pipeline:
        parts = Parts(
            source=self.folder,
            reader=Reader(self.folder, decode, self.cutter),
            ledger=self.ledger,
            vectors=self.vectors,
            embedder=self.embedder,
            sink=self.sink,
            runtime=runtime or SystemRuntime(),
            estimate_tokens=len,
            name=name,
        )
        return Pipeline(parts, rescan_seconds=3600.0, limit=self.limit_now, beside=beside)

    @property
    def limit_now(self) -> DeletionLimit:
        """How many deletions happen without approval."""
        return UNLIMITED if self.approves else self.limit

    def approve(self) -> int:
        """Approve of what is held back."""
        self.ledger.set_note(APPROVED_NOTE, "all")
        return self.ledger.approve(self.ledger.held())

    def waiting(self) -> set[str]:
        """The paths whose deletion waits for approval."""
        return {path for path, is_approved in self.ledger.held().items() if not is_approved}

    async def sync(self) -> Pipeline:
        # A new process has a new client.
        getattr(self.embedder, "_inner", self.embedder).is_closed = False
        pipeline = self.pipeline()
        try:
            await pipeline.prepare()
            async with pipeline.running():
                await pipeline.reconciler.reconcile()
                await pipeline.worker.run(until_idle=True)
        finally:
            await pipeline.close()
        return pipeline

    async def work(self, hinted: Sequence[str]) -> None:
        """A process that hears of some paths, works on them, and compares nothing else."""
        getattr(self.embedder, "_inner", self.embedder).is_closed = False
        pipeline = self.pipeline()
        try:
            await pipeline.prepare()
            now_seconds = SystemRuntime().now_seconds()
            change = Change("", Priority.LIVE, enqueued_seconds=now_seconds, not_before_seconds=now_seconds)
            self.ledger.enqueue(hinted, change)
            async with pipeline.running():
                await pipeline.worker.run(until_idle=True)
        finally:
            await pipeline.close()

    def records(self) -> list[tuple[str, str, int]]:
        """What Chroma holds: (source, text, line), sorted."""
        return sorted(
            (str(held.metadata["source"]), str(held.document), int(cast("int", held.metadata["start_line"])))
            for held in self.sink.held.values()
            if held.metadata is not None
        )

    def expected(self) -> list[tuple[str, str, int]]:
        """What a fresh ingestion of the folder would hold."""
        return sorted(
            (path, chunk.text, chunk.start_line)
            for path in self.folder.scan().files
            if b"\0" not in (raw := self.folder.read(path).raw)
            for chunk in self.cutter.cut(raw.decode(), path)[1]
        )

    def embedded_texts(self) -> list[str]:
        return [text for call in self.embedder.calls for text in call]
