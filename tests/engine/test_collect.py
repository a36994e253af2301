from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strata_engine.action_cache import Hit, Missing, result_of
from strata_engine.blobs import SMALL
from strata_engine.codec import Action, Command, decode_action, decode_command, encode_action, encode_command
from strata_engine.collect import clear, collect, stats
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic
from strata_engine.known import Explained
from strata_engine.store import LocalStore, open_store
from strata_engine.tree import Artifact, File, Tree, assemble

DAY = 86_400.0
LARGE = 10_000


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return again(tmp_path / "store")


def again(folder: Path) -> LocalStore:
    said: list[Diagnostic] = []
    return open_store(folder, said.append)


def blob(store: LocalStore, name: str, size: int = LARGE) -> File:
    return File(store.cas.put(name.encode().ljust(size, b".")))


def act(store: LocalStore, name: str, output: Artifact) -> Digest:
    """Keep an action with everything that explains it, and its result."""
    source = blob(store, f"source of {name}")
    root = assemble(store.cas, {f"in/{name}": source, "in/deep/er": source})
    command = store.cas.put(encode_command(Command(("strata", name, "v1", "{}"))))
    key = store.cas.put(encode_action(Action(command, root.root)))
    store.cache.put(key, result_of(output))
    return key


def age(store: LocalStore, seconds: float, only: set[Digest] | None = None) -> None:
    """Set the times of last use back, as if nothing had been used since."""
    store.close()
    moment = time.time() - seconds
    connection = sqlite3.connect(store.folder / "cache.db")
    with connection:
        if only is None:
            connection.execute("UPDATE Cache SET access_time = ?", (moment,))
        for digest in only or ():
            connection.execute(
                "UPDATE Cache SET access_time = ? WHERE substr(key, 2) = ?", (moment, bytes.fromhex(digest.hash))
            )
    connection.close()
    for path in store.folder.glob("cas/*/*"):
        if only is None or path.name in {digest.hash for digest in only}:
            os.utime(path, (moment, moment))


def test_stats_count_what_is_there(store: LocalStore) -> None:
    before = stats(store)
    assert (before.results, before.blobs, before.bytes) == (0, 0, 0)
    small, large = blob(store, "small", 10), blob(store, "large")
    store.cache.put(Digest.of(b"k"), result_of(small))
    (store.folder / "tmp" / "1-x").touch()
    (store.folder / "quarantine" / "bad").touch()
    found = stats(store)
    assert (found.results, found.small_blobs, found.small_bytes) == (1, 1, small.digest.size)
    assert (found.large_blobs, found.large_bytes) == (1, large.digest.size)
    assert (found.blobs, found.bytes) == (2, small.digest.size + large.digest.size)
    assert (found.temporary, found.quarantined) == (1, 1)


def test_what_was_used_longest_ago_goes_first(store: LocalStore) -> None:
    files = [blob(store, f"{number}") for number in range(5)]
    small = blob(store, "small", 100)
    store.cas.flush()
    for number, file in enumerate(files):
        age(store, (10 - number) * DAY, {file.digest})
    age(store, 8.5 * DAY, {small.digest})

    gone = collect(store, max_bytes=3 * LARGE)

    assert {file for file in files if store.cas.has(file.digest)} == set(files[2:])
    assert not store.cas.has(small.digest), "it was used before the third"
    assert (gone.blobs, gone.freed_bytes, gone.kept_bytes) == (3, 2 * LARGE + 100, 3 * LARGE)
    assert stats(again(store.folder)).bytes == 3 * LARGE


def test_what_is_too_old_goes_however_little_it_is(store: LocalStore) -> None:
    old, new = blob(store, "old", 10), blob(store, "new", 10)
    key = act(store, "x", old)
    store.cas.flush()
    age(store, 40 * DAY)
    age(store, 20 * DAY, {new.digest})
    collect(store, max_age=30 * DAY)
    fresh = again(store.folder)
    assert fresh.cas.has(new.digest)
    assert not fresh.cas.has(old.digest)
    assert fresh.cache.lookup(key) == Missing()


