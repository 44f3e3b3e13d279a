"""What belongs to the folder: the settings' include and exclude patterns and every `.ingestorignore` file.

Invariant: the verdict on a path is reached folder by folder, from the root down, from the same scopes, whether all is
scanned or a single path is looked up; so both always agree. All patterns have gitignore's meaning: the last match wins,
a deeper `.ingestorignore` goes before a higher one, and nothing below a folder that is left out comes back.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pathspec import GitIgnoreSpec

from ingestor.core.errors import ConfigError
from ingestor.core.model import NOTHING, Attached

RULES_FILE: Final = ".ingestorignore"

_TEMPORARY: Final = (
    ".*",
    "*~",
    "*.swp",
    "*.swx",
    "*.swo",
    "4913",
    r"\#*#",
    ".#*",
    "*.tmp",
    "*.temp",
    "~$*",
    "Thumbs.db",
    "ehthumbs*.db",
    "desktop.ini",
    "__pycache__/",
)
"""Hidden files and what editors, office programs and desktops leave for a moment."""

_PARTIAL: Final = (
    "*.part",
    "*.partial",
    "*.crdownload",
    "*.crswap",
    "*.download",
    "*.downloading",
    "*.opdownload",
    "*.fdmdownload",
    "*.aria2",
    "*.!qB",
    "*.!ut",
    "*.!bt",
    "*.bc!",
    "*.!sync",
    "*.xltd",
    "*.dtapart",
    "*.filepart",
    "*.lftp-pget-status",
    "*.ffs_tmp",
    "*.rclone_chunk.*",
)
"""What has not arrived whole: downloads of browsers and torrent clients, transfers, pieces."""

_OF_SHARES: Final = (
    r"\#recycle/",
    "@Recycle/",
    "$RECYCLE.BIN/",
    "RECYCLER/",
    "trashbox/",
    "files_trashbin/",
    "files_versions/",
    "Network Trash Folder/",
    r"\#snapshot/",
    "@Recently-Snapshot/",
    "@snapshot/",
    "@snapshots/",
    "@sharesnap/",
    "~snapshot/",
    "@GMT-*/",
    "@eaDir/",
    "*@SynoEAStream",
    "*@SynoResource",
    "@tmp/",
    "@sharebin/",
    "@Transcode/",
    "Temporary Items/",
    "TheVolumeSettingsFolder/",
    "System Volume Information/",
    "DfsrPrivate/",
    "lost+found/",
    "FOUND.[0-9][0-9][0-9]/",
    "aquota.user",
    "aquota.group",
)
"""Recycle bins, snapshots and the systems' own folders on shares and disks: what was deleted there is to be found no
more, and a snapshot holds every document once again. Names that begin with a dot are hidden."""

_KEYS: Final = (
    *(
        pattern
        for kind in ("rsa", "dsa", "ecdsa", "ed25519", "ecdsa_sk", "ed25519_sk", "xmss")
        for pattern in (f"id_{kind}", f"id_{kind}.*", f"!id_{kind}.pub", f"*_{kind}", f"!*_{kind}/")
    ),
    "ssh_host_*_key",
    "*.pem",
    "*.key",
    "*.p8",
    "*.pk8",
    "*.p12",
    "*.pfx",
    "*.pkcs12",
    "*.pvk",
    "*.ppk",
    "*.jks",
    "*.jceks",
    "*.bks",
    "*.keystore",
    "*.keytab",
    "*.keychain",
    "*.keychain-db",
    "*.kdb",
    "*.kdbx",
    "*.psafe3",
    "*.1pif",
    "*.1pux",
    "*.ovpn",
    "*.kubeconfig",
    "kubeconfig",
    "wg[0-9].conf",
    "secring.*",
    "_netrc",
    "pgpass.conf",
    "*.htpasswd",
    "htpasswd",
)
"""Private keys, key stores, files of passwords: no provider and no collection is to have them. Those whose name begins
with a dot (`.netrc`, `.pgpass`, `.env`) are hidden."""

DEFAULT_EXCLUDE: Final = (*_TEMPORARY, *_PARTIAL, *_OF_SHARES, *_KEYS)
"""What is left out wherever it lies, in letters of any case: shares keep the case that whoever wrote the name chose.

