"""The lock of a Chroma folder, because two processes that write into one folder corrupt it.

Invariant: a process that has the folder's files open for us holds an flock on `ingestor.lock`, through a descriptor of
its own or through one that it inherited. The kernel gives the lock back when the last such descriptor is closed, so a
server that outlives its daemon keeps everybody else out for as long as it lives.

Such an orphan is told from a server at work by the kernel alone, with no file to be believed: it has the lock file
open, it is a `chroma run` on this very folder, and its parent does not have the lock file open (the kernel gives the
children of a dead process to another one at once).
"""

import contextlib
import errno
import fcntl
import os
import select
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ingestor.core.errors import AlreadyRunning, ConfigError
from ingestor.core.shortage import shortage

LOCK_FILE = "ingestor.lock"
DATABASE_FILE = "chroma.sqlite3"
_PROC = Path("/proc")
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.05
"""A holder that is not to be seen is on its way out, or another user's: looked at again, ten times."""
_BRIEF_PAUSE_SECONDS = 0.2
"""Between two looks at a holder that may soon end: each look reads what all processes have open."""


class FolderLock:
    """The right to open the Chroma folder `folder`; ends an orphaned server that stands in the way.

    `patience_seconds` bounds the wait for an orphan after SIGTERM, and once more after SIGKILL; `brief_seconds` that
    for a holder without a server, which may be about to end, as a query is.
    """

    def __init__(self, folder: Path, *, patience_seconds: float = 5.0, brief_seconds: float = 10.0) -> None:
        self.folder = folder.resolve()
        self._patience_seconds = patience_seconds
        self._brief_seconds = brief_seconds
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def is_held(self) -> bool:
        """Whether this object has the lock."""
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """What a child has to inherit in order to hold the lock as well. Raises `RuntimeError` without the lock."""
        if self._descriptor is None:
            raise RuntimeError("the lock of the Chroma folder is not held")
        return self._descriptor

    def acquire(self) -> None:
        """Take the lock, creating the folder; nothing happens when this object has it already. May wait, see the class.

        Raises `AlreadyRunning` naming the process that has the folder open, `ConfigError` when the folder cannot be
        created, written or locked.
        """
        if self._descriptor is not None:
            return
        descriptor = self._open()
        try:
            self._lock(descriptor)
            self._refuse_stranger()
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; idempotent. A child that inherited the descriptor keeps the lock until it ends.

        The file stays: whoever unlinks a lock file lets two processes lock two files of the same name.
        """
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if (passing := shortage(error)) is not None:
                raise passing from error
            raise ConfigError(
                f"the Chroma folder {self.folder} cannot be written: {error.strerror}",
                remedy="set INGESTOR_CHROMA__PATH to a folder that this user may write",
            ) from error

    def _lock(self, descriptor: int) -> None:
        ended: set[int] = set()
        looks_left = _ATTEMPTS
        deadline_seconds = time.monotonic() + self._brief_seconds
        while not self._try(descriptor):
            holders = self._holders(descriptor)
            orphans = {pid for pid in holders - ended if self._is_orphan(pid, holders)}
            for pid in orphans:
                self._end(pid, descriptor)
            ended |= orphans
            if orphans:
                continue
            looks_left -= not holders
            if not looks_left or self._is_for_long(holders) or time.monotonic() >= deadline_seconds:
                raise self._already_running(holders, descriptor)
            time.sleep(_BRIEF_PAUSE_SECONDS if holders else _PAUSE_SECONDS)

    def _is_for_long(self, holders: set[int]) -> bool:
        """Whether the folder is served, or this very process has it."""
        return os.getpid() in holders or any(_serves(pid, self.folder) for pid in holders)

    def _try(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ConfigError(
                f"the Chroma folder {self.folder} cannot be locked: {error.strerror}",
                remedy="set INGESTOR_CHROMA__PATH to a folder on a local disk",
            ) from error
        return True

    def _refuse_stranger(self) -> None:
        """A server that somebody started by hand knows nothing of our lock, and corrupts the folder all the same.

        Who only reads, as a backup does, is let be.
        """
        strangers = _processes_with(self.folder / DATABASE_FILE, is_writing=True) - {os.getpid()}
        if strangers:
            raise self._already_running(strangers, None)

    def _holders(self, descriptor: int) -> set[int]:
        """Processes that have the lock file open: the holder, those that inherited it, and others that want it."""
        return _processes_with(self.folder / LOCK_FILE, but_for=descriptor)

    def _is_orphan(self, pid: int, holders: set[int]) -> bool:
        return _serves(pid, self.folder) and _parent_of(pid) not in holders

    def _end(self, pid: int, descriptor: int) -> None:
        """End an orphan; looked at again once its own descriptor is had, which reuse of its id cannot fool."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            holders = self._holders(descriptor)
            if pid not in holders or not self._is_orphan(pid, holders):
                return
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):  # it may end between the look and the signal
                    signal.pidfd_send_signal(process, number)
                if _has_ended(process, self._patience_seconds):
                    return
        except PermissionError as error:
            raise self._already_running({pid}, None) from error
        finally:
            os.close(process)

    def _already_running(self, pids: set[int], descriptor: int | None) -> AlreadyRunning:
        pid = min(pids, default=None, key=lambda each: (_serves(each, self.folder), each))
        named = f"process {pid}" if pid is not None else self._noted(descriptor)
        return AlreadyRunning(
            f"the Chroma folder {self.folder} is in use by {named}",
            remedy="stop that process, or set INGESTOR_CHROMA__PATH to another folder",
        )

    def _noted(self, descriptor: int | None) -> str:
        """Whom the lock file names: all there is to say of a process of another user or container."""
        noted = os.pread(descriptor, 32, 0).decode(errors="replace").strip() if descriptor is not None else ""
        return f"process {noted}" if noted.isdecimal() else "another process"


