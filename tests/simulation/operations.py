"""What people and programs do to a folder, and the hints that the kernel gives of it.

Each operation is one or more changes of the folder with time between them; `Desk.did` is told of each change at the
instant at which it is made. Texts are made up, a number each, so that a trace says which one is where; some are had by
several files.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePosixPath
from random import Random
from typing import Protocol

from ingestor.adapters.rules import RULES_FILE
from ingestor.core.attaching import SETTINGS_FILE, SIDECAR_END
from ingestor.core.model import Hint
from tests.doubles_folder import MemoryFolder
from tests.simulation.faults import POISON

FOLDERS = ("", "", "d", "d", "d/e", "f")
NAMES = ("a.txt", "b.txt", "c.txt", "n.md", "x", "y.txt", "z.txt")
COMMON = ("shared one", "shared two", "shared three")


class Desk(Protocol):
    """Where operations are carried out."""

    folder: MemoryFolder
    chance: Random
    author: "Author"

    def did(self, what: str, *hints: Hint) -> None:
        """A change was made, and these are the hints of it."""


Operation = Callable[[Desk], Awaitable[None]]


class Author:
    """Makes up texts."""

    def __init__(self) -> None:
        self._made = 0

    def line(self, chance: Random) -> str:
        """A text that may be new."""
        fate = chance.random()
        if fate < 0.08:
            return chance.choice(COMMON)
        self._made += 1
        return f"{POISON} {self._made:03d}" if fate < 0.09 else f"text {self._made:03d}"


def fill(desk: Desk, files: int) -> None:
    """Files that are there before anybody looks."""
    for _ in range(files):
        path = _new_path(desk)
        if path is not None:
            desk.folder.write(path, _text(desk))
            desk.did(f"there is {path}")


async def create(desk: Desk) -> None:
    path = _new_path(desk)
    if path is not None:
        desk.folder.write(path, _text(desk))
        desk.did(f"create {path}", Hint(path), Hint(path, is_closed=True))


async def create_many(desk: Desk) -> None:
    for _ in range(desk.chance.randint(3, 8)):
        await create(desk)
        await _moment(desk, 0.02)


async def write_in_pieces(desk: Desk) -> None:
    """A writer that keeps its file open, wherever that is renamed to."""
    path = desk.chance.choice([_new_path(desk), _any_file(desk)])
    if path is None or path in desk.folder.unsettled | desk.folder.closed:
        return
    desk.folder.write(path, written := _text(desk) + b"\n")
    desk.folder.unsettled.add(path)
    desk.did(f"begin to write {path}", Hint(path))
    inode = desk.folder.inode(path)
    for _ in range(desk.chance.randint(1, 4)):
        await _moment(desk, 1.0)
        path = desk.folder.path_of(inode)
        if path is None:
            return  # it was deleted
        written += _text(desk) + b"\n"
        desk.folder.write(path, written)
        desk.did(f"write a piece of {path}", Hint(path))
    desk.folder.unsettled.discard(path)
    desk.did(f"close {path}", Hint(path, is_closed=True))


async def edit(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        lines = desk.folder.raw(path).split(b"\n")
        place = desk.chance.randrange(len(lines))
        lines[place : place + desk.chance.randint(0, 2)] = _text(desk, 2).split(b"\n")
        _overwrite(desk, path, b"\n".join(lines), "edit")


async def append(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        _overwrite(desk, path, desk.folder.raw(path) + b"\n" + _text(desk, 1), "append to")


async def edit_again_and_again(desk: Desk) -> None:
    for _ in range(desk.chance.randint(2, 6)):
        await append(desk)
        await _moment(desk, 0.6)


async def replace_(desk: Desk) -> None:
    """As editors do: a new file is renamed into the place of the old one."""
    if (path := _any_file(desk)) is not None:
        beside = f"{path}.new"
        if not _has_room(desk.folder, beside):
            return
        desk.folder.write(beside, _text(desk))
        desk.did(f"create {beside}", Hint(beside), Hint(beside, is_closed=True))
        await _moment(desk, 0.05)
        if beside in desk.folder.paths and _has_room(desk.folder, path):
            _move(desk, beside, path)


async def delete(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        desk.folder.delete(path)
        desk.did(f"delete {path}", Hint(path))


async def create_and_delete(desk: Desk) -> None:
    """A secret that was saved by mistake."""
    path = _new_path(desk)
    if path is not None:
        desk.folder.write(path, _text(desk))
        desk.did(f"create {path}", Hint(path), Hint(path, is_closed=True))
        await _moment(desk, 2.0)
        if path in desk.folder.paths:
            desk.folder.delete(path)
            desk.did(f"delete {path}", Hint(path))


async def delete_and_restore(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        raw = desk.folder.raw(path)
        desk.folder.delete(path)
        desk.did(f"delete {path}", Hint(path))
        await _moment(desk, 1.0)
        if _has_room(desk.folder, path) and path not in desk.folder.paths:
            desk.folder.write(path, raw)
            desk.did(f"restore {path}", Hint(path), Hint(path, is_closed=True))


async def rename(desk: Desk) -> None:
    old, new = _any_file(desk), desk.chance.choice([_new_path(desk), _any_file(desk)])
    if old is not None and new is not None and old != new:
        _move(desk, old, new)


async def swap(desk: Desk) -> None:
    one, two = _any_file(desk), _any_file(desk)
    if one is not None and two is not None and one != two:
        if not _has_room(desk.folder, f"{one}.swap"):
            return
        for old, new in ((one, f"{one}.swap"), (two, one), (f"{one}.swap", two)):
            if old in desk.folder.paths and _has_room(desk.folder, new):
                _move(desk, old, new)
            await _moment(desk, 0.05)


async def copy(desk: Desk) -> None:
    old, new = _any_file(desk), _new_path(desk)
    if old is not None and new is not None:
        desk.folder.write(new, desk.folder.raw(old))
        desk.did(f"copy {old} to {new}", Hint(new), Hint(new, is_closed=True))


async def rename_folder(desk: Desk) -> None:
    old, new = _any_folder(desk), desk.chance.choice(("d", "f", "g", "d/h"))
    if old is not None and not _is_below(new, old) and not _exists(desk.folder, new) and _has_room(desk.folder, new):
        desk.folder.rename(old, new)
        desk.did(f"rename {old}/ to {new}/", Hint(old, is_folder=True), Hint(new, is_folder=True))


async def delete_folder(desk: Desk) -> None:
    """File by file, as `rm -r` does."""
    folder = _any_folder(desk)
    if folder is None:
        return
    for path in [path for path in desk.folder.paths if _is_below(path, folder)]:
        if path in desk.folder.paths:
            desk.folder.delete(path)
            desk.did(f"delete {path} with its folder", Hint(path))
            await _moment(desk, 0.01)
    desk.did(f"delete {folder}/", Hint(folder, is_folder=True))


async def replace_everything(desk: Desk) -> None:
    """Somebody puts another state of the folder in its place; most of it may come back."""
    files = _files(desk.folder)
    gone = {path: desk.folder.raw(path) for path in files if desk.chance.random() < 0.8}
    for path in gone:
        desk.folder.delete(path)
        desk.did(f"delete {path} with everything", Hint(path))
    for _ in range(desk.chance.choice((0, len(gone)))):
        await create(desk)
    if desk.chance.random() < 0.3:
        await _moment(desk, 10.0)
        for path, raw in gone.items():
            if path not in desk.folder.paths and _has_room(desk.folder, path):
                desk.folder.write(path, raw)
                desk.did(f"restore {path}", Hint(path), Hint(path, is_closed=True))


async def folder_for_file(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        desk.folder.delete(path)
        below = f"{path}/{desk.chance.choice(NAMES)}"
        desk.folder.write(below, _text(desk))
        hints = (Hint(path), Hint(path, is_folder=True), Hint(below), Hint(below, is_closed=True))
        desk.did(f"{path} becomes a folder with {below}", *hints)


async def file_for_folder(desk: Desk) -> None:
    folder = _any_folder(desk)
    if folder is not None:
        desk.folder.delete(folder)
        desk.folder.write(folder, _text(desk))
        desk.did(f"{folder}/ becomes a file", Hint(folder, is_folder=True), Hint(folder), Hint(folder, is_closed=True))


async def link_for_file(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        desk.folder.delete(path)
        desk.folder.link(path)
        desk.did(f"{path} becomes a symbolic link", Hint(path))


async def unlink(desk: Desk) -> None:
    if desk.folder.links:
        path = desk.chance.choice(sorted(desk.folder.links))
        desk.folder.delete(path)
        desk.did(f"delete the link {path}", Hint(path))


async def touch(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        desk.folder.touch(path)
        desk.did(f"touch {path}", Hint(path))


async def lock(desk: Desk) -> None:
    """A file may not be opened for a while."""
    path = _any_file(desk)
    if path is not None and path not in desk.folder.closed:
        desk.folder.lock(path)
        desk.did(f"chmod 000 {path}", Hint(path))
        await _moment(desk, 5.0)
        if path in desk.folder.closed:
            desk.folder.unlock(path)
            desk.did(f"chmod 644 {path}", Hint(path))


async def hide_folder(desk: Desk) -> None:
    """A folder may not be listed for a while."""
    folder = _any_folder(desk)
    if folder is not None and folder not in desk.folder.unreadable:
        desk.folder.unreadable[folder] = "Permission denied"
        desk.did(f"chmod 000 {folder}/", Hint(folder, is_folder=True))
        await _moment(desk, 5.0)
        desk.folder.unreadable.pop(folder, None)
        desk.did(f"chmod 755 {folder}/", Hint(folder, is_folder=True))


async def turn_binary(desk: Desk) -> None:
    if (path := _any_file(desk)) is not None:
        _overwrite(desk, path, b"\0binary", "spoil")


async def attach(desk: Desk) -> None:
    """Metadata in a file beside it."""
    if (path := _any_file(desk)) is not None and not _exists(desk.folder, path + SIDECAR_END):
        desk.folder.write(path + SIDECAR_END, f'{{"own": {desk.chance.randint(1, 9)}}}'.encode())
        desk.did(f"attach {path}{SIDECAR_END}", Hint(path + SIDECAR_END, is_closed=True))


async def detach(desk: Desk) -> None:
    sidecars = [path for path in desk.folder.paths if path.endswith(SIDECAR_END)]
    if sidecars:
        path = desk.chance.choice(sidecars)
        desk.folder.delete(path)
        desk.did(f"detach {path}", Hint(path))


async def front_matter(desk: Desk) -> None:
    documents = [path for path in _files(desk.folder) if path.endswith(".md")]
    if documents:
        path = desk.chance.choice(documents)
        text = desk.folder.raw(path).rpartition(b"---\n")[2]
        raw = f"---\nown: {desk.chance.randint(1, 9)}\n---\n".encode() + text
        _overwrite(desk, path, raw, "give front matter to")


async def settle_folder(desk: Desk) -> None:
    """Settings of a folder: metadata of all its files."""
    folder = desk.chance.choice(("", "d", "f"))
    path = f"{folder}/{SETTINGS_FILE}" if folder else SETTINGS_FILE
    _write_or_delete(desk, path, f"metadata.folder = {desk.chance.randint(1, 9)}".encode())


async def rule(desk: Desk) -> None:
    """Rules of a folder: some of its files are left out."""
    folder = desk.chance.choice(("", "d"))
    path = f"{folder}/{RULES_FILE}" if folder else RULES_FILE
    _write_or_delete(desk, path, desk.chance.choice(NAMES).encode())


async def tell_again(desk: Desk) -> None:
    """The kernel tells of a place where nothing has changed, or of one that is long gone."""
    folder, name = desk.chance.choice(FOLDERS), desk.chance.choice(NAMES)
    is_folder = desk.chance.random() < 0.5
    path = f"{folder}/{name}" if folder and not is_folder else folder or name
    desk.did(f"tell of {path}{'/' if is_folder else ''}", Hint(path, is_folder=is_folder))


ALL: Mapping[str, tuple[float, Operation]] = {
    "create": (4, create),
    "create many": (1, create_many),
    "write in pieces": (2, write_in_pieces),
    "edit": (4, edit),
    "append": (2, append),
    "edit again and again": (1, edit_again_and_again),
    "replace": (2, replace_),
    "delete": (3, delete),
    "create and delete": (3, create_and_delete),
    "delete and restore": (1, delete_and_restore),
    "rename": (3, rename),
    "swap": (1, swap),
    "copy": (1, copy),
    "rename a folder": (2, rename_folder),
    "delete a folder": (1, delete_folder),
    "replace everything": (0.5, replace_everything),
    "a folder for a file": (1, folder_for_file),
    "a file for a folder": (1, file_for_folder),
    "a link for a file": (1, link_for_file),
    "unlink": (1, unlink),
    "touch": (1, touch),
    "lock": (1, lock),
    "hide a folder": (1, hide_folder),
    "turn binary": (1, turn_binary),
    "attach": (1, attach),
    "detach": (1, detach),
    "front matter": (1, front_matter),
    "settle a folder": (1, settle_folder),
    "rule": (0.5, rule),
    "tell again": (0.5, tell_again),
}
"""By name: how often, and how."""


def _overwrite(desk: Desk, path: str, raw: bytes, what: str) -> None:
    if path not in desk.folder.closed:
        desk.folder.write(path, raw)
        desk.did(f"{what} {path}", Hint(path), Hint(path, is_closed=True))


def _write_or_delete(desk: Desk, path: str, raw: bytes) -> None:
    if path in desk.folder.paths and desk.chance.random() < 0.5:
        desk.folder.delete(path)
        desk.did(f"delete {path}", Hint(path))
    elif _has_room(desk.folder, path):
        desk.folder.write(path, raw)
        desk.did(f"write {path}: {raw.decode()}", Hint(path), Hint(path, is_closed=True))


def _move(desk: Desk, old: str, new: str) -> None:
    desk.folder.rename(old, new)
    desk.did(f"rename {old} to {new}", Hint(old), Hint(new, is_closed=True))


async def _moment(desk: Desk, seconds: float) -> None:
    """Mostly much less than so long."""
    await asyncio.sleep(seconds * desk.chance.random() ** 3 * 4)


def _text(desk: Desk, most: int = 5) -> bytes:
    return "\n".join(desk.author.line(desk.chance) for _ in range(desk.chance.randint(1, most))).encode()


def _files(folder: MemoryFolder) -> list[str]:
    return [
        path
        for path in folder.paths
        if not path.endswith(SIDECAR_END)
        and PurePosixPath(path).name not in {SETTINGS_FILE, RULES_FILE}
        and not _is_closed(folder, path)
    ]


def _any_file(desk: Desk) -> str | None:
    files = _files(desk.folder)
    return desk.chance.choice(files) if files else None


def _any_folder(desk: Desk) -> str | None:
    folders = sorted({path[:end] for path in desk.folder.paths for end, sign in enumerate(path) if sign == "/"})
    folders = [folder for folder in folders if not _is_closed(desk.folder, folder)]
    return desk.chance.choice(folders) if folders else None


def _new_path(desk: Desk) -> str | None:
    """Where nothing is, and something may be."""
    for _ in range(10):
        folder, name = desk.chance.choice(FOLDERS), desk.chance.choice(NAMES)
        path = f"{folder}/{name}" if folder else name
        if not _exists(desk.folder, path) and _has_room(desk.folder, path):
            return path
    return None


def _exists(folder: MemoryFolder, path: str) -> bool:
    return path in folder.links or any(_is_below(each, path) for each in folder.paths)


def _has_room(folder: MemoryFolder, path: str) -> bool:
    """Whether a file may be written to a path: no file lies above it, and no folder there."""
    above = {path[:end] for end, sign in enumerate(path) if sign == "/"}
    is_folder = any(each.startswith(f"{path}/") for each in folder.paths)
    if is_folder or path in folder.links or _is_closed(folder, path):
        return False
    return above.isdisjoint({*folder.paths, *folder.links})


def _is_closed(folder: MemoryFolder, path: str) -> bool:
    """Whether nobody can get at a path just now, or at something below it."""
    return any(_is_below(path, hidden) or _is_below(hidden, path) for hidden in folder.unreadable)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
