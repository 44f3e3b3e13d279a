"""The watched folder on the real file system: the `Source` port.

Invariants: a scan and a look-up judge every path alike; nothing that could not be looked at is taken for absent; no
symbolic link leads out of the root.
"""

# File names are bytes in disguise and the loops are hot: os instead of pathlib.
# ruff: noqa: PTH116

import errno
import os
import stat as modes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ingestor.adapters.reading import GONE, PERMISSION_REMEDY, READ_FLAGS, FileReader, kind_of, stat_of
from ingestor.adapters.rules import RULES_FILE, Rules, Scope
from ingestor.core.errors import IngestorError, ServiceUnavailable, UnreadableDocument
from ingestor.core.formats import Format, format_of
from ingestor.core.model import Content, Snapshot, Stat, Version
from ingestor.core.shortage import shortage

AnyPath: TypeAlias = str | os.PathLike[str]

MAX_RULES_FILE_BYTES: Final = 1 << 20

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ROOT_REMEDY: Final = "mount the disk or make the folder; nothing is deleted from the collection meanwhile"


class _UnknownFolder(Exception):
    """What is in a folder cannot be told; `reason` goes on where "the folder ..." ends."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(reason)
        self.folder = folder
        self.reason = reason


class _LinkLeftOut(Exception):
    """A symbolic link does not belong to the source; the message says why."""


@dataclass(frozen=True, slots=True)
class _Survey:
    """A snapshot in the making."""

    files: dict[str, Version] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """Something that exists and that no rule leaves out.

    `scope` holds in the folder it lies in. `is_linked`: it is, or lies below, a symbolic link that is followed.
    `status` is that of the link's target, or of the link itself when the target lies outside the root.
    """

    path: str
    scope: Scope
    is_linked: bool
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return modes.S_ISDIR(self.status.st_mode)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A folder still to be surveyed; `scope` holds in the folder it lies in."""

    folder: str
    scope: Scope
    is_linked: bool


