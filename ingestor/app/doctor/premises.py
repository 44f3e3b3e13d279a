"""Premises: what the checks look at, taken once.

Invariant: nothing is made, locked or changed by taking them. A folder that cannot be had is a failure of its own, and
the checks that need it have nothing to look at.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingestor.adapters.folder import Folder
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.adapters.watch_audit import walk_folders
from ingestor.app.parts import folder_of
from ingestor.core.model import Snapshot
from ingestor.settings import Loaded, Settings


@dataclass(frozen=True, slots=True)
class Survey:
    """A watched folder that could be listed."""

    settings: Settings
    folder: Folder
    snapshot: Snapshot
    folders: int
    """Folders at and below the root, those left out included: each needs a watch."""
    unreadable_files: Sequence[str]

    @property
    def size_bytes(self) -> int:
        """Size of all files that are small enough to be indexed."""
        most = self.settings.watch.max_file_bytes
        return sum(size for _, size, *_ in self.snapshot.files.values() if size <= most)


@dataclass(frozen=True, slots=True)
class Premises:
    """What is checked, and how far a check may go."""

    loaded: Loaded
    sources: Sequence[Settings]
    is_calling: bool
    """Whether an endpoint may be called, which costs a few tokens."""
    tries_folders: bool
    """Whether something may be written into the watched folders, and taken away again."""
    surveys: list[Survey] = field(default_factory=list)
    dimensions: dict[str, int] = field(default_factory=dict)
    """Length of the vectors that a collection holds, by its name: noted where Chroma is looked at."""

    @property
    def settings(self) -> Settings:
        """The settings that all sources share."""
        return self.loaded.settings

    @property
    def first(self) -> Settings:
        """The settings of the first source."""
        return self.sources[0]

    @property
    def has_own_chroma(self) -> bool:
        """Whether the Chroma folder is ours."""
        return self.settings.chroma.mode in {"managed", "persistent"}

    def running(self) -> InstanceRecord | None:
        """Who works on the data folder."""
        return Instance(self.settings.data_dir).running()


def survey(settings: Settings) -> Survey:
    """Look at a watched folder. Raises `ConfigError` or `ServiceUnavailable` when it is not there."""
    folder = folder_of(settings)
    snapshot = folder.scan()
    root = os.path.realpath(settings.watch_dir)
    follows = settings.watch.follow_symlinks
    return Survey(
        settings=settings,
        folder=folder,
        snapshot=snapshot,
        folders=sum(1 for _ in walk_folders(os.fsencode(root), follows_symlinks=follows)),
        unreadable_files=[path for path in snapshot.files if not os.access(f"{root}/{path}", os.R_OK)],
    )
