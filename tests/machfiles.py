"""Mach-O files written byte by byte, for tests on machines that have no compiler for macOS."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64, ARM64 = 0x01000007, 0x0100000C
EXECUTE, DYLIB, BUNDLE = 2, 6, 8
ID, LOAD, WEAK, REEXPORT, RPATH = 0xD, 0xC, 0x80000018, 0x8000001F, 0x8000001C


def command(kind: int, text: str) -> bytes:
    """Write a load command that names a library, or a search path."""
    fixed = b"" if kind == RPATH else struct.pack("<III", 2, 0x10000, 0x10000)
    start = 12 + len(fixed)
    name = text.encode() + b"\0"
    size = -(-(start + len(name)) // 8) * 8
    return struct.pack("<III", kind, size, start) + fixed + name.ljust(size - start, b"\0")


def thin(*commands: bytes, machine: int = ARM64, kind: int = DYLIB) -> bytes:
    """Write a file of one architecture; segments and a UUID stand around, as in real ones."""
    segment = struct.pack("<II16s", 0x19, 72, b"__TEXT").ljust(72, b"\0")
    uuid = struct.pack("<II", 0x1B, 24) + bytes(16)
    everything = (segment, *commands, uuid)
    size = sum(map(len, everything))
    header = struct.pack("<IIIIIIII", 0xFEEDFACF, machine, 0, kind, len(everything), size, 0x85, 0)
    return header + b"".join(everything) + b"\xc3" * 64


def library(
    name: str = "",
    *needed: str,
    weak: Sequence[str] = (),
    rpath: Sequence[str] = (),
    machine: int = ARM64,
) -> bytes:
    """Write a library with an install name, or without one an extension module."""
    identity = [command(ID, name)] if name else []
    loads = [command(LOAD, text) for text in needed] + [command(WEAK, text) for text in weak]
    kind = DYLIB if name else BUNDLE
    return thin(*identity, *loads, *(command(RPATH, text) for text in rpath), machine=machine, kind=kind)


def fat(*slices: tuple[int, bytes], wide: bool = False) -> bytes:
    """Write a file of several architectures: (machine, file)."""
    entry = struct.Struct(">IIQQII" if wide else ">IIIII")
    at = 8 + entry.size * len(slices)
    table, body = b"", b""
    for machine, data in slices:
        place = at + len(body)
        table += entry.pack(machine, 0, place, len(data), 4, *((0,) if wide else ()))
        body += data
    return struct.pack(">II", 0xCAFEBABF if wide else 0xCAFEBABE, len(slices)) + table + body
