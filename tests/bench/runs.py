"""Runs: the installed command at work on a site, timed from outside.

Invariant: a run that did not do all of its work raises; no time of such a run becomes a figure.
"""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.daemon import COMMAND, Daemon, Site

_PATIENCE_SECONDS = 3_600.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Timed:
    """A command that has ended well."""

    seconds: float
    """From the start of the process to its end."""
    report: dict[str, Any]
    """What it has printed."""


def timed_sync(site: Site) -> Timed:
    """Run `ingestor sync --json` to its end, in a process of its own."""
    log = site.root / "sync.log"
    with log.open("wb") as told:
        began_seconds = time.perf_counter()
        done = subprocess.run(
            [COMMAND, "sync", "--json"],
            cwd=site.root,
            env=site.environment(),
            stdout=subprocess.PIPE,
            stderr=told,
            check=False,
            timeout=_PATIENCE_SECONDS,
        )
        seconds = time.perf_counter() - began_seconds
    assert done.returncode == 0, log.read_text(encoding="utf-8")[-3_000:]
    return Timed(seconds, json.loads(done.stdout))


class LogTail:
    """What a daemon tells from now on; only what is new is read."""

    def __init__(self, daemon: Daemon, log: Path) -> None:
        self._daemon = daemon
        self._log = log
        self._read_bytes = log.stat().st_size
        self._rest = b""
        """A line that is half written."""

    def await_events(self, count: int, holds: Callable[[dict[str, Any]], bool]) -> tuple[float, float]:
        """Wait for so many events of a kind; moments of the first and of the last one, by `time.perf_counter`."""
        deadline_seconds = time.monotonic() + _PATIENCE_SECONDS
        first_seconds, seen = 0.0, 0
        while seen < count:
            assert self._daemon.process.poll() is None, self._daemon.log()[-3_000:]
            assert time.monotonic() < deadline_seconds, f"{seen} of {count} events\n{self._daemon.log()[-3_000:]}"
            with self._log.open("rb") as file:
                file.seek(self._read_bytes)
                told = file.read()
            self._read_bytes += len(told)
            *lines, self._rest = (self._rest + told).split(b"\n")
            fresh = sum(holds(json.loads(line)) for line in lines)
            if fresh and not seen:
                first_seconds = time.perf_counter()
            seen += fresh
            if seen < count:
                time.sleep(_POLL_SECONDS)
        return first_seconds, time.perf_counter()
