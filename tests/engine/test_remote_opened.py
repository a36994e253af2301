"""The whole way of a result from one store into another, over each kind of remote that is there."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from caches import nginx
from grpc_servers import BuildGrid, buildgrid_in, casd_in, kept
from object_servers import ObjectServer, azurite, ceph, moto
from sinks import calm

from strata_engine.action_cache import result_of
from strata_engine.cas import Cas
from strata_engine.codec import Action, ActionResult, decode_action_result, encode_action, encode_action_result
from strata_engine.digest import EMPTY, Digest
from strata_engine.index import Index
from strata_engine.remote.address import parse, result_address
from strata_engine.remote.backend import Backend, Fault
from strata_engine.remote.directories import at_once, directories
from strata_engine.remote.objects import ObjectCache
from strata_engine.remote.opened import opened
from strata_engine.remote.results import Outgoing, Packed, gathered, incoming, outgoing, unpacked
from strata_engine.remote.signing import Signed, Unsigned, new_key, sign, verified
from strata_engine.tree import Artifact, File, Symlink, assemble

ACTION = encode_action(Action(EMPTY, EMPTY))


class Remote(NamedTuple):
    """A server with nothing in it."""

    url: str
    make: Callable[[str], object]
    """Makes a place for a zone, where one has to be made."""
    lose: Callable[[], object]
    """Loses all blobs and no result."""
    environ: Mapping[str, str] = MappingProxyType({})


def of_files(url: str, data: Path) -> Remote:
    return Remote(url, lambda zone: (data / zone).mkdir(), lambda: shutil.rmtree(data / "cas"))


@contextmanager
def an_nginx(folder: Path, _: pytest.FixtureRequest) -> Iterator[Remote]:
    with nginx(folder) as server:
        yield of_files(server.url, server.data)


@contextmanager
def a_folder(folder: Path, _: pytest.FixtureRequest) -> Iterator[Remote]:
    folder.mkdir()
    yield of_files(folder.as_uri(), folder)


def in_bucket(server: ObjectServer) -> Remote:
    cache = opened(parse(server.url), environ=server.environ)
    assert isinstance(cache, ObjectCache)

    def lose() -> None:
        for some in cache._bucket.list("cas"):
            cache._bucket.delete([each["path"] for each in some])

    return Remote(server.url, lambda zone: None, lose, server.environ)


@contextmanager
def a_moto(folder: Path, _: pytest.FixtureRequest) -> Iterator[Remote]:
    with moto(folder) as server:
        yield in_bucket(server)


@contextmanager
def an_azurite(folder: Path, _: pytest.FixtureRequest) -> Iterator[Remote]:
    with azurite(folder) as server:
        yield in_bucket(server)


@contextmanager
def a_ceph(folder: Path, _: pytest.FixtureRequest) -> Iterator[Remote]:
    with ceph(folder) as server:
        yield in_bucket(server)


@contextmanager
def a_casd(folder: Path, request: pytest.FixtureRequest) -> Iterator[Remote]:
    with casd_in(kept(request.config))(folder) as server:
        yield Remote(server.url, lambda zone: None, lambda: emptied(server.blobs / "cas"))


@pytest.fixture(scope="module")
def buildgrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildGrid]:
    """Give one that takes its time to start."""
    with buildgrid_in(kept(request.config))(tmp_path_factory.mktemp("grid") / "s") as server:
        yield server


@contextmanager
def a_buildgrid(_: Path, request: pytest.FixtureRequest) -> Iterator[Remote]:
    server = request.getfixturevalue("buildgrid")
    yield Remote(server.url, lambda zone: None, lambda: emptied(server.folder / "cas"))


def emptied(folder: Path) -> None:
    """Remove what a server has, and leave it its folders."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


Kind = Callable[[Path, pytest.FixtureRequest], AbstractContextManager[Remote]]
ZONED = [an_nginx, a_folder, a_moto, an_azurite, a_ceph, a_buildgrid]
KINDS = [*ZONED, a_casd]


def store(folder: Path) -> Cas:
    return Cas(folder, Index(folder))


def send(remote: Backend, source: Cas, artifact: Artifact, address: Digest) -> int:
    sent = outgoing(result_of(artifact), source, directories=remote.wants_directories)
    count = send_blobs(remote, source, sent)
    remote.put_result(address, sent.result, calm)
    return count


