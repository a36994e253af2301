"""What explains a key: which blobs go with it, and how they are read where others have sent them."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata_engine.action import Action, Execution, Literal, Ref, Source, SourceTree
from strata_engine.cas import BlobLost, Cas
from strata_engine.codec import Directory, DirectoryNode, decode_action, encode_directory
from strata_engine.digest import Digest
from strata_engine.index import Index
from strata_engine.key import Key, compute
from strata_engine.remote import explaining
from strata_engine.remote.explaining import MOST_BLOBS, MOST_BYTES, Explanations, blobs_of, folders_of
from strata_engine.tree import Artifact, File, Node, Tree, assemble, entries


@pytest.fixture
def store(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "store", Index(tmp_path / "store"))


@pytest.fixture
def empty(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "empty", Index(tmp_path / "empty"))


def never(_: Execution) -> Artifact:
    raise AssertionError


ACTION = Action(
    label="app-x/link",
    mnemonic="Link",
    version=1,
    params={"secret": "/home/ada/place"},
    inputs={
        "modules/x": SourceTree("x"),
        "facts/low.json": Literal(b"{}"),
        "installed": Ref("app-x/install"),
        "launch.py": Source("launch.py"),
    },
    run=never,
)


def keyed(store: Cas) -> Key:
    def file(text: bytes) -> File:
        return File(store.put(text))

    nodes: dict[str, Node] = {
        "modules/x": assemble(store, {"a/b.py": file(b"1"), "c.py": file(b"2")}),
        "facts/low.json": file(b"{}"),
        "installed": assemble(store, {"lib/x.py": file(b"3")}),
        "launch.py": file(b"4"),
    }
    key = compute(ACTION, nodes, store)
    store.put_named(key.digest, key.action)
    store.put(key.command)
    return key


def test_folders_that_hold_inputs_and_sources_explain_and_what_others_made_does_not() -> None:
    assert folders_of(ACTION) == ("facts", "modules", "modules/x/")


def test_the_blobs_that_explain_are_those_that_comparing_reads(store: Cas, empty: Cas) -> None:
    key = keyed(store)
    blobs = blobs_of(store, key.digest, folders_of(ACTION))
    assert all(Digest.of(data) == digest for digest, data in blobs.items())
    assert len(blobs) == 7, "the Action, the Command, the root, facts, modules, modules/x, modules/x/a"
    assert not {Digest.of(text) for text in (b"1", b"2", b"3", b"4", b"{}")} & blobs.keys()
    reader = Explanations(empty)
    reader.keep(blobs.values())
    root = Tree(decode_action(reader.get(key.digest)).input_root_digest)
    with pytest.raises(BlobLost):
        list(entries(reader, root))
    modules = next(each for each in reader.load(root.root).directories if each.name == "modules")
    assert [each.path for each in entries(reader, Tree(modules.digest))] == ["x", "x/a", "x/a/b.py", "x/c.py"]


def test_what_names_this_machine_or_is_gone_explains_nothing(store: Cas) -> None:
    key = keyed(store)
    assert blobs_of(store, key.digest, (), [b"/home/ada/"]) == {}
    assert blobs_of(store, key.digest, (), [b"/home/bob/"]) != {}
    assert blobs_of(store, Digest.of(b"nothing"), ()) == {}


def test_there_are_bounds_for_what_goes(store: Cas) -> None:
    nodes: dict[str, Node] = {f"x/d{n:03}/f": File(store.put(b"%d" % n)) for n in range(3 * MOST_BLOBS)}
    tree = assemble(store, nodes)
    key = compute(ACTION, {"modules/x": tree}, store)
    store.put_named(key.digest, key.action)
    store.put(key.command)
    blobs = blobs_of(store, key.digest, folders_of(ACTION))
    assert key.digest in blobs
    assert len(blobs) <= MOST_BLOBS
    assert sum(map(len, blobs.values())) <= MOST_BYTES
    many = Action(
        label="l", mnemonic="M", version=1, run=never, inputs={f"{'é' * 90}{n}/x": Literal(b"") for n in range(99)}
    )
    assert folders_of(many) == ()


def test_folders_that_are_few_blobs_and_many_paths_end(empty: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "MOST_ENTRIES", 10_000)
    digest, blobs = Digest.of(b""), []
    for _ in range(60):
        data = encode_directory(Directory((), (DirectoryNode("a", digest), DirectoryNode("b", digest))))
        digest = Digest.of(data)
        blobs.append(data)
    reader = Explanations(empty)
    reader.keep(blobs)
    with pytest.raises(BlobLost):
        for _ in entries(reader, Tree(digest)):
            pass


def test_what_is_no_directory_is_lost(empty: Cas) -> None:
    reader = Explanations(empty)
    reader.keep([b"\xff"])
    assert reader.get(Digest.of(b"\xff")) == b"\xff"
    with pytest.raises(BlobLost):
        reader.load(Digest.of(b"\xff"))
