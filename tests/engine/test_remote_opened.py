"""The whole way of a result from one store into another, over each kind of remote that is there."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from caches import nginx
from grpc_servers import BuildGrid, buildgrid_in, casd_in, kept
from sinks import calm

from strata_engine.action_cache import result_of
from strata_engine.cas import Cas
from strata_engine.codec import Action, ActionResult, encode_action, encode_action_result
from strata_engine.digest import EMPTY, Digest
from strata_engine.index import Index
from strata_engine.remote.address import parse, result_address
from strata_engine.remote.backend import Backend, Fault
from strata_engine.remote.directories import directories
from strata_engine.remote.opened import opened
from strata_engine.remote.results import Packed, gathered, incoming, outgoing, unpacked
from strata_engine.tree import Artifact, File, Symlink, assemble

ACTION = encode_action(Action(EMPTY, EMPTY))


@contextmanager
def an_nginx(folder: Path, _: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    with nginx(folder) as server:
        yield server.url, server.data


@contextmanager
def a_folder(folder: Path, _: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    folder.mkdir()
    yield folder.as_uri(), folder


@contextmanager
def a_casd(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    with casd_in(kept(request.config))(folder) as server:
        yield server.url, server.blobs


@pytest.fixture(scope="module")
def buildgrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildGrid]:
    """Give one that takes its time to start."""
    with buildgrid_in(kept(request.config))(tmp_path_factory.mktemp("grid") / "s") as server:
        yield server


@contextmanager
def a_buildgrid(_: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    server = request.getfixturevalue("buildgrid")
    yield server.url, server.folder


Kind = Callable[[Path, pytest.FixtureRequest], AbstractContextManager[tuple[str, Path]]]
ZONED = [an_nginx, a_folder, a_buildgrid]
KINDS = [*ZONED, a_casd]


def store(folder: Path) -> Cas:
    return Cas(folder, Index(folder))


def send(remote: Backend, source: Cas, artifact: Artifact, address: Digest) -> int:
    sent = outgoing(result_of(artifact), source, directories=remote.capabilities(calm).directories)
    missing = remote.missing([*sent.stored, *sent.made], calm)
    small = {digest for digest in missing if digest.size < 100_000}
    remote.write_many({digest: sent.made.get(digest) or source.get(digest) for digest in small}, calm)
    for digest in missing - small:
        remote.write(digest, lambda digest=digest: source.open(digest), calm)  # type: ignore[misc]
    remote.put_result(address, sent.result, calm)
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
    with kind(tmp_path / "remote", request) as (url, data):
        remote = opened(parse(url), environ={})
        assert fetch(remote, theirs, tree_at) is None
        folders = 10 if remote.capabilities(calm).directories else 0
        assert send(remote, ours, tree, tree_at) == 202 + folders
        assert send(remote, ours, tree, tree_at) == 0
        assert send(remote, ours, large, file_at) == 0
        assert fetch(remote, theirs, tree_at) == tree
        assert theirs.complete(tree)
        assert theirs.damaged(tree) == []
        assert fetch(remote, theirs, file_at) == large
        # A server that has lost what its result names: some give it all the same.
        for path in (data / "cas").rglob("*"):
            if path.is_file():
                path.unlink()
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
    with kind(tmp_path / "remote", request) as (url, _):
        remote = opened(parse(url), environ={})
        send(remote, ours, tree, result_address(ACTION))
        whole = gathered(tree, directories(remote, tree.root, calm))
        assert whole is not None
        assert len(whole.files) == 40
        assert len(remote.tree(tree.root, calm)) == len(whole.directories)  # type: ignore[attr-defined]
        remote.close()


@pytest.mark.parametrize("kind", ZONED)
def test_zones_that_have_a_place_see_nothing_of_one_another(
    tmp_path: Path, kind: Kind, request: pytest.FixtureRequest
) -> None:
    with kind(tmp_path / "remote", request) as (url, data):
        for zone in ("main", "pr"):
            (data / zone).mkdir(exist_ok=True)
        address = parse(url + "/{zone}")
        main, other = opened(address, "main", environ={}), opened(address, "pr", environ={})
        key = result_address(ACTION)
        result = encode_action_result(ActionResult())
        main.put_result(key, result, calm)
        assert (main.get_result(key, calm), other.get_result(key, calm)) == (result, None)
        assert main.shown == f"{url}/main"
        with pytest.raises(ValueError, match="not the name of a zone"):
            opened(address, "../main", environ={})
        for remote in (main, other):
            remote.close()


def test_what_one_protocol_is_given_is_what_the_other_gives(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One encoding for both: what one server keeps can be given to another, at the same address."""
    ours = store(tmp_path / "ours")
    tree = assemble(ours, {"a/b": File(ours.put(b"b")), "a/c": File(ours.put(bytes(9000)), executable=True)})
    key = result_address(ACTION, "main")
    with an_nginx(tmp_path / "web", request) as (web, _), a_casd(tmp_path / "casd", request) as (grpc, _):
        remotes = [opened(parse(url), environ={}) for url in (web, grpc)]
        sent = outgoing(result_of(tree), ours, directories=True)
        for remote in remotes:
            send(remote, ours, tree, key)
            remote.put_result(key, sent.result, calm)
        assert remotes[0].get_result(key, calm) == remotes[1].get_result(key, calm) == sent.result
        brought = [remote.read_many([*sent.stored, *sent.made], calm).blobs for remote in remotes]
        assert brought[0].items() <= brought[1].items()
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
