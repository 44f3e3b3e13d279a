"""Diagnosing: what a check of the surroundings finds, and what a command that checks ends with.

Invariant: a finding says one thing in one sentence; what is not well has a remedy, or its sentence says that none is
needed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ingestor.core.errors import IngestorError

EXIT_UNEXPECTED: Final = 1
EXIT_MISCONFIGURED: Final = 2
EXIT_NOT_WELL: Final = 3
EXIT_OUT_OF_REACH: Final = 4
EXIT_ALREADY_RUNNING: Final = 5
EXIT_DAMAGED: Final = 6
_WORST_FIRST: Final = (
    EXIT_MISCONFIGURED,
    EXIT_DAMAGED,
    EXIT_ALREADY_RUNNING,
    EXIT_OUT_OF_REACH,
    EXIT_NOT_WELL,
    EXIT_UNEXPECTED,
)
"""What keeps ingestor from working until somebody acts goes before what may pass."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    HINT = "hint"
    """Works, and could be better, or is worth knowing."""
    WARNING = "warning"
    """Works, but not for all, or not for long."""
    ERROR = "error"
    """Does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found."""

    check: str
    """What was looked at: "embedding"."""
    level: Level
    sentence: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Figures and names behind the sentence, as JSON takes them."""
    exit_code: int = EXIT_NOT_WELL
    """Of a command that finds nothing worse, where this is an error."""


def well(check: str, sentence: str, **facts: Any) -> Finding:  # noqa: ANN401 - whatever JSON takes
    """All is as it should be."""
    return Finding(check, Level.OK, sentence, facts=facts)


def hint(check: str, sentence: str, remedy: str = "", **facts: Any) -> Finding:  # noqa: ANN401 - as above
    """It works, and there is something to know."""
    return Finding(check, Level.HINT, sentence, remedy, facts)


def warning(check: str, sentence: str, remedy: str, **facts: Any) -> Finding:  # noqa: ANN401 - as above
    """It works, but not for all, or not for long."""
    return Finding(check, Level.WARNING, sentence, remedy, facts)


def failure(check: str, error: IngestorError, **facts: Any) -> Finding:  # noqa: ANN401 - as above
    """What would end a command."""
    return Finding(check, Level.ERROR, str(error), error.remedy, facts, error.exit_code)


def exit_code_of(findings: Iterable[Finding]) -> int:
    """What a command ends with: the worst error's own code, 3 where there are warnings, 0 where there are neither."""
    bad = list(findings)
    codes = {each.exit_code for each in bad if each.level is Level.ERROR}
    if codes:
        return min(codes, key=lambda code: _WORST_FIRST.index(code) if code in _WORST_FIRST else len(_WORST_FIRST))
    return EXIT_NOT_WELL if any(each.level is Level.WARNING for each in bad) else 0
