"""The Bazel HTTP cache protocol against a real nginx, and against a server that does whatever a server can do wrong."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from caches import Hostile, Nginx, nginx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sinks import Taken, calm

from strata_engine.digest import EMPTY, Digest
from strata_engine.remote.backend import BATCH, Brought, Fault, Trouble
from strata_engine.remote.credentials import Credentials, Headers
from strata_engine.remote.http import HttpCache
from strata_engine.remote.patience import Limits

BIG = bytes(range(256)) * 20_000  # 5 MB
BLOB = Digest.of(BIG)
SMALL = b"small"
KEY = Digest.of(b"key")
QUICK = Limits(connect=2.0, stall=0.4)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Hostile() as server:
        server.blobs[f"/cas/{BLOB.hash}"] = BIG
        server.blobs[f"/ac/{KEY.hash}"] = SMALL
        yield server


@pytest.fixture
def cache(hostile: Hostile) -> Iterator[HttpCache]:
    made = HttpCache(hostile.url, limits=QUICK, pause=0.001)
    yield made
    hostile.released.set()
    made.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(tmp_path_factory.mktemp("nginx") / "n") as server:
        yield server


def many(count: int, what: str) -> dict[Digest, bytes]:
    return {Digest.of(data): data for data in (f"{what} {index}".encode() * 50 for index in range(count))}


def test_everything_goes_to_a_real_nginx_and_comes_back(real: Nginx) -> None:
    cache = HttpCache(real.url)
    assert cache.capabilities(calm).largest is None
    assert cache.get_result(KEY, calm) is None
    cache.put_result(KEY, SMALL, calm)
    cache.put_result(KEY, b"newer", calm)
    assert cache.get_result(KEY, calm) == b"newer"
    taken = Taken()
    assert not cache.read(BLOB, taken, calm)
    cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]
    blobs = many(100, "small")
    assert cache.missing([*blobs, BLOB, EMPTY], calm) == set(blobs)
    assert cache.read_many(blobs, calm) == Brought({})
    cache.write_many(blobs, calm)
    assert cache.missing([*blobs, BLOB], calm) == set()
    assert cache.read_many([*blobs, EMPTY], calm) == Brought({**blobs, EMPTY: b""})
    cache.close()
    assert real.path("cas", BLOB.hash).read_bytes() == BIG
    assert real.path("ac", KEY.hash).read_bytes() == b"newer"


def test_the_empty_blob_is_everywhere(cache: HttpCache, hostile: Hostile) -> None:
    taken = Taken()
    assert cache.read(EMPTY, taken, calm)
    cache.write(EMPTY, lambda: io.BytesIO(b""), calm)
    cache.write_many({EMPTY: b""}, calm)
    assert taken.blobs == [b""]
    assert hostile.seen == []


def test_wrong_bytes_in_a_real_nginx_are_no_blob_and_can_be_healed(real: Nginx) -> None:
    cache, data = HttpCache(real.url), b"y" * 3000
    digest = Digest.of(data)
    for wrong in (b"z" * 3000, data[:-1], data + b"y", b""):
        real.path("cas", digest.hash).unlink(missing_ok=True)
        real.path("cas", digest.hash).write_bytes(wrong)
        taken = Taken()
        with pytest.raises(Fault) as error:
            cache.read(digest, taken, calm)
        assert error.value.trouble is Trouble.BROKEN
        assert taken.blobs == []
        assert cache.read_many([digest], calm) == Brought({}, frozenset({digest}))
        assert cache.missing([digest], calm) == (set() if len(wrong) == 3000 else {digest})
    cache.write(digest, lambda: io.BytesIO(data), calm)
    assert cache.read_many([digest], calm) == Brought({digest: data})
    cache.close()


def test_a_real_nginx_that_is_for_reading_alone_refuses_to_be_written(tmp_path: Path) -> None:
    with nginx(tmp_path / "n", login="ci:s3cret") as server:
        reader = HttpCache(server.url)
        assert reader.get_result(KEY, calm) is None
        with pytest.raises(Fault) as error:
            reader.put_result(KEY, SMALL, calm)
        assert error.value.trouble is Trouble.REFUSED
        assert error.value.text == "HTTP 401 Unauthorized"
        writer = HttpCache(server.url, headers=Credentials(server.url, login=("ci", "s3cret"), environ={}))
        writer.put_result(KEY, SMALL, calm)
        assert reader.get_result(KEY, calm) == SMALL
        assert server.asked(4) == ["GET 404", "PUT 401", "PUT 201", "GET 200"]
        assert server.path("ac", KEY.hash).read_bytes() == SMALL
        reader.close()
        writer.close()


def test_a_real_nginx_keeps_zones_apart_by_prefix_and_says_what_is_too_large(tmp_path: Path) -> None:
    with nginx(tmp_path / "n", largest="1m") as server:
        main, other = HttpCache(server.url + "/main"), HttpCache(server.url + "/pr/")
        main.put_result(KEY, SMALL, calm)
        assert (main.get_result(KEY, calm), other.get_result(KEY, calm)) == (SMALL, None)
        with pytest.raises(Fault) as error:
            main.write(BLOB, lambda: io.BytesIO(BIG), calm)
        assert error.value.trouble in {Trouble.FULL, Trouble.BROKEN}  # it hangs up on those who send on
        odd = HttpCache(server.url + "/not/a/cache")
        with pytest.raises(Fault) as error:
            odd.put_result(KEY, SMALL, calm)
        assert error.value.trouble is not Trouble.STALLED
        for each in (main, other, odd):
            each.close()


def test_a_real_nginx_that_was_stopped_is_a_fault_at_once_and_works_again_when_it_is_back(tmp_path: Path) -> None:
    with nginx(tmp_path / "n") as server:
        cache = HttpCache(server.url, pause=0.001)
        cache.put_result(KEY, SMALL, calm)
        server.__exit__()
        with pytest.raises(Fault) as error:
            cache.get_result(KEY, calm)
        assert (error.value.trouble, error.value.text) == (Trouble.UNREACHABLE, "Connection refused")
        assert server._started()
        assert cache.get_result(KEY, calm) == SMALL
        cache.close()


def test_a_real_nginx_is_asked_over_tls_and_believed_only_with_a_certificate_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nginx(tmp_path / "n", tls=True) as server:
        stranger = HttpCache(server.url, pause=0.001)
        with pytest.raises(Fault) as error:
            stranger.put_result(KEY, SMALL, calm)
        assert error.value.trouble is Trouble.UNREACHABLE
        assert "certificate verify failed" in error.value.text
        stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        cache, taken = HttpCache(server.url), Taken()
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        assert cache.read(BLOB, taken, calm)
        assert taken.blobs == [BIG]
        cache.close()


def test_a_proxy_of_the_environment_is_used_but_for_the_hosts_that_are_excepted(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", hostile.url.replace("http://", "http://me:s3cret@"))
    hostile.blobs[f"http://cache.invalid/x/ac/{KEY.hash}"] = SMALL
    cache = HttpCache("http://cache.invalid/x", limits=QUICK)
    assert cache.get_result(KEY, calm) == SMALL
    assert hostile.seen[0][2]["proxy-authorization"] == "Basic bWU6czNjcmV0"
    cache.close()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    cache = HttpCache(hostile.url, limits=QUICK)
    assert cache.get_result(KEY, calm) == SMALL
    assert "proxy-authorization" not in hostile.seen[1][2]
    cache.close()
    monkeypatch.setenv("http_proxy", "socks5://me:s3cret@127.0.0.1:1")
    with pytest.raises(Fault) as error:
        HttpCache("http://cache.invalid/x")
    assert error.value.text == "the proxy `socks5://127.0.0.1:1` does not speak HTTP"


def test_connections_are_used_again(cache: HttpCache, hostile: Hostile) -> None:
    for _ in range(20):
        assert cache.get_result(KEY, calm) == SMALL
        assert cache.get_result(BLOB, calm) is None
    assert hostile.connections == 1
    assert len(hostile.seen) == 40


def test_a_blob_that_was_cut_goes_on_where_it_stopped(cache: HttpCache, hostile: Hostile) -> None:
    taken = Taken()
    hostile.script("cut", "cut", "well")
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]
    assert taken.begun == 1
    ranges = [headers.get("range") for _, _, headers in hostile.seen]
    assert ranges == [None, f"bytes={len(BIG) // 2}-", f"bytes={len(BIG) * 3 // 4}-"]


@pytest.mark.parametrize("manner", ["no range", "other range", "416"])
def test_a_server_that_cannot_go_on_gives_all_again(cache: HttpCache, hostile: Hostile, manner: str) -> None:
    taken = Taken()
    hostile.script("cut", manner, "well")
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]
    assert hostile.seen[-1][2].get("range") == (f"bytes={len(BIG) // 2}-" if manner == "no range" else None)


def test_a_beginning_that_was_wrong_is_read_once_more(cache: HttpCache, hostile: Hostile) -> None:
    taken, right = Taken(), hostile.blobs[f"/cas/{BLOB.hash}"]
    hostile.blobs[f"/cas/{BLOB.hash}"] = bytes(len(BIG))

    def manner(number: int, method: str, path: str) -> str:
        hostile.blobs[f"/cas/{BLOB.hash}"] = right if number else bytes(len(BIG))
        return "well" if number else "cut"

    hostile.manner = manner
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]
    assert [headers.get("range") for _, _, headers in hostile.seen] == [None, f"bytes={len(BIG) // 2}-", None]


READS = {
    "wrong": (Trouble.BROKEN, 1),
    "longer": (Trouble.BROKEN, 1),
    "shorter": (Trouble.BROKEN, 1),
    "endless": (Trouble.BROKEN, 1),
    "half": (Trouble.UNSUPPORTED, 1),
    "unended": (Trouble.BROKEN, 4),
    "garbage": (Trouble.BROKEN, 3),
    "hang up": (Trouble.BROKEN, 3),
    "huge headers": (Trouble.BROKEN, 3),
    "interim": (Trouble.BROKEN, 3),
    "stall": (Trouble.STALLED, 1),
    "silent": (Trouble.STALLED, 1),
    "drip": (Trouble.STALLED, 1),
    "drip body": (Trouble.STALLED, 1),
    "elsewhere": (Trouble.UNSUPPORTED, 1),
    "slow down": (Trouble.FAILING, 3),
    "come tomorrow": (Trouble.FAILING, 1),
    "500": (Trouble.FAILING, 3),
    "599": (Trouble.FAILING, 1),
    "429": (Trouble.FAILING, 3),
    "401": (Trouble.REFUSED, 1),
    "403": (Trouble.REFUSED, 1),
    "413": (Trouble.FULL, 1),
    "507": (Trouble.FULL, 1),
    "400": (Trouble.UNSUPPORTED, 1),
    "304": (Trouble.UNSUPPORTED, 1),
}


@pytest.mark.parametrize(("manner", "fault"), READS.items(), ids=READS)
def test_a_read_that_goes_wrong_gives_nothing_and_asks_no_more_than_may_help(
    cache: HttpCache, hostile: Hostile, manner: str, fault: tuple[Trouble, int]
) -> None:
    hostile.manner = lambda number, method, path: manner
    taken = Taken()
    with pytest.raises(Fault) as error:
        cache.read(BLOB, taken, calm)
    assert (error.value.trouble, len(hostile.seen)) == fault
    assert taken.blobs == []
    assert not any(path == "/stolen" for _, path, _ in hostile.seen)
    # The next call is none the worse for it.
    hostile.manner = lambda number, method, path: "well"
    assert cache.read(BLOB, taken, calm)
    assert taken.blobs == [BIG]


RESULTS = {
    "unended": (Trouble.BROKEN, 1),
    "endless": (Trouble.BROKEN, 1),
    "cut": (Trouble.BROKEN, 3),
    "half": (Trouble.UNSUPPORTED, 1),
    "drip": (Trouble.STALLED, 1),
    "500": (Trouble.FAILING, 3),
    "403": (Trouble.REFUSED, 1),
}


@pytest.mark.parametrize(("manner", "fault"), RESULTS.items(), ids=RESULTS)
def test_a_result_that_may_have_been_cut_is_none(
    cache: HttpCache, hostile: Hostile, manner: str, fault: tuple[Trouble, int]
) -> None:
    hostile.manner = lambda number, method, path: manner
    with pytest.raises(Fault) as error:
        cache.get_result(KEY, calm)
    assert (error.value.trouble, len(hostile.seen)) == fault


def test_a_result_of_a_server_that_does_not_know_lengths_is_read(cache: HttpCache, hostile: Hostile) -> None:
    hostile.script("chunked")
    assert cache.get_result(KEY, calm) == SMALL


WRITES = {
    "cut": (Trouble.BROKEN, 3),
    "hang up": (Trouble.BROKEN, 3),
    "garbage": (Trouble.BROKEN, 3),
    "stall": (Trouble.STALLED, 1),
    "elsewhere": (Trouble.UNSUPPORTED, 1),
    "500": (Trouble.FAILING, 3),
    "404": (Trouble.UNSUPPORTED, 1),
    "405": (Trouble.UNSUPPORTED, 1),
    "411": (Trouble.UNSUPPORTED, 1),
    "413": (Trouble.FULL, 1),
    "507": (Trouble.FULL, 1),
    "403": (Trouble.REFUSED, 1),
}


@pytest.mark.parametrize(("manner", "fault"), WRITES.items(), ids=WRITES)
def test_a_write_that_goes_wrong_is_said_and_done_again_where_that_may_help(
    cache: HttpCache, hostile: Hostile, manner: str, fault: tuple[Trouble, int]
) -> None:
    hostile.blobs.clear()
    hostile.manner = lambda number, method, path: manner
    with pytest.raises(Fault) as error:
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert (error.value.trouble, len(hostile.seen)) == fault
    assert hostile.blobs == {}
    hostile.script(manner if error.value.again else "well", "well")
    cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
    assert hostile.blobs == {f"/cas/{BLOB.hash}": BIG}
    assert hostile.seen[-1][2]["content-length"] == str(len(BIG))
    assert "transfer-encoding" not in hostile.seen[-1][2]


def test_a_source_that_shrank_is_not_sent_as_if_it_were_whole(cache: HttpCache, hostile: Hostile) -> None:
    hostile.blobs.clear()
    with pytest.raises(ValueError, match="shorter"):
        cache.write(BLOB, lambda: io.BytesIO(BIG[:-1]), calm)
    assert hostile.blobs == {}


def test_a_server_without_head_is_asked_with_get(cache: HttpCache, hostile: Hostile) -> None:
    hostile.manner = lambda number, method, path: "405" if method == "HEAD" else "well"
    absent = Digest.of(b"absent")
    assert cache.missing([BLOB], calm) == set()
    assert cache.missing([absent, BLOB], calm) == {absent}
    assert hostile.methods().count("HEAD") == 1


def test_a_batch_is_bounded(cache: HttpCache, hostile: Hostile) -> None:
    with pytest.raises(ValueError, match="in a batch"):
        cache.read_many([Digest(BLOB.hash, BATCH), KEY], calm)
    with pytest.raises(ValueError, match="in a batch"):
        cache.write_many({Digest(BLOB.hash, BATCH + 1): b""}, calm)
    assert hostile.seen == []


def test_a_login_is_shown_to_nobody_else(hostile: Hostile) -> None:
    hostile.login = "me:s3cret"
    url = hostile.url.replace("http://", "http://me:s3cret@")
    headers = Credentials(hostile.url, login=("me", "s3cret"), environ={})
    cache = HttpCache(url, headers=headers, limits=QUICK, pause=0.001)
    assert cache.get_result(KEY, calm) == SMALL
    for manner in ("elsewhere", "echo", "garbage", "500"):
        hostile.manner = lambda number, method, path, manner=manner: manner  # type: ignore[misc]
        with pytest.raises(Fault) as error:
            cache.get_result(KEY, calm)
        text = f"{error.value} {error.value.diagnostics} {error.value.__cause__}"
        assert "s3cret" not in text
        assert "bWU6czNjcmV0" not in text
    assert not any(path == "/stolen" for _, path, _ in hostile.seen)
    assert "s3cret" not in cache.shown
    cache.close()


def test_headers_that_have_expired_are_asked_for_once_more(hostile: Hostile) -> None:
    hostile.login = "me:new"
    asked: list[bool] = []

    def headers(url: str, *, fresh: bool = False) -> Headers:
        asked.append(fresh)
        return Credentials(url, login=("me", "new" if any(asked) else "old"), environ={})(url)

    cache = HttpCache(hostile.url, headers=headers, limits=QUICK)
    assert cache.get_result(KEY, calm) == SMALL
    assert asked == [False, True]
    hostile.login = "me:other"
    with pytest.raises(Fault) as error:
        cache.get_result(KEY, calm)
    assert error.value.trouble is Trouble.REFUSED
    assert asked == [False, True, False, True]
    cache.close()


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X y", "a"), ("X", "ä")])
def test_a_header_that_would_be_two_is_not_sent(hostile: Hostile, header: tuple[str, str]) -> None:
    cache = HttpCache(hostile.url, headers=lambda url, *, fresh=False: (header,), limits=QUICK)
    with pytest.raises(Fault) as error:
        cache.get_result(KEY, calm)
    assert error.value.trouble is Trouble.UNSUPPORTED
    assert hostile.seen == []
    cache.close()


class Cancelled(BaseException):
    """What a build raises in its threads."""


@pytest.mark.parametrize("manner", ["silent", "stall", "endless", "drip", "drip body"])
@pytest.mark.parametrize("what", ["read", "get_result", "read_many", "missing"])
def test_a_call_ends_when_it_is_cancelled_wherever_it_waits(hostile: Hostile, manner: str, what: str) -> None:
    """The stall time-out is far away."""
    hostile.blobs[f"/ac/{BLOB.hash}"] = BIG
    hostile.manner = lambda number, method, path: "silent" if method == "HEAD" else manner
    cache = HttpCache(hostile.url, limits=Limits(stall=1000.0))
    start = time.monotonic()
    asked = threading.current_thread()
    others: list[threading.Thread] = []

    def check() -> None:
        if threading.current_thread() is not asked:
            others.append(threading.current_thread())
        if time.monotonic() - start > 0.3:
            raise Cancelled

    pair = [BLOB, Digest(KEY.hash, 10**6)]
    calls = {
        "read": lambda: cache.read(Digest(BLOB.hash, 10**12), Taken(), check),
        "get_result": lambda: cache.get_result(KEY, check),
        "read_many": lambda: cache.read_many(pair, check),
        "missing": lambda: cache.missing(pair, check),
    }
    if (what, manner) == ("get_result", "endless") or (what, manner) == ("read_many", "endless"):
        hostile.manner = lambda number, method, path: "silent"
    with pytest.raises(Cancelled):
        calls[what]()
    assert others == []
    cache.close()


def test_nobody_there() -> None:
    cache = HttpCache("http://127.0.0.1:1/x", limits=QUICK, pause=0.001)
    with pytest.raises(Fault) as error:
        cache.capabilities(calm)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.id == "remote-unreachable"
    assert diagnostic.message == "cannot reach the remote cache `http://127.0.0.1:1/x`: Connection refused"
    assert diagnostic.severity == "warning"
    cache.close()


MANNERS = [
    "well", "well", "well", "wrong", "longer", "shorter", "cut", "half", "unended", "chunked", "no range",
    "other range", "garbage", "hang up", "elsewhere", "slow down", "500", "404", "403", "413", "204", "416", "stall",
]  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server
        server.released.set()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(MANNERS), min_size=1, max_size=6), st.integers(0, 60_000))
def test_whatever_happens_what_is_given_on_is_right_or_it_is_a_fault(
    shared: Hostile, manners: list[str], size: int
) -> None:
    data = (b"%d " % size * 60_000)[:size]
    digest, others = Digest.of(data), many(3, "other")
    shared.blobs = {f"/cas/{digest.hash}": data, f"/ac/{KEY.hash}": data}
    shared.blobs |= {f"/cas/{other.hash}": blob for other, blob in others.items()}
    cache = HttpCache(shared.url, limits=Limits(stall=0.15), pause=0.001)
    taken = Taken()

    def attempt(call: object) -> object:
        shared.script(*manners)
        before = len(shared.seen)
        try:
            return call()  # type: ignore[operator]
        except Fault as fault:
            return fault
        finally:
            # However it is answered, a call makes few requests.
            assert len(shared.seen) - before <= 30

    found = attempt(lambda: cache.read(digest, taken, calm))
    assert taken.blobs == ([data] if found is True else [])
    brought = attempt(lambda: cache.read_many([digest, *others], calm))
    if isinstance(brought, Brought):
        assert all(Digest.of(blob) == given for given, blob in brought.blobs.items())
    missing = attempt(lambda: cache.missing([digest, *others], calm))
    assert isinstance(missing, (set, Fault))
    if not {"wrong", "longer", "shorter", "204"} & set(manners):
        # These nobody could tell from a result.
        result = attempt(lambda: cache.get_result(KEY, calm))
        assert result in {data, None} or isinstance(result, Fault)
    attempt(lambda: cache.write(digest, lambda: io.BytesIO(data), calm))
    attempt(lambda: cache.write_many({**others, digest: data}, calm))
    assert all(Digest.of(blob).hash == path[5:] for path, blob in shared.blobs.items() if path.startswith("/cas/"))
    cache.close()
