"""Somebody who cannot leave a folder alone: every way in which files come, change, move and go."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.soak.oracle import FOLDER_FILE, RULES_FILE, SIDECAR_END

_SHELVES = 14
_FEW_FILES = 120
_WORDS = (
    *("harbour", "lantern", "ledger", "meadow", "orchard", "parcel", "quarry", "river", "timber"),
    *("码头", "灯塔", "账本", "草地", "果园", "包裹"),
)


class Hands:
    """Random operations on a folder. Every text that is ever written is unlike every other one.

    There are no hard links: the kernel reports a change by the name that it was made by alone, and the other names wait
    for the next comparison of the whole folder.
    """

    def __init__(self, root: Path, chance: random.Random) -> None:
        self._root = root
        self._chance = chance
        self._made = 0
        self.done = 0
        self._open: list[tuple[Path, int]] = []
        """Files that are being written."""

    def act(self) -> str:
        """Do one thing; returns its name."""
        files = self._files()
        several: list[Callable[[list[Path]], None]] = [
            self._edit, self._append, self._shorten, self._overwrite, self._save_by_rename, self._rename,
            self._rename_over, self._delete, self._delete, self._copy, self._touch, self._swap,
            self._put_symlink, self._turn_into_folder, self._flash, self._attach, self._detach, self._mark_front,
            self._mark_shelf, self._unmark_shelf, self._rule, self._move_shelf, self._move_out_and_in, self._begin_slow,
            self._delete_shelf,
        ]  # fmt: skip
        one = self._create if len(files) < _FEW_FILES or self._chance.random() < 0.25 else self._chance.choice(several)
        one(files)
        self._go_on_slow()
        self.done += 1
        return one.__name__.strip("_")

    def rest(self) -> None:
        """Finish what is being written, and take rules back."""
        for file, descriptor in self._open:
            os.write(descriptor, self._paragraph().encode())
            os.close(descriptor)
            file.touch(exist_ok=True) if file.parent.is_dir() else None
        self._open.clear()

    def _files(self) -> list[Path]:
        return sorted(
            file
            for file in self._root.rglob("*")
            if file.is_file() and not file.is_symlink() and not file.name.startswith(".")
            and not file.name.endswith(SIDECAR_END)
        )  # fmt: skip

    def _name(self) -> str:
        self._made += 1
        stem = self._chance.choice(("note", "笔记", "with space", "Ünï", "a'b", "報告"))
        return f"{stem} {self._made}{self._chance.choice(('.md', '.txt', '.py', '.log', '.csv', ''))}"

    def _place(self) -> Path:
        shelf = self._root / f"shelf-{self._chance.randrange(_SHELVES)}"
        place = shelf / "deep" / "deeper" if self._chance.random() < 0.2 else shelf
        if not place.exists():
            place.mkdir(parents=True, exist_ok=True)
        return place

    def _paragraph(self) -> str:
        self._made += 1
        words = " ".join(self._chance.choices(_WORDS, k=self._chance.randrange(8, 60)))
        return f"Paragraph {self._made} of {self._chance.randrange(10**9)}: {words}.\n\n"

    def _text(self) -> str:
        size = self._chance.choice((0, 1, 1, 2, 3, 5, 10, 30))
        return "".join(self._paragraph() for _ in range(size))

    def _create(self, _: list[Path]) -> None:
        (self._place() / self._name()).write_text(self._text(), encoding="utf-8")

    def _edit(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        paragraphs = file.read_text("utf-8").split("\n\n")
        paragraphs.insert(self._chance.randrange(len(paragraphs) + 1), self._paragraph().strip())
        file.write_text("\n\n".join(paragraphs), encoding="utf-8")

    def _append(self, files: list[Path]) -> None:
        with self._chance.choice(files).open("a", encoding="utf-8") as file:
            file.write(self._paragraph())

    def _shorten(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        paragraphs = file.read_text("utf-8").split("\n\n")
        file.write_text("\n\n".join(paragraphs[: len(paragraphs) // 2]), encoding="utf-8")

    def _overwrite(self, files: list[Path]) -> None:
        """Another text of the same size."""
        file = self._chance.choice(files)
        text = file.read_text("utf-8")
        digits = str(self._chance.randrange(10))
        file.write_text("".join(digits if each.isdigit() else each for each in text), encoding="utf-8")

    def _save_by_rename(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        aside = file.with_name(f".{file.name}.swp")
        aside.write_text(self._text(), encoding="utf-8")
        aside.replace(file)

    def _rename(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        file.rename(self._place() / f"{self._name()}")

    def _rename_over(self, files: list[Path]) -> None:
        one, other = self._chance.sample(files, 2)
        one.replace(other)

    def _delete(self, files: list[Path]) -> None:
        self._chance.choice(files).unlink()

    def _copy(self, files: list[Path]) -> None:
        shutil.copyfile(self._chance.choice(files), self._place() / self._name())

    def _touch(self, files: list[Path]) -> None:
        self._chance.choice(files).touch()

    def _swap(self, files: list[Path]) -> None:
        one, other = self._chance.sample(files, 2)
        aside = one.with_name(f".{self._made}.swap")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)

    def _put_symlink(self, files: list[Path]) -> None:
        """A link takes the place of a file: links are left out."""
        one, other = self._chance.sample(files, 2)
        one.unlink()
        one.symlink_to(other)

    def _turn_into_folder(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        file.unlink()
        file.mkdir()
        (file / self._name()).write_text(self._text(), encoding="utf-8")

    def _flash(self, _: list[Path]) -> None:
        """A file that is there for a moment only."""
        file = self._place() / self._name()
        file.write_text(self._text(), encoding="utf-8")
        time.sleep(self._chance.choice((0.0, 0.05, 0.3, 1.0)))
        file.unlink()

    def _attach(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        self._made += 1
        file.with_name(file.name + SIDECAR_END).write_text(json.dumps({"side_mark": self._made}), encoding="utf-8")

    def _detach(self, _: list[Path]) -> None:
        sidecars = sorted(self._root.rglob(f"*{SIDECAR_END}"))
        if sidecars:
            self._chance.choice(sidecars).unlink()

    def _mark_front(self, files: list[Path]) -> None:
        files = [file for file in files if file.suffix == ".md"]
        if files:
            file = self._chance.choice(files)
            self._made += 1
            text = file.read_text("utf-8").removeprefix("---\n").partition("---\n")[2] or self._paragraph()
            file.write_text(f"---\nmark: {self._made}\n---\n{text}", encoding="utf-8")

    def _mark_shelf(self, _: list[Path]) -> None:
        self._made += 1
        (self._place() / FOLDER_FILE).write_text(f"metadata.shelf_mark = {self._made}\n", encoding="utf-8")

    def _unmark_shelf(self, _: list[Path]) -> None:
        told = sorted(self._root.rglob(FOLDER_FILE))
        if told:
            self._chance.choice(told).unlink()

    def _rule(self, _: list[Path]) -> None:
        """Leave a few files out, others than before."""
        rules = self._root / RULES_FILE
        lines = [f"*{self._chance.randrange(10)}{self._chance.randrange(10)}.log" for _ in range(2)]
        rules.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _move_shelf(self, _: list[Path]) -> None:
        shelves = sorted(place for place in self._root.iterdir() if place.is_dir() and not place.name.startswith("."))
        if shelves:
            self._made += 1
            self._chance.choice(shelves).rename(self._root / f"moved-{self._made}")

    def _move_out_and_in(self, files: list[Path]) -> None:
        file = self._chance.choice(files)
        outside = self._root.parent / f"outside-{self._made}"
        file.rename(outside)
        time.sleep(self._chance.choice((0.0, 0.5)))
        outside.rename(self._place() / self._name())

    def _begin_slow(self, _: list[Path]) -> None:
        file = self._place() / self._name()
        self._open.append((file, os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)))

    def _go_on_slow(self) -> None:
        for _, descriptor in self._open:
            os.write(descriptor, self._paragraph().encode())
        while len(self._open) > 3:
            os.close(self._open.pop(0)[1])

    def _delete_shelf(self, files: list[Path]) -> None:
        """A folder with all that is in it, but not so much that somebody would have to approve."""
        shelves = sorted(place for place in self._root.iterdir() if place.is_dir() and not place.name.startswith("."))
        small = [place for place in shelves if sum(1 for file in place.rglob("*")) < len(files) // 8]
        if small:
            shutil.rmtree(self._chance.choice(small))
