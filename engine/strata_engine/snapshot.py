"""The null build: a sealed snapshot of the last good build, and the check that nothing it saw has changed.

This module imports the standard library and xxhash only, and of these what Python has loaded anyway (design §6). A
snapshot answers one request, named by everything that was asked (arguments, current folder, environment, versions),
with the text that the build printed, for as long as every stamp still holds. Anything in doubt is no answer, and the
full build decides.

File form: `seal (16) | 4 lengths (<4Q) | request | answer | paths, NUL-separated | stamps (<4q each)`.
"""

from __future__ import annotations

import os
import struct

from strata_engine.seal import seal

TYPE_CHECKING = False
if TYPE_CHECKING:  # these three cost as much to import as a null build takes
    from collections.abc import Mapping
    from pathlib import Path

    from strata_engine.digest import Stamp

_LENGTHS = struct.Struct("<4Q")
_STAMP = struct.Struct("<4q")

KEPT = 16
"""Snapshots kept per workspace: one per way of asking."""


def pack(request: bytes, answer: bytes, stamps: Mapping[str, Stamp]) -> bytes:
    """Give the bytes of a snapshot."""
    paths = "\0".join(stamps).encode("utf-8", "surrogateescape")
    packed = b"".join(_STAMP.pack(*value) for value in stamps.values())
    body = _LENGTHS.pack(len(request), len(answer), len(paths), len(packed)) + request + answer + paths + packed
    return seal(body) + body


def answer(data: bytes, request: bytes) -> bytes | None:
    """Give the answer if the snapshot is whole, is for this request, and every stamp holds."""
    body = memoryview(data)[16:]
    if len(body) < _LENGTHS.size or seal(bytes(body)) != data[:16]:
        return None
    parts = []
    at = _LENGTHS.size
    for length in _LENGTHS.unpack_from(body):
        parts.append(body[at : at + length])
        at += length
    if at != len(body) or parts[0] != request:
        return None
    paths = bytes(parts[2]).decode("utf-8", "surrogateescape").split("\0") if parts[2] else []
    if len(parts[3]) != len(paths) * _STAMP.size:
        return None
    stat = os.stat
    for path, expected in zip(paths, _STAMP.iter_unpack(parts[3]), strict=True):
        try:
            found = stat(path)
        except (FileNotFoundError, NotADirectoryError):
            # The size of `ABSENT`, which nothing that is there has.
            if expected[1] != -1:
                return None
            continue
        except (OSError, ValueError):
            # What cannot be looked at is neither there nor absent.
            return None
        if (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) != expected:
            return None
    return bytes(parts[1])


def is_damaged(data: bytes) -> bool:
    """Tell whether what should be a snapshot is something else."""
    return seal(data[16:]) != data[:16]


def prune(folder: Path) -> None:
    """Keep the newest snapshots only. Raises OSError."""
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in files[KEPT:]:
        path.unlink(missing_ok=True)
