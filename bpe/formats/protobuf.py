"""Reading and writing protocol buffers: the fields of a message, without a schema.

Each length is checked before it is used, so that a damaged file neither reads beyond its end nor takes memory that it
does not have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from bpe.errors import InputError

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
"""The wire types. Groups are obsolete and are refused."""
_LONGEST_VARINT = 10


class Field(NamedTuple):
    """One field of a message."""

    number: int
    wire_type: int
    value: int | bytes
    """The number of a varint or of fixed bytes as it is stored, or the content of a string, of bytes or a message."""
    begin: int
    """Where the field begins in the message."""
    end: int


def fields(message: bytes, name: str = "the message") -> Iterator[Field]:
    """Return the fields of a message, in the order of the file.

    Args:
        message: The content of the message.
        name: What to call the message in errors.

    Raises:
        InputError: When the message is damaged; the error says where.

    >>> [(field.number, field.value) for field in fields(encode_varint(1, 300) + encode_bytes(2, b"abc"))]
    [(1, 300), (2, b'abc')]
    """
    size = len(message)
    at = 0
    while at < size:
        begin = at
        key, at = _varint(message, at, name)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < 2**29:
            raise InputError(f"{name} is damaged: byte {begin} begins a field with the number {number}")
        value: int | bytes
        if wire_type == VARINT:
            value, at = _varint(message, at, name)
        elif wire_type == BYTES:
            length, at = _varint(message, at, name)
            if length > size - at:
                raise InputError(
                    f"{name} is cut off: field {number} at byte {begin} has {length:,} bytes, but"
                    f" {size - at:,} are left"
                )
            value, at = message[at : at + length], at + length
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
            if length > size - at:
                raise InputError(f"{name} is cut off in field {number} at byte {begin}")
            value, at = int.from_bytes(message[at : at + length], "little"), at + length
        else:
            raise InputError(f"{name} is damaged: field {number} at byte {begin} has the wire type {wire_type}")
        yield Field(number, wire_type, value, begin, at)


def _varint(message: bytes, at: int, name: str) -> tuple[int, int]:
    """Return the number at a place, and the place after it."""
    value = 0
    for i, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (2**64 - 1), at + i + 1
    if at + _LONGEST_VARINT > len(message):
        raise InputError(f"{name} is cut off in the number at byte {at}")
    raise InputError(f"{name} is damaged: the number at byte {at} has more than {_LONGEST_VARINT} bytes")


def varint(value: int) -> bytes:
    """Return a number as a varint. Negative numbers take 10 bytes.

    >>> varint(300)
    b'\\xac\\x02'
    """
    value &= 2**64 - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_varint(number: int, value: int) -> bytes:
    """Return a field with a whole number or a bool."""
    return varint(number << 3 | VARINT) + varint(value)


def encode_bytes(number: int, value: bytes) -> bytes:
    """Return a field with a string, bytes or a message."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def encode_float(number: int, value: float) -> bytes:
    """Return a field with a float32."""
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def signed(value: int) -> int:
    """Return the int32 or int64 that a varint stores.

    >>> signed(2**64 - 1)
    -1
    """
    return value - 2**64 if value >= 2**63 else value
