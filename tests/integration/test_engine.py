"""The daemon's engine in this process: real watch, SQLite, Chroma server and HTTP provider, and their faults."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import HnswConfig, open_sink
from ingestor.adapters.decoding import decode
from ingestor.adapters.folder import Folder
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.notify import Notifier
from ingestor.adapters.openai_embedder import OpenAIEmbedder
from ingestor.adapters.rules import RULES_FILE, Rules
from ingestor.adapters.runtime import SystemRuntime
from ingestor.adapters.vectors import SqliteVectors
from ingestor.adapters.watcher import Watcher
from ingestor.core.backoff import Backoff
from ingestor.core.chunking import Cutter
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Problem, Recipe
from ingestor.core.tokens import estimate_tokens
from ingestor.engine import daemon as daemon_module
from ingestor.engine import pipeline as pipeline_module
from ingestor.engine import worker as worker_module
from ingestor.engine.daemon import Daemon, Line
from ingestor.engine.pipeline import Parts, Pipeline
from ingestor.engine.reading import Reader
from tests.checker import Row, differences, served, shown
from tests.daemon import free_port
from tests.embedding_server import EmbeddingServer, Fault, FaultKind

DIMENSIONS = 64
PATIENCE_SECONDS = 60.0
POISON = "this text is refused"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same policies, at a tenth of the pace."""
    monkeypatch.setattr(pipeline_module, "EMBEDDING_RETRY", Backoff(0.05, 0.5, max_attempts=4))
    monkeypatch.setattr(worker_module, "RETRY", Backoff(0.3, 2.0, max_attempts=20))
    monkeypatch.setattr(daemon_module, "SUPERVISE_SECONDS", 0.2)


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, max_inputs=8, reject_marker=POISON) as server:
        yield server


class Engine:
    """A running daemon, and what a test needs to disturb it."""

    def __init__(self, root: Path, provider: EmbeddingServer) -> None:
        self.folder = root / "folder"
        self.folder.mkdir()
        self.port = free_port()
        self.server = ChromaServer(root / "chroma", self.port, max_restarts=20)
        self.ledger_path = root / "ledger.sqlite3"
        self._root = root
        self._provider = provider
        self._stop = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.server.start)
        client = await asyncio.to_thread(connect, "managed", port=self.port, timeout_seconds=10.0)
        recipe = Recipe("openai", "unheard-of", DIMENSIONS)
        sink = open_sink(client, "documents", recipe, HnswConfig(), fingerprint="test")
        source = Folder(self.folder, Rules([], []), follow_symlinks=False, max_file_bytes=1 << 20)
        ledger = SqliteLedger(self.ledger_path)
        vectors = SqliteVectors(self._root / "vectors.sqlite3")
        embedder = OpenAIEmbedder(
            recipe,
            base_url=self._provider.base_url,
            api_key="test",
            max_batch_inputs=8,
            max_batch_tokens=100_000,
            max_concurrency=4,
            timeout_seconds=5.0,
            sends_dimensions=True,
        )
        parts = Parts(
            source=source,
            reader=Reader(source, lambda raw: decode(raw).text, Cutter()),
            ledger=ledger,
            vectors=vectors,
            embedder=embedder,
            sink=sink,
            runtime=SystemRuntime(),
            estimate_tokens=estimate_tokens,
        )
        pipeline = Pipeline(parts, rescan_seconds=3_600.0, limit=DeletionLimit(0.5, 100))
        watch = Watcher(self.folder, polling="never")
        follower = pipeline.follower(watch, quiet_seconds=0.5, rules_file=RULES_FILE)
        daemon = Daemon([Line(pipeline, follower, watch)], Notifier(), SystemRuntime(), supervise=self.server.ensure)
        try:
            await pipeline.prepare()
            task = asyncio.create_task(daemon.run(self._stop))
            await asyncio.wait({task, asyncio.create_task(follower.reconciled.wait())}, return_when="FIRST_COMPLETED")
            yield
            assert not task.done(), "the daemon has ended"
            self._stop.set()
            await asyncio.wait_for(task, 20)
        finally:
            await pipeline.close()
            ledger.close()
            vectors.close()
            disconnect(client)
            await asyncio.to_thread(self.server.stop)

    async def settled(self, wanted: Callable[[str], bool] = lambda _: True) -> list[Row]:
        """Wait until Chroma, read by its own client, equals the folder."""
        found = ["nothing was read yet"]
        rows: list[Row] = []

        def is_equal() -> bool:
            try:
                with served(self.port) as read:
                    rows[:] = read()
            except Exception as error:  # noqa: BLE001 - the server may be down just now: that is what is tested
                found[:] = [repr(error)]
                return False
            found[:] = differences(self.folder, rows, wanted=wanted, dimensions=DIMENSIONS)
            return not found

        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await asyncio.to_thread(is_equal):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(shown(found))
        return rows

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def write_many(self, count: int, prefix: str = "file") -> None:
        for number in range(count):
            self.write(f"{prefix}_{number}.txt", f"{prefix} number {number} tells of its number.\n")

    def problems(self) -> list[tuple[str, Problem]]:
        with contextlib.closing(SqliteLedger(self.ledger_path)) as ledger:
            return ledger.problems()


