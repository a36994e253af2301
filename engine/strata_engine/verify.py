"""Verification: every byte of the store is read, and what is not what its name says is set aside.

It asks the disk and nothing else: not who needs what, nor how old it is. A damaged blob goes to `quarantine/`, a
damaged result is forgotten; the next build that wants one makes or fetches it again, as it does with whatever is
missing. Reading all is no use of it: what is collected first stays what was not used for long.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import msgspec

from strata_engine.action_cache import Corrupt, Hit, artifact_of
from strata_engine.blobs import SMALL
from strata_engine.cas import BlobLost
from strata_engine.codec import Directory, decode_directory
from strata_engine.digest import EMPTY, Digest, digest_stream, is_sha256
from strata_engine.store import LocalStore
from strata_engine.tree import Artifact, File, blobs

_ROWS = 500
"""Rows that are read at a time: at most two megabytes."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""What somebody put in a blob's place is not followed, nor waited for."""

T = TypeVar("T")


class Verified(msgspec.Struct, frozen=True):
    """What reading the store came to."""

    results: int
    blobs: int
    bytes: int
    """Of the blobs that were read."""
    damaged_results: int
    """Forgotten now."""
    damaged_blobs: int
    """In `quarantine/` now."""
    damaged_bytes: int
    incomplete_results: int
    """Results that name a blob which is not there: it is fetched, or made again, when it is wanted."""

    @property
    def clean(self) -> bool:
        """Whether nothing was damaged; something that is missing is not."""
        return not self.damaged_blobs and not self.damaged_results


def verify(store: LocalStore) -> Verified:
    """Read the whole store. Raises HostError."""
    store.cas.flush()
    checked = [*_rows(store), *_files(store)]
    damaged = [read.blob.size for read in checked if not read.right]
    content = _Content(store, {EMPTY, *(read.blob for read in checked if read.right)})
    store.index.forget_uses()
    results = wrong = incomplete = 0
    for key, found in list(store.cache.everything()):
        results += 1
        if isinstance(found, Corrupt):
            wrong += 1
            store.cache.delete(key)
        elif isinstance(found, Hit) and not content.has(artifact_of(found.result)):
            incomplete += 1
    store.index.forget_uses()
    total = sum(read.blob.size for read in checked)
    return Verified(results, len(checked), total, wrong, len(damaged), sum(damaged), incomplete)


class _Read(NamedTuple):
    """A blob that was read: what its name and its length say, and whether that is what it is."""

    blob: Digest
    right: bool


class _Content:
    """What was found to be right, to be looked through (`tree.Reader`) without taking note of a use."""

    def __init__(self, store: LocalStore, right: set[Digest]) -> None:
        self._store = store
        self._right = right
        self._loaded: dict[Digest, Directory] = {}

    def has(self, artifact: Artifact) -> bool:
        """Tell whether all of it is there."""
        if isinstance(artifact, File):
            return artifact.digest in self._right
        try:
            return all(digest in self._right for digest in blobs(self, artifact))
        except BlobLost:
            return False

    def load(self, digest: Digest) -> Directory:
        """Read one Directory. Raises BlobLost."""
        if digest not in self._loaded:
            try:
                self._loaded[digest] = decode_directory(self.get(digest))
            except ValueError:  # a result names a blob that is no Directory
                raise BlobLost(digest) from None
        return self._loaded[digest]

    def get(self, digest: Digest) -> bytes:
        """Read a blob. Raises BlobLost."""
        if digest not in self._right:
            raise BlobLost(digest)
        if digest.size <= SMALL:
            return self._store.cas.get(digest)
        with _opened(self._store.cas.path(digest)) as stream:
            return stream.readall()


def _rows(store: LocalStore) -> Iterator[_Read]:
    """Check the blobs that are rows."""
    for keys in _chunks(store.index.keys(b"b"), _ROWS):
        for key, data in store.index.get_many(keys).items():
            named = Digest(key[1:].hex(), len(data))
            right = Digest.of(data) == named
            if not right:
                # A row is where small blobs are, whatever this one's size has become.
                store.cas.lose(named._replace(size=min(named.size, SMALL)), "is damaged", data)
            yield _Read(named, right)


def _files(store: LocalStore) -> Iterator[_Read]:
    """Check the blobs that are files, as many at once as there are processors."""

    def check(hash_: str) -> _Read | None:
        try:
            with _opened(store.cas.path(Digest(hash_, SMALL + 1))) as stream:
                found = digest_stream(stream)
        except FileNotFoundError:  # it went since it was listed
            return None
        except OSError as error:
            store.cas.lose(Digest(hash_, SMALL + 1), f"cannot be read: {error.strerror}")
            return _Read(Digest(hash_, 0), right=False)
        named = Digest(hash_, found.size)
        if found != named:
            # A file is where large blobs are, whatever this one's size has become.
            store.cas.lose(named._replace(size=max(named.size, SMALL + 1)), "is damaged")
        return _Read(named, found == named)

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="verify") as pool:
        yield from filter(None, pool.map(check, _names(store)))


def _opened(path: str) -> io.FileIO:
    return io.FileIO(path, opener=lambda name, _: os.open(name, _READ))


def _names(store: LocalStore) -> list[str]:
    root = store.folder / "cas"
    return sorted(
        path.name
        for shard in root.iterdir()
        for path in shard.iterdir()
        if is_sha256(path.name) and path.name[:2] == shard.name
    )


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
