"""Codecs: independently compressed chunks, and how they are put together to one ordinary compressed file.

The only door to zstandard, lzma and zlib. It knows nothing of archives, layers or the store.

Every chunk is compressed alone, so that chunks can be made on any number of cores, or taken from elsewhere, with the
same bytes. The whole is still what any reader understands: one xz stream of many blocks (as `xz -T` writes), one
gzip member of byte-aligned deflate runs (as pigz writes), and a row of zstd frames (as pzstd writes).
"""

from __future__ import annotations

import _lzma
import bz2
import ctypes
import functools
import gzip
import lzma
import platform
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import BinaryIO, NamedTuple, Protocol, cast

import zstandard


class Packed(NamedTuple):
    """One chunk, compressed."""

    data: bytes
    size: int
    """Of the chunk before compression."""
    crc: int = 0
    """CRC-32 of the chunk before compression, where the format wants it."""


class Joiner(Protocol):
    """Puts chunks together, in order."""

    def add(self, packed: Packed) -> bytes:
        """Give what the file gets for the next chunk."""

    def end(self) -> bytes:
        """Give what closes the file."""


class Codec(NamedTuple):
    """One compression format."""

    tool: str
    """The library, as the platform property `tool:NAME` calls it."""
    version: Callable[[], str]
    level: int
    """What is used when no level is asked for."""
    levels: range
    chunk: int
    """How many bytes a chunk should have: enough that a fresh start costs little size, and few enough that a change
    costs little time."""
    pack: Callable[[Iterable[bytes], int], Packed]
    """Compress one chunk, given piece by piece; how it is cut into pieces makes no difference."""
    joiner: Callable[[], Joiner]


# --- deflate, gzip ---------------------------------------------------------------------------------------------------


def deflate(data: bytes, level: int, *, last: bool = False) -> bytes:
    """Compress to a run of raw deflate blocks that refers to nothing before it; `last` closes the stream."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)


DEFLATE_END = b"\x03\x00"
"""An empty final block: closes a stream whose runs were all made with `last=False`."""


def crc32(data: bytes) -> int:
    """Give the CRC-32 of zip and gzip."""
    return zlib.crc32(data)


def crc32_join(first: int, second: int, second_size: int) -> int:
    """Give the CRC-32 of two runs of bytes from those of each.

    The first is shifted past the second by multiplying it with x^(8·size) modulo the CRC's polynomial, whose bits are
    reflected: bit 31 is x^0.
    """
    power, square, exponent = 1 << 31, 1 << 30, second_size * 8
    while exponent:
        if exponent & 1:
            power = _multiply(power, square)
        square = _multiply(square, square)
        exponent >>= 1
    return _multiply(first, power) ^ second


def _multiply(a: int, b: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ (0xEDB88320 if b & 1 else 0)
    return product


def _pack_gzip(parts: Iterable[bytes], level: int) -> Packed:
    data = b"".join(parts)
    return Packed(deflate(data, level), len(data), zlib.crc32(data))


def _zlib_version() -> str:
    return zlib.ZLIB_RUNTIME_VERSION


class _GzipJoiner:
    """One gzip member; no name, no time, unknown system."""

    def __init__(self) -> None:
        self._head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
        self._crc = 0
        self._size = 0

    def add(self, packed: Packed) -> bytes:
        head, self._head = self._head, b""
        self._crc = crc32_join(self._crc, packed.crc, packed.size)
        self._size += packed.size
        return head + packed.data

    def end(self) -> bytes:
        return self._head + DEFLATE_END + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)


# --- xz --------------------------------------------------------------------------------------------------------------

_XZ_MAGIC = b"\xfd7zXZ\x00"
_XZ_FLAGS = bytes([0, lzma.CHECK_CRC64])
_XZ_HEADER = _XZ_MAGIC + _XZ_FLAGS + struct.pack("<I", zlib.crc32(_XZ_FLAGS))
_XZ_FRAME = 12
"""Bytes of a stream's header, and of its footer."""


