"""What one result takes with it to a remote, and what keeps it here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caches import Hostile
from sinks import Seen

from strata_engine.action_cache import result_of
from strata_engine.cas import BlobLost, Cas
from strata_engine.codec import ActionResult, decode_action_result
from strata_engine.digest import CHUNK, Digest
from strata_engine.index import Index
from strata_engine.remote.backend import Fault
from strata_engine.remote.folder import FolderCache
from strata_engine.remote.http import HttpCache
from strata_engine.remote.reads import ALONE
from strata_engine.remote.results import LOGGED
from strata_engine.remote.sends import Private, Sent, send
from strata_engine.tree import File, Node, Symlink, Tree, assemble

ADDRESS = Digest.of(b"address")
SECRET = b"/home/somebody/project/"


@pytest.fixture
def store(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "store", Index(tmp_path / "store"))


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


def nothing() -> None:
    """Ask for nothing to be stopped."""


def sent(server: Hostile, store: Cas, result: ActionResult, **more: Any) -> Sent:
    cache = HttpCache(server.url)
    try:
        return send(cache, store, result, ADDRESS, nothing, **({"there": set(), "remembered": Seen()} | more))
    finally:
        cache.close()


def kept(server: Hostile, digest: Digest) -> bytes | None:
    return server.blobs.get(f"/cas/{digest.hash}")


def test_every_blob_goes_once_and_the_result_last(server: Hostile, store: Cas) -> None:
    small, large = b"x" * 70_000, b"y" * (ALONE + 1)
    nodes: dict[str, Node] = {
        "a": File(store.put(small)),
        "b/a": File(store.put(small), executable=True),
        "c": File(store.put(large)),
        "link": Symlink("b/a"),
    }
    result = result_of(assemble(store, nodes))
    went = sent(server, store, result)
    puts = [path for method, path, _ in server.seen if method == "PUT"]
    assert puts[-1] == f"/ac/{ADDRESS.hash}"
    assert len(set(puts)) == len(puts) == went.blobs + 1 == 4
    assert kept(server, Digest.of(small)) == small
    assert kept(server, Digest.of(large)) == large
    assert went.size == sum(len(data) for path, data in server.blobs.items() if "/cas/" in path)
    again = sent(server, store, result)
    assert again == Sent(0, 0)


def many(store: Cas, count: int = 40) -> Tree:
    """Make a folder of many small files, one of them at its top."""
    nodes: dict[str, Node] = {f"lib/m{i}.py": File(store.put(b"%d " % i * 3000)) for i in range(count)}
    return assemble(store, {**nodes, "facts.json": File(store.put(b"{}" * 3000))})


def test_small_files_of_a_folder_go_together_but_for_those_at_its_top(server: Hostile, store: Cas) -> None:
    tree, seen = many(store), Seen()
    went = sent(server, store, result_of(tree), remembered=seen)
    assert seen.shows_packed is True
    assert kept(server, Digest.of(b"{}" * 3000)) is not None
    assert kept(server, Digest.of(b"0 " * 3000)) is None
    cas = [path for path in server.blobs if "/cas/" in path]
    # The Tree message, the file at the top, and a pack.
    assert (len(cas), went.blobs) == (3, 3)
    assert went.size == sum(len(server.blobs[path]) for path in cas)
    assert sent(server, store, result_of(tree), remembered=seen) == Sent(0, 0)


def test_a_server_that_hides_what_lacks_blobs_is_sent_each(server: Hostile, store: Cas) -> None:
    def manner(number: int, method: str, path: str) -> str:
        lacks = f"/cas/{Digest.of(b'0 ' * 3000).hash}" not in server.blobs
        return "404" if method == "GET" and path == f"/ac/{ADDRESS.hash}" and lacks else "well"

    server.manner = manner
    seen = Seen()
    sent(server, store, result_of(many(store)), remembered=seen)
    assert seen.shows_packed is False
    assert kept(server, Digest.of(b"0 " * 3000)) == b"0 " * 3000
    puts = [path for method, path, _ in server.seen if method == "PUT"]
    assert puts[-1] == f"/ac/{ADDRESS.hash}"
    # From then on there are no packs, and nothing is read back.
    before = len(server.seen)
    other = sent(server, store, result_of(many(store, 50)), remembered=seen)
    assert other.blobs == 11
    assert [path for method, path, _ in server.seen[before:] if method == "GET"] == []


def test_a_path_of_this_machine_in_a_pack_stays_here(server: Hostile, store: Cas) -> None:
    nodes: dict[str, Node] = {f"lib/{i}": File(store.put(b"%d " % i * 3000)) for i in range(20)}
    tree = assemble(store, {**nodes, "lib/x": File(store.put(b"from /home/me/stack/ " * 300))})
    with pytest.raises(Private):
        sent(server, store, result_of(tree), secrets=[b"/home/me/stack/"])
    assert not any(b"/home/me" in data for data in server.blobs.values())


def test_what_is_known_to_be_there_is_not_asked_for(server: Hostile, store: Cas) -> None:
    one, other = store.put(b"1" * 5000), store.put(b"2" * 5000)
    there: set[Digest] = {one}
    sent(server, store, result_of(File(one)), there=there)
    assert [method for method, _, _ in server.seen] == ["PUT"]
    sent(server, store, result_of(File(other)), there=there)
    assert there == {one, other}


def test_what_is_spoiled_there_is_sent_though_something_is_in_its_place(server: Hostile, store: Cas) -> None:
    one = store.put(b"1" * 5000)
    server.blobs[f"/cas/{one.hash}"] = b"2" * 5000
    seen = Seen(one, Digest.of(b"of another result"))
    assert sent(server, store, result_of(File(one)), remembered=seen, there={one}).blobs == 1
    assert kept(server, one) == b"1" * 5000
    assert seen.spoiled == {Digest.of(b"of another result")}


def test_a_blob_that_cannot_go_keeps_the_result_here(server: Hostile, store: Cas) -> None:
    one = store.put(b"1" * 5000)
    server.manner = lambda number, method, path: "413" if method == "PUT" and "/cas/" in path else "well"
    there: set[Digest] = set()
    with pytest.raises(Fault):
        sent(server, store, result_of(File(one)), there=there)
    assert (server.blobs, there) == ({}, set())


def test_what_is_lost_here_is_not_sent(server: Hostile, store: Cas) -> None:
    for size in (100, 70_000, ALONE + 1):
        with pytest.raises(BlobLost):
            sent(server, store, result_of(File(Digest.of(b"z" * size))))
    assert server.blobs == {}


@pytest.mark.parametrize("at", [0, CHUNK - 3, CHUNK - len(SECRET), 2 * CHUNK - 1])
def test_a_file_that_names_a_place_of_this_machine_stays(server: Hostile, store: Cas, at: int) -> None:
    data = b"." * at + SECRET + b"." * 40
    result = result_of(File(store.put(data)))
    with pytest.raises(Private, match="names a place of this machine"):
        sent(server, store, result, secrets=(b"/other/", SECRET))
    assert server.blobs == {}
    # All but its last byte is none.
    assert sent(server, store, result, secrets=(SECRET + b"x",)).blobs == 1


def test_names_links_and_messages_are_looked_through_as_well(server: Hostile, store: Cas) -> None:
    place = SECRET.decode().strip("/")
    blob = File(store.put(b"x"))
    long = b"." * (LOGGED + 1) + SECRET
    for result in (
        result_of(assemble(store, {f"{place}/x": blob})),
        result_of(assemble(store, {"x": Symlink("x/" + place), "y": blob})),
        result_of(blob, stderr=SECRET),
        result_of(blob, stderr=long),
        result_of(blob, worker=SECRET.decode()),
        result_of(File(store.put(SECRET))),
    ):
        secrets = (SECRET, b"somebody", b"project")
        with pytest.raises(Private):
            sent(server, store, result, secrets=secrets)
    with pytest.raises(Private, match="absolute"):
        sent(server, store, result_of(assemble(store, {"x": Symlink("/usr")})))
    assert server.blobs == {}


def test_what_goes_can_be_finished(server: Hostile, store: Cas) -> None:
    result = result_of(File(store.put(b"x")))
    sent(server, store, result, finish=lambda going: going._replace(worker="somebody"))
    assert decode_action_result(server.blobs[f"/ac/{ADDRESS.hash}"]).worker == "somebody"


def test_a_shared_folder_takes_the_same(store: Cas, tmp_path: Path) -> None:
    cache = FolderCache(str(tmp_path / "shared"), "file:///shared")
    (tmp_path / "shared").mkdir()
    one = store.put(b"1" * (ALONE + 5))
    went = send(cache, store, result_of(File(one)), ADDRESS, nothing, there=set(), remembered=Seen())
    assert went == Sent(1, ALONE + 5)
    assert cache.get_result(ADDRESS, nothing) is not None
    [path] = [path for path in (tmp_path / "shared").rglob(one.hash) if path.is_file()]
    path.chmod(0o644)
    path.write_bytes(b"2" * (ALONE + 5))
    went = send(cache, store, result_of(File(one)), ADDRESS, nothing, there=set(), remembered=Seen(one))
    assert path.read_bytes() == b"1" * (ALONE + 5)
