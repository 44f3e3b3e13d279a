"""Whether bytes read as Windows-1252 or ISO 8859-15 are a text of Western Europe.

Invariant: only a text whose letters, signs and words fit one language is taken for one. Any bytes can be read as these
encodings, so text in another one (Polish, Czech, Turkish, Russian, old Mac and DOS files) would turn into nonsense.
"""

# Typographic quotes, dashes and signs are what this file is about.
# ruff: noqa: RUF001

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

ENCODINGS: Final = ("cp1252", "iso8859_15")

_SAMPLE_CHARACTERS: Final = 200_000
_MIN_SHARE_OF_COMMON_WORDS: Final = 0.05
_FEW_WORDS: Final = 6
_MAX_SHARE_OF_ACCENTS: Final = 0.35
_MAX_SHARE_OF_ODD: Final = 0.01
_MAX_SHARE_OF_FOREIGN: Final = 0.05

_TRIPLES = re.compile(r"(?s)(?<=(.))([^\x00-\x7f])(?=(.))")
_WORDS = re.compile(r"[^\W\d_]+")
_ACCENTED = "\xc0-\xd6\xd8-\xf6\xf8-\xffŒœŠšŽžŸ"
_ODD_GROUPS = re.compile(
    rf"[{_ACCENTED}]{{3}}"  # French, German and Nordic words have two in a row at most.
    r"|[\xc0-\xd6\xd8-\xde][A-Z][a-z]"
    r"|[Œœ][^uiltcdsnUILTCDSN]"
)
_PAIRS = re.compile(rf"[{_ACCENTED}]{{2}}")
_PLAIN_PAIRS: Final = frozenset("äöüßåðþñçÄÖÜÅÐÞÑÇ")
"""Letters that stand beside another accented one in many words."""
_APOSTROPHE_IN_WORD = re.compile(
    r"’(?:s|t|re|ve|ll|d|m)\b"
    r"|\b(?:[cdjlmnst]|qu|lorsqu|puisqu|jusqu|quoiqu|aujourd|(?:de|ne|da|su|a)?ll|un|O)’",
    re.IGNORECASE,
)

_ODD_ANYWHERE: Final = frozenset("¤¦¨¬¯´¸ƒˆ˜†‡‚¶÷") | frozenset(map(chr, range(0x80, 0xA0)))
_FINE_BEFORE_LETTERS: Final = frozenset("“‘”’«»‹›„¿¡…–—•")
_FINE_AFTER_LETTERS: Final = frozenset("“”‘’«»‹›…–—™®©ºª")
_FINE_IN_WORDS: Final = frozenset("’–—…·")
_FINE_ALONE: Final = frozenset("àèéôåøæóöÀÈÉÔÅØÆÓÖ")
_PLACES: Final[dict[str, Callable[[str, str], bool]]] = {
    "\xa0": lambda before, after: not (before.islower() and (after.islower() or after.isspace())),
    "\xad": lambda before, after: before.isalpha() and after.isalpha(),
    "µ": lambda _, after: not after.isalpha() or after in "mslgAVFLW",
    "°": lambda _, after: not after.isalpha() or after in "CFK",
    **dict.fromkeys("®™", lambda before, after: not after.isalpha() and (before.isalnum() or before in ")”»")),
    **dict.fromkeys("²³¹", lambda before, after: not after.isalpha() and (not before.isalpha() or before == "m")),
    **dict.fromkeys("¢¥¼½¾±", lambda before, after: before.isdecimal() or after.isdecimal()),
}
"""Where some signs stand, by what comes before and after them."""
_TONGUE_SIGNS: Final = frozenset("¿¡ªº·")
"""Signs that only some languages have: they count as letters of these."""
_SAME_EVERYWHERE: Final = frozenset("äöüßéóÄÖÜÉÓ")
"""Letters whose bytes mean the same in the Central European, Turkish and Baltic code pages: nothing else fits."""


@dataclass(frozen=True, slots=True)
class _Tongue:
    """Letters beyond ASCII, and words that every text is full of and that the neighbours of Western Europe lack."""

    letters: frozenset[str]
    words: frozenset[str]
    endings: tuple[str, ...] = ()
    only_at_word_ends: bool = False
    has_dashes_in_words: bool = False
    words_per_accent: float = 0.0


def _tongue(
    letters: str, words: str, *endings: str, only_at_word_ends: bool = False, is_english: bool = False
) -> _Tongue:
    capitals = "".join(letter.upper() for letter in letters if len(letter.upper()) == 1)
    return _Tongue(
        letters=frozenset(letters + capitals),
        words=frozenset(words.split()),
        endings=endings,
        only_at_word_ends=only_at_word_ends,
        has_dashes_in_words=is_english,
        words_per_accent=8.0 if is_english else 0.0,
    )


