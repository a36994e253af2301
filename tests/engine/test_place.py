from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strata_engine.place
from strata_engine.capture import capture
from strata_engine.cas import BlobLost, Cas
from strata_engine.digest import EMPTY, Digest, content_mtime
from strata_engine.errors import HostError
from strata_engine.index import Index
from strata_engine.place import Placed, place
from strata_engine.tree import EMPTY_TREE, File, Node, Symlink, Tree, assemble

LARGE = b"large" * 2000


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> Cas:
    folder = tmp_path_factory.mktemp("store")
    return Cas(folder, Index(folder))


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(strata_engine.place, "_exchanged", lambda new, path: False)
    return str(request.param)


def make(cas: Cas, nodes: dict[str, bytes | Node]) -> Tree:
    return assemble(
        cas, {path: File(cas.put(node)) if isinstance(node, bytes) else node for path, node in nodes.items()}
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_tree_is_placed_with_modes_and_times_of_its_content(cas: Cas, tmp_path: Path) -> None:
    run = File(cas.put(LARGE), executable=True)
    tree = make(cas, {"d/run": run, "d/plain": b"1", "empty": EMPTY_TREE, "link": Symlink("./d//run"), "zero": b""})
    old = os.umask(0o077)
    try:
        assert place(cas, tree, tmp_path / "out") == Placed(3, len(LARGE) + 1)
    finally:
        os.umask(old)

    modes = {
        str(path.relative_to(tmp_path / "out")): stat.S_IMODE(path.lstat().st_mode)
        for path in (tmp_path / "out").rglob("*") if not path.is_symlink()
    }  # fmt: skip
    assert modes == {"d": 0o755, "d/run": 0o755, "d/plain": 0o644, "empty": 0o755, "zero": 0o644}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert (tmp_path / "out" / "d" / "run").read_bytes() == LARGE
    assert os.readlink(tmp_path / "out" / "link") == "./d//run"  # noqa: PTH115 - a Path would rewrite it
    times = {path: int(path.lstat().st_mtime) for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]}
    assert times == {
        tmp_path / "out": content_mtime(EMPTY),
        tmp_path / "out" / "d": content_mtime(EMPTY),
        tmp_path / "out" / "empty": content_mtime(EMPTY),
        tmp_path / "out" / "d" / "run": content_mtime(run.digest),
        tmp_path / "out" / "d" / "plain": content_mtime(Digest.of(b"1")),
        tmp_path / "out" / "zero": content_mtime(EMPTY),
        tmp_path / "out" / "link": content_mtime(Digest.of(b"./d//run")),
    }
    assert names(tmp_path) == ["out"]


NAMES = st.sampled_from(["a", "b", "a.b", "A", "ä", "\U0001f40d", ".hidden", "x" * 200])
CONTENT = st.one_of(st.binary(max_size=3), st.just(LARGE), st.builds(Symlink, st.sampled_from(["a", "../..", "/x/y"])))
FOLDERS = st.recursive(
    st.dictionaries(NAMES, CONTENT, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(CONTENT, inner), max_size=3),
    max_leaves=10,
)


@given(FOLDERS, FOLDERS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_placed_and_captured_is_the_same(
    cas: Cas, tmp_path: Path, first: dict[str, object], second: dict[str, object]
) -> None:
    def build(folder: dict[str, object]) -> Tree:
        nodes: dict[str, Node] = {}
        for name, node in folder.items():
            if isinstance(node, dict):
                nodes[name] = build(node)
            elif isinstance(node, bytes):
                nodes[name] = File(cas.put(node), executable=len(node) % 2 == 1)
            elif isinstance(node, Symlink):
                nodes[name] = node
        return assemble(cas, nodes)

    one, two = build(first), build(second)
    place(cas, one, tmp_path / "out")
    assert capture(cas, tmp_path / "out") == one
    place(cas, two, tmp_path / "out", old=one)
    assert capture(cas, tmp_path / "out") == two
    assert names(tmp_path) == ["out"]


def folder_in_the_way(path: Path) -> None:
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "old").write_text("old")


def locked_folder_in_the_way(path: Path) -> None:
    folder_in_the_way(path)
    (path / "sub").chmod(0o555)


def file_in_the_way(path: Path) -> None:
    path.write_text("old")


def link_in_the_way(path: Path) -> None:
    (path.parent.parent / "elsewhere").mkdir()
    (path.parent.parent / "elsewhere" / "mine").write_text("mine")
    path.symlink_to(path.parent.parent / "elsewhere")


def dangling_link_in_the_way(path: Path) -> None:
    path.symlink_to(path.parent.parent / "nowhere")


