"""Blobs by SHA-256 on this machine: small ones as rows of the index, others as read-only files.

It knows bytes and digests, not what they mean. Nothing is trusted for lying in the right place: what is read has been
hashed by this process, unless the file still has the stamp with which it was. What does not hold is put into
quarantine and is a `BlobLost`, which callers heal by fetching or making it again.

Hard part: small blobs wait in memory until a group of them is written, and every reader must see them all the same::

    put ──> _waiting ──flush──> _leaving ──committed──> index        large: tmp/… ──rename──> cas/ab/abcd…

A result must never be committed before its blobs: `flush` takes rows of others along in the transaction of the group,
and one flush at a time is under way.
"""

# Paths are strings here: making a Path costs more than most of the calls it would be made for.
# ruff: noqa: PTH103, PTH104, PTH105, PTH108, PTH116, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from strata_engine.digest import CHUNK, EMPTY, Digest, DigestWriter, Stamp, stamp_of
from strata_engine.errors import Diagnostic, HostError
from strata_engine.files import copy_new, sweep, sync_folder, write_all, write_new
from strata_engine.index import TOUCH_AFTER, Index, ignore, store_error

SMALL = 4096
"""Blobs of up to this many bytes are rows."""

_GROUP_BYTES = 1 << 20
_GROUP_ROWS = 1000
_WHOLE = 1 << 24
"""Files of up to this many bytes are verified in memory; larger ones are read twice rather than held."""
_STALE = 86_400.0
"""Seconds after which a dead process's file in `tmp/` is removed."""
_UNREADABLE = {errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ESTALE}
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT = {errno.ENOENT, errno.ENOTDIR}


class BlobLost(HostError):  # noqa: N818 - named for what happened, and it is not always an error
    """A blob is not in the store, or what was there in its place is not it."""

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        super().__init__(
            Diagnostic("blob-lost", f"the store no longer has `{digest}`", hint="build again: it is made anew")
        )


