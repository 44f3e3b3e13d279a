"""Reading files that other processes write to: no torn read is handed out, and no writer is harmed."""

import errno
import fcntl
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ingestor.adapters import reading
from ingestor.adapters.folder import Folder
from ingestor.adapters.rules import Rules
from ingestor.core.errors import UnstableDocument
from ingestor.core.model import Stat

HALF_BYTES = 450
WRITTEN_NS = 1_700_000_000_000_000_000
NOBODY = 65534
PATTERNS = {
    "in place": """
        with open(path, "r+b", buffering=0) as file:
            file.write(half); pause(); file.write(half)
    """,
    "truncated": """
        with open(path, "wb", buffering=0) as file:
            pause(); file.write(half); pause(); file.write(half)
    """,
    "truncated by name": """
        os.truncate(path, 0)
        with open(path, "ab", buffering=0) as file:
            file.write(half); pause(); file.write(half)
    """,
    "appended": """
        with open(path, "ab", buffering=0) as file:
            file.write(half); pause(); file.write(half)
    """,
    "mapped": """
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            file.close()
            mapping[: len(half)] = half; pause(); mapping[len(half) :] = half
    """,
}
"""How a writer fills a file with a letter, twice half a line of it, with a pause in the midst of it."""
WRITER = """
import mmap, os, random, sys, time
path, seconds, size = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
dice = random.Random(7)
pause = lambda: time.sleep(dice.choice((0.0, 0.001, 0.03)))
end = time.monotonic() + seconds
round_number = 0
while time.monotonic() < end:
    half = b"bcdef"[round_number % 5 :][:1] * size
    round_number += 1
    if True:
{pattern}
    time.sleep(dice.choice((0.0, 0.002, 0.025, 0.04)))
"""


def folder_of(root: Path, now_ns: Callable[[], int], naps: list[float]) -> Folder:
    return Folder(
        root, Rules([], []), follow_symlinks=False, max_file_bytes=10_000_000, now_ns=now_ns, sleep=naps.append
    )


