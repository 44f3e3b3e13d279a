"""Terminals: what one can show, by the environment that describes it.

Sources: https://no-color.org, https://force-color.org, terminfo(5).
"""

from collections.abc import Mapping
from typing import Final

_DUMB: Final = ("dumb", "unknown")


def is_dumb(environment: Mapping[str, str]) -> bool:
    """Whether a terminal prints one line after the other, and can do no more."""
    return environment.get("TERM", "").lower() in _DUMB


def has_colours(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether colours are wanted: `NO_COLOR` forbids them, `FORCE_COLOR` brings them where there is no terminal."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return is_terminal and not is_dumb(environment)
