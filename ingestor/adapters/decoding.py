"""Bytes to text, in whatever encoding they are written.

Invariant: never nonsense without a word. Where the bytes do not say for certain what they mean, they are refused with a
reason, because a wrong text is worse in a search than a missing one that is listed as a problem.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ingestor.adapters import characters, western
from ingestor.core.errors import UndecodableDocument


@dataclass(frozen=True, slots=True)
class Decoded:
    r"""A text with "\n" line ends, without byte order mark, surrogates and NUL, and the encoding it came in."""

    text: str
    encoding: str


_UTF8_REMEDY: Final = "save the file as UTF-8, for instance `iconv -f ENCODING -t UTF-8 FILE`"
_BINARY_REMEDY: Final = "convert it to text, or leave it out with watch.exclude"
_SAMPLE_BYTES: Final = 48 * 1024
_BLOCK_CHARACTERS: Final = 4096
_MIN_POINTS: Final = 6.0
_MIN_DISTINCT: Final = 4
"""A few words of a Western text may turn into the same common character again and again."""
_MIN_MEAN: Final = 0.5
_MIN_BLOCK_MEAN: Final = -0.1
_MIN_BLOCK_EVIDENCE: Final = 100
_MAX_CONTROLS_OF_UTF8: Final = 0.05
_MAX_CONTROLS_OF_LEGACY: Final = 0.005
_MAX_DOUBTFUL_CHARACTERS: Final = 4
_MIN_POINTS_OF_UTF16: Final = 16.0

_CONTROLS: Final = bytes({*range(0x20), 0x7F} - set(b"\t\n\v\f\r\b\x1a\x1b"))
_EVERYDAY_TWO_BYTES = re.compile("[\x00-\u017f\u0391-\u03a9\u03ac-\u03ce\u0401-\u045f\u05d0-\u05ea\u0621-\u064a]*")
"""ASCII, and Latin, Greek, Cyrillic, Hebrew and Arabic letters as they occur alone in a text."""
_ALPHABETS = re.compile("[\x00-\u05ff]+")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)

_FORMATS: Final = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an Office document (docx, xlsx, pptx, odt, epub)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (doc, xls, ppt)"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"RIFF", "a sound, video or WebP file"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a Windows program"),
    (b"\xcf\xfa\xed\xfe", "a macOS program"),
    (b"\xca\xfe\xba\xbe", "a Java class or macOS program"),
    (b"\x00asm", "a WebAssembly program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"OggS", "an Ogg sound or video file"),
    (b"fLaC", "a FLAC sound file"),
    (b"ID3", "an MP3 sound file"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"PAR1", "a Parquet table"),
    (b"wOF2", "a web font"),
)
"""What binary files begin with; looked at only when the bytes are no plain text."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An encoding, the codecs that cover its variants, and the languages that are written in it."""

    encoding: str
    codecs: tuple[str, ...]
    languages: tuple[Callable[[], characters.Language], ...]


_LEGACY: Final = (
    _Candidate("gb18030", ("gb18030",), (characters.simplified_chinese, characters.traditional_chinese)),
    _Candidate("big5", ("cp950", "big5hkscs"), (characters.traditional_chinese,)),
    _Candidate("shift_jis", ("cp932",), (characters.japanese,)),
    _Candidate("euc_jp", ("euc_jp", "euc_jis_2004"), (characters.japanese,)),
    _Candidate("euc_kr", ("cp949",), (characters.korean,)),
)


def decode(raw: bytes) -> Decoded:
    """The text that the bytes of a whole file stand for; raises `UndecodableDocument` when that is not certain."""
    marked = _marked(raw)
    if marked is not None:
        return marked
    broken: UnicodeDecodeError | None = None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        broken = error
    else:
        if not _has_controls(raw, _MAX_CONTROLS_OF_UTF8):
            _refuse_known_format(raw, only=b"%PDF-")
            _refuse_doubtful_utf8(raw, text)
            return _seven_bits(raw) or _finished(text, "utf-8")
    _refuse_known_format(raw)
    if (wide := _utf16(raw)) is not None:
        return wide
    if broken is None or _has_controls(raw, _MAX_CONTROLS_OF_LEGACY):
        raise UndecodableDocument("the file is binary: it holds NUL bytes or control characters", remedy=_BINARY_REMEDY)
    _refuse_damaged_utf8(raw, broken)
    return _legacy(raw)


