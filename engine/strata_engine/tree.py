"""Trees: Merkle directories made of REAPI `Directory` blobs, and what can be done to them without touching a disk.

A tree is named by the digest of its root `Directory`. All functions here are pure but for the `Store` that they are
given, and cost what they change: an entry that only one side has is never opened.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from strata_engine.codec import Directory, DirectoryNode, FileNode, SymlinkNode, is_name
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import ActionError, Diagnostic


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


EMPTY_TREE = Tree(EMPTY)
"""The folder with nothing in it: its Directory encodes to no bytes, which every store has."""


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


class Reader(Protocol):
    """Content by digest, to be read. Raises `BlobLost` (in `cas`) where a blob is missing or corrupt."""

    def load(self, digest: Digest) -> Directory:
        """Read one Directory."""

    def get(self, digest: Digest) -> bytes:
        """Read a blob into memory."""


class Store(Reader, Protocol):
    """Content by digest. Everything read has been verified; everything written is there when the call returns.

    Writing raises HostError.
    """

    def save(self, directory: Directory) -> Digest:
        """Write one Directory."""

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, seekable."""

    def put(self, data: bytes) -> Digest:
        """Write a blob."""

    def put_file(self, path: Path) -> Digest:
        """Write the content of a file, which stays where it is."""

    def writer(self) -> AbstractContextManager[BlobWriter]:
        """Write a blob piece by piece; what is not committed is removed."""

    def export(self, digest: Digest, path: Path, *, executable: bool = False) -> None:
        """Make a new file at `path` with this content: reflink, else copy. Raises OSError where that fails."""


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
    """Two sources of a merge that give one path different content."""

    path: str
    first: str
    second: str


class Merged(NamedTuple):
    """What a merge gives: the tree, and the conflicts that the policy let pass."""

    tree: Tree
    conflicts: tuple[Conflict, ...]


class MergeError(ActionError):
    """A merge that is refused, with every conflict that stands in its way."""

    def __init__(self, conflicts: Iterable[Conflict]) -> None:
        self.conflicts: tuple[Conflict, ...] = tuple(conflicts)
        super().__init__(*(_conflict(*conflict) for conflict in self.conflicts))


def _conflict(path: str, first: str, second: str) -> Diagnostic:
    return Diagnostic("merge-conflict", f"`{first}` and `{second}` both have `{path}`, with different content")


def entries(store: Reader, tree: Tree, prefix: str = "") -> Iterator[Entry]:
    """Walk a tree, parents before children, each folder's entries in byte order of their names.

    The tree itself is not among them; `prefix` is put before each path, with a `/` between.
    """
    base = f"{prefix}/" if prefix else ""
    for name, node in listing(store, tree):
        yield Entry(base + name, node)
        if isinstance(node, Tree):
            yield from entries(store, node, base + name)


def lookup(store: Reader, tree: Tree, path: str) -> Node | None:
    """Find what stands at `path` ("" is the tree itself), following no symlinks."""
    node: Node = tree
    for name in path.split("/") if path else ():
        if not isinstance(node, Tree):
            return None
        found = dict(listing(store, node)).get(name)
        if found is None:
            return None
        node = found
    return node


def assemble(store: Store, nodes: Mapping[str, Node]) -> Tree:
    """Make a tree of the given paths; a Tree node is grafted, and other paths may reach below it.

    Raises ValueError for a path that is empty, absolute, has `.` or `..`, or is both a file and a folder.
    """
    return edit(store, EMPTY_TREE, nodes)


def edit(store: Store, tree: Tree, changes: Mapping[str, Node | None]) -> Tree:
    """Give `tree` with each path replaced, or removed where the node is None; folders left empty disappear.

    A path may be removed and others set below it: that puts a folder where a file was. Raises ValueError for a bad
    path, or one that reaches below a file.
    """
    root = _Plan()
    for path, node in changes.items():
        parts = path.split("/")
        if not all(is_name(part) for part in parts):
            raise ValueError(f"not a path inside a tree: {path!r}")
        plan = root
        for part in parts:
            plan = plan.below.setdefault(part, _Plan())
        plan.set, plan.node = True, node
    edited = _apply(store, tree, root, "")
    return edited if isinstance(edited, Tree) else _save(store, {})


