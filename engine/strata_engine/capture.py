"""Capture: put a folder of this machine into the store as a tree.

It knows file systems and the `Store` protocol, not where blobs are kept. Hard part: a file that is being written while
it is read. The store names what it has read, so a digest is never wrong; but half of an old file and half of a new one
is not what anybody wrote, so each file's stamp must be the same before and after, else it is read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from strata_engine.errors import Diagnostic, HostError
from strata_engine.tree import EMPTY_TREE, File, Node, Store, Symlink, Tree, directory_of

_ATTEMPTS = 3
_BATCH = 64
"""Files that one worker thread takes at a time: a future per file costs more than hashing a small one."""


class _Found(NamedTuple):
    """What a listing found: symlinks and folders in place, files still to be read."""

    folders: dict[str, dict[str, Node]]
    """By the folder's path relative to the captured one; a folder's own folders are filled in last."""
    files: list[str]


def capture(store: Store, folder: Path, accept: Callable[[str, bool], bool] | None = None) -> Tree:
    """Put a folder into the store: files with their executable bit, symlinks as written. Raises HostError.

    `accept` is asked for each entry, by its path relative to `folder` and whether it is a folder; what is in a folder
    that it does not take is never looked at.
    """
    found = _Found({}, [])
    _list(folder, "", accept, found)
    batches = [found.files[start : start + _BATCH] for start in range(0, len(found.files), _BATCH)]

    def read(batch: list[str]) -> list[File]:
        return [_read(store, folder / path) for path in batch]

    for batch, files in zip(batches, _in_threads(read, batches), strict=True):
        for path, file in zip(batch, files, strict=True):
            parent, _, name = path.rpartition("/")
            found.folders[parent][name] = file
    tree = EMPTY_TREE
    # Listed parents first, so that backwards every folder is known before the one that holds it.
    for path in reversed(found.folders):
        tree = Tree(store.save(directory_of(found.folders[path])))
        if path:
            parent, _, name = path.rpartition("/")
            found.folders[parent][name] = tree
    return tree


def capture_file(store: Store, path: Path) -> File:
    """Put one file into the store, following symlinks. Raises HostError."""
    return _read(store, path, os.stat)


def _in_threads(read: Callable[[list[str]], list[File]], batches: list[list[str]]) -> Iterator[list[File]]:
    if len(batches) < 2:
        yield from map(read, batches)
        return
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(read, batches)


def _list(folder: Path, base: str, accept: Callable[[str, bool], bool] | None, found: _Found) -> None:
    members: dict[str, Node] = {}
    found.folders[base] = members
    try:
        with os.scandir(folder / base) as listing:
            items = sorted(listing, key=lambda item: item.name)
        for item in items:
            _check_name(item.name, folder / base)
            path = f"{base}/{item.name}" if base else item.name
            is_folder = item.is_dir(follow_symlinks=False)
            if accept is not None and not accept(path, is_folder):
                continue
            if is_folder:
                _list(folder, path, accept, found)
            elif item.is_symlink():
                target = os.readlink(item.path)  # noqa: PTH115 - a Path would rewrite `./x` and `x//y`
                _check_name(target, folder / base)
                members[item.name] = Symlink(target)
            elif item.is_file(follow_symlinks=False):
                found.files.append(path)
            else:
                raise _special(item.path)
    except OSError as error:
        raise _unreadable(folder / base, error) from error


def _read(store: Store, path: Path, look: Callable[[Path], os.stat_result] = os.lstat) -> File:
    try:
        before = look(path)
        for _ in range(_ATTEMPTS):
            if not stat.S_ISREG(before.st_mode):
                raise _special(path)
            digest = store.put_file(path)
            after = look(path)
            if _stamp(before) == _stamp(after) and after.st_size == digest.size:
                return File(digest, bool(after.st_mode & 0o100))
            before = after
    except OSError as error:
        raise _unreadable(path, error) from error
    raise HostError(
        Diagnostic(
            "file-changes-while-read",
            f"`{path}` is being written while it is read",
            hint="wait until the program that writes it is done",
        )
    )


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def _check_name(name: str, folder: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode(errors="backslashreplace").decode()
        raise HostError(
            Diagnostic(
                "name-not-utf8",
                f"`{shown}` in `{folder}` is not UTF-8",
                hint="rename it: trees hold names that every platform can write",
            )
        ) from None


def _special(path: str | Path) -> HostError:
    return HostError(
        Diagnostic(
            "special-file",
            f"`{path}` is a socket, a pipe or a device; expected a file, a folder or a symlink",
            hint="move it out of the folder",
        )
    )


def _unreadable(path: Path, error: OSError) -> HostError:
    return HostError(Diagnostic("unreadable", f"cannot read `{error.filename or path}`: {error.strerror or error}"))
