"""A watch that a test drives: hints, doubts, and starts that fail."""

from collections import deque
from collections.abc import Callable

from ingestor.core.errors import IngestorError
from ingestor.core.model import Doubt, DoubtKind, Hint


class ScriptedWatch:
    """`ports.Watch`. `emit` sends a hint, `doubted` is what `doubt` says next, `start_faults` fail coming starts."""

    def __init__(self) -> None:
        self.starts = 0
        self.stops = 0
        self.doubted: str | None = None
        self.limitation = ""
        self.start_faults: deque[IngestorError] = deque()
        self._emit: Callable[[Hint], None] | None = None

    @property
    def mode(self) -> str:
        return "scripted"

    @property
    def is_running(self) -> bool:
        return self._emit is not None

    def start(self, emit: Callable[[Hint], None]) -> None:
        self.starts += 1
        if self.start_faults:
            raise self.start_faults.popleft()
        self._emit = emit

    def emit(self, hint: Hint) -> None:
        assert self._emit is not None, "the watch is not running"
        self._emit(hint)

    def doubt(self) -> Doubt | None:
        doubted, self.doubted = self.doubted, None
        return None if doubted is None else Doubt(doubted, DoubtKind.OVERFLOW)

    def stop(self) -> None:
        self.stops += 1
        self._emit = None
