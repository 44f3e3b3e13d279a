"""A command on a real terminal: the kernel's pseudo-terminal, with a width, and somebody who may press Ctrl-C."""

import contextlib
import os
import pty
import re
import select
import subprocess
import termios
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 60.0
INTERRUPT = b"\x03"
_ROWS = 50
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\]8;[^\x1b]*\x1b\\")
_COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")
_LINK = re.compile(r"\x1b\]8;[^;]*;([^\x1b]+)\x1b\\(.*?)\x1b\]8;;\x1b\\", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a terminal was sent."""

    raw: str

    @property
    def text(self) -> str:
        """Without what only moves, colours and links."""
        return _SEQUENCE.sub("", self.raw)

    @property
    def lines(self) -> list[str]:
        return [part for line in self.text.split("\n") for part in line.split("\r")]

    @property
    def widest(self) -> int:
        """Cells of the widest line."""
        return max(map(cells, self.lines))

    @property
    def has_colour(self) -> bool:
        return _COLOUR.search(self.raw) is not None

    @property
    def has_sequences(self) -> bool:
        return "\x1b" in self.raw

    @property
    def links(self) -> list[tuple[str, str]]:
        """Addresses, and the texts to click on."""
        return [(found[1], _SEQUENCE.sub("", found[2])) for found in _LINK.finditer(self.raw)]


def cells(line: str) -> int:
    """How many columns a line takes: Chinese characters take two, accents none."""
    wide = sum(unicodedata.east_asian_width(character) in {"W", "F"} for character in line)
    return len(line) + wide - sum(unicodedata.combining(character) > 0 for character in line)


class OnTerminal:
    """A command that runs on a terminal of its own until it ends."""

    def __init__(
        self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], *, columns: int = 80
    ) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (_ROWS, columns))
        unwanted = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"}
        inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.process = subprocess.Popen(
            # A session's first terminal is the one that Ctrl-C comes from.
            ["setsid", "--ctty", "--wait", *command],
            cwd=folder,
            env={**inherited, "TERM": "xterm-256color", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._sent = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.write(self._master, INTERRUPT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        os.close(self._master)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def seen(self) -> Seen:
        """All that it was sent so far; the last character may be on its way yet."""
        return Seen(self._sent.decode("utf-8", "replace"))

    def wait_for(self, text: str) -> Seen:
        """Read until a text was sent, or the command ends without it."""
        deadline_seconds = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen().text:
            assert time.monotonic() < deadline_seconds, f"{text!r} never came:\n{self.seen().text}"
            assert self._read(), f"it ended without {text!r}:\n{self.seen().text}"
        return self.seen()

    def finished(self) -> tuple[int, Seen]:
        """Read until it ends; gives its exit code."""
        deadline_seconds = time.monotonic() + PATIENCE_SECONDS
        while self._read():
            assert time.monotonic() < deadline_seconds, f"it does not end:\n{self.seen().text}"
        return self.process.wait(PATIENCE_SECONDS), Seen(self._sent.decode())

    def _read(self) -> bool:
        """Read what there is; whether more may come."""
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            part = os.read(self._master, 65_536)
        except OSError:  # so a terminal says that nobody holds its other end any more
            return False
        self._sent += part
        return bool(part)
