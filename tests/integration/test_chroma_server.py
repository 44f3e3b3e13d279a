"""The supervised server and the lock of its folder, with real processes, real ports and real signals."""

import http.server
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from ingestor.adapters import chroma_server
from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_journal import write_ahead
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.folder_lock import FolderLock, start_ticks
from ingestor.core.errors import AlreadyRunning, ConfigError, ServiceUnavailable

PATIENCE_SECONDS = 20.0


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(path: Path, port: int, max_restarts: int = 5) -> Iterator[ChromaServer]:
    server = ChromaServer(path, port, max_restarts=max_restarts)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs a script and tells when it is ready, or whatever else, by a line on its output."""
    started = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def running_in_thread(path: Path, port: int) -> Iterator[ChromaServer]:
    """A server that was started by a thread which has ended."""
    server = ChromaServer(path, port)
    starting = threading.Thread(target=server.start)
    starting.start()
    starting.join()
    try:
        yield server
    finally:
        server.stop()


def line_of(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def pid_of(server: ChromaServer) -> int:
    assert server.pid is not None
    return server.pid


def kill_and_wait(pid: int) -> None:
    """Kill a child of ours without reaping it, which is its supervisor's."""
    os.kill(pid, signal.SIGKILL)
    assert has_ended(pid)


def has_ended(pid: int, within_seconds: float = PATIENCE_SECONDS) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(within_seconds * 1_000))
    finally:
        os.close(descriptor)


def assert_free(path: Path) -> None:
    with FolderLock(path):
        pass


# The server.


def test_a_server_that_is_killed_comes_back_with_its_records_and_stop_leaves_nothing(tmp_path: Path, port: int) -> None:
    with running(tmp_path, port) as server:
        client = connect("managed", port=port, timeout_seconds=PATIENCE_SECONDS)
        collection = client.create_collection("kept", embedding_function=None)
        collection.add(ids=["1"], embeddings=np.ones((1, 3), dtype=np.float32))
        first = pid_of(server)
        assert not server.ensure()

        kill_and_wait(first)

        assert not server.poll()
        with pytest.raises(AlreadyRunning):
            FolderLock(tmp_path).acquire()
        assert server.ensure()
        second = pid_of(server)
        assert second != first
        assert collection.count() == 1
        disconnect(client)

        server.stop()
        server.stop()

        assert not server.poll()
        assert has_ended(second)
        assert not (tmp_path / "chroma_server.json").exists()
        assert_free(tmp_path)


def test_the_server_gets_no_secret_logs_no_request_and_is_on_record(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"INGESTOR_EMBEDDING__API_KEY": "s3cret", "OPENAI_API_KEY": "s3cret", "CHROMA_PORT": "1"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "chroma_server.log").write_text("of the last run")

    with running(tmp_path, port) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
        record = json.loads((tmp_path / "chroma_server.json").read_text())
        log = server.log_path.read_text()
        before = server.log_path.stat().st_size
        disconnect(connect("managed", port=port, timeout_seconds=PATIENCE_SECONDS))

        assert b"s3cret" not in environment
        assert b"CHROMA_PORT" not in environment
        assert b"ANONYMIZED_TELEMETRY=False" in environment
        assert "of the last run" not in log
        assert server.log_path.stat().st_size == before
        assert record == {
            "pid": server.pid,
            "start_ticks": start_ticks(pid_of(server)),
            "host": "127.0.0.1",
            "port": port,
            "path": str(tmp_path),
            "owner_pid": os.getpid(),
            "owner_start_ticks": start_ticks(os.getpid()),
        }
        assert os.getsid(pid_of(server)) == server.pid

        os.truncate(server.log_path, 2_000_000)
        server.ensure()

        assert server.log_path.stat().st_size == 0


def test_a_server_that_keeps_dying_is_given_up(tmp_path: Path, port: int) -> None:
    with running(tmp_path, port, max_restarts=1) as server:
        kill_and_wait(pid_of(server))
        assert server.ensure()
        kill_and_wait(pid_of(server))

        with pytest.raises(ServiceUnavailable, match="restarted 1 times") as caught:
            server.ensure()

        assert caught.value.retry_after_seconds is not None
        assert 0 < caught.value.retry_after_seconds <= 60
    assert_free(tmp_path)