def test_what_was_used_lately_stays_whatever_the_limit(store: LocalStore) -> None:
    old, read, result = blob(store, "old"), blob(store, "read"), blob(store, "result")
    key = act(store, "x", result)
    age(store, 10 * DAY)
    user = again(store.folder)
    user.cas.get(read.digest)
    user.cache.get(key)
    user.close()
    written = blob(store, "written")

    collect(again(store.folder), max_bytes=0)

    fresh = again(store.folder)
    assert not fresh.cas.has(old.digest)
    assert fresh.cas.get(read.digest)
    assert fresh.cas.get(written.digest)


def test_an_age_of_nothing_spares_nothing_but_pins(store: LocalStore) -> None:
    pinned, other = blob(store, "pinned"), blob(store, "other")
    collect(store, max_age=0, pins=[pinned])
    fresh = again(store.folder)
    assert fresh.cas.has(pinned.digest)
    assert not fresh.cas.has(other.digest)


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_what_a_pinned_key_needs_stays(store: LocalStore, kind: str) -> None:
    folder = {f"lib/{number:03}": blob(store, f"module {number}", 50) for number in range(60)}
    tree = assemble(store.cas, {**folder, "lib/big": blob(store, "big"), "l/a/b": blob(store, "deep")})
    assert store.cas.load(tree.root).directories[1].digest.size > SMALL, "one folder is a file, one a row"
    key = act(store, "kept", tree if kind == "tree" else blob(store, "output"))
    lost = act(store, "lost", blob(store, "other output"))
    age(store, 50 * DAY)

    collect(store, max_bytes=0, max_age=1 * DAY, pins=[key, Digest.of(b"unknown")])

    fresh = again(store.folder)
    found = fresh.cache.lookup(key)
    assert isinstance(found, Hit)
    assert fresh.cas.complete(tree) == (kind == "tree")
    assert fresh.cas.complete(File(Digest.of(b"output".ljust(LARGE, b".")))) == (kind == "file")

    action = decode_action(fresh.cas.get(key))
    assert decode_command(fresh.cas.get(action.command_digest)).arguments[1] == "kept"
    names = [folder.name for folder in fresh.cas.load(action.input_root_digest).directories]
    assert names == ["in"]
    inside = fresh.cas.load(fresh.cas.load(action.input_root_digest).directories[0].digest)
    assert fresh.cas.load(inside.directories[0].digest).files[0].name == "er"
    assert fresh.cache.lookup(lost) == Missing()
    assert not fresh.cas.has(lost)


def test_of_a_recorded_key_what_explains_it_stays_and_not_what_it_gave(store: LocalStore) -> None:
    key = act(store, "kept", blob(store, "output"))
    age(store, 50 * DAY)
    collect(store, max_age=1 * DAY, pins=[Explained(key), Explained(Digest.of(b"unknown"))])
    fresh = again(store.folder)
    action = decode_action(fresh.cas.get(key))
    assert decode_command(fresh.cas.get(action.command_digest)).arguments[1] == "kept"
    assert fresh.cas.load(action.input_root_digest).directories
    assert fresh.cache.lookup(key) == Missing()
    assert not fresh.cas.has(Digest.of(b"output".ljust(LARGE, b".")))


def test_a_pinned_artifact_stays_whole(store: LocalStore) -> None:
    tree = assemble(store.cas, {"a/b": blob(store, "b"), "c": blob(store, "c", 10)})
    age(store, 50 * DAY)
    for pin in (tree, tree.root):
        collect(store, max_bytes=0, pins=[pin])
        assert again(store.folder).cas.complete(tree)
    collect(store, max_bytes=0, pins=[Tree(Digest.of(b"none")), File(Digest.of(b"none"))])
    assert not again(store.folder).cas.complete(tree)


