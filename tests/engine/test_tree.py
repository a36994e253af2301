from __future__ import annotations

import io
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.capture import capture, capture_file
from strata_engine.codec import Directory, decode_directory, encode_directory
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import HostError
from strata_engine.tree import (
    EMPTY_TREE,
    Change,
    Conflict,
    Entry,
    File,
    MergeError,
    Node,
    Symlink,
    Tree,
    assemble,
    blobs,
    case_clashes,
    diff,
    edit,
    entries,
    lookup,
    merge,
    total_size,
)


class MemoryStore:
    """A Store in memory that counts which Directories are opened."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {EMPTY: b""}
        self.loaded: list[Digest] = []

    def load(self, digest: Digest) -> Directory:
        self.loaded.append(digest)
        return decode_directory(self.blobs[digest])

    def save(self, directory: Directory) -> Digest:
        return self.put(encode_directory(directory))

    def get(self, digest: Digest) -> bytes:
        return self.blobs[digest]

    def open(self, digest: Digest) -> io.BytesIO:
        return io.BytesIO(self.blobs[digest])

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    def put_file(self, path: Path) -> Digest:
        return self.put(path.read_bytes())

    def writer(self):  # type: ignore[no-untyped-def] # no test here writes piece by piece
        raise NotImplementedError

    def export(self, digest: Digest, path: Path, *, executable: bool = False) -> None:
        path.write_bytes(self.blobs[digest])
        path.chmod(0o755 if executable else 0o644)


def file(text: str, executable: bool = False) -> File:
    return File(Digest.of(text.encode()), executable)


def make(store: MemoryStore, nodes: Mapping[str, Node | str]) -> Tree:
    """A tree of paths; a text stands for a file with that content."""
    return assemble(store, {path: file(node) if isinstance(node, str) else node for path, node in nodes.items()})


def flat(store: MemoryStore, tree: Tree) -> dict[str, Node]:
    return {path: node for path, node in entries(store, tree) if not isinstance(node, Tree)}


NAMES = st.sampled_from(["a", "b", "a.b", "A", "ä", "￿", "\U0001f40d", "-"])
LEAVES = st.one_of(
    st.builds(file, st.sampled_from(["", "x", "y"]), st.booleans()),
    st.builds(Symlink, st.sampled_from(["a", "../b", "/etc"])),
)
FOLDERS = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, inner), max_size=4),
    max_leaves=12,
)


def build(store: MemoryStore, folder: Mapping[str, object]) -> Tree:
    return assemble(
        store,
        {name: build(store, node) if isinstance(node, dict) else node for name, node in folder.items()},  # type: ignore[misc] # nested by hypothesis
    )


def test_a_walk_lists_parents_first_and_names_in_byte_order() -> None:
    store = MemoryStore()
    tree = make(
        store, {"a/x": "1", "a.b": "2", "￿": "3", "\U0001f40d": "4", "a/empty": EMPTY_TREE, "l": Symlink("a//x")}
    )

    assert [entry.path for entry in entries(store, tree, "at")] == [
        "at/a", "at/a/empty", "at/a/x", "at/a.b", "at/l", "at/￿", "at/\U0001f40d"
    ]  # fmt: skip
    assert Entry("l", Symlink("a//x")) in list(entries(store, tree))


def test_lookup_finds_what_stands_at_a_path() -> None:
    store = MemoryStore()
    tree = make(store, {"a/b/c": "1", "l": Symlink("a")})

    assert lookup(store, tree, "") == tree
    assert lookup(store, tree, "a/b/c") == file("1")
    assert lookup(store, tree, "a") == make(store, {"b/c": "1"})
    assert lookup(store, tree, "a/b/c/d") is None
    assert lookup(store, tree, "l/b") is None, "symlinks are not followed"
    assert lookup(store, tree, "nothing") is None


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".", "a/../b", "a\0"])
def test_a_path_that_leaves_the_tree_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        make(MemoryStore(), {path: "x"})


def test_a_path_that_is_file_and_folder_is_refused() -> None:
    store = MemoryStore()
    with pytest.raises(ValueError, match="'a'"):
        make(store, {"a": "x", "a/b": "y"})
    with pytest.raises(ValueError, match="'a'"):
        edit(store, make(store, {"a": "x"}), {"a/b": file("y")})


def test_a_grafted_tree_can_be_reached_into() -> None:
    store = MemoryStore()
    grafted = make(store, {"x": "1", "y": "2"})

    tree = assemble(store, {"g": grafted, "g/y": file("3"), "g/z/w": file("4")})

    assert flat(store, tree) == {"g/x": file("1"), "g/y": file("3"), "g/z/w": file("4")}


def test_edit_removes_folders_that_it_empties_and_no_others() -> None:
    store = MemoryStore()
    tree = make(store, {"a/b/c": "1", "keep/empty": EMPTY_TREE, "f": "2"})

    assert edit(store, tree, {"a/b/c": None, "keep/nothing": None}) == make(store, {"keep/empty": EMPTY_TREE, "f": "2"})
    assert edit(store, tree, {"f": None, "f/g": file("3")}) == make(
        store, {"a/b/c": "1", "keep/empty": EMPTY_TREE, "f/g": "3"}
    )
    assert edit(store, make(store, {"a": "1"}), {"a": None}) == EMPTY_TREE


def test_merge_does_not_open_what_only_one_side_has() -> None:
    store = MemoryStore()
    one = make(store, {"shared/a": "1", "one/deep/x": "1", "same/y": "2"})
    two = make(store, {"shared/b": "2", "two/deep/x": "1", "same/y": "2"})
    store.loaded.clear()

    merged = merge(store, [("one", one), ("two", two)])

    assert merged.conflicts == ()
    assert set(store.loaded) == {
        one.root, two.root, make(store, {"a": "1"}).root, make(store, {"b": "2"}).root
    }  # fmt: skip
    assert flat(store, merged.tree) == flat(store, one) | flat(store, two)


def test_a_refused_merge_names_every_conflict() -> None:
    store = MemoryStore()
    sources = [
        ("one", make(store, {"d/x": "1", "d/y": "1", "f": "1", "same": "0"})),
        ("two", make(store, {"d/x": "2", "f/g": "1", "same": "0"})),
        ("three", make(store, {"d/y": File(Digest.of(b"1"), executable=True)})),
    ]

    with pytest.raises(MergeError) as caught:
        merge(store, sources)

    assert caught.value.conflicts == (
        Conflict("d/x", "one", "two"), Conflict("d/y", "one", "three"), Conflict("f", "one", "two")
    )  # fmt: skip
    assert caught.value.diagnostics[0].message == "`one` and `two` both have `d/x`, with different content"


def test_a_policy_chooses_and_a_file_against_a_folder_is_still_refused() -> None:
    store = MemoryStore()
    sources = [("one", make(store, {"x": "1"})), ("two", make(store, {"x": "2"})), ("three", make(store, {"x": "3"}))]

    later = merge(store, sources, lambda _, first, second: second)
    assert flat(store, later.tree) == {"x": file("3")}
    assert later.conflicts == (Conflict("x", "one", "two"), Conflict("x", "two", "three"))

    earlier = merge(store, sources, lambda _, first, second: first)
    assert flat(store, earlier.tree) == {"x": file("1")}
    assert earlier.conflicts == (Conflict("x", "one", "two"), Conflict("x", "one", "three"))

    with pytest.raises(MergeError):
        merge(store, [*sources, ("four", make(store, {"x/y": "1"}))], lambda _, first, second: second)


@pytest.mark.parametrize("path", ["x", "d/x"])
def test_a_source_that_comes_again_counts_at_both_places(path: str) -> None:
    store = MemoryStore()
    one, two = make(store, {path: "1"}), make(store, {path: "2"})
    sources = [("one", one), ("two", two), ("again", one)]

    assert merge(store, sources, lambda _, first, second: second).tree == one
    assert merge(store, sources, lambda _, first, second: first).tree == one
    assert merge(store, sources, lambda _, first, second: second).conflicts == (
        Conflict(path, "one", "two"),
        Conflict(path, "two", "again"),
    )


def test_merging_nothing_gives_the_empty_folder() -> None:
    assert merge(MemoryStore(), []).tree == EMPTY_TREE


def test_diff_lists_leaves_in_path_order_and_opens_nothing_equal() -> None:
    store = MemoryStore()
    old = make(store, {"same/x": "1", "d/x": "1", "gone/y": "1", "kind": "1"})
    new = make(store, {"same/x": "1", "d/x": "2", "kind/z": "1"})
    store.loaded.clear()

    assert list(diff(store, old, new)) == [
        Change("d/x", file("1"), file("2")),
        Change("gone/y", file("1"), None),
        Change("kind", file("1"), None),
        Change("kind/z", None, file("1")),
    ]
    assert make(store, {"x": "1"}).root in store.loaded, "which is also `kind` at first"
    store.loaded.clear()
    assert list(diff(store, new, edit(store, new, {"d/x": file("3")}))) == [Change("d/x", file("2"), file("3"))]
    assert lookup(store, new, "same") not in [Tree(digest) for digest in store.loaded[:4]]


@given(FOLDERS)
def test_entries_assemble_to_the_same_tree(folder: dict[str, object]) -> None:
    store = MemoryStore()
    tree = build(store, folder)
    assert assemble(store, dict(entries(store, tree))) == tree


@given(FOLDERS)
def test_a_tree_merged_with_itself_is_itself(folder: dict[str, object]) -> None:
    store = MemoryStore()
    tree = build(store, folder)
    assert merge(store, [("one", tree), ("two", tree)]) == (tree, ())


@given(FOLDERS, FOLDERS, FOLDERS)
def test_merge_is_associative_where_it_succeeds(
    first: dict[str, object], second: dict[str, object], third: dict[str, object]
) -> None:
    store = MemoryStore()
    one, two, three = (build(store, folder) for folder in (first, second, third))

    def join(*trees: Tree) -> Tree | None:
        try:
            return merge(store, [(str(number), tree) for number, tree in enumerate(trees)]).tree
        except MergeError:
            return None

    left = join(one, two)
    right = join(two, three)
    together = join(one, two, three)
    if left is not None and right is not None:
        assert join(left, three) == join(one, right) == together
    else:
        assert together is None


@given(FOLDERS, FOLDERS)
def test_a_diff_applied_gives_the_other_tree(before: dict[str, object], after: dict[str, object]) -> None:
    store = MemoryStore()
    old, new = build(store, before), build(store, after)

    changes = list(diff(store, old, new))

    assert edit(store, old, {change.path: change.new for change in changes}) == new
    assert (changes == []) == (old == new)
    for change in changes:
        assert lookup(store, new, change.path) == change.new or change.new is None
        assert lookup(store, old, change.path) == change.old or change.old is None


@given(FOLDERS)
def test_blobs_are_listed_once_and_sizes_add_up(folder: dict[str, object]) -> None:
    store = MemoryStore()
    tree = build(store, folder)
    listed = list(blobs(store, tree))
    expected = {tree.root}
    for _, node in entries(store, tree):
        expected |= {node.root} if isinstance(node, Tree) else {node.digest} if isinstance(node, File) else set()

    assert len(listed) == len(set(listed))
    assert set(listed) == expected
    assert total_size(store, tree) == sum(
        node.digest.size for _, node in entries(store, tree) if isinstance(node, File)
    )


def test_names_that_a_mac_takes_for_one_clash() -> None:
    store = MemoryStore()
    tree = make(store, {"d/Read.me": "1", "d/README": "1", "d/read.ME": "1", "e/read.me": "1", "é": "1", "É": "2"})
    assert case_clashes(store, tree) == [("d/Read.me", "d/read.ME"), ("É", "é")]


def test_a_captured_folder_keeps_what_a_tree_can_say(tmp_path: Path) -> None:
    (tmp_path / "d" / "empty").mkdir(parents=True)
    (tmp_path / "d" / "run").write_text("#!")
    (tmp_path / "d" / "run").chmod(0o700)
    (tmp_path / "plain").write_text("1")
    (tmp_path / "plain").chmod(0o600)
    (tmp_path / "link").symlink_to("./d//run")
    (tmp_path / "loop").symlink_to("loop")
    store = MemoryStore()

    tree = capture(store, tmp_path)

    assert tree == make(
        store,
        {
            "d/empty": EMPTY_TREE, "d/run": file("#!", executable=True), "plain": "1",
            "link": Symlink("./d//run"), "loop": Symlink("loop"),
        },
    )  # fmt: skip
    assert store.get(file("#!").digest) == b"#!"
    assert capture_file(store, tmp_path / "link") == file("#!", executable=True)


def test_capture_takes_what_it_is_told_to(tmp_path: Path) -> None:
    for path in ("a/x.py", "a/x.pyc", "__pycache__/y.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    asked: list[tuple[str, bool]] = []

    def accept(path: str, is_folder: bool) -> bool:
        asked.append((path, is_folder))
        return path.endswith(".py") or (is_folder and path != "__pycache__")

    store = MemoryStore()
    assert flat(store, capture(store, tmp_path, accept)) == {"a/x.py": file("a/x.py")}
    assert asked == [("__pycache__", True), ("a", True), ("a/x.py", False), ("a/x.pyc", False)]


def test_many_files_are_captured_in_threads(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}").write_text(str(number))
    store = MemoryStore()
    assert capture(store, tmp_path) == make(store, {f"{number}": str(number) for number in range(300)})


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HostError, match="pipe` is a socket, a pipe or a device"):
        capture(MemoryStore(), tmp_path)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "s"))
        with pytest.raises(HostError, match="is a socket"):
            capture(MemoryStore(), tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad-\xff")).touch()
    with pytest.raises(HostError, match=r"`bad-\\udcff` in"):
        capture(MemoryStore(), tmp_path)


def test_what_is_not_there_cannot_be_captured(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot read `.*none`"):
        capture(MemoryStore(), tmp_path / "none")


class GrowingStore(MemoryStore):
    """A store during whose reading the file grows, the first `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def put_file(self, path: Path) -> Digest:
        digest = super().put_file(path)
        if self.times:
            self.times -= 1
            path.write_bytes(path.read_bytes() + b"more")
        return digest


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1")
    store = GrowingStore(1)
    assert flat(store, capture(store, tmp_path)) == {"log": file("1more")}


def test_a_file_that_never_stops_changing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1")
    with pytest.raises(HostError, match="log` is being written"):
        capture(GrowingStore(9), tmp_path)
