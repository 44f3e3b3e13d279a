"""A network in the format ONNX, as bytes: the few messages of it that a graph of matrices needs.

The package onnx, which writes them all, is no dependency of onnxruntime. Field numbers are those of `onnx.proto3` in
the repository onnx/onnx; an attribute is a float or an int, a tensor has its numbers in `raw_data`.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

IR_VERSION: Final = 8
"""Of onnx 1.10 and later."""

Attribute: TypeAlias = int | float

_TYPES: Final = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7}
"""`TensorProto.DataType` by the name of a numpy dtype."""
_LENGTH_DELIMITED: Final = 2
_FIXED_32: Final = 5
_ATTRIBUTE_FLOAT: Final = 1
_ATTRIBUTE_INT: Final = 2
_LOW_BITS: Final = 0x7F
_MORE_FOLLOWS: Final = 0x80


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, **attributes: Attribute) -> bytes:
    """A `NodeProto`; an input that is left out is an empty name."""
    return b"".join(
        [
            *(_text(1, name) for name in inputs),
            *(_text(2, name) for name in outputs),
            _text(4, operator),
            *(_bytes(5, _attribute(name, value)) for name, value in attributes.items()),
            _text(7, domain),
        ]
    )


def tensor(name: str, numbers: NDArray[Any]) -> bytes:
    """A `TensorProto`. Raises `KeyError` for a dtype that no graph here needs."""
    return b"".join(
        [
            *(_number(1, length) for length in numbers.shape),
            _number(2, _TYPES[numbers.dtype.name]),
            _text(8, name),
            _bytes(9, np.ascontiguousarray(numbers).tobytes()),
        ]
    )


def floats(name: str, shape: Sequence[int | str]) -> bytes:
    """A `ValueInfoProto` of float32 numbers; a length with a name is open."""
    lengths = [_text(2, length) if isinstance(length, str) else _number(1, length) for length in shape]
    kind = _number(1, _TYPES["float32"]) + _bytes(2, b"".join(_bytes(1, length) for length in lengths))
    return _text(1, name) + _bytes(2, _bytes(1, kind))


def model(
    nodes: Sequence[bytes], tensors: Sequence[bytes], source: bytes, result: bytes, versions: dict[str, int]
) -> bytes:
    """A `ModelProto` of one graph with one input and one output, and the versions of its operators by domain."""
    graph = b"".join(
        [
            *(_bytes(1, made) for made in nodes),
            _text(2, "graph"),
            *(_bytes(5, made) for made in tensors),
            _bytes(11, source),
            _bytes(12, result),
        ]
    )
    operators = [_bytes(8, _text(1, domain) + _number(2, version)) for domain, version in versions.items()]
    return b"".join([_number(1, IR_VERSION), _bytes(7, graph), *operators])


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        return _text(1, name) + _key(2, _FIXED_32) + struct.pack("<f", value) + _number(20, _ATTRIBUTE_FLOAT)
    return _text(1, name) + _number(3, value) + _number(20, _ATTRIBUTE_INT)


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _number(field: int, number: int) -> bytes:
    return _key(field, 0) + _varint(number)


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number in 64 bits."""
    rest = number & 0xFFFF_FFFF_FFFF_FFFF
    coded = bytearray()
    while rest > _LOW_BITS:
        coded.append(rest & _LOW_BITS | _MORE_FOLLOWS)
        rest >>= 7
    coded.append(rest)
    return bytes(coded)
