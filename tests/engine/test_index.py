from __future__ import annotations

import os
import pickle  # noqa: TID251 - what a hostile row holds
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import diskcache
import pytest

from strata_engine.errors import Diagnostic, HostError
from strata_engine.index import Index, Row
from strata_engine.table import BytesDisk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


def database(folder: Path) -> Path:
    return folder / "cache.db"


def test_rows_come_back_as_they_were_put(folder: Path) -> None:
    rows = {b"": b"empty key", b"\x00\xff": b"", b"k": b"\x00" * 5000, **{b"n%d" % n: b"%d" % n for n in range(1200)}}
    index = Index(folder)
    index.put_many(rows)
    index.put_many({b"k": b"new"})
    rows[b"k"] = b"new"
    for opened in (index, Index(folder)):
        assert opened.get_many([*rows, b"none"]) == rows
        assert opened.has_many([*rows, b"none"]) == rows.keys()
        assert opened.get(b"none") is None
        assert opened.get(b"k") == b"new"


def test_keys_are_listed_by_prefix_in_order(folder: Path) -> None:
    index = Index(folder)
    index.put_many({b"b2": b"xy", b"a": b"", b"b1": b"x", b"c": b"", b"b\xff\xff": b""})
    assert index.keys(b"b") == [b"b1", b"b2", b"b\xff\xff"]
    assert index.keys() == [b"a", b"b1", b"b2", b"b\xff\xff", b"c"]
    assert [(row.key, row.size) for row in index.rows(b"b")] == [(b"b1", 1), (b"b2", 2), (b"b\xff\xff", 0)]


def test_rows_are_deleted(folder: Path) -> None:
    index = Index(folder)
    index.put_many({b"a": b"1", b"b": b"2"})
    assert index.delete([b"a", b"none"]) == 1
    assert index.keys() == [b"b"]
    index.clear()
    assert Index(folder).keys() == []


def test_a_group_is_written_whole_or_not_at_all(folder: Path) -> None:
    index = Index(folder)
    index.put_many({b"a": b"1"})
    with pytest.raises((TypeError, sqlite3.Error, HostError)):
        index.put_many({b"b": b"2", b"c": object()})  # type: ignore[dict-item] # what is not bytes
    assert index.keys() == [b"a"]


def test_reading_counts_as_use_and_is_written_with_the_next_group(folder: Path) -> None:
    index = Index(folder)
    index.put_many({b"read": b"", b"not": b"", b"asked": b""})
    backdate(folder, 0.0)

    index.get(b"read")
    index.has_many([b"asked"])
    index.put_many({b"new": b""})

    used = {row.key: row.used for row in Index(folder).rows()}
    assert used[b"not"] == 0.0
    assert min(used[b"read"], used[b"asked"], used[b"new"]) > time.time() - 60
    assert Index(folder).delete(used, unused_since=100.0) == 1
    assert not Index(folder).has_many([b"not"])


def test_uses_are_written_on_closing_unless_forgotten(folder: Path) -> None:
    index = Index(folder)
    index.put_many({b"a": b"1"})
    backdate(folder, 0.0)
    index.get(b"a")
    index.forget_uses()
    index.close()
    assert Index(folder).rows() == [Row(b"a", 1, 0.0)]
    index.get(b"a")
    index.close()
    assert Index(folder).rows()[0].used > 0


def backdate(folder: Path, moment: float) -> None:
    with sqlite3.connect(database(folder)) as connection:
        connection.execute("UPDATE Cache SET access_time = ?", (moment,))
    connection.close()


