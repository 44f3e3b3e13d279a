"""Unchanged: a comparison of folder and ledger that finds nothing to do, as at every start and every rescan.

The floor lists every folder, stats every file and loads the ledger's stats. Both run in turns, in a process of their
own (`python -m tests.bench.unchanged FOLDER LEDGER`), because a heap full of other things slows Python's collector.
The ledger is written as after a sync of all files, with as many record ids, but without Chroma.
"""

import asyncio
import contextlib
import gc
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from ingestor.adapters.folder import Folder
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.rules import Rules
from ingestor.adapters.runtime import SystemRuntime, ThreadLane
from ingestor.cli.main import NEW_OBJECTS
from ingestor.core.chunking import Cutter
from ingestor.core.guarding import DeletionLimit
from ingestor.core.model import Entry
from ingestor.engine.in_work import InWork
from ingestor.engine.intake import Intake
from ingestor.engine.looking import Looker
from ingestor.engine.reconcile import Reconciler
from ingestor.engine.tally import Tally
from ingestor.logs import configure_logs
from tests.bench.corpus import write_corpus
from tests.bench.figure import Figure
from tests.bench.floors import looking_seconds
from tests.bench.runs import timed_sync
from tests.bench.services import provider_served, workplace
from tests.daemon import COMMAND, Site

FILES = 100_000
BOUND = 1.5
_TURNS = 5
_TRACED_FILES = 100
_CHUNKS = 3
_FILE_BYTES = 100
"""Of the median file: sizes do not matter where nothing is opened."""


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """The comparison itself, and how many files a whole `ingestor sync` opens when nothing has changed."""
    files = max(1, round(FILES * scale))
    with workplace() as place:
        folder, ledger = place / "watched_dir", place / "ledger.sqlite3"
        write_corpus(folder, files, median_bytes=_FILE_BYTES)
        _write_ledger(folder, ledger)
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.unchanged", str(folder), str(ledger)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            check=True,
        )
        found = json.loads(done.stdout)
    yield Figure(
        f"nothing changed ({files:,} files)",
        median(found["seconds"]),
        median(found["floors"]),
        "s",
        BOUND,
        note=f"medians of {_TURNS} in turns; the value is `Reconciler.reconcile`, without the start of a process",
    )
    yield Figure(
        f"files opened by a comparison ({files:,} files)",
        found["opened"],
        1.0,
        "files",
        0.0,
        note="counted by an audit hook inside of the process; the floor is none, the ratio is the count",
    )
    yield from _opened_by_a_sync()


def _opened_by_a_sync() -> Iterator[Figure]:
    """The same of the installed command, as the kernel sees it; nothing where there is no strace."""
    strace = shutil.which("strace")
    if strace is None:
        return
    with workplace() as place, provider_served(is_instant=True) as provider, Site(place, provider.settings()) as site:
        write_corpus(site.folder, _TRACED_FILES, median_bytes=_FILE_BYTES)
        timed_sync(site)
        trace = site.root / "trace"
        subprocess.run(
            [strace, "-f", "-y", "-s", "4096", "-e", "trace=open,openat,openat2,creat", "-o", trace, COMMAND, "sync"],
            cwd=site.root,
            env=site.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        calls = trace.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        opened = [call for call in calls if f"<{site.folder}/" in call.rpartition(" = ")[2]]
    files = [call for call in opened if "O_DIRECTORY" not in call]
    # A trace without the folders that were listed has seen nothing, and proves nothing.
    assert len(opened) > len(files)
    yield Figure(
        f"files opened by a sync ({_TRACED_FILES:,} files)",
        len(files),
        1.0,
        "files",
        0.0,
        note="counted by strace over `ingestor sync`; the floor is none, the ratio is the count",
    )


def _write_ledger(folder: Path, ledger: Path) -> None:
    cutting = Cutter().recipe
    entries = []
    source = _source(folder)
    for path in source.scan().files:
        stat = source.look(path)
        assert stat is not None
        name = hashlib.sha256(path.encode()).hexdigest()
        tags = {f"{name[:32]}:{chunk:032x}": name[:16] for chunk in range(_CHUNKS)}
        entries.append(Entry(path, name[:32], stat, name, cutting, tags))
    with contextlib.closing(SqliteLedger(ledger)) as opened:
        opened.mark(entries)


def _source(folder: Path) -> Folder:
    return Folder(folder, Rules((), ()), follow_symlinks=False, max_file_bytes=10**7)


async def _compare(folder: Path, ledger: Path) -> dict[str, Any]:
    """Time the comparison and its floor in turns, and note all that the comparison opens."""
    opened: list[str] = []
    is_watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if is_watching and event == "open" and str(arguments[0]).startswith(f"{folder}/"):
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    lane = ThreadLane("ledger")
    seconds, floors = [], []
    with contextlib.closing(SqliteLedger(ledger)) as known:
        runtime, tally, in_work = SystemRuntime(), Tally(), InWork()
        source = _source(folder)
        reconciler = Reconciler(
            source,
            known,
            lane,
            runtime,
            looker=Looker(source, runtime, cutting=Cutter().recipe),
            tally=tally,
            in_work=in_work,
            intake=Intake(known, lane, runtime, tally=tally, in_work=in_work),
            cutting=Cutter().recipe,
            limit=DeletionLimit(0.5, 100),
        )
        for _ in range(_TURNS):
            gc.collect()
            began_seconds = perf_counter()
            looking_seconds(folder, ledger)
            floors.append(perf_counter() - began_seconds)  # with the time to free what was found, as below
            gc.collect()
            is_watching = True
            began_seconds = perf_counter()
            found = await reconciler.reconcile()
            seconds.append(perf_counter() - began_seconds)
            is_watching = False
            assert (found.present, found.gone, found.unreadable) == (0, 0, 0), found
            assert found.same > 0
        lane.close()
    return {"seconds": seconds, "floors": floors, "opened": opened}


def main() -> None:
    """Compare a folder with a ledger, and print what it took as JSON."""
    configure_logs("warning", "json")
    gc.set_threshold(NEW_OBJECTS)  # as the command does, for the floor as well
    folder, ledger = map(Path, sys.argv[1:])
    found = asyncio.run(_compare(folder, ledger))
    found["opened"] = sum(Path(path).is_file() for path in found["opened"])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
