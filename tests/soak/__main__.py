"""`python -m tests.soak --minutes 60 --seed 1`: a real daemon, a restless folder, faults, and an oracle of its own.

Each round somebody works on the folder for some seconds while one kind of fault goes on; then all is quiet, and the
collection has to become the folder without anybody's help, but for an `approve` where most of it has gone at once.
While it is not, `ingestor status` must not say that it is. A round that fails is told at once with its seed, and the
soak goes on; the exit code is 1 when one has failed.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from chromadb.errors import ChromaError

from tests.daemon import Daemon, Site, provider_settings
from tests.embedding_server import EmbeddingServer, Fault, FaultKind
from tests.soak.hands import Hands
from tests.soak.oracle import differences, rows_of

DIMENSIONS = 64
QUIET_SECONDS = 150.0
"""How long the collection may take to become the folder after the last operation and the last fault."""
APPROVE_SECONDS = 10.0
"""After the last operation: as somebody does who has deleted, or renamed and edited, most of the folder in a moment."""
SETTLED_SECONDS = 3.0
"""After the last operation; what the daemon cannot have noticed yet is nothing that it could speak of."""
IN_STEP = "in step"
HTML_403 = Fault(FaultKind.STATUS, status=403, headers={"content-type": "text/html"}, body="<html>Forbidden</html>")
FAULTS = (
    *(Fault(FaultKind.STATUS, status=status) for status in (429, 500, 502, 503)),
    Fault(FaultKind.STATUS, status=429, headers={"retry-after": "1"}),
    HTML_403,
    *(Fault(kind) for kind in (FaultKind.MALFORMED, FaultKind.FEWER, FaultKind.RESET, FaultKind.CUT, FaultKind.ZERO)),
    Fault(FaultKind.WRONG_DIMENSION),
    Fault(FaultKind.NOT_A_NUMBER),
    Fault(FaultKind.NO_INDEX),
    Fault(FaultKind.HANG, seconds=4.0),
)
CALM = ("calm", "slow", "chroma killed", "chroma stopped")
"""Kinds of rounds in which nothing may be paid for twice."""
KINDS = (*CALM, "calm", "endpoint", "endpoint", "daemon killed", "both killed")


@dataclass(slots=True)
class Totals:
    """What the whole soak has gone through."""

    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    failed: list[str] = field(default_factory=list)
    quiet_seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: int = 0
    approved: int = 0


class Soak:
    """One folder, one daemon, one embedding server, for as long as it lasts."""

    def __init__(self, site: Site, server: EmbeddingServer, seed: int) -> None:
        self._site = site
        self._server = server
        self._chance = random.Random(seed)
        self._hands = Hands(site.folder, self._chance)
        self.totals = Totals()
        self._daemon = self._started()

    def run(self, until_seconds: float) -> None:
        """Go round until the time is over."""
        while time.monotonic() < until_seconds:
            kind = self._chance.choice(KINDS)
            began_texts, began_repeated = self._server.texts, self._server.counters.repeated_texts
            with self._fault(kind):
                self._work(kind)
            self._hands.rest()
            seconds = self._wait_equal(kind)
            self.totals.rounds += 1
            self.totals.quiet_seconds.setdefault(kind, []).append(seconds)
            repeated = self._server.counters.repeated_texts - began_repeated
            self._say(
                f"round {self.totals.rounds} {kind}: equal after {seconds:.1f} s,"
                f" {self._server.texts - began_texts} texts, {repeated} paid again"
            )
            if repeated and kind in CALM:
                self._fail(f"{repeated} texts were paid for again in a round of kind {kind}")

    def _work(self, kind: str) -> None:
        until_seconds = time.monotonic() + self._chance.uniform(3.0, 15.0)
        pace_seconds = self._chance.choice((0.0, 0.02, 0.2))
        kill_at_seconds = time.monotonic() + self._chance.uniform(0.5, 3.0)
        while time.monotonic() < until_seconds:
            self.totals.operations[self._hands.act()] += 1
            if kind == "endpoint" and self._chance.random() < 0.3:
                fault = self._chance.choice(FAULTS)
                self._server.inject(fault)
                self.totals.faults[fault.kind.value] += 1
            if "killed" in kind and time.monotonic() >= kill_at_seconds:
                self._kill(kind)
                kill_at_seconds = time.monotonic() + self._chance.uniform(2.0, 8.0)
            time.sleep(pace_seconds * self._chance.random())

    def _kill(self, kind: str) -> None:
        self.totals.faults[kind] += 1
        if kind in {"chroma killed", "both killed"}:
            self._signal_server(signal.SIGKILL)
        if kind in {"daemon killed", "both killed"}:
            self._daemon.kill()
            self._daemon = self._started()

    @contextlib.contextmanager
    def _fault(self, kind: str) -> Iterator[None]:
        self._server.latency_seconds = self._chance.uniform(0.5, 3.0) if kind == "slow" else 0.05
        if kind == "chroma stopped":
            self.totals.faults[kind] += 1
            self._signal_server(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.latency_seconds = 0.05
            self._server.forget_faults()
            if kind == "chroma stopped":
                self._signal_server(signal.SIGCONT)

    def _signal_server(self, number: signal.Signals) -> None:
        for pid in self._site.servers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _wait_equal(self, kind: str) -> float:
        """Wait until the collection is the folder; returns after how many seconds it was."""
        quiet_since_seconds = time.monotonic()
        found, has_lied = ["nothing was read"], False
        while (waited_seconds := time.monotonic() - quiet_since_seconds) < QUIET_SECONDS:
            if self._daemon.process.poll() is not None:
                self._fail(
                    f"the daemon has ended with {self._daemon.process.returncode}:\n{self._daemon.log()[-2000:]}"
                )
                self._daemon = self._started()
            claim = self._claim() if waited_seconds > SETTLED_SECONDS else ""
            try:
                found = differences(self._site.folder, rows_of(self._site.port), DIMENSIONS)
            except (ChromaError, ValueError, httpx.HTTPError) as error:
                found = [repr(error)]
                claim = ""
            if not found:
                return waited_seconds
            if IN_STEP in claim and not has_lied:
                has_lied = True
                self._fail(f"status says {IN_STEP!r} beside {len(found)} differences: {found[:3]}")
            if waited_seconds > APPROVE_SECONDS:
                self._approve()
            time.sleep(0.5)
        self._fail(f"after a round of kind {kind}, and {QUIET_SECONDS:.0f} s: {len(found)} differences: {found[:8]}")
        # The next round is to be judged by itself: a restart heals what a daemon at work has not.
        self._daemon.terminate()
        self._daemon = self._started()
        return QUIET_SECONDS

    def _approve(self) -> None:
        """Let deletions happen that are held back, unless one of their files is there."""
        held = [each["path"] for each in self._site.command("approve", "--list", "--json").json()]
        if there := [path for path in held if (self._site.folder / path).is_file()]:
            self._fail(
                f"{len(there)} of {len(held)} deletions that are held back are of files that are there: {there[:3]}"
            )
        elif held:
            self.totals.approved += len(held)
            self._site.command("approve")

    def _claim(self) -> str:
        self.totals.statuses += 1
        done = self._site.command("status", LC_ALL="C.UTF-8")
        if done.code not in {0, 3, 4}:
            self._fail(f"status ended with {done.code}: {done.err}")
        return done.out

    def _started(self) -> Daemon:
        return self._site.start("run")

    def _fail(self, reason: str) -> None:
        self.totals.failed.append(f"round {self.totals.rounds + 1}: {reason}")
        self._say(f"FAILED {self.totals.failed[-1]}")

    @staticmethod
    def _say(sentence: str) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
        sys.stdout.flush()


def main() -> int:
    """Soak, and say what it came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=None, help="work in this folder, and leave it there")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        root.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(EmbeddingServer(dimensions=DIMENSIONS, latency_seconds=0.05))
        settings = provider_settings(
            server, EMBEDDING__TIMEOUT_SECONDS=3, CHUNK__MAX_TOKENS=64, CHUNK__OVERLAP_TOKENS=0
        )
        site = stack.enter_context(Site(root, settings))
        soak = Soak(site, server, asked.seed)
        soak.run(time.monotonic() + 60.0 * asked.minutes)
        totals = soak.totals
        told = {
            "seed": asked.seed,
            "minutes": asked.minutes,
            "rounds": totals.rounds,
            "operations": totals.operations.total(),
            "faults": dict(totals.faults),
            "statuses": totals.statuses,
            "approved": totals.approved,
            "quiet_seconds": {
                kind: {"rounds": len(each), "median": sorted(each)[len(each) // 2], "max": max(each)}
                for kind, each in totals.quiet_seconds.items()
            },
            "texts": server.texts,
            "paid_again": server.counters.repeated_texts,
            "failed": totals.failed,
        }
        sys.stdout.write(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