def test_a_port_that_is_taken_is_named_with_the_setting_to_change(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(ConfigError, match=f"port {port}") as caught:
            ChromaServer(tmp_path, port).start()

    assert "INGESTOR_CHROMA__PORT" in caught.value.remedy
    assert_free(tmp_path)


def test_a_stranger_that_takes_the_port_in_between_and_answers_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heartbeat(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"nanosecond heartbeat": 1}')

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the base class
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Heartbeat) as stranger:
        thread = threading.Thread(target=stranger.serve_forever)
        thread.start()
        server = ChromaServer(tmp_path, stranger.server_port)
        monkeypatch.setattr(server, "_refuse_taken_port", lambda: None)
        try:
            with pytest.raises(ConfigError, match=f"port {stranger.server_port}"):
                server.start()
            assert not server.poll()
        finally:
            server.stop()
            stranger.shutdown()
            thread.join()
    assert_free(tmp_path)


def test_a_server_that_may_be_anywhere_takes_a_free_port_and_keeps_it(tmp_path: Path) -> None:
    with running(tmp_path, 0) as server:
        port = server.port
        assert port
        client = connect("managed", port=port, timeout_seconds=PATIENCE_SECONDS)
        kill_and_wait(pid_of(server))

        assert server.ensure()

        assert server.port == port
        assert client.heartbeat()
        disconnect(client)


def test_a_free_port_that_somebody_takes_in_between_is_not_the_users_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(chroma_server, "_free_port", lambda _: other.getsockname()[1])
        server = ChromaServer(tmp_path, 0)
        with pytest.raises(ServiceUnavailable, match="taken"):
            server.start()
        monkeypatch.undo()

        server.start()

        assert server.port != other.getsockname()[1]
        server.stop()
    assert_free(tmp_path)


def test_an_address_of_another_machine_is_an_error_of_the_settings(tmp_path: Path, port: int) -> None:
    with pytest.raises(ConfigError, match="cannot listen") as caught:
        ChromaServer(tmp_path, port, host="192.0.2.1").start()

    assert "INGESTOR_CHROMA__PORT" in caught.value.remedy


def test_a_server_that_dies_at_its_start_is_quoted(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_server, "_COMMAND", "raise SystemExit('\\x1b[31mno such thing\\x1b[0m\\n\\n')")

    with pytest.raises(ServiceUnavailable, match=r"code 1\): no such thing$"):
        ChromaServer(tmp_path, port).start()
    assert_free(tmp_path)


def test_a_server_that_does_not_answer_in_time_is_ended(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_server, "_COMMAND", "import time; time.sleep(600)")
    server = ChromaServer(tmp_path, port)

    with pytest.raises(ServiceUnavailable, match="did not answer"):
        server.start(timeout_seconds=0.3)

    assert server.pid is None
    assert_free(tmp_path)


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    monkeypatch.setattr(chroma_server, "_COMMAND", deaf)
    monkeypatch.setattr(chroma_server, "_TERM_SECONDS", 0.2)
    server = ChromaServer(tmp_path, port)
    monkeypatch.setattr(server, "_is_listener", lambda _: b"deaf" in server.log_path.read_bytes())
    monkeypatch.setattr(server, "_answers", lambda *_: True)
    server.start()
    pid = pid_of(server)

    server.stop()

    assert has_ended(pid)
    assert_free(tmp_path)


# The journal of its database.


def journal_of(path: Path) -> str:
    with closing(sqlite3.connect(path / "chroma.sqlite3")) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.parametrize("left_behind", ["nothing", "an empty file", "a header", "a rollback journal"])
def test_the_database_has_a_write_ahead_log_whatever_a_killed_start_has_left_behind(
    tmp_path: Path, port: int, left_behind: str
) -> None:
    file = tmp_path / "chroma.sqlite3"
    if left_behind == "an empty file":
        file.write_bytes(b"")
    elif left_behind != "nothing":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            if left_behind == "a rollback journal":
                connection.execute("PRAGMA journal_mode = DELETE")
    with running(tmp_path, port):
        client = connect("managed", port=port, timeout_seconds=PATIENCE_SECONDS)
        collection = client.create_collection("kept", embedding_function=None)
        collection.add(ids=["1"], embeddings=np.ones((1, 3), dtype=np.float32))
        assert (tmp_path / "chroma.sqlite3-wal").stat().st_size
        disconnect(client)
    assert journal_of(tmp_path) == "wal"


