"""Progress where there is no terminal: a line now and then."""

import time
from collections.abc import Callable
from typing import ParamSpec

_PAUSE_SECONDS = 5.0

_P = ParamSpec("_P")


def now_and_then(tell: Callable[_P, None]) -> Callable[_P, None]:
    """Tell no sooner than `_PAUSE_SECONDS` after the time before, and after the beginning."""
    told_seconds = time.monotonic()

    def tell_if_due(*args: _P.args, **kwargs: _P.kwargs) -> None:
        nonlocal told_seconds
        if time.monotonic() - told_seconds >= _PAUSE_SECONDS:
            told_seconds = time.monotonic()
            tell(*args, **kwargs)

    return tell_if_due