@dataclass(frozen=True, slots=True)
class Occupant:
    """A process that has a Chroma folder open."""

    pid: int
    parent: int | None
    """None when it is gone."""
    is_server: bool
    """Whether it is a server as ChromaServer starts it."""


def occupants(folder: Path) -> list[Occupant]:
    """Who has a Chroma folder open, to write or to keep others away, as far as that may be seen; takes no lock."""
    place = folder.resolve()
    pids = _processes_with(place / LOCK_FILE) | _processes_with(place / DATABASE_FILE, is_writing=True)
    return [Occupant(pid, _parent_of(pid), _serves(pid, place)) for pid in sorted(pids)]


def _processes_with(file: Path, *, but_for: int | None = None, is_writing: bool = False) -> set[int]:
    """Ids of the processes that have a file open, as far as they may be looked into; our own `but_for` is left out."""
    try:
        wanted = file.stat()
    except FileNotFoundError:
        return set()
    found = set()
    for pid in _pids():
        for link in _links(pid):
            is_our_own = pid == os.getpid() and link.name == str(but_for)
            if not is_our_own and _leads_to(link, file.name, wanted, is_writing=is_writing):
                found.add(pid)
                break
    return found


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _links(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "fd").iterdir())
    except OSError as error:
        if error.errno in _GONE_OR_HIDDEN:
            return []
        raise


def _leads_to(link: Path, name: str, wanted: os.stat_result, *, is_writing: bool) -> bool:
    """Whether a descriptor is the wanted file. The name goes first: stat of a dead network file may hang.

    The link itself is writable where the descriptor is open for writing.
    """
    try:
        if link.readlink().name != name or not os.path.samestat(link.stat(), wanted):
            return False
        return not is_writing or bool(link.lstat().st_mode & stat.S_IWUSR)
    except OSError as error:
        if error.errno in _GONE_OR_HIDDEN:
            return False
        raise


_GONE_OR_HIDDEN = {errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM}
"""What /proc answers for a process that ended meanwhile, or belongs to somebody else."""


def _serves(pid: int, folder: Path) -> bool:
    """Whether the process is a `chroma run` on the folder, started as ChromaServer starts it."""
    words = _read(pid, "cmdline").split(b"\0")
    match words:
        case [_, b"-c", script, b"run", b"--path", path, *_]:
            return b"chromadb" in script and Path(os.fsdecode(path)) == folder
        case _:
            return False


def _parent_of(pid: int) -> int | None:
    """None when the process is gone."""
    fields = _stat_fields(pid)
    return int(fields[1]) if fields else None


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with the id, its name for good. None when it is gone."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def _stat_fields(pid: int) -> list[bytes]:
    """The fields from the third on: the second, the name in brackets, may hold blanks and brackets itself."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty when it is gone."""
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError as error:
        if error.errno in _GONE_OR_HIDDEN:
            return b""
        raise


def _has_ended(process: int, timeout_seconds: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout_seconds * 1_000))