def test_a_database_of_another_chroma_gets_a_write_ahead_log_and_keeps_its_records(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as another:
        another.setattr(chroma_server, "write_ahead", lambda _: False)
        with running(tmp_path, port):
            client = connect("managed", port=port, timeout_seconds=PATIENCE_SECONDS)
            client.create_collection("kept", embedding_function=None).add(
                ids=["1"], embeddings=np.ones((1, 3), dtype=np.float32), documents=["a text"]
            )
            disconnect(client)
    assert journal_of(tmp_path) == "delete"

    with running(tmp_path, port) as server:
        client = connect("managed", port=port, timeout_seconds=PATIENCE_SECONDS)
        collection = client.get_collection("kept", embedding_function=None)
        collection.add(ids=["2"], embeddings=np.ones((1, 3), dtype=np.float32), documents=["another"])
        kill_and_wait(pid_of(server))
        assert server.ensure()

        assert collection.get()["documents"] == ["a text", "another"]
        disconnect(client)
    assert journal_of(tmp_path) == "wal"


def test_a_database_that_cannot_be_changed_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "chroma.sqlite3"
    with closing(sqlite3.connect(file)) as user:
        user.execute("CREATE TABLE one (number)")
        user.execute("BEGIN EXCLUSIVE")
        with capture_logs() as told:
            assert not write_ahead(tmp_path)
    assert [entry["event"] for entry in told] == ["chroma.journal_kept"]
    assert "locked" in told[0]["reason"]
    assert write_ahead(tmp_path)
    file.write_bytes(b"no database at all, but long enough to be one" * 100)
    assert not write_ahead(tmp_path)


# The lock, over the life of its owners.

OWNER = """
    import sys
    from pathlib import Path
    from ingestor.adapters.chroma_server import ChromaServer
    server = ChromaServer(Path(sys.argv[1]), int(sys.argv[2]))
    server.start()
    print(server.pid, flush=True)
    sys.stdin.read()
    server.stop()
"""


def test_a_second_owner_is_refused_until_the_first_one_is_killed(tmp_path: Path, port: int) -> None:
    with process(OWNER, tmp_path, port) as owner:
        orphan = int(line_of(owner))
        with pytest.raises(AlreadyRunning, match=f"process {owner.pid}$") as caught:
            ChromaServer(tmp_path, port).start()
        assert caught.value.exit_code == 5

        owner.kill()
        owner.wait()

        with running(tmp_path, port) as server:
            assert has_ended(orphan)
            assert server.pid != orphan
            disconnect(connect("managed", port=port, timeout_seconds=PATIENCE_SECONDS))
    assert_free(tmp_path)


@pytest.mark.parametrize("state", ["at work", "stopped"])
def test_a_server_does_not_outlive_an_owner_that_is_killed(tmp_path: Path, port: int, state: str) -> None:
    with process(OWNER, tmp_path, port) as owner:
        server = int(line_of(owner))
        if state == "stopped":
            os.kill(server, signal.SIGSTOP)
        owner.kill()
        owner.wait()
        assert has_ended(server, within_seconds=5)
    with running(tmp_path, port):
        pass


def test_a_server_outlives_the_thread_that_has_started_it(tmp_path: Path, port: int) -> None:
    with running_in_thread(tmp_path, port) as server:
        assert not has_ended(pid_of(server), within_seconds=1)


def test_a_server_is_not_started_for_an_owner_that_has_gone(tmp_path: Path, port: int) -> None:
    arguments = ["run", "--path", str(tmp_path), "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-c", chroma_server._COMMAND, *arguments], stdin=subprocess.PIPE)
    assert server.stdin is not None
    server.stdin.close()
    server.wait(PATIENCE_SECONDS)
    assert not list(tmp_path.iterdir())


STAND_IN_OWNER = """
    import subprocess, sys
    from pathlib import Path
    from ingestor.adapters.folder_lock import FolderLock
    lock = FolderLock(Path(sys.argv[1]))
    lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", *sys.argv[2:]], pass_fds=(lock.descriptor,), stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    sys.stdin.read()
"""
STAND_IN = """
import signal, time  # in the place of chromadb.cli
signal.signal(signal.SIGTERM, signal.{})
print("ready", flush=True)
time.sleep(600)
"""


