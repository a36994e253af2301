"""Trees: Merkle directories made of REAPI `Directory` blobs, and what can be done to them without touching a disk.

A tree is named by the digest of its root `Directory`. All functions here are pure but for the `Store` that they are
given, and cost what they change: an entry that only one side has is never opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from strata_engine.codec import Directory
from strata_engine.digest import Digest


class File(NamedTuple):
    """A file: its content and executable bit."""

    digest: Digest
    executable: bool = False


class Symlink(NamedTuple):
    """A symlink: its target as written."""

    target: str


class Tree(NamedTuple):
    """A folder: the digest of its root `Directory`."""

    root: Digest


Node: TypeAlias = File | Symlink | Tree
"""What can stand at a path."""

Artifact: TypeAlias = File | Tree
"""What an action gives."""


class BlobWriter(Protocol):
    """A blob in the making."""

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes."""

    def commit(self, expected_sha256: str | None = None) -> Digest:
        """Put the blob into the store and name it. Raises ValueError, storing nothing, where the hash is another."""


class Store(Protocol):
    """Content by digest. Everything read has been verified; everything written is there when the call returns.

    Reading raises `BlobLost` (in `cas`) where a blob is missing or corrupt; writing raises HostError.
    """

    def load(self, digest: Digest) -> Directory:
        """Read one Directory."""

    def save(self, directory: Directory) -> Digest:
        """Write one Directory."""

    def get(self, digest: Digest) -> bytes:
        """Read a blob into memory."""

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, seekable."""

    def put(self, data: bytes) -> Digest:
        """Write a blob."""

    def put_file(self, path: Path) -> Digest:
        """Write the content of a file, which stays where it is."""

    def writer(self) -> AbstractContextManager[BlobWriter]:
        """Write a blob piece by piece; what is not committed is removed."""

    def export(self, digest: Digest, path: Path, *, executable: bool = False) -> None:
        """Make a new file at `path` with this content: reflink, else copy."""


class Entry(NamedTuple):
    """A node and its path in the tree, posix, relative to the root."""

    path: str
    node: Node


class Change(NamedTuple):
    """A difference between two trees; None where one side has nothing."""

    path: str
    old: Node | None
    new: Node | None


class Conflict(NamedTuple):
    """Two sources of a merge that give one path different content; `winner` is None where the policy refused."""

    path: str
    first: str
    second: str


class Merged(NamedTuple):
    """What a merge gives: the tree, and the conflicts that the policy let pass."""

    tree: Tree
    conflicts: tuple[Conflict, ...]


def entries(store: Store, tree: Tree, prefix: str = "") -> Iterator[Entry]:
    """Walk a tree, parents before children, each folder's entries in byte order of their names."""
    raise NotImplementedError


def lookup(store: Store, tree: Tree, path: str) -> Node | None:
    """Find what stands at `path` ("" is the tree itself), following no symlinks."""
    raise NotImplementedError


def assemble(store: Store, nodes: Mapping[str, Node]) -> Tree:
    """Make a tree of the given paths; a Tree node is grafted, and other paths may reach below it.

    Raises ValueError for a path that is empty, absolute, has `.` or `..`, or is both a file and a folder.
    """
    raise NotImplementedError


def edit(store: Store, tree: Tree, changes: Mapping[str, Node | None]) -> Tree:
    """Give `tree` with each path replaced, or removed where the node is None; folders left empty disappear."""
    raise NotImplementedError


def merge(
    store: Store,
    sources: Sequence[tuple[str, Tree]],
    resolve: Callable[[Conflict, Node, Node], Node] | None = None,
) -> Merged:
    """Merge named trees in order. Equal content merges; file against folder raises MergeError.

    Different content raises MergeError without `resolve`, which otherwise chooses (conflict, earlier, later) → node.
    All errors of one merge are raised together.
    """
    raise NotImplementedError


def diff(store: Store, old: Tree, new: Tree) -> Iterator[Change]:
    """List the files and symlinks that differ, in path order; equal subtrees are not opened."""
    raise NotImplementedError


def capture(store: Store, folder: Path, accept: Callable[[str, bool], bool] | None = None) -> Tree:
    """Put a folder into the store: files with their executable bit, symlinks as written. Raises HostError."""
    raise NotImplementedError


def blobs(store: Store, tree: Tree) -> Iterable[Digest]:
    """List every digest reachable from `tree`, Directories included, each once."""
    raise NotImplementedError
