"""What a Mach-O file says it is called, needs, and where it looks: its load commands, one answer per architecture.

It knows nothing of layers and runs nothing. Wheels are hostile until checked: every length that a file claims is
compared with a bound before anything is read, and what does not hold together is no Mach-O file. Written here and
not taken from `macholib`, the library for it: that reads whole symbol tables, only from files on a disk, stops at
load commands that it does not know, raises whatever it meets, and bounds nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAGIC = b"\xcf\xfa\xed\xfe"
"""Of 64-bit little-endian files: all that macOS has run since 10.15."""

FAT_MAGIC, FAT_MAGIC_64 = b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"
MAGICS = (MAGIC, FAT_MAGIC, FAT_MAGIC_64)

MAX_SLICES = 16
"""Architectures in one file. Java's class files begin as fat files do, and would have at least 45."""

MAX_COMMANDS = 1 << 20
"""Bytes of the load commands of one architecture; large real ones are some 20 KiB."""

_MACHINES = {0x01000007: "CPU_TYPE_X86_64", 0x0100000C: "CPU_TYPE_ARM64"}
_KINDS = frozenset({2, 6, 8})
"""MH_EXECUTE, MH_DYLIB, MH_BUNDLE: what can be run or loaded."""

_REQ_DYLD = 0x80000000
_ID_DYLIB = 0xD
_LOAD = frozenset({0xC, 0x1F | _REQ_DYLD, 0x23 | _REQ_DYLD})
"""LC_LOAD_DYLIB, LC_REEXPORT_DYLIB, LC_LOAD_UPWARD_DYLIB: without them the file does not load."""
_LOAD_WEAK = frozenset({0x18 | _REQ_DYLD, 0x20})
"""LC_LOAD_WEAK_DYLIB, LC_LAZY_LOAD_DYLIB: may be missing."""
_RPATH = 0x1C | _REQ_DYLD

_HEADER = struct.Struct("<4sIIIIIII")
_COMMAND = struct.Struct("<II")
_FAT_HEADER = struct.Struct(">4sI")
_FAT_ARCH, _FAT_ARCH_64 = struct.Struct(">IIIII"), struct.Struct(">IIQQII")


class MachO(NamedTuple):
    """The load commands of one architecture that are about libraries."""

    machine: str
    """Such as `CPU_TYPE_ARM64`."""
    install_name: str | None
    """By which others need it; only libraries have one."""
    needed: tuple[str, ...]
    weak: tuple[str, ...]
    """What it takes where it is there, and does without."""
    rpath: tuple[str, ...]


class _DamagedError(Exception):
    """The file does not hold together."""


def read(stream: BinaryIO) -> tuple[MachO, ...] | None:
    """Read each architecture that is for 64-bit Intel or Arm; None where there is none, and for damaged files."""
    try:
        found = tuple(slice_ for offset in _slices(stream) if (slice_ := _slice(stream, offset)) is not None)
    except (_DamagedError, struct.error, UnicodeDecodeError, OverflowError, ValueError):
        return None
    return found or None


def _slices(stream: BinaryIO) -> Iterator[int]:
    """Say where the architectures of a file begin."""
    stream.seek(0)
    magic = stream.read(4)
    if magic == MAGIC:
        yield 0
        return
    if magic not in MAGICS:
        return
    count = _FAT_HEADER.unpack(magic + _exactly(stream, 4))[1]
    if count > MAX_SLICES:
        raise _DamagedError
    arch = _FAT_ARCH if magic == FAT_MAGIC else _FAT_ARCH_64
    table = _exactly(stream, count * arch.size)
    for fields in arch.iter_unpack(table):
        yield fields[2]


def _slice(stream: BinaryIO, offset: int) -> MachO | None:
    stream.seek(offset)
    magic, machine, _, kind, count, size, _, _ = _HEADER.unpack(_exactly(stream, _HEADER.size))
    if magic != MAGIC or machine not in _MACHINES or kind not in _KINDS:
        return None
    if size > MAX_COMMANDS:
        raise _DamagedError
    install_name: str | None = None
    needed: dict[str, None] = {}
    weak: dict[str, None] = {}
    rpath: dict[str, None] = {}
    for command, data in _commands(_exactly(stream, size), count):
        if command == _ID_DYLIB:
            install_name = _text(data) or None
        elif command in _LOAD:
            needed[_text(data)] = None
        elif command in _LOAD_WEAK:
            weak[_text(data)] = None
        elif command == _RPATH:
            rpath[_text(data)] = None
    # Libraries that a file needs twice, once weakly, are needed.
    optional = tuple(name for name in weak if name and name not in needed)
    return MachO(_MACHINES[machine], install_name, tuple(filter(None, needed)), optional, tuple(filter(None, rpath)))


def _commands(data: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Give each load command with all its bytes; each is at least as long as its header, so there is an end."""
    at = 0
    for _ in range(count):
        command, size = _COMMAND.unpack_from(data, at)
        if size < _COMMAND.size or at + size > len(data):
            raise _DamagedError
        yield command, data[at : at + size]
        at += size


def _text(command: bytes) -> str:
    """Read the string of a load command, whose place in the command stands behind the command's header."""
    start = struct.unpack_from("<I", command, _COMMAND.size)[0]
    if not _COMMAND.size + 4 <= start < len(command):
        raise _DamagedError
    return command[start:].split(b"\0", 1)[0].decode("utf-8")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _DamagedError
    return data
