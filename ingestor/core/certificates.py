"""Certificates: who has issued one, read from its DER form, for a sentence to a person.

Invariant: bytes that a stranger has sent never raise; where they are no certificate, nobody has issued it.
"""

from collections.abc import Iterator
from typing import Final

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OBJECT_IDENTIFIER: Final = 0x06
_VERSION: Final = 0xA0
_WIDE_STRING: Final = 0x1E
_NAMES: Final = {b"\x55\x04\x03": "CN", b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU"}
"""Attributes worth telling, by their object identifiers; RFC 5280, appendix A.1."""
_LONG_FORM: Final = 0x80
_MAX_LENGTH_BYTES: Final = 4
_MAX_CHARACTERS: Final = 100
"""Of one attribute."""


def issuer_of(certificate: bytes) -> str:
    """The issuer of a certificate, like "CN=Example Root, O=Example"; "" where the bytes do not say."""
    try:
        (_, whole), *_ = _elements(certificate)
        (_, signed), *_ = _elements(whole)
        parts = [part for part in _elements(signed) if part[0] != _VERSION]
        _serial, _algorithm, (_, issuer), *_ = parts
        return ", ".join(f"{kind}={text}" for kind, text in _attributes(issuer))
    except (ValueError, IndexError):
        return ""


def _attributes(name: bytes) -> Iterator[tuple[str, str]]:
    for tag, group in _elements(name):
        for inner, pair in _elements(group) if tag == _SET else ():
            if inner != _SEQUENCE:
                continue
            (kind_tag, kind), (value_tag, value), *_ = _elements(pair)
            if kind_tag == _OBJECT_IDENTIFIER and kind in _NAMES:
                text = value.decode("utf-16-be" if value_tag == _WIDE_STRING else "utf-8", "replace")
                shown = "".join(character if character.isprintable() else "?" for character in text)
                yield _NAMES[kind], shown[:_MAX_CHARACTERS]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a DER value, each with its tag. Raises `ValueError` or `IndexError` for what is none."""
    place = 0
    while place < len(data):
        tag, length, start = data[place], data[place + 1], place + 2
        if length >= _LONG_FORM:
            size = length - _LONG_FORM
            if not 0 < size <= _MAX_LENGTH_BYTES:
                raise ValueError(length)
            length, start = int.from_bytes(data[start : start + size]), start + size
        if start + length > len(data):
            raise ValueError(length)
        yield tag, data[start : start + length]
        place = start + length
