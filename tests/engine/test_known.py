from __future__ import annotations

import shutil
from pathlib import Path

from strata_engine import known
from strata_engine.digest import Digest
from strata_engine.history import History, Past
from strata_engine.tree import File, Tree
from strata_engine.workspace import Workspace

KEY, OUT = Digest.of(b"key"), Digest.of(b"out")


def workspace(folder: Path) -> Workspace:
    folder.mkdir()
    made = Workspace(folder)
    made.prepare()
    return made


def test_what_known_workspaces_need(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    assert list(known.needs(store)) == []
    one, two = workspace(tmp_path / "one"), workspace(tmp_path / "two\udcff")
    for each in (one, two, one):
        known.remember(store, each)
    history = History(one.state / "history")
    history.record("a/link", Past.of(KEY, Tree(OUT), 1.0))
    history.record("a/fetch", Past.of(KEY, File(OUT, executable=True), 1.0))
    history.record("a/failed", Past.of(KEY, None, 1.0))
    history.save()
    assert sorted(map(str, known.needs(store))) == sorted(map(str, [KEY, Tree(OUT), KEY, File(OUT, True)]))
    assert {each.root for each in known.workspaces(store)} == {one.root, two.root}


def test_what_is_gone_or_planted_is_forgotten(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    gone = workspace(tmp_path / "gone")
    known.remember(store, gone)
    (store / known.FOLDER / "planted").write_bytes(b"relative")
    (store / known.FOLDER / "nul").write_bytes(b"/a\0b")
    shutil.rmtree(gone.root)
    assert list(known.workspaces(store)) == []
    assert [path.name for path in (store / known.FOLDER).iterdir()] in ([], ["nul"])


def test_a_store_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    known.remember(tmp_path / "store", workspace(tmp_path / "one"))
    assert list(known.workspaces(tmp_path / "store")) == []
