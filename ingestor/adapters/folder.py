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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, TypeAlias

from ingestor.adapters.mounts import mounts_below, read_mounts
from ingestor.adapters.reading import GONE, PERMISSION_REMEDY, READ_FLAGS, FileReader, kind_of, stat_of
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
    ServiceUnavailable,
    TransientError,
    UnreadableDocument,
    UnusableMetadata,
)
from ingestor.core.formats import Format, format_of, formats_of
from ingestor.core.model import NOTHING, Attached, Content, Snapshot, Stat, Version
from ingestor.core.shortage import shortage

AnyPath: TypeAlias = str | os.PathLike[str]

MAX_RULES_FILE_BYTES: Final = 1 << 20

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ATTACHED_ENDS: Final = (SIDECAR_END, f"/{SETTINGS_FILE}")
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
    attached: dict[str, str] = field(default_factory=dict)


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
class _Ways:
    """Folders that were passed on the way to files, and what holds inside each."""

    folders: dict[str, _Place] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A folder still to be surveyed; `scope` holds in the folder it lies in."""

    folder: str
    scope: Scope
    is_linked: bool


class Folder:
    """A folder of the real file system. Thread-safe: it keeps nothing between calls.

    `left_out` are folders that never belong to the source, such as our own when they lie inside the root. Files of a
    format in `unconverted` are listed as such and not among the files; `converters` name what converts those of other
    formats, and their names belong to what is attached to such files. With
    `follow_symlinks` a link to what lies inside the root is followed, except below another followed link: what it leads
    to has a name of its own, and circles end. `ground` is what holds where no folder says otherwise. `now_ns` (since
    the epoch) and `sleep` serve to judge a file's age.
    """

    def __init__(  # noqa: PLR0913 - the settings of a source, named one by one, and its clock
        self,
        root: AnyPath,
        rules: Rules,
        *,
        follow_symlinks: bool,
        max_file_bytes: int,
        left_out: Sequence[AnyPath] = (),
        ground: Ground = Ground(),  # noqa: B008 - a frozen value
        unconverted: frozenset[Format] = frozenset(),
        converters: Mapping[Format, str] = MappingProxyType({}),
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 - without resolving: a link may be turned elsewhere
        self._prefix = self._root.rstrip("/") + "/"
        self._rules = rules
        self._ground = ground
        self._scope = replace(rules.scope, attached=ground.attached)
        self._follows = follow_symlinks
        self._unconverted = unconverted
        self._converters = converters
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
            self._walk(_Branch("", self._scope, is_linked=False), survey)
        elif _is_spelled_well(below):
            self._scan_part(below, survey)
        # A disk unmounted during the scan looks like folders deleted one after the other.
        self._check_root_is(identity)
        files, attached = survey.files, survey.attached
        formats = formats_of(files)
        unconverted = frozenset(path for path, format_ in formats.items() if format_ in self._unconverted)
        if unconverted:
            files = {path: version for path, version in files.items() if path not in unconverted}
        for path, format_ in formats.items():
            if converter := self._converters.get(format_):
                attached[path] = with_converter(attached.get(path, ""), converter)
        return Snapshot(files, survey.unreadable, survey.skipped, attached, unconverted)

    def look(self, path: str) -> Stat | None:
        """Stat one path; see the port."""
        identity = self._root_identity()
        found = self._look(path, _Ways())
        if found is None:
            self._check_root_is(identity)
        return found

    def looks(self, paths: Sequence[str]) -> list[Stat | DocumentError | TransientError | None]:
        """Look at many paths; see the port."""
        ways = _Ways()
        found: list[Stat | DocumentError | TransientError | None] = []
        try:
            identity = self._root_identity()
            for path in paths:
                try:
                    found.append(self._look(path, ways))
                except (DocumentError, TransientError) as error:
                    found.append(error)
            if None in found:
                self._check_root_is(identity)
        except TransientError as error:
            return [error] * len(paths)
        return found

    def place(self) -> str:
        """See the port; mounts are told by their points and kinds."""
        device, inode = self._root_identity()
        below = mounts_below(os.path.realpath(self._root), read_mounts())
        return "\n".join((f"{device} {inode}", *(f"{mount.kind} {mount.point}" for mount in below)))

    def _look(self, path: str, ways: _Ways) -> Stat | None:
        if not _is_spelled_well(path):
            return None
        with self._unknown_told():
            place = self._find(path, _Survey(), ways)
            if place is None or place.is_folder or not self._rules.wants(path):
                return None
            name = self._name_of(path, place.scope.attached, self._sidecar_of(place))
            return replace(stat_of(place.status), attached=name)

    def rule_against(self, path: str, *, is_folder: bool = False) -> str:
        """What leaves a path out, whether there is anything or not, in words; "" when it would belong.

        Says nothing of symbolic links, which a scan tells of. Raises `UnreadableDocument` when it cannot be told.
        """
        folder, scope, names = "", self._scope, path.split("/")
        with self._unknown_told():
            for depth, name in enumerate(names, 1):
                scope = self._enter(folder, scope, _Survey())
                folder = f"{folder}/{name}" if folder else name
                if rule := scope.rule_against(folder, name, is_folder=is_folder or depth < len(names)):
                    return rule
        if self._never_belongs(folder, is_linked=False):
            return "it lies in a folder of our own"
        if is_folder or self._rules.wants(path):
            return "it speaks of other files, and is none itself" if _is_attached(path) else ""
        return "no pattern of watch.include covers it"

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
            content = self._reader.read(path)
            with self._unknown_told():
                place = self._find(path, _Survey())
                sidecar = place and self._sidecar_of(place)
            attached = place.scope.attached if place else NOTHING
            beside = self._read_sidecar(path) if sidecar else None
        except IngestorError:
            self._root_identity()
            raise
        name = self._name_of(path, attached, beside.stat.version if beside else None)
        stat = replace(content.stat, attached=name)
        return replace(content, stat=stat, attached=attached, sidecar=beside.raw if beside else None)

    def _name_of(self, path: str, attached: Attached, sidecar: Version | None) -> str:
        """Name all that is attached to a file."""
        format_ = format_of(path)
        converter = self._converters.get(format_, "") if format_ else ""
        return with_converter(name_of(attached, sidecar), converter)

    def _read_sidecar(self, path: str) -> Content:
        try:
            return self._reader.read(path + SIDECAR_END)
        except DocumentError as error:
            message = f"its sidecar {printable(path + SIDECAR_END)} cannot be read: {error}"
            raise UnusableMetadata(message, remedy=error.remedy, is_unknown=error.is_unknown) from error

    @contextmanager
    def _unknown_told(self) -> Iterator[None]:
        """Make what cannot be told of a folder an error of the document that is asked for."""
        try:
            yield
        except _UnknownFolder as unknown:
            if isinstance(unknown.__cause__, OSError) and (passing := shortage(unknown.__cause__)) is not None:
                raise passing from unknown  # nothing is wrong with the document: it keeps its records
            raise UnreadableDocument(
                f"the folder {printable(unknown.folder or self._root)} {unknown.reason}", remedy=PERMISSION_REMEDY
            ) from unknown

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

    def _find(self, path: str, survey: _Survey, ways: _Ways | None = None) -> _Place | None:
        """What is at a path, judged exactly as a walk from the root judges it; None when nothing there belongs.

        Raises `_UnknownFolder` when it cannot be told. Adds what does not count on the way to `survey`. The folders on
        the way are taken from `ways` where they are known.
        """
        ways = ways or _Ways()
        folder = ""
        scope = self._scope
        place: _Place | None = None
        for name in path.split("/"):
            if place is not None and not place.is_folder:
                return None
            if (inner := ways.scopes.get(folder)) is None:
                inner = ways.scopes[folder] = self._enter(folder, scope, survey)
            scope = inner
            child = f"{folder}/{name}" if folder else name
            if child not in ways.folders:
                try:
                    link = _Place(child, scope, place is not None and place.is_linked, os.lstat(self._prefix + child))
                    place = self._judge(link, name, survey.skipped)
                except OSError as error:
                    if error.errno in GONE:
                        return None
                    raise _UnknownFolder(folder, f"does not let its files be looked at: {error.strerror}") from error
                if place is None:
                    return None
                if place.is_folder:
                    ways.folders[child] = place
            place = ways.folders.get(child, place)
            folder = child
        is_attached = place is not None and not place.is_folder and _is_attached(path)
        return None if is_attached else place

    def _sidecar_of(self, place: _Place) -> Version | None:
        """The version of a file's sidecar, judged as a walk judges it; None where there is none that counts.

        Raises `_UnknownFolder` when it cannot be told.
        """
        path = place.path + SIDECAR_END
        folder, _, name = path.rpartition("/")
        try:
            status = os.lstat(self._prefix + path)
        except OSError as error:
            if error.errno in GONE or error.errno == errno.ENAMETOOLONG:
                return None
            raise _UnknownFolder(folder, f"does not let its files be looked at: {error.strerror}") from error
        is_no_file = modes.S_ISLNK(status.st_mode) or modes.S_ISDIR(status.st_mode)
        return None if is_no_file or place.scope.leaves_out(path, name, is_folder=False) else _version_of(status)

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
        if not modes.S_ISDIR(status.st_mode) and _is_attached(link.path):
            raise _LinkLeftOut("a symbolic link, and what is attached to a file has to be a file itself")
        real = os.path.realpath(absolute)
        if absolute.startswith(real.rstrip("/") + "/"):
            raise _LinkLeftOut("a symbolic link to a folder that it lies in")
        is_inside = real.startswith(prefix)
        if is_inside and not modes.S_ISDIR(status.st_mode) and self._never_belongs(link.path, is_linked=True):
            raise _LinkLeftOut("a symbolic link into a folder that never belongs to the source")
        return _Place(link.path, link.scope, is_linked=True, status=status if is_inside else link.status)

    def _enter(self, folder: str, scope: Scope, survey: _Survey) -> Scope:
        """The scope inside a folder. Raises `_UnknownFolder` when it cannot be told what its files say of it.

        To go on without them could send to a model what somebody wanted to keep back.
        """
        inner = scope
        if (raw := self._rules_file(folder, SETTINGS_FILE)) is not None:
            inner = self._settled(folder, inner, raw, survey)
        if (raw := self._rules_file(folder, RULES_FILE)) is not None:
            inner = _deepened(folder, inner, raw, RULES_FILE, survey)
        return inner

    def _settled(self, folder: str, scope: Scope, raw: bytes, survey: _Survey) -> Scope:
        """The scope inside a folder with a `.ingestor.toml`."""
        path = f"{folder}/{SETTINGS_FILE}" if folder else SETTINGS_FILE
        try:
            own = folder_settings(raw, path)
        except UnusableMetadata as fault:
            reason = f"has a {SETTINGS_FILE} that may leave files out, and cannot be told: {fault.sentence}"
            raise _UnknownFolder(folder, reason) from fault
        try:
            attached = deepened(scope.attached, own, self._ground, path)
        except UnusableMetadata as fault:
            survey.unreadable[path] = fault.sentence
            attached = replace(scope.attached, is_known=False)
        lines = "\n".join(own.ignore).encode("utf-8", "surrogateescape")
        inner = _deepened(folder, scope, lines, SETTINGS_FILE, survey) if own.ignore else scope
        return replace(inner, attached=attached)

    def _rules_file(self, folder: str, name: str) -> bytes | None:
        """The bytes of a file of rules in a folder; None when there is none. Raises `_UnknownFolder`."""
        try:
            return _small_file(f"{self._prefix}{folder}/{name}" if folder else self._prefix + name)
        except OSError as error:
            if error.errno in GONE:
                return None
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise _UnknownFolder(folder, f"has a {name} that cannot be read: {why}") from error

    def _scan_part(self, below: str, survey: _Survey) -> None:
        """Survey what is at or below a path that is not the root."""
        try:
            place = self._find(below, survey)
            if place is not None and not place.is_folder and self._rules.wants(below):
                survey.files[below] = _version_of(place.status)
                if name := name_of(place.scope.attached, self._sidecar_of(place)):
                    survey.attached[below] = name
        except _UnknownFolder as unknown:
            survey.unreadable[unknown.folder] = unknown.reason
            return
        if place is not None and place.is_folder:
            self._walk(_Branch(below, place.scope, place.is_linked), survey)

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
        found: dict[str, Version] = {}
        with self._listed(folder) as entries:
            scope = self._enter(folder, branch.scope, survey)
            leaves_out, wants = scope.leaves_out, self._rules.wants
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
                            found[path] = _version_of(place.status)
                    elif not is_file and entry.is_dir(follow_symlinks=False):
                        if not leaves_out(path, name, is_folder=True) and not self._never_belongs(
                            path, is_linked=is_linked
                        ):
                            branches.append(_Branch(path, scope, is_linked))
                    elif not leaves_out(path, name, is_folder=False) and (wants(path) or name.endswith(SIDECAR_END)):
                        found[path] = _version_of(entry.stat(follow_symlinks=False))
                except OSError as error:
                    if error.errno not in GONE:
                        survey.unreadable[folder] = f"does not let its files be looked at: {error.strerror}"
        _take(found, scope, survey)
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


def _is_attached(path: str) -> bool:
    """Whether a file of this name speaks of others, and is no document."""
    return f"/{path}".endswith(_ATTACHED_ENDS)


def _take(found: dict[str, Version], scope: Scope, survey: _Survey) -> None:
    """Tell the documents of a folder from what is attached to them."""
    sidecars = {path: found.pop(path) for path in [path for path in found if path.endswith(_ATTACHED_ENDS)]}
    if name := name_of(scope.attached):
        survey.attached.update(dict.fromkeys(found, name))
    for path, version in sidecars.items():
        owner = path.removesuffix(SIDECAR_END)
        if owner in found:
            survey.attached[owner] = name_of(scope.attached, version)
        elif owner != path:
            survey.skipped[path] = f"a sidecar, and there is no {printable(owner.rpartition('/')[2])} that it tells of"
    survey.files.update(found)


def _deepened(folder: str, scope: Scope, raw: bytes, name: str, survey: _Survey) -> Scope:
    """The scope inside a folder that has patterns in a file of this name."""
    inner, refused = scope.deepen(folder, raw)
    if refused:
        survey.skipped[f"{folder}/{name}" if folder else name] = printable("; ".join(refused))
    return inner


def _small_file(absolute: str) -> bytes:
    """The bytes of a file of rules; raises OSError, also when it is no regular file or too large to be one."""
    descriptor = os.open(absolute, READ_FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if not modes.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"it is {kind_of(mode)} and no file")
        with open(descriptor, "rb", closefd=False) as file:
            raw = file.read(MAX_RULES_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_RULES_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_RULES_FILE_BYTES:,} bytes")
    return raw
