"""Residue: whether anything of a forgotten document is left in files, found byte by byte.

Texts and vectors are looked for by all their windows of `WINDOW_BYTES` bytes, as 64-bit hashes that roll over the whole
of a file: a piece of that length is found wherever it lies, whatever the file is. What is shorter, and what is only
telling as a whole (a path, a title), is looked for as it is.

Invariant: memory is bounded by what is looked for and by `_BLOCK_BYTES`, not by the files. A window is looked for only
if it tells something: one of four or fewer runs of equal bytes may be in any file.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WINDOW_BYTES = 24
MIN_PATTERN_BYTES = 5
"""Shorter ones are in any file by chance."""
_MIN_CHANGES = 4
_BLOCK_BYTES = 1 << 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SLOT_BITS = 22
_SLOT_SHIFT = np.uint64(64 - _SLOT_BITS)

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, order=True)
class Residue:
    """Something that was to be gone, in a file."""

    file: str
    kind: str


class Needles:
    """What is looked for, by kind ("text", "vector", "path", …)."""

    def __init__(self, windows: Mapping[str, Hashes] | None = None, patterns: Iterable[tuple[str, bytes]] = ()) -> None:
        self._windows = dict(windows or {})
        self.patterns = set(patterns)
        """Kind and bytes of what is looked for as a whole."""
        self.too_short = 0
        """Texts that are too short to be looked for."""

    @property
    def windows(self) -> Mapping[str, Hashes]:
        """Hashes of windows by kind, each sorted."""
        return self._windows

    def add(self, kind: str, raw: bytes) -> None:
        """Look for all of `raw`, piece by piece; as a whole where it is shorter than a window."""
        if len(raw) < WINDOW_BYTES:
            self.add_whole(kind, raw)
            return
        known = self._windows.get(kind, np.empty(0, np.uint64))
        self._windows[kind] = np.union1d(known, _telling(np.frombuffer(raw, np.uint8)))

    def add_whole(self, kind: str, raw: bytes) -> None:
        """Look for `raw` as a whole; what is too short is counted only."""
        if len(raw) < MIN_PATTERN_BYTES:
            self.too_short += 1
        else:
            self.patterns.add((kind, raw))

    def leave(self, raw: bytes) -> None:
        """Look for nothing that is in `raw`, which stays."""
        self.patterns = {(kind, pattern) for kind, pattern in self.patterns if pattern not in raw}
        if len(raw) < WINDOW_BYTES:
            return
        stays = _hashes(np.frombuffer(raw, np.uint8))
        for kind, windows in self._windows.items():
            self._windows[kind] = np.setdiff1d(windows, stays[np.isin(stays, windows)])


def residues(files: Iterable[Path], needles: Needles) -> list[Residue]:
    """Which files hold something of what is looked for; a file that vanishes meanwhile holds nothing."""
    slots = {kind: _slots(windows) for kind, windows in needles.windows.items() if windows.size}
    found: set[Residue] = set()
    for file in files:
        wanted = dict(slots)
        patterns: dict[str, set[bytes]] = defaultdict(set)
        for kind, pattern in needles.patterns:
            patterns[kind].add(pattern)
        overlap = max([WINDOW_BYTES, *(len(pattern) for _, pattern in needles.patterns)]) - 1
        for block in _blocks(file, overlap):
            hit = {kind for kind, own in patterns.items() if any(pattern in block for pattern in own)}
            hashes = _hashes(np.frombuffer(block, np.uint8)) if wanted else np.empty(0, np.uint64)
            for kind, taken in wanted.items():
                likely = hashes[taken[(hashes >> _SLOT_SHIFT).astype(np.intp)]]
                if likely.size and np.isin(likely, needles.windows[kind]).any():
                    hit.add(kind)
            found |= {Residue(str(file), kind) for kind in hit}
            for kind in hit:
                wanted.pop(kind, None)
                patterns.pop(kind, None)
            if not wanted and not patterns:
                break
    return sorted(found)


def _blocks(file: Path, overlap_bytes: int) -> Iterator[bytes]:
    """The bytes of a file, each block with the end of the one before."""
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return
    with opened:
        kept = b""
        while read := opened.read(_BLOCK_BYTES):
            block = kept + read
            yield block
            kept = block[-overlap_bytes:]


def _slots(windows: Hashes) -> NDArray[np.bool_]:
    """A table that is true wherever a window's hash begins: most of a file is ruled out by a look at it."""
    taken = np.zeros(1 << _SLOT_BITS, np.bool_)
    taken[(windows >> _SLOT_SHIFT).astype(np.intp)] = True
    return taken


def _telling(raw: NDArray[np.uint8]) -> Hashes:
    """The hashes of those windows that are not runs of equal bytes."""
    changes = np.concatenate(([0], np.cumsum(raw[1:] != raw[:-1])))
    telling = changes[WINDOW_BYTES - 1 :] - changes[: len(raw) - WINDOW_BYTES + 1] >= _MIN_CHANGES
    return np.unique(_hashes(raw)[telling])


def _hashes(raw: NDArray[np.uint8]) -> Hashes:
    """The hash of each window: a polynomial of its bytes, of 8, 16 and at last 24 of them, modulo 2**64."""
    if len(raw) < WINDOW_BYTES:
        return np.empty(0, np.uint64)
    rolled = raw.astype(np.uint64) + np.uint64(1)
    power = _FACTOR
    length = 1
    while length < WINDOW_BYTES // 3:
        rolled = rolled[:-length] * power + rolled[length:]
        power = np.multiply(power, power, dtype=np.uint64)
        length *= 2
    eighth = rolled
    for _ in range(2):
        rolled = rolled[: len(rolled) - length] * power + eighth[len(eighth) - (len(rolled) - length) :]
    return rolled * _FACTOR
