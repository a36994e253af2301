"""Blobs compressed for the wire. What comes is hostile: it is given out in small pieces, and errors are ValueError."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, BinaryIO, cast

import zstandard

from strata_engine.digest import CHUNK

LEVEL = 1
"""Wheels are compressed already, and what is not is code: more effort would cost more than it saves on the wire."""
LARGEST_WINDOW = 32 << 20
"""Bytes of memory that a stream may ask for."""


def compressed(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Compress `size` bytes of a stream. Raises ValueError where it has fewer."""
    squeeze = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=size)
    left = size
    while left:
        chunk = stream.read(min(CHUNK, left))
        if not chunk:
            raise ValueError(f"{left} bytes too few")
        left -= len(chunk)
        if some := squeeze.compress(chunk):
            yield some
    if some := squeeze.flush():
        yield some


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress what comes in pieces. Raises ValueError where it is not zstd, or ends within a frame."""
    source = cast("IO[bytes]", _Reading(iter(chunks)))  # all that is asked of it is `read`
    reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).stream_reader(source, read_across_frames=True)
    try:
        while chunk := reader.read(CHUNK):
            yield chunk
    except zstandard.ZstdError:
        raise ValueError("not compressed with zstd") from None


def packed(data: bytes) -> bytes:
    """Compress a small blob."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(data)


def unpacked(data: bytes, size: int) -> bytes:
    """Decompress a small blob. Raises ValueError where it is not zstd, or has more than `size` bytes."""
    out = bytearray()
    for chunk in decompressed([data]):
        out += chunk
        if len(out) > size:
            raise ValueError("more than was said")
    return bytes(out)


class _Reading:
    """Pieces as something to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        size = len(self._rest) if size < 0 else size
        some, self._rest = self._rest[:size], self._rest[size:]
        return some