def test_a_result_goes_with_what_it_names(store: LocalStore) -> None:
    output = blob(store, "output")
    tree = assemble(store.cas, {"a/b": output})
    keys = [act(store, "file", output), act(store, "tree", tree), act(store, "other", blob(store, "other"))]
    store.cas.flush()
    age(store, 5 * DAY, {output.digest})

    gone = collect(store, max_age=1 * DAY)

    fresh = again(store.folder)
    assert gone.freed_bytes == LARGE
    assert [type(fresh.cache.lookup(key)) for key in keys] == [Missing, Missing, Hit]


def test_collecting_is_not_using(store: LocalStore) -> None:
    act(store, "x", assemble(store.cas, {"a/b": blob(store, "output"), "c": blob(store, "small", 5)}))
    gone = blob(store, "gone")
    store.cas.flush()
    age(store, 5 * DAY)
    age(store, 9 * DAY, {gone.digest})
    first = again(store.folder)
    assert collect(first, max_age=7 * DAY).blobs == 1
    first.close()
    left = again(store.folder)
    assert collect(left, max_age=4 * DAY).kept_bytes == 0


def test_a_dry_run_says_and_removes_nothing(store: LocalStore) -> None:
    key = act(store, "x", blob(store, "output"))
    age(store, 50 * DAY)
    before = stats(store)
    would = collect(store, max_bytes=0, dry_run=True)
    assert stats(again(store.folder)) == before
    assert again(store.folder).cache.get(key) is not None
    assert collect(store, max_bytes=0) == would


def test_leftovers_are_swept(store: LocalStore) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = time.time() - 10_000
    for path in (store.folder / "tmp" / f"{dead.pid}-x", store.folder / "quarantine" / "y"):
        path.touch()
        os.utime(path, (old, old))
    (store.folder / "corrupt-1-2-cache.db").touch()
    mine = store.folder / "tmp" / f"{os.getpid()}-z"
    mine.touch()
    os.utime(mine, (old, old))
    collect(store)
    assert (stats(store).temporary, stats(store).quarantined) == (1, 0)


def test_clearing_removes_everything_and_the_store_works_on(store: LocalStore) -> None:
    output = blob(store, "output")
    key = act(store, "x", output)
    other = again(store.folder)
    assert other.cas.get(output.digest)

    gone = clear(store)

    assert gone.results == 1
    assert gone.kept_bytes == 0
    found = stats(again(store.folder))
    assert (found.results, found.blobs, found.temporary, found.quarantined) == (0, 0, 0, 0)
    assert store.cache.lookup(key) == Missing()
    assert not store.cas.has(output.digest)
    assert blob(store, "output") == output
    assert store.cas.get(output.digest)
    assert blob(other, "new", 10).digest == blob(store, "new", 10).digest


def test_builds_that_run_meanwhile_lose_nothing_that_they_use(store: LocalStore) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from strata_engine.store import open_store; from strata_engine.action_cache import result_of\n"
        "from strata_engine.tree import File; from strata_engine.digest import Digest\n"
        "store = open_store(Path(sys.argv[1]), print)\n"
        "print(flush=True)\n"
        "for n in range(150):\n"
        "    data = b'%d' % n * (1 + n % 2 * 3000)\n"
        "    digest = store.cas.put(data)\n"
        "    store.cache.put(Digest.of(b'%d' % n), result_of(File(digest)))\n"
        "    assert store.cas.get(digest) == data\n"
    )
    for number in range(150):
        blob(store, f"old {number}", 10 + number % 2 * LARGE)
    age(store, 50 * DAY)
    running = subprocess.Popen([sys.executable, "-c", program, str(store.folder)], stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    while running.poll() is None:
        collect(store, max_bytes=0)
    assert running.stdout.read() == b""
    running.stdout.close()
    assert running.returncode == 0
    fresh = again(store.folder)
    for number in range(150):
        found = fresh.cache.lookup(Digest.of(b"%d" % number))
        assert isinstance(found, Hit)
        assert fresh.cas.get(found.result.output_files[0].digest)
