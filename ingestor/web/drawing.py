"""Drawing: templates, and how values look in them.

Invariant: whatever a template is given is escaped, unless the template itself says otherwise, and none does. A text of
somebody else goes through `shown` as well, so that no sign of it turns the direction of what stands around it.
"""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ingestor.core.escaping import escaped, spelled
from ingestor.language import translated
from ingestor.web.words import Words

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_FEW_SECONDS: Final = 3
_UNITS: Final = ("B", "KB", "MB", "GB", "TB")
_STEP: Final = 1000


def drawn(template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template takes
    """Draw one of our templates."""
    return _environment().get_template(template).render(values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ingestor.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "ago": _ago,
        "counted": "{:,}".format,
        "lasting": _lasting,
        "shown": escaped,
        "sized": _sized,
        "spelled": spelled,
        "told": _told,
    }
    return environment


def _told(sentence: str, words: Words) -> str:
    """What the program says of itself - of errors, Problems, outages - in the reader's language."""
    return escaped(translated(sentence, words.language))


def _ago(at_seconds: float, words: Words) -> str:
    """A moment of the past, in seconds since the epoch: how long ago within a day, the day of it before that."""
    passed_seconds = max(0.0, time.time() - at_seconds)
    if passed_seconds < _FEW_SECONDS:
        return words("time.now")
    if passed_seconds < _DAY:
        return words("time.ago", time=_lasting(passed_seconds, words))
    try:
        return f"{datetime.fromtimestamp(at_seconds, UTC).astimezone():%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):
        return ""  # a file may bear a time that no calendar has


def _lasting(seconds: float, words: Words) -> str:
    if seconds < _MINUTE:
        return words("time.seconds", count=int(seconds))
    if seconds < _HOUR:
        return words("time.minutes", count=int(seconds / _MINUTE))
    return words("time.hours", count=int(seconds / _HOUR))


def _sized(size_bytes: int) -> str:
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} {_UNITS[0]}"