class Blobs:
    """Content by digest. Methods may be called from any thread; processes share the folder."""

    def __init__(
        self, folder: Path, index: Index, on_warning: Callable[[Diagnostic], None] = ignore, *, durable: bool = False
    ) -> None:
        self.folder = folder
        self.index = index
        self._warn = on_warning
        self._durable = durable
        self._root = f"{folder}/cas/"
        self._tmp = f"{folder}/tmp/"  # noqa: S108 - the store's own
        self._token = os.urandom(4).hex()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        self._leaving: Mapping[bytes, bytes] = {}
        self._present: set[Digest] = {EMPTY}
        """What this process has seen in the store."""
        self._verified: dict[Digest, Stamp] = {}
        self._in_doubt = False
        """Whether damage was found: then nothing is taken for whole because it lies in its place."""
        self._can_clone = True
        if not index.read_only:
            self._prepare()

    def get(self, digest: Digest) -> bytes:
        """Read a blob into memory. Raises BlobLost."""
        if digest.size <= SMALL:
            return self._rows((digest,))[digest]
        with self._opened(digest) as stream:
            return self._read(digest, stream)

    def get_small(self, digests: Iterable[Digest]) -> dict[Digest, bytes]:
        """Read blobs of at most `SMALL` bytes, in few queries. Raises BlobLost for the first that is not there."""
        return self._rows(set(digests))

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, seekable. Raises BlobLost."""
        if digest.size <= SMALL:
            return io.BytesIO(self.get(digest))
        stream = self._opened(digest)
        try:
            self._verify(digest, stream)
            stream.seek(0)
        except BaseException:
            stream.close()
            raise
        return stream

    def put(self, data: bytes) -> Digest:
        """Write a blob. Raises HostError."""
        digest = Digest.of(data)
        self.put_named(digest, data)
        return digest

    def put_named(self, digest: Digest, data: bytes) -> None:
        """Write a blob whose digest is known. Raises HostError."""
        if digest.size > SMALL:
            with self.writer() as writer:
                writer.place(digest, data)
            return
        with self._lock:
            if digest in self._present and not self._in_doubt:
                return
            self._waiting[row_key(digest)] = data
            self._waiting_bytes += len(data)
            self._present.add(digest)
            full = self._waiting_bytes > _GROUP_BYTES or len(self._waiting) >= _GROUP_ROWS
        if full:
            self.flush()

    def put_file(self, path: Path) -> Digest:
        """Write the content of a file, which stays where it is. Raises HostError, OSError."""
        with open(path, "rb", buffering=0) as stream:
            # Most files are small: one read that comes back short is all there is.
            head = stream.read(CHUNK)
            if len(head) < CHUNK and not (rest := stream.read(CHUNK)):
                return self.put(head)
            with self.writer() as writer:
                writer.write(head)
                chunk = rest if len(head) < CHUNK else stream.read(CHUNK)
                while chunk:
                    writer.write(chunk)
                    chunk = stream.read(CHUNK)
                return writer.commit()

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """Write a blob piece by piece; what is not committed is removed."""
        writer = Writer(self)
        try:
            yield writer
        finally:
            writer.discard()

    def export(self, digest: Digest, path: Path, *, executable: bool = False) -> None:
        """Make a new file at `path` with this content: reflink, else copy. Raises BlobLost, OSError.

        Its mode is 0644 or 0755 whatever the umask; nothing that is at `path` is written to or followed.
        """
        mode = 0o755 if executable else 0o644
        if digest.size <= SMALL:
            write_new(path, self.get(digest), mode)
            return
        with self._opened(digest) as source:
            known = self._can_clone and digest in self._verified
            data = self._read(digest, source) if digest.size <= _WHOLE and not known else None
            if data is None:
                self._verify(digest, source)
            self._can_clone &= copy_new(source, path, mode, clone=self._can_clone, data=data)

    def has(self, digest: Digest) -> bool:
        """Tell whether a blob is there, without reading it."""
        return not self.missing((digest,))

    def missing(self, digests: Iterable[Digest]) -> set[Digest]:
        """Tell which blobs are not there, without reading them."""
        unknown = set(digests) - self._present
        small = {row_key(digest): digest for digest in unknown if digest.size <= SMALL}
        found = self.index.has_many(small) if small else set()
        lost = {digest for key, digest in small.items() if key not in found}
        lost |= {digest for digest in unknown if digest.size > SMALL and not self._is_file(digest)}
        self._present |= unknown - lost
        return lost

    def flush(self, also: Mapping[bytes, bytes] | None = None) -> None:
        """Write the small blobs that wait in memory, and rows of others, as one transaction. Raises HostError.

        Where nothing can be written, blobs that no result refers to stay in memory: they serve this process alone.
        """
        if self.index.read_only and not also:
            return
        with self._flushing:
            with self._lock:
                group, self._leaving = self._waiting, self._waiting
                self._waiting, self._waiting_bytes = {}, 0
            try:
                if group or also:
                    self.index.put_many({**group, **(also or {})})
            except BaseException:
                with self._lock:
                    self._waiting = {**group, **self._waiting}
                    self._waiting_bytes = sum(map(len, self._waiting.values()))
                raise
            finally:
                self._leaving = {}

    def forget(self) -> None:
        """Drop what was learnt of the store's content: something was removed from it."""
        with self._lock:
            self._present = {EMPTY}
            self._verified.clear()

    def lose(self, digest: Digest, message: str, found: bytes | None = None) -> BlobLost:
        """Put what lies in the place of a blob into quarantine, say so, and give the error to raise."""
        with self._lock:
            self._in_doubt = True
            self._present.discard(digest)
            self._verified.pop(digest, None)
        with contextlib.suppress(OSError, HostError):
            aside = f"{self.folder}/quarantine/{digest.hash}-{time.time_ns():x}"
            if digest.size > SMALL:
                os.replace(self.path(digest), aside)
            else:
                self.index.delete((row_key(digest),))
                write_new(Path(aside), found or b"", 0o444)
        self._warn(
            Diagnostic(
                "corrupt-blob",
                f"`{digest}` in the store `{self.folder}` {message}",
                notes=("it was put into `quarantine` and is made or fetched again",),
                severity="warning",
            )
        )
        return BlobLost(digest)

    def path(self, digest: Digest) -> str:
        """Give the file of a large blob."""
        return f"{self._root}{digest.hash[:2]}/{digest.hash}"

    def temporary(self) -> str:
        """Give a new name in `tmp/`; the sweep reads the process from it."""
        return f"{self._tmp}{os.getpid()}-{self._token}-{next(self._numbers):x}"

    def adopt(self, temporary: str, descriptor: int, digest: Digest) -> None:
        """Make a finished file in `tmp/` the blob. Raises OSError."""
        os.fchmod(descriptor, 0o444)
        if self._durable:
            os.fsync(descriptor)
        path = self.path(digest)
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.rename(temporary, path)
        if self._durable:
            sync_folder(os.path.dirname(path))
        self._present.add(digest)

    def keeps(self, digest: Digest) -> bool:
        """Tell whether a large blob need not be written again."""
        return self.is_whole(digest) if self._in_doubt else digest in self._present or self._is_file(digest)

    def is_whole(self, digest: Digest) -> bool:
        """Tell whether a blob is there, having read it to its last byte."""
        try:
            self.open(digest).close()
        except BlobLost:
            return False
        return True

    def _rows(self, digests: Iterable[Digest]) -> dict[Digest, bytes]:
        found: dict[Digest, bytes] = {EMPTY: b""}
        wanted: dict[bytes, Digest] = {}
        for digest in digests:
            key = row_key(digest)
            with self._lock:
                data = self._waiting.get(key) or self._leaving.get(key)
            if data is not None and len(data) == digest.size:
                found[digest] = data
            else:
                wanted[key] = digest
        wanted.pop(row_key(EMPTY), None)
        rows = self.index.get_many(wanted) if wanted else {}
        for key, digest in wanted.items():
            row = rows.get(key)
            if row is None:
                self._present.discard(digest)
                raise BlobLost(digest)
            if Digest.of(row) != digest:
                raise self._not(digest, Digest.of(row), row)
            self._present.add(digest)
            found[digest] = row
        return found

    def _opened(self, digest: Digest) -> io.FileIO:
        try:
            # What somebody put in a blob's place is not followed, nor waited for.
            return io.FileIO(self.path(digest), opener=lambda path, _: os.open(path, _READ))
        except OSError as error:
            self._present.discard(digest)
            if error.errno in _ABSENT:
                raise BlobLost(digest) from error
            if error.errno in _UNREADABLE:
                raise self.lose(digest, f"cannot be read: {error.strerror}") from error
            raise store_error(error, self.folder) from error

    def _read(self, digest: Digest, stream: io.FileIO) -> bytes:
        try:
            data = stream.read()
        except OSError as error:
            raise self.lose(digest, f"cannot be read: {error.strerror}") from error
        self._verify(digest, stream, data)
        return data

    def _verify(self, digest: Digest, stream: io.FileIO, data: bytes | None = None) -> None:
        """Hash a file unless it has the stamp with which it was hashed; `data` is its content where that was read."""
        try:
            stamp = self._touched(digest, stream.fileno(), os.fstat(stream.fileno()))
            # A writer that came after the stamp was taken would have changed it, so data read before is data hashed.
            if self._verified.get(digest) == stamp and (data is None or len(data) == digest.size):
                return
            found = DigestWriter()
            if data is not None:
                found.update(data)
            else:
                stream.seek(0)
                while chunk := stream.read(CHUNK):
                    found.update(chunk)
        except OSError as error:
            raise self.lose(digest, f"cannot be read: {error.strerror}") from error
        if found.digest() != digest:
            raise self._not(digest, found.digest())
        self._verified[digest] = stamp
        self._present.add(digest)

    def _not(self, digest: Digest, found: Digest, data: bytes | None = None) -> BlobLost:
        # A wrong size in the digest that was asked for says nothing against the blob.
        return BlobLost(digest) if found.hash == digest.hash else self.lose(digest, "is damaged", data)

    def _is_file(self, digest: Digest) -> bool:
        """Tell whether a large blob's file is there, and keep its time of last use."""
        path = self.path(digest)
        try:
            found = os.stat(path, follow_symlinks=False)
        except OSError:
            return False
        if found.st_size != digest.size or not stat.S_ISREG(found.st_mode):
            return False
        self._touched(digest, path, found)
        return True

    def _touched(self, digest: Digest, target: str | int, found: os.stat_result) -> Stamp:
        """Give a file's stamp, having set its time of last use, which is its mtime, where that lies far back."""
        stamp = stamp_of(found)
        if found.st_mtime >= time.time() - TOUCH_AFTER:
            return stamp
        with contextlib.suppress(OSError):
            os.utime(target)
            fresh = stamp_of(os.stat(target))
            if self._verified.get(digest) == stamp:
                self._verified[digest] = fresh
            return fresh
        return stamp

    def _prepare(self) -> None:
        try:
            for name in ("cas", "tmp", "quarantine"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            sweep(self.folder / "tmp", older_than=_STALE)
        except OSError as error:
            raise store_error(error, self.folder) from error


class Writer:
    """A blob in the making (`tree.BlobWriter`): in memory while it is small, then in `tmp/`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._digest = DigestWriter()
        self._head = bytearray()
        self._path = ""
        self._descriptor = -1

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes. Raises HostError."""
        self._digest.update(data)
        if self._descriptor < 0 and len(self._head) + len(data) <= SMALL:
            self._head += data
            return len(data)
        try:
            if self._descriptor < 0:
                self._begin()
                write_all(self._descriptor, self._head)
            write_all(self._descriptor, data)
        except OSError as error:
            raise store_error(error, self._blobs.folder) from error
        return len(data)

    def commit(self, expected_sha256: str | None = None) -> Digest:
        """Put the blob into the store and name it. Raises ValueError, storing nothing, where the hash is another."""
        digest = self._digest.digest()
        if expected_sha256 is not None and digest.hash != expected_sha256:
            raise ValueError(f"the SHA-256 is {digest.hash}, not {expected_sha256}")
        if self._descriptor < 0:
            self._blobs.put_named(digest, bytes(self._head))
        elif not self._blobs.keeps(digest):
            self._adopt(digest)
        return digest

    def place(self, digest: Digest, data: bytes) -> None:
        """Write a whole blob whose digest is known, unless it is there. Raises HostError."""
        if self._blobs.keeps(digest):
            return
        try:
            self._begin()
            write_all(self._descriptor, data)
        except OSError as error:
            raise store_error(error, self._blobs.folder) from error
        self._adopt(digest)

    def discard(self) -> None:
        """Remove what was not committed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _begin(self) -> None:
        self._path = self._blobs.temporary()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)

    def _adopt(self, digest: Digest) -> None:
        try:
            self._blobs.adopt(self._path, self._descriptor, digest)
        except OSError as error:
            raise store_error(error, self._blobs.folder) from error
        self._path = ""


def row_key(digest: Digest) -> bytes:
    """Give the key of a small blob's row."""
    return b"b" + bytes.fromhex(digest.hash)
