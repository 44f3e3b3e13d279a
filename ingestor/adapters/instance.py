"""The instance: at most one process works on a data folder, and others can tell whether and where it does.

Invariant: whoever holds the lock is the only one that writes ledger (but for queueing) and collection. The kernel lets
the lock go when its holder dies, however it dies; the record beside it is only believed while the lock is held.
"""

import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ingestor.core.errors import AlreadyRunning, ConfigError
from ingestor.core.shortage import shortage

LOCK_FILE = "instance.lock"
RECORD_FILE = "instance.json"
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.05
"""Another process that only asks whether an instance lives holds the lock for an instant: tried again for a second."""
_PATIENCE_SECONDS = 30.0
"""How long a holder that has not introduced itself is waited for: it begins, or upgrades a ledger and ends."""
LIFE: Final = secrets.token_hex(8)
"""Names this process in what it leaves for others: a process id is soon that of another one, in a container at once."""


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """What the holder says of itself. `host` and `port` are empty and 0 until its Chroma server answers."""

    pid: int
    command: str
    watch_dir: str
    started_seconds: float
    chroma_host: str = ""
    chroma_port: int = 0
    http_url: str = ""
    """Where people and programs reach it; empty where they cannot."""
    life: str = ""
    """Names the process; what another one has noted of its work says nothing about this one's."""


class Instance:
    """The lock of a data folder; `patience_seconds` bounds the wait for a holder that has not introduced itself."""

    def __init__(self, data_dir: Path, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._data_dir = data_dir
        self._patience_seconds = patience_seconds
        self._record = data_dir / RECORD_FILE
        self.record: InstanceRecord | None = None
        """What this instance has said of itself."""
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, creating the folder; raises `AlreadyRunning` or `ConfigError`."""
        if self._descriptor is not None:
            return
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if (passing := shortage(error)) is not None:
                raise passing from error
            message = f"the data folder {self._data_dir} cannot be used: {error.strerror}"
            raise ConfigError(message, remedy="choose another INGESTOR_DATA_DIR, or mend its permissions") from error
        attempts_left = _ATTEMPTS
        give_up_seconds = time.monotonic() + self._patience_seconds
        while attempts_left > 0 or (not self._record.exists() and time.monotonic() < give_up_seconds):
            if _try_lock(descriptor, fcntl.LOCK_EX):
                self._descriptor = descriptor
                self._record.unlink(missing_ok=True)  # of a holder that was killed
                return
            attempts_left -= 1
            time.sleep(_PAUSE_SECONDS)
        os.close(descriptor)
        holder = self._read()
        who = f"`ingestor {holder.command}` with process id {holder.pid}" if holder else "another process"
        message = f"{who} already works on the data folder {self._data_dir}"
        raise AlreadyRunning(message, remedy="stop it first, or name another INGESTOR_DATA_DIR")

    def announce(self, record: InstanceRecord) -> None:
        """Say who holds the lock; replaces the record as a whole."""
        fresh = self._record.with_suffix(f".{os.getpid()}")
        try:
            fresh.write_text(json.dumps(asdict(record)), encoding="utf-8")
            fresh.replace(self._record)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        self.record = record

    def release(self) -> None:
        """Let the lock go; idempotent."""
        if self._descriptor is not None:
            self._record.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def running(self) -> InstanceRecord | None:
        """Who holds the lock; None when nobody does, or the holder has not introduced itself yet."""
        try:
            descriptor = os.open(self._data_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return None if _try_lock(descriptor, fcntl.LOCK_SH) else self._read()
        finally:
            os.close(descriptor)

    def left_behind(self) -> InstanceRecord | None:
        """What a holder said of itself that has died since; None when none has, or one is at work."""
        return self._read() if self.running() is None else None

    def _read(self) -> InstanceRecord | None:
        try:
            return InstanceRecord(**json.loads(self._record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None  # not written yet, or by another version: the lock alone counts


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
