"""A blob on its way into a store: pieces, another blob in its place, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from strata_engine.cas import BlobLost, Cas
from strata_engine.digest import CHUNK, EMPTY, Digest
from strata_engine.index import Index
from strata_engine.remote.arrival import Arrival, arrive
from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.patience import MOST_RESUMED, Patience

DATA = bytes(range(256)) * 100
BLOB = Digest.of(DATA)


def calm() -> None:
    """Check that nothing is cancelled."""


@pytest.fixture
def store(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "store", Index(tmp_path / "store"))


def cut() -> Fault:
    return Fault(Trouble.BROKEN, "there", "cut", again=True)


def fetch(store: Cas, fill: Callable[[Arrival], bool], digest: Digest = BLOB) -> bool:
    return arrive(digest, store.writer, fill, Patience(3, 0.0).repeat, "there", calm)


def test_pieces_make_a_blob(store: Cas) -> None:
    starts: list[int] = []

    def fill(arrival: Arrival) -> bool:
        starts.append(arrival.received)
        assert arrival.take(DATA[arrival.received : arrival.received + 10_000])
        if arrival.received < len(DATA):
            raise cut()
        return True

    assert fetch(store, fill)
    assert starts == [0, 10_000, 20_000]
    assert store.get(BLOB) == DATA


def test_what_is_not_there_begins_nothing_and_what_is_empty_asks_nothing(store: Cas) -> None:
    assert not fetch(store, lambda arrival: False)
    assert fetch(store, lambda arrival: pytest.fail("asked"), EMPTY)
    assert store.missing([BLOB, EMPTY]) == {BLOB}


def test_other_bytes_are_given_to_nobody(store: Cas) -> None:
    with pytest.raises(Fault) as error:
        fetch(store, lambda arrival: arrival.take(bytes(len(DATA))))
    assert error.value.text == f"other bytes than those of `{BLOB}`"
    with pytest.raises(BlobLost):
        store.get(BLOB)


def test_more_bytes_than_there_should_be_are_not_taken(store: Cas) -> None:
    with Arrival(BLOB, store.writer) as arrival:
        assert arrival.take(DATA)
        assert not arrival.take(b"x")
        assert arrival.received == len(DATA)


def test_a_remote_that_gives_nothing_is_asked_a_few_times_and_one_that_gives_little_is_asked_more_often(
    store: Cas,
) -> None:
    asked: list[int] = []

    def nothing(arrival: Arrival) -> bool:
        asked.append(0)
        raise cut()

    with pytest.raises(Fault, match="cut"):
        fetch(store, nothing)
    assert len(asked) == 3
    asked.clear()

    def much(arrival: Arrival) -> bool:
        asked.append(0)
        arrival.take(bytes(CHUNK))
        raise cut()

    with pytest.raises(Fault, match="too many pieces"):
        fetch(store, much, Digest(BLOB.hash, 10**12))
    assert len(asked) == MOST_RESUMED