class _Plan:
    """What is to happen at one path and below it."""

    __slots__ = ("below", "node", "set")

    def __init__(self) -> None:
        self.below: dict[str, _Plan] = {}
        self.node: Node | None = None
        self.set = False


def _apply(store: Store, old: Node | None, plan: _Plan, path: str) -> Node | None:
    node = plan.node if plan.set else old
    if not plan.below:
        return node
    members: dict[str, Node] = {}
    if isinstance(node, Tree):
        members = dict(listing(store, node))
    elif node is not None:
        # To remove what is not there is no error: nothing lies below a file.
        if any(_sets(below) for below in plan.below.values()):
            raise ValueError(f"{path!r} is both a file and a folder")
        return node
    before = dict(members)
    for name, below in plan.below.items():
        made = _apply(store, members.get(name), below, f"{path}/{name}" if path else name)
        if made is None:
            members.pop(name, None)
        else:
            members[name] = made
    if members == before and node is not None:
        return node
    return _save(store, members) if members else None


def _sets(plan: _Plan) -> bool:
    return (plan.set and plan.node is not None) or any(_sets(below) for below in plan.below.values())


def merge(
    store: Store,
    sources: Sequence[tuple[str, Tree]],
    resolve: Callable[[Conflict, Node, Node], Node] | None = None,
) -> Merged:
    """Merge named trees in order. Equal content merges; file against folder raises MergeError.

    Different content raises MergeError without `resolve`, which otherwise chooses (conflict, earlier, later) → node.
    All errors of one merge are raised together.
    """
    merging = _Merging(store, resolve)
    merged = merging.merge("", [(name, tree) for name, tree in sources])
    if merging.refused:
        raise MergeError(merging.refused)
    tree = merged if isinstance(merged, Tree) else _save(store, {})
    return Merged(tree, tuple(merging.allowed))


class _Merging:
    """One merge: where to read and write, and the conflicts met so far."""

    def __init__(self, store: Store, resolve: Callable[[Conflict, Node, Node], Node] | None) -> None:
        self.store = store
        self.resolve = resolve
        self.allowed: list[Conflict] = []
        self.refused: list[Conflict] = []

    def merge(self, path: str, sides: list[tuple[str, Node]]) -> Node | None:
        if not sides:
            return None
        first, node = sides[0]
        if all(other == node for _, other in sides):
            return node
        # Of a, b and again a, the third is not the first: a policy may prefer the latest, or the earliest.
        folders = [(name, side) for name, side in sides if isinstance(side, Tree)]
        if len(folders) == len(sides):
            return self._folders(path, folders)
        if folders:
            other = next(name for name, side in sides if isinstance(side, Tree) != isinstance(node, Tree))
            self.refused.append(Conflict(path, first, other))
            return None
        return self._files(path, sides)

    def _folders(self, path: str, sides: list[tuple[str, Tree]]) -> Node:
        gathered: dict[str, list[tuple[str, Node]]] = {}
        for name, tree in sides:
            for member, node in listing(self.store, tree):
                gathered.setdefault(member, []).append((name, node))
        members: dict[str, Node] = {}
        for member in sorted(gathered):
            node_ = self.merge(f"{path}/{member}" if path else member, gathered[member])
            if node_ is not None:
                members[member] = node_
        return _save(self.store, members)

    def _files(self, path: str, sides: list[tuple[str, Node]]) -> Node:
        winner, chosen = sides[0]
        for name, node in sides[1:]:
            if node == chosen:
                continue
            conflict = Conflict(path, winner, name)
            if self.resolve is None:
                self.refused.append(conflict)
                continue
            self.allowed.append(conflict)
            chosen = self.resolve(conflict, chosen, node)
            winner = name if chosen == node else winner
        return chosen


