"""Digests: what names content, and what notices that a file changed.

SHA-256 plus size names content everywhere it can be seen from outside: in the CAS, in keys, on the wire, in locks
(REAPI `Digest`). This module is the only door to hashlib, as `seal` is to xxhash.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 20
"""Bytes read at a time when a file is hashed."""


class Digest(NamedTuple):
    """The name of some bytes: lower-case SHA-256 in hexadecimal, and their number."""

    hash: str
    size: int

    def __str__(self) -> str:
        return f"{self.hash}/{self.size}"

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Name `data`."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read the `HASH/SIZE` form.

        Raises ValueError where the text is anything else, so that no hostile text becomes a path.
        """
        hash_, _, size = text.partition("/")
        if not is_sha256(hash_) or not (size.isascii() and size.isdigit()):
            raise ValueError(f"not a digest: {text!r}")
        return cls(hash_, int(size))


EMPTY = Digest.of(b"")


def is_sha256(text: str) -> bool:
    """Tell whether `text` is a lower-case hexadecimal SHA-256."""
    return len(text) == 64 and not text.strip("0123456789abcdef")


def content_mtime(digest: Digest) -> int:
    """Give the modification time that a file with this content has outside the store (design §4).

    It comes from the content and no clock, so that two versions of a module of one size have two times, and bytecode
    made from one is never taken for the other's. It lies between 2001 and 2018, and is even, for zip keeps even
    seconds only.
    """
    return 1_000_000_000 + 2 * (int(digest.hash[:7], 16))


class DigestWriter:
    """A digest in the making: feed it, then ask."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        """Name what was fed so far."""
        return Digest(self._hash.hexdigest(), self.size)


def digest_stream(stream: BinaryIO) -> Digest:
    """Name what is left in `stream`, read once in chunks."""
    writer = DigestWriter()
    while chunk := stream.read(CHUNK):
        writer.update(chunk)
    return writer.digest()


def digest_file(path: str | os.PathLike[str]) -> Digest:
    """Name the content of a file. Raises OSError."""
    with open(path, "rb", buffering=0) as stream:
        return digest_stream(stream)


class Stamp(NamedTuple):
    """What tells cheaply that a path is as it was: compared for equality, never ordered (design §6)."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


ABSENT = Stamp(0, -1, 0, 0)
"""The stamp of a path that was looked for and is not there; `snapshot` knows it by its size."""

GRANULARITY_NS = 20_000_000
"""How close to "now" a change time may be and still hide a second change: four ticks of a slow kernel clock."""

COARSE_GRANULARITY_NS = 2_000_000_000
"""The same for file systems that keep whole seconds (or, as FAT does, even ones)."""


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """Stamp a path, following symlinks; `ABSENT` where there is none. Raises OSError for anything but absence."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # ValueError: text that no file system can have as a name, with a NUL in it.
        return ABSENT
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return ABSENT
        raise
    return stamp_of(found)


def stamp_of(found: os.stat_result) -> Stamp:
    """Stamp what has been looked at already."""
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def racy(value: Stamp, now_ns: int) -> bool:
    """Tell whether a path stamped at `now_ns` could change again without its stamp showing it (git's rule).

    The ctime alone decides: nobody can set it, while an mtime may be whole seconds, or lie in the future, on purpose.
    """
    if value == ABSENT:
        return False
    granularity = GRANULARITY_NS if value.ctime_ns % 1_000_000_000 else COARSE_GRANULARITY_NS
    # A ctime ahead of the clock by little is a server's clock; by much, a clock set back, and a change will show.
    return abs(now_ns - value.ctime_ns) < granularity
