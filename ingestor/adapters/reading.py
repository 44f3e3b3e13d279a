"""Reading one file whole: the bytes behind `Source.read`.

Invariants: a file is reached name by name, so that no symbolic link put in its way leads anywhere else; opening never
blocks; bytes are only handed out when nobody wrote to the file meanwhile, and any later write shows in its times.

Two writes within one tick of the kernel's clock leave the same mtime, so a file must have rested before it is read: for
`SETTLED_NS`, in which a writer that still has it open writes again; or for `TICK_NS` alone, when the kernel grants us a
read lease (fcntl(2), F_SETLEASE), which it does only while nobody has the file open or mapped for writing. Who opens it
for writing then waits until the lease is given back, so it is held over one short read only; who adds O_NONBLOCK, as
hardly anybody does to write to a regular file, is told EWOULDBLOCK meanwhile. The kernel refuses leases on other
people's files (without CAP_LEASE) and on most network file systems, and other systems have none: there, `SETTLED_NS`
counts.
"""

# File names are bytes in disguise, and files are opened relative to open folders: os instead of pathlib.
# ruff: noqa: PTH116

import errno
import fcntl
import hashlib
import os
import signal
import stat as modes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from ingestor.core.errors import IngestorError, OversizeDocument, UnreadableDocument, UnstableDocument
from ingestor.core.model import Content, Stat

SETTLED_NS: Final = 100_000_000
"""A file written to less than this ago may be in the middle of being written."""
TICK_NS: Final = 15_000_000
"""A write that comes so long after another has another mtime: the kernel's clock ticks at least each 10 ms."""
MAX_LEASED_BYTES: Final = 1_000_000
"""A file that was just written to is in memory: so much of it is read in less than a millisecond."""
RETRY_SECONDS: Final = 0.2
PERMISSION_REMEDY: Final = "let the user that ingestor runs as enter the folder and read it (chmod, chown or setfacl)"
READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
"""What the system says of a path that leads nowhere."""

