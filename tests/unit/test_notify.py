"""What systemd hears, over a real socket."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingestor.adapters.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(5)
        yield heard


def test_every_state_is_sent_as_systemd_wants_it(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready()
    notifier.alive()
    notifier.status("3 changes to do")
    notifier.stopping()
    heard = [manager.recv(100) for _ in range(4)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"STATUS=3 changes to do", b"STOPPING=1"]


def test_a_status_is_sent_when_it_changes(manager: socket.socket) -> None:
    notifier = Notifier()
    for sentence in ("a", "a", "b"):
        notifier.status(sentence)
    assert [manager.recv(100), manager.recv(100)] == [b"STATUS=a", b"STATUS=b"]


def test_a_status_is_one_line_whatever_a_server_has_said(manager: socket.socket) -> None:
    Notifier().status("the provider says:\nMAINPID=1")
    assert manager.recv(100) == b"STATUS=the provider says: MAINPID=1"


def full(manager: socket.socket) -> int:
    """Fill the queue of a service manager that reads nothing; how much fits."""
    count = 0
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as sender, contextlib.suppress(BlockingIOError):
        while True:
            sender.sendto(b"FULL", manager.getsockname())
            count += 1
    return count


@pytest.mark.timeout(20)
def test_a_manager_that_reads_nothing_holds_nobody_up_and_hears_what_matters_later(manager: socket.socket) -> None:
    notifier = Notifier()
    waiting = full(manager)
    with capture_logs() as told:
        notifier.ready()
        notifier.status("3 changes to do")
        for _ in range(3):
            notifier.alive()
        notifier.status("2 changes to do")
    assert [entry["event"] for entry in told] == ["notify.delayed"]
    assert {manager.recv(100) for _ in range(waiting)} == {b"FULL"}
    notifier.alive()
    assert manager.recv(100).splitlines() == [b"READY=1", b"STATUS=2 changes to do", b"WATCHDOG=1"]
    notifier.alive()
    assert manager.recv(100) == b"WATCHDOG=1"


def test_the_abstract_namespace_is_spelled_with_an_at(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"ingestor-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        heard.settimeout(5)
        Notifier().ready()
        assert heard.recv(100) == b"READY=1"


def test_without_a_socket_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready()


@pytest.mark.usefixtures("manager")
def test_a_socket_that_is_gone_does_not_stop_the_daemon(tmp_path: Path) -> None:
    notifier = Notifier()
    (tmp_path / "notify").unlink()
    notifier.ready()


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("3000000", "", 3.0),
        pytest.param("3000000", str(os.getpid()), 3.0, id="ours"),
        ("3000000", "1", None),
        ("", "", None),
        ("x", "", None),
    ],
)
def test_the_watchdog_is_kept_alive_only_when_it_is_ours(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert Notifier().watchdog_seconds == expected
