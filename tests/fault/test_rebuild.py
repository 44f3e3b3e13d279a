"""A rebuild: killed at every step, beside a folder that changes, without a provider, a key, a model or a Chroma."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromadb.errors import ChromaError, NotFoundError

from ingestor.adapters.chroma_server import ChromaServer
from tests.acceptance.test_killed import kill_when
from tests.checker import client_of, document_ids, served
from tests.daemon import KEY, Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

OLD_DIMENSIONS, NEW_DIMENSIONS = 64, 32
"""What tells the vectors of the old recipe from those of the new one."""
NEW = {"INGESTOR_EMBEDDING__DIMENSIONS": str(NEW_DIMENSIONS)}
SLOW_SECONDS = 3.0
"""Of a call, until enough was seen: a rebuild that has not ended meanwhile."""
CONCURRENCY, BATCH_INPUTS = 2, 4
IN_FLIGHT = CONCURRENCY * BATCH_INPUTS
DIES_AFTER_SO_MANY_STEPS = """
import os, signal, sys
from itertools import count
from ingestor.app.switch import Exchange
from ingestor.cli import main
make, steps, last = Exchange.__init__, count(1), int(sys.argv[1])
def mortal(self, *arguments):
    make(self, *arguments)
    def dying(act):
        return lambda *of: (act(*of), os.kill(os.getpid(), signal.SIGKILL) if next(steps) == last else None)
    self._acts = {step: dying(act) for step, act in self._acts.items()}
