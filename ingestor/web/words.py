"""Words: what the page says, in the reader's language.

Invariant: every language says the same things: the files have the same keys, and each sentence the same places for
values. What documents, files and services say is put in as it is, and escaped where it is drawn.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

LANGUAGES: Final = ("en", "zh")
_TAGS: Final = {"en": "en", "zh": "zh-CN"}
_SAID_BY_SCRIPT: Final = ("activity.", "event.", "map.", "back", "problems.retried")
_MAX_ACCEPTED_CHARACTERS: Final = 500


class Words:
    """The words of one language."""

    def __init__(self, language: str, words: Mapping[str, str]) -> None:
        self.language = language
        self.tag = _TAGS[language]
        self.other = next(each for each in LANGUAGES if each != language)
        self.other_tag = _TAGS[self.other]
        self._words = words

    def __call__(self, key: str, **values: object) -> str:
        """What is said of something; `count` decides between one and several. Numbers are grouped by thousands."""
        single = self._words.get(f"{key}.one") if values.get("count") == 1 else None
        shown = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
        return (single or self._words[key]).format_map(shown)

    def for_script(self) -> Mapping[str, str]:
        """What the page's script says."""
        return {key: said for key, said in self._words.items() if key.startswith(_SAID_BY_SCRIPT)}


@lru_cache(maxsize=len(LANGUAGES))
def words_of(language: str) -> Words:
    """The words of one of `LANGUAGES`."""
    text = files("ingestor.web").joinpath("words", f"{language}.json").read_text(encoding="utf-8")
    return Words(language, json.loads(text))


def language_for(chosen: str, accepted: str) -> str:
    """The language that a reader has chosen, or else the first of ours in the header `Accept-Language` (RFC 9110)."""
    if chosen in LANGUAGES:
        return chosen
    wished = [_wish(part) for part in accepted[:_MAX_ACCEPTED_CHARACTERS].split(",")]
    ranked = sorted((wish for wish in wished if wish[0] > 0), key=lambda wish: -wish[0])
    return next((language for _, language in ranked if language in LANGUAGES), LANGUAGES[0])


def _wish(part: str) -> tuple[float, str]:
    """How much a language is wished for, and which: `zh-CN;q=0.8`."""
    tag, _, parameter = part.partition(";")
    language = tag.strip().lower().partition("-")[0]
    weight = parameter.strip().removeprefix("q=")
    try:
        return float(weight) if weight else 1.0, language
    except ValueError:
        return 0.0, language
