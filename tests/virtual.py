"""Time that passes only when nobody has anything left to do: hours of pauses take no longer than the work between them.

Nothing that runs on it may use threads, files or sockets.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Leaper(selectors.SelectSelector):
    """Waits for nothing: the time that would have been waited has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen any more"
        self.passed_seconds += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaper = _Leaper()
        super().__init__(self._leaper)

    def time(self) -> float:
        return self._leaper.passed_seconds


class InlineLane:
    """`ports.Lane` without a thread."""

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return call(*args, **kwargs)

    def close(self) -> bool:
        return True


class VirtualRuntime:
    """`ports.Runtime` by the time of the loop; its chance is always the same."""

    def now_seconds(self) -> float:
        return 1_700_000_000.0 + self.monotonic_seconds()

    def monotonic_seconds(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def fraction(self) -> float:
        return 0.5

    def new_id(self) -> str:
        raise NotImplementedError

    async def in_thread(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return call(*args, **kwargs)

    def lane(self, name: str) -> InlineLane:
        assert name
        return InlineLane()


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
