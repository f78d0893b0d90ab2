"""The wire format of protocol buffers, both ways: as much of it as a SentencePiece model needs.

A message is a row of fields; a field is a key (number and wire type), then a varint, eight bytes, a length and that
many bytes, or four bytes. What a field means is its reader's business.
Format: https://protobuf.dev/programming-guides/encoding
"""

import struct
from collections.abc import Iterator

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5

Field = tuple[int, int, int | bytes]  # number, wire type, value


def fields(data: bytes, at: int = 0) -> Iterator[Field]:
    """The fields of a message from `at` on, in order; ValueError where the bytes are no message or end too soon."""
    end = len(data)
    while at < end:
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == VARINT:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if wire == BYTES else ({EIGHT: 8, FOUR: 4}.get(wire, -1), at)
            if size < 0 or not number:
                raise ValueError(f"there is no field of number {number} and wire type {wire}")
            if at + size > end:
                raise ValueError(f"it ends {at + size - end} bytes too soon")
            value, at = data[at : at + size], at + size
        yield number, wire, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The whole number written from `at` on, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends inside a number")
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("a number in it has more than ten bytes")


def field(number: int, value: int | float | str | bytes) -> bytes:
    """A field as bytes: an int or bool as a varint, a float as four bytes, text and bytes with their length."""
    if isinstance(value, float):
        return _varint(number << 3 | FOUR) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # a negative number is written as its complement in 64 bits
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