def dated(root: Path, raw: bytes = b"text") -> Path:
    """A file that was last written to at `WRITTEN_NS`."""
    path = root / "a.md"
    path.write_bytes(raw)
    os.utime(path, ns=(WRITTEN_NS, WRITTEN_NS))
    return path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def leased(tmp_path: Path) -> Path:
    """A folder on a file system that grants leases."""
    probe = tmp_path / "probe"
    probe.touch()
    with opened(probe) as descriptor, reading._lease(descriptor) as is_granted:
        if not is_granted:
            pytest.skip("no leases here")
    probe.unlink()
    return tmp_path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_torn_read_is_handed_out_however_a_file_is_written(
    leased: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    # However slow the machine is: nothing but a lease lets a file be read.
    monkeypatch.setattr(reading, "SETTLED_NS", 10**18)
    path = leased / "a.md"
    path.write_bytes(b"a" * 2 * HALF_BYTES)
    source = Folder(
        leased,
        Rules([], []),
        follow_symlinks=False,
        max_file_bytes=10_000_000,
        sleep=lambda seconds: time.sleep(min(seconds, reading.TICK_NS / 1e9)),
    )
    program = WRITER.replace("{pattern}", PATTERNS[pattern])
    seen: dict[Stat, bytes] = {}
    with subprocess.Popen([sys.executable, "-c", program, path, "1.2", str(HALF_BYTES)]) as writer:
        is_over = False
        while True:
            try:
                content = source.read("a.md")
            except UnstableDocument:
                continue
            lines = [content.raw[at : at + 2 * HALF_BYTES] for at in range(0, len(content.raw), 2 * HALF_BYTES)]
            assert all(len(set(line)) == 1 and len(line) == 2 * HALF_BYTES for line in lines)
            assert seen.setdefault(content.stat, content.raw) == content.raw, "a write did not show in the file's times"
            if is_over:
                break
            is_over = writer.poll() is not None
        assert writer.returncode == 0
    assert path.read_bytes() == content.raw


@pytest.mark.parametrize(("age_ms", "naps"), [(0, [0.015]), (5, [0.01]), (15, []), (99, []), (100, [])])
def test_a_file_without_a_writer_rests_for_a_tick_of_the_clock(leased: Path, age_ms: int, naps: list[float]) -> None:
    dated(leased)
    taken: list[float] = []
    source = folder_of(leased, lambda: WRITTEN_NS + age_ms * 1_000_000, taken)
    assert source.read("a.md").raw == b"text"
    assert taken == pytest.approx(naps)


@pytest.mark.parametrize("mode", ["r+b", "ab", "mapped"])
def test_a_file_with_a_writer_that_was_just_written_to_is_to_be_read_later(leased: Path, mode: str) -> None:
    path = dated(leased)
    now_ns = WRITTEN_NS + 99_000_000
    source = folder_of(leased, lambda: now_ns, [])
    with ExitStack() as writers:
        file = writers.enter_context(path.open("r+b" if mode == "mapped" else mode))
        if mode == "mapped":
            writers.enter_context(mmap.mmap(file.fileno(), 0))
            file.close()
        with pytest.raises(UnstableDocument, match="being written"):
            source.read("a.md")
        now_ns += 1_000_000
        assert source.read("a.md").raw == b"text"


def refusing(code: int) -> Callable[..., int]:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_LEASED_BYTES", 3),
        ("_HAS_LEASES", False),
        ("fcntl.fcntl", refusing(errno.EINVAL)),
        ("fcntl.fcntl", refusing(errno.EACCES)),
        ("fcntl.fcntl", refusing(errno.ENOLCK)),
    ],
    ids=["large", "no Linux", "EINVAL", "EACCES", "ENOLCK"],
)
def test_a_file_without_a_lease_is_let_rest_until_it_cannot_be_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    path = dated(tmp_path)
    monkeypatch.setattr(f"ingestor.adapters.reading.{name}", value)
    naps: list[float] = []
    assert folder_of(tmp_path, lambda: WRITTEN_NS + 50_000_000, naps).read("a.md").raw == b"text"
    assert naps == pytest.approx([0.05])

    def write_on(_: float) -> None:
        path.write_bytes(b"TEXT")

    with pytest.raises(UnstableDocument, match="changed"):
        Folder(
            tmp_path,
            Rules([], []),
            follow_symlinks=False,
            max_file_bytes=9,
            now_ns=lambda: WRITTEN_NS + 50_000_000,
            sleep=write_on,
        ).read("a.md")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_s_file_is_let_rest() -> None:
    naps: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        dated(root)
        source = folder_of(root, lambda: WRITTEN_NS + 5_000_000, naps)
        os.seteuid(NOBODY)
        try:
            assert source.read("a.md").raw == b"text"
        finally:
            os.seteuid(0)
    assert sum(naps) == pytest.approx(0.095)


def test_a_writer_waits_for_a_read_and_neither_comes_to_harm(leased: Path) -> None:
    path = dated(leased)
    has_written = threading.Event()

    def write() -> None:
        with path.open("ab") as file:
            file.write(b" more")
        has_written.set()

    writer = threading.Thread(target=write)
    with opened(path) as descriptor:
        with reading._lease(descriptor) as is_granted:
            assert is_granted
            writer.start()
            assert not has_written.wait(0.2)
            assert os.read(descriptor, 99) == b"text"
        assert has_written.wait(10)
        assert fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    writer.join()
    assert path.read_bytes() == b"text more"


def test_a_lease_is_given_back_when_the_read_fails(leased: Path) -> None:
    path = dated(leased)
    with opened(path) as descriptor:
        with pytest.raises(OSError, match="disk"), reading._lease(descriptor):
            raise OSError(errno.EIO, "disk")
        assert fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK
