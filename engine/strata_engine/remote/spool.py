"""Which results wait to be sent to a remote, on disk: what this build does not send, the next one does.

An entry is a file named by its key, with nothing but the zone in it: what is to be sent lies in the store, and is read
from there when it is sent. So the spool is small, and whatever is lost of it costs others a miss.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.digest import Digest
from strata_engine.seal import seal
from strata_engine.workspace import write_atomically

FOLDER = "spool"
"""In the store."""

KEPT = 20_000
"""Entries; the oldest are dropped beyond it."""
KEPT_BYTES = 8 << 30
"""Bytes of the outputs that may wait; the oldest are dropped beyond it."""

_SEAL = 16


class About(msgspec.Struct, frozen=True, array_like=True):
    """What is told of a result beside itself, to whoever looks for another one."""

    mnemonic: str
    label: str
    folders: tuple[str, ...] = ()
    """Those of its input root that explain it (`explaining.folders_of`)."""
    revision: str = ""
    """The commit that it was made of."""
    is_question: bool = False
    """Whether this alone goes: git keeps the result."""


class Entry(NamedTuple):
    """A result that waits."""

    key: Digest
    zone: str
    size: int = 0
    """Bytes of its output, as far as is known."""
    made: bool = True
    """Whether it was made by the build that offered it, and not found in the store: a remote may have that already."""
    about: About | None = None


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    zone: str
    size: int
    made: bool
    about: About | None = None


class Spool:
    """What waits for one remote; processes share it, and what one has sent the others find sent."""

    def __init__(self, store: Path, shown: str) -> None:
        self.folder = store / FOLDER / Digest.of(shown.encode()).hash[:32]

    def add(self, entry: Entry) -> None:
        """Note that a result waits. A store that cannot be written keeps nothing, and that is no error."""
        body = msgspec.msgpack.encode(_Kept(entry.zone, entry.size, entry.made, entry.about))
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(entry.key), self._sealed(entry.key, body) + body)

    def remove(self, key: Digest) -> None:
        """Forget an entry."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def entries(self) -> list[Entry]:
        """List what waits, the oldest first, dropping what is too much."""
        entries: list[Entry] = []
        room = KEPT_BYTES
        for _, name in sorted(self._files(), reverse=True):
            entry = self._read(name)
            if entry is not None and len(entries) < KEPT and room >= entry.size:
                room -= entry.size
                entries.append(entry)
            else:
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()
        return entries[::-1]

    def _files(self) -> Iterator[tuple[int, str]]:
        """List what lies there by its age; what others send meanwhile goes while it is listed."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as found:
            for each in found:
                with contextlib.suppress(OSError):
                    there = each.stat(follow_symlinks=False)
                    if stat.S_ISREG(there.st_mode) and not each.name.startswith("."):
                        yield there.st_mtime_ns, each.name

    def _read(self, name: str) -> Entry | None:
        try:
            digest, size = name.split("-")
            key = Digest.parse(f"{digest}/{size}")
            with (self.folder / name).open("rb") as stream:
                data = stream.read(4096)
            body = data[_SEAL:]
            if data[:_SEAL] != self._sealed(key, body):
                return None
            kept = msgspec.msgpack.decode(body, type=_Kept)
        except (OSError, ValueError, msgspec.MsgspecError):
            return None
        return Entry(key, kept.zone, kept.size, kept.made, kept.about)

    def _path(self, key: Digest) -> Path:
        return self.folder / f"{key.hash}-{key.size}"

    def _sealed(self, key: Digest, body: bytes) -> bytes:
        return seal(str(key).encode() + body)