A pattern of the settings that takes it back in goes before: `!.*` hidden files, `!*.pem` certificates."""

_NAMED_GROUP = re.compile(r"\(\?P<\w+>")
_SPECIAL = re.compile(r"[*?\[\]\\]")
"""What in a pattern does not stand for itself."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line that can match. `on_name`: it holds for names at any depth, else for the path from the base.

    A name that matches begins with `beginning` and ends with `end`: what the line begins and ends with before its first
    and after its last special character.
    """

    beginning: str
    end: str
    regex: re.Pattern[str]
    leaves_out: bool
    only_folders: bool
    on_name: bool
    line: str
    """As it was written."""
    is_built_in: bool
    """Whether it is a built-in pattern, which matches letters of any case."""

    def matches(self, path: str, name: str, *, is_folder: bool) -> bool:
        """Whether this very file or folder is meant; a match of a folder above it does not count."""
        if self.only_folders and not is_folder:
            return False
        text = name if self.on_name else path
        if self.only_folders:
            text += "/"
        match = self.regex.search(text)
        # A pattern's only group is the slash after what it matched: when that is not the end, a parent was meant.
        return match is not None and (match.lastindex is None or match.end() == len(text))


class Patterns:
    """The compiled lines of one list or one `.ingestorignore`; `refused` names the lines that are no patterns.

    Those of `built_in` go before, and mean letters of any case; all of them are for names at any depth.
    """

    __slots__ = ("_backwards", "_beginnings", "_built_in_beginnings", "_built_in_ends", "_ends", "_paths", "refused")

    def __init__(self, lines: Iterable[str], *, built_in: Iterable[str] = ()) -> None:
        patterns = [pattern for line in built_in for pattern in _parse(line, is_built_in=True)]
        refused: list[str] = []
        for number, line in enumerate(lines, 1):
            try:
                patterns += _parse(line.removesuffix("\r"), is_built_in=False)
            except (ValueError, re.error):
                refused.append(f"line {number} is no pattern: {line.strip()}")
        self.refused: tuple[str, ...] = tuple(refused)
        self._backwards = tuple(reversed(patterns))
        self._beginnings, self._ends = _edges(each for each in patterns if each.on_name and not each.is_built_in)
        beginnings, ends = _edges(each for each in patterns if each.is_built_in)
        self._built_in_beginnings = tuple(beginning.lower() for beginning in beginnings)
        self._built_in_ends = tuple(end.lower() for end in ends)
        self._paths = _union(each.regex for each in patterns if not each.on_name)

    def verdict(self, path: str, name: str, *, is_folder: bool) -> bool | None:
        """True: left out, False: kept, None: no pattern matches. `path` is relative to the base of the patterns."""
        # These let through whatever a pattern matches and more: they only spare the way through the single patterns.
        if not (
            name.startswith(self._beginnings)
            or name.endswith(self._ends)
            or (self._paths is not None and self._paths.search(f"{path}/" if is_folder else path))
            or (self._built_in_ends and self._may_be_built_in(name.lower()))
        ):
            return None
        deciding = self.deciding(path, name, is_folder=is_folder)
        return None if deciding is None else deciding.leaves_out

    def _may_be_built_in(self, lowered: str) -> bool:
        return lowered.startswith(self._built_in_beginnings) or lowered.endswith(self._built_in_ends)

    def deciding(self, path: str, name: str, *, is_folder: bool) -> _Pattern | None:
        """The pattern that decides: the last one that matches; None when none does."""
        return next((each for each in self._backwards if each.matches(path, name, is_folder=is_folder)), None)


def _edges(patterns: Iterable[_Pattern]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What names begin with, or else end with, when one of the patterns matches them."""
    named = list(patterns)
    # A line such as `*` begins and ends with nothing, which every name does.
    beginnings = tuple(each.beginning for each in named if each.beginning or not each.end)
    return beginnings, tuple(each.end for each in named if not each.beginning and each.end)