_ROOT_FLAGS: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_PASS_FLAGS: Final = _ROOT_FLAGS | os.O_NOFOLLOW
_LINK_REMEDY: Final = "replace the symbolic link by what it leads to"
_PASSING: Final = frozenset(
    {errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT}
)
_HAS_LEASES: Final = hasattr(fcntl, "F_SETLEASE") and hasattr(fcntl, "F_SETSIG")
_REMEDIES: Final = {
    errno.EACCES: PERMISSION_REMEDY,
    errno.EPERM: PERMISSION_REMEDY,
    errno.EIO: "check the disk (dmesg, smartctl) and restore the file from a backup",
    errno.ENAMETOOLONG: "shorten the names of the folders it lies in",
    errno.ELOOP: _LINK_REMEDY,
}
_NEVER_READ: Final = frozenset({errno.ELOOP, errno.ENAMETOOLONG})
"""What says that there is no such file, where others say that it may be what it was."""
_KINDS: Final = {
    modes.S_IFDIR: "a folder",
    modes.S_IFLNK: "a symbolic link",
    modes.S_IFIFO: "a FIFO (named pipe)",
    modes.S_IFSOCK: "a socket",
    modes.S_IFCHR: "a device",
    modes.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads files below `root`, which may be a symbolic link that is turned elsewhere one day.

    `now_ns` (since the epoch) and `sleep` serve to judge a file's age.
    """

    root: str
    follows_symlinks: bool
    max_file_bytes: int
    now_ns: Callable[[], int]
    sleep: Callable[[float], None]

    def read(self, path: str) -> Content:
        """Read a file whole.

        Raises `UnreadableDocument`, `OversizeDocument`, `UnstableDocument`; for a root that is missing, the latter.
        """
        try:
            with self._opened(self._real_path(path)) as descriptor:
                return self._read_settled(descriptor, path)
        except OSError as error:
            raise _explained(error) from error

    def _real_path(self, path: str) -> str:
        """The path, relative to the root, that a path stands for once its links are followed, if they are."""
        if not self.follows_symlinks:
            return path
        real = os.path.realpath(f"{self.root}/{path}")
        prefix = os.path.realpath(self.root).rstrip("/") + "/"
        if not real.startswith(prefix):
            raise UnreadableDocument(
                "the file is a symbolic link that leads out of the watched folder",
                remedy="put the file itself there, or watch the folder it lies in",
            )
        return real.removeprefix(prefix)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """A descriptor of a regular file."""
        *folders, name = path.split("/")
        at = os.open(self.root, _ROOT_FLAGS)
        try:
            for folder in folders:
                at = _stepped(at, folder, _PASS_FLAGS)
            # Opening is not always harmless for what is no regular file: it may wake a writer or start a device.
            _refuse_irregular(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
            at = _stepped(at, name, READ_FLAGS)
            yield at
        finally:
            os.close(at)

    def _read_settled(self, descriptor: int, path: str) -> Content:
        """Read an open file; raises `UnstableDocument` unless nothing was written to it while and just before."""
        before = os.fstat(descriptor)
        _refuse_irregular(before.st_mode)
        if before.st_size > self.max_file_bytes:
            raise OversizeDocument(
                f"the file has {before.st_size:,} bytes, watch.max_file_bytes allows {self.max_file_bytes:,}",
                remedy="raise watch.max_file_bytes, split the file, or leave it out with watch.exclude",
            )
        with self._rest(descriptor, before):
            with open(descriptor, "rb", closefd=False) as file:
                raw = file.read(before.st_size + 1)
            after = os.fstat(descriptor)
        if _version(after) != _version(before) or len(raw) != before.st_size:
            raise UnstableDocument("the file changed while it was read", retry_after_seconds=RETRY_SECONDS)
        named = os.stat(f"{self.root}/{path}", follow_symlinks=self.follows_symlinks)
        if (named.st_dev, named.st_ino) != (after.st_dev, after.st_ino):
            raise UnstableDocument("the file was replaced while it was read", retry_after_seconds=RETRY_SECONDS)
        return Content(stat_of(after), raw, hashlib.sha256(raw).hexdigest())

    @contextmanager
    def _rest(self, descriptor: int, status: os.stat_result) -> Iterator[None]:
        """Make sure that any write from now on shows in the file's times; raises `UnstableDocument` beside a writer.

        An mtime in the future (clock of a file server, `touch -d`) tells no age: then the file must rest while we watch
        it.
        """
        age_ns = self.now_ns() - status.st_mtime_ns
        if age_ns < 0:
            self.sleep(SETTLED_NS / 1e9)
            if _version(os.fstat(descriptor)) != _version(status):
                raise UnstableDocument("the file is being written", retry_after_seconds=RETRY_SECONDS)
            yield
        elif age_ns >= SETTLED_NS:
            yield
        else:
            is_short = status.st_size <= MAX_LEASED_BYTES
            rested_ns = max(age_ns, TICK_NS) if is_short else age_ns
            if rested_ns > age_ns:
                self.sleep((rested_ns - age_ns) / 1e9)
            with _lease(descriptor) if is_short else nullcontext(enter_result=False) as is_granted:
                if not is_granted:
                    self.sleep((SETTLED_NS - rested_ns) / 1e9)
                yield


def stat_of(status: os.stat_result) -> Stat:
    """What the model keeps of a stat."""
    return Stat(
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_dev,
        status.st_ino,
        modes.S_ISREG(status.st_mode),
    )


def kind_of(mode: int) -> str:
    """What something that is no regular file is, with its article."""
    return _KINDS.get(modes.S_IFMT(mode), "of an unknown kind")


def _version(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@contextmanager
def _lease(descriptor: int) -> Iterator[bool]:
    """A read lease for the time of a block, and whether there is one; raises `UnstableDocument` beside a writer."""
    is_granted = _is_granted(descriptor)
    try:
        yield is_granted
    finally:
        if is_granted:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _is_granted(descriptor: int) -> bool:
    if not _HAS_LEASES:
        return False
    try:
        # A writer that waits makes the kernel send SIGIO, which would be our end; SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise UnstableDocument("the file is being written", retry_after_seconds=SETTLED_NS / 1e9) from error
        return False  # another owner, a file system without leases: whatever it is, age tells, too
    return True


def _refuse_irregular(mode: int) -> None:
    if not modes.S_ISREG(mode):
        raise UnreadableDocument(
            f"it is {kind_of(mode)}, not a regular file",
            remedy=_LINK_REMEDY if modes.S_ISLNK(mode) else "remove it, or leave it out with watch.exclude",
        )


def _stepped(at: int, name: str, flags: int) -> int:
    """Open a name in an open folder and close the folder, unless that raises."""
    try:
        descriptor = os.open(name, flags, dir_fd=at)
    except NotADirectoryError:
        if modes.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise UnreadableDocument("a folder it lies in is a symbolic link", remedy=_LINK_REMEDY) from None
        raise
    os.close(at)
    return descriptor


def _explained(error: OSError) -> IngestorError:
    """The error of a failed read in the product's own words."""
    if error.errno in GONE:
        return UnstableDocument("the file vanished before it was read", retry_after_seconds=RETRY_SECONDS)
    if error.errno in _PASSING:
        return UnstableDocument(
            f"the file cannot be read at the moment: {error.strerror}", retry_after_seconds=RETRY_SECONDS
        )
    return UnreadableDocument(
        f"the file cannot be read: {error.strerror}",
        remedy=_REMEDIES.get(error.errno or 0, "open it by hand to see what is wrong, then `ingestor retry`"),
        is_unknown=error.errno not in _NEVER_READ,
    )
