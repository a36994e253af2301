"""A shared folder as a remote cache: what lies in it, who may read it, and whatever others put there."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sinks import calm

from strata_engine.cas import BlobLost, Cas
from strata_engine.digest import EMPTY, Digest
from strata_engine.index import Index
from strata_engine.remote.backend import LARGEST_RESULT, Brought, Fault, Trouble
from strata_engine.remote.folder import FolderCache

BIG = bytes(range(256)) * 12_000
BLOB = Digest.of(BIG)
KEY = Digest.of(b"key")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def cache(folder: Path) -> FolderCache:
    return FolderCache(str(folder), f"file://{folder}")


@pytest.fixture
def store(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "store", Index(tmp_path / "store"))


def place(folder: Path, digest: Digest, kind: str = "cas") -> Path:
    return folder / kind / digest.hash[:2] / digest.hash


def test_everything_goes_there_and_comes_back(cache: FolderCache, folder: Path, store: Cas) -> None:
    blobs = {Digest.of(data): data for data in (b"a", b"b" * 5000, b"")}
    assert cache.capabilities(calm).writable is True
    assert cache.get_result(KEY, calm) is None
    assert not cache.read(BLOB, store.writer, calm)
    assert cache.missing([*blobs, BLOB], calm) == {*blobs, BLOB} - {EMPTY}
    assert cache.read_many(blobs, calm) == Brought({EMPTY: b""})
    assert list(folder.iterdir()) == []
    cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    cache.write_many(blobs, calm)
    cache.put_result(KEY, b"old", calm)
    cache.put_result(KEY, b"result", calm)
    assert cache.get_result(KEY, calm) == b"result"
    assert cache.missing([*blobs, BLOB], calm) == set()
    assert cache.read_many(blobs, calm) == Brought(blobs)
    assert cache.read(BLOB, store.writer, calm)
    assert cache.read(EMPTY, store.writer, calm)
    assert store.get(BLOB) == BIG
    # The layout of Bazel's disk cache, and nothing else.
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    names = {f"cas/{digest.hash[:2]}/{digest.hash}" for digest in (BLOB, *blobs) if digest != EMPTY}
    assert files == names | {f"ac/{KEY.hash[:2]}/{KEY.hash}"}


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o2775, 0o777])
def test_what_is_made_is_as_open_as_the_folder_and_nobody_writes_to_it(
    cache: FolderCache, folder: Path, mode: int
) -> None:
    folder.chmod(mode)
    before = os.umask(0o077)
    try:
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    finally:
        os.umask(before)
    path = place(folder, BLOB)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent.parent, path.parent)] == [mode, mode]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


WRONG = {"other bytes": BIG[:-1] + b"\0", "shorter": BIG[:-1], "longer": BIG + b"\0", "nothing": b""}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_bytes_are_given_to_nobody_and_make_room(
    cache: FolderCache, folder: Path, store: Cas, wrong: bytes
) -> None:
    small = Digest.of(b"small")
    for digest in (BLOB, small):
        place(folder, digest).parent.mkdir(parents=True)
        place(folder, digest).write_bytes(wrong)
    assert (BLOB in cache.missing([BLOB], calm)) == (len(wrong) != len(BIG))
    with pytest.raises(Fault) as error:
        cache.read(BLOB, store.writer, calm)
    assert error.value.trouble is Trouble.BROKEN
    with pytest.raises(BlobLost):
        store.get(BLOB)
    assert cache.read_many([small], calm) == Brought({}, frozenset({small}))
    assert cache.missing([BLOB, small], calm) == {BLOB, small}
    cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert cache.read(BLOB, store.writer, calm)


def test_what_is_no_file_is_neither_followed_nor_waited_for(cache: FolderCache, folder: Path, store: Cas) -> None:
    (folder.parent / "secret").write_bytes(BIG)
    path = place(folder, BLOB)
    path.parent.mkdir(parents=True)
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path)):
        make()
        assert cache.missing([BLOB], calm) == {BLOB}
        assert not cache.read(BLOB, store.writer, calm)
        assert cache.read_many([BLOB], calm) == Brought({})
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        assert cache.read(BLOB, store.writer, calm)
        path.unlink()
    path.mkdir()
    assert cache.missing([BLOB], calm) == {BLOB}
    assert not cache.read(BLOB, store.writer, calm)
    with pytest.raises(Fault) as error:
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert error.value.trouble is Trouble.FAILING


@pytest.mark.parametrize("where", ["kind", "prefix"])
def test_nothing_is_written_through_a_link_that_somebody_put_there(
    cache: FolderCache, folder: Path, where: str
) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    if where == "kind":
        (folder / "cas").symlink_to(elsewhere)
    else:
        (folder / "cas").mkdir()
        (folder / "cas" / BLOB.hash[:2]).symlink_to(elsewhere)
    with pytest.raises(Fault):
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert list(elsewhere.iterdir()) == []


def test_a_name_that_is_no_digest_becomes_no_path(cache: FolderCache, folder: Path, store: Cas) -> None:
    for hash_ in ("../../etc/passwd", "", "A" * 64, "a" * 63 + "/"):
        bad = Digest(hash_, 1)
        for call in (
            lambda: cache.get_result(bad, calm),  # noqa: B023 - called at once
            lambda: cache.put_result(bad, b"", calm),  # noqa: B023 - called at once
            lambda: cache.read(bad, store.writer, calm),  # noqa: B023 - called at once
            lambda: cache.write(bad, lambda: io.BytesIO(b"x"), calm),  # noqa: B023 - called at once
            lambda: cache.missing([bad], calm),  # noqa: B023 - called at once
        ):
            with pytest.raises(ValueError, match="not a digest"):
                call()
    assert list(folder.iterdir()) == []


def test_where_nothing_is_mounted_nothing_is_made(tmp_path: Path) -> None:
    cache = FolderCache(str(tmp_path / "absent"), "file:///absent")
    for call in (
        lambda: cache.capabilities(calm),
        lambda: cache.put_result(KEY, b"x", calm),
        lambda: cache.write(BLOB, lambda: io.BytesIO(BIG), calm),
    ):
        with pytest.raises(Fault) as error:
            call()
        assert error.value.trouble is Trouble.UNREACHABLE
    assert error.value.diagnostics[0].message == (
        "cannot reach the remote cache `file:///absent`: No such file or directory"
    )
    assert cache.get_result(KEY, calm) is None
    assert not (tmp_path / "absent").exists()


SYSTEM = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EROFS: Trouble.REFUSED,
    errno.EACCES: Trouble.REFUSED,
    errno.ESTALE: Trouble.UNREACHABLE,
    errno.EIO: Trouble.FAILING,
}


@pytest.mark.parametrize(("number", "trouble"), SYSTEM.items(), ids=[os.strerror(number) for number in SYSTEM])
@pytest.mark.parametrize("call", ["fsync", "rename", "open"])
def test_what_the_system_refuses_is_a_fault_and_leaves_nothing(
    cache: FolderCache, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, trouble: Trouble
) -> None:
    real = getattr(os, call)

    def refusing(*given: object, **more: object) -> object:
        if call == "open" and not str(given[0]).endswith(".tmp"):
            return real(*given, **more)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refusing)
        with pytest.raises(Fault) as error:
            cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert (error.value.trouble, error.value.text) == (trouble, os.strerror(number))
    assert [path for path in folder.rglob("*") if not path.is_dir()] == []


def test_a_folder_that_cannot_sync_names_is_good_enough(
    cache: FolderCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert cache.missing([BLOB], calm) == set()


def test_a_write_that_is_cancelled_or_short_leaves_nothing(cache: FolderCache, folder: Path) -> None:
    calls = iter(range(3))

    def check() -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.write(BLOB, lambda: io.BytesIO(BIG), check)
    with pytest.raises(ValueError, match="shorter"):
        cache.write(BLOB, lambda: io.BytesIO(BIG[:-1]), calm)
    assert [path for path in folder.rglob("*") if not path.is_dir()] == []


def test_a_result_that_is_too_large_is_a_fault(cache: FolderCache, folder: Path) -> None:
    path = place(folder, KEY, "ac")
    path.parent.mkdir(parents=True)
    with path.open("wb") as stream:
        stream.truncate(LARGEST_RESULT + 1)
    with pytest.raises(Fault) as error:
        cache.get_result(KEY, calm)
    assert error.value.trouble is Trouble.BROKEN


WRITER = """
import io, sys
from strata_engine.digest import Digest
from strata_engine.remote.folder import FolderCache
cache = FolderCache(sys.argv[1], "shown")
for index in range(60):
    data = b"%d" % (index % 20) * 20_000
    cache.write(Digest.of(data), lambda: io.BytesIO(data), lambda: None)
    cache.put_result(Digest.of(b"key"), data, lambda: None)
"""


def test_many_writers_and_readers_at_once_see_whole_files_alone(cache: FolderCache, folder: Path, store: Cas) -> None:
    all_ = {Digest.of(data): data for data in (b"%d" % index * 20_000 for index in range(20))}
    with many_writers(folder) as writers:
        while any(writer.poll() is None for writer in writers):
            brought = cache.read_many(all_, calm)
            assert not brought.wrong
            assert all(all_[digest] == data for digest, data in brought.blobs.items())
            assert cache.get_result(KEY, calm) in {None, *all_.values()}
        assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert cache.missing(all_, calm) == set()
    assert len([path for path in folder.rglob("*") if not path.is_dir()]) == len(all_) + 1


@contextmanager
def many_writers(folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(folder)]) for _ in range(3)]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
