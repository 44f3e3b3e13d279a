"""The note of a rename of the configured collection: Chroma and the settings cannot be changed in one step.

Invariant: from before Chroma renames the collection until the settings are known to name it, a file in the data folder
says so. Whoever opens the collection meanwhile is told, instead of making a new one of the old name.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ingestor.core.errors import ConfigError

NOTE_FILE = "renamed.json"


@dataclass(frozen=True, slots=True)
class Renamed:
    """A rename that was begun: Chroma's id of the collection, its name before, and after."""

    id: str
    old: str
    new: str


class RenameNote:
    """The note in a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / NOTE_FILE

    def read(self) -> Renamed | None:
        """The rename that is not known to have ended. Raises `ConfigError` for a file that is no note."""
        try:
            return Renamed(**json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            message = f"the note of a renamed collection, {self._file}, cannot be read"
            remedy = "see with `ingestor collections` that the settings name the right one, and delete the file"
            raise ConfigError(message, remedy=remedy) from error

    def write(self, renamed: Renamed) -> None:
        """Note a rename before it begins; it outlives the machine when this returns."""
        fresh = self._file.with_suffix(f".{os.getpid()}")
        with fresh.open("w", encoding="utf-8") as opened:
            json.dump(asdict(renamed), opened)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(self._file)

    def clear(self) -> None:
        """Forget it; idempotent."""
        self._file.unlink(missing_ok=True)
