"""Disks that are full: the ledger's, the vector store's, Chroma's. With room again all heals and was paid for once.

A small file system of its own is filled where the tests may mount one (as root); elsewhere, and as well, the kernel
lets no file of the processes grow any more (RLIMIT_FSIZE), which SQLite takes for the same.
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

from ingestor.adapters import vectors as vectors_module
from ingestor.adapters.vectors import SqliteVectors
from ingestor.core.errors import ServiceUnavailable
from tests.daemon import Daemon, Site, converged, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 64
DISK_BYTES = 24 * 1024 * 1024
BEFORE = 20
NEW = 60
BATCH_INPUTS = 16
VECTOR = np.full(DIMENSIONS, 0.5, dtype=np.float32)


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
    """The service manager starts a daemon again that has ended; then nothing is missing, and was paid for once."""
    if daemon.process.poll() is not None:
        assert daemon.process.returncode == 4, daemon.log()[-2_000:]
        daemon = site.start("run").wait_ready()
    converged(site, daemon, DIMENSIONS, seconds=120.0)
    assert server.texts == texts
    assert server.counters.repeated_texts == 0
    assert daemon.terminate() == 0


def test_a_full_disk_under_ledger_and_vector_store(tmp_path: Path, disk: Disk, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server, DATA_DIR=disk.place / "data", CHROMA__PATH=tmp_path / "chroma") as site:
        daemon = running(site)
        disk.fill()
        write_many(site, "new", NEW)
        eventually(lambda: "database or disk is full" in daemon.log(), daemon.log)
        assert "Traceback" not in daemon.log()
        disk.free()
        assert_heals(site, server, daemon, BEFORE + NEW)

        disk.fill()
        write_many(site, "late", 1)
        refused = site.command("sync")
        assert refused.code == 4, refused.err
        assert refused.err.splitlines()[-1].startswith("error: ")
        assert "free disk space" in refused.err
        disk.free()
        assert site.sync()["embedding"]["texts"] == 1


def test_a_full_disk_under_the_vector_store_alone(tmp_path: Path, disk: Disk, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server) as site:
        site.data_dir.mkdir()
        (site.data_dir / "vectors.sqlite3").symlink_to(disk.place / "vectors.sqlite3")
        daemon = running(site)
        disk.fill()
        write_many(site, "new", NEW)
        eventually(lambda: daemon.events("service.away"), daemon.log)
        assert server.texts == BEFORE, "what could not be kept is not paid for"
        assert site.command("query", "anything").code == 0, "who only asks needs no room"
        told = site.command("status", "--json").json()
        assert "vector store" in told["outage"]
        assert "free disk space" in told["outage"]
        disk.free()
        assert_heals(site, server, daemon, BEFORE + NEW + 1)


def test_a_full_disk_under_chroma(tmp_path: Path, disk: Disk, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server, CHROMA__PATH=disk.place / "chroma") as site:
        daemon = running(site)
        disk.fill()
        write_many(site, "new", NEW)
        eventually(lambda: daemon.events("service.away"), daemon.log)
        eventually(lambda: "disk is full" in site.command("status", "--json").json()["outage"], daemon.log)
        disk.free()
        assert_heals(site, server, daemon, BEFORE + NEW)


def test_files_that_may_not_grow(tmp_path: Path, server: EmbeddingServer) -> None:
    with site_on(tmp_path, server) as site:
        daemon = running(site)
        processes = (daemon.pid, *site.servers())
        limits = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in processes]
        for pid, (_, hard) in zip(processes, limits, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (32 * 1024, hard))
        write_many(site, "new", NEW)
        eventually(lambda: daemon.process.poll() is not None or "cannot be used" in daemon.log(), daemon.log)
        time.sleep(2.0)  # long enough for a second attempt
        for pid, limit in zip(processes, limits, strict=True):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
        assert_heals(site, server, daemon, BEFORE + NEW)


def test_vectors_that_cannot_be_written_are_kept_in_memory_and_no_more_are_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        assert store.get([b"before", *many]).keys() == {b"before", *many}
        with pytest.raises(ServiceUnavailable, match="full") as refused:
            store.get([b"before", b"missing"])
        assert "free disk space" in refused.value.remedy
        monkeypatch.setattr(vectors_module, "MAX_UNKEPT_BYTES", 300 * VECTOR.nbytes)
        with pytest.raises(ServiceUnavailable):
            store.put({f"more{number}".encode(): VECTOR for number in range(200)})
        assert other.get(many) == {}

        store._connected().execute("PRAGMA max_page_count = 1000000")
        assert store.get([b"missing"]) == {}
        assert len(other.get([*many, *(f"more{number}".encode() for number in range(200))])) == 400
    store.close()
