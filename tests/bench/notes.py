"""Notes: small files of made-up words, each a chunk by itself, none like another, the same for every run."""

import random
from collections.abc import Mapping
from pathlib import Path

WORDS = 90
FILES_PER_FOLDER = 100
_ONSETS = ("b", "br", "d", "f", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v")
_RHYMES = ("a", "an", "e", "el", "i", "ing", "o", "on", "or", "u", "um", "y")
_SYLLABLES = [onset + rhyme for onset in _ONSETS for rhyme in _RHYMES]
_VOCABULARY = [first + second for first in _SYLLABLES[::3] for second in _SYLLABLES[1::3]]


def note(name: object, words: int = WORDS) -> str:
    """The text of one note."""
    drawn = random.Random(str(name)).choices(_VOCABULARY, k=words)
    return f"# {name}\n\n{' '.join(drawn)}.\n"


def notes(count: int) -> dict[str, str]:
    """Path and text of so many notes, a hundred in each folder."""
    return {f"shelf-{number // FILES_PER_FOLDER:04}/note-{number:06}.md": note(number) for number in range(count)}


def plant(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files, as fast as they can be written."""
    for place in sorted({path.rpartition("/")[0] for path in texts}):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (folder / path).write_text(text, encoding="utf-8")
