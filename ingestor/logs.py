"""Logs: structlog on standard error; for people on a terminal, JSON otherwise.

Invariant: one line a document, none a chunk; what other libraries log arrives in the same form, from warnings upwards.
"""

import logging
import os
import sys
from typing import Literal

import structlog

from ingestor.core.escaping import escaped
from ingestor.core.terminals import has_colours

_LIBRARY_LEVEL = logging.WARNING
_BREAKS = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
"""In JSON, which escapes no more than it must, spelled as JSON spells them."""


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
    stream = logging.StreamHandler(_StandardError())
    stream.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(_LIBRARY_LEVEL)
    logging.getLogger("ingestor").setLevel(level.upper())


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