@contextmanager
def orphan_of_killed_owner(path: Path, script: str, *arguments: str) -> Iterator[int]:
    with process(STAND_IN_OWNER, path, script, *arguments) as owner:
        orphan = int(line_of(owner))
        owner.kill()
        owner.wait()
        try:
            yield orphan
        finally:
            if not has_ended(orphan, within_seconds=0):
                os.kill(orphan, signal.SIGKILL)
                assert has_ended(orphan)


@pytest.mark.parametrize("reaction", ["SIG_DFL", "SIG_IGN"])
def test_an_orphan_is_ended_whether_it_heeds_sigterm_or_not(tmp_path: Path, reaction: str) -> None:
    with orphan_of_killed_owner(tmp_path, STAND_IN.format(reaction), "run", "--path", str(tmp_path)) as orphan:
        with FolderLock(tmp_path, patience_seconds=0.3):
            pass
        assert has_ended(orphan)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("run", "--path", "/elsewhere"), id="a server of another folder"),
        pytest.param(("backup", "--path", "{}"), id="no server at all"),
    ],
)
def test_a_holder_that_is_not_the_server_of_this_folder_is_never_ended(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    filled = [argument.format(tmp_path) for argument in arguments]
    with orphan_of_killed_owner(tmp_path, STAND_IN.format("SIG_DFL"), *filled) as bystander:
        with pytest.raises(AlreadyRunning, match=f"process {bystander}$"):
            FolderLock(tmp_path, brief_seconds=0.5).acquire()
        assert not has_ended(bystander, within_seconds=0)


def test_the_server_of_a_living_owner_is_never_ended(tmp_path: Path) -> None:
    arguments = (STAND_IN.format("SIG_DFL"), "run", "--path", str(tmp_path))
    with process(STAND_IN_OWNER, tmp_path, *arguments) as owner:
        child = int(line_of(owner))
        try:
            with pytest.raises(AlreadyRunning, match=f"process {owner.pid}$"):
                FolderLock(tmp_path).acquire()
            assert not has_ended(child, within_seconds=0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_whoever_asks_one_question_without_a_server_is_waited_for(tmp_path: Path) -> None:
    script = """
    import sys
    from pathlib import Path
    from ingestor.adapters.folder_lock import FolderLock
    with FolderLock(Path(sys.argv[1])):
        print("asking", flush=True)
        sys.stdin.read()
    """
    with process(script, tmp_path) as asking, ThreadPoolExecutor(1) as thread:
        line_of(asking)
        lock = FolderLock(tmp_path, brief_seconds=PATIENCE_SECONDS)
        taken = thread.submit(lock.acquire)
        assert not has_ended(asking.pid, within_seconds=0.5)
        assert not taken.done()
        assert asking.stdin is not None
        asking.stdin.close()
        taken.result(PATIENCE_SECONDS)
        assert lock.is_held
        lock.release()


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as first:
        first.acquire()
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}$"):
            FolderLock(tmp_path).acquire()
        assert first.is_held
    first.release()
    assert_free(tmp_path)


@pytest.mark.parametrize(("mode", "is_refused"), [("rb+", True), ("rb", False)])
def test_a_stranger_that_writes_into_the_folder_without_our_lock_keeps_us_out(
    tmp_path: Path, mode: str, *, is_refused: bool
) -> None:
    (tmp_path / "chroma.sqlite3").write_bytes(b"")
    script = "import sys; f = open(sys.argv[1], sys.argv[2]); print('ready', flush=True); sys.stdin.read()"
    with process(script, tmp_path / "chroma.sqlite3", mode) as stranger:
        line_of(stranger)
        take: Callable[[], None] = FolderLock(tmp_path).acquire
        if is_refused:
            with pytest.raises(AlreadyRunning, match=f"process {stranger.pid}$"):
                take()
        else:
            with FolderLock(tmp_path):
                pass


def test_a_folder_that_cannot_be_made_is_an_error_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(ConfigError, match="cannot be written"):
        FolderLock(tmp_path / "file" / "chroma").acquire()