Exchange.__init__ = mortal
sys.argv = ["ingestor", "rebuild"]
main()
"""


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=OLD_DIMENSIONS, api_key=KEY) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, provider: EmbeddingServer) -> Iterator[Site]:
    settings = provider_settings(
        provider, EMBEDDING__MAX_CONCURRENCY=CONCURRENCY, EMBEDDING__MAX_BATCH_INPUTS=BATCH_INPUTS
    )
    with Site(tmp_path, settings) as made:
        yield made


def fill(site: Site, count: int, name: str = "text") -> None:
    for number in range(count):
        file = site.folder / f"{name}-{number}.txt"
        file.write_text(f"The {name} with the number {number} tells of {name}.\n", encoding="utf-8")


def die_after(site: Site, steps: int) -> None:
    """Rebuild, or go on, and die right after so many steps of the switch."""
    done = subprocess.run(
        [sys.executable, "-c", DIES_AFTER_SO_MANY_STEPS, str(steps)],
        cwd=site.root,
        env=site.environment(**NEW),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def counts(port: int, names: tuple[str, ...]) -> list[int | None]:
    """How many records the collections of these names hold; None for a name that is not there."""
    found: list[int | None] = []
    with client_of(port) as client:
        for name in names:
            try:
                found.append(client.get_collection(name, embedding_function=None).count())
            except NotFoundError:
                found.append(None)
    return found


def test_killed_after_each_step_of_the_switch_the_name_is_never_that_of_a_part(
    site: Site, provider: EmbeddingServer, tmp_path: Path
) -> None:
    site.settings |= {"INGESTOR_CHROMA__MODE": "http", "INGESTOR_CHROMA__HOST": "127.0.0.1"}
    server = ChromaServer(tmp_path / "elsewhere", site.port)
    server.start()
    try:
        fill(site, 6)
        site.sync()
        seen = []
        for _ in range(3):
            die_after(site, 1)
            seen.append(counts(site.port, ("documents", "documents-next")))
            if seen[-1][0] is None:
                # Between both renames a question is answered all the same, and nothing is made under the name.
                assert len(site.command("query", "text 3", "--json", **NEW).json()) == 5
                assert counts(site.port, ("documents",)) == [None]
        # The ledger is kept; the old one steps aside; the new one steps in. Whoever writes next does the rest.
        assert seen == [[6, 6], [None, 6], [6, None]]
        done_by_sync = site.command("sync", "--json", **NEW)
        assert done_by_sync.code == 0, done_by_sync.err
        assert done_by_sync.json()["documents"]["unchanged"] == 6
        with served(site.port) as rows:
            assert_equal(site.folder, rows(), dimensions=NEW_DIMENSIONS)
        assert provider.texts == 6 + 6 + 1  # the question, too
    finally:
        server.stop()


def test_killed_at_some_steps_a_rebuild_of_two_sources_leaves_no_ledger_of_theirs_behind(
    site: Site, provider: EmbeddingServer, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("notes", "papers")}
    for name, folder in folders.items():
        folder.mkdir()
        for number in range(12):
            (folder / f"text-{number}.txt").write_text(f"Number {number} of {name}.", encoding="utf-8")
    tables = "".join(f'[[sources]]\nfolder = "{name}"\n' for name in folders)
    (tmp_path / "ingestor.toml").write_text(tables, encoding="utf-8")
    site.sync()
    ids = document_ids_of(site)
    paid = provider.texts
    provider.latency_seconds = 0.1
    site.settings |= NEW
    kill_when(site.start("rebuild"), provider, paid + 8)
    provider.latency_seconds = 0.0
    (folders["papers"] / "text-0.txt").rename(folders["papers"] / "renamed.txt")
    # One ledger is kept; the other, too, and the old collection is aside; the new one is in, with one of its ledgers.
    for steps in (1, 2, 2):
        die_after(site, steps)
    report = site.sync()
    assert (report["documents"]["unchanged"], sum(report["chunks"].values())) == (24, 0)
    rows = site.at_rest()
    for name, folder in folders.items():
        assert_equal(folder, [row for row in rows if row.id.startswith(f"{name}-")], dimensions=NEW_DIMENSIONS)
    assert (len(rows), document_ids_of(site)) == (24, ids)
    assert provider.texts <= paid + 24 + IN_FLIGHT
    assert not list(site.data_dir.glob("*.switch.json"))
    assert len(list(site.data_dir.glob("ledger-*.before.sqlite3"))) == 2
    assert site.command("verify").code == 0


def document_ids_of(site: Site) -> set[str]:
    return {row.document_id for row in site.at_rest()}


def test_killed_at_any_moment_a_rebuild_goes_on_and_pays_for_nothing_twice(
    site: Site, provider: EmbeddingServer
) -> None:
    fill(site, 40)
    site.sync()
    ids = document_ids(site.at_rest())
    paid = provider.texts
    provider.latency_seconds = 0.1
    site.settings |= NEW
    kills = (0, 16)
    for texts in kills:
        daemon = site.start("rebuild")
        kill_when(daemon, provider, paid + texts)
        assert_served_whole(site)
        (site.folder / f"text-{texts}.txt").rename(site.folder / f"renamed-{texts}.txt")
        (site.folder / f"text-{texts + 2}.txt").unlink()
        (site.folder / f"new-{texts}.txt").write_text(f"A file that is new after {texts} texts.", encoding="utf-8")
    told = site.command("status", "--json").json()["rebuild"]
    assert 0 < told["unfinished"]["documents"] < 40
    assert told["unfinished"]["name"] == "documents-next"
    assert told["unfinished"]["model"] == f"openai/unheard-of-model@{NEW_DIMENSIONS}"

    last = site.start("rebuild")
    eventually(site.servers, last.log)
    for pid in site.servers():  # Chroma dies in the middle, too
        os.kill(pid, signal.SIGKILL)
    assert last.process.wait(60) == 0, last.log()

    rows = site.at_rest()
    assert_equal(site.folder, rows, dimensions=NEW_DIMENSIONS)
    now = document_ids(rows)
    assert {path: now[path] for path in ids.keys() & now.keys()} == {
        path: id_ for path, id_ in ids.items() if path in now
    }
    assert all(now[f"renamed-{texts}.txt"] == ids[f"text-{texts}.txt"] for texts in kills)
    # Of both recipes: what there is and was, once each, and what was on its way when the process died.
    assert provider.texts <= paid + 40 + 2 * len(kills) + len(kills) * IN_FLIGHT


def assert_served_whole(site: Site) -> None:
    """What is served is of the old recipe, none of it missing but what the last rebuild has seen go."""
    rows = site.at_rest()
    assert len(rows) >= 38
    assert {len(row.embedding) for row in rows} == {OLD_DIMENSIONS}


class Onlooker(threading.Thread):
    """Asks for the collection by its name without a pause, as a client with no idea of a rebuild does."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._is_over = threading.Event()
        self.longest_gap_seconds = 0.0
        self.fewest = sys.maxsize
        self.failures: list[str] = []

    def run(self) -> None:
        with client_of(self._port) as client:
            missed_seconds: float | None = None
            while not self._is_over.is_set():
                try:
                    held = client.get_collection("documents", embedding_function=None).count()
                except NotFoundError:
                    missed_seconds = missed_seconds or time.monotonic()
                    continue
                except ChromaError as error:
                    self.failures.append(repr(error))
                    continue
                if missed_seconds is not None:
                    self.longest_gap_seconds = max(self.longest_gap_seconds, time.monotonic() - missed_seconds)
                    missed_seconds = None
                self.fewest = min(self.fewest, held)

    def end(self) -> None:
        self._is_over.set()
        self.join()


