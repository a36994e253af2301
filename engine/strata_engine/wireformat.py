"""The wire format of protobuf, as much of it as `codec` needs: fields in, fields out.

A field is a varint `number << 3 | type`, then a varint (type 0), 8 bytes (1), a length and that many bytes (2), or
4 bytes (5). Encoders are given the whole first byte, as all our field numbers are below 16. It knows no message but
those that many others contain. Decoders raise ValueError, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Value: TypeAlias = "int | bytes"
"""What a field holds, before one knows what it means."""

INT64_MAX = (1 << 63) - 1
UINT64 = (1 << 64) - 1
_NANOS = 1_000_000_000


def varint(number: int) -> bytes:
    """Encode a number of at least 0."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(tag: int, body: bytes) -> bytes:
    """Encode a field of bytes; `tag` is its whole first byte."""
    size = len(body)
    return bytes((tag, size)) + body if size < 0x80 else bytes((tag,)) + varint(size) + body


def text(tag: int, value: str, *, keep: bool = False) -> bytes:
    """Encode a field of text. An empty one is left out, but a member of a repeated field (`keep`) is written."""
    return message(tag, value.encode()) if value or keep else b""


def pair(tag: int, name: str, value: str) -> bytes:
    """Encode a message of two strings, as REAPI has several."""
    return message(tag, text(0x0A, name) + text(0x12, value))


def timestamp(tag: int, nanoseconds: int) -> bytes:
    """Encode a `google.protobuf.Timestamp`, which is left out where it is 0."""
    if not nanoseconds:
        return b""
    seconds, nanos = divmod(nanoseconds, _NANOS)
    body = (b"\x08" + varint(seconds & UINT64) if seconds else b"") + (b"\x10" + varint(nanos) if nanos else b"")
    return message(tag, body)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number at `at`; give it and where it ends. Raises ValueError where it is not the shortest form."""
    number = shift = 0
    for index in range(at, min(at + 10, len(data))):
        byte = data[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or number > UINT64:
                raise ValueError("an overlong varint")
            return number, index + 1
        shift += 7
    raise ValueError("a truncated or overlong varint")


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Walk the fields of a message; what is of fixed width is given as bytes, which no reader here asks for."""
    at, end = 0, len(data)
    while at < end:
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError("a field number out of range")
        if kind == 0:
            value, at = read_varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = read_varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if size > end - at:
            raise ValueError("a truncated field")
        yield number, data[at : at + size]
        at += size


def as_number(value: Value) -> int:
    """Take what must be a number."""
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")  # noqa: TRY004 - decoders raise ValueError only
    return value


def as_bytes(value: Value) -> bytes:
    """Take what must be bytes."""
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes belong")  # noqa: TRY004 - decoders raise ValueError only
    return value


def as_string(value: Value) -> str:
    """Take what must be text."""
    return as_bytes(value).decode()


def as_signed(value: Value, bits: int) -> int:
    """Take what must be a signed number of so many bits."""
    number = as_number(value)
    number = number - (1 << 64) if number > INT64_MAX else number
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise ValueError(f"a number beyond int{bits}")
    return number


def decode_pair(data: bytes) -> tuple[str, str]:
    """Decode a message of two strings."""
    first = second = ""
    for number, value in fields(data):
        if number == 1:
            first = as_string(value)
        elif number == 2:
            second = as_string(value)
    return first, second


def decode_timestamp(data: bytes) -> int:
    """Decode a `google.protobuf.Timestamp` into nanoseconds."""
    seconds = nanos = 0
    for number, value in fields(data):
        if number == 1:
            seconds = as_signed(value, 64)
        elif number == 2:
            nanos = as_signed(value, 32)
    if not 0 <= nanos < _NANOS:
        raise ValueError("a timestamp out of range")
    return seconds * _NANOS + nanos
