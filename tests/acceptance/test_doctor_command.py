"""`ingestor doctor` as users meet it: before anything, beside a daemon, after a crash; it changes nothing."""

import os
import pty
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import COMMAND, HTTP, KEY, Daemon, Finished, Site, eventually, lives, provider_settings
from tests.embedding_server import EmbeddingServer

LEVELS = {"ok", "hint", "warning", "error"}
CANARY = ".ingestor-canary.tmp"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("doctor"), provider_settings(server) | HTTP) as site:
        (site.folder / "a.txt").write_text("A file.", encoding="utf-8")
        yield site


def doctor(site: Site, *arguments: str, code: int = 0, **settings: str) -> list[dict[str, Any]]:
    done = site.command("doctor", "--json", *arguments, **settings)
    assert done.code == code, (done.out, done.err)
    found: list[dict[str, Any]] = done.json()
    for each in found:
        assert each.keys() == {"name", "level", "sentence", "remedy", "facts"}
        assert each["level"] in LEVELS
        assert KEY not in str(each)
        if each["level"] in {"warning", "error"}:
            assert each["remedy"], each
    return found


def about(found: list[dict[str, Any]], name: str) -> str:
    return "\n".join(each["sentence"] for each in found if each["name"] == name)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, but for SQLite's own notes on who reads."""
    return {
        str(path): (path.stat().st_ino, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


# The tests follow each other: nothing yet, a sync, a daemon, a crash.


def test_before_anything_it_makes_nothing(site: Site) -> None:
    found = doctor(site)
    assert not site.data_dir.exists()
    assert "will be made" in about(found, "chroma")
    assert "nothing has been indexed yet" in about(found, "ledger")
    assert "for " in about(found, "embedding")


def test_after_a_sync_it_reads_the_database_and_changes_no_byte(site: Site, server: EmbeddingServer) -> None:
    site.sync()
    before, calls = tree(site.data_dir), server.counters.requests
    found = doctor(site, "--no-call")
    assert "(records: 1) is of unheard-of-model" in about(found, "chroma")
    assert tree(site.data_dir) == before
    assert server.counters.requests == calls


def test_a_collection_of_another_model_is_an_error_with_its_remedy(site: Site) -> None:
    found = doctor(site, "--no-call", code=2, INGESTOR_EMBEDDING__MODEL="another-model")
    (error,) = (each for each in found if each["level"] == "error")
    assert "another-model" in error["sentence"]
    assert "ingestor rebuild" in error["remedy"]
    found = doctor(site, "--no-call", code=2, INGESTOR_CHROMA__HNSW__SPACE="l2")
    assert "with the distance cosine" in about(found, "chroma")


def test_a_model_whose_vectors_have_another_length_than_those_of_the_collection_is_an_error(
    tmp_path: Path, server: EmbeddingServer
) -> None:
    settings = provider_settings(server) | HTTP
    del settings["INGESTOR_EMBEDDING__DIMENSIONS"]
    with EmbeddingServer(api_key=KEY, dimensions=32) as replaced, Site(tmp_path, settings) as site:
        (site.folder / "a.txt").write_text("A file.", encoding="utf-8")
        site.sync()
        found = doctor(site, code=2, INGESTOR_EMBEDDING__BASE_URL=replaced.base_url)
    (error,) = (each for each in found if each["level"] == "error")
    assert (error["name"], error["facts"]["dimensions"]) == ("embedding", 64)
    assert "holds vectors of 64 dimensions, and the model gives 32" in error["sentence"]


@pytest.fixture(scope="module")
def daemon(site: Site) -> Daemon:
    return site.start("run").wait_ready()


def test_beside_a_daemon_it_asks_its_server_and_disturbs_nobody(
    site: Site, daemon: Daemon, server: EmbeddingServer
) -> None:
    assert site.command("wait", "watched_dir").code == 0
    texts = server.counters.texts
    found = doctor(site, "--in-folder")
    assert f"process id {daemon.pid} works on" in about(found, "instances")
    assert f"answers at http://127.0.0.1:{site.port}" in about(found, "chroma")
    assert f"answers at {daemon.http_url()}" in about(found, "http")
    assert "watched_dir" in about(found, "events")
    assert not list(site.root.rglob(CANARY))
    assert server.counters.texts == texts + 1
    (site.folder / "b.txt").write_text("Another file, so that what came before was seen.", encoding="utf-8")
    assert site.command("wait", "watched_dir").code == 0
    assert not [event for event in daemon.events("document.synced") if "canary" in event["path"]]


UNTIED_OWNER = """
import subprocess, sys
from pathlib import Path
from ingestor.adapters.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
command = "import sys; from chromadb_rust_bindings import cli; cli(sys.argv)"
arguments = ["run", "--path", str(lock.folder), "--host", "127.0.0.1", "--port", sys.argv[2]]
silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
child = subprocess.Popen([sys.executable, "-c", command, *arguments], **silent, pass_fds=(lock.descriptor,))
print(child.pid)
"""


def orphaned_server(site: Site) -> int:
    """A server that nothing ties to its owner, as a version before this one has left it behind."""
    done = subprocess.run(
        [sys.executable, "-c", UNTIED_OWNER, site.chroma_path, str(site.port)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    orphan = int(done.stdout)

    def listens() -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", site.port)) == 0

    eventually(listens, lambda: "the orphan does not listen")
    return orphan


def test_after_a_crash_it_tells_what_was_left_and_ends_nothing(site: Site, daemon: Daemon) -> None:
    daemon.kill()
    eventually(lambda: not site.servers(), lambda: "the server has outlived its daemon")
    orphan = orphaned_server(site)
    found = doctor(site, "--no-call")
    assert "ended without a word" in about(found, "instances")
    assert f"process id {orphan} has outlived its daemon" in about(found, "instances")
    assert lives(orphan)
    assert f"port {site.port} is free for the Chroma server once the next start has ended process {orphan}" in about(
        found, "chroma"
    )
    site.start("run").wait_ready()
    eventually(lambda: not lives(orphan), lambda: "the orphan lives")


def test_a_wrong_setting_is_a_finding(site: Site) -> None:
    (finding,) = doctor(site, code=2, INGESTOR_WATCH__QIET_SECONDS="1")
    assert finding["name"] == "settings"
    assert "INGESTOR_WATCH__QIET_SECONDS" in finding["sentence"]


def test_what_may_not_be_read_is_counted_and_named(site: Site) -> None:
    words: list[str | Path] = [COMMAND, "doctor", "--no-call"]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("as root, who may read everything, this needs setpriv (Debian package util-linux)")
        words = [setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *words]
    hidden, folder = site.folder / "hidden.txt", site.folder / "closed"
    hidden.write_text("x", encoding="utf-8")
    folder.mkdir()
    hidden.chmod(0o000)
    folder.chmod(0o000)
    try:
        done = subprocess.run(
            words, cwd=site.root, env=site.environment(), capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        folder.chmod(0o700)
        hidden.chmod(0o600)
    told = Finished(done.returncode, done.stdout, done.stderr)
    assert told.code == 3, (told.out, told.err)
    assert "files that may not be read: 1 (hidden.txt)" in told.out
    assert "folders that cannot be looked into: 1 (closed)" in told.out
    assert told.out.startswith(("ok ", "hint "))


def test_on_a_terminal_it_is_a_table(site: Site) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [COMMAND, "doctor", "--no-call"], cwd=site.root, env=site.environment(TERM="xterm"), stdout=theirs,
        stderr=subprocess.PIPE, check=False, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 65_536):
            told += part
    except OSError:  # the end of a terminal that nobody writes to any more
        pass
    os.close(ours)
    assert done.returncode in {0, 3}, done.stderr
    assert b"\x1b[" in told
    assert b"settings" in told
