"""Processes whose n-th write to a file fails, as the disk would have it: `failing_writes.c`, preloaded.

Invariant: nothing in the product knows of it, so that what fails is what SQLite, Chroma and Python really call.
"""

import contextlib
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_suffix(".c")
_ORDERS = struct.Struct("iill240s")
"""As `struct orders` in the source."""
_FAILED = struct.Struct("l")
_FAILED_AT = 16
_ONCE, _ON = 1, 2


class FailingWrites:
    """What fails in the processes that were started with `environment`, from now on."""

    def __init__(self, library: Path, orders: Path) -> None:
        orders.write_bytes(bytes(mmap.PAGESIZE))
        self.environment = {"LD_PRELOAD": str(library), "FAILING_WRITES": str(orders)}
        with orders.open("r+b") as file:
            self._orders = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def fail(self, name: str, nth: int, error: int, *, lasts: bool) -> None:
        """Let the `nth` write to files of that name fail with `error`; all that follow as well when it lasts."""
        self.heal()
        orders = _ORDERS.pack(_ON if lasts else _ONCE, error, nth, 0, os.fsencode(name))
        self._orders[4 : _ORDERS.size] = orders[4:]
        self._orders[:4] = orders[:4]

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._orders[:4] = bytes(4)

    @property
    def failed(self) -> int:
        """How many writes have failed since `fail`."""
        return int(_FAILED.unpack_from(self._orders, _FAILED_AT)[0])


@pytest.fixture(scope="session")
def failing_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is preloaded; skips where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: writes cannot be made to fail here")
    library = tmp_path_factory.mktemp("failing") / "failing_writes.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


@contextlib.contextmanager
def failing_writes(library: Path, place: Path) -> Iterator[FailingWrites]:
    """Writes that fail when they are told to, until the end of the block."""
    writes = FailingWrites(library, place / "failing-writes")
    try:
        yield writes
    finally:
        writes.heal()