class Bomb:
    """A value that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def plant(folder: Path, key: object, raw: int, mode: int, filename: str | None, value: object) -> None:
    connection = sqlite3.connect(database(folder))
    with connection:
        connection.execute(
            "INSERT OR REPLACE INTO Cache(key, raw, store_time, access_time, size, mode, filename, value)"
            " VALUES (?, ?, 0, 0, 0, ?, ?, ?)",
            (key, raw, mode, filename, value),
        )
    connection.close()


def test_planted_rows_never_run_and_are_misses(folder: Path, tmp_path: Path) -> None:
    went_off = tmp_path / "went-off"
    bomb = pickle.dumps(Bomb(went_off))
    pickle.loads(bomb)
    assert went_off.exists(), "the bomb works"
    went_off.unlink()
    Index(folder).put_many({b"good": b"1"})
    (folder / "bomb.val").write_bytes(bomb)
    (folder / "text.val").write_text("text")
    plant(folder, b"pickle-value", 1, 4, None, bomb)
    plant(folder, b"pickle-file", 1, 4, "bomb.val", None)
    plant(folder, b"binary-file", 1, 2, "text.val", None)
    plant(folder, b"text-file", 1, 3, "text.val", None)
    plant(folder, b"raw-with-file", 1, 1, "text.val", b"x")
    plant(folder, b"outside", 1, 2, "../../../../etc/hostname", None)
    plant(folder, b"text-value", 1, 1, None, "text")
    plant(folder, b"int-value", 1, 1, None, 5)
    plant(folder, b"null-value", 1, 1, None, None)
    plant(folder, b"unknown-mode", 1, 99, None, b"x")
    plant(folder, "text-key", 1, 1, None, b"x")
    plant(folder, 7, 1, 1, None, b"x")
    plant(folder, bomb, 0, 1, None, b"pickled key")
    plant(folder, pickle.dumps(b"k"), 0, 4, None, bomb)
    names = [
        b"pickle-value", b"pickle-file", b"binary-file", b"text-file", b"raw-with-file", b"outside", b"text-value",
        b"int-value", b"null-value", b"unknown-mode", b"text-key", b"7", bomb, b"k",
    ]  # fmt: skip
    said: list[Diagnostic] = []
    index = Index(folder, said.append)

    assert index.get_many([*names, b"good"]) == {b"good": b"1"}
    assert index.has_many([*names, b"good"]) == {b"good"}
    assert index.keys() == [b"good"]

    index.put_many(dict.fromkeys(names, b"mine"))
    assert Index(folder, said.append).get_many(names) == dict.fromkeys(names, b"mine")
    index.clear()
    index.close()
    assert not went_off.exists()
    assert said == []


def test_diskcache_itself_would_unpickle_nothing(folder: Path, tmp_path: Path) -> None:
    went_off = tmp_path / "went-off"
    bomb = pickle.dumps(Bomb(went_off))
    Index(folder).put_many({b"good": b"1"})
    (folder / "bomb.val").write_bytes(bomb)
    plant(folder, b"value", 1, 4, None, bomb)
    plant(folder, b"file", 1, 4, "bomb.val", None)
    plant(folder, bomb, 0, 1, None, b"x")
    cache = diskcache.Cache(str(folder), disk=BytesDisk)
    assert (cache.get(b"good"), cache.get(b"value"), cache.get(b"file")) == (b"1", None, None)
    with pytest.raises(KeyError):
        list(cache)
    for key, value in ((b"k", {"a": 1}), (("k",), b"v"), (b"k", "text"), (5, b"v")):
        with pytest.raises(TypeError):
            cache.set(key, value)
    cache.set(b"k", b"x" * 100_000)
    assert cache.get(b"k") == b"x" * 100_000
    assert list(folder.glob("??/**/*.val")) == []
    cache.close()
    assert not went_off.exists()


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scrambled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def without_table(path: Path) -> None:
    run_sql(path, "DROP TABLE Cache")


def with_other_table(path: Path) -> None:
    run_sql(path, "DROP TABLE Cache", "CREATE TABLE Cache(key)")


def without_unique_keys(path: Path) -> None:
    run_sql(path, "DROP INDEX Cache_key_raw", "INSERT INTO Cache(key, raw) VALUES (x'01', 1), (x'01', 1)")


def with_odd_settings(path: Path) -> None:
    run_sql(path, "INSERT OR REPLACE INTO Settings VALUES ('disk_surprise', 1), ('eviction_policy', 5)")


def with_refusing_trigger(path: Path) -> None:
    run_sql(path, "CREATE TRIGGER t BEFORE INSERT ON Cache BEGIN SELECT RAISE(ABORT, 'no'); END")


def run_sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


DAMAGES = [
    garbage, truncated, scrambled, without_table, with_other_table, without_unique_keys, with_odd_settings,
    with_refusing_trigger,
]  # fmt: skip


def checkpoint(folder: Path) -> None:
    """Bring all rows from the write-ahead log into the database file."""
    connection = sqlite3.connect(database(folder))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize("harm", DAMAGES)
def test_a_database_found_damaged_is_set_aside_said_and_begun_anew(folder: Path, harm: Callable[[Path], None]) -> None:
    index = Index(folder)
    index.put_many({b"%d" % number: os.urandom(100) for number in range(500)})
    index.close()
    checkpoint(folder)
    for left in folder.glob("cache.db-*"):
        left.unlink()
    harm(database(folder))
    said: list[Diagnostic] = []

    index = Index(folder, said.append)
    index.get_many([b"%d" % number for number in range(500)])
    index.put_many({b"new": b"row"})

    assert index.get(b"new") == b"row"
    assert Index(folder).get(b"new") == b"row"
    if harm is not without_table:  # diskcache makes a table that is simply not there
        assert [warning.id for warning in said] == ["index-corrupt"]
        assert said[0].severity == "warning"
        assert any(path.name.startswith("corrupt-") for path in folder.iterdir())


@pytest.mark.parametrize("harm", [garbage, truncated])
def test_a_database_that_is_damaged_in_use_is_replaced(folder: Path, harm: Callable[[Path], None]) -> None:
    said: list[Diagnostic] = []
    index = Index(folder, said.append)
    index.put_many({b"%d" % number: os.urandom(1000) for number in range(500)})
    checkpoint(folder)
    harm(database(folder))
    for _ in range(2):
        index.put_many({b"new": b"row"})
        assert index.get(b"new") == b"row"
        index.get_many([b"%d" % number for number in range(500)])
    assert len(said) <= 1


def test_two_that_find_the_same_damage_replace_it_once(folder: Path) -> None:
    said: list[Diagnostic] = []
    first, second = Index(folder, said.append), Index(folder, said.append)
    first.put_many({b"%d" % number: os.urandom(1000) for number in range(500)})
    checkpoint(folder)
    garbage(database(folder))

    first.put_many({b"first": b"1"})
    second.put_many({b"second": b"2"})

    assert Index(folder).get_many([b"first", b"second"]) == {b"first": b"1", b"second": b"2"}
    assert len(said) == 1


def test_a_database_emptied_under_a_living_process_is_not_waited_for(folder: Path) -> None:
    index = Index(folder)
    index.put_many({b"a": b"1"})
    database(folder).write_bytes(b"")
    said: list[Diagnostic] = []
    other = Index(folder, said.append)
    other.put_many({b"b": b"2"})
    assert [warning.id for warning in said] == ["index-corrupt"]
    index.put_many({b"c": b"3"})
    assert Index(folder).keys() == [b"b", b"c"]


def test_a_store_that_was_removed_is_begun_anew(folder: Path) -> None:
    index = Index(folder)
    index.put_many({b"a": b"1"})
    for path in folder.iterdir():
        path.unlink()
    index.put_many({b"b": b"2"})
    assert Index(folder).keys() == [b"b"]


def test_a_full_disk_is_said_and_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(folder)
    index.put_many({b"a": b"1"})
    with sqlite3.connect(database(folder)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    index._table._sql(f"PRAGMA max_page_count = {pages + 2}")  # type: ignore[attr-defined] # the nearest to a full disk
    with pytest.raises(HostError) as caught:
        index.put_many({b"big": b"x" * 500_000})
    assert caught.value.diagnostics[0].id == "disk-full"
    assert index.keys() == [b"a"]
    index.put_many({b"b": b"2"})


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that any user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "index"


def as_another_user(work: Callable[[], None]) -> None:
    """Run `work` in a child process to which file modes apply, as they do not to root."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            status = 0
        except BaseException:
            import traceback  # noqa: PLC0415 - only where it failed

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_a_read_only_store_can_be_read(shared: Path, open_elsewhere: bool) -> None:
    index = Index(shared)
    index.put_many({b"a": b"1"})
    if not open_elsewhere:
        index.close()
    shared.chmod(0o555)
    for path in shared.iterdir():
        path.chmod(0o444)

    def work() -> None:
        frozen = Index(shared)
        assert frozen.read_only
        assert frozen.get(b"a") == b"1"
        assert frozen.keys() == [b"a"]
        with pytest.raises(HostError) as caught:
            frozen.put_many({b"b": b"2"})
        assert caught.value.diagnostics[0].id == "store-read-only"
        with pytest.raises(HostError):
            frozen.delete([b"a"])
        frozen.close()

    as_another_user(work)
    shared.chmod(0o755)


