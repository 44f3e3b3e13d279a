"""`python -m tests.simulation --seconds 600 --seed 1`: seeds from 1 upwards, for so long; what they went through.

`--only` runs the one seed and shows its whole trace. The exit code is 1 when an oracle has spoken.
"""

import argparse
import itertools
import sys
import time

from tests.simulation.history import Figures
from tests.simulation.running import OPEN, Failure, simulate
from tests.simulation.world import Scenario

PROGRESS_SECONDS = 10.0


def main() -> int:
    """Run seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--only", action="store_true", help="run the one seed and show its trace")
    parser.add_argument(
        "--without",
        default=",".join(OPEN),
        help="operations and faults that do not happen, separated by commas (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=Scenario().steps, help="operations a seed")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure, and list all")
    chosen = parser.parse_args()
    scenario = Scenario(steps=chosen.steps, without=frozenset(filter(None, chosen.without.split(","))))
    if chosen.only:
        found = simulate(chosen.seed, scenario, _show)
        _show(str(found))
        return int(isinstance(found, Failure))
    return _run(scenario, chosen.seed, chosen.seconds, is_patient=chosen.keep_going)


def _run(scenario: Scenario, seed: int, seconds: float, *, is_patient: bool) -> int:
    """Run seeds for so long, or until one fails."""
    began_seconds = told_seconds = time.monotonic()
    total, failures = Figures(), 0
    for each in itertools.count(seed):
        found = simulate(each, scenario)
        total.add(found.figures)
        if isinstance(found, Failure):
            failures += 1
            _show(found.sentence if is_patient else str(found))
        now_seconds = time.monotonic()
        if now_seconds > told_seconds + PROGRESS_SECONDS:
            told_seconds = now_seconds
            sys.stderr.write(f"seed {each}: {total}\n")
        if now_seconds > began_seconds + seconds or (failures and not is_patient):
            break
    passed_seconds = time.monotonic() - began_seconds
    _show(f"{total}; {total.seconds / passed_seconds:,.0f} times as fast as time")
    for name, times in sorted((total.operations + total.faults).items()):
        _show(f"{times:8d} {name}")
    _show(f"{failures} failures")
    return int(failures > 0)


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