def send_blobs(remote: Backend, source: Cas, sent: Outgoing) -> int:
    missing = remote.missing([*sent.stored, *sent.made], calm)
    small = {digest for digest in missing if digest.size < 100_000}
    remote.write_many({digest: sent.made.get(digest) or source.get(digest) for digest in small}, calm)
    for digest in missing - small:
        remote.write(digest, lambda digest=digest: source.open(digest), calm)  # type: ignore[misc]
    return len(missing)


def fetch(remote: Backend, target: Cas, address: Digest) -> Artifact | None:
    data = remote.get_result(address, calm)
    if data is None:
        return None
    came = incoming(data)
    for blob in came.inlined.values():
        target.put(blob)
    if isinstance(came.output, File):
        if came.output.digest not in came.inlined:
            assert remote.read(came.output.digest, target.writer, calm)
        return came.output
    assert isinstance(came.output, Packed)
    assert remote.read(came.output.tree, target.writer, calm)
    whole = unpacked(target.get(came.output.tree), came.output)
    for digest, encoded in whole.directories.items():
        target.put_named(digest, encoded)
    wanted = target.missing(whole.files)
    for blob in remote.read_many([digest for digest in wanted if digest.size < 100_000], calm).blobs.values():
        target.put(blob)
    for digest in target.missing(whole.files):
        assert remote.read(digest, target.writer, calm)
    return whole.tree


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_goes_from_one_machine_to_another(tmp_path: Path, kind: Kind, request: pytest.FixtureRequest) -> None:
    ours, theirs = store(tmp_path / "ours"), store(tmp_path / "theirs")
    nodes = {f"lib/m{index % 7}/f{index}.py": File(ours.put(b"%d" % index * 500)) for index in range(200)}
    large = File(ours.put(bytes(2_000_000)), executable=True)
    tree = assemble(ours, {**nodes, "bin/large": large, "bin/python": Symlink("../../cpython/bin/python3")})
    tree_at, file_at = (result_address(ACTION, zone) for zone in ("main", "dev/me"))
    with kind(tmp_path / "remote", request) as server:
        remote = opened(parse(server.url), environ=server.environ)
        assert fetch(remote, theirs, tree_at) is None
        folders = 10 if remote.wants_directories else 0
        assert send(remote, ours, tree, tree_at) == 202 + folders
        assert send(remote, ours, tree, tree_at) == 0
        assert send(remote, ours, large, file_at) == 0
        assert fetch(remote, theirs, tree_at) == tree
        assert theirs.complete(tree)
        assert theirs.damaged(tree) == []
        assert fetch(remote, theirs, file_at) == large
        # A server that has lost what its result names: some give it all the same.
        server.lose()
        with pytest.raises(AssertionError):
            assert fetch(remote, store(tmp_path / "third"), file_at) is not None
        remote.close()


@pytest.mark.parametrize("kind", [a_casd, a_buildgrid])
def test_a_folder_can_be_had_by_its_directories_alone(
    tmp_path: Path, kind: Kind, request: pytest.FixtureRequest
) -> None:
    """Servers of another make give results without a `Tree`."""
    ours = store(tmp_path / "ours")
    tree = assemble(ours, {f"d{index % 5}/e{index % 7}/f{index}": File(ours.put(b"%d" % index)) for index in range(40)})
    with kind(tmp_path / "remote", request) as server:
        remote = opened(parse(server.url), environ={})
        send(remote, ours, tree, result_address(ACTION))
        told = at_once(remote, tree.root, calm)
        for known in (told, {}):
            whole = gathered(tree, directories(known, lambda level: remote.read_many(level, calm).blobs))
            assert whole is not None
            assert len(whole.files) == 40
            assert len(told) == len(whole.directories)
        remote.close()


@pytest.mark.parametrize("kind", ZONED)
def test_zones_that_have_a_place_see_nothing_of_one_another(
    tmp_path: Path, kind: Kind, request: pytest.FixtureRequest
) -> None:
    with kind(tmp_path / "remote", request) as server:
        for zone in ("main", "pr"):
            server.make(zone)
        address = parse(server.url + "/{zone}")
        main, other = (opened(address, zone, environ=server.environ) for zone in ("main", "pr"))
        key = result_address(ACTION)
        result = encode_action_result(ActionResult())
        main.put_result(key, result, calm)
        assert (main.get_result(key, calm), other.get_result(key, calm)) == (result, None)
        assert main.shown == f"{server.url}/main"
        with pytest.raises(ValueError, match="not the name of a zone"):
            opened(address, "../main", environ=server.environ)
        for remote in (main, other):
            remote.close()


