"""The Remote Execution API against real servers: buildbox-casd and BuildGrid; killed, paused, spoilt, behind nginx."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from caches import make_certificate
from grpc_servers import BuildGrid, Casd, Front, Running, buildgrid_in, casd_in, kept
from sinks import Taken, calm

from strata_engine.codec import ActionResult, OutputFile, encode_action_result
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import SpecError
from strata_engine.remote.address import parse
from strata_engine.remote.backend import Backend, Brought, Fault, Trouble
from strata_engine.remote.opened import opened
from strata_engine.remote.patience import Limits
from strata_engine.remote.tls import Tls

BIG = os.urandom(1 << 20) * 12
BLOB = Digest.of(BIG)
QUICK = Limits(connect=2.0, stall=0.7)


@pytest.fixture(scope="module")
def casd(pytestconfig: pytest.Config) -> type[Casd]:
    return casd_in(kept(pytestconfig))


@pytest.fixture(scope="module")
def buildgrid(pytestconfig: pytest.Config) -> type[BuildGrid]:
    return buildgrid_in(kept(pytestconfig))


@pytest.fixture(scope="module", params=["casd", "buildgrid"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with request.getfixturevalue(request.param)(tmp_path_factory.mktemp(request.param) / "s") as running:
        yield running


@contextmanager
def remote(url: str, **options: object) -> Iterator[Backend]:
    made = opened(parse(url), environ={}, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def many(count: int, size: int) -> dict[Digest, bytes]:
    return {Digest.of(data): data for data in (os.urandom(size) for _ in range(count))}


def result_of(digest: Digest, contents: bytes = b"") -> bytes:
    return encode_action_result(ActionResult((OutputFile("out", digest, contents=contents),), worker="w"))


def test_everything_goes_there_and_comes_back(server: Running) -> None:
    with remote(server.url) as cache:
        offered = cache.capabilities(calm)
        assert offered.writable
        key, taken = Digest.of(os.urandom(8)), Taken()
        assert cache.get_result(key, calm) is None
        assert not cache.read(BLOB, taken, calm)
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        assert cache.read(BLOB, taken, calm)
        assert taken.blobs == [BIG]
        blobs = many(700, 3000) | many(3, 2_000_000)
        assert cache.missing([*blobs, BLOB, EMPTY], calm) == set(blobs)
        assert cache.read_many(blobs, calm) == Brought({})
        for some in (dict(list(blobs.items())[:702]), dict(list(blobs.items())[702:])):
            cache.write_many(some, calm)
            assert cache.read_many([*some, EMPTY], calm) == Brought({**some, EMPTY: b""})
        assert cache.missing([*blobs, BLOB], calm) == set()
        result = result_of(next(iter(blobs)))
        cache.put_result(key, result, calm)
        assert cache.get_result(key, calm) == result


def test_a_result_is_given_only_while_its_blobs_are_there(server: Running) -> None:
    """So blobs go first, those that go along inside of the result as well."""
    with remote(server.url) as cache:
        small = os.urandom(20)
        for contents in (b"", small):
            key, digest = Digest.of(os.urandom(8)), Digest.of(small)
            cache.put_result(key, result_of(digest, contents), calm)
            assert cache.get_result(key, calm) is None
        cache.write_many({digest: small}, calm)
        cache.put_result(key, result_of(digest, small), calm)
        assert cache.get_result(key, calm) == result_of(digest, small)


def test_a_digest_of_other_bytes_is_refused(server: Running) -> None:
    with remote(server.url) as cache:
        digest = Digest.of(os.urandom(100))
        for call in (
            lambda: cache.write_many({digest: b"y" * 100}, calm),
            lambda: cache.write(digest, lambda: io.BytesIO(b"y" * 100), calm),
        ):
            with pytest.raises(Fault) as error:
                call()
            assert error.value.text == "gRPC status INVALID_ARGUMENT"
        assert cache.missing([digest], calm) == {digest}


def test_an_instance_is_the_path_of_the_address(server: Running, casd: type[Casd], tmp_path: Path) -> None:
    blobs = many(2, 100)
    with contextlib.ExitStack() as stack:
        if isinstance(server, Casd):
            # It has one instance.
            server = stack.enter_context(casd(tmp_path / "s", "--local-server-instance=main"))
        cache = stack.enter_context(remote(server.url + "/main"))
        cache.write_many(blobs, calm)
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        taken = Taken()
        assert cache.read(BLOB, taken, calm)
        assert cache.read_many(blobs, calm) == Brought(blobs)


def test_an_instance_that_is_not_there_is_said(server: Running) -> None:
    with remote(server.url + "/nowhere") as cache:
        with pytest.raises(Fault) as error:
            cache.get_result(BLOB, calm)
        assert (error.value.trouble, error.value.text) == (Trouble.UNSUPPORTED, "it has no instance `nowhere`")


@pytest.mark.parametrize("server", ["buildgrid"], indirect=True)
def test_a_server_that_is_for_reading_alone_says_so(server: Running) -> None:
    with remote(server.url + "/read-only") as cache:
        assert cache.capabilities(calm).writable is False
        assert cache.get_result(BLOB, calm) is None
        with pytest.raises(Fault) as error:
            cache.put_result(BLOB, result_of(EMPTY), calm)
        assert error.value.trouble is Trouble.REFUSED


def test_wrong_bytes_in_a_real_server_are_no_blob_and_can_be_healed(casd: type[Casd], tmp_path: Path) -> None:
    with casd(tmp_path / "s") as server, remote(server.url) as cache:
        blobs = many(3, 3000)
        cache.write_many(blobs, calm)
        for digest, data in blobs.items():
            path = server.path(digest.hash)
            path.chmod(0o644)
            path.write_bytes(b"z" + data[1:])
            taken = Taken()
            with pytest.raises(Fault) as error:
                cache.read(digest, taken, calm)
            assert error.value.trouble is Trouble.BROKEN
            assert taken.blobs == []
        assert cache.read_many(blobs, calm) == Brought({}, frozenset(blobs))


def test_a_server_that_forgets_is_asked_what_it_has(casd: type[Casd], tmp_path: Path) -> None:
    with casd(tmp_path / "s", "--quota-high=40M", "--reserved=1M") as server, remote(server.url) as cache:
        blobs = many(60, 1_000_000)
        keys = {digest: Digest.of(digest.hash.encode()) for digest in blobs}
        for digest, data in blobs.items():
            cache.write_many({digest: data}, calm)
            cache.put_result(keys[digest], result_of(digest), calm)
        missing = cache.missing(blobs, calm)
        assert 0 < len(missing) < 60
        found = {digest for digest, key in keys.items() if cache.get_result(key, calm) is not None}
        assert found <= set(blobs) - missing
        gone = next(iter(missing))
        assert not cache.read(gone, Taken(), calm)
        assert cache.read_many([gone], calm) == Brought({})


def test_a_server_without_room_says_so(casd: type[Casd], tmp_path: Path) -> None:
    with casd(tmp_path / "s", "--quota-high=2M", "--reserved=1K") as server, remote(server.url) as cache:
        with pytest.raises(Fault) as error:
            cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        # It says INTERNAL; others say RESOURCE_EXHAUSTED.
        assert error.value.trouble in {Trouble.FULL, Trouble.FAILING}
        assert cache.missing([BLOB], calm) == {BLOB}


class Meddling(Taken):
    """A sink that does something once, when some of a blob has come."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        super().__init__()
        self._meddle = meddle

    @contextmanager
    def __call__(self) -> Iterator[object]:
        with super().__call__() as writer:
            write = writer.write

            def meddled(data: bytes | memoryview) -> int:
                count = write(data)
                if len(writer._data) > 3_000_000:
                    meddle, self._meddle = self._meddle, lambda: None
                    meddle()
                return count

            writer.write = meddled  # type: ignore[method-assign]
            yield writer


