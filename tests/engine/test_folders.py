from __future__ import annotations

import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builds import Site, make, outcomes
from conftest import Bench

from strata_engine import folders as module
from strata_engine.action import Execution, Ref
from strata_engine.blobs import BlobLost
from strata_engine.errors import InternalError
from strata_engine.files import remove_tree, sweep
from strata_engine.folders import Folders
from strata_engine.tree import Artifact, File, Node, Symlink, Tree, assemble

LARGE = b"large" * 2000


def tree_of(bench: Bench, files: dict[str, bytes]) -> Tree:
    nodes: dict[str, Node] = {
        path: File(bench.store.put(data), path.startswith("bin/")) for path, data in files.items()
    }
    return assemble(bench.store, nodes | {"link": Symlink("/nowhere")})


def scratch(bench: Bench) -> Path:
    return bench.folder / "tmp"


def test_a_tree_is_placed_once_however_many_ask_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tree_of(bench, {"bin/run": b"#!/bin/sh\n", "lib/a.py": LARGE})
    second = tree_of(bench, {"lib/a.py": b"other"})
    placed: list[Tree] = []
    together = threading.Barrier(8)
    real = module.place

    def slow(store: object, tree: Tree, path: Path) -> object:
        placed.append(tree)
        time.sleep(0.05)
        return real(bench.store, tree, path)

    monkeypatch.setattr(module, "place", slow)
    folders = Folders(bench.store, scratch(bench))

    def ask(tree: Tree) -> Path:
        together.wait(10)
        path = folders.of(tree)
        # Whoever is given it finds all of it.
        assert (path / "lib/a.py").read_bytes() == (LARGE if tree is first else b"other")
        return path

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(ask, [first, second] * 4))
    assert len(set(paths)) == 2
    assert sorted(placed) == sorted([first, second])
    folders.close()
    assert list(scratch(bench).iterdir()) == []


def test_nothing_in_it_may_be_written_and_all_of_it_goes(bench: Bench) -> None:
    folders = Folders(bench.store, scratch(bench))
    path = folders.of(tree_of(bench, {"bin/run": b"#!/bin/sh\nexit 3\n", "lib/deep/a.py": b"a"}))
    modes = {str(each.relative_to(path)): stat.S_IMODE(each.lstat().st_mode) for each in path.rglob("*")}
    modes.pop("link")
    assert modes == {"bin": 0o555, "bin/run": 0o555, "lib": 0o555, "lib/deep": 0o555, "lib/deep/a.py": 0o444}
    assert subprocess.run([path / "bin/run"], check=False).returncode == 3
    folders.close()
    folders.close()
    assert list(scratch(bench).iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(bench: Bench) -> None:
    code = """
import sys, os
from pathlib import Path
from strata_engine.cas import Cas
from strata_engine.folders import Folders
from strata_engine.index import Index
from strata_engine.tree import File, assemble
store = Path(sys.argv[1])
cas = Cas(store, Index(store))
Folders(cas, store / "tmp").of(assemble(cas, {"d/f": File(cas.put(b"x"))}))
os.write(1, b"ready")
os.read(0, 1)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(bench.folder)], stdin=-1, stdout=-1)
    assert child.stdout is not None
    assert child.stdout.read(5) == b"ready"
    [left] = scratch(bench).iterdir()
    assert left.name.startswith(f"{child.pid}-")
    sweep(scratch(bench), 0)
    assert left.exists()
    child.kill()
    child.wait()
    sweep(scratch(bench), 0)
    assert not left.exists()


def test_one_that_cannot_be_placed_leaves_nothing_and_may_be_asked_for_again(bench: Bench) -> None:
    tree = tree_of(bench, {"a": LARGE, "b": b"small"})
    data = bench.store.get(File(bench.store.put(LARGE)).digest)
    [blob] = [path for path in (bench.folder / "cas").rglob("*") if path.is_file()]
    blob.chmod(0o600)
    blob.unlink()
    bench.store.forget()
    folders = Folders(bench.store, scratch(bench))
    with pytest.raises(BlobLost):
        folders.of(tree)
    bench.store.put(data)
    assert sorted(path.name for path in folders.of(tree).iterdir()) == ["a", "b", "link"]
    assert [path.name for path in folders.of(tree).parent.iterdir()] == [tree.root.hash]
    folders.close()


def test_removing_a_tree_changes_nothing_that_a_symlink_leads_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder").chmod(0o500)
    (outside / "file").write_text("kept")
    (outside / "file").chmod(0o400)
    inside = tmp_path / "inside" / "deep"
    inside.mkdir(parents=True)
    for name in ("folder", "file"):
        (inside / name).symlink_to(outside / name)
    (inside / "more").mkdir()
    (inside / "more" / "f").write_text("x")
    for folder in (inside / "more", inside, inside.parent):
        folder.chmod(0)
    remove_tree(inside.parent)
    assert not inside.parent.exists()
    assert stat.S_IMODE((outside / "folder").stat().st_mode) == 0o500
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o400


def test_actions_of_a_build_share_a_folder_and_the_build_leaves_none(tmp_path: Path) -> None:
    site = Site(tmp_path / "w")
    seen: list[Path] = []

    def grow(execution: Execution) -> Artifact:
        (execution.scratch / "d").mkdir()
        (execution.scratch / "d" / "f").write_text("same")
        return execution.capture(execution.scratch)

    def use(execution: Execution) -> Artifact:
        folder = execution.folder("tree")
        seen.append(folder)
        with pytest.raises(InternalError):
            execution.folder("file")
        return File(execution.store.put((folder / "d" / "f").read_bytes()))

    users = [
        make(f"use/{n}", run=use, inputs={"tree": Ref("grow"), "file": Ref("grow", "d/f")}, say=str(n))
        for n in range(4)
    ]
    failing = make("fail", run=lambda execution: [execution.folder("tree"), 1 / 0], inputs={"tree": Ref("grow")})
    result = site.build([make("grow", run=grow), *users, failing], keep_going=True)
    assert outcomes(result) == {"grow": "executed", "fail": "failed", **{f"use/{n}": "executed" for n in range(4)}}
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert seen[0].is_relative_to(site.store)
    assert list((site.store / "tmp").iterdir()) == []
