"""The bytes of a download so far: a blob in the making, and a part file from which a later try goes on.

It knows nothing of servers. The blob and the part file hold the same bytes at every moment; the ETag beside the part
lets a server say whether its file is still the one that was begun.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from strata_engine.digest import CHUNK, Digest, digest_file
from strata_engine.tree import BlobWriter, Store

if sys.platform != "win32":
    import fcntl


class Body:
    """The bytes so far, in a blob of the store and in the part file, always the same in both.

    The part file is locked: a second build that wants the same file downloads for itself instead of mixing both.
    """

    def __init__(self, store: Store, sha256: str, folder: Path) -> None:
        self.etag = ""
        self.hash = "another one"
        self.received = 0
        self._store = store
        self._sha256 = sha256
        self._etag_path = folder / f"{sha256}.etag"
        self._part_path = folder / f"{sha256}.part"
        self._part = _open_locked(self._part_path)
        self._open_blob()
        if self._part is not None:
            while chunk := self._part.read(CHUNK):
                self._feed(chunk)
            if self.received and self._etag_path.is_file():
                self.etag = self._etag_path.read_text("utf-8", "replace").strip()

    def _open_blob(self) -> None:
        self._blob_stack = ExitStack()
        self._blob: BlobWriter = self._blob_stack.enter_context(self._store.writer())

    def _feed(self, data: bytes) -> None:
        self._blob.write(data)
        self.received += len(data)

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._part is not None:
            if self.received == 0 and self.etag:
                self._etag_path.write_text(self.etag, "utf-8")
            self._part.write(data)
        self._feed(data)

    def restart(self) -> None:
        """Forget everything."""
        self._blob_stack.close()
        self.received, self.etag = 0, ""
        if self._part is not None:
            self._part.seek(0)
            self._part.truncate()
            self._etag_path.unlink(missing_ok=True)
        self._open_blob()

    def commit(self) -> Digest:
        """Put the blob into the store. Raises ValueError, having set `hash`, where it is another than expected."""
        try:
            digest = self._blob.commit(self._sha256)
        except ValueError:
            if self._part is not None:
                self._part.flush()
                self.hash = digest_file(self._part_path).hash
            raise
        if self._part is not None:
            self._part_path.unlink(missing_ok=True)
            self._etag_path.unlink(missing_ok=True)
        return digest

    def close(self) -> None:
        """Let go of the blob and the part file, which stays for the next try unless it is empty or committed."""
        self._blob_stack.close()
        if self._part is not None:
            if self.received == 0:
                self._part_path.unlink(missing_ok=True)
            self._part.close()


def _open_locked(path: Path) -> BinaryIO | None:
    """Open a part file for this process alone; None where that cannot be: then nothing is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    except OSError:
        return None
    if sys.platform != "win32":
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            return None
    return stream
