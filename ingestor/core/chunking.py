"""Cutting a text into chunks that an embedding model can take, so that an edit of the text changes few of them.

Invariants: every character that is not white space is in some chunk, in order; a chunk is a verbatim part of the text,
never blank, and never more than `max_tokens` by `estimate_tokens`; equal texts and recipes give equal chunks.

Theory of operation
-------------------
A chunk that was embedded once must not be embedded again because something else in its file changed. So no cut may
depend on where in the file it lies, as it does when chunks are filled one after the other: then an inserted line shifts
every cut below it. Here each step looks at the text nearby and at nothing else.

1. Atoms. The text is taken apart at its lines; a line above a quarter of a chunk at its sentences, such a sentence at
   its clauses and words (`_refined`). Each atom has a level: how good a place its start is for a cut. Headings are
   above blank lines (but for lone ones), these above lines, these above sentences; in code, depth of indentation
   counts, and the grammar tells which lines begin a statement.
2. Ranks (`_ranks`). Of two atoms of one level the one that begins the larger passage ranks higher. A passage reaches to
   the next atom of its level or above: a section, a paragraph, a function. Passages of about one size, and all lines of
   logs and tables, are told apart by a hash of the atom's text, ties by that of the next one.
3. Peaks. A cut may be only at an atom that outranks all others within a fifth of a chunk on both sides (`_least_part`).
   Begin and end of the text outrank everything. So two peaks, and two cuts, are never nearer than that.
4. Cuts (`_cuts`). A peak is a cut if the text between the next higher peaks on both sides of it does not fit into a
   chunk. This is the Cartesian tree of the peaks, from the top down to where a subtree fits. Without any peak inside, a
   text that is too large is cut at the highest atom of a window (`_forced_cut`): one of equal lines, above all.

Why an insertion changes at most two chunks. Let it be of P tokens and rank below its neighbours. It lies in subtrees
that are nested, of the sizes S1 < S2 < ...; all others keep their cuts. Each of these grows by P, no cut goes, and one
comes where an Si passes the capacity. For two to come at once, S(i+1) - Si must be below P, and it is never below the
least part. So an insertion of up to a fifth of a chunk makes one cut at most; a peak that comes of it, where it moves
two atoms apart, is one of these. Let it rank high instead, and become a cut. Then it parts the tree: on its left the
cuts stay but for the last ones, which need not be any more; on its right alike, if there is room for P tokens. Ranking
by size makes large insertions do this: what still outranks them begins passages larger than P, so that no two cuts come
at once above it.

Where more than two change: P tokens and the rest of the chunk after them do not fit into one (rare up to a third of a
chunk, one case in twenty at half a chunk); the insertion outranks a cut nearer than the least part, pushes it out, and
the chunk before that was full; it has several atoms of high rank, as a block of log lines. No way of cutting without a
memory that was tried is free of such cases. A property test holds how rare they are.

The splitter's own way of choosing (as many units as fit, from the front) is the one that shifts. It also takes time in
the square of the text, and tens of seconds a megabyte when it counts with a tokenizer. So it serves for what it alone
knows, syntax and the words of scripts without spaces, and gets pieces of bounded length.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from importlib.metadata import version
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from semantic_text_splitter import CodeSplitter, TextSplitter

from ingestor.core.grammars import GRAMMAR_PACKAGES, GRAMMARS, Kind, kind_of
from ingestor.core.headings import Outline, outline
from ingestor.core.levels import DEFINITION, INSIDE, SENTENCE, WRAPPED, line_levels
from ingestor.core.model import Chunk
from ingestor.core.sizes import DEFAULT_MAX_TOKENS, MIN_MAX_TOKENS
from ingestor.core.tokens import running_count

_ALGORITHM: Final = 2
"""Counts up with every change that may cut a text differently."""
_MAX_PARSED_CHARACTERS: Final = 20_000
"""Longer blocks of code are left to indentation: the splitter takes time in the square of the length."""
_MAX_PARSED_LINE_CHARACTERS: Final = 1_000
"""A longer line was not written by people; one above a unit the splitter takes apart by the character, and slowly."""
_MAX_UNBROKEN_CHARACTERS: Final = 400
"""As much of a text without any mark or space as the splitter gets at once, for the same reason."""
_MIXER: Final = np.uint64(0x9E3779B97F4A7C15)
_SENTENCE_END: Final = re.compile(r"(?<![.!?…])[.!?…]++[\"')\]”’]*+\s++(?![a-z])|[。！？．…]++[”’」』）》】]*+\s*+")


class Cutter:
    """Cuts texts; holds no state between them.

    `max_tokens` and `overlap_tokens` count by `estimate_tokens`; the overlap repeats the end of a chunk in the next one
    and is part of its size. Raises `ValueError` for sizes that leave no room.
    """

    def __init__(self, max_tokens: int = DEFAULT_MAX_TOKENS, overlap_tokens: int = 0) -> None:
        if max_tokens < MIN_MAX_TOKENS:
            raise ValueError(f"max_tokens is {max_tokens}, at least {MIN_MAX_TOKENS} are needed")
        if not 0 <= overlap_tokens <= max_tokens // 2:
            raise ValueError(f"overlap_tokens is {overlap_tokens}, it must be from 0 to half of max_tokens")
        self._overlap_tokens = overlap_tokens
        # One less, because a chunk that begins inside a word counts one more than its share of the whole text.
        self._capacity = max_tokens - overlap_tokens - 1
        self._atom_capacity = max(3, self._capacity // 4)
        self._least_part = self._capacity // 5
        self._size_classes = _size_classes(self._capacity // 10, self._capacity * 3 // 5)
        self._unit_characters = 3 * max_tokens
        self._code = {
            suffix: CodeSplitter(language, (1, self._unit_characters)) for suffix, language in GRAMMARS.items()
        }
        most = self._atom_capacity
        self._words = TextSplitter((max(1, most // 2), most), trim=False)
        mark = r"\s,;:，；：、)}\]>"
        self._clauses = re.compile(
            rf"(?s).{{{most // 3},{most - 2}}}?[{mark}]\s?|[^{mark}]{{1,{_MAX_UNBROKEN_CHARACTERS}}}|.{{1,{most}}}"
        )
        packages = [version(package) for package in ("semantic-text-splitter", *GRAMMAR_PACKAGES)]
        facts = repr((_ALGORITHM, max_tokens, overlap_tokens, packages))
        self._recipe = (
            f"cut{_ALGORITHM}-{max_tokens}-{overlap_tokens}-{blake2b(facts.encode(), digest_size=4).hexdigest()}"
        )

    @property
    def recipe(self) -> str:
        """Fingerprint of everything besides the text that decides chunks."""
        return self._recipe

    def cut(self, text: str, file_name: str, pages: Sequence[int] = ()) -> tuple[str, tuple[Chunk, ...]]:
        """Title and chunks of a text whose lines end in a bare line feed; the name tells what kind of text it is.

        A chunk has no blank lines around it, but keeps the indentation of its first line. `pages` are lines, from 1, in
        their order: a new chunk begins with each, and with an overlap just before it.
        """
        path = PurePosixPath(file_name)
        kind = kind_of(file_name)
        shape = outline(text) if kind is Kind.MARKDOWN else Outline()
        title = shape.title or path.stem.encode("utf-8", "replace").decode()
        if not text or text.isspace():
            return title, ()
        starts, levels = line_levels(text, kind, shape)
        page_starts = _line_starts(text, pages)
        if (splitter := self._code.get(path.suffix.lower())) is not None:
            self._mark_statements(text, splitter, starts, levels)
        counts = running_count(text)
        starts, levels = self._refined(text, counts, starts, levels, with_sentences=kind in (Kind.MARKDOWN, Kind.PROSE))
        before = counts[np.array([*starts, len(text)])]
        del counts  # four bytes a character, of a text that may be long
        heights = np.array(levels)
        sizes = np.zeros(len(levels), dtype=np.int32) if kind is Kind.LINES else _passage_sizes(before, heights)
        ranks = _ranks(text, starts, heights, np.searchsorted(self._size_classes, sizes, side="right"))
        borders = np.searchsorted(starts, page_starts).tolist()
        return title, tuple(self._chunks(text, shape, starts, before, ranks, borders))

    def _mark_statements(self, text: str, splitter: CodeSplitter, starts: list[int], levels: list[int]) -> None:
        """Lower the level of lines that begin no statement, in definitions that are larger than a unit."""
        tops = [0, *(index for index in range(1, len(starts)) if levels[index] >= DEFINITION), len(starts)]
        for first, last in pairwise(tops):
            begin, end = starts[first], starts[last] if last < len(starts) else len(text)
            block = text[begin:end]
            is_code = max(map(len, block.split("\n"))) <= min(_MAX_PARSED_LINE_CHARACTERS, self._unit_characters)
            if not (is_code and self._unit_characters < len(block) <= _MAX_PARSED_CHARACTERS):
                continue
            statements = {begin + place for place, _ in splitter.chunk_indices(block)}
            for index in range(first + 1, last):
                line = text[starts[index] : starts[index + 1] if index + 1 < len(starts) else end]
                if starts[index] + len(line) - len(line.lstrip()) not in statements:
                    levels[index] = WRAPPED

    def _refined(
        self, text: str, counts: NDArray[np.int32], starts: list[int], levels: list[int], *, with_sentences: bool
    ) -> tuple[list[int], list[int]]:
        """Take lines apart that are larger than an atom may be."""
        bounds = np.array([*starts, len(text)])
        large = np.flatnonzero(np.diff(counts[bounds]) > self._atom_capacity).tolist()
        fine_starts: list[int] = []
        fine_levels: list[int] = []
        done = 0
        for index in large:
            fine_starts += starts[done : index + 1]
            fine_levels += levels[done : index + 1]
            done = index + 1
            begin, end = int(bounds[index]), int(bounds[index + 1])
            ends = [match.end() for match in _SENTENCE_END.finditer(text, begin, end)] if with_sentences else []
            for stop in ends if ends and ends[-1] == end else [*ends, end]:
                if begin != fine_starts[-1]:
                    fine_starts.append(begin)
                    fine_levels.append(SENTENCE)
                if counts[stop] - counts[begin] > self._atom_capacity:
                    clauses = list(self._clause_starts(text, begin, stop))
                    fine_starts += clauses
                    fine_levels += [INSIDE] * len(clauses)
                begin = stop
        return fine_starts + starts[done:], fine_levels + levels[done:]

    def _clause_starts(self, text: str, begin: int, end: int) -> Iterator[int]:
        """Where clauses, and parts of very long words, begin within a sentence, without its own start."""
        for match in self._clauses.finditer(text, begin, end):
            place = match.start()
            parts = [match[0]] if len(match[0]) <= self._atom_capacity else self._words.chunks(match[0])
            for part in parts:
                if place > begin:
                    yield place
                place += len(part)

    def _chunks(  # noqa: PLR0913, PLR0917 - what is known of one text, and no more
        self,
        text: str,
        shape: Outline,
        starts: list[int],
        before: NDArray[np.int32],
        ranks: NDArray[np.uint64],
        borders: Sequence[int],
    ) -> Iterator[Chunk]:
        bounds = np.array([*starts, len(text)])
        line, counted = 1, 0
        for first, last in self._segments(before, ranks, borders):
            start = first
            if self._overlap_tokens:
                start = min(first, int(np.searchsorted(before, before[first] - self._overlap_tokens)))
            begin, end = int(bounds[start]), int(bounds[last])
            body = text[begin:end].rstrip()
            if not body:
                continue
            indentation = len(body) - len(body.lstrip())
            blank = body.rfind("\n", 0, indentation) + 1
            begin, body = begin + blank, body[blank:]
            line += text.count("\n", counted, begin)
            counted = begin
            yield Chunk(body, line, line + body.count("\n"), shape.path_at(begin))

    def _segments(
        self, before: NDArray[np.int32], ranks: NDArray[np.uint64], borders: Sequence[int]
    ) -> Iterator[tuple[int, int]]:
        """Cut the whole into runs of atoms of at most `_capacity` tokens, as (first, after the last), in order.

        `before[i]` are the tokens before atom i; one more stands for the end. A run begins with each of `borders`.
        """
        first = 0
        for last in sorted({*self._cuts(before, ranks), *borders, len(ranks)} - {0}):
            while before[last] - before[first] > self._capacity:
                cut = self._forced_cut(before, ranks, first, last)
                yield first, cut
                first = cut
            yield first, last
            first = last

    def _cuts(self, before: NDArray[np.int32], ranks: NDArray[np.uint64]) -> list[int]:
        """Peaks whose next higher ones on both sides are more than a chunk apart."""
        back, ahead = _to_next_higher(ranks, before[:-1], before[-1])
        peaks = np.flatnonzero(np.minimum(back, ahead) >= self._least_part)
        back, ahead = _to_next_higher(ranks[peaks], before[peaks], before[-1])
        cuts: list[int] = peaks[back + ahead > self._capacity].tolist()
        return cuts

    def _forced_cut(self, before: NDArray[np.int32], ranks: NDArray[np.uint64], first: int, last: int) -> int:
        """Where to cut a segment that is too large and has no peak inside, as when all its lines are equal.

        The window is half a chunk at least, and so holds the start of an atom. Of equal ranks the last fills the chunk.
        """
        begin, end, part = before[first], before[last], self._capacity // 4
        if end - begin <= self._capacity * 3 // 2:
            lowest, highest = max(begin + part, end - self._capacity), min(begin + self._capacity, end - part)
        else:
            lowest, highest = begin + self._capacity // 2, begin + self._capacity
        low = int(np.searchsorted(before, lowest))
        high = int(np.searchsorted(before, highest, side="right"))
        return high - 1 - int(np.argmax(ranks[low:high][::-1]))


def _line_starts(text: str, lines: Sequence[int]) -> list[int]:
    """Where lines begin in a text; they count from 1 and are in order."""
    starts: list[int] = []
    line, place = 1, 0
    for wanted in lines:
        while line < wanted and (found := text.find("\n", place)) >= 0:
            line, place = line + 1, found + 1
        starts.append(place)
    return starts


def _size_classes(least: int, most: int) -> list[int]:
    """Bounds between the sizes, in tokens, that count as one: each a quarter above the one before."""
    bounds = [least]
    while bounds[-1] < most:
        bounds.append(bounds[-1] + max(1, bounds[-1] // 4))
    return bounds


def _passage_sizes(before: NDArray[np.int32], levels: NDArray[np.int64]) -> NDArray[np.int32]:
    """Tokens from each atom to the next of its level or a higher one."""
    sizes = np.empty(len(levels), dtype=np.int32)
    # Not `np.unique`: it imports a part of numpy when it is first called, which fails when two threads do so at once.
    for level in set(levels.tolist()):
        places = np.flatnonzero(levels >= level)
        to_next = np.diff(before[np.append(places, len(levels))])
        is_own = levels[places] == level
        sizes[places[is_own]] = to_next[is_own]
    return sizes


def _to_next_higher(
    ranks: NDArray[np.uint64], places: NDArray[np.int32], end: np.int32
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tokens from each place back and on to the next of higher rank, or to where the text begins or ends.

    Of equal ranks the first is the highest.
    """
    values = ranks.tolist()
    back, ahead = [-1] * len(values), [len(values)] * len(values)
    open_indices: list[int] = []
    for index, value in enumerate(values):
        while open_indices and values[open_indices[-1]] < value:
            ahead[open_indices.pop()] = index
        if open_indices:
            back[index] = open_indices[-1]
        open_indices.append(index)
    edges = np.concatenate(([0], places, [end]))
    return places - edges[np.array(back, dtype=np.int64) + 1], edges[np.array(ahead, dtype=np.int64) + 1] - places


def _ranks(text: str, starts: Sequence[int], levels: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """How good a cut before each atom is: its level, its passage's class of size, hashes of its text and the next."""
    ends = [*starts[1:], len(text)]
    sums = [
        zlib.crc32(text[start:end].strip().encode("utf-8", "surrogatepass"))
        for start, end in zip(starts, ends, strict=True)
    ]
    own = (np.array(sums, dtype=np.uint64) * _MIXER) >> np.uint64(34)
    following = np.append(own[1:], np.uint64(0)) >> np.uint64(6)
    ranks: NDArray[np.uint64] = levels.astype(np.uint64) << np.uint64(60)
    ranks += (sizes.astype(np.uint64) << np.uint64(54)) + (own << np.uint64(24)) + following
    return ranks
