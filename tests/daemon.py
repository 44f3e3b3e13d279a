"""The installed `ingestor` command, started as users start it: a process with an environment and a current folder.

Invariant: whatever a test started has ended when its `Site` is closed, the Chroma servers of killed daemons included.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
from chromadb.errors import ChromaError, InternalError

from ingestor.core.chunking import Cutter
from tests.checker import Reads, Row, ShortPage, at_rest, belongs, differences, served, shown
from tests.embedding_server import EmbeddingServer

COMMAND = Path(sysconfig.get_path("scripts")) / "ingestor"
PATIENCE_SECONDS = 60.0
COMMAND_SECONDS = 120.0
POLL_SECONDS = 0.1
KEY = "test-key-7f3a9c"
HTTP = {"INGESTOR_HTTP__ENABLED": "true", "INGESTOR_HTTP__PORT": "0"}
"""Settings with which a daemon serves HTTP, at a port that is free; otherwise it does not, as many run at once."""
_OURS = ("INGESTOR_", "OPENAI_", "DASHSCOPE_", "CHROMA_")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(
    holds: Callable[[], object],
    why: Callable[[], str],
    seconds: float = PATIENCE_SECONDS,
    *,
    pause_seconds: float = POLL_SECONDS,
) -> None:
    """Wait until something holds; fail with the reason when it does not within a time that is ample."""
    deadline_seconds = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline_seconds:
            pytest.fail(f"not within {seconds:g} s: {why()}")
        time.sleep(pause_seconds)


def provider_settings(server: EmbeddingServer, **others: object) -> dict[str, str]:
    """Settings that make an embedding server the provider, with a model that no table knows."""
    settings = {
        "EMBEDDING__PROVIDER": "openai",
        "EMBEDDING__BASE_URL": server.base_url,
        "EMBEDDING__API_KEY": KEY,
        "EMBEDDING__MODEL": "unheard-of-model",
        "EMBEDDING__DIMENSIONS": server.dimensions,
        **others,
    }
    return {f"INGESTOR_{name}": str(value) for name, value in settings.items()}


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:  # noqa: ANN401 - whatever the command prints
        return json.loads(self.out)


class Daemon:
    """A command that runs until it is told to stop; its standard error goes to a file."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log entries of one name; a line that is half written is passed over."""
        found = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == name:
                    found.append(entry)
        return found

    def wait_ready(self) -> Self:
        """Wait until the folder has been compared and the collection can be read from outside."""
        eventually(
            lambda: self.process.poll() is not None or self.events("daemon.ready"),
            lambda: f"the daemon is not ready:\n{self.log()[-3_000:]}",
        )
        assert self.process.poll() is None, self.log()
        return self

    def http_url(self) -> str:
        """Where it serves HTTP, as soon as it listens there."""
        eventually(
            lambda: self.process.poll() is not None or self.events("http.listening"),
            lambda: f"the daemon serves no HTTP:\n{self.log()[-3_000:]}",
        )
        assert self.process.poll() is None, self.log()
        return str(self.events("http.listening")[-1]["url"])

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)

    def terminate(self) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


