"""Disks that are full or fail: the ledger's, the vector store's, Chroma's. With room again the same process heals all.

A small file system of its own is filled where the tests may mount one (as root); elsewhere, and as well, the kernel
lets no file of the processes grow any more (RLIMIT_FSIZE), which SQLite takes for the same. The n-th write of each file
fails in `test_failing_writes.py`.
"""

import contextlib
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

from ingestor.adapters import disk_room
from ingestor.adapters.vectors import SqliteVectors
from ingestor.core.errors import ServiceUnavailable
from tests.daemon import Daemon, Site, converged, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 64
MIB = 1024 * 1024
DISK_BYTES = 24 * MIB
BEFORE = 20
NEW = 60
BATCH_INPUTS = 16
VECTOR = np.full(DIMENSIONS, 0.5, dtype=np.float32)
OUTAGE_SECONDS = 5.0
"""Long enough for several attempts of whatever is tried again."""


class Disk:
    """A small file system."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._filler = place / "filler"

    def fill(self) -> None:
        """Leave no room at all."""
        with self._filler.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4_096))

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink()

    def resize(self, size_bytes: int) -> None:
        """Make the whole larger or smaller."""
        subprocess.run(["mount", "-o", f"remount,size={size_bytes}", self.place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


class SpreadSite(Site):
    """A site whose Chroma folder may lie elsewhere."""

    @property
    def chroma_path(self) -> Path:
        return Path(self.settings.get("INGESTOR_CHROMA__PATH", super().chroma_path))


def site_on(root: Path, server: EmbeddingServer, **settings: object) -> Site:
    given = {"EMBEDDING__MAX_BATCH_INPUTS": BATCH_INPUTS, "CHROMA__TIMEOUT_SECONDS": 5, **settings}
    site = SpreadSite(root, provider_settings(server, **given))
    site.folder.mkdir()
    write_many(site, "old", BEFORE)
    return site


def write_many(site: Site, name: str, count: int) -> None:
    for number in range(count):
        text = f"{name} number {number} tells at length of {number}. " * 20
        (site.folder / f"{name}_{number}.txt").write_text(text, encoding="utf-8")


def running(site: Site) -> Daemon:
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.wait_equal()
    return daemon


def assert_heals(site: Site, server: EmbeddingServer, daemon: Daemon, texts: int) -> None:
    """The same process makes all equal, and nothing was paid for twice."""
    converged(site, daemon, DIMENSIONS, seconds=120.0)
    assert server.texts == texts
    assert server.counters.repeated_texts == 0
    assert "Traceback" not in daemon.log()
    assert daemon.terminate() == 0


def outage(site: Site) -> str:
    told = site.command("status", "--json")
    assert told.code == 0, told.err
    return str(told.json()["outage"])


def assert_waits(daemon: Daemon, server: EmbeddingServer, event: str) -> int:
    """It waits, has said so once for each thing that is away, and pays for nothing; returns the texts paid for."""
    eventually(lambda: daemon.process.poll() is not None or daemon.events(event), daemon.log)
    paid = server.texts
    time.sleep(OUTAGE_SECONDS)
    assert daemon.process.poll() is None, daemon.log()[-2_000:]
    assert server.texts <= paid + BATCH_INPUTS * 8, "what was on its way may come in, and no more"
    assert len(daemon.events(event)) <= 3, "an outage is told once, not at each attempt"
    return server.texts


def test_a_full_disk_under_ledger_and_vector_store(tmp_path: Path, disk: Disk, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server, DATA_DIR=disk.place / "data", CHROMA__PATH=tmp_path / "chroma") as site:
        daemon = running(site)
        disk.fill()
        write_many(site, "new", NEW)
        assert assert_waits(daemon, server, "storage.down") == BEFORE, "what could not be kept is not paid for"
        assert "is full" in outage(site)
        assert site.command("wait", "watched_dir", "--timeout-seconds", "1").code != 0
        disk.free()
        assert_heals(site, server, daemon, BEFORE + NEW)
        assert daemon.events("storage.back")

        disk.fill()
        write_many(site, "late", 1)
        refused = site.command("sync")
        assert refused.code == 4, refused.err
        assert refused.err.splitlines()[-1].startswith("error: ")
        assert "free disk space" in refused.err
        disk.free()
        texts = server.texts
        site.sync()
        assert server.texts == texts + 1


def test_a_full_disk_under_the_vector_store_alone(tmp_path: Path, disk: Disk, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server) as site:
        site.data_dir.mkdir()
        (site.data_dir / "vectors.sqlite3").symlink_to(disk.place / "vectors.sqlite3")
        daemon = running(site)
        disk.fill()
        write_many(site, "new", NEW)
        assert assert_waits(daemon, server, "storage.down") == BEFORE, "what could not be kept is not paid for"
        assert site.command("query", "anything").code == 0, "who only asks needs no room"
        eventually(lambda: "vectors.sqlite3 is full" in outage(site), daemon.log)
        assert "free disk space" in outage(site)
        (site.folder / "old_0.txt").unlink()
        eventually(
            lambda: [each for each in daemon.events("document.synced") if each["outcome"] == "deleted"], daemon.log
        )
        disk.free()
        assert_heals(site, server, daemon, BEFORE + NEW + 1)


def test_a_full_disk_under_chroma(tmp_path: Path, disk: Disk, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server, CHROMA__PATH=disk.place / "chroma") as site:
        daemon = running(site)
        disk.fill()
        write_many(site, "new", NEW)
        eventually(lambda: daemon.events("service.away"), daemon.log)
        eventually(lambda: "disk is full" in outage(site), daemon.log)
        disk.free()
        assert_heals(site, server, daemon, BEFORE + NEW)


@pytest.mark.parametrize("size_bytes", [6 * MIB, 12 * MIB, 20 * MIB])
def test_a_disk_that_fills_up_in_the_first_ingest_costs_no_text_twice(
    tmp_path: Path, disk: Disk, server: EmbeddingServer, size_bytes: int
) -> None:
    disk.resize(size_bytes)
    with site_on(tmp_path, server, DATA_DIR=disk.place / "data") as site:
        for number in range(1_000):
            text = f"Entry {number} of the long list is about {number}. " * 4
            (site.folder / f"entry_{number}.txt").write_text(text, encoding="utf-8")
        daemon = site.start("run")
        eventually(
            lambda: any(daemon.events(name) for name in ("storage.down", "start.waiting", "document.postponed")),
            daemon.log,
        )
        time.sleep(OUTAGE_SECONDS)
        disk.resize(200 * MIB)
        assert_heals(site, server, daemon.wait_ready(), BEFORE + 1_000)


@pytest.mark.parametrize("is_known", [False, True], ids=["for the first time", "again"])
@pytest.mark.parametrize("place", ["all", "data", "chroma"])
def test_a_daemon_that_starts_on_a_full_disk_waits(
    tmp_path: Path, disk: Disk, server: EmbeddingServer, place: str, *, is_known: bool
) -> None:
    data = disk.place / "data" if place != "chroma" else tmp_path / "data"
    chroma = disk.place / "chroma" if place != "data" else tmp_path / "chroma"
    with site_on(tmp_path, server, DATA_DIR=data, CHROMA__PATH=chroma) as site:
        if is_known:
            site.sync()
            write_many(site, "new", NEW)
        disk.fill()
        daemon = site.start("run")
        assert_waits(daemon, server, "start.waiting")
        disk.free()
        assert_heals(site, server, daemon.wait_ready(), BEFORE + NEW * is_known)


def test_a_daemon_that_waits_for_its_disk_at_the_start_ends_when_it_is_told_to(
    tmp_path: Path, disk: Disk, server: EmbeddingServer
) -> None:
    with site_on(tmp_path, server, DATA_DIR=disk.place / "data") as site:
        disk.fill()
        daemon = site.start("run")
        eventually(lambda: daemon.events("start.waiting"), daemon.log)
        assert daemon.terminate() == 0
        assert not site.servers()


def test_files_that_may_not_grow(tmp_path: Path, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server) as site:
        daemon = running(site)
        processes = (daemon.pid, *site.servers())
        limits = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in processes]
        for pid, (_, hard) in zip(processes, limits, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (32 * 1024, hard))
        write_many(site, "new", NEW)
        assert_waits(daemon, server, "storage.down")
        for pid, limit in zip(processes, limits, strict=True):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
        assert_heals(site, server, daemon, BEFORE + NEW)


def test_vectors_that_cannot_be_written_are_kept_in_memory_and_no_more_are_paid_for(tmp_path: Path) -> None:
    store = SqliteVectors(tmp_path / "vectors.sqlite3")
    store.put({b"before": VECTOR})
    with contextlib.closing(SqliteVectors(tmp_path / "vectors.sqlite3")) as other:
        # SQLite's own limit of the file's size: what it says then is what it says when the disk is full.
        (pages,) = store._connected().execute("PRAGMA page_count").fetchone()
        store._connected().execute(f"PRAGMA max_page_count = {pages}")
        many = {f"new{number}".encode(): VECTOR + number for number in range(200)}
        with structlog.testing.capture_logs() as logged:
            store.put(many)
        assert [(entry["event"], entry["waiting"]) for entry in logged] == [("vectors.not_kept", 200)]
        assert store.get([b"before", b"missing", *many]).keys() == {b"before", *many}
        with pytest.raises(ServiceUnavailable, match="full") as refused:
            store.see_room(1, DIMENSIONS)
        assert "free disk space" in refused.value.remedy
        assert other.get(many) == {}

        store._connected().execute("PRAGMA max_page_count = 1000000")
        store.see_room(1, DIMENSIONS)
        assert other.get(many).keys() == many.keys()
    store.close()


def test_what_is_not_kept_is_tried_once_more_when_the_store_is_closed(tmp_path: Path) -> None:
    store = SqliteVectors(tmp_path / "vectors.sqlite3")
    store._connected().execute("PRAGMA max_page_count = 1")
    store.put({b"late": VECTOR})
    store._connected().execute("PRAGMA max_page_count = 1000000")
    store.close()
    with contextlib.closing(SqliteVectors(tmp_path / "vectors.sqlite3")) as other:
        assert other.get([b"late"]).keys() == {b"late"}


def test_room_is_what_the_vectors_on_their_way_the_ledger_and_the_logs_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(SqliteVectors(tmp_path / "vectors.sqlite3")) as store:
        store.see_room(100, 1_024)
        monkeypatch.setattr(disk_room, "RESERVED_BYTES", 1 << 60)
        with pytest.raises(ServiceUnavailable, match="is full"):
            store.see_room(1, 1)
        monkeypatch.setattr(disk_room, "RESERVED_BYTES", 0)
        store.see_room(1, 1)
        with pytest.raises(ServiceUnavailable, match="is full"):
            store.see_room(1 << 40, 1_024)
