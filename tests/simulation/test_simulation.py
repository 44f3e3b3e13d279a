"""A minute of seeds, that a seed is exact, and that faults put into the engine are found out."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.simulation.history import Figures
from tests.simulation.mutants import MUTANTS, Mutant, living
from tests.simulation.running import OPEN, Failure, simulate
from tests.simulation.world import Scenario

SECONDS = 60.0
MAX_SEEDS = 500
"""A minute of a slow machine and one of a fast machine are to say the same."""
FOUND_SECONDS = 60.0
USUAL = Scenario(without=frozenset(OPEN))

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_nothing_is_wrong_in_a_minute_of_seeds(tell: Tell) -> None:
    began_seconds, total = time.monotonic(), Figures()
    for seed in range(1, MAX_SEEDS + 1):
        found = simulate(seed, USUAL)
        assert not isinstance(found, Failure), f"python -m tests.simulation --seed {seed} --only\n{found}"
        total.add(found.figures)
        if time.monotonic() > began_seconds + SECONDS:
            break
    tell(str(total))


@pytest.mark.parametrize("owners", [0.0, 1.0], ids=["one owner", "others besides"])
def test_a_seed_is_the_same_whenever_it_is_run(owners: float) -> None:
    scenario = replace(USUAL, owners=owners)
    for seed in range(1, 4):
        assert simulate(seed, scenario) == simulate(seed, scenario)


def test_a_seed_is_the_same_in_every_process() -> None:
    told = set()
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "7", "--only"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(done.stdout)
    assert len(told) == 1
    assert "trace" in told.pop()


def test_the_trace_of_a_seed_can_be_listened_to() -> None:
    heard: list[str] = []
    found = simulate(3, USUAL, heard.append)
    assert found.digest == simulate(3, USUAL).digest
    assert any("at rest" in line for line in heard)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_fault_of_the_engine_is_found(mutant: Mutant, tell: Tell) -> None:
    scenario, began_seconds = mutant.at_large(USUAL), time.monotonic()
    for seed in count(mutant.seed):
        with living(mutant.edits):
            found = simulate(seed, scenario)
        seconds = time.monotonic() - began_seconds
        if isinstance(found, Failure) and _is_well_without_one(mutant, seed):
            tell(f"{mutant}: seed {seed}, {seconds:.1f} s: {found.reason[:100]}")
            break
        assert seconds < FOUND_SECONDS, f"{seed - mutant.seed + 1} seeds have not found: {mutant}"
    assert not isinstance(simulate(seed, scenario), Failure), "without the fault all is well"


def _is_well_without_one(mutant: Mutant, seed: int) -> bool:
    """Whether each of two safeguards does in a seed what the other one is for as well; true where there is one only."""
    if mutant.twin is None:
        return True
    for edit in mutant.edits:
        with living([edit]):
            if isinstance(simulate(seed, mutant.at_large(USUAL)), Failure):
                return False
    return True