def _parse(line: str, *, is_built_in: bool) -> list[_Pattern]:
    """Compile a line: one pattern, or none for a blank line, a comment, or what Git takes for no pattern."""
    text = line if line.endswith("\\ ") else line.rstrip()
    negation = "!" if text.startswith("!") else ""
    body = text.removeprefix("!")
    if body == "/":
        return []
    only_folders = body.endswith("/")
    if body.endswith("/**/"):
        # Git: the folders below; pathspec: the folder itself as well.
        text = f"{negation}{body.removesuffix('/')}/*/"
    literals = _SPECIAL.split(body.removesuffix("/"))
    return [
        _Pattern(
            literals[0],
            literals[-1],
            re.compile(each.regex.pattern, re.ASCII | re.IGNORECASE) if is_built_in else each.regex,
            each.include,
            only_folders,
            "/" not in body.removesuffix("/"),
            line,
            is_built_in,
        )
        for each in GitIgnoreSpec.from_lines([text]).patterns
        if each.include is not None and each.regex is not None
    ]


def _union(regexes: Iterable[re.Pattern[str]]) -> re.Pattern[str] | None:
    """One expression that finds whatever any of the patterns finds, and maybe more; None when there are none."""
    bodies = []
    for regex in regexes:
        body, replaced = _NAMED_GROUP.subn("(?:", regex.pattern)
        if replaced != regex.groups:  # The spelling of a group stands inside a [...] as well: let all through.
            body = ""
        bodies.append(f"(?:{body})")
    return re.compile("|".join(bodies)) if bodies else None


@lru_cache(maxsize=512)
def _compile(raw: bytes) -> Patterns:
    """The patterns of a `.ingestorignore`. File names are bytes, so no line is undecodable; a UTF-8 BOM is no part."""
    return Patterns(raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n"))


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds inside one folder: layers of patterns, deepest first, each with the length of its base's prefix.

    `attached` is what the folder and those above it say of the files in it.
    """

    layers: tuple[tuple[int, Patterns], ...]
    attached: Attached = NOTHING

    def leaves_out(self, path: str, name: str, *, is_folder: bool) -> bool:
        """Whether a file or folder directly in this folder is left out; `path` is relative to the root."""
        for prefix_length, patterns in self.layers:
            verdict = patterns.verdict(path[prefix_length:], name, is_folder=is_folder)
            if verdict is not None:
                return verdict
        return False

    def rule_against(self, path: str, name: str, *, is_folder: bool) -> str:
        """The rule that leaves out a file or folder directly in this folder, in words; "" when none does."""
        for prefix_length, patterns in self.layers:
            deciding = patterns.deciding(path[prefix_length:], name, is_folder=is_folder)
            if deciding is not None:
                is_of_settings = patterns is self.layers[-1][1]
                owner = _owner(deciding) if is_of_settings else f"of the folder {path[:prefix_length] or '.'}"
                return f"the pattern {deciding.line!r} {owner}" if deciding.leaves_out else ""
        return ""

    def deepen(self, folder: str, raw: bytes) -> tuple["Scope", tuple[str, ...]]:
        """The scope inside `folder`, whose `.ingestorignore` holds `raw`, and the lines that count for nothing."""
        patterns = _compile(raw)
        layers = ((len(folder) + 1 if folder else 0, patterns), *self.layers)
        return Scope(layers, self.attached), patterns.refused


def _owner(pattern: _Pattern) -> str:
    return "that is built in" if pattern.is_built_in else "of watch.exclude"


class Rules:
    """The rules from the settings. `scope` is what they say inside the root, before any `.ingestorignore`.

    An empty `include` wants every file; else a file is wanted when a pattern matches it or a folder above it.
    Raises `ConfigError` for a line that is no pattern.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        for name, lines in (("include", include), ("exclude", exclude)):
            if refused := Patterns(lines).refused:
                raise ConfigError(
                    f"watch.{name}: {'; '.join(refused)}", remedy="write patterns as in a .gitignore file"
                )
        self.scope = Scope(((0, Patterns(exclude, built_in=DEFAULT_EXCLUDE)),))
        self._include = GitIgnoreSpec.from_lines(include) if include else None

    def wants(self, path: str) -> bool:
        """Whether `include` covers a file; says nothing about what leaves it out."""
        return self._include is None or self._include.check_file(path).include is True
