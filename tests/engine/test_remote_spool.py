"""What waits to be sent, on a disk that others write on too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata_engine.digest import Digest
from strata_engine.remote import spool as module
from strata_engine.remote.spool import FOLDER, Entry, Spool

URL = "http://host"


def key(number: int) -> Digest:
    return Digest.of(b"%d" % number)


def put(spool: Spool, number: int, size: int = 0, at: int | None = None) -> Entry:
    entry = Entry(key(number), "main", size)
    spool.add(entry)
    path = spool.folder / f"{entry.key.hash}-{entry.key.size}"
    os.utime(path, ns=(at or number, at or number))
    return entry


def test_what_waits_is_found_again_the_oldest_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path, URL)
    assert spool.entries() == []
    later, earlier = put(spool, 1, at=20), put(spool, 2, at=10)
    other = Entry(key(3), "pr/17", 1 << 40, made=False)
    spool.add(other._replace(size=7))
    assert Spool(tmp_path, URL).entries() == [earlier, later, other._replace(size=7)]
    spool.remove(earlier.key)
    spool.remove(earlier.key)
    assert Spool(tmp_path, URL).entries()[0] == later


def test_remotes_and_their_spools_are_apart(tmp_path: Path) -> None:
    put(Spool(tmp_path, URL), 1)
    assert Spool(tmp_path, "http://other").entries() == []
    assert URL not in "".join(str(path) for path in (tmp_path / FOLDER).rglob("*"))


def test_what_is_offered_again_waits_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, URL)
    spool.add(Entry(key(1), "main", 5, made=False))
    spool.add(Entry(key(1), "main", 6))
    assert spool.entries() == [Entry(key(1), "main", 6)]


def test_the_oldest_are_dropped_where_it_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    monkeypatch.setattr(module, "KEPT_BYTES", 100)
    spool = Spool(tmp_path, URL)
    entries = [put(spool, number) for number in range(1, 6)]
    assert spool.entries() == entries[2:]
    large = put(spool, 9, size=90)
    assert spool.entries() == [*entries[3:], large]
    larger = put(spool, 10, size=60)
    # What is too large for what is left goes, what is older and small stays.
    assert spool.entries() == [*entries[3:], larger]
    assert len(list(spool.folder.iterdir())) == 3


@given(st.binary(max_size=80))
@settings(deadline=None, max_examples=30)
def test_what_somebody_has_written_there_is_no_entry(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, URL)
    put(spool, 1)
    [path] = spool.folder.iterdir()
    good = path.read_bytes()
    path.write_bytes(data)
    (spool.folder / "not a key").write_bytes(good)
    (spool.folder / f"{'g' * 64}-3").write_bytes(good)
    # Another key's entry under this one's name.
    (spool.folder / f"{key(2).hash}-{key(2).size}").write_bytes(good)
    assert spool.entries() == []
    assert list(spool.folder.iterdir()) == []


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, URL)
    put(spool, 1)
    (spool.folder / ".something.123-abc.tmp").write_bytes(b"half")
    assert len(spool.entries()) == 1
    assert len(list(spool.folder.iterdir())) == 2


def test_a_folder_that_cannot_be_used_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    spool = Spool(tmp_path, URL)
    spool.add(Entry(key(1), "main"))
    spool.remove(key(1))
    assert spool.entries() == []


def test_an_entry_that_is_a_folder_or_gone_is_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path, URL)
    entry = put(spool, 2)
    (spool.folder / f"{key(1).hash}-{key(1).size}").mkdir()
    (spool.folder / f"{key(3).hash}-{key(3).size}").symlink_to("nowhere")
    assert spool.entries() == [entry]
