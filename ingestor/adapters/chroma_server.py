"""The Chroma server that comes with the client's wheel, as a supervised child.

Invariant: the server runs only while the lock of its folder is held, by this process and by the server itself, which
inherits it; the lock is let go after the server has ended. What answers on the port is believed only while the port's
listener is the child, so that a stranger's server is never taken for ours. Nothing is started any more once `stop` was
called, even by a restart that was under way in another thread. The server never outlives its owner, whatever the owner
dies of: its standard input is a pipe whose other end the owner alone holds, and the kernel kills it when that closes.
(PR_SET_PDEATHSIG would kill it with the *thread* that started it.)
"""

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from ingestor.adapters.chroma_journal import write_ahead
from ingestor.adapters.disk_room import see_room
from ingestor.adapters.folder_lock import FolderLock, start_ticks
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.shortage import shortage

RECORD_FILE = "chroma_server.json"
LOG_FILE = "chroma_server.log"
_COMMAND = """\
import fcntl, os, signal, sys
fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
try:
    os.read(0, 1)
except BlockingIOError:
    from chromadb_rust_bindings import cli
    cli(sys.argv)
"""
"""What `chroma` is, but for the package `chromadb`: importing that costs the server a second and 70 MB for nothing.

The kernel sends SIGKILL when the last writer of the pipe has gone, to a stopped or hung server, too. A read that does
not block returns only when that was before the signal was asked for: then nothing is started.
"""
_POLL_SECONDS = 0.05
_HEARTBEAT_TIMEOUT_SECONDS = 2.0
_SILENT_CHECKS = 5
"""Heartbeats in a row that a server may owe while it does nothing: a stopped or deadlocked one owes all of them."""
_BUSY_SILENT_CHECKS = 100
"""Heartbeats in a row that a server may owe in any case, five minutes: a large write has delayed them by 7 s."""
_READY = "/api/v2/heartbeat"
_SIGN_OF_LIFE = "/api/v2/tenants/default_tenant"
"""Read from the database: a server whose database is stuck answers its own heartbeat, and nothing else any more."""
_IDLE_SECONDS = 0.05
"""CPU time during one heartbeat's wait up to which a server does nothing."""
_TERM_SECONDS = 5.0
_KILL_SECONDS = 5.0
_MAX_LOG_BYTES = 1_000_000
_LISTENING = "0A"
_SECRET_NAME = re.compile(r"^(INGESTOR|CHROMA)_|KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
"""Environment variables that the server does not get: secrets, and names that would configure it behind our back."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """What `chroma_server.json` tells an operator of the server that runs on the folder; ticks are since boot."""

    pid: int
    start_ticks: int | None
    host: str
    port: int
    path: str
    owner_pid: int
    owner_start_ticks: int | None


class ChromaServer:
    """`chroma run` on the folder `path`, listening on `host`:`port`; port 0 stands for any that is free.

    At most `max_restarts` restarts are made in `restart_window_seconds`; more would hide that it cannot run at all.
    """

    def __init__(
        self,
        path: Path,
        port: int,
        host: str = "127.0.0.1",
        *,
        max_restarts: int = 5,
        restart_window_seconds: float = 60.0,
    ) -> None:
        self._lock = FolderLock(path)
        self._host = host
        self._wanted_port = port
        self._port = port
        self._max_restarts = max_restarts
        self._restart_window_seconds = restart_window_seconds
        self._restarted_at: deque[float] = deque()
        self._child: subprocess.Popen[bytes] | None = None
        self._silent_checks = 0
        self._idle_silent_checks = 0
        self._is_stopping = threading.Event()
        self._turn = threading.RLock()
        """Held by whoever starts or ends the child: a supervisor's thread, or the one that stops."""

    @property
    def path(self) -> Path:
        """The folder, absolute."""
        return self._lock.folder

    @property
    def log_path(self) -> Path:
        """Where the server's own output goes; emptied at each start, and when it has grown past 1 MB."""
        return self.path / LOG_FILE

    @property
    def port(self) -> int:
        """The port; one that was to be any is known once the server has started, and kept through restarts."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The process id of the server; None when there is none."""
        return self._child.pid if self._child is not None else None

    def start(self, timeout_seconds: float = 30.0) -> None:
        """Take the lock, start the server and wait until it answers; nothing happens when it runs already.

        Raises `AlreadyRunning` when another process has the folder open, `ConfigError` when the port or the host
        cannot be had, `ServiceUnavailable` when the server dies, does not answer in time, or loses a port that was to
        be any. Nothing is left behind by a start that failed.
        """
        if self.poll():
            return
        self._is_stopping.clear()
        self._lock.acquire()
        self._port = self._wanted_port or _free_port(self._host)
        try:
            self._launch(timeout_seconds)
        except BaseException as error:
            self.stop()
            raise _passing(error) from error

    def poll(self) -> bool:
        """Whether the server is alive. Cheap; says nothing of whether it answers."""
        return self._child is not None and self._child.poll() is None

    def ensure(self, complaint: str = "", timeout_seconds: float = 30.0) -> bool:
        """Start a dead or hung server again; whether that was needed. Meant to be called each second.

        Hung is a server that lives and owes heartbeat after heartbeat: soon when it does nothing meanwhile, much later
        when it is at work. A complaint of who uses the server makes it start again in any case. Raises
        `ServiceUnavailable` when it was restarted too often or does not come back, and what `start` raises. Does
        nothing after `stop`.
        """
        with self._turn:
            if self._is_stopping.is_set():
                return False
            reason = self._fault() or complaint
            if not reason:
                self._bound_log()
                return False
            self.restart(timeout_seconds)
            _log.warning("chroma.restarted", reason=reason, process_id=self.pid)
            return True

    def restart(self, timeout_seconds: float = 30.0) -> None:
        """End the server if it lives, and start it again, without giving the lock away in between.

        Raises as `ensure` does; the lock stays held then, for the next try.
        """
        now_seconds = time.monotonic()
        while self._restarted_at and self._restarted_at[0] <= now_seconds - self._restart_window_seconds:
            self._restarted_at.popleft()
        if len(self._restarted_at) >= self._max_restarts:
            raise ServiceUnavailable(
                f"the Chroma server was restarted {self._max_restarts} times within {self._restart_window_seconds:g} s,"
                f" its last words are: {self._last_words()}",
                remedy=f"read {self.log_path}, and see whether disk and memory suffice",
                retry_after_seconds=self._restarted_at[0] + self._restart_window_seconds - now_seconds,
            )
        self._restarted_at.append(now_seconds)
        with self._turn:
            self._end_child()
            self._lock.acquire()
            try:
                self._launch(timeout_seconds)
            except BaseException as error:
                self._end_child()
                raise _passing(error) from error

    def stop(self) -> None:
        """End the server and let the lock go; idempotent.

        Takes at most ten seconds: SIGTERM, five seconds, SIGKILL. Raises `ServiceUnavailable` when the server survives
        even that; it keeps the lock then.
        """
        self._is_stopping.set()
        with self._turn:
            try:
                self._end_child()
            finally:
                self._lock.release()

    def _launch(self, timeout_seconds: float) -> None:
        deadline_seconds = time.monotonic() + timeout_seconds
        self._silent_checks = self._idle_silent_checks = 0
        self._refuse_taken_port()
        write_ahead(self.path)
        # A new session: Ctrl-C at a terminal goes to the daemon alone, which ends its server after its own last write.
        self.log_path.unlink(missing_ok=True)
        arguments = ["run", "--path", str(self.path), "--host", self._host, "--port", str(self._port)]
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter with arguments that no shell sees
                [sys.executable, "-c", _COMMAND, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.path,
                env=_environment(),
                start_new_session=True,
                pass_fds=(self._lock.descriptor,),
            )
        self._write_record(self._child.pid)
        while not (self._is_listener(self._child.pid) and self._answers(_READY)):
            code = self._child.poll()
            if code is not None:
                raise self._death(code)
            if self._is_stopping.is_set():
                raise ServiceUnavailable("the Chroma server was told to stop while it started")
            if time.monotonic() >= deadline_seconds:
                raise ServiceUnavailable(
                    f"the Chroma server did not answer within {timeout_seconds:g} s",
                    remedy=f"read the log {self.log_path}",
                )
            time.sleep(_POLL_SECONDS)

    def _fault(self) -> str | None:
        """Why the server has to be started again; None when it does not."""
        child = self._child
        if child is None:
            return "the Chroma server did not come back"
        code = child.poll()
        if code is not None:
            return f"the Chroma server (process {child.pid}) died (code {code}): {self._last_words()}"
        busy_seconds = _cpu_seconds(child.pid)
        if self._answers():
            self._silent_checks = self._idle_silent_checks = 0
            return None
        is_idle = _cpu_seconds(child.pid) - busy_seconds <= _IDLE_SECONDS and not _waits_for_disk(child.pid)
        self._silent_checks += 1
        self._idle_silent_checks = self._idle_silent_checks + 1 if is_idle else 0
        if self._idle_silent_checks < _SILENT_CHECKS and self._silent_checks < _BUSY_SILENT_CHECKS:
            return None
        doing = "does nothing" if self._idle_silent_checks >= _SILENT_CHECKS else "is busy without an end"
        return f"the Chroma server (process {child.pid}) {doing} and left {self._silent_checks} heartbeats unanswered"

    def _end_child(self) -> None:
        child = self._child
        if child is None:
            return
        for number, patience_seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
            child.send_signal(number)
            child.send_signal(signal.SIGCONT)  # a stopped process takes SIGTERM only when it goes on
            with contextlib.suppress(subprocess.TimeoutExpired):  # the next signal is the answer
                child.wait(patience_seconds)
                break
        else:
            raise ServiceUnavailable(
                f"the Chroma server (process {child.pid}) does not end, not even by SIGKILL",
                remedy="see whether its disk answers",
            )
        if child.stdin is not None:
            child.stdin.close()
        self._child = None
        (self.path / RECORD_FILE).unlink(missing_ok=True)

    def _refuse_taken_port(self) -> None:
        """Raise `ConfigError` unless the port can be bound. A stranger that comes in between is found out later."""
        try:
            try_port(self._host, self._port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise self._taken() from error
            raise ConfigError(
                f"the Chroma server cannot listen on {self._host}:{self._port}: {error.strerror}",
                remedy="set INGESTOR_CHROMA__PORT to a port, and the host to an address, that this user may listen on",
            ) from error

    def _taken(self) -> ConfigError | ServiceUnavailable:
        """Nobody is to blame for a port that was free an instant ago; another start takes another one."""
        message = f"port {self._port} on {self._host} is taken by another process"
        if not self._wanted_port:
            return ServiceUnavailable(message, remedy="try again")
        return ConfigError(message, remedy="set INGESTOR_CHROMA__PORT to a free port, or end that process")

    def _death(self, code: int) -> ConfigError | ServiceUnavailable:
        """Why the child is dead. It ends with code 0 when somebody has taken its port meanwhile.

        Raises `ServiceUnavailable` when it is because of a full disk.
        """
        words = self._last_words()
        if re.search(r"Address \S+ is not available", words):
            return self._taken()
        see_room(self.path)  # without room its database panics, in words that nobody understands
        return ServiceUnavailable(
            f"the Chroma server died at its start (code {code}): {words}", remedy=f"read the log {self.log_path}"
        )

    def _last_words(self) -> str:
        """The last line of the server's log, without colours."""
        try:
            text = self.log_path.read_bytes()[-4_096:].decode(errors="replace")
        except FileNotFoundError:
            return "none"
        lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
        return next((line for line in reversed(lines) if line), "none")[:300]

    def _bound_log(self) -> None:
        """The server appends, so that its log can be emptied under its hands."""
        with contextlib.suppress(FileNotFoundError):  # somebody tidied up: the server writes on into the unlinked file
            if self.log_path.stat().st_size > _MAX_LOG_BYTES:
                os.truncate(self.log_path, 0)

    def _write_record(self, pid: int) -> None:
        record = ServerRecord(
            pid=pid,
            start_ticks=start_ticks(pid),
            host=self._host,
            port=self._port,
            path=str(self.path),
            owner_pid=os.getpid(),
            owner_start_ticks=start_ticks(os.getpid()),
        )
        draft = self.path / f"{RECORD_FILE}.tmp"
        draft.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
        draft.replace(self.path / RECORD_FILE)

    def _is_listener(self, pid: int) -> bool:
        """Whether the process is the one that listens on the port."""
        wanted = {f"socket:[{inode}]" for inode in _listening_inodes(self._port)}
        return bool(wanted) and not wanted.isdisjoint(_open_links(pid))

    def _answers(self, path: str = _SIGN_OF_LIFE) -> bool:
        """Whether a request is answered; plain HTTP, so that waiting does not cost an import of chromadb."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - reached, not bound
        connection = http.client.HTTPConnection(host, self._port, timeout=_HEARTBEAT_TIMEOUT_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        # A database that fails, because its disk is full for one, fails after a restart as well.
        return path == _SIGN_OF_LIFE or answer == http.HTTPStatus.OK


def try_port(host: str, port: int) -> None:
    """Raise `OSError` unless a server could listen there just now."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # As the server does: connections of its predecessor that linger do not matter, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def listener_of(port: int) -> int | None:
    """The process that listens on a port; None when there is none, or it may not be looked into."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for place in Path("/proc").iterdir() if wanted else ():
        with contextlib.suppress(PermissionError):  # another user's
            if place.name.isdecimal() and not wanted.isdisjoint(_open_links(int(place.name))):
                return int(place.name)
    return None


def _passing(error: BaseException) -> BaseException:
    """A full disk, too few descriptors and the like in the product's own words, and everything else as it is."""
    return (shortage(error) if isinstance(error, OSError) else None) or error


def _free_port(host: str) -> int:
    """A port that nobody listens on just now; the kernel hands out another one each time."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if (passing := shortage(error)) is not None:
            raise passing from error
        raise ConfigError(f"the Chroma server cannot listen on {host}: {error.strerror}") from error


def _environment() -> dict[str, str]:
    """Our own environment without secrets, and with a server that neither reports home nor logs each request."""
    kept = {name: value for name, value in os.environ.items() if not _SECRET_NAME.search(name)}
    return kept | {"ANONYMIZED_TELEMETRY": "False", "RUST_LOG": "error"}


def _listening_inodes(port: int) -> set[str]:
    """Socket inodes of the listeners on a port, whatever their address."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6 has no tcp6
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _open_links(pid: int) -> set[str]:
    """What the descriptors of a process lead to; empty when it is gone."""
    links = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended, or closed one, under our eyes
        for link in Path("/proc", str(pid), "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.add(str(link.readlink()))
    return links


def _cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far; 0 when it is gone."""
    fields = _stat_fields(Path("/proc", str(pid), "stat"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _waits_for_disk(pid: int) -> bool:
    """Whether a thread of the process is in the kernel's uninterruptible sleep: killing it would help nobody."""
    return any(_stat_fields(place / "stat")[:1] == ["D"] for place in Path("/proc", str(pid), "task").glob("*"))


def _stat_fields(file: Path) -> list[str]:
    """What `/proc/.../stat` tells after the name, state first; nothing when the process or thread is gone."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