def _finished(text: str, encoding: str) -> Decoded:
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Decoded(text, encoding)


def _has_controls(raw: bytes, share: float) -> bool:
    """Whether there is a NUL or a larger share of control characters than a text has."""
    return b"\x00" in raw or len(raw) - len(raw.translate(None, _CONTROLS)) > share * len(raw)


def _marked(raw: bytes) -> Decoded | None:
    """What follows a byte order mark; None without one."""
    encodings = [(mark, encoding) for mark, encoding in _MARKS if raw.startswith(mark)]
    for mark, encoding in encodings:
        try:
            text = raw[len(mark) :].decode(encoding)
        except UnicodeDecodeError:
            continue
        if not _NO_TEXT.search(text) and not _has_controls(text.encode("utf-8"), _MAX_CONTROLS_OF_UTF8):
            return _finished(text, encoding)
    if not encodings:
        return None
    raise UndecodableDocument(
        f"the file begins with the byte order mark of {encodings[-1][1]}, but what follows is no such text",
        remedy="copy the file again if it was cut short; " + _UTF8_REMEDY,
    )


def _refuse_known_format(raw: bytes, only: bytes = b"") -> None:
    for start, name in _FORMATS:
        if raw.startswith(start) and only in {b"", start}:
            raise UndecodableDocument(f"the file is {name}, not text", remedy=_BINARY_REMEDY)


def _seven_bits(raw: bytes) -> Decoded | None:
    """Japanese or Korean text in seven bits, as mail had it, which is valid ASCII as well; None when it is none."""
    if b"\x1b$" not in raw:
        return None
    for encoding, language in (("iso2022_jp", characters.japanese), ("iso2022_kr", characters.korean)):
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        try:
            text = decoder.decode(raw)
        except UnicodeDecodeError:
            continue
        if language().score(text).mean < _MIN_MEAN:
            continue
        try:
            return _finished(raw.decode(encoding), encoding)
        except UnicodeDecodeError as error:
            raise _cut_short(raw, error, f"{language().name} in {encoding}") from error
    return None


def _cut_short(raw: bytes, error: UnicodeDecodeError, reading: str) -> UndecodableDocument:
    line = raw.count(b"\n", 0, error.start) + 1
    return UndecodableDocument(
        f"the file reads as {reading}, but not from line {line:,} (byte {error.start:,}) on",
        remedy="copy the file again if it was cut short; " + _UTF8_REMEDY,
    )