def sources(site: Site) -> dict[str, int]:
    """Length of the vectors of every source that is served."""
    with served(site.port) as rows:
        return {row.source: len(row.embedding) for row in rows()}


def test_a_daemon_follows_the_folder_before_within_and_after_the_switch(
    site: Site, provider: EmbeddingServer, tell: Callable[[str], None]
) -> None:
    fill(site, 60)
    site.sync()
    site.settings |= NEW
    provider.latency_seconds = SLOW_SECONDS
    daemon = site.start("run", "--rebuild").wait_ready()
    onlooker = Onlooker(site.port)
    onlooker.start()
    try:
        (site.folder / "text-0.txt").unlink()
        (site.folder / "text-1.txt").rename(site.folder / "renamed.txt")
        (site.folder / "edited.txt").write_text("Written while the collection is rebuilt.", encoding="utf-8")
        wanted = {f"text-{number}.txt" for number in range(2, 60)} | {"renamed.txt", "edited.txt"}
        eventually(lambda: sources(site) == dict.fromkeys(wanted, OLD_DIMENSIONS), daemon.log)
        assert not daemon.events("collection.switched")
        found = site.command("query", "Written while the collection is rebuilt.", "-n", "1", "--json")
        assert found.json()[0]["source"] == "edited.txt"
        assert "documents-next" in site.command("status").out

        provider.latency_seconds = 0.0
        eventually(lambda: daemon.events("collection.switched"), daemon.log)
        (site.folder / "after.txt").write_text("Written after the switch.", encoding="utf-8")
        with site.reading() as reading:
            reading.dimensions = NEW_DIMENSIONS
            reading.wait_equal()
    finally:
        onlooker.end()
    assert onlooker.fewest >= 59
    assert not onlooker.failures
    tell(f"a client missed the name for at most {1_000 * onlooker.longest_gap_seconds:.0f} ms")
    pruned = site.command("rebuild", "--prune", "--json")
    assert pruned.json()["chunks"] == 60
    assert daemon.terminate() == 0
    # Each text once for each of both recipes, and the last one once; the one that was deleted perhaps not.
    assert 60 + 1 + 60 + 1 <= provider.texts <= 60 + 1 + 61 + 1


def test_a_model_that_cannot_be_had_any_more_stops_nobody(site: Site, provider: EmbeddingServer) -> None:
    fill(site, 30)
    site.sync()
    site.settings |= {
        "INGESTOR_EMBEDDING__PROVIDER": "dashscope",
        "INGESTOR_EMBEDDING__MODEL": "text-embedding-v4",
    }
    provider.latency_seconds = SLOW_SECONDS
    daemon = site.start("run", "--rebuild").wait_ready()
    (site.folder / "text-0.txt").unlink()
    (site.folder / "text-1.txt").rename(site.folder / "renamed.txt")
    (site.folder / "new.txt").write_text("Nobody can embed this for the old collection.", encoding="utf-8")
    wanted = {f"text-{number}.txt" for number in range(2, 30)} | {"renamed.txt"}
    eventually(lambda: set(sources(site)) == wanted and daemon.events("rebuild.model_absent"), daemon.log)
    (absent,) = daemon.events("rebuild.model_absent")
    assert "openai/unheard-of-model" in absent["reason"]
    done = site.command("query", "anything")
    assert done.code == 2
    assert "needs a key" in done.err

    provider.latency_seconds = 0.0
    eventually(lambda: daemon.events("collection.switched"), daemon.log)
    with site.reading() as reading:
        reading.dimensions = OLD_DIMENSIONS
        assert "new.txt" in document_ids(reading.wait_equal())
    assert len(daemon.events("rebuild.model_absent")) == 1
    assert daemon.terminate() == 0