@pytest.fixture
def engine(tmp_path: Path, provider: EmbeddingServer) -> Engine:
    return Engine(tmp_path, provider)


async def test_files_come_change_move_and_go(engine: Engine, provider: EmbeddingServer) -> None:
    engine.write("there_before.md", "# Before\n\nThis was there before the daemon.\n")
    async with engine.running():
        await engine.settled()
        engine.write("new.txt", "This came while it ran.\n")
        before = {row.source: row.id for row in await engine.settled()}
        (engine.folder / "new.txt").rename(engine.folder / "renamed.txt")
        after = {row.source: row.id for row in await engine.settled()}
        assert after["renamed.txt"] == before["new.txt"]
        engine.write("renamed.txt", "And this is another text.\n")
        await engine.settled()
        (engine.folder / "renamed.txt").unlink()
        await engine.settled()
    assert provider.texts == 3, "a rename and a deletion cost nothing"


async def test_a_chroma_server_killed_in_the_middle_of_writes(engine: Engine) -> None:
    async with engine.running():
        for batch in range(4):
            engine.write_many(40, f"batch{batch}")
            await asyncio.sleep(0.3)
            pid = engine.server.pid
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        rows = await engine.settled()
        assert len({row.source for row in rows}) == 160


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(FaultKind.STATUS, status=429, headers={"Retry-After": "0"})] * 3,
        [Fault(FaultKind.STATUS, status=500)] * 3,
        [Fault(FaultKind.MALFORMED)] * 3,
        [Fault(FaultKind.RESET)] * 3,
        [Fault(FaultKind.NOT_A_NUMBER)] * 2,
    ],
    ids=["429", "500", "malformed", "reset", "nan"],
)
async def test_a_provider_that_fails_for_a_while(
    engine: Engine, provider: EmbeddingServer, faults: list[Fault]
) -> None:
    provider.inject(*faults)
    engine.write_many(10)
    async with engine.running():
        await engine.settled()
    assert provider.requests <= len(faults) + 10


async def test_a_provider_that_stays_away_longer_than_the_attempts(engine: Engine, provider: EmbeddingServer) -> None:
    provider.inject(*[Fault(FaultKind.STATUS, status=503)] * 12)
    engine.write_many(3)
    async with engine.running():
        await engine.settled()
        engine.write("later.txt", "It is back.\n")
        await engine.settled()


async def test_one_text_that_is_refused_does_not_take_others_with_it(engine: Engine) -> None:
    engine.write_many(20)
    engine.write("bad.txt", f"Here {POISON}.\n")
    async with engine.running():
        await engine.settled(lambda path: path != "bad.txt")
        # Chroma is equal a moment before the ledger says what became of the last document.
        async with asyncio.timeout(30):
            while not engine.problems():
                await asyncio.sleep(0.02)
        ((path, problem),) = engine.problems()
        assert (path, problem.kind) == ("bad.txt", "RejectedByModel")
        engine.write("bad.txt", "Here all is well again.\n")
        await engine.settled()
        async with asyncio.timeout(30):
            while engine.problems():
                await asyncio.sleep(0.02)
