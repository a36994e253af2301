"""Results as they travel: an ActionResult of this machine as remotes want it, and back from whoever made one.

Pure: it is given bytes and readers, and asks no remote. On the way out a folder becomes one `Tree` message, a small
file goes along inside the result, a long log becomes a blob. On the way in everything is hostile: a server of another
make, or somebody who may write where we read. What is accepted names one artifact, `File | Tree`, every blob of it,
and nothing that would lie outside of it.

Hard part: a `Tree` is a graph of folders by digest, not a list. A few folders that contain each other twice make more
paths than any disk has, and a symlink climbs from wherever its folder stands. So sizes and climbs are added up per
folder, from the leaves, each folder once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from strata_engine.codec import (
    OUTPUT,
    ActionResult,
    Directory,
    OutputDirectory,
    OutputFile,
    decode_action_result,
    decode_directory,
    decode_tree,
    encode_action_result,
    encode_directory,
    encode_tree,
)
from strata_engine.digest import EMPTY, Digest
from strata_engine.tree import EMPTY_TREE, File, Reader, Tree

INLINED = 4 << 10
"""Bytes up to which an output file goes along: asking for a result is then all that asking takes."""
LOGGED = 16 << 10
"""Bytes up to which a log goes along."""
LARGEST_TREE = 256 << 20
"""Bytes of a `Tree` message that is still read."""
DEEPEST = 200
"""Folders in folders."""
LARGEST_OUTPUT = 1 << 50
"""Bytes of an output, all its files together: more than any disk has room for."""
MOST_ENTRIES = 2_000_000
"""Paths of one tree."""
LARGEST_NAME = 255
"""Bytes of a name, as file systems have it."""
LONGEST_TARGET = 4095
"""Bytes of a symlink's target, as systems have it."""
CLIMB = 1
"""How far above the tree a symlink may lead: layers lie beside each other, and link to one another."""


class Outgoing(NamedTuple):
    """A result to be sent: first every blob, then the result."""

    result: bytes
    stored: tuple[Digest, ...]
    """Blobs that are in the store."""
    made: Mapping[Digest, bytes]
    """Blobs that are not: they exist for remotes alone."""
    folder: Folder | None = None
    """The folder that it is a result of, where it is one."""


class Folder(NamedTuple):
    """A folder by what follows from its root alone, here and elsewhere."""

    message: Digest
    """Of its `Tree` message."""
    files: tuple[Digest, ...]
    """Of all its files, in the order of the message, each once."""
    top: frozenset[Digest]
    """Of those at its top."""


class Packed(NamedTuple):
    """A folder by its `Tree` message, and by its root where the result names it."""

    tree: Digest
    root: Digest | None = None


Offered: TypeAlias = "File | Packed | Tree"
"""The output that a result names: a folder's files are known when its `Tree`, or each of its Directories, is read."""


class Incoming(NamedTuple):
    """A result from a remote, checked as far as it goes by itself."""

    output: Offered
    inlined: Mapping[Digest, bytes]
    """Blobs that came along, with the bytes that their digests name."""
    stdout: bytes | Digest
    stderr: bytes | Digest
    result: ActionResult


class Whole(NamedTuple):
    """A folder that came whole."""

    tree: Tree
    directories: Mapping[Digest, bytes]
    """The encoded Directories, the root's too, to be put into the store."""
    files: tuple[Digest, ...]
    """What is still to be had, each blob once."""


