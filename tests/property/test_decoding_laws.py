"""Whatever bytes a file holds: a text that they really spell, or a reason why there is none.

`pytest tests/property --hypothesis-profile thorough` makes a long run of it.
"""

import codecs

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.adapters.decoding import Decoded, decode
from ingestor.core.errors import UndecodableDocument
from tests.unit.test_decoding import ALL_TEXTS, ASIAN, WESTERN

SCALE = settings().max_examples // 100 or 1
FUZZED = settings(max_examples=1_500 * SCALE, deadline=None, derandomize=SCALE == 1)
BOUNDED = settings(max_examples=400 * SCALE, deadline=None, derandomize=SCALE == 1)

MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "gb18030": b"\x84\x31\x95\x33",
}
CODECS_OF = {
    "big5": ("cp950", "big5hkscs"),
    "shift_jis": ("cp932",),
    "euc_jp": ("euc_jp", "euc_jis_2004"),
    "euc_kr": ("cp949",),
}
"""What Python calls the encodings that are told by another name."""
ENCODINGS = (
    *MARKED,
    *("gbk", "big5", "big5hkscs", "cp932", "shift_jisx0213", "euc_jp", "euc_jis_2004", "iso2022_jp", "iso2022_jp_2"),
    *("iso2022_kr", "euc_kr", "cp949", "johab", "hz", "utf-7", "cp1252", "iso8859_15", "cp1250", "cp1251", "koi8_r"),
    *("cp850", "cp437", "mac_roman", "cp037"),
)
ENCODED = [text.encode(encoding, "ignore") for text in ALL_TEXTS for encoding in ENCODINGS]
ENCODED += [mark + text.encode(encoding) for text in ALL_TEXTS for encoding, mark in MARKED.items()]
SPLINTERS = (
    *MARKED.values(),
    *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbf\xbd", b"\xef\xbf\xbf", b"\x84\x31\xa4\x37", b"\x80", b"\xd8\x00"),
    *(b"\x1b$B", b"\x1b(B", b"\x1b$(D", b"\x1b$)C\x0e", b"\x0e", b"\x0f", b"\r", b"\r\n", b"\x85", b"\xf4\x90\x80\x80"),
)
CLEAN = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\ta中é "), max_size=60
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real text in some encoding: cut at both ends, mixed with others, with bytes changed, lost and put in."""
    raw = draw(st.sampled_from(ENCODED))
    begin = draw(st.integers(0, len(raw)))
    result = bytearray(raw[begin : begin + draw(st.integers(0, 600))])
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(result)))
        match draw(st.integers(0, 4)):
            case 0:
                result[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del result[place : place + draw(st.integers(1, 5))]
            case 2:
                result[place:place] = draw(st.sampled_from(SPLINTERS))
            case 3:
                other = draw(st.sampled_from(ENCODED))
                start = draw(st.integers(0, len(other)))
                result[place:place] = other[start : start + draw(st.integers(0, 80))]
            case _:
                result[place:place] = draw(st.binary(max_size=5))
    return bytes(result)


def outcome(raw: bytes) -> Decoded | None:
    """None: refused, with a sentence and a remedy; no other exception is known."""
    try:
        return decode(raw)
    except UndecodableDocument as error:
        refusal = error
    assert str(refusal).isprintable()
    assert refusal.remedy
    return None


def with_one_line_end(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def spelled(raw: bytes, encoding: str) -> set[str]:
    """What the bytes say in an encoding, a byte order mark left out; nothing where they are not valid."""
    found = set()
    for name in CODECS_OF.get(encoding, (encoding,)):
        for mark in {b"", MARKED.get(encoding, b"")}:
            try:
                found.add(with_one_line_end(raw.removeprefix(mark).decode(name)))
            except UnicodeDecodeError:
                continue
    return found


@FUZZED
@given(damaged() | st.binary(max_size=200))
@example(b"\xff\xfe\x00\xd8")
@example("中文".encode("utf-16-le") * 20 + b"\x00\xd8")
@example(b"\x84\x31\xa4\x37" * 8)
@example(b"\x1b$(D+Q\x1b(B" * 8)
@example(b"\xef\xbb\xbf" * 3 + b"text")
@example(b"\xff\xfe" * 3)
def test_any_bytes_are_read_as_what_they_spell_or_refused(raw: bytes) -> None:
    decoded = outcome(raw)
    if decoded is None:
        return
    text = decoded.text
    assert text in spelled(raw, decoded.encoding)
    assert not {"\0", "\r"} & set(text)
    text.encode()  # no lone surrogate
    if "\ufffd" in text:  # written by somebody else, and there to be read
        assert "\ufffd".encode(decoded.encoding, "replace") in raw
    assert outcome(raw) == decoded


@BOUNDED
@given(CLEAN, st.sampled_from(sorted(MARKED)))
def test_a_text_with_a_byte_order_mark_is_read_as_it_is(text: str, encoding: str) -> None:
    assert decode(MARKED[encoding] + text.encode(encoding)) == Decoded(text.removeprefix("\ufeff"), encoding)


@BOUNDED
@given(CLEAN)
@example("€")
@example("\ufeff\ufeff中文中文")
def test_utf8_is_read_as_utf8_or_refused_where_it_is_a_letter_or_two(text: str) -> None:
    raw = text.encode()
    decoded = outcome(raw)
    if decoded is None:
        assert 0 < len(raw) - len(text) <= 4 or raw.startswith(b"%PDF-")
    else:
        assert decoded.text == text.removeprefix("\ufeff").removeprefix("\ufeff")


@BOUNDED
@given(st.sampled_from([(text, name) for text, name, _ in ASIAN] + WESTERN), st.integers(0, 400), st.integers(200, 500))
def test_a_long_piece_of_a_text_is_read_as_it_is_or_refused(text: tuple[str, str], begin: int, length: int) -> None:
    body, encoding = text
    piece = body[begin % max(1, len(body) - 150) :][:length]
    decoded = outcome(piece.encode(encoding))
    assert decoded is None or decoded.text == piece


@BOUNDED
@given(st.sampled_from(ALL_TEXTS), st.sampled_from(sorted(MARKED)), st.integers(0, 1_000))
def test_a_marked_text_that_breaks_off_is_read_to_its_end_or_refused(text: str, encoding: str, length: int) -> None:
    raw = (MARKED[encoding] + text.encode(encoding))[: len(MARKED[encoding]) + length]
    decoded = outcome(raw)
    assert decoded is None or text.startswith(decoded.text)


@pytest.mark.parametrize("raw", [b"\xef\xbf\xbd" * 40, "\ufffd text".encode() * 9])
def test_replacement_characters_that_somebody_saved_are_kept(raw: bytes) -> None:
    assert decode(raw).text == raw.decode()
