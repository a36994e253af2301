"""Placing: put a tree or a file of the store at a path, whole or not at all.

It knows the store and the file system, not why something is wanted there: whether what is at the path may be replaced
is the caller's question. What is placed depends on the artifact alone, never on umask or clock: modes are 0644, 0755
and 0755 for folders, times are `content_mtime`.

Hard part: whoever looks at the path sees the old or the new, and a crash leaves one of them. So it is built beside its
place and exchanged in one call where the kernel can; else the old is renamed aside first, and back if that was all
that worked::

    path.parent/.strata-tmp-PID-…   the new, then (exchanged) the old, which is removed
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from strata_engine.blobs import SMALL, Blobs
from strata_engine.digest import EMPTY, Digest, content_mtime, digest_file
from strata_engine.errors import host_error
from strata_engine.files import remove_tree, sweep, write_new
from strata_engine.tree import Artifact, File, Store, Tree

# Paths are strings here: making a Path costs more than most of the calls it would be made for.
# ruff: noqa: PTH101, PTH102, PTH104, PTH116, PTH211

_BATCH = 64
"""Files that one worker thread takes at a time."""
_PREFIX = ".strata-tmp-"
_STALE = 3600.0
"""Seconds after which what a killed process left beside a place is removed."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


T = TypeVar("T")
Reusable: TypeAlias = "dict[str, str]"
"""Where files of the old place are, by their path in it."""


class Placed(NamedTuple):
    """What was placed."""

    files: int
    bytes: int


class _Plan(NamedTuple):
    """What a tree comes to on disk; paths start with `/`, but for the root's, and are put after the root's path."""

    folders: list[str]
    """Parents before children."""
    files: list[tuple[str, File]]
    links: list[tuple[str, str]]


def place(
    store: Store, artifact: Artifact, path: Path, *, old: Artifact | None = None, jobs: int | None = None
) -> Placed:
    """Put `artifact` at `path` in place of whatever is there. Raises BlobLost, HostError.

    A symlink at `path` is replaced, not followed. `old` is what was placed there before: files that both have are taken
    over by link where they still have their content, which saves writing them; nothing of the old place is kept after.
    """
    temporary = path.parent / f"{_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
    try:
        sweep(path.parent, _STALE, prefix=_PREFIX)
        if isinstance(artifact, File):
            _place_files(store, [("", artifact)], str(temporary), {})
            placed = Placed(1, artifact.digest.size)
        else:
            placed = _place_tree(store, artifact, temporary, _reusable(old, path), jobs or os.cpu_count() or 1)
        _swap(temporary, path)
    except OSError as error:
        raise host_error(error, str(path)) from error
    finally:
        # After a swap this is the old; after an exception it is the unfinished new.
        _remove(temporary)
    return placed


def _place_tree(store: Store, tree: Tree, root: Path, reusable: Reusable, jobs: int) -> Placed:
    plan = _plan(store, tree)
    base = str(root)
    for folder in plan.folders:
        os.mkdir(base + folder)
        os.chmod(base + folder, 0o755)  # noqa: S103 - what a folder of an output is, whatever the umask
    for name, target in plan.links:
        os.symlink(target, base + name)
        _set_time(base + name, Digest.of(target.encode()))
    batches = [plan.files[start : start + _BATCH] for start in range(0, len(plan.files), _BATCH)]
    _in_threads(lambda batch: _place_files(store, batch, base, reusable), batches, jobs)
    # What is put into a folder changes its time, so folders come last; they have the time that archives give them.
    for folder in reversed(plan.folders):
        _set_time(base + folder, EMPTY)
    return Placed(len(plan.files), sum(file.digest.size for _, file in plan.files))


def _plan(store: Store, tree: Tree) -> _Plan:
    plan = _Plan([], [], [])
    waiting = [("", tree.root)]
    while waiting:
        base, digest = waiting.pop()
        plan.folders.append(base)
        directory = store.load(digest)
        plan.files.extend((f"{base}/{name}", File(blob, executable)) for name, blob, executable in directory.files)
        plan.links.extend((f"{base}/{name}", target) for name, target in directory.symlinks)
        waiting += [(f"{base}/{name}", below) for name, below in directory.directories]
    return plan


def _place_files(store: Store, files: Sequence[tuple[str, File]], base: str, reusable: Reusable) -> None:
    """Make files, the small ones' content read in one query."""
    left = [(name, file) for name, file in files if not _reused(base + name, file, reusable.get(name))]
    small = {file.digest for _, file in left if file.digest.size <= SMALL}
    read = store.get_small(small) if isinstance(store, Blobs) else {digest: store.get(digest) for digest in small}
    for name, (digest, executable) in left:
        if digest in read:
            write_new(base + name, read[digest], 0o755 if executable else 0o644)
        else:
            store.export(digest, Path(base + name), executable=executable)
        _set_time(base + name, digest)


def _in_threads(work: Callable[[T], None], items: Sequence[T], jobs: int) -> None:
    if jobs < 2 or len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(jobs, len(items))) as pool:
        running = [pool.submit(work, item) for item in items]
        try:
            for done in running:
                done.result()
        except BaseException:
            # Nothing may still be writing when the caller removes what was begun.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _reusable(old: Artifact | None, path: Path) -> Reusable:
    """List the files of the old place, by their path in it. Nothing that a symlink leads to is ours to take over."""
    found: Reusable = {}
    if not isinstance(old, Tree) or path.is_symlink() or not path.is_dir():
        return found
    for folder, _, names in os.walk(path, followlinks=False):
        base = folder[len(str(path)) :]
        found.update({f"{base}/{name}": f"{folder}/{name}" for name in names})
    return found


def _reused(path: str, file: File, candidate: str | None) -> bool:
    """Link a file over from the old place if it is what is wanted, which hashing it tells: times can be forged."""
    if candidate is None:
        return False
    try:
        found = os.stat(candidate, follow_symlinks=False)
        mode = stat.S_IFREG | (0o755 if file.executable else 0o644)
        if found.st_mode != mode or found.st_nlink != 1 or found.st_size != file.digest.size:
            return False
        if found.st_uid != os.geteuid() or digest_file(candidate) != file.digest:
            return False
        os.link(candidate, path, follow_symlinks=False)
    except OSError:
        return False
    _set_time(path, file.digest)
    return True


def _set_time(path: str, digest: Digest) -> None:
    moment = content_mtime(digest)
    os.utime(path, (moment, moment), follow_symlinks=False)


def _swap(new: Path, path: Path) -> None:
    """Give `new` the name `path`; what had that name is then called `new`."""
    if not os.path.lexists(path):
        os.rename(new, path)
        return
    if _exchanged(new, path):
        return
    aside = new.with_name(new.name + "-old")
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(aside, path)
        raise
    os.rename(aside, new)


def _exchanged(new: Path, path: Path) -> bool:
    """Exchange two names in one call, where this kernel, C library and file system know how to."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE) == 0)


def _remove(path: Path) -> None:
    """Remove what is at a path as far as that is possible; a user may have taken write permission from folders."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
        return
    remove_tree(path)
