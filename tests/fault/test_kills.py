"""Daemon and Chroma server killed again and again while files come, change, move and go.

`pytest tests/fault --kills 300 --seed 7` makes a long run of it.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.core.chunking import Cutter
from tests.daemon import Daemon, Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

CONCURRENCY = 4
BATCH_INPUTS = 8
DIMENSIONS = 64
IN_FLIGHT = CONCURRENCY * BATCH_INPUTS
CUTTER = Cutter(64, 0)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, latency_seconds=0.05) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    settings = provider_settings(
        server, EMBEDDING__MAX_CONCURRENCY=CONCURRENCY, EMBEDDING__MAX_BATCH_INPUTS=BATCH_INPUTS, CHUNK__MAX_TOKENS=64
    )
    with Site(tmp_path, settings) as made:
        yield made


class Restless:
    """Somebody who cannot leave a folder alone."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance
        self._made = 0

    def act(self) -> None:
        """One random operation."""
        files = sorted(file for file in self._folder.rglob("*.md") if file.is_file())
        chance = self._chance
        acts = [self._create, self._create, self._edit, self._rename, self._delete, self._move_folder, self._copy]
        act = chance.choice(acts) if len(files) > 20 else self._create
        act(files)

    def _text(self) -> str:
        self._made += 1
        sentences = [f"Text {self._made} says in sentence {number} what it has to say." for number in range(12)]
        return f"# Text {self._made}\n\n" + "\n\n".join(sentences) + "\n"

    def _create(self, _: list[Path]) -> None:
        folder = self._folder / f"shelf-{self._chance.randrange(6)}"
        folder.mkdir(exist_ok=True)
        (folder / f"text-{self._made}.md").write_text(self._text(), encoding="utf-8")

    def _edit(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        self._made += 1
        lines.insert(self._chance.randrange(len(lines) + 1), f"\nAn afterthought, the {self._made}th.\n\n")
        file.write_text("".join(lines), encoding="utf-8")

    def _rename(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        self._made += 1
        file.rename(file.with_name(f"renamed-{self._made}.md"))

    def _delete(self, files: list[Path]) -> None:
        self._chance.choice(files).unlink()

    def _copy(self, files: list[Path]) -> None:
        self._made += 1
        shutil.copy(self._chance.choice(files), self._folder / f"copy-{self._made}.md")

    def _move_folder(self, _: list[Path]) -> None:
        folders = sorted(folder for folder in self._folder.iterdir() if folder.is_dir())
        if folders:
            self._made += 1
            self._chance.choice(folders).rename(self._folder / f"moved-{self._made}")


def kill_server(site: Site) -> None:
    for pid in site.servers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until_it_works(daemon: Daemon) -> None:
    eventually(lambda: daemon.events("daemon.ready") or daemon.process.poll() is not None, daemon.log)


@pytest.mark.timeout(3_600)
def test_kills_at_random_moments(
    site: Site, server: EmbeddingServer, pytestconfig: pytest.Config, tell: Callable[[str], None]
) -> None:
    kills, seed = int(pytestconfig.getoption("--kills")), int(pytestconfig.getoption("--seed"))
    chance = random.Random(seed)
    somebody = Restless(site.folder, chance)
    for _ in range(40):
        somebody.act()
    daemon_kills = server_kills = 0
    daemon = site.start("run")
    while daemon_kills + server_kills < kills:
        if chance.random() < 0.8:
            wait_until_it_works(daemon)
        until_seconds = time.monotonic() + chance.uniform(0.0, 1.5)
        while time.monotonic() < until_seconds:
            somebody.act()
            time.sleep(chance.uniform(0.0, 0.05))
        victim = chance.choice(("daemon", "daemon", "server", "both"))
        if victim in {"server", "both"}:
            kill_server(site)
            server_kills += 1
        if victim in {"daemon", "both"}:
            assert daemon.process.poll() is None, daemon.log()
            daemon.kill()
            daemon_kills += 1
            somebody.act()
            daemon = site.start("run")
    daemon.wait_ready()
    with site.reading() as collection:
        collection.dimensions = DIMENSIONS
        rows = collection.wait_equal(cutter=CUTTER, seconds=120.0)
    wasted = server.counters.repeated_texts
    told = f"{daemon_kills} daemons and {server_kills} servers killed (seed {seed}): {len(rows)} records"
    tell(f"{told}, {server.texts} texts paid for, {wasted} of them again")
    assert wasted <= daemon_kills * IN_FLIGHT
    assert daemon.terminate() == 0
    assert_equal(site.folder, site.at_rest(), cutter=CUTTER, dimensions=DIMENSIONS)
