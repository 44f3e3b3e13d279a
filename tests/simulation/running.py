"""Running one seed, from its number to what came of it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from tests.simulation.history import Figures, Violated
from tests.simulation.loop import Stalled, VirtualLoop, run
from tests.simulation.world import Scenario, World

OPEN: Mapping[str, str] = {
    "late retag": "old metadata that comes after new one, of a call that was given up, stays until the hourly audit",
}
"""Operations, faults and oracles that are left out as long as the engine is known to fail at them, with the reason."""


@dataclass(frozen=True, slots=True)
class Passed:
    """Nothing was wrong."""

    seed: int
    digest: str
    figures: Figures

    def __str__(self) -> str:
        return f"seed {self.seed}: well ({self.figures}), trace {self.digest}"


@dataclass(frozen=True, slots=True)
class Failure:
    """An oracle has spoken, or the simulation itself broke."""

    seed: int
    digest: str
    figures: Figures
    reason: str
    tail: str

    @property
    def sentence(self) -> str:
        """What was wrong, in a line."""
        return f"seed {self.seed}: {self.reason}"

    def __str__(self) -> str:
        return f"{self.tail}\n{self.sentence}, trace {self.digest}"


Found: TypeAlias = Passed | Failure


def simulate(seed: int, scenario: Scenario, listen: Callable[[str], None] | None = None) -> Found:
    """Live through a seed; `listen` is given each line of its trace."""
    worlds: list[World] = []

    async def live(loop: VirtualLoop) -> None:
        worlds.append(World(seed, scenario, loop, listen))
        await worlds[0].run()

    with _silence():
        try:
            run(live)
        except (Violated, Stalled) as error:
            history = worlds[0].history
            return Failure(seed, history.digest, history.figures, str(error), "" if listen else history.tail())
    history = worlds[0].history
    return Passed(seed, history.digest, history.figures)


@contextmanager
def _silence() -> Iterator[None]:
    """The engine logs into nothing: its trace is that of its calls."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
