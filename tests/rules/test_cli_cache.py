from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from strata_engine import known
from strata_engine.digest import Digest
from strata_engine.history import History, Past
from strata_engine.store import open_store
from strata_engine.tree import File
from strata_engine.workspace import Workspace


def cache(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "strata_rules.entry", "cache", *arguments],
        cwd=cwd,
        env=os.environ | {"STRATA_CACHE_DIR": str(cwd / "store")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def filled(folder: Path) -> tuple[Digest, Digest]:
    """Make a store with a blob that a known workspace needs, and one that nobody does."""
    store = open_store(folder / "store", lambda diagnostic: None)
    needed, other = store.cas.put(b"n" * 100_000), store.cas.put(b"o" * 200_000)
    store.close()
    workspace = Workspace(folder)
    workspace.prepare()
    history = History(workspace.state / "history")
    history.record("a/link", Past.of(Digest.of(b"key"), File(needed), 1.0))
    history.save()
    known.remember(folder / "store", workspace)
    return needed, other


def stats(folder: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads(cache("stats", "--json", cwd=folder).stdout)
    return document


def test_stats(tmp_path: Path) -> None:
    filled(tmp_path)
    assert stats(tmp_path) == {
        "schema": "strata.cache-stats",
        "version": 1,
        "folder": str(tmp_path / "store"),
        "results": 0,
        "blobs": 2,
        "bytes": 300_000,
        "small_blobs": 0,
        "small_bytes": 0,
        "large_blobs": 2,
        "large_bytes": 300_000,
        "temporary": 0,
        "quarantined": 0,
        "workspaces": 1,
    }
    assert "2 (300.0 kB)" in cache("stats", cwd=tmp_path).stdout


def test_gc_keeps_what_a_known_workspace_needs(tmp_path: Path) -> None:
    filled(tmp_path)
    would = cache("gc", "--max-age", "0", "--dry-run", cwd=tmp_path)
    assert (would.returncode, would.stdout) == (0, "")
    assert would.stderr == "would remove 0 results and 1 blob, 200.0 kB; 100.0 kB stay\n"
    assert stats(tmp_path)["bytes"] == 300_000
    done = cache("gc", "--max-age", "0", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "schema": "strata.cache-gc",
        "version": 1,
        "dry_run": False,
        "removed": 1,
        "results": 0,
        "blobs": 1,
        "freed_bytes": 200_000,
        "kept_bytes": 100_000,
    }
    assert stats(tmp_path)["bytes"] == 100_000


def test_clear_removes_all(tmp_path: Path) -> None:
    filled(tmp_path)
    assert cache("clear", "-q", cwd=tmp_path).stderr == ""
    assert stats(tmp_path)["bytes"] == 0


def test_sizes_and_ages_are_diagnosed(tmp_path: Path) -> None:
    for arguments in (["gc"], ["gc", "--max-size", "ten"], ["gc", "--max-age", "3 moons"]):
        done = cache(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "\nhint: " in done.stderr
