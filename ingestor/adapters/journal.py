"""The journal: what a process has begun and has to be ended whoever comes next, in a small file of the data folder.

Invariant: a reader finds the whole of what was written last, or nothing, whenever the writer or the machine died.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ingestor.adapters.durability import sync_folder
from ingestor.core.errors import ConfigError
from ingestor.core.shortage import shortage


class Journal:
    """One file with the fields of what was begun; texts only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, fields: Mapping[str, str]) -> None:
        """Keep fields; on the disk when this returns. Raises `ServiceUnavailable` when the disk is full, `OSError`."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(dict(fields), file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            with suppress(OSError):  # what is left behind is written over, and the first error tells more
                fresh.unlink(missing_ok=True)
            raise shortage(error) or error from error

    def read(self) -> Mapping[str, str] | None:
        """What was written last; None when nothing is under way. Raises `ConfigError` for a file that is no journal."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise ConfigError(
                f"{self._path} is no journal of ingestor", remedy="move it away, then look at `ingestor verify`"
            )
        return found

    def remove(self) -> None:
        """Say that all is ended; idempotent."""
        self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)