class MeddlingSource(io.BytesIO):
    """A source that does something once, when some of a blob has gone."""

    meddle: Callable[[], object] = staticmethod(lambda: None)

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 3_000_000:
            meddle, MeddlingSource.meddle = MeddlingSource.meddle, staticmethod(lambda: None)
            meddle()
        return super().read(size)


def test_a_server_killed_in_the_middle_is_a_fault_and_one_that_comes_back_goes_on(
    casd: type[Casd], tmp_path: Path
) -> None:
    with casd(tmp_path / "s") as server, remote(server.url) as cache:
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        killed = Meddling(server.kill)
        with pytest.raises(Fault) as error:
            cache.read(BLOB, killed, calm)
        assert error.value.trouble in {Trouble.UNREACHABLE, Trouble.BROKEN}
        assert killed.blobs == []
        with pytest.raises(Fault) as error:
            cache.missing([BLOB], calm)
        assert error.value.trouble is Trouble.UNREACHABLE
        assert server.start()
        back = Meddling(lambda: (server.kill(), server.start()))
        assert cache.read(BLOB, back, calm)
        assert (back.blobs, back.begun) == ([BIG], 1)
        other = os.urandom(len(BIG))
        MeddlingSource.meddle = staticmethod(lambda: (server.kill(), server.start()))
        cache.write(Digest.of(other), lambda: MeddlingSource(other), calm)
        taken = Taken()
        assert cache.read(Digest.of(other), taken, calm)
        assert taken.blobs == [other]


