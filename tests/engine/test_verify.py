"""Reading the whole store: what is found, what is set aside, and what is left alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from strata_engine.action_cache import result_of
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic
from strata_engine.store import LocalStore, open_store
from strata_engine.tree import File, assemble
from strata_engine.verify import Verified, verify

LARGE, SMALL = b"l" * 100_000, b"small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a store with two results: a folder of a large and a small file, and the large one alone."""
    store = opened(tmp_path / "store")
    nodes = {"lib/large": File(store.cas.put(LARGE)), "small": File(store.cas.put(SMALL))}
    store.cache.put(Digest.of(b"tree"), result_of(assemble(store.cas, nodes)))
    store.cache.put(Digest.of(b"file"), result_of(File(Digest.of(LARGE))))
    store.close()
    return tmp_path / "store"


def opened(folder: Path, told: list[Diagnostic] | None = None) -> LocalStore:
    return open_store(folder, (lambda diagnostic: None) if told is None else told.append)


def verified(folder: Path, told: list[Diagnostic] | None = None) -> Verified:
    store = opened(folder, told)
    try:
        return verify(store)
    finally:
        store.close()


def large(folder: Path) -> Path:
    name = Digest.of(LARGE).hash
    return folder / "cas" / name[:2] / name


def spoil(folder: Path, prefix: bytes, condition: str = "1") -> int:
    with sqlite3.connect(folder / "cache.db") as database:
        query = f"UPDATE Cache SET value = x'0102' WHERE substr(key, 1, 1) = ? AND {condition}"
        return database.execute(query, (prefix,)).rowcount


def test_a_whole_store_is_clean_and_stays_as_it_was_used(folder: Path) -> None:
    os.utime(large(folder), (1_000_000_000, 1_000_000_000))
    with sqlite3.connect(folder / "cache.db") as database:
        database.execute("UPDATE Cache SET access_time = 5.0")
    found = verified(folder)
    assert (found.clean, found.results, found.blobs, found.damaged_bytes, found.incomplete_results) == (
        True,
        2,
        4,
        0,
        0,
    )
    assert found.bytes > len(LARGE) + len(SMALL)
    assert large(folder).stat().st_mtime == 1_000_000_000
    with sqlite3.connect(folder / "cache.db") as database:
        assert {used for (used,) in database.execute("SELECT access_time FROM Cache")} == {5.0}


@pytest.mark.parametrize("content", [LARGE[:-1] + b"x", LARGE[:-1], LARGE + b"x", b"", b"tiny"])
def test_a_damaged_file_is_set_aside(folder: Path, content: bytes) -> None:
    large(folder).chmod(0o644)
    large(folder).write_bytes(content)
    told: list[Diagnostic] = []
    found = verified(folder, told)
    assert (found.clean, found.damaged_blobs, found.damaged_bytes) == (False, 1, len(content))
    assert (found.damaged_results, found.incomplete_results) == (0, 2)
    assert [diagnostic.id for diagnostic in told] == ["corrupt-blob"]
    (aside,) = (folder / "quarantine").iterdir()
    assert aside.read_bytes() == content
    again = verified(folder)
    assert (again.clean, again.blobs, again.incomplete_results) == (True, 3, 2)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_lies_in_the_place_of_a_file_is_neither_followed_nor_waited_for(folder: Path, kind: str) -> None:
    path = large(folder)
    path.unlink()
    if kind == "link":
        (folder / "elsewhere").write_bytes(LARGE)
        path.symlink_to(folder / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    found = verified(folder)
    assert (found.clean, found.damaged_blobs, found.incomplete_results) == (False, 1, 2)
    assert not os.path.lexists(path)


def test_a_damaged_row_is_set_aside(folder: Path) -> None:
    assert spoil(folder, b"b", f"key = x'62{Digest.of(SMALL).hash}'") == 1
    told: list[Diagnostic] = []
    found = verified(folder, told)
    assert (found.damaged_blobs, found.damaged_bytes, found.incomplete_results) == (1, 2, 1)
    assert [diagnostic.id for diagnostic in told] == ["corrupt-blob"]
    again = verified(folder)
    assert (again.clean, again.blobs) == (True, 3)


def test_a_damaged_result_is_forgotten(folder: Path) -> None:
    assert spoil(folder, b"a") == 2
    found = verified(folder)
    assert (found.clean, found.damaged_results, found.damaged_blobs) == (False, 2, 0)
    again = verified(folder)
    assert (again.clean, again.results, again.blobs) == (True, 0, 4)


def test_what_is_missing_is_no_damage(folder: Path) -> None:
    shutil.rmtree(folder / "cas")
    found = verified(folder)
    assert (found.clean, found.blobs, found.incomplete_results) == (True, 3, 2)


def test_an_empty_store_is_clean(tmp_path: Path) -> None:
    assert verified(tmp_path / "store") == Verified(0, 0, 0, 0, 0, 0, 0)