def _pack_xz(parts: Iterable[bytes], level: int) -> Packed:
    # Fed piece by piece, because a chunk takes seconds and the giver of the pieces may want to stop.
    compressor = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC64, level)
    out, size = [], 0
    for part in parts:
        out.append(compressor.compress(part))
        size += len(part)
    return Packed(b"".join([*out, compressor.flush()]), size)


class _XzJoiner:
    """One xz stream whose blocks are those of the chunks, each of which is a stream of one block."""

    def __init__(self) -> None:
        self._head = _XZ_HEADER
        self._records: list[bytes] = []

    def add(self, packed: Packed) -> bytes:
        head, self._head = self._head, b""
        if not packed.size:
            return head  # a stream of nothing has no block
        stream = packed.data
        index_size = (int.from_bytes(stream[-8:-4], "little") + 1) * 4
        index = stream[-_XZ_FRAME - index_size : -_XZ_FRAME]
        # Index: a zero byte, the number of blocks, then two varints for each: unpadded size, uncompressed size.
        assert index[:2] == b"\x00\x01", "a chunk is one block"
        end = 2
        for _ in range(2):
            while index[end] & 0x80:
                end += 1
            end += 1
        self._records.append(index[2:end])
        return head + stream[_XZ_FRAME : -_XZ_FRAME - index_size]

    def end(self) -> bytes:
        index = b"\x00" + _varint(len(self._records)) + b"".join(self._records)
        index += bytes(-len(index) % 4)
        index += struct.pack("<I", zlib.crc32(index))
        tail = struct.pack("<I", len(index) // 4 - 1) + _XZ_FLAGS
        return self._head + index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@functools.cache
def _xz_version() -> str:
    """Ask the liblzma in use; where it hides inside the interpreter, name the interpreter, which decides it."""
    try:
        # A symbol is found in the libraries that an extension module is linked to, too.
        version = ctypes.CDLL(getattr(_lzma, "__file__", None)).lzma_version_string
    except (OSError, AttributeError):
        return f"in {platform.python_implementation()} {platform.python_version()} {platform.python_build()[1]}"
    version.restype = ctypes.c_char_p
    return str(version().decode("ascii", "replace"))


# --- zstd ------------------------------------------------------------------------------------------------------------


def _pack_zstd(parts: Iterable[bytes], level: int) -> Packed:
    data = b"".join(parts)
    # One worker thread, not none: the two give different bytes, and one worker gives those of any number.
    compressor = zstandard.ZstdCompressor(level=level, threads=1, write_checksum=True)
    return Packed(compressor.compress(data), len(data))


def _zstd_version() -> str:
    return ".".join(map(str, zstandard.ZSTD_VERSION))


class _Frames:
    """Frames one after the other."""

    def add(self, packed: Packed) -> bytes:
        return packed.data

    def end(self) -> bytes:
        return b""


MIB = 1 << 20

CODECS = {
    "xz": Codec("lzma", _xz_version, 6, range(10), 12 * MIB, _pack_xz, _XzJoiner),
    "gz": Codec("zlib", _zlib_version, 6, range(1, 10), MIB, _pack_gzip, _GzipJoiner),
    "zst": Codec("zstd", _zstd_version, 9, range(1, 23), 4 * MIB, _pack_zstd, _Frames),
}
"""By the last part of the file name's extension."""


# --- reading ---------------------------------------------------------------------------------------------------------

DAMAGED = (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError)
"""What reading a compressed stream raises where it is not what it says; gzip and bzip2 also raise a bare OSError."""

_WIDEST_WINDOW = 1 << 27
"""Bytes of memory that a zstd stream may ask for: what `zstd --ultra --long` uses."""


def decompressed(stream: BinaryIO) -> BinaryIO:
    """Read a compressed stream piece by piece; its first bytes say how. One that is not compressed is given back."""
    head = stream.read(6)
    stream.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb"))
    if head.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(stream))
    if head.startswith(_XZ_MAGIC):
        return cast(BinaryIO, lzma.LZMAFile(stream))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        reader = zstandard.ZstdDecompressor(max_window_size=_WIDEST_WINDOW)
        return cast(BinaryIO, reader.stream_reader(stream, read_across_frames=True))
    return stream
