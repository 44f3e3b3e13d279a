"""What is left in files: found wherever it lies, and nothing else."""

import os
from pathlib import Path

import pytest

from ingestor.adapters import residue
from ingestor.adapters.residue import WINDOW_BYTES, Needles, Residue, residues

TEXT = "Der Schlüssel liegt unter dem dritten Stein links neben dem alten Brunnen.".encode()
PATH = b"notes/key.md"


@pytest.fixture
def needles() -> Needles:
    made = Needles()
    made.add("text", TEXT)
    made.add_whole("path", PATH)
    return made


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residue, "_BLOCK_BYTES", 4_096)


def kinds(file: Path, raw: bytes, needles: Needles) -> list[str]:
    file.write_bytes(raw)
    return [found.kind for found in residues([file], needles)]


@pytest.mark.parametrize("place", [0, 1, 4_096 - WINDOW_BYTES, 4_096 - 11, 4_095, 4_096, 8_190])
@pytest.mark.parametrize("start", [0, 7, len(TEXT) - WINDOW_BYTES])
def test_any_window_of_a_text_is_found_at_any_place(tmp_path: Path, needles: Needles, place: int, start: int) -> None:
    window = TEXT[start : start + WINDOW_BYTES]
    # No byte of chance beside it may make a piece of a window whole.
    before, after = (os.urandom(place - 1) + b"\0") if place else b"", b"\0" + os.urandom(100)
    assert kinds(tmp_path / "file", before + window + after, needles) == ["text"]
    assert kinds(tmp_path / "file", before + window[:-1] + after, needles) == []


def test_what_is_telling_as_a_whole_is_found_across_two_blocks(tmp_path: Path, needles: Needles) -> None:
    raw = os.urandom(4_090) + PATH + b"\0" + os.urandom(10)  # no byte of chance may complete the path
    assert kinds(tmp_path / "file", raw, needles) == ["path"]
    assert kinds(tmp_path / "file", raw.replace(PATH, PATH[:-1]), needles) == []


def test_what_others_hold_is_not_looked_for(tmp_path: Path, needles: Needles) -> None:
    needles.leave(b"see " + PATH + b" and: " + TEXT[:40])
    assert kinds(tmp_path / "file", PATH + TEXT[:40], needles) == []
    assert kinds(tmp_path / "file", TEXT[20:], needles) == ["text"]


def test_runs_of_equal_bytes_tell_nothing_and_short_words_are_counted(tmp_path: Path) -> None:
    needles = Needles()
    needles.add("text", b"-" * 80 + b"=" * 80)
    needles.add("text", b"abc")
    assert (kinds(tmp_path / "file", b"-" * 500, needles), needles.too_short) == ([], 1)


def test_files_that_vanish_hold_nothing_and_all_kinds_of_a_file_are_told(tmp_path: Path, needles: Needles) -> None:
    both = tmp_path / "both"
    both.write_bytes(TEXT + PATH)
    found = residues([tmp_path / "gone", both], needles)
    assert found == [Residue(str(both), "path"), Residue(str(both), "text")]