_TONGUES: Final = (
    _tongue(
        "äöüßé",
        "der die das und ist nicht ein eine einen einer mit von zu den auf für im dem sich des auch es als wird aus sie"
        " werden bei oder wir nach zum zur über wie ich aber wenn sind kann hat nur noch dass keine wurde durch",
    ),
    _tongue(
        "àâæçéèêëîïôœùûü",
        "le la les de des du une et est en que qui dans pour pas sur au aux avec ce il elle plus son sa ses cette nous"
        " vous être ou mais sont leur été dont cet tout",
    ),
    _tongue(
        "áéíóúñüª¿¡º",
        "el la los las de que en por con para es al del lo como más pero sus este esta porque entre cuando muy sin"
        " sobre también hasta hay donde fue puede",
        "ción",
        "sión",
    ),
    _tongue(
        "áàâãçéêíóôõúüºª",
        "os as que em um uma para com não por mais dos das ao como mas foi ele ela são seu sua ou quando muito nos já"
        " também pelo pela até isso entre você do da",
        "ção",
        "ções",
        "são",
    ),
    _tongue(
        "àèéìîòóùº",
        "il lo la gli le di che una per non con del della dei delle sono al dal come più ma nel nella questo anche alla"
        " essere ha può",
        "tà",
        "zione",
        "zioni",
        only_at_word_ends=True,
    ),
    _tongue(
        "æøåéèòôóü",
        "og er det som en på til av for med den at ikke har et om fra af kan vil eller men blir skal ved også bliver",
    ),
    _tongue(
        "åäöéàü",
        "och att det som en på är av för med den till inte har ett om från kan eller men ska när vid också"
        " ei että oli hän mutta ovat kun tai myös sen",
    ),
    _tongue("áéíóúýðþæö", "að og sem til um en ekki með fyrir það eru frá hann"),
    _tongue(
        "éëïèêöüáíóú",
        "het een en van is dat op met niet voor zijn aan er om ook als bij of uit wordt naar deze kan",
    ),
    _tongue("àçéèíïóòúü·¿¡", "el la els les de que en una per amb és del dels com més però aquest aquesta són"),
    _tongue(
        "éèêëïîöüñçàâáíóô",
        "the of and that for it with are this from or not was you which can has have will is",
        is_english=True,
    ),
)


def is_western(text: str) -> bool:
    """Whether a text, decoded from one of `ENCODINGS`, makes sense; it holds something beyond ASCII."""
    triples = Counter(_TRIPLES.findall(f" {text} "))
    accents = Counter[str]()
    for (_, sign, _), count in triples.items():
        if _is_letter(sign) or sign in _TONGUE_SIGNS:
            accents[sign] += count
    letters = sum(map(text.count, string.ascii_letters)) + accents.total()
    if accents.total() > _MAX_SHARE_OF_ACCENTS * letters or _odd(text, triples) > _MAX_SHARE_OF_ODD * triples.total():
        return False
    joins_words = any(sign in "–—" and before.isalpha() and after.isalpha() for before, sign, after in triples)
    if _share_of_foreign(accents, _SAME_EVERYWHERE) <= _MAX_SHARE_OF_FOREIGN and not joins_words:
        return True
    words = [word.lower() for word in _WORDS.findall(text[:_SAMPLE_CHARACTERS])]
    inside = sum(count for (_, sign, after), count in triples.items() if _is_letter(sign) and after.isalpha())
    return any(
        (tongue.has_dashes_in_words or not joins_words)
        and (inside == 0 or not tongue.only_at_word_ends)
        and accents.total() * tongue.words_per_accent <= max(len(words), 1)
        and _fits(tongue, accents, words)
        for tongue in _TONGUES
    )


def _fits(tongue: _Tongue, accents: Counter[str], words: Sequence[str]) -> bool:
    """Whether letters and words are those of a language, but for a few names."""
    if _share_of_foreign(accents, tongue.letters) > _MAX_SHARE_OF_FOREIGN:
        return False
    needed = max(2 if len(words) > _FEW_WORDS else 1, _MIN_SHARE_OF_COMMON_WORDS * len(words))
    return sum(word in tongue.words or word.endswith(tongue.endings) for word in words) >= needed


def _share_of_foreign(accents: Counter[str], letters: frozenset[str]) -> float:
    return sum(count for letter, count in accents.items() if letter not in letters) / max(accents.total(), 1)


def _is_letter(sign: str) -> bool:
    return sign.isalpha() and sign not in "ªºµ"


def _odd(text: str, triples: Counter[tuple[str, str, str]]) -> int:
    """How many characters beyond ASCII stand where no writer puts them."""
    odd = sum(count for triple, count in triples.items() if _is_odd(*triple))
    odd += sum(1 for _ in _ODD_GROUPS.finditer(text))
    odd += sum(1 for pair in _PAIRS.findall(text) if pair[0] != pair[1] and not _PLAIN_PAIRS.intersection(pair))
    odd += max(text.count("„") - text.count("“") - text.count("”"), 0)
    elided = sum(
        count
        for (before, sign, after), count in triples.items()
        if sign == "’" and before.isalpha() and after.isalpha()
    )
    return odd + max(elided - len(_APOSTROPHE_IN_WORD.findall(text)), 0) if elided else odd


def _is_odd(before: str, sign: str, after: str) -> bool:
    if _is_letter(sign):
        return (
            sign.isupper()
            if before.islower()
            else not (before + after).isalpha() and _is_odd_alone(before, sign, after)
        )
    if sign in _ODD_ANYWHERE:
        return True
    if sign in _PLACES:
        return not _PLACES[sign](before, after)
    if before.isalpha() and after.isalpha():
        return sign not in _FINE_IN_WORDS
    return (after.isalpha() and sign not in _FINE_BEFORE_LETTERS) or (
        before.isalpha() and sign not in _FINE_AFTER_LETTERS
    )


def _is_odd_alone(before: str, sign: str, after: str) -> bool:
    """Whether a letter that is a word by itself is no such word."""
    return not before.isalpha() and not after.isalpha() and sign not in _FINE_ALONE
