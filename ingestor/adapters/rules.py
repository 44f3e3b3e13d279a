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

DEFAULT_EXCLUDE: Final = (
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
    "*.part",
    "*.partial",
    "*.crdownload",
    "*.download",
    "*.aria2",
    "~$*",
    "Thumbs.db",
    "desktop.ini",
    "__pycache__/",
)
"""Hidden files and what editors, downloads and office programs leave for a moment; `!.*` in `exclude` undoes one."""

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
    """The compiled lines of one list or one `.ingestorignore`; `refused` names the lines that are no patterns."""

    __slots__ = ("_backwards", "_beginnings", "_ends", "_paths", "refused")

    def __init__(self, lines: Iterable[str]) -> None:
        patterns: list[_Pattern] = []
        refused: list[str] = []
        for number, line in enumerate(lines, 1):
            try:
                patterns += _parse(line.removesuffix("\r"))
            except (ValueError, re.error):
                refused.append(f"line {number} is no pattern: {line.strip()}")
        self.refused: tuple[str, ...] = tuple(refused)
        self._backwards = tuple(reversed(patterns))
        named = [each for each in patterns if each.on_name]
        # A line such as `*` begins and ends with nothing, which every name does.
        self._beginnings = tuple(each.beginning for each in named if each.beginning or not each.end)
        self._ends = tuple(each.end for each in named if not each.beginning and each.end)
        self._paths = _union(each.regex for each in patterns if not each.on_name)

    def verdict(self, path: str, name: str, *, is_folder: bool) -> bool | None:
        """True: left out, False: kept, None: no pattern matches. `path` is relative to the base of the patterns."""
        # These let through whatever a pattern matches and more: they only spare the way through the single patterns.
        if not (
            name.startswith(self._beginnings)
            or name.endswith(self._ends)
            or (self._paths is not None and self._paths.search(f"{path}/" if is_folder else path))
        ):
            return None
        deciding = self.deciding(path, name, is_folder=is_folder)
        return None if deciding is None else deciding.leaves_out

    def deciding(self, path: str, name: str, *, is_folder: bool) -> _Pattern | None:
        """The pattern that decides: the last one that matches; None when none does."""
        return next((each for each in self._backwards if each.matches(path, name, is_folder=is_folder)), None)


def _parse(line: str) -> list[_Pattern]:
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
            literals[0], literals[-1], each.regex, each.include, only_folders, "/" not in body.removesuffix("/"), line
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
                owner = _owner(deciding.line) if is_of_settings else f"of the folder {path[:prefix_length] or '.'}"
                return f"the pattern {deciding.line!r} {owner}" if deciding.leaves_out else ""
        return ""

    def deepen(self, folder: str, raw: bytes) -> tuple["Scope", tuple[str, ...]]:
        """The scope inside `folder`, whose `.ingestorignore` holds `raw`, and the lines that count for nothing."""
        patterns = _compile(raw)
        layers = ((len(folder) + 1 if folder else 0, patterns), *self.layers)
        return Scope(layers, self.attached), patterns.refused


def _owner(line: str) -> str:
    return "that is built in" if line in DEFAULT_EXCLUDE else "of watch.exclude"


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
        self.scope = Scope(((0, Patterns((*DEFAULT_EXCLUDE, *exclude))),))
        self._include = GitIgnoreSpec.from_lines(include) if include else None

    def wants(self, path: str) -> bool:
        """Whether `include` covers a file; says nothing about what leaves it out."""
        return self._include is None or self._include.check_file(path).include is True
