"""Logs: structlog on standard error; for people on a terminal, JSON otherwise.

Invariant: one line a document, none a chunk; what other libraries log arrives in the same form, from warnings upwards.
The last entries of our own are kept for those who look on, whatever is printed; not those of
libraries, which may be about the very connection by which somebody looks on.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

from ingestor.core.escaping import escaped
from ingestor.core.terminals import has_colours

_LIBRARY_LEVEL = logging.WARNING
_BREAKS = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
"""In JSON, which escapes no more than it must, spelled as JSON spells them."""


KEPT_ENTRIES: Final = 200
_MAX_SHOWN_CHARACTERS: Final = 2_000
_LEVELS: Final = {"warn": "warning", "exception": "error", "fatal": "critical"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log, from info upwards."""

    number: int
    """Counts the entries of this process, from 1."""
    at_seconds: float
    level: str
    fields: Mapping[str, object]

    def as_json(self) -> dict[str, object]:
        """Timestamp, level, event and what belongs to it; harmless to show, and without tracebacks."""
        shown = {name: _shown(value) for name, value in self.fields.items() if name not in {"exc_info", "stack_info"}}
        moment = datetime.fromtimestamp(self.at_seconds, UTC).isoformat(timespec="milliseconds")
        return {"timestamp": moment, "level": self.level} | shown


class Recent:
    """The last entries, for those who look on as they come. Entries may come from any thread.

    Nobody who looks on is waited for: who is slower than the entries come misses the oldest, and can tell how many.
    """

    def __init__(self, most: int = KEPT_ENTRIES) -> None:
        self._entries: deque[Entry] = deque(maxlen=most)
        self._number = 0
        self._lock = threading.Lock()
        self._onlookers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def keep(self, level: str, fields: Mapping[str, object]) -> None:
        """Add an entry, and wake who looks on."""
        with self._lock:
            self._number += 1
            self._entries.append(Entry(self._number, time.time(), level, fields))
            waiting = [(news, loop) for news, loop in self._onlookers.items() if not news.is_set()]
        for news, loop in waiting:
            # A loop that was closed meanwhile has nobody left who looks on.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(news.set)

    def after(self, number: int) -> tuple[int, list[Entry]]:
        """How many entries after that number are lost, and those that are not."""
        with self._lock:
            found = [entry for entry in self._entries if entry.number > number]
            return max(0, self._number - number) - len(found), found

    @contextlib.contextmanager
    def told_by(self, news: asyncio.Event) -> Iterator[None]:
        """Have the event set when there are new entries; who looks on clears it before it looks."""
        with self._lock:
            self._onlookers[news] = asyncio.get_running_loop()
        try:
            yield
        finally:
            with self._lock:
                del self._onlookers[news]


recent: Final = Recent()
"""Of this process."""


def configure_logs(level: str, form: Literal["auto", "console", "json"]) -> None:
    """Set up logging for the process; may be called again."""
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_console else "iso", utc=not is_console),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=has_colours(os.environ, is_terminal=sys.stderr.isatty()), sort_keys=False, pad_event_to=20
        )
        if is_console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            _keep,
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if is_console:
        final.append(_harmless)
    else:
        final += [structlog.processors.format_exc_info, _first_things_first]
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, renderer, _writable])
    stream = _Lines(_StandardError())
    stream.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(_LIBRARY_LEVEL)
    logging.getLogger("ingestor").setLevel(level.upper())


def _keep(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if method != "debug":
        recent.keep(_LEVELS.get(method, method), structlog.contextvars.get_contextvars() | dict(event))
    return event


def _shown(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return escaped(str(value)[:_MAX_SHOWN_CHARACTERS])


class _Lines(logging.StreamHandler["_StandardError"]):
    """Prints what is logged.

    A stream that takes nothing (its terminal is closed, its disk is full, its reader has gone) is nobody's fault here,
    and there is nowhere else to report it: the work goes on, and `recent` has what was not printed.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


class _StandardError:
    """Standard error as it is when a line is told: while a bar is drawn there, lines have to go above it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _first_things_first(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Begin every JSON line alike, so that people who read it find their way."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _harmless(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Let no file name or message of a service move the cursor, colour the terminal or forge a line."""
    return {name: escaped(value) if isinstance(value, str) else value for name, value in event.items()}


def _writable(_logger: object, _method: str, line: object) -> str:
    """Escape what no stream takes (bytes of a name that are no UTF-8), and what some readers take for a line break."""
    breaks = str(line).translate(_BREAKS)
    return breaks.encode("utf-8", "backslashreplace").decode()
