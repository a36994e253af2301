"""The CAS: blobs by SHA-256, and the trees that are made of them.

It knows Directories, not actions or results; how blobs lie on disk is `blobs`' business. Hard part: whether a tree of
ten thousand files is all there must be known in no time, so what was once seen is remembered, a whole level of
folders is read in one query, and a tree that was found complete is not looked at again.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from strata_engine.blobs import SMALL, BlobLost, Blobs
from strata_engine.codec import Directory, decode_directory, encode_directory
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic
from strata_engine.index import Index, ignore
from strata_engine.tree import EMPTY_TREE, Artifact, File

__all__ = ["BlobLost", "Cas"]

_KNOWN_NODES = 400_000
"""Entries of decoded Directories that are kept in memory."""


class Cas(Blobs):
    """Content by digest (`tree.Store`). Methods may be called from any thread; processes share the folder."""

    def __init__(
        self, folder: Path, index: Index, on_warning: Callable[[Diagnostic], None] = ignore, *, durable: bool = False
    ) -> None:
        super().__init__(folder, index, on_warning, durable=durable)
        self._whole: set[Digest] = {EMPTY_TREE.root}
        """Directories below which everything was seen in the store."""
        self._directories: OrderedDict[Digest, Directory] = OrderedDict()
        self._nodes = 0

    def load(self, digest: Digest) -> Directory:
        """Read one Directory; one that is not well-formed is as good as lost."""
        directory = self._directories.get(digest)
        if directory is None:
            directory = self._decoded(digest, self.get(digest))
        return directory

    def save(self, directory: Directory) -> Digest:
        """Write one Directory."""
        data = encode_directory(directory)
        digest = Digest.of(data)
        self.put_named(digest, data)
        return digest

    def complete(self, artifact: Artifact) -> bool:
        """Tell whether everything reachable from `artifact` is there."""
        return not self.lost(artifact)

    def damaged(self, artifact: Artifact) -> list[Digest]:
        """List what is lost of `artifact`, having read all of it: what is damaged goes into quarantine at once."""
        if isinstance(artifact, File):
            return [] if self.is_whole(artifact.digest) else [artifact.digest]
        lost: list[Digest] = []
        waiting, seen = [artifact.root], {artifact.root}
        while waiting:
            try:
                directory = self.load(waiting.pop())
            except BlobLost as error:
                lost.append(error.digest)
                continue
            inner = {folder.digest for folder in directory.directories} - seen
            files = {file.digest for file in directory.files} - seen
            seen |= inner | files
            waiting += inner
            lost += [digest for digest in files if not self.is_whole(digest)]
        return sorted(lost)

    def lost(self, artifact: Artifact) -> list[Digest]:
        """List what is reachable from `artifact` and is not there; below a Directory that is lost nothing is known."""
        if isinstance(artifact, File):
            return sorted(self.missing((artifact.digest,)))
        lost: list[Digest] = []
        visited: set[Digest] = set()
        level = {artifact.root}
        files: set[Digest] = set()
        while level := {root for root in level if root not in self._whole and root not in visited}:
            visited |= level
            directories = self._load_all(level, lost)
            files.update(file.digest for directory in directories for file in directory.files)
            level = {folder.digest for directory in directories for folder in directory.directories}
        lost += self.missing(files)
        if not lost:
            self._whole |= visited
        return sorted(lost)

    def forget(self) -> None:
        """Drop what was learnt of the store's content: something was removed from it."""
        super().forget()
        with self._lock:
            self._whole = {EMPTY_TREE.root}
            self._directories.clear()
            self._nodes = 0

    def lose(self, digest: Digest, message: str, found: bytes | None = None) -> BlobLost:
        """Put what lies in the place of a blob into quarantine, say so, and give the error to raise."""
        self._whole = {EMPTY_TREE.root}
        return super().lose(digest, message, found)

    def _load_all(self, digests: Iterable[Digest], lost: list[Digest]) -> list[Directory]:
        """Load Directories, the small ones in few queries; add to `lost` those that are not there."""
        known = {digest: self._directories.get(digest) for digest in digests}
        unknown = [digest for digest, directory in known.items() if directory is None]
        with contextlib.suppress(BlobLost):
            for digest, data in self.get_small(digest for digest in unknown if digest.size <= SMALL).items():
                if digest in known:
                    known[digest] = self._decoded(digest, data)
        loaded = []
        for digest, directory in known.items():
            try:
                loaded.append(directory or self.load(digest))
            except BlobLost as error:
                lost.append(error.digest)
        return loaded

    def _decoded(self, digest: Digest, data: bytes) -> Directory:
        try:
            directory = decode_directory(data)
        except ValueError as error:
            raise BlobLost(digest) from error
        with self._lock:
            self._directories[digest] = directory
            self._nodes += 1 + sum(map(len, directory))
            while self._nodes > _KNOWN_NODES and len(self._directories) > 1:
                _, dropped = self._directories.popitem(last=False)
                self._nodes -= 1 + sum(map(len, dropped))
        return directory