def test_a_server_that_is_paused_has_stalled_and_is_not_asked_again(casd: type[Casd], tmp_path: Path) -> None:
    with casd(tmp_path / "s") as server, remote(server.url, limits=QUICK) as cache:
        cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
        other = os.urandom(len(BIG))
        for call in (
            lambda: cache.get_result(BLOB, calm),
            lambda: cache.missing([BLOB], calm),
            lambda: cache.read(BLOB, Taken(), calm),
            lambda: cache.write(Digest.of(other), lambda: io.BytesIO(other), calm),
            lambda: cache.write_many(many(3, 100), calm),
        ):
            server.pause()
            with pytest.raises(Fault) as error:
                call()
            assert error.value.trouble is Trouble.STALLED
            server.resume()
        # Larger than what may be under way already.
        large = BIG * 5
        cache.write(Digest.of(large), lambda: io.BytesIO(large), calm)
        paused = Meddling(server.pause)
        with pytest.raises(Fault) as error:
            cache.read(Digest.of(large), paused, calm)
        assert error.value.trouble is Trouble.STALLED
        server.resume()
        assert cache.read(BLOB, Taken(), calm)


STREAMED = """
import resource, sys
from pathlib import Path
from strata_engine.digest import digest_file
from strata_engine.cas import Cas
from strata_engine.index import Index
from strata_engine.remote.address import parse
from strata_engine.remote.opened import opened
url, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
digest, store = digest_file(source), Cas(folder, Index(folder))
remote = opened(parse(url), environ={})
remote.capabilities(lambda: None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
remote.write(digest, lambda: source.open("rb"), lambda: None)
assert remote.read(digest, store.writer, lambda: None)
remote.close()
assert not store.missing([digest])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_blob_is_never_in_memory_whole(server: Running, tmp_path: Path) -> None:
    source, size = tmp_path / "source", 160 << 20
    with source.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    command = [sys.executable, "-c", STREAMED, server.url, str(source), str(tmp_path / "store")]
    (tmp_path / "store").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60 << 10  # KiB


@pytest.fixture
def front(casd: type[Casd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Front]]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with casd(tmp_path / "s") as behind:
        yield lambda **options: Front(tmp_path / "front", behind.port, certificate, key, **options)


def test_tls_and_a_login_let_us_in(front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch) -> None:
    with front(login="Basic Y2k6czNjcmV0") as server:
        with remote(server.url) as cache, pytest.raises(Fault) as error:
            cache.missing([BLOB], calm)
        assert (error.value.trouble, error.value.text) == (Trouble.REFUSED, "gRPC status UNAUTHENTICATED")
        with remote(server.url.replace("//", "//ci:s3cret@")) as cache:
            taken = Taken()
            cache.write(BLOB, lambda: io.BytesIO(BIG), calm)
            assert cache.read(BLOB, taken, calm)
            assert taken.blobs == [BIG]
            assert "s3cret" not in cache.shown
        monkeypatch.delenv("SSL_CERT_FILE")
        with remote(server.url) as cache, pytest.raises(Fault) as error:
            cache.missing([BLOB], calm)
        assert (error.value.trouble, error.value.text) == (Trouble.UNREACHABLE, "certificate verify failed")


def test_a_certificate_lets_us_in(front: Callable[..., Front], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "mine.pem", tmp_path / "mine.key"
    make_certificate(certificate, key)
    mine = Tls(str(certificate), str(key))
    with front(login="", client=str(certificate)) as server:
        with remote(server.url) as cache, pytest.raises(Fault):
            cache.missing([BLOB], calm)
        with remote(server.url, tls=mine) as cache:
            assert cache.missing([BLOB], calm) == {BLOB}
        # The authority of the server's certificate is named for this cache alone.
        monkeypatch.delenv("SSL_CERT_FILE")
        with remote(server.url, tls=mine._replace(authority=str(tmp_path / "certificate.pem"))) as cache:
            assert cache.missing([BLOB], calm) == {BLOB}
    with pytest.raises(SpecError, match="no certificate with its private key"):
        opened(parse("grpcs://127.0.0.1"), tls=Tls(str(certificate), str(tmp_path / "key.pem")), environ={})


def test_a_server_that_answers_no_connection_costs_no_more_than_a_connection_may(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with remote(f"grpc://127.0.0.1:{deaf.getsockname()[1]}", limits=Limits(connect=0.3, stall=100.0)) as cache:
            for call in (
                lambda: cache.get_result(BLOB, calm),
                lambda: cache.read(BLOB, Taken(), calm),
                lambda: cache.write(BLOB, lambda: io.BytesIO(BIG), calm),
            ):
                with pytest.raises(Fault) as error:
                    call()
                assert error.value.trouble is Trouble.UNREACHABLE