def outgoing(
    result: ActionResult,
    store: Reader,
    *,
    directories: bool = False,
    finish: Callable[[ActionResult], ActionResult] | None = None,
) -> Outgoing:
    """Make of a result of this machine what a remote is sent; `directories` as blobs of their own, too.

    `finish` is given the result as it goes, to be signed.

    Servers that execute, or serve `GetTree`, want those (`Backend.wants_directories`), and the root's digest then is in
    the result. A cache alone needs the `Tree`: one blob, where there are as many Directories as folders. Raises
    ValueError where the result may not leave the machine, as it has a symlink that says where things are here;
    BlobLost.
    """
    stored: dict[Digest, None] = {}
    made: dict[Digest, bytes] = {}
    known: Folder | None = None
    files = []
    for file in result.output_files:
        stored[file.digest] = None
        contents = store.get(file.digest) if file.digest.size <= INLINED else b""
        files.append(file._replace(contents=contents))
    folders = []
    for folder in result.output_directories:
        if folder.root_directory_digest is None:
            raise ValueError("not a result of this machine")
        loaded = _ordered(folder.root_directory_digest, store.load)
        _check_shape(folder.root_directory_digest, loaded)
        stored |= dict.fromkeys(_files(loaded.values()))
        if directories:
            stored |= dict.fromkeys(loaded)
        known, message = _folder(loaded)
        made[known.message] = message
        named = folder.root_directory_digest if directories else None
        folders.append(OutputDirectory(folder.path, named, known.message, is_topologically_sorted=True))
    sent = result._replace(output_files=tuple(files), output_directories=tuple(folders))
    if len(result.stdout_raw) > LOGGED:
        sent = sent._replace(stdout_raw=b"", stdout_digest=Digest.of(result.stdout_raw))
        made[Digest.of(result.stdout_raw)] = result.stdout_raw
    if len(result.stderr_raw) > LOGGED:
        sent = sent._replace(stderr_raw=b"", stderr_digest=Digest.of(result.stderr_raw))
        made[Digest.of(result.stderr_raw)] = result.stderr_raw
    stored.pop(EMPTY, None)
    return Outgoing(encode_action_result(sent if finish is None else finish(sent)), tuple(stored), made, known)


def folder_of(tree: Tree, store: Reader) -> Folder:
    """Tell what follows from a folder's root. Raises ValueError where it is none that travels; BlobLost."""
    return _folder(_ordered(tree.root, store.load))[0]


def _folder(loaded: dict[Digest, Directory]) -> tuple[Folder, bytes]:
    """Give a folder that is loaded, parents before children, and its `Tree` message."""
    root, *children = loaded.values()
    message = encode_tree(root, children)
    top = frozenset(file.digest for file in root.files)
    return Folder(Digest.of(message), tuple(_files(loaded.values())), top), message


def incoming(data: bytes) -> Incoming:
    """Read a result that somebody made. Raises ValueError where it is not one that we can use or believe.

    It must be of an action that ended well and have the one output that our actions have. An empty one is none: that
    is what a file looks like that was cut to nothing.
    """
    result = decode_action_result(data)
    if result.exit_code:
        raise ValueError(f"a result with exit code {result.exit_code}")
    inlined: dict[Digest, bytes] = {}
    output: Offered
    match result:
        case ActionResult(
            output_files=(OutputFile(path, digest, executable, contents),), output_directories=(), output_symlinks=()
        ) if path == OUTPUT:
            if digest.size > LARGEST_OUTPUT:
                raise ValueError("a file that is larger than any disk")
            output = File(digest, executable)
            if contents or digest == EMPTY:
                if Digest.of(contents) != digest:
                    raise ValueError("a result with other contents than it names")
                inlined[digest] = contents
        case ActionResult(output_files=(), output_directories=(folder,), output_symlinks=()) if folder.path == OUTPUT:
            output = _offered(folder)
        case _:
            raise ValueError(f"a result without exactly one output `{OUTPUT}`")
    logs = [
        digest if digest is not None and not raw else raw
        for raw, digest in (
            (result.stdout_raw, result.stdout_digest),
            (result.stderr_raw, result.stderr_digest),
        )
    ]
    return Incoming(output, inlined, logs[0], logs[1], result)


def _offered(folder: OutputDirectory) -> Packed | Tree:
    if folder.tree_digest is not None:
        if folder.tree_digest.size > LARGEST_TREE:
            raise ValueError("a Tree that is too large")
        return Packed(folder.tree_digest, folder.root_directory_digest)
    if folder.root_directory_digest is None:
        raise ValueError("an output directory without a digest")
    return Tree(folder.root_directory_digest)


def unpacked(message: bytes, packed: Packed) -> Whole:
    """Take a `Tree` message apart. Raises ValueError where anything in it is not as it should be."""
    if Digest.of(message) != packed.tree:
        raise ValueError("another Tree than the result names")
    root, children = decode_tree(message)
    if packed.root not in {None, Digest.of(root)}:
        raise ValueError("a Tree of another root than the result names")
    blobs = {Digest.of(data): data for data in (root, *children)}

    def load(digest: Digest) -> Directory:
        data = b"" if digest == EMPTY_TREE.root else blobs.get(digest)
        if data is None:
            raise ValueError("a Tree that lacks a folder")
        return decode_directory(data)

    return _whole(Digest.of(root), _ordered(Digest.of(root), load))


