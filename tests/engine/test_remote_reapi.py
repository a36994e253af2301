"""The Remote Execution API against a server that does whatever a server can do wrong, and compresses where it says."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from caches import Hostile
from grpc_fake import Fake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sinks import Taken, calm

from strata_engine.codec import ActionResult, Directory, DirectoryNode, OutputFile, encode_action_result
from strata_engine.codec import encode_directory as encoded_directory
from strata_engine.digest import EMPTY, Digest
from strata_engine.remote.backend import Brought, Fault, Trouble
from strata_engine.remote.calls import Server
from strata_engine.remote.credentials import Credentials, Headers
from strata_engine.remote.directories import at_once, directories
from strata_engine.remote.messages import parsed
from strata_engine.remote.patience import Limits
from strata_engine.remote.reapi import ReapiCache
from strata_engine.remote.results import Whole, gathered
from strata_engine.tree import Tree

BIG = bytes(range(256)) * 12_000  # 3 MB
BLOB = Digest.of(BIG)
KEY = Digest.of(b"key")
RESULT = encode_action_result(ActionResult((OutputFile("out", Digest.of(b"x"), contents=b"x"),)))
QUICK = Limits(connect=2.0, stall=1.0)


def cache_of(url: str, **options: object) -> ReapiCache:
    options = {"limits": QUICK, "pause": 0.001, **options}
    return ReapiCache(Server(url.removeprefix("grpc://"), url, instance="main"), **options)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        server.put(BIG)
        server.results[KEY.hash] = RESULT
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


def by_directories(cache: ReapiCache, tree: Tree) -> Whole | None:
    told = at_once(cache, tree.root, calm)
    return gathered(tree, directories(told, lambda level: cache.read_many(level, calm).blobs))


def many(count: int, what: str, size: int = 50) -> dict[Digest, bytes]:
    return {Digest.of(data): data for data in (f"{what} {index}".encode() * size for index in range(count))}


def test_everything_goes_there_and_comes_back_compressed_only_where_that_is_offered(
    either: ReapiCache, fake: Fake
) -> None:
    packed = fake.offers["zstd"]
    other, taken = bytes(range(255)) * 9_000, Taken()
    either.write(Digest.of(other), lambda: io.BytesIO(other), calm)
    assert either.read(Digest.of(other), taken, calm)
    assert not either.read(Digest.of(b"absent"), taken, calm)
    assert taken.blobs == [other]
    blobs = many(300, "small")
    assert either.missing([*blobs, BLOB, EMPTY], calm) == set(blobs)
    either.write_many(blobs, calm)
    assert either.missing(blobs, calm) == set()
    assert either.read_many([*blobs, EMPTY, Digest.of(b"absent")], calm) == Brought({**blobs, EMPTY: b""})
    assert {digest: fake.blobs[digest] for digest in blobs} == blobs
    either.put_result(BLOB, RESULT, calm)
    assert either.get_result(BLOB, calm) == RESULT
    assert either.get_result(EMPTY, calm) is None
    names = {request.resource_name.split("/")[-3] for method, request, _ in fake.seen if method in {"Read", "Write"}}
    assert names == {"zstd" if packed else "blobs"}
    updates = [request for method, request, _ in fake.seen if method == "BatchUpdateBlobs"]
    assert {blob.compressor for request in updates for blob in request.requests} == {int(packed)}


def test_every_request_names_the_instance_and_the_digest_function_and_says_who_asks(
    cache: ReapiCache, fake: Fake
) -> None:
    cache.capabilities(calm)
    cache.missing([BLOB], calm)
    cache.get_result(KEY, calm)
    cache.read(BLOB, Taken(), calm)
    assert {request.instance_name for _, request, _ in fake.seen[:3]} == {"main"}
    assert {request.digest_function for _, request, _ in fake.seen[1:3]} == {1}
    assert fake.seen[3][1].resource_name == f"main/blobs/{BLOB.hash}/{BLOB.size}"
    for _, _, metadata in fake.seen:
        asking = parsed("RequestMetadata", metadata["build.bazel.remote.execution.v2.requestmetadata-bin"])
        assert asking.tool_details.tool_name == "strata"
        assert not asking.action_id + asking.target_id + asking.tool_invocation_id
        assert "grpc-encoding" not in metadata


def test_a_server_that_compresses_messages_unasked_is_not_listened_to() -> None:
    """A small one could become as large as it likes."""
    with Fake(grpc.Compression.Gzip) as fake:
        fake.results[KEY.hash] = encode_action_result(ActionResult(stdout_raw=bytes(50_000_000)))
        cache, taken = cache_of(fake.url), Taken()
        with contextlib.suppress(Fault):
            # grpcio may give it as it came.
            assert len(cache.get_result(KEY, calm) or b"") < 100_000
        with pytest.raises(Fault) as error:
            cache.read(fake.put(BIG), taken, calm)
        assert error.value.trouble in {Trouble.FAILING, Trouble.BROKEN}
        assert taken.blobs == []
        cache.close()


def test_a_cache_that_was_closed_in_the_middle_is_a_fault(cache: ReapiCache, fake: Fake) -> None:
    fake.manner = lambda number, method: "silent"
    cache.capabilities(calm)
    threading.Timer(0.2, cache.close).start()
    with pytest.raises(Fault) as error:
        cache.get_result(KEY, calm)
    assert error.value.trouble is Trouble.UNREACHABLE
    with pytest.raises(Fault):
        cache.read(BLOB, Taken(), calm)


def test_many_threads_may_ask_at_once(either: ReapiCache, fake: Fake) -> None:
    def work(number: int) -> None:
        data, taken = f"{number}".encode() * 300_000, Taken()
        either.write(Digest.of(data), lambda: io.BytesIO(data), calm)
        assert either.read(Digest.of(data), taken, calm)
        assert taken.blobs == [data]
        blobs = many(30, f"of {number}")
        either.write_many(blobs, calm)
        assert either.read_many(blobs, calm) == Brought(blobs)
        assert either.missing(blobs, calm) == set()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))


def test_the_empty_blob_is_everywhere(cache: ReapiCache, fake: Fake) -> None:
    taken = Taken()
    assert cache.read(EMPTY, taken, calm)
    cache.write(EMPTY, lambda: io.BytesIO(b""), calm)
    cache.write_many({EMPTY: b""}, calm)
    assert cache.missing([EMPTY], calm) == set()
    assert taken.blobs == [b""]
    assert fake.methods() == []


@pytest.mark.parametrize("packed", [False, True])
def test_what_a_server_says_of_itself_is_told(fake: Fake, cache: ReapiCache, packed: bool) -> None:
    fake.offers["zstd"], fake.versions = packed, ((2, 0), (2, 12))
    compression = ("compression", "zstd" if packed else "none")
    assert cache.capabilities(calm).facts == (("API", "2.0 to 2.12"), ("digests", "SHA-256"), compression)


def test_a_server_that_has_lost_the_empty_blob_is_given_it_again(fake: Fake, cache: ReapiCache) -> None:
    """It is asked for with others alone, and no caller is told of it."""
    assert cache.missing([BLOB, KEY], calm) == {KEY}
    assert fake.methods() == ["FindMissingBlobs"]
    fake.implied.clear()
    assert cache.missing([BLOB, KEY], calm) == {KEY}
    assert fake.blobs[EMPTY] == b""
    assert cache.missing([BLOB, KEY], calm) == {KEY}
    assert fake.methods()[1:] == ["FindMissingBlobs", "BatchUpdateBlobs", "FindMissingBlobs"]


OFFERS = {
    "old": ({}, ((2, 0), (2, 0)), "it speaks version 2.0 to 2.0 of the API, and 2.1 is needed"),
    "new": ({}, ((3, 0), (3, 1)), "it speaks version 3.0 to 3.1 of the API, and 2.1 is needed"),
    "digests": ({"digest_functions": [9]}, ((2, 0), (2, 3)), "it does not know blobs by their SHA-256"),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_server_that_is_no_cache_for_us_is_asked_no_more(fake: Fake, cache: ReapiCache, offer: tuple) -> None:
    fields, fake.versions, said = offer
    fake.offers |= fields
    for call in (lambda: cache.capabilities(calm), lambda: cache.get_result(KEY, calm)):
        with pytest.raises(Fault) as error:
            call()
        assert (error.value.trouble, error.value.text) == (Trouble.UNSUPPORTED, said)
    assert fake.methods() == []


def test_what_a_server_offers_is_kept_to(fake: Fake, cache: ReapiCache) -> None:
    fake.offers |= {"max_batch_total_size_bytes": 100_000, "max_cas_blob_size_bytes": 2_000_000}
    offered = cache.capabilities(calm)
    assert (offered.largest, offered.writable, offered.batch) == (2_000_000, True, 100_000 - (64 << 10))
    with pytest.raises(Fault) as error:
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert error.value.trouble is Trouble.FULL
    assert error.value.text == "3072000 bytes, and it takes blobs of at most 2000000"
    blobs = many(40, "of a few KB", 500) | many(1, "more than a message", 5000)
    cache.write_many(blobs, calm)
    assert cache.read_many(blobs, calm) == Brought(blobs)
    sizes = [
        sum(len(blob.data) for blob in request.requests)
        for method, request, _ in fake.seen
        if method == "BatchUpdateBlobs"
    ]
    assert len(sizes) > 5
    assert max(sizes) <= 100_000
    assert fake.methods().count("Write") == fake.methods().count("Read") == 1


def test_a_server_that_takes_no_results_is_sent_none(fake: Fake, cache: ReapiCache) -> None:
    del fake.offers["action_cache_update_capabilities"]
    assert cache.capabilities(calm).writable is False
    with pytest.raises(Fault) as error:
        cache.put_result(KEY, RESULT, calm)
    assert (error.value.trouble, error.value.text) == (Trouble.REFUSED, "it takes no results")
    assert cache.get_result(KEY, calm) == RESULT
    assert fake.methods() == ["GetActionResult"]


def test_an_instance_that_is_not_there_is_said(fake: Fake) -> None:
    cache = ReapiCache(Server(fake.url.removeprefix("grpc://"), fake.url, instance="nowhere"), limits=QUICK)
    with pytest.raises(Fault) as error:
        cache.get_result(KEY, calm)
    assert (error.value.trouble, error.value.text) == (Trouble.UNSUPPORTED, "it has no instance `nowhere`")
    cache.close()


def test_small_blobs_that_are_wrong_are_told_from_those_that_are_not_there(cache: ReapiCache, fake: Fake) -> None:
    blobs, absent = many(3, "b"), Digest.of(b"absent")
    fake.blobs |= blobs
    large = many(1, "large", 300_000)
    fake.blobs |= large
    for manner in ("wrong", "longer", "shorter", "odd"):
        fake.manner = lambda number, method, manner=manner: manner  # type: ignore[misc]
        brought = cache.read_many([*blobs, absent, *(large if manner != "odd" else ())], calm)
        assert brought == Brought({}, frozenset([*blobs, *(large if manner != "odd" else ())]))
    fake.manner = lambda number, method: "foreign"
    assert cache.read_many(blobs, calm) == Brought({})
    fake.manner = lambda number, method: "omit"
    assert len(cache.read_many(blobs, calm).blobs) == 2
    assert cache.missing([absent, BLOB], calm) == {absent}
    fake.manner = lambda number, method: "foreign"
    assert cache.missing([absent], calm) == set()


def test_of_a_batch_only_what_failed_is_asked_for_again(cache: ReapiCache, fake: Fake) -> None:
    blobs = many(4, "b")
    fake.script("one fails", "well")
    cache.write_many(blobs, calm)
    fake.script("one fails", "well")
    assert cache.read_many(blobs, calm) == Brought(blobs)
    asked = [
        len(request.requests if method == "BatchUpdateBlobs" else request.digests)
        for method, request, _ in fake.seen
        if method.startswith("Batch")
    ]
    assert asked == [4, 1, 4, 1]
    fake.script("busy")
    with pytest.raises(Fault) as error:
        cache.write_many(blobs, calm)
    assert (error.value.trouble, len(fake.methods())) == (Trouble.FAILING, 4 + 3)


SMALL = {
    "garbage": (Trouble.BROKEN, 1),
    "huge": (Trouble.BROKEN, 1),
    "silent": (Trouble.STALLED, 1),
    "full": (Trouble.FULL, 1),
    "nothing": (Trouble.BROKEN, 1),
    "omit": (Trouble.BROKEN, 1),
    "wait 0": (Trouble.FAILING, 3),
    "wait 60": (Trouble.FAILING, 1),
    "status INTERNAL": (Trouble.FAILING, 3),
    "status RESOURCE_EXHAUSTED": (Trouble.FULL, 1),
    "status PERMISSION_DENIED": (Trouble.REFUSED, 1),
}


@pytest.mark.parametrize(("manner", "fault"), SMALL.items(), ids=SMALL)
def test_a_batch_that_is_not_taken_is_said(
    cache: ReapiCache, fake: Fake, manner: str, fault: tuple[Trouble, int]
) -> None:
    cache.capabilities(calm)
    fake.manner = lambda number, method: manner
    with pytest.raises(Fault) as error:
        cache.write_many(many(4, "b"), calm)
    assert (error.value.trouble, len(fake.methods())) == fault


RESULTS = {
    "huge": (Trouble.BROKEN, 1),
    "silent": (Trouble.STALLED, 1),
    "status INTERNAL": (Trouble.FAILING, 3),
    "status PERMISSION_DENIED": (Trouble.REFUSED, 1),
    "status FAILED_PRECONDITION": (Trouble.UNSUPPORTED, 1),
}


@pytest.mark.parametrize(("manner", "fault"), RESULTS.items(), ids=RESULTS)
def test_a_result_that_is_not_given_or_not_taken_is_said(
    cache: ReapiCache, fake: Fake, manner: str, fault: tuple[Trouble, int]
) -> None:
    cache.capabilities(calm)
    for call in (lambda: cache.get_result(KEY, calm), lambda: cache.put_result(KEY, RESULT, calm)):
        fake.manner = lambda number, method: manner
        before = len(fake.methods())
        with pytest.raises(Fault) as error:
            call()
        assert (error.value.trouble, len(fake.methods()) - before) == fault
    with pytest.raises(ValueError, match="ActionResult"):
        cache.put_result(KEY, b"\xff\xff", calm)


def folders(fake: Fake, depth: int) -> Tree:
    digest = fake.put(encoded_directory(Directory()))
    for index in range(depth):
        digest = fake.put(encoded_directory(Directory(directories=(DirectoryNode(f"d{index}", digest),))))
    return Tree(digest)


def test_a_tree_is_had_at_once_where_the_server_gives_trees_and_by_levels_where_it_does_not(
    cache: ReapiCache, fake: Fake
) -> None:
    tree = folders(fake, 5)
    for manner, calls in {
        "well": {"GetTree": 6},
        "unknown": {"GetTree": 1, "BatchReadBlobs": 5},
        "status UNIMPLEMENTED": {"GetTree": 1, "BatchReadBlobs": 5},
        "status NOT_FOUND": {"GetTree": 1, "BatchReadBlobs": 5},
        "status INTERNAL": {"GetTree": 3, "BatchReadBlobs": 5},
        "wrong": {"GetTree": 6, "BatchReadBlobs": 5},
        "circle": {"GetTree": 2, "BatchReadBlobs": 4},
    }.items():
        fake.manner = lambda number, method, manner=manner: manner if method == "GetTree" else "well"  # type: ignore[misc]
        before = len(fake.methods())
        whole = by_directories(cache, tree)
        assert whole is not None, manner
        assert len(whole.directories) == 6
        if manner != "wrong":
            made = fake.methods()[before:]
            assert {method: made.count(method) for method in set(made)} == calls, manner
    fake.manner = lambda number, method: "well"
    del fake.blobs[tree.root]
    assert by_directories(cache, tree) is None


def test_headers_that_have_expired_are_asked_for_once_more(fake: Fake) -> None:
    fake.login = "Basic bWU6bmV3"
    asked: list[bool] = []

    def headers(url: str, *, fresh: bool = False) -> Headers:
        asked.append(fresh)
        return Credentials(url, login=("me", "new" if any(asked) else "old"), environ={})(url)

    cache = cache_of(fake.url, headers=headers)
    assert cache.get_result(KEY, calm) == RESULT
    assert asked.count(True) == 1
    fake.login = "Basic other"
    for call in (
        lambda: cache.get_result(KEY, calm),
        lambda: cache.read(BLOB, Taken(), calm),
        lambda: cache.write(BLOB, lambda: io.BytesIO(BIG), calm),
        lambda: cache.read_many([KEY], calm),
    ):
        before = len(fake.methods())
        with pytest.raises(Fault) as error:
            call()
        assert error.value.trouble is Trouble.REFUSED
        assert len(fake.methods()) - before == 1
        assert "bWU6" not in f"{error.value} {error.value.diagnostics} {error.value.__cause__}"
    cache.close()


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X y", "a"), ("X", "ä"), ("x-bin", "a"), ("grpc-x", "a")])
def test_a_header_that_grpc_cannot_send_is_not_sent(fake: Fake, header: tuple[str, str]) -> None:
    cache = cache_of(fake.url, headers=lambda url, *, fresh=False: (header,))
    with pytest.raises(Fault) as error:
        cache.get_result(KEY, calm)
    assert (error.value.trouble, error.value.text) == (Trouble.UNSUPPORTED, "a header that cannot be sent")
    assert fake.seen == []
    cache.close()


class Cancelled(BaseException):
    """What a build raises in its threads."""


@pytest.mark.parametrize("manner", ["silent", "stall", "drip"])
@pytest.mark.parametrize("what", ["read", "write", "get_result", "read_many", "missing", "tree"])
def test_a_call_ends_when_it_is_cancelled_wherever_it_waits(fake: Fake, manner: str, what: str) -> None:
    """The stall time-out is far away."""
    fake.manner = lambda number, method: manner if method == "Read" else "silent"
    cache = cache_of(fake.url, limits=Limits(stall=1000.0))
    cache.capabilities(calm)
    start = time.monotonic()
    asked = threading.current_thread()
    others: list[threading.Thread] = []

    def check() -> None:
        if threading.current_thread() is not asked:
            others.append(threading.current_thread())
        if time.monotonic() - start > 0.3:
            raise Cancelled

    calls = {
        "read": lambda: cache.read(BLOB, Taken(), check),
        "write": lambda: cache.write(BLOB, lambda: io.BytesIO(BIG), check),
        "get_result": lambda: cache.get_result(KEY, check),
        "read_many": lambda: cache.read_many([BLOB, KEY], check),
        "missing": lambda: cache.missing([BLOB, KEY], check),
        "tree": lambda: cache.tree(KEY, check),
    }
    with pytest.raises(Cancelled):
        calls[what]()
    assert others == []
    cache.close()


def test_a_server_of_another_protocol_is_no_cache() -> None:
    with Hostile() as server:
        for manner in ("well", "garbage", "hang up"):
            server.manner = lambda number, method, path, manner=manner: manner  # type: ignore[misc]
            cache = cache_of(server.url.replace("http", "grpc"))
            with pytest.raises(Fault) as error:
                cache.capabilities(calm)
            assert error.value.trouble in {Trouble.UNSUPPORTED, Trouble.UNREACHABLE, Trouble.BROKEN, Trouble.FAILING}
            cache.close()


SILENT = """
import sys
from strata_engine.remote.address import parse
from strata_engine.remote.backend import Fault
from strata_engine.remote.opened import opened
for url in sys.argv[1:]:
    remote = opened(parse(url), environ={})
    try:
        remote.capabilities(lambda: None)
    except Fault as fault:
        print(fault.text)
