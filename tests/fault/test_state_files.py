"""Our own files lost, damaged or locked, clocks that jump, descriptors that run out: all heals, nothing costs twice."""

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ingestor.embedding_function  # noqa: F401 - Chroma's client warns of a function that it does not know
from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.ledger import SqliteLedger, note_in
from ingestor.adapters.ledger_schema import SCHEMA_VERSION
from ingestor.adapters.vectors import SqliteVectors
from ingestor.core.model import Change, Priority
from tests import daemon as daemon_module
from tests.checker import COLLECTION, Row, document_ids
from tests.daemon import Daemon, Finished, Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

FILES = 30
DIMENSIONS = 64
FOREIGN = "somebody-elses-record"
PAGE_BYTES = 4_096
DAY_SECONDS = 86_400
VARIANT = """\
#!{python}
import sys, time
from pathlib import Path
from ingestor.adapters import ledger
from ingestor.adapters.runtime import SystemRuntime
from ingestor.cli import main
{change}
sys.exit(main())
"""


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder and its collection, as a sync has left them."""
    root = tmp_path_factory.mktemp("synced")
    with EmbeddingServer(dimensions=DIMENSIONS) as server, Site(root, provider_settings(server)) as site:
        for number in range(FILES):
            write(site, f"file_{number}.md", f"File {number} tells of the number {number}.")
        site.sync()
    return root


@pytest.fixture
def site(tmp_path: Path, synced: Path, server: EmbeddingServer) -> Iterator[Site]:
    """A copy of it: every text was paid for, and `server` has not seen one."""
    shutil.copytree(synced, tmp_path, dirs_exist_ok=True)
    with Site(tmp_path, provider_settings(server)) as site:
        yield site


def write(site: Site, name: str, text: str) -> Path:
    file = site.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# {name}\n\n{text}\n", encoding="utf-8")
    return file


def forget(*files: Path) -> None:
    """Delete SQLite files with what belongs to them."""
    for file in files:
        for ending in ("", "-wal", "-shm"):
            file.with_name(file.name + ending).unlink(missing_ok=True)


def ledger_of(site: Site) -> Path:
    return site.data_dir / "ledger.sqlite3"


def vectors_of(site: Site) -> Path:
    return site.data_dir / "vectors.sqlite3"


def assert_healed(site: Site, server: EmbeddingServer, *, texts: int) -> list[Row]:
    """The collection equals the folder, and so many texts were embedded until now."""
    rows = site.at_rest()
    assert_equal(site.folder, rows, dimensions=DIMENSIONS)
    assert server.texts == texts
    return rows


def assert_told(done: Finished, code: int, *words: str) -> None:
    assert done.code == code, done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert "Traceback" not in done.err


def ended(daemon: Daemon) -> Finished:
    """How a daemon ended by itself."""
    eventually(lambda: daemon.process.poll() is not None, lambda: f"it has not ended:\n{daemon.log()[-2_000:]}")
    return Finished(daemon.process.returncode, "", daemon.log())


def as_left_by_the_version_before(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("DROP TABLE held")
        connection.execute("UPDATE notes SET value = '1' WHERE name = 'schema_version'")


def schema_of(ledger: Path) -> str | None:
    return note_in(ledger, "schema_version")


def test_a_ledger_that_the_version_before_has_left_is_upgraded_by_whoever_comes_first(
    site: Site, server: EmbeddingServer
) -> None:
    as_left_by_the_version_before(ledger_of(site))
    examined = {each["sentence"]: each for each in site.command("doctor", "--json").json()}
    (told,) = (sentence for sentence in examined if "left by an older version" in sentence)
    assert examined[told]["level"] == "hint"
    assert schema_of(ledger_of(site)) == "1", "the doctor changes nothing"
    daemon = site.start("run")
    looks = [site.command("status", "--json") for _ in range(3)]
    daemon.wait_ready()
    assert [look.json()["documents"] for look in looks] == [FILES] * 3
    assert schema_of(ledger_of(site)) == str(SCHEMA_VERSION)
    (copy,) = site.data_dir.glob("ledger.sqlite3.schema-*")
    assert schema_of(copy) == "1"
    assert daemon.terminate() == 0
    assert_healed(site, server, texts=1)  # that of the doctor


@pytest.mark.parametrize("command", ["run", "sync", "status", "problems"])
def test_a_ledger_of_a_newer_version_is_refused_with_both_numbers(site: Site, command: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger_of(site))) as connection, connection:
        connection.execute("UPDATE notes SET value = '99' WHERE name = 'schema_version'")
    assert_told(site.command(command), 2, "schema version 99", f"knows {SCHEMA_VERSION}", "run the version of ingestor")
    assert schema_of(ledger_of(site)) == "99"


def test_a_deleted_ledger_is_rebuilt_and_only_what_changed_meanwhile_is_embedded(
    site: Site, server: EmbeddingServer
) -> None:
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        before = document_ids(collection.wait_equal())
    client = connect("http", port=site.port)
    theirs = client.get_collection(COLLECTION, embedding_function=None)
    theirs.add(
        ids=[FOREIGN],
        embeddings=np.full((1, DIMENSIONS), 0.5, dtype=np.float32),
        documents=["not ours"],
        metadatas=[{"source": "elsewhere"}],
    )
    disconnect(client)
    daemon.kill()
    forget(ledger_of(site))
    write(site, "file_0.md", "An edited text.")
    write(site, "new.md", "A new text.")
    (site.folder / "file_1.md").rename(site.folder / "renamed.md")
    (site.folder / "file_2.md").unlink()

    second = site.start("run").wait_ready()
    with site.reading() as collection:
        read = collection.rows
        collection.rows = lambda: [row for row in read() if row.id != FOREIGN]
        collection.dimensions = DIMENSIONS
        after = document_ids(collection.wait_equal())
        assert [row.text for row in read() if row.id == FOREIGN] == ["not ours"]
    assert second.terminate() == 0

    assert server.texts == 2
    kept = {f"file_{number}.md": f"file_{number}.md" for number in range(3, FILES)}
    kept |= {"file_0.md": "file_0.md", "file_1.md": "renamed.md"}
    assert {old: after[new] for old, new in kept.items()} == {old: before[old] for old in kept}


def test_whichever_file_is_lost_while_nothing_runs_nothing_is_embedded_again(
    site: Site, server: EmbeddingServer
) -> None:
    shutil.rmtree(site.chroma_path)
    assert site.sync()["chunks"]["reused"] == FILES

    shutil.rmtree(site.chroma_path)
    forget(ledger_of(site))
    assert site.sync()["chunks"]["reused"] == FILES

    forget(vectors_of(site))
    write(site, "new.md", "A new text.")
    site.sync()
    assert_healed(site, server, texts=1)


def test_a_vector_store_deleted_under_a_running_daemon_is_begun_anew(site: Site, server: EmbeddingServer) -> None:
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.dimensions = DIMENSIONS
        collection.wait_equal()
        vectors_of(site).unlink()  # its write-ahead log and index stay, and belong to nobody now
        assert site.command("query", "anything").code == 0
        assert server.texts == 1, "the question's"
        write(site, "first.md", "Written after the file was deleted.")
        collection.wait_equal()
        forget(vectors_of(site))
        write(site, "second.md", "Written after all of it was deleted.")
        write(site, "file_0.md", "Edited after all of it was deleted.")
        collection.wait_equal()
    assert server.texts == 1 + 3
    assert daemon.terminate() == 0
    with contextlib.closing(sqlite3.connect(vectors_of(site))) as store:
        assert store.execute("SELECT count(*) FROM vectors").fetchone() == (2,), "what was paid for last is kept"
    shutil.rmtree(site.chroma_path)
    site.sync()
    assert server.texts == 1 + 3 + FILES, "what only the deleted files held"


def test_a_ledger_deleted_under_a_running_daemon_ends_it_and_the_next_start_heals(
    site: Site, server: EmbeddingServer
) -> None:
    daemon = site.start("run").wait_ready()
    for file in site.data_dir.glob("ledger*"):
        file.unlink()
    assert daemon.process.wait(60) == 4, daemon.log()
    assert "was deleted or replaced while it was in use" in daemon.log().splitlines()[-1]
    (site.folder / "file_0.md").unlink()
    assert site.sync()["documents"]["unchanged"] == FILES - 1
    assert_healed(site, server, texts=0)


def test_a_damaged_vector_store_is_put_aside_and_stops_nobody(site: Site, server: EmbeddingServer) -> None:
    sound = vectors_of(site).read_bytes()
    page = PAGE_BYTES * 3
    noise = random.Random(1).randbytes(len(sound) - page)
    vectors_of(site).write_bytes(sound[:page] + noise)
    write(site, "new.md", "A new text.")

    done = site.command("sync", "--json")

    assert done.code == 0, done.err
    assert "vectors.damaged" in done.err
    assert vectors_of(site).with_name("vectors.sqlite3.damaged").read_bytes()[page:] == noise
    assert_healed(site, server, texts=1)


def test_a_vector_that_is_not_what_was_put_is_not_there(tmp_path: Path) -> None:
    vectors = {bytes([number]): np.full(1_536, number + 0.5, dtype=np.float32) for number in range(3)}
    with contextlib.closing(SqliteVectors(tmp_path / "vectors.sqlite3")) as store:
        store.put(vectors)
    with contextlib.closing(sqlite3.connect(tmp_path / "vectors.sqlite3")) as other, other:
        # What SQLite does not notice: a vector of a large model fills pages that hold nothing else.
        other.execute("UPDATE vectors SET vector = substr(vector, 1, 6000) || zeroblob(144) WHERE key = x'01'")
    with contextlib.closing(SqliteVectors(tmp_path / "vectors.sqlite3")) as store:
        assert store.get(vectors).keys() == {b"\0", b"\2"}
        store.put({b"\1": vectors[b"\1"]})
        assert store.get(vectors).keys() == vectors.keys()


def test_a_damaged_ledger_ends_with_its_code_and_its_remedy_heals(site: Site, server: EmbeddingServer) -> None:
    names = [f"file_{number}.md" for number in range(FILES)]
    with contextlib.closing(SqliteLedger(ledger_of(site))) as ledger:
        before = {path: entry.document_id for path, entry in ledger.entries(names).items()}
    sound = ledger_of(site).read_bytes()
    middle = PAGE_BYTES * 3
    words = (str(ledger_of(site).relative_to(site.root)), "damaged", "move the file away")
    ledger_of(site).write_bytes(sound[:middle])
    assert_told(site.command("status"), 6, *words)
    ledger_of(site).write_bytes(sound[:middle] + random.Random(1).randbytes(len(sound) - middle))
    assert_told(ended(site.start("run")), 6, *words)
    ledger_of(site).rename(ledger_of(site).with_name("ledger.away"))

    assert site.sync()["embedding"]["texts"] == 0
    assert document_ids(assert_healed(site, server, texts=0)) == before


def test_a_ledger_locked_for_a_while_is_waited_for_and_one_locked_for_long_is_named(
    site: Site, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "COMMAND", variant(site, "ledger._BUSY_TIMEOUT_SECONDS = 1.5"))
    words = (ledger_of(site).name, "locked", "end the process that locks the file")
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        with locked(ledger_of(site)):
            write(site, "waited_for.md", "Written while somebody holds the ledger.")
            time.sleep(0.3)
        collection.wait_equal()
        with locked(ledger_of(site)):
            write(site, "waited_for_long.md", "Written while somebody holds the ledger for long.")
            eventually(lambda: all(word in daemon.log() for word in words), daemon.log)
            assert site.command("status").code == 0, "who only reads is not kept out"
        collection.wait_equal()
    assert daemon.terminate() == 0
    with locked(ledger_of(site), "PRAGMA locking_mode = EXCLUSIVE"):
        assert_told(site.command("status"), 4, *words)
    assert server.texts == 2


def test_work_goes_on_when_clocks_are_wrong_and_set_back_and_forth(
    site: Site, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = site.root / "seconds_ahead"
    ahead.write_text("3600", encoding="utf-8")
    shifted = f"SystemRuntime.now_seconds = lambda _: time.time() + float(Path({str(ahead)!r}).read_text())"
    monkeypatch.setattr(daemon_module, "COMMAND", variant(site, shifted))
    site.settings["INGESTOR_WATCH__RESCAN_SECONDS"] = "3"
    daemon = site.start("run").wait_ready()
    moments = {"future.md": 40 * 365 * DAY_SECONDS + time.time(), "epoch.md": 0, "before.md": -DAY_SECONDS}
    with site.reading() as collection:
        for text in ("First said.", "Then said otherwise."):
            for name, moment_seconds in moments.items():
                os.utime(write(site, name, text), (moment_seconds, moment_seconds))
            rows = collection.wait_equal()
        assert {row.source for row in rows if "otherwise" in row.text} == moments.keys()
        for name in moments:
            (site.folder / name).unlink()
        for shift_seconds in ("0", "-86400", "86400"):
            fresh = ahead.with_suffix(".fresh")
            fresh.write_text(shift_seconds, encoding="utf-8")
            fresh.replace(ahead)
            write(site, "file_0.md", f"Edited when the clock was off by {shift_seconds} seconds.")
            write(site, f"new{shift_seconds}.md", f"Written when the clock was off by {shift_seconds} seconds.")
            collection.wait_equal()
        # Queued before the clock was set back, for a file that no hint names again: the next comparison makes it due.
        far_seconds = time.time() + 30 * DAY_SECONDS
        later = Change("", Priority.LIVE, enqueued_seconds=far_seconds, not_before_seconds=far_seconds)
        with contextlib.closing(SqliteLedger(ledger_of(site))) as ledger:
            ledger.enqueue(["moved_in.md"], later)
        write(site, "moved_in.md", "Due in a month, said the clock that was wrong.")
        collection.wait_equal()
    assert daemon.terminate() == 0

    with contextlib.closing(SqliteLedger(ledger_of(site))) as ledger:
        ledger.enqueue(["late.md"], later)
    write(site, "late.md", "Due in a month, and there at the next start.")
    site.sync()
    assert_healed(site, server, texts=2 * len(moments) + 3 * 2 + 2)


def test_too_few_descriptors_are_told_and_take_no_record_away(site: Site, server: EmbeddingServer) -> None:
    daemon = site.start("run").wait_ready()
    allow_no_more_descriptors(daemon.pid)
    for number in range(100):
        write(site, f"shelf_{number % 5}/new_{number}.md", f"New file {number} came with many others.")
    for number in range(0, FILES, 3):
        write(site, f"file_{number}.md", f"File {number} was edited while descriptors were few.")

    eventually(lambda: "Too many open files" in daemon.log(), lambda: f"nobody was told:\n{daemon.log()[-2_000:]}")
    if daemon.process.poll() is None:
        daemon.terminate()  # the shortage may have ended it by now, or show only at the end
    assert not daemon.events("document.problem"), "nothing is wrong with any document"
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.wait_equal()
    assert daemon.terminate() == 0
    assert server.texts == 100 + FILES // 3


def allow_no_more_descriptors(pid: int) -> None:
    """Let a process keep what it has open, and open nothing that needs a descriptor above its lowest free one."""
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lowest_free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, lowest_free))


@contextlib.contextmanager
def locked(file: Path, *pragmas: str) -> Iterator[None]:
    """Hold the lock that keeps every other writer out; with an exclusive mode, every reader as well."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder:
        for pragma in pragmas:
            holder.execute(pragma)
        holder.execute("BEGIN EXCLUSIVE")
        yield
        holder.execute("ROLLBACK")


def variant(site: Site, change: str) -> Path:
    """The command, with one thing in it changed."""
    script = site.root / "variant"
    script.write_text(VARIANT.format(python=sys.executable, change=change), encoding="utf-8")
    script.chmod(0o755)
    return script
