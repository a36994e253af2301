"""Blobs in pieces over gRPC, against a server that does whatever a server can do wrong with them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from grpc_fake import Fake
from sinks import Taken, calm

from strata_engine.digest import Digest
from strata_engine.remote.backend import Brought, Fault, Trouble
from strata_engine.remote.calls import Server
from strata_engine.remote.patience import Limits
from strata_engine.remote.reapi import ReapiCache

BIG = bytes(range(256)) * 12_000  # 3 MB
BLOB = Digest.of(BIG)
QUICK = Limits(connect=2.0, stall=1.0)


def cache_of(url: str, **options: object) -> ReapiCache:
    options = {"limits": QUICK, "pause": 0.001, **options}
    return ReapiCache(Server(url.removeprefix("grpc://"), url, instance="main"), **options)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        server.put(BIG)
        yield server


@pytest.fixture
def cache(fake: Fake) -> Iterator[ReapiCache]:
    made = cache_of(fake.url)
    yield made
    fake.released.set()
    made.close()


@pytest.fixture(params=[False, True], ids=["plain", "zstd"])
def either(fake: Fake, request: pytest.FixtureRequest) -> Iterator[ReapiCache]:
    """Give a cache of a server that compresses, and of one that does not."""
    fake.offers["zstd"] = request.param
    made = cache_of(fake.url)
    yield made
    fake.released.set()
    made.close()


def test_a_read_that_was_cut_goes_on_where_it_stopped(cache: ReapiCache, fake: Fake) -> None:
    taken = Taken()
    fake.script("cut", "cut", "well")
    assert cache.read(BLOB, taken, calm)
    assert (taken.blobs, taken.begun) == ([BIG], 1)
    offsets = [request.read_offset for method, request, _ in fake.seen if method == "Read"]
    assert offsets == [0, len(BIG) // 2, len(BIG) * 3 // 4]


def test_a_compressed_read_that_was_cut_goes_on_at_the_offset_of_the_plain_bytes(fake: Fake) -> None:
    fake.offers["zstd"] = True
    cache, taken = cache_of(fake.url), Taken()
    fake.script("cut", "well")
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]
    first, second = (request.read_offset for method, request, _ in fake.seen if method == "Read")
    assert first == 0 < second <= len(BIG) // 2
    cache.close()


def test_a_beginning_that_was_wrong_is_read_once_more(cache: ReapiCache, fake: Fake) -> None:
    taken = Taken()

    def manner(number: int, method: str) -> str:
        fake.blobs[BLOB] = BIG if number else bytes(len(BIG))
        return "well" if number else "cut"

    fake.manner = manner
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]
    assert [request.read_offset for method, request, _ in fake.seen if method == "Read"] == [0, len(BIG) // 2, 0]


READS = {
    "wrong": (Trouble.BROKEN, 1),
    "longer": (Trouble.BROKEN, 1),
    "shorter": (Trouble.BROKEN, 1),
    "endless": (Trouble.BROKEN, 1),
    "garbage": (Trouble.BROKEN, 1),
    "huge": (Trouble.BROKEN, 1),
    "stall": (Trouble.STALLED, 1),
    "silent": (Trouble.STALLED, 1),
    "wait 0": (Trouble.FAILING, 3),
    "wait 86400": (Trouble.FAILING, 1),
    "status INTERNAL": (Trouble.FAILING, 3),
    "status UNAVAILABLE": (Trouble.FAILING, 3),
    "status UNKNOWN": (Trouble.FAILING, 3),
    "status ABORTED": (Trouble.FAILING, 3),
    "status DATA_LOSS": (Trouble.BROKEN, 1),
    "status UNIMPLEMENTED": (Trouble.UNSUPPORTED, 1),
    "status INVALID_ARGUMENT": (Trouble.UNSUPPORTED, 1),
    "status OUT_OF_RANGE": (Trouble.UNSUPPORTED, 1),
    "status PERMISSION_DENIED": (Trouble.REFUSED, 1),
    "status UNAUTHENTICATED": (Trouble.REFUSED, 1),
    "status RESOURCE_EXHAUSTED": (Trouble.FULL, 1),
    "status DEADLINE_EXCEEDED": (Trouble.STALLED, 1),
}


@pytest.mark.parametrize(("manner", "fault"), READS.items(), ids=READS)
def test_a_read_that_goes_wrong_gives_nothing_and_asks_no_more_than_may_help(
    cache: ReapiCache, fake: Fake, manner: str, fault: tuple[Trouble, int]
) -> None:
    fake.manner = lambda number, method: manner
    taken = Taken()
    with pytest.raises(Fault) as error:
        cache.read(BLOB, taken, calm)
    assert (error.value.trouble, len(fake.methods())) == fault
    assert taken.blobs == []
    assert "s3cret" not in f"{error.value} {error.value.diagnostics} {error.value.__cause__}"
    # The next call is none the worse for it.
    fake.manner = lambda number, method: "well"
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]


@pytest.mark.parametrize("manner", ["drip", "stall"])
def test_a_stream_that_moves_too_little_has_stalled(cache: ReapiCache, fake: Fake, manner: str) -> None:
    fake.manner = lambda number, method: manner
    with pytest.raises(Fault) as error:
        cache.read(Digest(fake.put(b"y" * 999).hash, 999) if manner == "drip" else BLOB, Taken(), calm)
    assert error.value.text == "less than 16 KiB in 1 s"


@pytest.mark.parametrize("manner", ["bomb", "garbage", "wrong", "longer", "shorter"])
def test_what_is_compressed_wrongly_is_no_blob(fake: Fake, manner: str) -> None:
    fake.offers["zstd"] = True
    cache, taken = cache_of(fake.url), Taken()
    fake.manner = lambda number, method: manner
    with pytest.raises(Fault) as error:
        cache.read(BLOB, taken, calm)
    assert error.value.trouble is Trouble.BROKEN
    assert taken.blobs == []
    small = fake.put(b"small" * 100)
    if manner != "garbage":
        assert cache.read_many([small], calm) == Brought({}, frozenset({small}))
    cache.close()


def test_an_upload_that_was_cut_goes_on_where_the_server_has_it_to(cache: ReapiCache, fake: Fake) -> None:
    fake.blobs.clear()
    fake.script("cut", "well")
    cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert fake.blobs == {BLOB: BIG}
    assert fake.methods() == ["Write", "QueryWriteStatus", "Write"]
    first, last = (request for method, request, _ in fake.seen if method == "Write")
    assert first.resource_name == last.resource_name
    assert (first.write_offset, last.write_offset > 500_000) == (0, True)


@pytest.mark.parametrize("manner", ["status NOT_FOUND", "status UNIMPLEMENTED", "ahead", "below", "garbage", "silent"])
def test_an_upload_of_which_nothing_is_known_begins_anew(cache: ReapiCache, fake: Fake, manner: str) -> None:
    fake.blobs.clear()
    fake.script("cut", manner, "well")
    cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert fake.blobs == {BLOB: BIG}
    first, last = (request for method, request, _ in fake.seen if method == "Write")
    assert first.resource_name != last.resource_name
    assert last.write_offset == 0


def test_an_upload_that_turns_out_to_have_arrived_is_done(cache: ReapiCache, fake: Fake) -> None:
    fake.script("cut", "complete")
    small = b"x" * 100
    fake.manner = lambda number, method: {"Write": "cut", "QueryWriteStatus": "complete"}[method]
    cache.write(Digest.of(small), lambda: io.BytesIO(small), calm)
    assert fake.methods() == ["Write", "QueryWriteStatus"]


def test_an_upload_of_what_is_there_ends_at_once(either: ReapiCache, fake: Fake) -> None:
    fake.script("early")
    either.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert fake.methods() == ["Write"]


def test_a_compressed_upload_that_was_cut_begins_anew(fake: Fake) -> None:
    fake.offers["zstd"] = True
    fake.blobs.clear()
    data = b"".join(Digest.of(b"%d" % index).hash.encode() for index in range(50_000))
    cache = cache_of(fake.url)
    fake.script("cut", "well")
    cache.write(Digest.of(data), lambda: io.BytesIO(data), calm)
    assert fake.blobs == {Digest.of(data): data}
    assert fake.methods() == ["Write", "Write"]
    cache.close()


@pytest.mark.parametrize(("manner", "count"), {"partial": 3, "negative": 1}.items())
def test_a_compressed_upload_that_was_not_taken_whole_is_said(fake: Fake, manner: str, count: int) -> None:
    fake.offers["zstd"] = True
    cache = cache_of(fake.url)
    fake.manner = lambda number, method: manner
    with pytest.raises(Fault) as error:
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert (error.value.trouble, len(fake.methods())) == (Trouble.BROKEN, count)
    cache.close()


WRITES = {
    "partial": (Trouble.BROKEN, 3),
    "negative": (Trouble.BROKEN, 1),
    "garbage": (Trouble.BROKEN, 1),
    "silent": (Trouble.STALLED, 1),
    "status INTERNAL": (Trouble.FAILING, 3),
    "status RESOURCE_EXHAUSTED": (Trouble.FULL, 1),
    "status PERMISSION_DENIED": (Trouble.REFUSED, 1),
    "status UNIMPLEMENTED": (Trouble.UNSUPPORTED, 1),
}


@pytest.mark.parametrize(("manner", "fault"), WRITES.items(), ids=WRITES)
def test_an_upload_that_goes_wrong_is_said_and_made_again_where_that_may_help(
    cache: ReapiCache, fake: Fake, manner: str, fault: tuple[Trouble, int]
) -> None:
    fake.blobs.clear()
    fake.manner = lambda number, method: manner if method == "Write" else "well"
    opened: list[io.BytesIO] = []

    def source() -> io.BytesIO:
        opened.append(io.BytesIO(BIG))
        return opened[-1]

    with pytest.raises(Fault) as error:
        cache.write(BLOB, source, calm)
    assert (error.value.trouble, fake.methods().count("Write")) == fault
    assert fake.blobs == {}
    assert all(stream.closed for stream in opened)


def test_a_source_that_shrank_is_not_sent_as_if_it_were_whole(either: ReapiCache, fake: Fake) -> None:
    fake.blobs.clear()
    with pytest.raises(ValueError, match=r"shorter|too few"):
        either.write(BLOB, lambda: io.BytesIO(BIG[:-1]), calm)
    assert fake.blobs == {}
    # What was asked of the server before is of no account.
    either.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert fake.blobs == {BLOB: BIG}
