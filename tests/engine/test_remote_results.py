"""Results on their way to remotes and back, also of servers and people who are not us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reapi import PROTO, official, proto_digest, proto_directory

from strata_engine.action_cache import artifact_of, result_of
from strata_engine.cas import Cas
from strata_engine.codec import Directory, DirectoryNode, FileNode, SymlinkNode, decode_directory, encode_directory
from strata_engine.digest import EMPTY, Digest
from strata_engine.index import Index
from strata_engine.remote import results
from strata_engine.remote.results import INLINED, LOGGED, Packed, Whole, gathered, incoming, outgoing, unpacked
from strata_engine.tree import EMPTY_TREE, File, Node, Symlink, Tree, assemble, blobs, entries


@pytest.fixture
def store(tmp_path: Path) -> Cas:
    return Cas(tmp_path, Index(tmp_path))


def message(data: bytes, kind: str) -> Any:
    return PROTO[kind].FromString(data)


def proto_of(digest: Digest) -> dict[str, Any]:
    return {"hash": digest.hash, "size_bytes": digest.size}


@pytest.mark.parametrize("size", [0, 1, INLINED, INLINED + 1])
@pytest.mark.parametrize("executable", [False, True])
def test_a_file_goes_out_and_comes_back(store: Cas, size: int, executable: bool) -> None:
    blob = store.put(b"x" * size)
    sent = outgoing(result_of(File(blob, executable), started_ns=5, completed_ns=7), store)
    assert sent.stored == ((blob,) if size else ())
    assert not sent.made
    came = incoming(sent.result)
    assert came.output == File(blob, executable)
    assert came.inlined == ({blob: b"x" * size} if size <= INLINED else {})
    assert (came.result.started_ns, came.result.completed_ns) == (5, 7)
    theirs = message(sent.result, "ActionResult")
    assert theirs.output_files[0].contents == (b"x" * size if size <= INLINED else b"")
    assert sent.result == theirs.SerializeToString(deterministic=True)


def nested(store: Cas) -> Tree:
    nodes: dict[str, Node] = {
        "a/b/c/deep": File(store.put(b"deep")),
        "a/same": File(store.put(b"same"), executable=True),
        "z/b/c/deep": File(store.put(b"deep")),
        "bin/python": Symlink("../../cpython/bin/python3"),
        "bin/python3": Symlink("python"),
        "void": EMPTY_TREE,
        "empty": File(EMPTY),
    }
    return assemble(store, nodes)


@pytest.mark.parametrize("directories", [False, True])
def test_a_folder_goes_out_as_one_message_and_comes_back(store: Cas, directories: bool) -> None:
    tree = nested(store)
    sent = outgoing(result_of(tree), store, directories=directories)
    came = incoming(sent.result)
    assert isinstance(came.output, Packed)
    assert came.output.root == (tree.root if directories else None)
    whole = unpacked(sent.made[came.output.tree], came.output)
    assert whole.tree == tree
    assert {digest: Digest.of(data) for digest, data in whole.directories.items()} == {d: d for d in whole.directories}
    assert {EMPTY, *whole.directories, *whole.files} == set(blobs(store, tree)) | {EMPTY}
    wanted = set(whole.files) | (set(whole.directories) - {EMPTY} if directories else set())
    assert set(sent.stored) == wanted
    theirs = message(sent.result, "ActionResult").output_directories[0]
    assert theirs.is_topologically_sorted
    assert theirs.HasField("root_directory_digest") == directories


def test_the_folders_of_a_message_stand_below_their_parents_and_once(store: Cas) -> None:
    sent = outgoing(result_of(nested(store)), store)
    (data,) = sent.made.values()
    theirs = message(data, "Tree")
    assert data == theirs.SerializeToString(deterministic=True)
    seen: set[str] = set()
    order = [theirs.root, *theirs.children]
    for directory in reversed(order):
        assert all(folder.digest.hash in seen for folder in directory.directories)
        digest = Digest.of(directory.SerializeToString(deterministic=True))
        assert digest.hash not in seen
        seen.add(digest.hash)


def test_logs_go_along_until_they_are_long(store: Cas) -> None:
    short = outgoing(result_of(File(EMPTY), stdout=b"out", stderr=b"err"), store)
    came = incoming(short.result)
    assert (came.stdout, came.stderr, short.made) == (b"out", b"err", {})
    long = b"x" * (LOGGED + 1)
    sent = outgoing(result_of(File(EMPTY), stdout=long, stderr=long + b"y"), store)
    came = incoming(sent.result)
    assert (came.stdout, came.stderr) == (Digest.of(long), Digest.of(long + b"y"))
    assert sent.made == {Digest.of(long): long, Digest.of(long + b"y"): long + b"y"}


@pytest.mark.parametrize("target", ["/usr/bin/python3", "../../../etc", "lib/../../../..", "a/../b", "x" * 4096])
def test_a_link_that_leads_elsewhere_goes_neither_out_nor_in(store: Cas, target: str) -> None:
    tree = assemble(store, {"bin/python": Symlink(target)})
    with pytest.raises(ValueError, match="symlink"):
        outgoing(result_of(tree), store)
    with pytest.raises(ValueError, match="symlink"):
        unpacked(*packed(*(store.load(digest) for digest in (tree.root, store.load(tree.root).directories[0].digest))))


def packed(root: Directory, *children: Directory) -> tuple[bytes, Packed]:
    data = official(
        "Tree", root=proto_directory(root), children=[proto_directory(child) for child in children]
    ).SerializeToString(deterministic=True)
    return data, Packed(Digest.of(data))


def folder(name: str, below: Directory) -> DirectoryNode:
    return DirectoryNode(name, Digest.of(encode_directory(below)))


LEAF = Directory(files=(FileNode("f", EMPTY),))


def test_what_bazel_makes_is_read() -> None:
    """Only `tree_digest`, no metadata, folders in any order and some of them twice."""
    middle = Directory(directories=(folder("leaf", LEAF),))
    root = Directory(directories=(folder("a", middle), folder("b", LEAF)))
    data, named = packed(root, LEAF, middle, LEAF)
    theirs = official(
        "ActionResult",
        output_directories=[{"path": "out", "tree_digest": proto_of(named.tree)}],
        stdout_digest=proto_digest(EMPTY),
    )
    came = incoming(theirs.SerializeToString())
    assert (came.output, came.stdout) == (named, EMPTY)
    whole = unpacked(data, named)
    assert whole.tree.root == Digest.of(encode_directory(root))
    assert len(whole.directories) == 3


def test_a_folder_by_its_directories_is_gathered_level_by_level(store: Cas) -> None:
    tree = nested(store)
    theirs = official(
        "ActionResult", output_directories=[{"path": "out", "root_directory_digest": proto_of(tree.root)}]
    )
    came = incoming(theirs.SerializeToString())
    assert came.output == tree
    asked: list[list[Digest]] = []

    def fetch(digests: list[Digest]) -> dict[Digest, bytes]:
        asked.append(digests)
        return {digest: store.get(digest) for digest in digests}

    whole = gathered(tree, fetch)
    assert whole is not None
    sent = outgoing(result_of(tree), store)
    packed_tree = incoming(sent.result).output
    assert isinstance(packed_tree, Packed)
    other = unpacked(sent.made[packed_tree.tree], packed_tree)
    assert (whole.tree, set(whole.directories), set(whole.files)) == (tree, set(other.directories), set(other.files))
    assert len(asked) == 4
    assert gathered(tree, lambda digests: {}) is None
    with pytest.raises(ValueError, match="other bytes"):
        gathered(tree, lambda digests: dict.fromkeys(digests, b"wrong"))
    assert gathered(EMPTY_TREE, lambda digests: {}) == Whole(EMPTY_TREE, {EMPTY: b""}, ())


OUT = {"path": "out", "digest": proto_of(EMPTY)}
HOSTILE_RESULTS = {
    "nothing": {},
    "another output": {"output_files": [{"path": "else", "digest": proto_of(EMPTY)}]},
    "an output elsewhere": {"output_files": [{"path": "../out", "digest": proto_of(EMPTY)}]},
    "two outputs": {"output_files": [OUT, OUT]},
    "a file and a folder": {
        "output_files": [OUT],
        "output_directories": [{"path": "out", "tree_digest": proto_of(EMPTY)}],
    },
    "a symlink": {"output_symlinks": [{"path": "out", "target": "/etc/passwd"}]},
    "a symlink beside": {"output_files": [OUT], "output_file_symlinks": [{"path": "l", "target": "/etc/passwd"}]},
    "a failure": {"output_files": [OUT], "exit_code": 1},
    "other contents": {"output_files": [{**OUT, "contents": b"x"}]},
    "half of the contents": {"output_files": [{"path": "out", "digest": proto_of(Digest.of(b"ab")), "contents": b"a"}]},
    "a digest that is none": {"output_files": [{"path": "out", "digest": {"hash": "../../etc/passwd"}}]},
    "a folder without digests": {"output_directories": [{"path": "out"}]},
    "a Tree too large": {
        "output_directories": [{"path": "out", "tree_digest": {"hash": EMPTY.hash, "size_bytes": 2**40}}]
    },
}


@pytest.mark.parametrize("fields", HOSTILE_RESULTS.values(), ids=HOSTILE_RESULTS)
def test_a_result_that_is_not_as_ours_are_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        incoming(official("ActionResult", **fields).SerializeToString())


def test_the_hostile_results_are_refused_for_the_right_reason() -> None:
    assert incoming(official("ActionResult", output_files=[OUT]).SerializeToString()).output == File(EMPTY)


def bomb(levels: int, width: int) -> tuple[bytes, Packed]:
    """A few folders, each of which is in the one above many times."""
    below, all_ = LEAF, [LEAF]
    for _ in range(levels):
        below = Directory(directories=tuple(folder(f"{index:02}", below) for index in range(width)))
        all_.append(below)
    return packed(below, *reversed(all_[:-1]))


def chain(levels: int) -> tuple[bytes, Packed]:
    return bomb(levels, 1)


LINKED = Directory(symlinks=(SymlinkNode("up", "../.."),))
FAR = Directory(symlinks=(SymlinkNode("up", "../../.."),))
AROUND = Directory(directories=(folder("b", FAR),))
HOSTILE_TREES = {
    "a bomb": (bomb(8, 10), "too many entries"),
    "a bomb of 10^180 paths": (bomb(180, 10), "too many entries"),
    "too deep": (chain(results.DEEPEST), "too deep"),
    "far too deep": (chain(2000), "too deep"),
    "a folder that is not there": (packed(Directory(directories=(folder("a", LEAF),))), "lacks a folder"),
    "a link out of the root": (packed(LINKED), "leads out"),
    "a link out, in one of two places": (
        packed(Directory(directories=(folder("a", AROUND), folder("b", FAR))), AROUND, FAR),
        "leads out",
    ),
    "a name that is too long": (packed(Directory(files=(FileNode("ä" * 128, EMPTY),))), "name that is too long"),
}


@pytest.mark.parametrize(("tree", "why"), HOSTILE_TREES.values(), ids=HOSTILE_TREES)
def test_a_tree_that_is_too_much_or_leads_elsewhere_is_refused(tree: tuple[bytes, Packed], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unpacked(*tree)


def test_the_hostile_trees_are_refused_for_the_right_reason() -> None:
    assert unpacked(*bomb(5, 10)).files == ()
    assert unpacked(*chain(results.DEEPEST - 1)).tree
    assert unpacked(*packed(Directory(directories=(folder("b", LINKED),)), LINKED)).tree
    assert unpacked(*packed(Directory(directories=(folder("a", AROUND),)), AROUND, FAR)).tree
    assert unpacked(*packed(Directory(files=(FileNode("ä" * 127, EMPTY),)))).tree


def test_a_message_that_is_not_the_one_named_is_refused() -> None:
    data, named = packed(LEAF)
    assert unpacked(data, named._replace(root=Digest.of(encode_directory(LEAF)))).tree
    for other in (named._replace(tree=EMPTY), named._replace(root=EMPTY), Packed(Digest(named.tree.hash, 1))):
        with pytest.raises(ValueError, match="than the result names"):
            unpacked(data, other)


def test_a_folder_that_is_not_canonical_is_refused() -> None:
    properties = encode_directory(LEAF) + b"\x2a\x00"
    data = bytes([0x0A, len(properties)]) + properties
    with pytest.raises(ValueError, match="fields that it may not have"):
        unpacked(data, Packed(Digest.of(data)))


NAMES = st.sampled_from(["a", "b", "c", "..", ".", "a/b", "", "ä"])
TARGETS = st.sampled_from(["a", "../a", "../../a", "/a", "a/..", "../../../a", "./.././a", "b/c"])
NODES = st.one_of(
    st.binary(max_size=3).map(lambda data: File(Digest.of(data))), TARGETS.map(Symlink), st.just(EMPTY_TREE)
)
PATHS = st.lists(st.sampled_from(["a", "b", "c", "ä"]), min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(PATHS, NODES, max_size=8))
def test_what_goes_out_comes_back_the_same_or_is_refused_both_ways(nodes: dict[str, Node]) -> None:
    store = Memory()
    try:
        tree = assemble(store, nodes)  # type: ignore[arg-type]
    except ValueError:
        return
    climbs = [
        node.target.split("/").count("..") - path.count("/")
        for path, node in entries(store, tree)  # type: ignore[arg-type]
        if isinstance(node, Symlink)
    ]
    targets = {node.target for _, node in entries(store, tree) if isinstance(node, Symlink)}  # type: ignore[arg-type]
    fair = not targets & {"/a", "a/.."} and max(climbs, default=0) <= 1
    try:
        sent = outgoing(result_of(tree), store)  # type: ignore[arg-type]
    except ValueError:
        assert not fair
        return
    assert fair
    named = incoming(sent.result).output
    assert isinstance(named, Packed)
    whole = unpacked(sent.made[named.tree], named)
    assert whole.tree == artifact_of(result_of(tree))
    assert all(store.load(digest) == decode_directory(data) for digest, data in whole.directories.items())


class Memory:
    """The part of a store that trees need."""

    def __init__(self) -> None:
        self.directories: dict[Digest, Directory] = {EMPTY: Directory()}

    def load(self, digest: Digest) -> Directory:
        return self.directories[digest]

    def save(self, directory: Directory) -> Digest:
        digest = Digest.of(encode_directory(directory))
        self.directories[digest] = decode_directory(encode_directory(directory))
        return digest


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_valueerror(data: bytes) -> None:
    for call in (lambda: incoming(data), lambda: unpacked(data, Packed(Digest.of(data)))):
        try:
            call()
        except ValueError:
            continue