def _utf16(raw: bytes) -> Decoded | None:
    """UTF-16 without a byte order mark, when one order of bytes makes a text and the other does not."""
    if len(raw) % 2:
        return None
    found = []
    for encoding in ("utf-16-le", "utf-16-be"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _NO_TEXT.search(text) or _has_controls(text.encode("utf-8"), _MAX_CONTROLS_OF_LEGACY):
            continue
        # Alphabets below U+0600 stand for themselves: their high bytes are almost constant.
        sample = text[:_SAMPLE_BYTES]
        rest = _ALPHABETS.sub("", sample)
        ours = len(sample) - len(rest)
        points = characters.COMMON_POINTS * ours + max(
            language().score(rest).points for candidate in _LEGACY for language in candidate.languages
        )
        if points >= max(_MIN_POINTS_OF_UTF16, _MIN_MEAN * (ours + len(rest))):
            found.append(_finished(text, encoding))
    return found[0] if len(found) == 1 else None


def _refuse_doubtful_utf8(raw: bytes, text: str) -> None:
    """Refuse a character or two of everyday Chinese whose bytes happen to be rare letters in UTF-8 as well."""
    if not 0 < len(raw) - len(text) <= _MAX_DOUBTFUL_CHARACTERS:
        return
    if _EVERYDAY_TWO_BYTES.fullmatch(text) is None and any(
        reading.score.mean >= _MIN_MEAN for reading in _readings((raw,))
    ):
        raise _uncertain()


def _refuse_damaged_utf8(raw: bytes, error: UnicodeDecodeError) -> None:
    """Refuse what is UTF-8 but for a few bytes: any other reading of it would be nonsense."""
    repaired = raw.decode("utf-8", "replace")
    damaged = repaired.count("\ufffd")
    beyond_ascii = len(repaired) - len(repaired.encode("ascii", "ignore")) - damaged
    if beyond_ascii < 2 * damaged:
        return
    line = raw.count(b"\n", 0, error.start) + 1
    if damaged == 1 and error.end == len(raw) and error.reason == "unexpected end of data":
        raise UndecodableDocument(
            f"the UTF-8 text breaks off in the middle of its last character (line {line:,})",
            remedy="copy the file again: it was cut short",
        ) from error
    raise UndecodableDocument(
        f"the UTF-8 text is damaged at line {line:,} (byte {error.start:,}), {damaged:,} characters in all",
        remedy="repair these characters, for instance `iconv -f UTF-8 -t UTF-8 -c FILE` drops them",
    ) from error


def _legacy(raw: bytes) -> Decoded:
    """Text in one of the encodings before Unicode, told by the characters that its bytes turn into."""
    sample = _sample(raw)
    reading = _asian(sample)
    latin = _western(raw) if _western(b"\n".join(sample)) is not None else None
    if reading is not None and latin is None:
        return _read_whole(raw, reading)
    if latin is not None and reading is None:
        return latin
    raise _uncertain()


def _uncertain() -> UndecodableDocument:
    return UndecodableDocument("the encoding of the text cannot be told for certain", remedy=_UTF8_REMEDY)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read the sample."""

    encoding: str
    codec: str
    language: characters.Language
    score: characters.Score


def _sample(raw: bytes) -> tuple[bytes, ...]:
    """Lines beyond ASCII: all of them, or pieces from different thirds of a long file.

    A line break is never a part of a character in these encodings, so that every piece begins with a whole one; it may
    end within one.
    """
    lines = [line for line in raw.split(b"\n") if not line.isascii()]
    size_bytes = _SAMPLE_BYTES // 3
    starts = sorted({0, len(lines) // 3, 2 * len(lines) // 3})
    pieces = [b"\n".join(lines[start:end]) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    return tuple(piece[:size_bytes] for piece in pieces)


def _asian(sample: Sequence[bytes]) -> _Reading | None:
    """The one reading in which the sample is Chinese, Japanese or Korean beyond doubt; None when there is none."""
    readings = sorted(_readings(sample), key=lambda reading: reading.score.points, reverse=True)
    if not readings:
        return None
    best, *others = readings
    rival = max((other.score.points for other in others), default=0.0)
    is_certain = (
        best.score.points >= _MIN_POINTS
        and best.score.distinct_characters >= _MIN_DISTINCT
        and best.score.mean >= _MIN_MEAN
        and rival <= min(best.score.points / 2, best.score.points - _MIN_POINTS)
    )
    return best if is_certain else None


def _readings(sample: Sequence[bytes]) -> Iterator[_Reading]:
    """The best reading in each encoding in which the sample is valid at all."""
    for candidate in _LEGACY:
        for codec in candidate.codecs:
            try:
                # Not final: the sample may end within a character. That the file does not is seen when all is read.
                text = "".join(codecs.getincrementaldecoder(codec)("strict").decode(piece) for piece in sample)
            except UnicodeDecodeError:
                continue
            scores = [(language().score(text), language()) for language in candidate.languages]
            score, language = max(scores, key=lambda scored: scored[0].points)
            yield _Reading(candidate.encoding, codec, language, score)
            break


def _read_whole(raw: bytes, reading: _Reading) -> Decoded:
    """All of the text; raises `UndecodableDocument` when a part of it is something else."""
    try:
        text = raw.decode(reading.codec)
    except UnicodeDecodeError as error:
        raise _cut_short(raw, error, f"{reading.language.name} in {reading.encoding}") from error
    for start in range(0, len(text), _BLOCK_CHARACTERS):
        score = reading.language.score(text[start : start + _BLOCK_CHARACTERS])
        if score.characters >= _MIN_BLOCK_EVIDENCE and score.mean < _MIN_BLOCK_MEAN:
            line = text.count("\n", 0, start) + 1
            raise UndecodableDocument(
                f"the file reads as {reading.language.name} in {reading.encoding}, but not around line {line:,}",
                remedy="split the file where the encoding changes; " + _UTF8_REMEDY,
            )
    return _finished(text, reading.encoding)


def _western(raw: bytes) -> Decoded | None:
    """The text of Western Europe that the bytes are; None when they are none."""
    for encoding in western.ENCODINGS:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if western.is_western(text):
            return _finished(text, encoding)
    return None
