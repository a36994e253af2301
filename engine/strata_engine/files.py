"""Files: how bytes get to disk whole, with the mode they should have, following no link.

It knows no digests. Everything raises OSError, and what was begun and failed is removed again.
"""

# Paths are strings here: making a Path costs more than most of the calls it would be made for.
# ruff: noqa: PTH101, PTH108, PTH114

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from strata_engine.digest import CHUNK

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409
"""Linux's ioctl that lets two files share their blocks until one is written."""
_NO_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EBADF}


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, however little the system takes at a time."""
    written = os.write(descriptor, data)
    while written < len(data):
        data = memoryview(data)[written:]
        written = os.write(descriptor, data)


def write_new(path: str | Path, data: bytes, mode: int) -> None:
    """Make a new file with this content and mode, whatever the umask."""
    descriptor = os.open(path, _NEW, mode)
    try:
        os.fchmod(descriptor, mode)
        write_all(descriptor, data)
    except BaseException:
        _unlink(path)
        raise
    finally:
        os.close(descriptor)


def copy_new(source: BinaryIO, path: str | Path, mode: int, *, clone: bool, data: bytes | None = None) -> bool:
    """Make a new file of an open one: reflink where `clone` asks for it, else copy; say whether it was a reflink.

    `data` is the content of `source` where that is known already.
    """
    descriptor = os.open(path, _NEW, mode)
    try:
        os.fchmod(descriptor, mode)
        if clone and _cloned(descriptor, source.fileno()):
            return True
        if data is not None:
            write_all(descriptor, data)
            return False
        source.seek(0)
        while chunk := source.read(CHUNK):
            write_all(descriptor, chunk)
    except BaseException:
        _unlink(path)
        raise
    finally:
        os.close(descriptor)
    return False


def sync_folder(path: str | Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, older_than: float, *, prefix: str = "") -> tuple[int, int]:
    """Remove what dead processes left in a folder of temporary names; say how many entries and bytes went.

    A name starts with `prefix`, its process's number and `-`; names without the prefix are not looked at. An entry
    goes when it is older than `older_than` seconds and there is no such process; one without a number goes by its age.
    """
    removed = size = 0
    limit = time.time() - older_than
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except FileNotFoundError:
        return 0, 0
    for entry in entries:
        if not entry.name.startswith(prefix):
            continue
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            owner = entry.name.removeprefix(prefix).partition("-")[0]
            if found.st_mtime > limit or (owner.isdecimal() and _is_alive(int(owner))):
                continue
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
            removed += 1
            size += found.st_size
    return removed, size


def remove_tree(path: str | Path) -> None:
    """Remove a folder as far as that is possible, also where the right to write in its folders was taken away."""
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):
            for name in names:
                # Before it is looked into; and what a symlink leads to is none of ours.
                if not os.path.islink(f"{folder}/{name}"):
                    os.chmod(f"{folder}/{name}", 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _cloned(target: int, source: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _unlink(path: str | Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
