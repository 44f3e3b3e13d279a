"""The owner file: who a data folder is, and what it remembers of the collections that it fills.

It lies in the data folder, and so goes where that goes; ledgers hold the id as well, so that either may be lost.

Invariant: the file changes only when a collection was claimed or refused, and is whole whenever the process dies.
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from ingestor.adapters.journal import Journal
from ingestor.core.errors import ConfigError
from ingestor.core.owning import Recalled

OWNER_FILE = "owner.json"
_ID, _FORMER, _PATH, _RIVAL, _RIVAL_BEAT = "id", "former", "path", "rival", "rival_beat_seconds"
_AT, _REFUSED = "at ", "refused "
"""What the keys begin with that are about one collection, before its name."""
_MACHINE_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_PLACE_BYTES = 8


class OwnerFile:
    """That of a data folder. Raises `ServiceUnavailable` when the disk is full."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._journal = Journal(data_dir / OWNER_FILE)

    @property
    def id(self) -> str:
        """Of the data folder; empty when the file is lost or damaged."""
        return self._fields().get(_ID, "")

    @property
    def former(self) -> frozenset[str]:
        """Tags of owners that it has taken records over from."""
        return frozenset(self._fields().get(_FORMER, "").split())

    def recalled(self, collection: str) -> Recalled:
        """What it remembers of a collection, by name."""
        fields = self._fields()
        beat = fields.get(_RIVAL_BEAT, "")
        return Recalled(
            place=fields.get(_AT + collection, ""),
            rival=fields.get(_RIVAL, ""),
            rival_beat_seconds=float(beat) if beat.isdecimal() else 0.0,
        )

    def refused(self, collection: str) -> str:
        """Why the last process that was to fill a collection was refused; empty when it was not."""
        return self._fields().get(_REFUSED + collection, "")

    def original(self) -> str:
        """The other data folder on this machine that this one was copied from; empty when it was not, or is unknown."""
        fields = self._fields()
        before = Path(fields.get(_PATH, ""))
        if not fields.get(_PATH) or OwnerFile(before).id != fields.get(_ID):
            return ""
        try:
            return "" if before.samefile(self._data_dir) else str(before)
        except OSError:
            return ""  # it has gone meanwhile

    def claimed(self, collection: str, owner_id: str, place: str, former: frozenset[str]) -> None:
        """Remember that the data folder fills a collection, from where it lies now."""
        fields = self._fields()
        fresh = {name: value for name, value in fields.items() if name not in {_RIVAL, _RIVAL_BEAT}}
        fresh.pop(_REFUSED + collection, None)
        fresh |= {_ID: owner_id, _PATH: os.path.realpath(self._data_dir), _AT + collection: place}
        fresh |= {_FORMER: " ".join(sorted(former))} if former else {}
        if fresh != fields:
            self._journal.write(fresh)

    def note_rival(self, process: str, beat_seconds: float) -> None:
        """Remember a process with this id that was seen at work elsewhere, and its sign of life that was seen first."""
        fields = self._fields()
        if fields.get(_RIVAL) != process:
            self._journal.write({**fields, _RIVAL: process, _RIVAL_BEAT: str(round(beat_seconds))})

    def note_refusal(self, collection: str, sentence: str) -> None:
        """Remember that a process which was to fill a collection was refused."""
        fields = self._fields()
        if fields.get(_REFUSED + collection) != sentence:
            self._journal.write({**fields, _REFUSED + collection: sentence})

    def _fields(self) -> Mapping[str, str]:
        try:
            return self._journal.read() or {}
        except (ConfigError, OSError):
            return {}  # damaged or out of reach is as good as lost: the ledgers know the id, too


def place_of(data_dir: Path) -> str:
    """A name for where a data folder lies: another one for its copy on another machine, or elsewhere on this one."""
    try:
        inode = data_dir.stat().st_ino
    except FileNotFoundError:
        inode = 0
    described = f"{_machine()}\0{os.path.realpath(data_dir)}\0{inode}"
    return hashlib.blake2b(described.encode(errors="surrogateescape"), digest_size=_PLACE_BYTES).hexdigest()


def where_of(data_dir: Path) -> str:
    """Where a data folder lies, for people."""
    return f"{socket.gethostname()}:{os.path.realpath(data_dir)}"


def _machine() -> str:
    """The machine's own id; empty where it has none, as in many containers."""
    for file in _MACHINE_FILES:
        try:
            return file.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
    return ""