IN_THE_WAY = [
    folder_in_the_way, locked_folder_in_the_way, file_in_the_way, link_in_the_way, dangling_link_in_the_way
]  # fmt: skip


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("block", IN_THE_WAY)
@pytest.mark.parametrize("kind", ["file", "tree"])
def test_whatever_is_there_is_replaced_and_never_followed(
    cas: Cas, tmp_path: Path, block: Callable[[Path], None], kind: str
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "out"
    block(path)

    if kind == "file":
        place(cas, File(cas.put(b"new")), path)
        assert path.read_bytes() == b"new"
    else:
        place(cas, make(cas, {"new": b"new"}), path)
        assert (path / "new").read_bytes() == b"new"
        assert names(path) == ["new"]

    assert not path.is_symlink()
    assert names(tmp_path / "in") == ["out"]
    if block is link_in_the_way:
        assert (tmp_path / "elsewhere" / "mine").read_text() == "mine"
        assert names(tmp_path / "elsewhere") == ["mine"]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("lost", [b"lost", LARGE + b"lost"])
def test_a_lost_blob_leaves_the_old_in_place(cas: Cas, tmp_path: Path, jobs: int, lost: bytes) -> None:
    tree = make(cas, {f"{number}": b"%d" % number for number in range(300)} | {"lost": File(Digest.of(lost))})
    (tmp_path / "out").write_text("old")
    with pytest.raises(BlobLost) as caught:
        place(cas, tree, tmp_path / "out", jobs=jobs)
    assert caught.value.digest == Digest.of(lost)
    assert (tmp_path / "out").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("way")
def test_an_interrupt_leaves_the_old_in_place(cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(cas, {"new": LARGE})
    (tmp_path / "out").write_text("old")

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    for name in ("export", "load"):
        with monkeypatch.context() as patch:
            patch.setattr(cas, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                place(cas, tree, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_failed_rename_puts_the_old_back(cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strata_engine.place, "_exchanged", lambda new, path: False)
    folder_in_the_way(tmp_path / "out")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if target == tmp_path / "out" and not str(source).endswith("-old"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        with pytest.raises(HostError) as caught:
            place(cas, make(cas, {"new": b"1"}), tmp_path / "out")
    assert caught.value.diagnostics[0].id == "disk-full"
    assert (tmp_path / "out" / "sub" / "old").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_place_without_a_folder_is_said(cas: Cas, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="none/out"):
        place(cas, EMPTY_TREE, tmp_path / "none" / "out")


def test_unchanged_files_are_taken_over_and_edited_ones_are_not(cas: Cas, tmp_path: Path) -> None:
    same = {"same": LARGE, "d/same": b"same"}
    old = make(cas, {**same, "edited": b"12345", "chmod": b"1", "hard": b"2", "gone": b"3", "via/link": b"4"})
    new = make(cas, {**same, "edited": b"12345", "chmod": b"1", "hard": b"2", "new": b"5", "via/link": b"4"})
    out = tmp_path / "out"
    place(cas, old, out)
    before = {name: (out / name).stat().st_ino for name in ("same", "d/same", "edited", "chmod", "hard")}
    kept = (out / "edited").stat()
    (out / "edited").write_bytes(b"54321")
    os.utime(out / "edited", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    (out / "chmod").chmod(0o600)
    os.link(out / "hard", tmp_path / "mine")
    (tmp_path / "theirs").mkdir()
    (out / "via").rename(tmp_path / "theirs" / "via")
    (out / "via").symlink_to(tmp_path / "theirs" / "via")

    place(cas, new, out, old=old)

    assert capture(cas, out) == new
    after = {name: (out / name).stat().st_ino for name in before}
    assert {name for name in before if before[name] == after[name]} == {"same", "d/same"}
    assert (out / "via" / "link").stat().st_nlink == 1
    assert (out / "same").stat().st_nlink == 1
    (out / "hard").write_bytes(b"edit")
    assert (tmp_path / "mine").read_bytes() == b"2"


def test_what_killed_processes_left_goes_after_an_hour(cas: Cas, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = time.time() - 10_000
    stale, fresh, living = (
        tmp_path / f".strata-tmp-{dead.pid}-a", tmp_path / f".strata-tmp-{dead.pid}-b",
        tmp_path / f".strata-tmp-{os.getpid()}-c",
    )  # fmt: skip
    bystander = tmp_path / "1-precious"
    for folder in (stale, fresh, living, bystander):
        folder.mkdir()
        (folder / "x").touch()
        if folder != fresh:
            os.utime(folder, (old, old))
    place(cas, EMPTY_TREE, tmp_path / "out")
    assert names(tmp_path) == sorted([fresh.name, living.name, bystander.name, "out"])


def test_others_see_the_old_or_the_new_and_nothing_between(cas: Cas, tmp_path: Path) -> None:
    trees = [make(cas, {f"{number:03}": b"%d" % side for number in range(40)}) for side in (1, 2)]
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("this C library cannot exchange two names")
    place(cas, trees[0], tmp_path / "out")
    program = (
        "import os, sys\n"
        "print(flush=True)\n"
        "while not os.path.exists(sys.argv[2]):\n"
        "    folder = os.open(sys.argv[1], os.O_RDONLY)\n"  # it must always be there
        "    os.close(folder)\n"
    )
    looking = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "out"), str(tmp_path / "stop")], stdout=subprocess.PIPE
    )
    assert looking.stdout is not None
    looking.stdout.readline()
    for turn in range(30):
        place(cas, trees[turn % 2], tmp_path / "out")
    (tmp_path / "stop").touch()
    assert looking.wait() == 0
    looking.stdout.close()