def gathered(tree: Tree, fetch: Callable[[list[Digest]], Mapping[Digest, bytes]]) -> Whole | None:
    """Gather a folder that comes as Directories, level by level; None where `fetch` does not have all of one.

    Raises ValueError where anything in it is not as it should be.
    """
    found: dict[Digest, Directory] = {EMPTY_TREE.root: Directory()}
    level = [] if tree == EMPTY_TREE else [tree.root]
    room = LARGEST_TREE
    for _ in range(DEEPEST + 1):
        if not level:
            return _whole(tree.root, _ordered(tree.root, found.__getitem__))
        room -= sum(digest.size for digest in level)
        if room < 0:
            raise ValueError("Directories that are too large")
        blobs = fetch(level)
        for digest in level:
            if (data := blobs.get(digest)) is None:
                return None
            if Digest.of(data) != digest:
                raise ValueError("a Directory that has other bytes than its digest says")
            found[digest] = decode_directory(data)
        below = (folder.digest for digest in level for folder in found[digest].directories)
        level = [digest for digest in dict.fromkeys(below) if digest not in found]
    raise ValueError("a tree that is too deep")


def _whole(root: Digest, directories: dict[Digest, Directory]) -> Whole:
    _check_shape(root, directories)
    encoded = {digest: encode_directory(directory) for digest, directory in directories.items()}
    return Whole(Tree(root), encoded, tuple(_files(directories.values())))


def _files(directories: Iterable[Directory]) -> Iterable[Digest]:
    named = (file.digest for directory in directories for file in directory.files)
    return [digest for digest in dict.fromkeys(named) if digest != EMPTY]


def _ordered(root: Digest, load: Callable[[Digest], Directory]) -> dict[Digest, Directory]:
    """Load every folder once and list them parents before children, the root first. Raises ValueError."""
    loaded: dict[Digest, Directory] = {}
    done: list[Digest] = []
    path: list[tuple[Digest, list[Digest]]] = []

    def enter(digest: Digest) -> None:
        if len(path) > DEEPEST:
            raise ValueError("a tree that is too deep")
        loaded[digest] = load(digest)
        path.append((digest, [folder.digest for folder in loaded[digest].directories]))

    enter(root)
    while path:
        digest, below = path[-1]
        if not below:
            done.append(digest)
            path.pop()
        elif (inner := below.pop()) not in loaded:
            enter(inner)
    # Whoever is done after all below it stands before them when the list is turned round.
    return {digest: loaded[digest] for digest in reversed(done)}


def _check_shape(root: Digest, directories: dict[Digest, Directory]) -> None:
    """Refuse what is too much, too deep, or leads elsewhere. `directories` are listed parents before children."""
    paths: dict[Digest, int] = {}
    sizes: dict[Digest, int] = {}
    depth: dict[Digest, int] = {}
    climb: dict[Digest, int] = {}
    for digest in reversed(directories):
        directory = directories[digest]
        for kind in directory:
            if any(len(entry[0].encode()) > LARGEST_NAME for entry in kind):
                raise ValueError("a name that is too long")
        inner = [folder.digest for folder in directory.directories]
        paths[digest] = sum(map(len, directory)) + sum(paths[below] for below in inner)
        depth[digest] = 1 + max((depth[below] for below in inner), default=0)
        here = max((_climbs(link.target) for link in directory.symlinks), default=0)
        climb[digest] = max([here, *(climb[below] - 1 for below in inner)])
        sizes[digest] = sum(file.digest.size for file in directory.files) + sum(sizes[below] for below in inner)
        if sizes[digest] > LARGEST_OUTPUT:
            raise ValueError("a tree that is larger than any disk")
        if paths[digest] > MOST_ENTRIES:
            raise ValueError("a tree with too many entries")
        if depth[digest] > DEEPEST:
            raise ValueError("a tree that is too deep")
    if climb[root] > CLIMB:
        raise ValueError("a symlink that leads out of the tree")


def _climbs(target: str) -> int:
    """Tell how many folders up a symlink leads.

    A `..` after a name would climb from wherever that name leads, which the names alone do not say.
    """
    if target.startswith("/"):
        raise ValueError("a symlink with an absolute target")
    if len(target.encode()) > LONGEST_TARGET:
        raise ValueError("a symlink whose target is too long")
    parts = [part for part in target.split("/") if part not in {"", "."}]
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    if ".." in parts[up:]:
        raise ValueError("a symlink that goes down and up again")
    return up
