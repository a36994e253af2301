"""Locks of action keys among processes: who holds a key's lock makes its result, the others wait and take it.

It knows keys and one file, not what is made. The lock of a key is one byte of that file, at an offset that is the
key: taking and releasing cost a system call each, and nothing is left to be removed. They are locks of the open file
(OFD) where the system has them, else of the process, which is the same while a process builds once at a time.

Who is alone need not ask whether someone else has made what it is about to make. A build that comes makes the file
longer, and holds a shared lock for as long as it is there; both are done in an order that lets nobody slip through.

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
_PRESENCE = 1 << 4 * _DIGITS
"""The offset that is locked by who is here; keys are below it."""
_TAKEN = {errno.EAGAIN, errno.EACCES}


class KeyLocks:
    """The locks that one build holds, in one file. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._size = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if sys.platform == "linux":
                self._come()
        except OSError:
            # A store that cannot be written says so where something is put into it; without locks all goes on.
            return

    def _come(self) -> None:
        size = os.fstat(self._descriptor).st_size
        self._lock(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, _PRESENCE)
        found = self._lock(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, _PRESENCE)
        os.write(self._descriptor, b"\0")
        if found == fcntl.F_UNLCK:
            self._size = size + 1

    def alone(self) -> bool:
        """Tell whether no other build has been here since this one came."""
        return self._size >= 0 and os.fstat(self._descriptor).st_size == self._size

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
                self._lock(fcntl.F_OFD_SETLK, kind, start)
            else:
                wish = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.lockf(self._descriptor, wish, 1, start)
        except OSError as error:
            return error.errno not in _TAKEN
        return True

    def _lock(self, command: int, kind: int, start: int) -> int:
        answer = fcntl.fcntl(self._descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))
        return int(_FLOCK.unpack(answer)[0])
