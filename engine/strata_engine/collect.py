"""Collection: how much the store holds, and what may go.

It knows when rows and files were last used and what refers to what; who pins what is its callers' knowledge. Removing
is never wrong, only slow: a blob that a build still wanted is a `BlobLost` there and is made again. What makes that
rare is that nothing used lately goes, and that results go before the blobs that they name::

    pinned keys ──> Action, Command, input Directories, result ──> output trees and blobs      stay
    the rest, used longest ago first: results, rows, files         go until age and size fit
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.action_cache import Hit, artifact_of, row_key
from strata_engine.cas import BlobLost, Cas
from strata_engine.codec import decode_action, decode_directory
from strata_engine.digest import Digest, is_sha256
from strata_engine.files import sweep
from strata_engine.index import TOUCH_AFTER
from strata_engine.known import Explained, Pin
from strata_engine.store import LocalStore
from strata_engine.tree import Artifact, File, Tree, blobs

GRACE = 3600.0
"""Seconds for which what was used stays in any case."""

_RESULT, _SMALL, _LARGE = range(3)
"""Kinds of things, in the order in which those of one age go: a result before what it names."""

_LARGEST_DIRECTORY = 1 << 26
"""Bytes of a pinned blob up to which it is looked at as a Directory."""


class Stats(msgspec.Struct, frozen=True):
    """What the store holds; bytes are those of content, not of disk blocks."""

    results: int
    blobs: int
    bytes: int
    small_blobs: int
    """Blobs that are rows."""
    small_bytes: int
    large_blobs: int
    """Blobs that are files."""
    large_bytes: int
    temporary: int
    """Entries in `tmp/`."""
    quarantined: int
    """Blobs that were found damaged, and databases set aside."""


class Collected(msgspec.Struct, frozen=True):
    """What went, or would go."""

    removed: int
    """Results and blobs."""
    results: int
    blobs: int
    freed_bytes: int
    kept_bytes: int
    """The bytes of the blobs that stay."""


class _Thing(NamedTuple):
    """A result, row or file that could go; the order of these is the order in which they do."""

    used: float
    kind: int
    hash: str
    size: int


def stats(store: LocalStore) -> Stats:
    """Count what the store holds. Raises HostError."""
    if not store.index.read_only:
        store.cas.flush()
    things = list(_things(store.cas))
    small = [thing.size for thing in things if thing.kind == _SMALL]
    large = [thing.size for thing in things if thing.kind == _LARGE]
    aside = len(_names(store.folder / "quarantine")) + len(_set_aside(store))
    return Stats(
        len(things) - len(small) - len(large), len(small) + len(large), sum(small) + sum(large),
        len(small), sum(small), len(large), sum(large), len(_names(store.folder / "tmp")), aside,
    )  # fmt: skip


def collect(
    store: LocalStore,
    *,
    max_bytes: int | None = None,
    max_age: float | None = None,
    pins: Iterable[Pin] = (),
    dry_run: bool = False,
) -> Collected:
    """Remove what was not used for `max_age` seconds, then what was used longest ago until `max_bytes` fit.

    What `pins` need stays, and so does what was used within the last hour, unless `max_age` is 0. Raises HostError.
    """
    store.cas.flush()
    pinned = _pinned(store, pins)
    now = time.time()
    grace = 0.0 if max_age == 0 else GRACE + TOUCH_AFTER
    things = sorted(_things(store.cas))
    total = left = sum(thing.size for thing in things if thing.kind != _RESULT)
    going: list[_Thing] = []
    for thing in things:
        # A time in the future is a clock that was set back: such a thing is as old as it is far off.
        age = abs(now - thing.used)
        if (thing.kind, thing.hash) in pinned or age < grace:
            continue
        if (max_age is not None and age >= max_age) or (max_bytes is not None and left > max_bytes):
            going.append(thing)
            left -= thing.size if thing.kind != _RESULT else 0
    if not dry_run:
        going = _remove(store.cas, going)
        hollow = _hollow(store, {thing.hash for thing in going if thing.kind != _RESULT})
        store.index.delete(row_key(key) for key in hollow)
        _sweep(store, 0.0 if max_age == 0 else GRACE)
    # Looking at everything was no use of it.
    store.index.forget_uses()
    return _collected(going, total)


def clear(store: LocalStore) -> Collected:
    """Remove everything but what running processes are writing. Raises HostError."""
    store.cas.flush()
    things = list(_things(store.cas))
    store.index.clear()
    for name in _names(store.folder / "cas"):
        shutil.rmtree(store.folder / "cas" / name, ignore_errors=True)
    store.cas.forget()
    _sweep(store, 0.0)
    return _collected(things, sum(thing.size for thing in things if thing.kind != _RESULT))


def _collected(gone: list[_Thing], total: int) -> Collected:
    blobs_ = [thing.size for thing in gone if thing.kind != _RESULT]
    return Collected(len(gone), len(gone) - len(blobs_), len(blobs_), sum(blobs_), total - sum(blobs_))


def _things(cas: Cas) -> Iterator[_Thing]:
    for row in cas.index.rows(b"a"):
        yield _Thing(row.used, _RESULT, row.key[1:].hex(), row.size)
    for row in cas.index.rows(b"b"):
        yield _Thing(row.used, _SMALL, row.key[1:].hex(), row.size)
    for shard in _names(cas.folder / "cas"):
        with contextlib.suppress(OSError), os.scandir(cas.folder / "cas" / shard) as listing:
            for entry in listing:
                # A file may go while the folder is listed.
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if is_sha256(entry.name):
                        yield _Thing(found.st_mtime, _LARGE, entry.name, found.st_size)


def _pinned(store: LocalStore, pins: Iterable[Pin]) -> set[tuple[int, str]]:
    """Find everything that the pins need, as (kind, hash); what is lost already is passed over."""
    keep: set[tuple[int, str]] = set()

    def add(digests: Iterable[Digest]) -> None:
        with contextlib.suppress(BlobLost):
            for digest in digests:
                keep.update(((_SMALL, digest.hash), (_LARGE, digest.hash)))

    for pin in pins:
        match pin:
            case File() | Tree():
                add(_content(store.cas, pin))
            case Explained(key):
                add(_explanation(store.cas, key))
            case Digest():
                keep.add((_RESULT, pin.hash))
                result = store.cache.get(pin)
                if result is not None:
                    add(_content(store.cas, artifact_of(result)))
                add(_explanation(store.cas, pin))
    return keep


def _content(cas: Cas, artifact: Artifact) -> Iterable[Digest]:
    return blobs(cas, artifact) if isinstance(artifact, Tree) else (artifact.digest,)


def _explanation(cas: Cas, pin: Digest) -> Iterator[Digest]:
    """List the blobs that say what an action key is made of; or, of another digest, those of the tree that it names."""
    yield pin
    if pin.size > _LARGEST_DIRECTORY:
        return
    data = cas.get(pin)
    try:
        action = decode_action(data)
    except ValueError:
        with contextlib.suppress(ValueError):
            decode_directory(data)
            yield from blobs(cas, Tree(pin))
        return
    yield action.command_digest
    seen = {action.input_root_digest}
    waiting = [action.input_root_digest]
    while waiting:
        root = waiting.pop()
        yield root
        with contextlib.suppress(BlobLost):
            below = {folder.digest for folder in cas.load(root).directories} - seen
            seen |= below
            waiting += below


def _remove(cas: Cas, going: list[_Thing]) -> list[_Thing]:
    """Remove things, but those that were used since they were listed; results first."""
    removed: list[_Thing] = []
    for kind, prefix in ((_RESULT, b"a"), (_SMALL, b"b")):
        rows = [thing for thing in going if thing.kind == kind]
        keys = {prefix + bytes.fromhex(thing.hash): thing for thing in rows}
        if keys:
            cas.index.delete(keys, unused_since=max(thing.used for thing in rows))
            left = cas.index.has_many(keys)
            removed += [thing for key, thing in keys.items() if key not in left]
    for thing in going:
        if thing.kind != _LARGE:
            continue
        path = Path(cas.path(Digest(thing.hash, thing.size)))
        with contextlib.suppress(OSError):
            if path.stat(follow_symlinks=False).st_mtime == thing.used:
                path.unlink()
                removed.append(thing)
    cas.forget()
    return removed


def _hollow(store: LocalStore, gone: set[str]) -> list[Digest]:
    """List the keys whose result names something that is no longer there: a miss is quicker found at once."""
    hollow = []
    for key, found in store.cache.everything() if gone else ():
        try:
            if isinstance(found, Hit) and gone.isdisjoint(
                digest.hash for digest in _content(store.cas, artifact_of(found.result))
            ):
                continue
        except BlobLost:
            pass
        hollow.append(key)
    return hollow


def _sweep(store: LocalStore, older_than: float) -> None:
    for name in ("tmp", "quarantine"):
        sweep(store.folder / name, older_than)
    for name in _set_aside(store):
        with contextlib.suppress(OSError):
            (store.index.folder / name).unlink()


def _set_aside(store: LocalStore) -> list[str]:
    return [name for name in _names(store.index.folder) if name.startswith("corrupt-")]


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