class Folder:
    """A folder of the real file system. Thread-safe: it keeps nothing between calls.

    `left_out` are folders that never belong to the source, such as our own when they lie inside the root. Files of a
    format in `unconverted` are listed as such and not among the files. With
    `follow_symlinks` a link to what lies inside the root is followed, except below another followed link: what it leads
    to has a name of its own, and circles end. `now_ns` (since the epoch) and `sleep` serve to judge a file's age.
    """

    def __init__(  # noqa: PLR0913 - the settings of a source, named one by one, and its clock
        self,
        root: AnyPath,
        rules: Rules,
        *,
        follow_symlinks: bool,
        max_file_bytes: int,
        left_out: Sequence[AnyPath] = (),
        unconverted: frozenset[Format] = frozenset(),
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 - without resolving: a link may be turned elsewhere
        self._prefix = self._root.rstrip("/") + "/"
        self._rules = rules
        self._follows = follow_symlinks
        self._unconverted = unconverted
        prefix = self._real_prefix()
        self._left_out = frozenset(
            real.removeprefix(prefix)
            for real in map(os.path.realpath, left_out)
            if real.startswith(prefix) and real != prefix
        )
        self._reader = FileReader(self._root, follow_symlinks, max_file_bytes, now_ns, sleep)

    def scan(self, below: str = "") -> Snapshot:
        """Stat everything at or below `below`; see the port."""
        identity = self._root_identity()
        survey = _Survey()
        if not below:
            self._walk(_Branch("", self._rules.scope, is_linked=False), survey)
        elif _is_spelled_well(below):
            self._scan_part(below, survey)
        # A disk unmounted during the scan looks like folders deleted one after the other.
        self._check_root_is(identity)
        files, unconverted = survey.files, frozenset[str]()
        if self._unconverted:
            unconverted = frozenset(path for path in files if format_of(path) in self._unconverted)
            files = {path: version for path, version in files.items() if path not in unconverted}
        return Snapshot(files, survey.unreadable, survey.skipped, unconverted)

    def look(self, path: str) -> Stat | None:
        """Stat one path; see the port."""
        identity = self._root_identity()
        if not _is_spelled_well(path):
            return None
        try:
            place = self._find(path, {})
        except _UnknownFolder as unknown:
            if isinstance(unknown.__cause__, OSError) and (passing := shortage(unknown.__cause__)) is not None:
                raise passing from unknown  # nothing is wrong with the document: it keeps its records
            raise UnreadableDocument(
                f"the folder {printable(unknown.folder or self._root)} {unknown.reason}", remedy=PERMISSION_REMEDY
            ) from unknown
        if place is None:
            self._check_root_is(identity)
            return None
        return None if place.is_folder or not self._rules.wants(path) else stat_of(place.status)

    def read(self, path: str) -> Content:
        """Read a file whole; see the port."""
        if not _is_spelled_well(path):
            raise UnreadableDocument("the path does not name a file inside the watched folder")
        if printable(path) != path:
            raise UnreadableDocument(
                "the name of the file is not valid UTF-8, and Chroma refuses such names",
                remedy="rename the file (convmv renames whole folders)",
            )
        try:
            return self._reader.read(path)
        except IngestorError:
            self._root_identity()
            raise

    def _real_prefix(self) -> str:
        """What every real path inside the root begins with."""
        return os.path.realpath(self._root).rstrip("/") + "/"

    def _root_identity(self) -> tuple[int, int]:
        """Device and inode of the root; raises `ServiceUnavailable` when it is missing or no folder."""
        try:
            status = os.stat(self._root)
        except OSError as error:
            raise ServiceUnavailable(
                f"the watched folder {printable(self._root)} is not there: {error.strerror}", remedy=_ROOT_REMEDY
            ) from error
        if not modes.S_ISDIR(status.st_mode):
            raise ServiceUnavailable(f"the watched folder {printable(self._root)} is no folder", remedy=_ROOT_REMEDY)
        return status.st_dev, status.st_ino

    def _check_root_is(self, identity: tuple[int, int]) -> None:
        """Raise `ServiceUnavailable` when the root is another one than at the start: what was seen means nothing."""
        if self._root_identity() != identity:
            raise ServiceUnavailable(
                f"the watched folder {printable(self._root)} was replaced while it was looked at", remedy=_ROOT_REMEDY
            )

    def _find(self, path: str, skipped: dict[str, str]) -> _Place | None:
        """What is at a path, judged exactly as a walk from the root judges it; None when nothing there belongs.

        Raises `_UnknownFolder` when it cannot be told. Adds symbolic links that do not count to `skipped`.
        """
        folder = ""
        scope = self._rules.scope
        place: _Place | None = None
        for name in path.split("/"):
            if place is not None and not place.is_folder:
                return None
            scope = self._enter(folder, scope, skipped)
            child = f"{folder}/{name}" if folder else name
            try:
                link = _Place(child, scope, place is not None and place.is_linked, os.lstat(self._prefix + child))
                place = self._judge(link, name, skipped)
            except OSError as error:
                if error.errno in GONE:
                    return None
                raise _UnknownFolder(folder, f"does not let its files be looked at: {error.strerror}") from error
            if place is None:
                return None
            folder = child
        return place

    def _judge(self, found: _Place, name: str, skipped: dict[str, str]) -> _Place | None:
        """Follow what is found, when it is a symbolic link, and apply the rules; None when it does not belong."""
        place = found
        if modes.S_ISLNK(found.status.st_mode):
            try:
                place = self._followed(found)
            except _LinkLeftOut as reason:
                if not found.scope.leaves_out(found.path, name, is_folder=False):
                    skipped[found.path] = str(reason)
                return None
        is_folder = place.is_folder
        if found.scope.leaves_out(found.path, name, is_folder=is_folder):
            return None
        return None if is_folder and self._never_belongs(place.path, is_linked=place.is_linked) else place

    def _never_belongs(self, folder: str, *, is_linked: bool) -> bool:
        """Whether a folder is one of `left_out`, under its own name or below a symbolic link."""
        if not self._left_out:
            return False
        real = os.path.realpath(self._prefix + folder).removeprefix(self._real_prefix()) if is_linked else folder
        return any(f"{real}/".startswith(f"{each}/") for each in self._left_out)

    def _followed(self, link: _Place) -> _Place:
        """What a symbolic link stands for. Raises `_LinkLeftOut`, or OSError when it cannot be told."""
        if not self._follows:
            raise _LinkLeftOut("a symbolic link; watch.follow_symlinks is off")
        if link.is_linked:
            raise _LinkLeftOut("a symbolic link below another one that is followed already")
        prefix = self._real_prefix()
        absolute = prefix + link.path
        try:
            status = os.stat(absolute)
        except OSError as error:
            if error.errno in GONE:
                raise _LinkLeftOut("a symbolic link that leads to nothing") from error
            if error.errno == errno.ELOOP:
                raise _LinkLeftOut("a symbolic link that leads in a circle") from error
            raise
        real = os.path.realpath(absolute)
        if absolute.startswith(real.rstrip("/") + "/"):
            raise _LinkLeftOut("a symbolic link to a folder that it lies in")
        is_inside = real.startswith(prefix)
        if is_inside and not modes.S_ISDIR(status.st_mode) and self._never_belongs(link.path, is_linked=True):
            raise _LinkLeftOut("a symbolic link into a folder that never belongs to the source")
        return _Place(link.path, link.scope, is_linked=True, status=status if is_inside else link.status)

    def _enter(self, folder: str, scope: Scope, skipped: dict[str, str]) -> Scope:
        """The scope inside a folder. Raises `_UnknownFolder` when it has a `.ingestorignore` that cannot be read.

        To go on without it could send to a model what somebody wanted to keep back.
        """
        path = f"{folder}/{RULES_FILE}" if folder else RULES_FILE
        try:
            raw = _rules_file(self._prefix + path)
        except OSError as error:
            if error.errno in GONE:
                return scope
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise _UnknownFolder(folder, f"has a {RULES_FILE} that cannot be read: {why}") from error
        inner, refused = scope.deepen(folder, raw)
        if refused:
            skipped[path] = printable("; ".join(refused))
        return inner

    def _scan_part(self, below: str, survey: _Survey) -> None:
        """Survey what is at or below a path that is not the root."""
        try:
            place = self._find(below, survey.skipped)
        except _UnknownFolder as unknown:
            survey.unreadable[unknown.folder] = unknown.reason
            return
        if place is None:
            return
        if place.is_folder:
            self._walk(_Branch(below, place.scope, place.is_linked), survey)
        elif self._rules.wants(below):
            survey.files[below] = _version_of(place.status)

    def _walk(self, top: _Branch, survey: _Survey) -> None:
        """Survey a folder and all below it."""
        pending = [top]
        while pending:
            try:
                pending += self._survey_folder(pending.pop(), survey)
            except _UnknownFolder as unknown:
                survey.unreadable[unknown.folder] = unknown.reason

    def _survey_folder(self, branch: _Branch, survey: _Survey) -> list[_Branch]:
        """Survey the files directly in a folder and return its subfolders; raises `_UnknownFolder`."""
        folder, is_linked = branch.folder, branch.is_linked
        prefix = f"{folder}/" if folder else ""
        branches = []
        with self._listed(folder) as entries:
            scope = self._enter(folder, branch.scope, survey.skipped)
            files, leaves_out, wants = survey.files, scope.leaves_out, self._rules.wants
            for entry in entries:
                name = entry.name
                path = prefix + name
                try:
                    is_file = entry.is_file(follow_symlinks=False)  # first: nearly everything is one
                    if not is_file and entry.is_symlink():
                        link = _Place(path, scope, is_linked, entry.stat(follow_symlinks=False))
                        place = self._judge(link, name, survey.skipped)
                        if place is not None and place.is_folder:
                            branches.append(_Branch(path, scope, is_linked=True))
                        elif place is not None and wants(path):
                            files[path] = _version_of(place.status)
                    elif not is_file and entry.is_dir(follow_symlinks=False):
                        if not leaves_out(path, name, is_folder=True) and not self._never_belongs(
                            path, is_linked=is_linked
                        ):
                            branches.append(_Branch(path, scope, is_linked))
                    elif not leaves_out(path, name, is_folder=False) and wants(path):
                        files[path] = _version_of(entry.stat(follow_symlinks=False))
                except OSError as error:
                    if error.errno not in GONE:
                        survey.unreadable[folder] = f"does not let its files be looked at: {error.strerror}"
        return branches

    @contextmanager
    def _listed(self, folder: str) -> Iterator[list[os.DirEntry[str]]]:
        """What lies directly in a folder; nothing when it has vanished. Raises `_UnknownFolder`.

        The folder stays open for the time of the block: its entries are found from there, not along the whole path.
        """
        with ExitStack() as opened:
            try:
                descriptor = os.open(self._prefix + folder, _FOLDER_FLAGS)
                opened.callback(os.close, descriptor)
                with os.scandir(descriptor) as listing:
                    entries = list(listing)
            except OSError as error:
                if error.errno not in GONE or not folder:
                    self._root_identity()
                    raise _UnknownFolder(folder, f"cannot be listed: {error.strerror}") from error
                entries = []
            yield entries


def _version_of(status: os.stat_result) -> Version:
    """`Stat.version`, without the stat."""
    mode = status.st_mode
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, modes.S_ISREG(mode)


def printable(path: str) -> str:
    r"""A path for a message: bytes that are no UTF-8 as \xNN, so that any log or terminal takes it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_spelled_well(path: str) -> bool:
    """Whether a path is spelled as the model spells paths: relative, without ".", ".." or empty names."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # A surrogate that stands for no byte: no file has such a name.
        return False
    return b"\0" not in raw and not any(name in {b"", b".", b".."} for name in raw.split(b"/"))


def _rules_file(absolute: str) -> bytes:
    """The bytes of a `.ingestorignore`; raises OSError, also when it is no regular file or too large to be one."""
    descriptor = os.open(absolute, READ_FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if not modes.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"it is {kind_of(mode)}")
        with open(descriptor, "rb", closefd=False) as file:
            raw = file.read(MAX_RULES_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_RULES_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_RULES_FILE_BYTES:,} bytes")
    return raw
