from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from strata_engine import known
from strata_engine.digest import Digest
from strata_engine.history import History, Past
from strata_engine.remote.signing import public_key, signing_key
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


def blob(folder: Path, digest: Digest) -> Path:
    return folder / "store" / "cas" / digest.hash[:2] / digest.hash


def test_verify_reads_all_and_says_what_was_damaged(tmp_path: Path) -> None:
    needed, _ = filled(tmp_path)
    clean = cache("verify", cwd=tmp_path)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout == "read             0 results and 2 blobs, 300.0 kB\ndamaged          nothing\n"
    blob(tmp_path, needed).chmod(0o644)
    blob(tmp_path, needed).write_bytes(b"n" * 99_999 + b"x")
    found = cache("verify", cwd=tmp_path)
    assert found.returncode == 3
    assert found.stdout.endswith("\ndamaged          0 results and 1 blob, 100.0 kB\n")
    assert "warning[corrupt-blob]: " in found.stderr
    again = cache("verify", "--json", cwd=tmp_path)
    assert again.returncode == 0
    assert json.loads(again.stdout) == {
        "schema": "strata.cache-verify",
        "version": 1,
        "clean": True,
        "results": 0,
        "blobs": 1,
        "bytes": 200_000,
        "damaged_results": 0,
        "damaged_blobs": 0,
        "damaged_bytes": 0,
        "incomplete_results": 0,
    }


def test_verify_tells_of_much_damage_in_few_lines(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", lambda diagnostic: None)
    for number in range(15):
        digest = store.cas.put(b"%02d" % number * 5_000)
        blob(tmp_path, digest).unlink()
        blob(tmp_path, digest).write_bytes(b"x" * 5_000)
    store.close()
    found = cache("verify", cwd=tmp_path)
    assert found.returncode == 3
    assert found.stderr.count("warning[corrupt-blob]") == 10
    assert found.stderr.endswith("and 5 more\n")


def test_keygen_writes_a_key_once_that_only_its_owner_reads(tmp_path: Path) -> None:
    made = cache("keygen", "key.pem", cwd=tmp_path)
    key = tmp_path / "key.pem"
    assert (made.returncode, made.stderr) == (0, "the private key is in key.pem: nobody else may read it\n")
    assert key.stat().st_mode & 0o777 == 0o600
    found = signing_key({"STRATA_SIGNING_KEY": str(key)})
    assert found is not None
    assert public_key(made.stdout) == found.public
    pem = key.read_bytes()
    again = cache("keygen", "key.pem", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error[key-exists]: `key.pem` is there already\n")
    assert key.read_bytes() == pem
    nowhere = cache("keygen", "no/key.pem", cwd=tmp_path)
    assert (nowhere.returncode, nowhere.stdout) == (3, "")
    assert nowhere.stderr.startswith("error[host-error]: cannot use `no/key.pem`: No such file or directory")
