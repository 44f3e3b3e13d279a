"""Commands that die at a chosen change of the outside: forked from one process that has imported everything already.

What counts is each change that a process leaves behind: a call that changes Chroma, a transaction or a rewriting of a
SQLite file of ours, a file that is made, written to, renamed or deleted. A death at a look is one after the change
before it. Run as a program it reads orders, a line of JSON each, and answers each with a line.

Invariant: no thread runs and no client is open where it forks.
"""

import functools
import importlib
import json
import os
import re
import signal
import sqlite3
import sqlite3.dbapi2
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.checker import Row
from tests.daemon import PATIENCE_SECONDS, Finished

LANE = "chroma"
"""Name of the thread on which a daemon changes Chroma and switches."""
_LOADED = ("chromadb", "httpx", "openai", "rich", "sqlalchemy", "uvloop", "ingestor.app.daemon", "ingestor.app.prune")
_FILE_EVENTS = {"os.remove", "os.rename", "os.rmdir"}
_STATEMENTS = re.compile(r"COMMIT|VACUUM|PRAGMA wal_checkpoint", re.IGNORECASE)
_NEVER = 1_000_000
_PATIENCE_SECONDS = 120
"""A command that neither ends nor dies is ended after this time."""


@dataclass(frozen=True, slots=True)
class Order:
    """One command."""

    arguments: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    dies_at: int = _NEVER
    """The change that is its last, counted from 1."""
    begins: str = ""
    """The function, as `module:name`, from which a daemon's changes count, of its lane and its count; "": all."""


@dataclass(frozen=True, slots=True)
class Ended(Finished):
    """A command that has ended or died."""

    changes: tuple[str, ...]
    """What it had done, in order."""

    @property
    def has_died(self) -> bool:
        """Whether it died at its chosen change."""
        return self.code == -signal.SIGKILL


class Dying:
    """The process from which commands are forked; it ends with the block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.dying"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=PATIENCE_SECONDS)

    def run(self, order: Order) -> Ended:
        """Run a command to its end, or until it dies."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = {name: getattr(order, name) for name in Order.__slots__}
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ended(answer["code"], answer["out"], answer["err"], tuple(answer["changes"]))

    def rows(self, path: Path) -> list[Row]:
        """Read the collection in a folder that nobody has open."""
        done = self.run(Order(("rows", str(path)), str(path.parent), {}))
        assert done.code == 0, done.err
        return [Row(row["id"], row["text"], row["metadata"], tuple(row["embedding"])) for row in done.json()]


class _Fate:
    """Ends the process at a change."""

    def __init__(self, order: Order, told: Path) -> None:
        self._left = order.dies_at
        self._told = told.open("w", encoding="utf-8")
        self._is_counting = not order.begins
        self._begins = order.begins
        self._counting = threading.RLock()

    def change(self, name: str) -> None:
        """Count a change, which is about to happen if it is one of a file of ours, and has happened if not."""
        if not self._is_counting or (self._begins and threading.current_thread().name != LANE):
            return
        self.count(name)

    def count(self, name: str) -> None:
        with self._counting:
            self._told.write(f"{name}\n")
            self._told.flush()
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def set_up(self) -> None:
        """Have every change counted."""
        from chromadb.api.client import Client  # noqa: PLC0415 - a test that imports this module runs no command
        from chromadb.api.models.Collection import Collection  # noqa: PLC0415 - as above

        for kind, names in (
            (Client, ("create_collection", "delete_collection")),
            (Collection, ("add", "update", "upsert", "delete", "modify")),
        ):
            for name in names:
                self._follow(kind, name, self.change)
        sys.addaudithook(self._audited)
        connect = sqlite3.connect

        @functools.wraps(connect)
        def traced(*arguments: Any, **named: Any) -> sqlite3.Connection:  # noqa: ANN401 - whatever it takes
            connection: sqlite3.Connection = connect(*arguments, **named)
            connection.set_trace_callback(self._executed)
            return connection

        sqlite3.connect = sqlite3.dbapi2.connect = traced  # type: ignore[assignment]  # the same function
        if self._begins:
            self._set_up_daemon()

    def _set_up_daemon(self) -> None:
        from ingestor.adapters.ledger import SqliteLedger  # noqa: PLC0415 - as above
        from ingestor.engine.compaction import Compactor  # noqa: PLC0415 - as above

        module_name, _, name = self._begins.partition(":")
        module = importlib.import_module(module_name)
        original = getattr(module, name)

        @functools.wraps(original)
        def begun(*arguments: object, **named: object) -> object:
            self._is_counting = True
            self._follow(SqliteLedger, "set_tombstones", self.count)
            return original(*arguments, **named)

        compact = Compactor.compact

        async def compacted(compactor: Compactor) -> None:
            await compact(compactor)
            os.kill(os.getpid(), signal.SIGTERM)

        setattr(module, name, begun)
        setattr(Compactor, "compact", compacted)  # noqa: B010 - mypy allows no method to be replaced

    @staticmethod
    def _follow(kind: type, name: str, count: Callable[[str], None]) -> None:
        original = getattr(kind, name)

        @functools.wraps(original)
        def followed(*arguments: object, **named: object) -> object:
            result = original(*arguments, **named)
            count(name)
            return result

        setattr(kind, name, followed)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS:
            self.change(event)
        elif event == "open" and set(str(arguments[1])) & set("wa+"):
            self.change("write")

    def _executed(self, statement: str) -> None:
        if found := _STATEMENTS.match(statement):
            self.change(found[0])


def _carry_out(order: Order, place: Path) -> None:
    """Be the command. Never returns."""
    os.chdir(order.folder)
    os.environ.update(order.environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if order.arguments[0] == "rows":
        sys.argv = list(order.arguments)
        importlib.import_module("tests.checker").main()
    else:
        sys.argv = ["ingestor", *order.arguments]
        main = importlib.import_module("ingestor.cli").main
        _Fate(order, place / "changes").set_up()
        main()


def _forked(order: Order, place: Path) -> int:
    """Run a command in a process of its own; returns its exit code, or less than 0 for the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(_PATIENCE_SECONDS)
        code = 1
        try:
            _carry_out(order, place)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001 - whatever it is, the test is told of it
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Carry out orders until there are no more."""
    import tempfile  # noqa: PLC0415 - as above

    sys.dont_write_bytecode = True  # or the first command that imports something would change one file more
    for name in _LOADED:
        importlib.import_module(name)
    assert threading.active_count() == 1
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for line in sys.stdin:
            told = dict.fromkeys(("out", "err", "changes"), "")
            for name in told:
                (place / name).write_text("", encoding="utf-8")
            code = _forked(Order(**json.loads(line)), place)
            told = {name: (place / name).read_text(encoding="utf-8") for name in told}
            sys.stdout.write(json.dumps({"code": code, **told, "changes": told["changes"].splitlines()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