"""


def test_nobody_there_is_said_in_our_words_and_nothing_is_left_behind(fake: Fake) -> None:
    """The caches are not even closed: a build that was killed in the middle ends all the same."""
    urls = ["grpc://127.0.0.1:1/x", "grpcs://127.0.0.1:1", fake.url.replace("grpc:", "grpcs:"), fake.url]
    done = subprocess.run([sys.executable, "-c", SILENT, *urls], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["connection refused", "connection refused", "it does not speak TLS"]


MANNERS = [
    "well", "well", "well", "wrong", "longer", "shorter", "cut", "garbage", "huge", "nothing", "omit", "foreign", "odd",
    "one fails", "early", "partial", "negative", "behind", "ahead", "complete", "stall", "wait 0", "wait 60",
    "status UNAVAILABLE", "status INTERNAL", "status NOT_FOUND", "status PERMISSION_DENIED", "status OUT_OF_RANGE",
    "status RESOURCE_EXHAUSTED", "unknown", "circle",
]  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Iterator[Fake]:
    with Fake() as server:
        yield server
        server.released.set()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(MANNERS), min_size=1, max_size=6), st.integers(1, 200_000), st.booleans())
def test_whatever_happens_what_is_given_on_is_right_or_it_is_a_fault(
    shared: Fake, manners: list[str], size: int, packed: bool
) -> None:
    data = (b"%d " % size * 70_000)[:size]
    digest, others = Digest.of(data), many(3, "other")
    shared.blobs = {digest: data, **others}
    shared.offers["zstd"] = packed
    shared.results = {KEY.hash: RESULT}
    tree = folders(shared, 3)
    cache = cache_of(shared.url, limits=Limits(stall=0.15))
    cache.capabilities(calm)
    taken = Taken()

    def attempt(call: object) -> object:
        shared.script(*manners)
        before = len(shared.methods())
        try:
            return call()  # type: ignore[operator]
        except Fault as fault:
            return fault
        finally:
            # However it is answered, a call makes few others.
            assert len(shared.methods()) - before <= 40

    found = attempt(lambda: cache.read(digest, taken, calm))
    assert taken.blobs == ([data] if found is True else [])
    brought = attempt(lambda: cache.read_many([digest, *others], calm))
    if isinstance(brought, Brought):
        assert all(Digest.of(blob) == given for given, blob in brought.blobs.items())
    missing = attempt(lambda: cache.missing([digest, *others], calm))
    assert isinstance(missing, Fault) or missing <= {digest, *others}
    whole = attempt(lambda: by_directories(cache, tree))
    assert whole is None or isinstance(whole, Fault) or len(whole.directories) == 4
    attempt(lambda: cache.write(digest, lambda: io.BytesIO(data), calm))
    attempt(lambda: cache.write_many({**others, digest: data}, calm))
    assert all(Digest.of(blob) == given for given, blob in shared.blobs.items())
    cache.close()