def test_what_one_protocol_is_given_is_what_the_other_gives(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One encoding for both: what one server keeps can be given to another, at the same address."""
    ours = store(tmp_path / "ours")
    tree = assemble(ours, {"a/b": File(ours.put(b"b")), "a/c": File(ours.put(bytes(9000)), executable=True)})
    key = result_address(ACTION, "main")
    with an_nginx(tmp_path / "web", request) as web, a_casd(tmp_path / "casd", request) as grpc:
        remotes = [opened(parse(server.url), environ={}) for server in (web, grpc)]
        sent = outgoing(result_of(tree), ours, directories=True)
        for remote in remotes:
            send_blobs(remote, ours, sent)
            remote.put_result(key, sent.result, calm)
        assert remotes[0].get_result(key, calm) == remotes[1].get_result(key, calm) == sent.result
        brought = [remote.read_many([*sent.stored, *sent.made], calm).blobs for remote in remotes]
        assert brought[0] == brought[1]
        for remote in remotes:
            remote.close()


def test_the_login_of_an_address_is_sent_and_not_shown(tmp_path: Path) -> None:
    with nginx(tmp_path / "n", login="ci:s3cret") as server:
        key, url = result_address(ACTION), server.url.replace("//", "//ci:s3cret@")
        writer, reader = opened(parse(url), environ={}), opened(parse(server.url), environ={})
        writer.put_result(key, b"result", calm)
        assert reader.get_result(key, calm) == b"result"
        with pytest.raises(Fault) as error:
            reader.write(Digest.of(b"x"), lambda: io.BytesIO(b"x"), calm)
        assert error.value.text == "HTTP 401 Unauthorized"
        assert "s3cret" not in writer.shown
        writer.close()
        reader.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_result_comes_back_signed_and_is_no_other(
    tmp_path: Path, kind: Kind, request: pytest.FixtureRequest
) -> None:
    ours, key, encoded = store(tmp_path / "ours"), new_key(), encode_action(Action(EMPTY, EMPTY, b"signed"))
    action = Digest.of(encoded)
    tree = assemble(ours, {"lib/a.py": File(ours.put(b"a"))})
    here, there = (result_address(encoded, zone) for zone in ("main", "pr/1"))
    with kind(tmp_path / "remote", request) as server:
        remote = opened(parse(server.url), environ=server.environ)
        out = outgoing(result_of(tree, stdout=b"x" * 20_000), ours, directories=remote.wants_directories)
        send_blobs(remote, ours, out)
        sent = out.result
        signed = encode_action_result(sign(key, action, decode_action_result(sent), "main", 1_700_000_000))
        remote.put_result(here, signed, calm)
        remote.put_result(there, sent, calm)
        found, other = remote.get_result(here, calm), remote.get_result(there, calm)
        assert found is not None
        assert other is not None
        assert verified(found, action, ["main"], [key.public]) == Signed(key.public, "main", 1_700_000_000)
        assert verified(other, action, ["main"], [key.public]) == Unsigned()
        assert incoming(found).output == incoming(other).output
        remote.close()


LACKING = {
    "s3://bucket/a": ("obstore", "obstore, which speaks with object stores, is not installed", "objects"),
    "grpc://host/a": ("grpc", "grpcio and protobuf are not installed, or not for this Python", "grpc"),
}


@pytest.mark.parametrize("url", LACKING)
def test_a_cache_without_what_speaks_with_it_is_a_fault_that_says_what_to_install(url: str) -> None:
    module, said, extra = LACKING[url]
    script = f"""
import sys
sys.modules["{module}"] = None
from strata_engine.remote.address import parse
from strata_engine.remote.opened import opened
try:
    opened(parse("{url}"), environ={{}})
except Exception as error:
    print(error.diagnostics[0].id, error.diagnostics[0].message, error.diagnostics[0].hint, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "remote-unsupported",
        f"not a cache for this `{url}`: {said}",
        f'`pip install "stratabuild[{extra}]"`',
    ]


@pytest.mark.parametrize(("url", "module"), [("s3://bucket", "obstore"), ("grpc://host", "grpc")])
def test_what_speaks_with_a_cache_is_imported_for_it_alone(tmp_path: Path, url: str, module: str) -> None:
    script = f"""
import sys
from strata_engine.remote.address import parse
from strata_engine.remote.opened import opened
opened(parse({tmp_path.as_uri()!r}), environ={{}})
print({module!r} in sys.modules)
opened(parse({url!r}), environ={{}})
print({module!r} in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_container_of_nobodys_account_is_a_fault() -> None:
    with pytest.raises(Fault) as error:
        opened(parse("az://container"), environ={})
    assert error.value.text == "`AZURE_STORAGE_ACCOUNT` says in which account the container is"
