"""Memory that was freed goes back to the system, whatever was freed before."""

import platform
import subprocess
import sys

import pytest

from ingestor.cli.allocator import KEPT_BYTES

BLOCKS = 30
BLOCK_BYTES = 1024 * 1024
FREED = f"""
import sys
from pathlib import Path
from ingestor.cli.allocator import give_back_freed_memory

def resident_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

if sys.argv[1:]:
    give_back_freed_memory()
bytearray(20 * {BLOCK_BYTES})  # made and freed: malloc takes blocks of this size from a heap from now on
before_bytes = resident_bytes()
blocks = [bytearray(b"x") * {BLOCK_BYTES} for _ in range({BLOCKS})]
most_bytes = resident_bytes() - before_bytes
del blocks
print(most_bytes, resident_bytes() - before_bytes)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed, and can be told not to")
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "by-itself"])
def test_what_was_freed_goes_back_after_a_large_block_was_freed(*, is_told: bool) -> None:
    arguments = ["told"] if is_told else []
    done = subprocess.run(
        [sys.executable, "-c", FREED, *arguments],
        env={},  # where the allocator could be told otherwise
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    most_bytes, kept_bytes = map(int, done.stdout.split())
    assert most_bytes >= (BLOCKS - 1) * BLOCK_BYTES
    assert (kept_bytes <= 2 * KEPT_BYTES) is is_told