class Site:
    """A folder with a watched folder in it, in which commands are started with settings of their own."""

    def __init__(self, root: Path, settings: dict[str, str]) -> None:
        self.root = root
        self.folder = root / "watched_dir"
        self.data_dir = root / ".ingestor"
        self.port = free_port()
        self.settings = settings
        self._running: list[Daemon] = []

    @property
    def chroma_path(self) -> Path:
        return self.data_dir / "chroma"

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self._running:
            if daemon.process.poll() is None:
                daemon.process.terminate()
                try:
                    daemon.process.wait(PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    daemon.kill()
        for pid in self.servers():
            with contextlib.suppress(ProcessLookupError):  # it was on its way out, and has ended since it was listed
                os.kill(pid, signal.SIGKILL)

    def environment(self, **settings: str) -> dict[str, str]:
        """The environment of a command: nobody else's settings, and then ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        ours = {
            "INGESTOR_CHROMA__PORT": str(self.port),
            "INGESTOR_HTTP__ENABLED": "false",
            "INGESTOR_SECRETS_DIR": str(self.root / "no-secrets"),
        }
        return kept | ours | self.settings | settings

    def command(self, *arguments: str, **settings: str) -> Finished:
        """Run a command to its end."""
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=self.root,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def sync(self, *, code: int = 0, **settings: str) -> Any:  # noqa: ANN401 - what `ingestor sync --json` prints
        """Run `ingestor sync --json`."""
        done = self.command("sync", "--json", **settings)
        assert done.code == code, done.err
        return done.json()

    def start(self, *arguments: str) -> Daemon:
        """Start a command that goes on."""
        log = self.root / f"daemon-{len(self._running)}.log"
        with log.open("wb") as told:
            process = subprocess.Popen(
                [COMMAND, *arguments], cwd=self.root, env=self.environment(), stdout=subprocess.DEVNULL, stderr=told
            )
        daemon = Daemon(process, log)
        self._running.append(daemon)
        return daemon

    def servers(self) -> list[int]:
        """Process ids of the Chroma servers that run on our folder."""
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    words = (place / "cmdline").read_bytes().split(b"\0")
                    if str(self.chroma_path).encode() in words and lives(int(place.name)):
                        found.append(int(place.name))
        return found

    @contextlib.contextmanager
    def reading(self) -> Iterator["Reading"]:
        """Read what the running daemon's Chroma server holds."""
        with served(self.port) as rows:
            yield Reading(self.folder, rows)

    def at_rest(self) -> list[Row]:
        """Read what the collection holds after everything has ended."""
        return at_rest(self.chroma_path)


class Reading:
    """Compares the collection of a running server with the folder."""

    def __init__(self, folder: Path, rows: Reads, *, dimensions: int = 0) -> None:
        self._folder = folder
        self.rows = rows
        self.dimensions = dimensions

    def wait_equal(
        self,
        wanted: Callable[[str], bool] = belongs,
        *,
        cutter: Cutter | None = None,
        seconds: float = PATIENCE_SECONDS,
    ) -> list[Row]:
        """Wait until collection and folder are equal; returns the collection."""
        rows: list[Row] = []
        found: list[str] = []

        def are_equal() -> bool:
            try:
                rows[:] = self.rows()
            except InternalError as error:
                # Chroma looks vectors up after the ids, and fails when one of them was deleted in between.
                found[:] = [str(error)]
                return False
            found[:] = differences(self._folder, rows, wanted=wanted, cutter=cutter, dimensions=self.dimensions)
            return not found

        eventually(are_equal, lambda: shown(found), seconds)
        return rows


def converged(site: Site, daemon: Daemon, dimensions: int, *, seconds: float = PATIENCE_SECONDS) -> list[Row]:
    """Wait until the collection is the folder, whatever happens to the server meanwhile; returns the collection."""
    rows: list[Row] = []
    found = ["nothing was read yet"]

    def is_equal() -> bool:
        assert daemon.process.poll() is None, daemon.log()[-3_000:]
        try:
            with served(site.port) as read:
                rows[:] = read()
        except (ChromaError, ShortPage, ValueError, httpx.HTTPError) as error:
            found[:] = [repr(error)]  # it is down, or was made anew under our eyes
            return False
        found[:] = differences(site.folder, rows, dimensions=dimensions)
        return not found

    eventually(is_equal, lambda: f"{shown(found)}\n{daemon.log()[-3_000:]}", seconds)
    return rows


def assert_equal(
    folder: Path,
    rows: Sequence[Row],
    *,
    wanted: Callable[[str], bool] = belongs,
    cutter: Cutter | None = None,
    dimensions: int = 0,
) -> None:
    """The collection is the folder."""
    found = differences(folder, rows, wanted=wanted, cutter=cutter, dimensions=dimensions)
    assert not found, shown(found)
