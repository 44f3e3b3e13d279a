"""Converting files of other formats to text, each in a process that may die of it.

Invariant: whatever a file does to its converter - crash, hang, eat memory - is a fault of that file alone: the process
is ended, and the next file gets a fresh one. No child outlives the parent for longer than one conversion may take.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ingestor.adapters.conversion_child import CANNOT_START
from ingestor.core.errors import DocumentError, OversizeDocument, ServiceUnavailable, UnconvertibleDocument
from ingestor.core.escaping import escaped
from ingestor.core.formats import Format
from ingestor.core.model import Converted

LIBRARY: Final = "kreuzberg"
IDLE_SECONDS: Final = 60
REVISION: Final = 1
"""Of what `conversion_child.py` makes of files: one more with each change of it that gives another text."""

_CHILD: Final = Path(__file__).with_name("conversion_child.py")
_MAX_ANSWER_LINE_BYTES: Final = 4 * 1024 * 1024
_MAX_REASON_CHARACTERS: Final = 200
_END_SECONDS: Final = 5.0
_LEAVE_OUT: Final = "or leave it out with watch.exclude"
_DAMAGED_REMEDY: Final = f"see whether other programs open it, save it again, {_LEAVE_OUT}"
_LOCKED_REMEDY: Final = f"save it without a password, {_LEAVE_OUT}"
_START_REMEDY: Final = (
    "see that there is memory, and that programs may run in the folder for temporary files (TMPDIR; no `noexec`)"
)
_DIED_REMEDY: Final = f"raise convert.max_memory_bytes if it is a sound file that needs more, {_LEAVE_OUT}"


def is_installed() -> bool:
    """Whether the library that converts is there; it is not imported."""
    return importlib.util.find_spec(LIBRARY) is not None


def name() -> str:
    """The converter that is installed: two of the same name make the same texts."""
    version = next((found.version for found in importlib.metadata.distributions(name=LIBRARY)), "")
    return f"{LIBRARY}-{version}-{REVISION}"


class _ChildEnded(Exception):
    """A child has ended instead of answering; None for its exit code: it was killed because it took too long."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Child:
    """One process that converts; used by one thread at a time."""

    def __init__(self, *arguments: int) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and file, and numbers
            [sys.executable, "-IB", str(_CHILD), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            # No key of ours, no proxy, nothing that changes how Python starts.
            env={name: os.environ[name] for name in ("TMPDIR",) if name in os.environ},
            start_new_session=True,  # Ctrl-C is for the parent, which ends it in its own time
        )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._given, self._answers = self._process.stdin, self._process.stdout
        self._is_late = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def convert(self, raw: bytes, format_: Format, *, timeout_seconds: float, max_text_bytes: int) -> Converted:
        """Hand a file over and wait. Raises `DocumentError`, or `_ChildEnded`."""
        self._is_late = False
        timer = threading.Timer(timeout_seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            self._given.write(f"{format_} {len(raw)}\n".encode() + raw)
            self._given.flush()
            line = self._answers.readline(_MAX_ANSWER_LINE_BYTES)
            if line:
                answer = json.loads(line)
                return self._converted(answer if isinstance(answer, dict) else {}, format_, max_text_bytes)
        except (OSError, ValueError):
            # It has closed its end, or answers what is no answer: whatever it is, this child is good for nothing more.
            self.kill()
        finally:
            timer.cancel()
        raise self._told_end()

    def _converted(self, answer: Mapping[str, Any], format_: Format, max_text_bytes: int) -> Converted:
        """Read the rest of an answer; raises `ValueError` for one that the child cannot have meant."""
        if "refused" in answer:
            raise _refusal(format_, str(answer["refused"]))
        if "too_large" in answer:
            raise _too_large(int(answer["too_large"]), max_text_bytes)
        size, pages = answer.get("size"), answer.get("pages")
        if not isinstance(size, int) or not isinstance(pages, list) or not 0 <= size <= max_text_bytes:
            raise ValueError(answer.keys())
        text = self._answers.read(size)
        if len(text) < size or not all(isinstance(line, int) for line in pages):
            raise ValueError(size)
        if not text.strip():
            raise _without_text(format_)
        return Converted(text.decode(), tuple(pages))

    def _expire(self) -> None:
        self._is_late = True
        self.kill()

    def _told_end(self) -> _ChildEnded:
        """How it ended, waited for."""
        self.kill()
        code = self._process.wait()
        return _ChildEnded(None if self._is_late else code)

    def kill(self) -> None:
        """End it at once, unless it has ended; may be called by any thread."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def close(self) -> None:
        """End it, and let go of its pipes."""
        self.kill()
        self._process.wait(_END_SECONDS)
        for pipe in (self._given, self._answers):
            with contextlib.suppress(OSError):  # what was not yet written has nobody left to read it
                pipe.close()


class Converter:
    """Converts files in children that are started when they are needed, at most `max_children` at once. Thread-safe.

    A child serves file after file and ends by itself after `IDLE_SECONDS` without one.
    """

    def __init__(
        self,
        formats: frozenset[Format],
        *,
        timeout_seconds: float,
        max_memory_bytes: int,
        max_text_bytes: int,
        max_children: int,
    ) -> None:
        self.formats = formats
        """What is converted."""
        self.max_children = max_children
        self._timeout_seconds = timeout_seconds
        self._max_text_bytes = max_text_bytes
        self._arguments = (max_memory_bytes, max_text_bytes, math.ceil(timeout_seconds), IDLE_SECONDS)
        self._room = threading.BoundedSemaphore(max_children)
        self._turn = threading.Lock()
        self._resting: list[_Child] = []
        self._busy: set[_Child] = set()
        self._is_closed = False

    @property
    def children(self) -> list[int]:
        """Process ids of the children that there are."""
        with self._turn:
            return [child.pid for child in (*self._resting, *self._busy) if not child.has_ended]

    def convert(self, raw: bytes, format_: Format) -> Converted:
        """The text of a file; raises `UnconvertibleDocument`, `OversizeDocument`, or `ServiceUnavailable` once closed.

        Raises OSError when no child can be started.
        """
        with self._room:
            while True:
                child, is_fresh = self._take()
                is_sound = False
                try:
                    converted = child.convert(
                        raw, format_, timeout_seconds=self._timeout_seconds, max_text_bytes=self._max_text_bytes
                    )
                    is_sound = True
                except DocumentError:
                    is_sound = True
                    raise
                except _ChildEnded as end:
                    if self._is_closed:
                        raise _closed() from end
                    # One that had waited may have ended before it got the file: only a fresh one tells.
                    if end.exit_code is not None and not is_fresh:
                        continue
                    raise self._told(format_, end.exit_code) from end
                finally:
                    self._leave(child, is_sound=is_sound)
                return converted

    def close(self) -> None:
        """End every child; conversions that run fail. May be called twice, and while others convert."""
        with self._turn:
            self._is_closed = True
            resting, self._resting = self._resting, []
            for child in self._busy:
                child.kill()
        for child in resting:
            child.close()

    def _take(self) -> tuple[_Child, bool]:
        """A child, and whether it has just been started."""
        with self._turn:
            if self._is_closed:
                raise _closed()
            ended = [child for child in self._resting if child.has_ended]
            alive = [child for child in self._resting if child not in ended]
            is_fresh = not alive
            # Started under the lock: nothing of it is lost to a `close` that comes meanwhile.
            child = alive.pop() if alive else _Child(*self._arguments)
            self._resting = alive
            self._busy.add(child)
        for each in ended:
            each.close()
        return child, is_fresh

    def _leave(self, child: _Child, *, is_sound: bool) -> None:
        with self._turn:
            self._busy.discard(child)
            rests = is_sound and not self._is_closed and not child.has_ended
            if rests:
                self._resting.append(child)
        if not rests:
            child.close()

    def _told(self, format_: Format, exit_code: int | None) -> UnconvertibleDocument | ServiceUnavailable:
        """Why a child has ended, as an error."""
        if exit_code == CANNOT_START:
            return ServiceUnavailable("the converter of documents cannot start", remedy=_START_REMEDY)
        if exit_code is None:
            return UnconvertibleDocument(
                f"to convert the {format_} file to text takes longer than {self._timeout_seconds:g} s",
                remedy=f"raise convert.timeout_seconds, {_LEAVE_OUT}",
            )
        how = f"exit code {exit_code}" if exit_code >= 0 else f"killed by {_signal_name(-exit_code)}"
        return UnconvertibleDocument(f"the {format_} file ended its converter: {how}", remedy=_DIED_REMEDY)


def _signal_name(number: int) -> str:
    names = {each.value: each.name for each in signal.Signals}
    return names.get(number, f"signal {number}")


def _closed() -> ServiceUnavailable:
    return ServiceUnavailable("the converter was closed", remedy="the document is converted at the next start")


def _refusal(format_: Format, reason: str) -> UnconvertibleDocument:
    if "password" in reason.lower() or "encrypt" in reason.lower():
        return UnconvertibleDocument(f"the {format_} file is locked by a password", remedy=_LOCKED_REMEDY)
    said = escaped(reason)
    if len(said) > _MAX_REASON_CHARACTERS:
        said = said[: _MAX_REASON_CHARACTERS - 1] + "…"
    return UnconvertibleDocument(f"the {format_} file cannot be converted to text: {said}", remedy=_DAMAGED_REMEDY)


def _too_large(size_bytes: int, max_bytes: int) -> OversizeDocument:
    return OversizeDocument(
        f"its text has {size_bytes:,} bytes, more than the {max_bytes:,} of convert.max_text_bytes",
        remedy=f"raise convert.max_text_bytes, split the file, {_LEAVE_OUT}",
    )


def _without_text(format_: Format) -> UnconvertibleDocument:
    hint = "run text recognition (OCR) over it if its pages are pictures" if format_ is Format.PDF else _DAMAGED_REMEDY
    return UnconvertibleDocument(f"the {format_} file holds no text that could be found", remedy=hint)
