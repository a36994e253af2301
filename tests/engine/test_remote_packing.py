"""Trees of small files in packs over real remotes: what is sent, what comes, and whatever is wrong with a pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from caches import Hostile, nginx
from object_servers import moto

from strata_engine.digest import Digest
from strata_engine.remote.address import parse
from strata_engine.remote.backend import Fault
from strata_engine.remote.http import HttpCache
from strata_engine.remote.opened import opened
from strata_engine.remote.packing import Unpacked, fetch_packed, send_packed
from strata_engine.remote.packs import address_of, encode_index, joined, planned
from strata_engine.remote.wire import Limits

BLOBS = {Digest.of(data): data for data in (b"%d\n" % index * 2000 for index in range(600))}
LARGE = Digest.of(bytes(100_000))
FILES = [*BLOBS, LARGE]
TREE = Digest.of(b"tree")
PACKS = {Digest.of(joined(pack, BLOBS.__getitem__)): pack for pack in planned(FILES)}
PACKED = frozenset(member for pack in PACKS.values() for member in pack.members)


def calm() -> None:
    """Check that nothing is cancelled."""


def unread(digest: Digest) -> bytes:
    raise AssertionError(digest)


@contextmanager
def an_nginx(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with nginx(folder) as server:
        yield server.url, {}


@contextmanager
def a_folder(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    folder.mkdir()
    yield folder.as_uri(), {}


@contextmanager
def a_moto(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with moto(folder) as server:
        yield server.url, server.environ


Kind = Callable[[Path], AbstractContextManager[tuple[str, dict[str, str]]]]


@pytest.mark.parametrize("kind", [an_nginx, a_folder, a_moto])
def test_small_files_travel_in_packs(tmp_path: Path, kind: Kind) -> None:
    with kind(tmp_path / "remote") as (url, environ):
        remote = opened(parse(url), environ=environ)
        kept: dict[Digest, bytes] = {}
        assert fetch_packed(remote, TREE, FILES, FILES, kept.__setitem__, calm) == Unpacked()
        assert send_packed(remote, TREE, FILES, BLOBS.__getitem__, calm).members == PACKED
        # A second time nothing is even read.
        assert send_packed(remote, TREE, FILES, unread, calm).members == PACKED
        assert remote.missing([*PACKS, *BLOBS], calm) == set(BLOBS)
        assert fetch_packed(remote, TREE, FILES, FILES, kept.__setitem__, calm) == Unpacked(PACKED)
        assert kept == {digest: BLOBS[digest] for digest in PACKED}
        # Another tree with nearly the same files shares packs, and one of them is of use for a file that it has.
        other, one = Digest.of(b"other"), next(iter(PACKS.values())).members[3]
        assert send_packed(remote, other, FILES[:300], BLOBS.__getitem__, calm)
        kept.clear()
        assert fetch_packed(remote, other, FILES[:300], [one], kept.__setitem__, calm).came == {one}
        assert kept == {one: BLOBS[one]}
        remote.close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server
        server.released.set()


@pytest.fixture
def cache(hostile: Hostile) -> Iterator[HttpCache]:
    made = HttpCache(hostile.url, limits=Limits(stall=0.4), pause=0.001)
    send_packed(made, TREE, FILES, BLOBS.__getitem__, calm)
    hostile.seen.clear()
    yield made
    made.close()


def test_what_is_wanted_decides_what_is_asked(cache: HttpCache, hostile: Hostile) -> None:
    assert fetch_packed(cache, TREE, FILES, [], unread, calm) == Unpacked()  # type: ignore[arg-type]
    assert fetch_packed(cache, TREE, FILES, [LARGE], unread, calm) == Unpacked()  # type: ignore[arg-type]
    assert hostile.seen == []
    digest, pack = next(iter(PACKS.items()))
    fetch_packed(cache, TREE, FILES, pack.members[:5], lambda digest, data: None, calm)
    assert [path for _, path, _ in hostile.seen] == [f"/ac/{address_of(TREE).hash}", f"/cas/{digest.hash}"]


def test_a_pack_that_is_lost_or_wrong_lacks_its_own_members_alone_and_can_be_healed(
    cache: HttpCache, hostile: Hostile
) -> None:
    wrong, lost, *_ = PACKS
    hostile.blobs[f"/cas/{wrong.hash}"] = bytes(wrong.size)
    del hostile.blobs[f"/cas/{lost.hash}"]
    kept: dict[Digest, bytes] = {}
    found = fetch_packed(cache, TREE, FILES, FILES, kept.__setitem__, calm)
    assert found.came == PACKED - {*PACKS[wrong].members, *PACKS[lost].members}
    assert found.wrong == {wrong}
    assert kept == {digest: BLOBS[digest] for digest in found.came}
    assert send_packed(cache, TREE, FILES, BLOBS.__getitem__, calm, wrong=found.wrong).members == PACKED
    assert fetch_packed(cache, TREE, FILES, FILES, kept.__setitem__, calm) == Unpacked(PACKED)


INDEXES = {
    "nothing": b"",
    "garbage": b"\xff\xff",
    "another tree's": encode_index([Digest.of(b"x")]),
    "packs of nobody": encode_index([Digest(Digest.of(b"%d" % pack.size).hash, pack.size) for pack in PACKS]),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_an_index_that_is_none_is_as_if_there_were_no_packs(cache: HttpCache, hostile: Hostile, index: bytes) -> None:
    hostile.blobs[f"/ac/{address_of(TREE).hash}"] = index
    kept: dict[Digest, bytes] = {}
    assert fetch_packed(cache, TREE, FILES, FILES, kept.__setitem__, calm) == Unpacked()
    assert kept == {}
    assert send_packed(cache, TREE, FILES, BLOBS.__getitem__, calm).members == PACKED
    assert fetch_packed(cache, TREE, FILES, FILES, kept.__setitem__, calm).came == PACKED


def test_packs_of_other_files_under_their_own_digests_give_nothing(cache: HttpCache, hostile: Hostile) -> None:
    """Who may write where we read makes an index of packs that are what they say, and not what we want."""
    evil = [bytes([number % 251]) * pack.size for number, pack in enumerate(PACKS)]
    hostile.blobs |= {f"/cas/{Digest.of(data).hash}": data for data in evil}
    hostile.blobs[f"/ac/{address_of(TREE).hash}"] = encode_index([Digest.of(data) for data in evil])
    kept: dict[Digest, bytes] = {}
    assert fetch_packed(cache, TREE, FILES, FILES, kept.__setitem__, calm) == Unpacked()
    assert kept == {}


def test_a_remote_that_fails_is_a_fault(cache: HttpCache, hostile: Hostile) -> None:
    hostile.manner = lambda number, method, path: "500"
    with pytest.raises(Fault):
        fetch_packed(cache, TREE, FILES, FILES, unread, calm)  # type: ignore[arg-type]
    with pytest.raises(Fault):
        send_packed(cache, TREE, FILES, BLOBS.__getitem__, calm)
