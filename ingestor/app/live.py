"""Live: what a running daemon knows of itself, as it comes up and until it has gone."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

from ingestor.app.parts import ledger_of
from ingestor.app.searching import Searchers
from ingestor.core.errors import IngestorError, RecipeMismatch, ServiceUnavailable
from ingestor.engine.daemon import Line
from ingestor.settings import Settings

STARTING = "it is starting"
ENDING = "it is ending"


@dataclass(eq=False, slots=True)
class Live:
    """One running daemon; used by the thread of its loop, but for `queue_faults`."""

    settings: Settings
    stop: asyncio.Event
    """Set when it is on its way out."""
    lines: Sequence[Line] = ()
    """The sources that are followed; none until Chroma was reached."""
    searchers: Searchers | None = None
    trouble: str = STARTING
    """Why Chroma was not reached yet; empty when it was."""
    is_rebuilding: bool = False
    """Whether that is because collections are rebuilt for the settings of now."""

    def come_up(self, lines: Sequence[Line], searchers: Searchers) -> None:
        """Chroma is reached: folders are followed, and questions answered."""
        self.lines, self.searchers, self.trouble = lines, searchers, ""

    @property
    def absence(self) -> str:
        """Why there is nothing that could be asked yet, or any more; empty in between."""
        return ENDING if self.stop.is_set() else self.trouble

    def faults(self) -> list[str]:
        """Why the daemon is not ready, in sentences; none when it is."""
        if self.absence:
            return [self.absence]
        found = []
        for line in self.lines:
            where = f" (source {line.pipeline.name})" if line.pipeline.name else ""
            if not line.compared(of_several=len(self.lines) > 1).is_set():
                found.append(f"the folder has not been compared with the collection yet{where}")
            if storage := line.pipeline.storage_outage:
                found.append(f"{storage}{where}")
            if failing_seconds := line.pipeline.chroma_failing_seconds():
                found.append(f"Chroma has failed at all it was asked for {failing_seconds:.0f} s{where}")
        return found

    def queue_faults(self) -> list[str]:
        """Why the queue cannot be read, in sentences; none when it can. Blocks."""
        found = []
        for each in self.settings.each():
            try:
                with ledger_of(each) as ledger:
                    if ledger is not None:
                        ledger.next_due_seconds()
            except IngestorError as error:
                found.append(error.sentence)
        return found

    def opened_searchers(self) -> Searchers:
        """What answers questions.

        Raises `ServiceUnavailable` while there is nothing to ask, `RecipeMismatch` while that is rebuilt.
        """
        if self.is_rebuilding:
            raise RecipeMismatch(
                "the collection is being rebuilt for other settings", remedy="`ingestor query` asks it meanwhile"
            )
        if self.searchers is None or self.absence:
            raise ServiceUnavailable(f"nothing can be asked: {self.absence}", remedy="try again in a moment")
        return self.searchers


Front: TypeAlias = Callable[[Live, Executor], AbstractAsyncContextManager[str]]
"""What others reach a running daemon through: open for as long as the block, to which it gives its URL.

It imports what it needs by the executor, after what was given to that before. When it dies, it ends the block with its
error. Entering raises `ConfigError` where it cannot be open as the settings say.
"""
