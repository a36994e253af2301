from __future__ import annotations

import io
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from strata_engine.blobs import SMALL
from strata_engine.cas import BlobLost, Cas
from strata_engine.codec import Directory, FileNode
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import Diagnostic, HostError
from strata_engine.index import Index
from strata_engine.tree import EMPTY_TREE, File, Tree, assemble, blobs

SIZES = [0, 1, SMALL, SMALL + 1, 300_000, (1 << 20) + 1]
LARGE = b"large" * 1000


class Opened:
    """A CAS, opened again at will as another process would find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[Diagnostic] = []
        self.cas = self.again()

    def again(self, **options: bool) -> Cas:
        index = Index(self.folder, self.said.append)
        self.cas = Cas(self.folder, index, self.said.append, **options)
        return self.cas


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    return Opened(tmp_path / "store")


def file_of(cas: Cas, digest: Digest) -> Path:
    return Path(cas.path(digest))


def damage(path: Path) -> None:
    """Flip a bit, leaving size and mtime as they were."""
    before = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_is_there_before_and_after_a_flush(opened: Opened, tmp_path: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    (tmp_path / "source").write_bytes(data)
    cas = opened.cas
    ways: list[Callable[[], Digest]] = [lambda: cas.put(data), lambda: cas.put_file(tmp_path / "source")]
    for way in ways:
        assert way() == Digest.of(data)

    def check(cas: Cas) -> None:
        digest = Digest.of(data)
        assert cas.has(digest)
        assert cas.get(digest) == data
        with cas.open(digest) as stream:
            stream.seek(size // 2)
            assert stream.read() == data[size // 2 :]
        target = tmp_path / f"out-{time.time_ns()}"
        cas.export(digest, target)
        assert target.read_bytes() == data

    check(cas)
    cas.flush()
    check(cas)
    check(opened.again())
    assert opened.said == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1000, 1 << 17])
def test_a_blob_can_be_written_piece_by_piece(opened: Opened, size: int, piece: int) -> None:
    data = os.urandom(size)
    with opened.cas.writer() as writer:
        for start in range(0, size, piece):
            assert writer.write(memoryview(data)[start : start + piece]) == len(data[start : start + piece])
        digest = writer.commit(Digest.of(data).hash)
    opened.cas.flush()
    assert digest == Digest.of(data)
    assert opened.again().get(digest) == data
    assert list((opened.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_a_blob_with_another_hash_is_not_stored(opened: Opened, data: bytes) -> None:
    with opened.cas.writer() as writer:
        writer.write(data)
        with pytest.raises(ValueError, match="the SHA-256 is"):
            writer.commit(EMPTY.hash)
    assert not opened.cas.has(Digest.of(data))
    assert list((opened.folder / "tmp").iterdir()) == []


def test_what_is_not_committed_leaves_nothing(opened: Opened) -> None:
    def interrupted() -> None:
        with opened.cas.writer() as writer:
            writer.write(LARGE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not opened.cas.has(Digest.of(LARGE))
    assert list((opened.folder / "tmp").iterdir()) == []


def test_blobs_are_stored_once_and_read_only(opened: Opened) -> None:
    path = file_of(opened.cas, opened.cas.put(LARGE))
    before = path.stat()
    assert stat.S_IMODE(before.st_mode) == 0o444
    opened.cas.put(LARGE)
    opened.again().put(LARGE)
    with opened.cas.writer() as writer:
        writer.write(LARGE)
        writer.commit()
    assert path.stat().st_ino == before.st_ino


def test_modes_do_not_depend_on_the_umask(opened: Opened, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        digest = opened.cas.put(LARGE)
        opened.cas.export(digest, tmp_path / "run", executable=True)
        opened.cas.export(opened.cas.put(b"1"), tmp_path / "plain")
    finally:
        os.umask(old)
    assert stat.S_IMODE(file_of(opened.cas, digest).stat().st_mode) == 0o444
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o644


def test_all_that_is_damaged_is_found_and_written_again_at_once(opened: Opened) -> None:
    cas = opened.cas
    data = [LARGE + bytes([number]) for number in range(5)]
    tree = assemble(cas, {f"d{number}/x": File(cas.put(each)) for number, each in enumerate(data)})
    cas.flush()
    for each in data[1:]:
        damage(file_of(cas, Digest.of(each)))
    again = opened.again()
    assert not again.lost(tree)
    assert again.damaged(tree) == sorted(map(Digest.of, data[1:]))
    # From now on nothing is taken for whole because it lies in its place.
    damage(file_of(again, Digest.of(data[0])))
    for each in data:
        again.put(each)
    assert again.damaged(tree) == []


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_export_neither_follows_nor_overwrites(opened: Opened, tmp_path: Path, data: bytes) -> None:
    digest = opened.cas.put(data)
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("victim", "link", "dangling"):
        with pytest.raises(FileExistsError):
            opened.cas.export(digest, tmp_path / name)
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_an_exported_file_is_independent_of_the_store(opened: Opened, tmp_path: Path) -> None:
    digest = opened.cas.put(LARGE)
    opened.cas.export(digest, tmp_path / "out")
    (tmp_path / "out").write_bytes(b"edited")
    assert opened.again().get(digest) == LARGE


READS: list[Callable[[Cas, Digest, Path], object]] = [
    lambda cas, digest, path: cas.get(digest),
    lambda cas, digest, path: cas.open(digest).read(),
    lambda cas, digest, path: cas.export(digest, path / "out"),
]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("verified", [False, True])
def test_a_damaged_file_is_noticed_set_aside_and_said(
    opened: Opened, tmp_path: Path, read: Callable[[Cas, Digest, Path], object], verified: bool
) -> None:
    digest = opened.cas.put(LARGE)
    if verified:
        opened.cas.get(digest)
    time.sleep(0.02)  # a stamp cannot tell two writes within one tick of the clock
    damage(file_of(opened.cas, digest))

    with pytest.raises(BlobLost) as caught:
        read(opened.cas, digest, tmp_path)

    assert caught.value.digest == digest
    assert not (tmp_path / "out").exists()
    assert [said.id for said in opened.said] == ["corrupt-blob"]
    assert not opened.cas.has(digest)
    assert [path.name[:64] for path in (opened.folder / "quarantine").iterdir()] == [digest.hash]
    opened.cas.put(LARGE)
    assert opened.cas.get(digest) == LARGE


@pytest.mark.parametrize("content", [b"", LARGE[:-1], LARGE + b"x"])
def test_a_file_of_another_size_is_not_there(opened: Opened, content: bytes) -> None:
    digest = opened.cas.put(LARGE)
    path = file_of(opened.cas, digest)
    path.unlink()
    path.write_bytes(content)
    cas = opened.again()
    assert not cas.has(digest)
    with pytest.raises(BlobLost):
        cas.get(digest)
    cas.put(LARGE)
    assert cas.get(digest) == LARGE


def test_a_damaged_row_is_noticed_and_said(opened: Opened) -> None:
    digest = opened.cas.put(b"small")
    opened.cas.flush()
    opened.cas.index.put_many({b"b" + bytes.fromhex(digest.hash): b"smell"})
    cas = opened.again()
    with pytest.raises(BlobLost):
        cas.get(digest)
    assert [said.id for said in opened.said] == ["corrupt-blob"]
    cas.put(b"small")
    cas.flush()
    assert opened.again().get(digest) == b"small"


def test_a_digest_with_a_wrong_size_harms_no_blob(opened: Opened) -> None:
    cas = opened.cas
    small, large = cas.put(b"small"), cas.put(LARGE)
    for wrong in (Digest(small.hash, 4), Digest(small.hash, 9999), Digest(large.hash, 9999), Digest(large.hash, 5)):
        assert not cas.has(wrong)
        with pytest.raises(BlobLost):
            cas.get(wrong)
    assert (cas.get(small), cas.get(large), opened.said) == (b"small", LARGE, [])


def test_a_lost_blob_that_was_seen_can_be_put_again(opened: Opened) -> None:
    small, large = opened.cas.put(b"small"), opened.cas.put(LARGE)
    opened.cas.flush()
    other = Cas(opened.folder, Index(opened.folder))
    other.index.clear()
    file_of(other, large).unlink()
    for digest, data in ((small, b"small"), (large, LARGE)):
        with pytest.raises(BlobLost):
            opened.cas.get(digest)
        opened.cas.put(data)
        assert opened.cas.get(digest) == data


def test_what_lies_in_a_blobs_place_is_never_followed_or_waited_for(opened: Opened, tmp_path: Path) -> None:
    digest = opened.cas.put(LARGE)
    path = file_of(opened.cas, digest)
    (tmp_path / "elsewhere").write_bytes(LARGE)
    for plant in (lambda: path.symlink_to(tmp_path / "elsewhere"), lambda: os.mkfifo(path), path.mkdir):
        path.unlink()
        plant()
        cas = opened.again()
        assert not cas.has(digest)
        with pytest.raises(BlobLost):
            cas.get(digest)
        cas.put(LARGE)
        assert cas.get(digest) == LARGE


def test_a_directory_comes_back_and_a_blob_that_is_none_is_lost(opened: Opened) -> None:
    directory = Directory(files=(FileNode("a", EMPTY),))
    digest = opened.cas.save(directory)
    assert opened.cas.load(digest) == directory
    opened.cas.flush()
    assert opened.again().load(digest) == directory
    assert opened.cas.load(EMPTY) == Directory()
    with pytest.raises(BlobLost):
        opened.cas.load(opened.cas.put(b"no directory"))


@pytest.mark.parametrize("victim", ["root", "folder", "large folder", "small", "large"])
def test_a_tree_that_lacks_anything_is_incomplete(opened: Opened, victim: str) -> None:
    cas = opened.cas
    many = {f"many/{number:03}": File(cas.put(b"%d" % number)) for number in range(100)}
    tree = assemble(cas, {"d/small": File(cas.put(b"small")), "d/large": File(cas.put(LARGE)), **many})
    cas.flush()
    assert cas.complete(tree)
    assert cas.lost(tree) == []
    folders = {folder.name: folder.digest for folder in cas.load(tree.root).directories}
    digest = {
        "root": tree.root, "folder": folders["d"], "large folder": folders["many"],
        "small": Digest.of(b"small"), "large": Digest.of(LARGE),
    }[victim]  # fmt: skip
    if digest.size > SMALL:
        file_of(cas, digest).unlink()
    else:
        cas.index.delete([b"b" + bytes.fromhex(digest.hash)])

    assert opened.again().lost(tree) == [digest]
    assert not opened.cas.complete(tree)


def test_the_empty_folder_and_file_need_no_store(opened: Opened) -> None:
    assert opened.cas.complete(EMPTY_TREE)
    assert opened.cas.complete(File(EMPTY))
    assert opened.cas.get(EMPTY) == b""


def test_missing_tells_which(opened: Opened) -> None:
    there = [opened.cas.put(b"%d" % number * 3000) for number in (1, 22)]
    gone = [Digest.of(b"gone"), Digest.of(b"gone" * 5000)]
    opened.cas.flush()
    assert opened.again().missing([*there, *gone]) == set(gone)


def test_threads_share_one_store(opened: Opened) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(400):
                data = b"%d" % (number * 7 % 500) * (1 + number % 3 * 900)
                assert opened.cas.get(opened.cas.put(data)) == data
                if number % 50 == seed:
                    opened.cas.flush()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_processes_share_one_store(opened: Opened) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from strata_engine.cas import Cas; from strata_engine.index import Index\n"
        "folder = Path(sys.argv[1]); cas = Cas(folder, Index(folder))\n"
        "for n in range(300):\n"
        "    data = b'%d' % n * (1 + n % 3 * 1900)\n"
        "    assert cas.get(cas.put(data)) == data\n"
        "    if n % 20 == 0: cas.flush()\n"
        "cas.flush()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(opened.folder)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    wanted = {Digest.of(b"%d" % number * (1 + number % 3 * 1900)) for number in range(300)}
    assert opened.again().missing(wanted) == set()


def test_dead_processes_leftovers_go_after_a_day(opened: Opened) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = opened.folder / "tmp"
    old = time.time() - 100_000
    for name, moment in ((f"{dead.pid}-a", old), (f"{dead.pid}-b", None), (f"{os.getpid()}-c", old)):
        (folder / name).write_text("x")
        if moment:
            os.utime(folder / name, (moment, moment))
    opened.again()
    assert sorted(path.name for path in folder.iterdir()) == sorted([f"{dead.pid}-b", f"{os.getpid()}-c"])


def test_a_full_disk_is_said_and_leaves_nothing(opened: Opened) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(HostError) as caught:
            opened.cas.put(b"x" * 200_000)
        with opened.cas.writer() as writer:
            writer.write(b"y" * 90_000)
            with pytest.raises(HostError):
                writer.write(b"y" * 90_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.diagnostics[0].id == "disk-full"
    assert list((opened.folder / "tmp").iterdir()) == []
    assert list(opened.folder.glob("cas/*/*")) == []


def test_what_cannot_be_flushed_is_kept_until_it_can(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = opened.cas.put(b"small")

    def full(rows: object) -> None:
        raise HostError(Diagnostic("disk-full", "no space left"))

    with monkeypatch.context() as patch:
        patch.setattr(opened.cas.index, "put_many", full)
        with pytest.raises(HostError):
            opened.cas.flush()
    assert opened.cas.get(digest) == b"small"
    opened.cas.flush()
    assert opened.again().get(digest) == b"small"


def test_rows_of_others_are_committed_with_the_blobs_that_wait(opened: Opened) -> None:
    digest = opened.cas.put(b"small")
    opened.cas.flush({b"other": b"row"})
    assert opened.again().get(digest) == b"small"
    assert opened.cas.index.get(b"other") == b"row"


def test_many_small_blobs_flush_themselves(opened: Opened) -> None:
    wanted = {opened.cas.put(b"%d" % number) for number in range(1000)}
    assert opened.again().missing(wanted) == set()


def test_a_durable_store_stores_the_same(opened: Opened) -> None:
    cas = opened.again(durable=True)
    digest = cas.put(LARGE)
    assert opened.again().get(digest) == LARGE


def test_reading_is_use(opened: Opened) -> None:
    digest = opened.cas.put(LARGE)
    path = file_of(opened.cas, digest)
    for use in (lambda cas: cas.has(digest), lambda cas: cas.get(digest), lambda cas: cas.put(LARGE)):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        use(opened.again())
        assert path.stat().st_mtime > time.time() - 100


def test_a_big_file_is_put_in_pieces(opened: Opened, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "big").write_bytes(data)
    digest = opened.cas.put_file(tmp_path / "big")
    assert digest == Digest.of(data)
    stream = opened.cas.open(digest)
    assert isinstance(stream, io.RawIOBase)
    stream.seek(-10, io.SEEK_END)
    assert stream.read() == data[-10:]
    stream.close()
    assert set(blobs(opened.cas, Tree(opened.cas.save(Directory(files=(FileNode("big", digest),)))))) > {digest}
