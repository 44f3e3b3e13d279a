"""A `Source` in memory, for tests of the loop: the contract suite holds it to what `Folder` does."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ingestor.adapters.rules import RULES_FILE, Rules, Scope
from ingestor.core.attaching import (
    SETTINGS_FILE,
    SIDECAR_END,
    Ground,
    deepened,
    folder_settings,
    name_of,
    with_converter,
)
from ingestor.core.errors import (
    DocumentError,
    IngestorError,
    OversizeDocument,
    ServiceUnavailable,
    TransientError,
    UnreadableDocument,
    UnstableDocument,
    UnusableMetadata,
)
from ingestor.core.formats import Format, format_of
from ingestor.core.model import Content, Snapshot, Stat


class MemoryFolder:
    """Files as a mapping. Folders are there as long as a file lies below them.

    Faults, set by a test: `is_missing` (the root is gone), `disk` (what is mounted there), `unreadable` (folder ->
    reason), `read_faults` (path -> what its next read raises), `unsettled` (paths still being written), `closed` (files
    that may not be read). Without a clock, `now_ns`, a second passes with each change.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        max_file_bytes: int = 1 << 20,
        ground: Ground | None = None,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        self._ground = ground or Ground()
        self.converters: Mapping[Format, str] = {}
        self.rules = rules or Rules([], [])
        self.max_file_bytes = max_file_bytes
        self.is_missing = False
        self.disk = "the disk"
        self.unreadable: dict[str, str] = {}
        self.read_faults: dict[str, IngestorError] = {}
        self.unsettled: set[str] = set()
        self.closed: set[str] = set()
        self.links: set[str] = set()
        self.reads: list[str] = []
        self._contents: dict[str, tuple[Stat, bytes]] = {}
        self._now_ns = now_ns
        self._wanted: dict[str, bool] = {}
        """Path -> whether the rules want it; the rules are many, and are asked again and again."""
        self._scopes: dict[str, Scope] = {}
        self._ticks = 1_700_000_000_000_000_000

    @property
    def ground(self) -> Ground:
        """What the settings say of every folder."""
        return self._ground

    @ground.setter
    def ground(self, ground: Ground) -> None:
        self._ground = ground
        self._wanted.clear()
        self._scopes.clear()

    @property
    def paths(self) -> list[str]:
        """Everything that lies in it, whether it belongs or not; symbolic links apart."""
        return list(self._contents)

    def raw(self, path: str) -> bytes:
        """What a file holds, whoever may read it."""
        return self._contents[path][1]

    def inode(self, path: str) -> int:
        """What identifies a file, whatever it is called."""
        return self._contents[path][0].inode

    def path_of(self, inode: int) -> str | None:
        """Where a file is now; None when it is gone."""
        return next((path for path, (stat, _) in self._contents.items() if stat.inode == inode), None)

    def write(self, path: str, raw: bytes = b"", *, is_regular: bool = True) -> None:
        """Make or overwrite a file; an overwritten one keeps its inode."""
        self._tick()
        known = self._contents.get(path)
        inode = known[0].inode if known else self._ticks
        self._contents[path] = (Stat(len(raw), self._ticks, self._ticks, 1, inode, is_regular), raw)
        self._forget_rules([path])

    def link(self, path: str) -> None:
        """Make a symbolic link, which is left out."""
        self.links.add(path)

    def delete(self, path: str) -> None:
        """Remove a file, a link, or a folder with all below it."""
        gone = [each for each in self._contents if _covers(path, each)]
        for each in gone:
            del self._contents[each]
        self._forget_rules(gone)
        for kept in (self.links, self.closed, self.unsettled):
            kept.difference_update([each for each in kept if _covers(path, each)])

    def rename(self, old: str, new: str) -> None:
        """Rename a file or a folder: times of change grow, times of modification and inodes stay."""
        self._tick()
        moving = [each for each in self._contents if _covers(old, each)]
        self._forget_rules([*moving, new])
        for each in moving:
            stat, raw = self._contents.pop(each)
            self._contents[new + each.removeprefix(old)] = (replace(stat, ctime_ns=self._ticks), raw)
        for kept in (self.links, self.closed, self.unsettled):
            moved = {each for each in kept if _covers(old, each)}
            kept.difference_update(moved, [each for each in kept if _covers(new, each)])
            kept.update(new + each.removeprefix(old) for each in moved)

    def touch(self, path: str) -> None:
        """New times, same content."""
        self._tick()
        stat, raw = self._contents[path]
        self._contents[path] = (replace(stat, mtime_ns=self._ticks, ctime_ns=self._ticks), raw)

    def lock(self, path: str) -> None:
        """Take everybody's right to open a file."""
        self._tick()
        stat, raw = self._contents[path]
        self._contents[path] = (replace(stat, ctime_ns=self._ticks), raw)
        self.closed.add(path)

    def unlock(self, path: str) -> None:
        """Give the right back."""
        self.lock(path)
        self.closed.discard(path)

    def scan(self, below: str = "") -> Snapshot:
        """See the port."""
        self._check_root()
        found = {path: stat for path, (stat, _) in self._contents.items() if _covers(below, path)}
        faults = self.unreadable | self._faults()
        hidden = {
            folder: reason for folder, reason in faults.items() if _covers(below, folder) or _covers(folder, below)
        }
        files = {
            path: stat.version
            for path, stat in found.items()
            if not any(_covers(folder, path) for folder in hidden) and self._belongs(path)
        }
        orphans = (path for path in found if path.endswith(SIDECAR_END) and path.removesuffix(SIDECAR_END) not in files)
        return Snapshot(
            files=files,
            unreadable=hidden,
            skipped=self._refused_lines()
            | dict.fromkeys(orphans, "a sidecar without a file")
            | dict.fromkeys(sorted(link for link in self.links if _covers(below, link)), "a symbolic link"),
            attached={path: name for path in files if (name := self._attached(path))},
        )

    def look(self, path: str) -> Stat | None:
        """See the port."""
        self._check_root()
        for folder, reason in (self.unreadable | self._faults()).items():
            if _covers(folder, path):
                raise UnreadableDocument(reason)
        found = self._contents.get(path)
        return replace(found[0], attached=self._attached(path)) if found and self._belongs(path) else None

    def looks(self, paths: Sequence[str]) -> list[Stat | DocumentError | TransientError | None]:
        """See the port."""
        found: list[Stat | DocumentError | TransientError | None] = []
        for path in paths:
            try:
                found.append(self.look(path))
            except (DocumentError, TransientError) as error:
                found.append(error)
        return found

    def read(self, path: str) -> Content:
        """See the port."""
        self._check_root()
        self.reads.append(path)
        if path in self.read_faults:
            raise self.read_faults.pop(path)
        try:
            path.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UnreadableDocument("the name of the file is not valid UTF-8") from error
        if path in self.links:
            raise UnreadableDocument("it is a symbolic link, not a regular file")
        if path not in self._contents:
            raise UnstableDocument("the file vanished before it was read", retry_after_seconds=0.2)
        stat, raw = self._contents[path]
        if path in self.closed:
            raise UnreadableDocument("the file cannot be read: Permission denied", is_unknown=True)
        if not stat.is_regular:
            raise UnreadableDocument("it is a FIFO (named pipe), not a regular file")
        if len(raw) > self.max_file_bytes:
            raise OversizeDocument("the file is too large")
        if path in self.unsettled:
            raise UnstableDocument("the file was written a moment ago", retry_after_seconds=0.1)
        return self.content(path)

    def content(self, path: str) -> Content:
        """What a read gives that nothing keeps from it."""
        stat, raw = self._contents[path]
        sidecar = self._sidecar(path)
        return Content(
            replace(stat, attached=self._attached(path)),
            raw,
            hashlib.sha256(raw).hexdigest(),
            attached=self._scope(path).attached,
            sidecar=sidecar[1] if sidecar else None,
        )

    def _forget_rules(self, changed: Sequence[str]) -> None:
        if any(path.rpartition("/")[2] in {RULES_FILE, SETTINGS_FILE} for path in changed):
            self._wanted.clear()
            self._scopes.clear()

    def _tick(self) -> None:
        next_ns = self._ticks + 1_000_000_000 if self._now_ns is None else self._now_ns()
        self._ticks = max(self._ticks + 1, next_ns)

    def place(self) -> str:
        self._check_root()
        return self.disk

    def _check_root(self) -> None:
        if self.is_missing:
            raise ServiceUnavailable("the watched folder is not there")

    def _belongs(self, path: str) -> bool:
        if path not in self._wanted:
            self._wanted[path] = self._is_wanted(path)
        return self._wanted[path]

    def _is_wanted(self, path: str) -> bool:
        *folders, name = path.split("/")
        if name.endswith(SIDECAR_END) or name == SETTINGS_FILE:
            return False
        scope = self._entered("", self._root_scope)
        folder = ""
        for each in folders:
            folder = f"{folder}/{each}" if folder else each
            if scope.leaves_out(folder, each, is_folder=True):
                return False
            scope = self._entered(folder, scope)
        return not scope.leaves_out(path, name, is_folder=False) and self.rules.wants(path)

    @property
    def _root_scope(self) -> Scope:
        return replace(self.rules.scope, attached=self.ground.attached)

    def _entered(self, folder: str, scope: Scope) -> Scope:
        prefix = f"{folder}/" if folder else ""
        settled = self._contents.get(prefix + SETTINGS_FILE)
        if settled:
            own = folder_settings(settled[1], prefix + SETTINGS_FILE)
            if own.ignore:
                scope = scope.deepen(folder, "\n".join(own.ignore).encode())[0]
            try:
                attached = deepened(scope.attached, own, self.ground, prefix + SETTINGS_FILE)
            except UnusableMetadata:
                attached = replace(scope.attached, is_known=False)
            scope = replace(scope, attached=attached)
        found = self._contents.get(prefix + RULES_FILE)
        return scope.deepen(folder, found[1])[0] if found else scope

    def _scope(self, path: str) -> Scope:
        """What holds in the folder of a file."""
        folder = path.rpartition("/")[0]
        if folder not in self._scopes:
            self._scopes[folder] = self._deepest(path)
        return self._scopes[folder]

    def _deepest(self, path: str) -> Scope:
        scope = self._entered("", self._root_scope)
        names = path.split("/")[:-1]
        for depth in range(1, len(names) + 1):
            scope = self._entered("/".join(names[:depth]), scope)
        return scope

    def _attached(self, path: str) -> str:
        sidecar = self._sidecar(path)
        format_ = format_of(path)
        converter = self.converters.get(format_, "") if format_ else ""
        return with_converter(name_of(self._scope(path).attached, sidecar[0].version if sidecar else None), converter)

    def _sidecar(self, path: str) -> tuple[Stat, bytes] | None:
        sidecar = path + SIDECAR_END
        if sidecar not in self._contents:
            return None
        is_left_out = self._scope(path).leaves_out(sidecar, sidecar.rpartition("/")[2], is_folder=False)
        return None if is_left_out else self._contents[sidecar]

    def _faults(self) -> dict[str, str]:
        """Settings files with a fault: by their own path, or by their folder where they may leave files out."""
        faults: dict[str, str] = {}
        for path, (_, raw) in self._contents.items():
            folder, _, name = path.rpartition("/")
            if name != SETTINGS_FILE:
                continue
            try:
                own = folder_settings(raw, path)
            except UnusableMetadata as fault:
                faults[folder] = fault.sentence
                continue
            try:
                deepened(self.ground.attached, own, self.ground, path)
            except UnusableMetadata as fault:
                faults[path] = fault.sentence
        return faults

    def _refused_lines(self) -> dict[str, str]:
        refused = {}
        for path, (_, raw) in self._contents.items():
            name = path.rpartition("/")[2]
            if name == SETTINGS_FILE:
                try:
                    lines = "\n".join(folder_settings(raw, path).ignore).encode()
                except UnusableMetadata:
                    continue
            elif name == RULES_FILE:
                lines = raw
            else:
                continue
            if found := self.rules.scope.deepen("", lines)[1]:
                refused[path] = "; ".join(found)
        return refused


def _covers(folder: str, path: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")