def diff(store: Reader, old: Tree, new: Tree) -> Iterator[Change]:
    """List the files and symlinks that differ, in path order; equal subtrees are not opened.

    A folder is listed only where one side has it empty, so that `edit` with all changes gives the new tree exactly.
    """
    yield from _diff(store, old, new, "")


def _diff(store: Reader, old: Tree, new: Tree, base: str) -> Iterator[Change]:
    before, after = dict(listing(store, old)), dict(listing(store, new))
    for name in sorted(before.keys() | after.keys()):
        left, right = before.get(name), after.get(name)
        if left == right:
            continue
        path = base + name
        # What is not a folder, and an empty folder, stand for themselves; other folders are what is in them.
        old_leaf = left if not isinstance(left, Tree) or left == EMPTY_TREE else None
        new_leaf = right if not isinstance(right, Tree) or right == EMPTY_TREE else None
        if (old_leaf or new_leaf) and not (left == EMPTY_TREE and isinstance(right, Tree)):
            yield Change(path, left if right == EMPTY_TREE else old_leaf, new_leaf)
        inside = [side if isinstance(side, Tree) else EMPTY_TREE for side in (left, right)]
        if inside[0] != inside[1]:
            yield from _diff(store, inside[0], inside[1], path + "/")


def blobs(store: Reader, tree: Tree) -> Iterable[Digest]:
    """List every digest reachable from `tree`, Directories included, each once."""
    seen = {tree.root}
    waiting = [tree.root]
    while waiting:
        digest = waiting.pop()
        yield digest
        directory = store.load(digest)
        for folder in directory.directories:
            if folder.digest not in seen:
                seen.add(folder.digest)
                waiting.append(folder.digest)
        for file in directory.files:
            if file.digest not in seen:
                seen.add(file.digest)
                yield file.digest


def total_size(store: Reader, tree: Tree) -> int:
    """Add up the sizes of the files, each as often as it occurs."""
    sizes: dict[Digest, int] = {}

    def size(root: Digest) -> int:
        if root not in sizes:
            directory = store.load(root)
            inside = sum(size(folder.digest) for folder in directory.directories)
            sizes[root] = inside + sum(file.digest.size for file in directory.files)
        return sizes[root]

    return size(tree.root)


def case_clashes(store: Reader, tree: Tree) -> list[tuple[str, str]]:
    """List the paths that a file system which ignores case or Unicode form takes for one, in pairs, in path order.

    Where two folders clash, what is in them is not compared further.
    """
    clashes = []
    seen: dict[str, str] = {}
    for path, _ in entries(store, tree):
        folder, _, name = path.rpartition("/")
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        first = seen.setdefault(f"{folder}/{folded}", path)
        if first != path:
            clashes.append((first, path))
    return clashes


def listing(store: Reader, tree: Tree) -> list[tuple[str, Node]]:
    """List what is directly in a folder, by name."""
    directory = store.load(tree.root)
    members: list[tuple[str, Node]] = [(file.name, File(file.digest, file.is_executable)) for file in directory.files]
    members += [(folder.name, Tree(folder.digest)) for folder in directory.directories]
    members += [(link.name, Symlink(link.target)) for link in directory.symlinks]
    # Names are unique, so nodes are never compared. Code point order is the byte order of UTF-8.
    members.sort(key=lambda member: member[0])
    return members


def directory_of(members: Mapping[str, Node]) -> Directory:
    """Make the Directory of a folder with these entries."""
    files, folders, links = [], [], []
    for name in sorted(members):
        match members[name]:
            case File(digest, executable):
                files.append(FileNode(name, digest, executable))
            case Tree(root):
                folders.append(DirectoryNode(name, root))
            case Symlink(target):
                links.append(SymlinkNode(name, target))
    return Directory(tuple(files), tuple(folders), tuple(links))


def _save(store: Store, members: Mapping[str, Node]) -> Tree:
    return Tree(store.save(directory_of(members)))