def test_a_store_that_cannot_be_made_is_said(shared: Path) -> None:
    shared.parent.chmod(0o555)

    def work() -> None:
        with pytest.raises(HostError) as caught:
            Index(shared)
        assert caught.value.diagnostics[0].id == "store-read-only"

    as_another_user(work)
    shared.parent.chmod(0o755)


def test_threads_use_one_index(folder: Path) -> None:
    index = Index(folder)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(30):
                index.put_many({b"%d-%d" % (seed, number): b"x" * number})
                assert index.get(b"%d-%d" % (seed, number)) == b"x" * number
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(index.keys()) == 180


def test_processes_use_one_index(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from strata_engine.index import Index\n"
        "index = Index(Path(sys.argv[1]))\n"
        "for n in range(60): index.put_many({b'%s-%d' % (sys.argv[2].encode(), n): b'x'})\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(folder), str(seed)]) for seed in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert len(Index(folder).keys()) == 240


def test_a_killed_writer_leaves_a_store_that_works(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from strata_engine.index import Index\n"
        "index = Index(Path(sys.argv[1]))\n"
        "print(flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; index.put_many({b'%d-%d' % (n, part): b'x' * 1000 for part in range(20)})\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    time.sleep(0.2)
    running.kill()
    running.wait()
    running.stdout.close()
    index = Index(folder)
    assert len(index.keys()) % 20 == 0
    index.put_many({b"after": b"1"})
