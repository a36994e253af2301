"""Members as a zip file: each deflated alone, so that any core may make any part of it.

It knows nothing of layers. The records are written here because `zipfile` takes no content that is compressed already.
Names are UTF-8; symlinks are what Info-ZIP unpacks as such; sizes beyond 4 GiB use zip64.
"""

from __future__ import annotations

import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from strata_engine.tree import File, Store, Symlink
from strata_rules.archive import members
from strata_rules.archive.members import Member, Piece
from strata_rules.compress import DEFLATE_END, crc32, crc32_join, deflate

TOOL = "zlib"
LEVELS = range(1, 10)
LEVEL = 6
CHUNK = 1 << 20

_STORED, _DEFLATED = 0, 8
_UTF8 = 1 << 11
_LATE = 1 << 3
"""The flag for sizes and checksum that come after the content."""
_UNIX = 3
_DOS_FOLDER = 0x10
_LIMIT = 0xFFFFFFFF
_VERSION, _VERSION_64 = 20, 45


class Part(NamedTuple):
    """A slice of one member, deflated; a member is one part or several."""

    member: Member
    first: bool
    last: bool
    data: bytes
    size: int
    crc: int


class Slice(NamedTuple):
    """A slice of one member, still to be deflated."""

    member: Member
    first: bool
    last: bool
    piece: Piece


def batches(listed: Iterable[Member]) -> Iterator[list[Slice]]:
    """Cut members into work for one core each."""
    batch: list[Slice] = []
    size = 0
    for entry in listed:
        blob = entry.node.digest if isinstance(entry.node, File) else None
        starts = range(0, max(entry.size, 1), CHUNK)
        for start in starts:
            piece = Piece(b"", blob, start, min(CHUNK, entry.size - start))
            batch.append(Slice(entry, start == 0, start == starts[-1], piece))
            size += piece.length + 1024
            if size >= CHUNK:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def pack(store: Store, batch: Iterable[Slice], level: int, check: Callable[[], None]) -> list[Part]:
    """Deflate one batch."""
    parts = []
    for entry, first, last, piece in batch:
        if isinstance(entry.node, Symlink):
            data = entry.node.target.encode("utf-8", "surrogateescape")
        else:
            data = b"".join(members.read(store, [piece], check))
        packed = deflate(data, level, last=first and last) if data else b""
        if first and last and len(packed) >= len(data):
            packed = data
        parts.append(Part(entry, first, last, packed, len(data), crc32(data)))
    return parts


class Joiner:
    """Writes the records round the parts, which come in order.

    A member in several parts gets its sizes and checksum after its content, so that none of it is held in memory.
    """

    def __init__(self) -> None:
        self._central: list[bytes] = []
        self._place = 0
        """Where in the file the next byte goes."""
        self._start = 0
        """Where the record of the member in hand begins."""
        self._packed = self._size = self._crc = 0

    def add(self, part: Part) -> bytes:
        """Give what the file gets for the next part."""
        out = []
        if part.first:
            self._start = self._place
            self._packed = self._size = self._crc = 0
            if not part.last:
                out.append(_local(part.member, _Body(_DEFLATED, 0, 0, 0), late=True))
        self._packed += len(part.data)
        self._crc = crc32_join(self._crc, part.crc, part.size) if self._size else part.crc
        self._size += part.size
        if part.first and part.last:
            method = _STORED if len(part.data) == part.size else _DEFLATED
            body = _Body(method, len(part.data), part.size, part.crc)
            out.append(_local(part.member, body, late=False))
            out.append(part.data)
            self._central.append(_central(part.member, body, self._start, late=False))
        else:
            out.append(part.data)
            if part.last:
                body = _Body(_DEFLATED, self._packed + len(DEFLATE_END), self._size, self._crc)
                sizes = struct.pack("<QQ" if _wide(part.member) else "<LL", body.packed, body.size)
                out += [DEFLATE_END, b"PK\x07\x08", struct.pack("<L", body.crc), sizes]
                self._central.append(_central(part.member, body, self._start, late=True))
        data = b"".join(out)
        self._place += len(data)
        return data

    def end(self) -> bytes:
        """Give the central directory."""
        directory = b"".join(self._central)
        count, size, place = len(self._central), len(directory), self._place
        tail = b""
        if count >= 0xFFFF or place + size >= _LIMIT:
            tail = struct.pack(
                "<4sQHHLLQQQQ", b"PK\x06\x06", 44, _VERSION_64, _VERSION_64, 0, 0, count, count, size, place
            ) + struct.pack("<4sLQL", b"PK\x06\x07", 0, place + size, 1)
            count, size, place = min(count, 0xFFFF), min(size, _LIMIT), min(place, _LIMIT)
        return directory + tail + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, count, count, size, place, 0)


class _Body(NamedTuple):
    """A member's content as it stands in the file."""

    method: int
    packed: int
    size: int
    crc: int


def _wide(entry: Member) -> bool:
    """Tell whether a member's sizes may need 64 bits, before they are known: deflate may add a little."""
    return entry.size >= _LIMIT - (_LIMIT >> 8)


def _common(entry: Member, body: _Body, sizes: tuple[int, int], *, wide: bool, late: bool) -> bytes:
    flags = (0 if entry.path.isascii() else _UTF8) | (_LATE if late else 0)
    version = _VERSION_64 if wide else _VERSION
    return struct.pack("<HHHLLLL", version, flags, body.method, _dos(entry.mtime), body.crc, *sizes)


def _name(entry: Member) -> bytes:
    folder = not isinstance(entry.node, File | Symlink)
    return entry.path.encode("utf-8", "surrogateescape") + (b"/" if folder else b"")


def _local(entry: Member, body: _Body, *, late: bool) -> bytes:
    name, wide = _name(entry), _wide(entry)
    extra = struct.pack("<HHQQ", 1, 16, body.size, body.packed) if wide else b""
    common = _common(entry, body, (_LIMIT, _LIMIT) if wide else (body.packed, body.size), wide=wide, late=late)
    return b"PK\x03\x04" + common + struct.pack("<HH", len(name), len(extra)) + name + extra


def _central(entry: Member, body: _Body, offset: int, *, late: bool) -> bytes:
    name, wide, far = _name(entry), _wide(entry), offset >= _LIMIT
    wanted = [*([body.size, body.packed] if wide else []), *([offset] if far else [])]
    extra = struct.pack(f"<HH{len(wanted)}Q", 1, 8 * len(wanted), *wanted) if wanted else b""
    sizes = (_LIMIT, _LIMIT) if wide else (body.packed, body.size)
    common = _common(entry, body, sizes, wide=wide or far, late=late)
    match entry.node:
        case Symlink():
            attributes = (stat.S_IFLNK | entry.mode) << 16
        case File():
            attributes = (stat.S_IFREG | entry.mode) << 16
        case _:
            attributes = (stat.S_IFDIR | entry.mode) << 16 | _DOS_FOLDER
    made_by = struct.pack("<4sBB", b"PK\x01\x02", _VERSION_64 if wide or far else _VERSION, _UNIX)
    numbers = struct.pack("<HHHHHLL", len(name), len(extra), 0, 0, 0, attributes, min(offset, _LIMIT))
    return made_by + common + numbers + name + extra


def _dos(mtime: int) -> int:
    """Give date and time as zip has them: local time without a zone, for which UTC stands here."""
    when = time.gmtime(mtime)
    date = max(when.tm_year - 1980, 0) << 9 | when.tm_mon << 5 | when.tm_mday
    return date << 16 | when.tm_hour << 11 | when.tm_min << 5 | when.tm_sec // 2
