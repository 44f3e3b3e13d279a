"""What a process takes of the machine, as the kernel tells: read from outside, at no cost to the process."""

import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.services import cpu_seconds

_KIB = 1024
_FORGET_PEAK = "5"
"""What makes the kernel take the resident set of now for the peak; proc(5), clear_refs."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs, without its children."""

    pid: int

    def cpu_seconds(self) -> float:
        """Processor time since its start, of all its threads, in steps of a hundredth."""
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Memory that it holds now."""
        return self._memory("VmRSS")

    def peak_bytes(self) -> int:
        """The most that it ever held, or has held since `forget_peak`."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Let the peak be that of from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text(_FORGET_PEAK, encoding="ascii")

    def load(self, seconds: float) -> float:
        """Wait; returns how much of a core it took meanwhile, in percent."""
        began_seconds, spent_seconds = time.perf_counter(), self.cpu_seconds()
        time.sleep(seconds)
        return 100.0 * (self.cpu_seconds() - spent_seconds) / (time.perf_counter() - began_seconds)

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * _KIB
        message = f"the kernel does not tell {name} of process {self.pid}"
        raise LookupError(message)
