"""Locks of action keys among processes: who holds a key's lock makes its result, the others wait and take it.

It knows keys and one file, not what is made. The lock of a key is one byte of that file, at an offset that is the
key: taking and releasing cost a system call each, and nothing is left to be removed. They are locks of the open file
(OFD) where the system has them, else of the process, which is the same while a process builds once at a time.

Losing a lock means that work is done twice, never that it is done wrong; so a file system without locks is no error.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from strata_engine.digest import Digest

_FLOCK = struct.Struct("@hhqqi4x")
"""Linux's `struct flock`: type, whence, start, length, process."""
_DIGITS = 15
"""Hexadecimal digits of a key that are its offset: what fits a file's offset."""
_TAKEN = {errno.EAGAIN, errno.EACCES}


class KeyLocks:
    """The locks that one build holds, in one file. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            # A store that cannot be written says so where something is put into it.
            return

    def take(self, key: Digest) -> bool:
        """Take the lock of a key; False where another build has it."""
        return self._set(fcntl.F_WRLCK, key)

    def release(self, keys: Iterable[Digest]) -> None:
        """Let go of keys."""
        for key in keys:
            self._set(fcntl.F_UNLCK, key)

    def close(self) -> None:
        """Let go of everything."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _set(self, kind: int, key: Digest) -> bool:
        if self._descriptor < 0:
            return True
        start = int(key.hash[:_DIGITS], 16)
        try:
            if sys.platform == "linux":
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))
            else:
                wish = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.lockf(self._descriptor, wish, 1, start)
        except OSError as error:
            return error.errno not in _TAKEN
        return True
