"""A remote cache that is a folder which several machines share: `file://`, on NFS for example.

It knows files. The layout is that of Bazel's disk cache, `ac/ab/HASH` and `cas/ab/HASH`, so both can use one folder.

Nothing here needs a lock: what a file may contain follows from its name, a file gets its name by a rename when it is
whole and on the disk, and whoever comes second replaces equal bytes by equal bytes. Others may write whatever they
like: no link is followed to write, no pipe is waited for, and what is read is given on by its digest alone.

What a kernel does with a server that is gone is out of reach: on a hard NFS mount a call waits for it.
"""

# Paths are strings here, as in `files`.
# ruff: noqa: PTH116

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import BinaryIO

from strata_engine.digest import CHUNK, EMPTY, Digest, is_sha256
from strata_engine.files import write_all
from strata_engine.remote.backend import (
    LARGEST_RESULT,
    Brought,
    Capabilities,
    Check,
    Fault,
    Sink,
    Source,
    Trouble,
    within_batch,
)

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_INNER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_GONE = {errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""What file systems answer that cannot sync a folder."""


class FolderCache:
    """One cache (`backend.Backend`). Methods may be called from any thread; machines share the folder."""

    def __init__(self, folder: str, shown: str) -> None:
        self._folder = folder
        self._shown = shown

    @property
    def shown(self) -> str:
        """Where it is, as a person may see it."""
        return self._shown

    @property
    def has_batches(self) -> bool:
        """Each blob is asked for by itself."""
        return False

    @property
    def wants_directories(self) -> bool:
        """Nothing looks into what is put there."""
        return False

    def close(self) -> None:
        """Nothing is held."""

    def capabilities(self, check: Check) -> Capabilities:
        """Look whether the folder is there, and whether we may write: where nothing is mounted, nothing is made."""
        check()
        self._mode()
        return Capabilities(writable=os.access(self._folder, os.W_OK | os.X_OK))

    def get_result(self, address: Digest, check: Check) -> bytes | None:
        """Read a result; a file gets its name when it is whole, and nothing else proves it."""
        check()
        stream = self._opened("ac", address)
        if stream is None:
            return None
        with stream:
            data = self._read(stream, LARGEST_RESULT + 1)
        if len(data) > LARGEST_RESULT:
            raise self._fault(Trouble.BROKEN, f"a result of more than {LARGEST_RESULT} bytes")
        return data

    def put_result(self, address: Digest, data: bytes, check: Check) -> None:
        """Write a result, in the place of an older one."""
        check()
        self._place("ac", address, lambda descriptor: write_all(descriptor, data))

    def missing(self, digests: Iterable[Digest], check: Check) -> set[Digest]:
        """Look at each one's size."""
        missing = set()
        for digest in dict.fromkeys(digests):
            check()
            if digest != EMPTY and not self._is_there(digest):
                missing.add(digest)
        return missing

    def read(self, digest: Digest, sink: Sink, check: Check) -> bool:
        """Commit a blob to `sink`; what turns out to be something else is removed, so that the next one heals it."""
        with sink() as blob:
            if digest == EMPTY:
                return blob.commit(digest.hash) == digest
            stream = self._opened("cas", digest)
            if stream is None:
                return False
            received = 0
            with stream:
                while chunk := self._read(stream, CHUNK):
                    check()
                    received += len(chunk)
                    if received > digest.size:
                        break
                    blob.write(chunk)
            if received == digest.size:
                with contextlib.suppress(ValueError):
                    blob.commit(digest.hash)
                    return True
        self._remove(digest)
        raise self._fault(Trouble.BROKEN, f"other bytes than those of `{digest}`")

    def write(self, digest: Digest, source: Source, check: Check) -> None:
        """Write a blob; `source` is trusted to have its bytes, and no other number of them."""

        def send(descriptor: int) -> None:
            left = digest.size
            with source() as stream:
                while left and (chunk := stream.read(min(CHUNK, left))):
                    check()
                    write_all(descriptor, chunk)
                    left -= len(chunk)
            if left:
                raise ValueError(f"a source that is shorter than {digest}")

        check()
        if digest != EMPTY:
            self._place("cas", digest, send)

    def read_many(self, digests: Iterable[Digest], check: Check) -> Brought:
        """Read small blobs."""
        blobs: dict[Digest, bytes] = {}
        wrong = set()
        for digest in within_batch(digests):
            check()
            stream = self._opened("cas", digest) if digest != EMPTY else None
            if stream is None:
                blobs |= {EMPTY: b""} if digest == EMPTY else {}
                continue
            with stream:
                data = self._read(stream, digest.size + 1)
            if Digest.of(data) == digest:
                blobs[digest] = data
            else:
                self._remove(digest)
                wrong.add(digest)
        return Brought(blobs, frozenset(wrong))

    def write_many(self, blobs: Mapping[Digest, bytes], check: Check) -> None:
        """Write small blobs."""
        for digest in within_batch(blobs):
            check()
            if digest != EMPTY:
                self._place("cas", digest, partial(write_all, data=blobs[digest]))

    def _path(self, kind: str, digest: Digest) -> str:
        if not is_sha256(digest.hash):
            raise ValueError(f"not a digest: {digest}")
        return f"{self._folder}/{kind}/{digest.hash[:2]}/{digest.hash}"

    def _is_there(self, digest: Digest) -> bool:
        try:
            found = os.stat(self._path("cas", digest), follow_symlinks=False)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise self._of(error) from error
        return stat.S_ISREG(found.st_mode) and found.st_size == digest.size

    def _opened(self, kind: str, digest: Digest) -> BinaryIO | None:
        """Open a file of the cache; None where there is none, or something that is no file."""
        try:
            descriptor = os.open(self._path(kind, digest), _READ)
        except OSError as error:
            if error.errno in _ABSENT | {errno.ELOOP, errno.ENXIO}:
                return None
            raise self._of(error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return os.fdopen(descriptor, "rb", buffering=0)

    def _read(self, stream: BinaryIO, most: int) -> bytes:
        """Read up to `most` bytes, less at the end alone."""
        data = bytearray()
        try:
            while len(data) < most and (chunk := stream.read(min(CHUNK, most - len(data)))):
                data += chunk
        except OSError as error:
            raise self._of(error) from error
        return bytes(data)

    def _place(self, kind: str, digest: Digest, send: Callable[[int], None]) -> None:
        """Make a file under a name that nobody else has, and give it its own when it is whole and on the disk."""
        temporary = f".{secrets.token_hex(8)}.tmp"
        try:
            with self._folder_of(kind, digest) as folder:
                try:
                    descriptor = os.open(temporary, _NEW, 0o600, dir_fd=folder)
                    try:
                        send(descriptor)
                        # Whoever may look into the folder may read what is in it, and nobody writes to it again.
                        os.fchmod(descriptor, 0o444)
                        os.fsync(descriptor)
                    finally:
                        # NFS tells of a full disk here.
                        os.close(descriptor)
                    os.rename(temporary, digest.hash, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
                try:
                    os.fsync(folder)
                except OSError as error:
                    if error.errno not in _NO_SYNC:
                        raise
        except OSError as error:
            raise self._of(error) from error

    @contextlib.contextmanager
    def _folder_of(self, kind: str, digest: Digest) -> Iterator[int]:
        """Open the folder of a file to write in it, making it where there is none, and through nobody's link."""
        if not is_sha256(digest.hash):
            raise ValueError(f"not a digest: {digest}")
        with contextlib.ExitStack() as stack:
            at = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, at)
            mode = stat.S_IMODE(os.fstat(at).st_mode)
            for name in (kind, digest.hash[:2]):
                try:
                    inner = os.open(name, _INNER, dir_fd=at)
                except FileNotFoundError:
                    # As open to others as the folder that they were given, whatever the umask.
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=at)
                        os.chmod(name, mode, dir_fd=at)
                    inner = os.open(name, _INNER, dir_fd=at)
                stack.callback(os.close, inner)
                at = inner
            yield at

    def _mode(self) -> int:
        """Give the permissions of the folder, which must be there."""
        try:
            found = os.stat(self._folder)
        except OSError as error:
            raise self._of(error) from error
        if not stat.S_ISDIR(found.st_mode):
            raise self._fault(Trouble.UNREACHABLE, "not a folder")
        return stat.S_IMODE(found.st_mode)

    def _remove(self, digest: Digest) -> None:
        with contextlib.suppress(OSError), self._folder_of("cas", digest) as folder:
            os.unlink(digest.hash, dir_fd=folder)

    def _of(self, error: OSError) -> Fault:
        number = error.errno
        if number in _FULL:
            trouble = Trouble.FULL
        elif number in _REFUSED:
            trouble = Trouble.REFUSED
        elif number in _ABSENT | _GONE:
            trouble = Trouble.UNREACHABLE
        else:
            trouble = Trouble.FAILING
        return self._fault(trouble, error.strerror or type(error).__name__)

    def _fault(self, trouble: Trouble, text: str) -> Fault:
        return Fault(trouble, self._shown, text)
