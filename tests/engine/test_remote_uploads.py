"""Results on their way out: one after the other, beside the build, and never lost between two."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caches import Hostile

from strata_engine.action import Action, Literal, Scope
from strata_engine.action_cache import result_of
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, HostError
from strata_engine.key import Key, compute
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.settings import Access
from strata_engine.remote.spool import Entry, Spool
from strata_engine.remote.tally import Tally
from strata_engine.remote.uploads import Uploads, is_fixed_output
from strata_engine.store import LocalStore, open_store
from strata_engine.tree import File, assemble

LONG = 30.0


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = open_store(tmp_path / "store", lambda _: None)
    yield store
    store.close()


def made(store: LocalStore, say: bytes, *, worker: str = "local", fixed: bool = False) -> Key:
    """Have a result of an action in the store."""
    blob = store.cas.put(say)
    more: dict[str, Any] = {"scope": Scope.FIXED_OUTPUT, "fixed": blob.hash} if fixed else {}
    inputs = {} if fixed else {"in": Literal(say)}
    action = Action(label="a", mnemonic="Make", version=1, inputs=inputs, run=lambda _: File(blob), **more)
    key = compute(action, {} if fixed else {"in": File(blob)}, store.cas)
    store.cas.put_named(key.digest, key.action)
    store.cas.put(key.command)
    store.cache.put_later(key.digest, result_of(File(blob), worker=worker))
    return key


class Sending:
    """Uploads, and what they say."""

    def __init__(self, store: LocalStore, url: str, **more: Any) -> None:
        self.said: list[Diagnostic] = []
        self.tally = Tally()
        required = more.pop("required", False)
        timeout = more.pop("timeout", 1.0)
        self.endpoint = Endpoint(
            Access(url=url), store.folder, self.tally, self.said.append, required=required, timeout=timeout
        )
        self.spool = Spool(store.folder, self.endpoint.shown)
        zone = more.pop("zone", "main")
        self.uploads = Uploads(
            self.endpoint, self.spool, store.cas, store.cache, zone, self.tally, self.said.append, **more
        )

    def offer(self, *keys: Key, made: bool = True) -> None:
        for key in keys:
            self.uploads.offer(key.digest, 1, made=made)

    def end(self) -> None:
        assert self.uploads.wait(LONG)
        self.uploads.close()
        self.endpoint.close()

    def waiting(self) -> set[Digest]:
        return {entry.key for entry in self.spool.entries()}


def results(server: Hostile) -> list[str]:
    return [path.rpartition("/")[2] for path in server.blobs if "/ac/" in path]


def test_what_is_offered_goes_and_nothing_is_left(server: Hostile, store: LocalStore) -> None:
    one, fixed = made(store, b"one" * 5000), made(store, b"fixed", fixed=True)
    sending = Sending(store, server.url)
    assert sending.uploads.wait(0)
    sending.offer(one, fixed, one)
    sending.end()
    address = sending.endpoint.address_of(one.action, "main")
    assert sorted(results(server)) == sorted([address.hash, fixed.digest.hash])
    assert sending.waiting() == set()
    assert (sending.uploads.left, sending.uploads.unsent) == (0, 0)
    assert sending.tally.told().sent == 2
    assert is_fixed_output(store.cas, fixed.action)
    assert not is_fixed_output(store.cas, one.action)


def test_what_was_found_in_the_store_goes_only_if_it_is_not_there(server: Hostile, store: LocalStore) -> None:
    one, other = made(store, b"one"), made(store, b"other")
    server.blobs[f"/ac/{address_of(server, store, one)}"] = b"theirs"
    sending = Sending(store, server.url)
    sending.offer(one, other, made=False)
    sending.end()
    assert server.blobs[f"/ac/{address_of(server, store, one)}"] == b"theirs"
    assert len(results(server)) == 2
    assert sending.tally.told().sent == 1
    # One that is made is sent whatever is there, and though it was offered as one that was found.
    again = Sending(store, server.url)
    again.offer(one, made=False)
    again.offer(one, made=True)
    again.offer(one, made=True)
    again.offer(one, made=False)
    again.end()
    assert server.blobs[f"/ac/{address_of(server, store, one)}"] != b"theirs"
    assert again.tally.told().sent == 1


def address_of(server: Hostile, store: LocalStore, key: Key) -> str:
    return Endpoint(Access(url=server.url), store.folder, Tally(), lambda _: None).address_of(key.action, "main").hash


def test_what_came_from_a_remote_stays_and_what_was_collected_is_forgotten(server: Hostile, store: LocalStore) -> None:
    theirs = made(store, b"theirs", worker="remote")
    gone = made(store, b"gone")
    store.cache.delete(gone.digest)
    never = Key(Digest.of(b"never"), b"never", b"")
    hollow = made(store, b"hollow" * 5000)
    Path(store.cas.path(Digest.of(b"hollow" * 5000))).unlink()
    store.cas.forget()
    sending = Sending(store, server.url)
    sending.offer(theirs, gone, never, hollow)
    sending.end()
    assert server.blobs == {}
    assert sending.waiting() == set()
    assert sending.said == []


def test_what_cannot_go_now_is_left_to_the_next_build(server: Hostile, store: LocalStore) -> None:
    keys = [made(store, b"%d" % number) for number in range(5)]
    server.manner = lambda number, method, path: "403"
    sending = Sending(store, server.url, zone="pr/7")
    sending.offer(*keys)
    sending.end()
    assert [said.id for said in sending.said] == ["remote-refused"]
    assert sending.waiting() == {key.digest for key in keys}
    assert (sending.uploads.left, sending.uploads.unsent) == (0, 5)
    # Refused by the first, it is left alone by the others.
    assert len(server.seen) == 1
    server.manner = lambda number, method, path: "well"
    later = Sending(store, server.url)
    later.uploads.resume()
    later.end()
    assert later.waiting() == set()
    # Each in the zone that it was made in.
    assert set(results(server)) == {later.endpoint.address_of(key.action, "pr/7").hash for key in keys}


def test_it_stops_in_the_middle_of_one_and_forgets_none(server: Hostile, store: LocalStore) -> None:
    keys = [made(store, b"%d" % number) for number in range(20)]
    reached = threading.Event()

    def manner(number: int, method: str, path: str) -> str:
        if number >= 7:
            reached.set()
            return "stall"
        return "well"

    server.manner = manner
    sending = Sending(store, server.url, timeout=LONG)
    sending.offer(*keys)
    assert reached.wait(LONG)
    assert not sending.uploads.wait(0)
    sending.uploads.close()
    sending.endpoint.close()
    went = {key.digest for key in keys if sending.endpoint.address_of(key.action, "main").hash in results(server)}
    assert sending.waiting() == {key.digest for key in keys} - went
    assert sending.uploads.unsent == len(keys) - len(went)
    # After its end nothing is taken, and closing twice is no error.
    sending.offer(made(store, b"late"))
    sending.uploads.close()
    assert len(sending.waiting()) == len(keys) - len(went)


def test_one_that_must_stay_says_so_and_the_others_go(server: Hostile, store: LocalStore) -> None:
    private, public = made(store, b"built in /home/me/project/x"), made(store, b"public")
    sending = Sending(store, server.url, secrets=(b"/home/me/project/",))
    sending.offer(private, public)
    sending.end()
    assert [said.id for said in sending.said] == ["result-not-shared"]
    assert len(results(server)) == 1
    assert sending.waiting() == set()
    assert not [data for data in server.blobs.values() if b"/home/me" in data]


def test_one_that_must_take_them_and_does_not_is_an_error(server: Hostile, store: LocalStore) -> None:
    server.manner = lambda number, method, path: "403"
    sending = Sending(store, server.url, required=True)
    sending.offer(made(store, b"1"), made(store, b"2"))
    sending.end()
    assert isinstance(sending.uploads.error, HostError)
    assert sending.waiting() != set()


def test_a_store_that_fails_under_it_costs_nobody_the_build(
    server: Hostile, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [made(store, b"%d" % number) for number in range(3)]
    real, failing = store.cache.get, iter([OSError("broken disk"), HostError.of("disk", "broken")])

    def get(key: Digest) -> Any:
        for error in failing:
            raise error
        return real(key)

    monkeypatch.setattr(store.cache, "get", get)
    sending = Sending(store, server.url)
    sending.offer(*keys)
    sending.end()
    assert sending.uploads.error is None
    assert sending.waiting() == {key.digest for key in keys[:2]}
    later = Sending(store, server.url)
    later.uploads.resume()
    later.end()
    assert len(results(server)) == 3


def test_two_builds_share_what_waits(server: Hostile, store: LocalStore) -> None:
    keys = [made(store, b"%d" % number) for number in range(30)]
    spool = Spool(store.folder, server.url)
    for key in keys:
        spool.add(Entry(key.digest, "main"))
    both = [Sending(store, server.url) for _ in range(2)]
    for sending in both:
        sending.uploads.resume()
    for sending in both:
        sending.end()
        assert sending.said == []
    assert len(results(server)) == 30
    assert spool.entries() == []


def test_blobs_that_results_share_go_once(server: Hostile, store: LocalStore) -> None:
    shared = store.cas.put(b"shared" * 5000)
    keys = []
    for number in range(6):
        key = made(store, b"%d" % number)
        tree = assemble(store.cas, {"shared": File(shared), str(number): File(store.cas.put(b"%d" % number))})
        store.cache.put_later(key.digest, result_of(tree))
        keys.append(key)
    sending = Sending(store, server.url)
    sending.offer(*keys)
    sending.end()
    asked = [method for method, path, _ in server.seen if path.endswith(shared.hash)]
    assert asked == ["HEAD", "PUT"]
