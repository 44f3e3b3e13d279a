"""Services: the outside parts of a bench, each a process of its own.

Invariant: what was started has ended, and what was written is gone, when its block ends.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chromadb.api import ClientAPI

from ingestor.adapters.chroma_server import ChromaServer
from tests.checker import client_of
from tests.daemon import KEY, free_port

DIMENSIONS = 384
MODEL = "text-embedding-3-small"
LATENCY_SECONDS = 0.08
LATENCY_PER_TEXT_SECONDS = 0.0005
_SERVER = Path(__file__).parents[1] / "embedding_server.py"
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Provider:
    """An embedding endpoint on loopback."""

    base_url: str
    pid: int

    def settings(self) -> dict[str, str]:
        """Settings that make it the provider."""
        settings = {"PROVIDER": "openai", "BASE_URL": self.base_url, "API_KEY": KEY, "MODEL": MODEL}
        return {
            **{f"INGESTOR_EMBEDDING__{name}": value for name, value in settings.items()},
            "INGESTOR_EMBEDDING__DIMENSIONS": str(DIMENSIONS),
        }


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder for the time of a block."""
    with tempfile.TemporaryDirectory(prefix="ingestor-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def provider_served(*, is_instant: bool = False) -> Iterator[Provider]:
    """An embedding endpoint with the latency of a provider, or with none where embedding is not what is measured."""
    arguments = ["--dimensions", str(DIMENSIONS)]
    if not is_instant:
        arguments += ["--latency-seconds", str(LATENCY_SECONDS)]
        arguments += ["--latency-per-text-seconds", str(LATENCY_PER_TEXT_SECONDS)]
    with subprocess.Popen([sys.executable, str(_SERVER), *arguments], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Provider(told["base_url"], process.pid)
        finally:
            process.terminate()
            process.wait(_PATIENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class Served:
    """A Chroma server."""

    port: int
    pid: int
    client: ClientAPI


@contextlib.contextmanager
def chroma_served(folder: Path) -> Iterator[Served]:
    """A server as the daemon would start it on a folder."""
    port = free_port()
    server = ChromaServer(folder, port)
    server.start(_PATIENCE_SECONDS)
    try:
        assert server.pid is not None
        with client_of(port) as client:
            yield Served(port, server.pid, client)
    finally:
        server.stop()


def cpu_seconds(pid: int) -> float:
    """What a process has spent so far, user and system."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS
