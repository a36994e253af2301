"""What blobs cost over gRPC, to a real buildbox-casd and back, beside a client that does nothing but call grpcio.

That client does what must be done, the digests of all that comes included, and files are read and written on both
sides: what is compared is batches, streams, checks and retries, not what is asked for.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
from measuring import ROOT, AtMost, Compared, seconds_of

sys.path.insert(0, str(ROOT / "tests"))

from grpc_servers import Casd, casd_in

from strata_engine.cas import Cas
from strata_engine.digest import Digest, digest_file
from strata_engine.index import Index
from strata_engine.remote.address import parse
from strata_engine.remote.backend import BATCH, Backend
from strata_engine.remote.messages import encoded, new, of_digest, parsed, path
from strata_engine.remote.opened import opened

SMALL, SMALL_SIZE = 2000, 10_000
LARGE, LARGE_SIZE = 4, 200_000_000
AGAINST = "plain grpcio, buildbox-casd"
_MESSAGE = 3_000_000
_PIECE = 1 << 20


def remote_grpc(folder: Path, repeat: int) -> Iterator[Compared]:
    """Send 2,000 blobs of 10 KB and 4 of 200 MB, and have them back."""
    casd_in(_made(ROOT / ".pytest_cache" / "d" / "grpc-servers"))
    times = min(repeat, 3)
    blobs = {Digest.of(data): data for data in (os.urandom(SMALL_SIZE) for _ in range(SMALL))}
    large = _files(_made(folder / "large"))
    up, down = _both(folder, times, lambda plain: plain.send(blobs), lambda ours: _send_small(ours, blobs),
                     lambda plain: plain.fetch(blobs), lambda ours: _fetch_small(ours, blobs))  # fmt: skip
    yield Compared("grpc small up", *up, AGAINST, AtMost(2))
    yield Compared("grpc small down", *down, AGAINST, AtMost(2))
    store, scratch = _made(folder / "store"), _made(folder / "scratch")

    def fetch_large(ours: Backend) -> None:
        shutil.rmtree(store)
        cas = Cas(_made(store), Index(store))
        for digest in large:
            assert ours.read(digest, cas.writer, _calm)

    up, down = _both(folder, times, lambda plain: plain.send_files(large), lambda ours: _send_large(ours, large),
                     lambda plain: plain.fetch_files(large, scratch), fetch_large)  # fmt: skip
    yield Compared("grpc large up", *up, AGAINST, AtMost(1.5))
    yield Compared("grpc large down", *down, AGAINST, AtMost(1.5))


def _both(
    folder: Path,
    times: int,
    their_send: Callable[[_Plain], object],
    our_send: Callable[[Backend], object],
    their_fetch: Callable[[_Plain], object],
    our_fetch: Callable[[Backend], object],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Give the best times, ours and theirs, of sending to an empty server and of fetching from it."""
    found: tuple[list[float], ...] = ([], [], [], [])
    for _ in range(times):
        with _server(folder) as url, _ours(url) as ours:
            found[0].append(seconds_of(lambda ours=ours: our_send(ours)))
        with _server(folder) as url, _ours(url) as ours, grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
            plain = _Plain(channel)
            found[1].append(seconds_of(lambda plain=plain: their_send(plain)))
            found[2].append(seconds_of(lambda ours=ours: our_fetch(ours)))
            found[3].append(seconds_of(lambda plain=plain: their_fetch(plain)))
    ours_up, theirs_up, ours_down, theirs_down = map(min, found)
    return (ours_up, theirs_up), (ours_down, theirs_down)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Start a server that has nothing: of what it has it would end an upload at once."""
    place = folder / "casd"
    with Casd(place) as server:
        yield server.url
    shutil.rmtree(place)


@contextmanager
def _ours(url: str) -> Iterator[Backend]:
    remote = opened(parse(url), environ={})
    remote.capabilities(_calm)
    yield remote
    remote.close()


def _calm() -> None:
    """Check that nothing is cancelled."""


def _groups(blobs: Mapping[Digest, bytes], most: int) -> Iterator[list[Digest]]:
    group: list[Digest] = []
    room = most
    for digest in blobs:
        if digest.size > room:
            yield group
            group, room = [], most
        group.append(digest)
        room -= digest.size
    yield group


def _send_small(ours: Backend, blobs: Mapping[Digest, bytes]) -> None:
    for group in _groups(blobs, BATCH):
        ours.write_many({digest: blobs[digest] for digest in group}, _calm)


def _fetch_small(ours: Backend, blobs: Mapping[Digest, bytes]) -> None:
    for group in _groups(blobs, BATCH):
        assert len(ours.read_many(group, _calm).blobs) == len(group)


def _send_large(ours: Backend, large: Mapping[Digest, Path]) -> None:
    for digest, source in large.items():
        ours.write(digest, lambda source=source: source.open("rb"), _calm)  # type: ignore[misc]


class _Plain:
    """A client that hopes for the best."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def _call(self, kind: str, method: str, request: Any) -> Any:
        call = self._channel.unary_unary(path(f"ContentAddressableStorage.{method}"))
        return parsed(kind, call(encoded(request)))

    def send(self, blobs: Mapping[Digest, bytes]) -> None:
        for group in _groups(blobs, _MESSAGE):
            requests = [
                new("BatchUpdateBlobsRequest.Request", digest=of_digest(digest), data=blobs[digest]) for digest in group
            ]
            answer = self._call(
                "BatchUpdateBlobsResponse", "BatchUpdateBlobs", new("BatchUpdateBlobsRequest", requests=requests)
            )
            assert all(response.status.code == 0 for response in answer.responses)

    def fetch(self, blobs: Mapping[Digest, bytes]) -> None:
        for group in _groups(blobs, _MESSAGE):
            request = new("BatchReadBlobsRequest", digests=map(of_digest, group))
            for response in self._call("BatchReadBlobsResponse", "BatchReadBlobs", request).responses:
                assert sha256(response.data).hexdigest() == response.digest.hash

    def send_files(self, large: Mapping[Digest, Path]) -> None:
        write = self._channel.stream_unary(path("ByteStream.Write"))
        for digest, source in large.items():
            answer = parsed("WriteResponse", write(self._pieces(digest, source)))
            assert answer.committed_size == digest.size

    def _pieces(self, digest: Digest, source: Path) -> Iterator[bytes]:
        name, at = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size}", 0
        with source.open("rb") as stream:
            while chunk := stream.read(_PIECE):
                last = at + len(chunk) == digest.size
                yield encoded(new("WriteRequest", resource_name=name, write_offset=at, data=chunk, finish_write=last))
                at += len(chunk)

    def fetch_files(self, large: Mapping[Digest, Path], folder: Path) -> None:
        read = self._channel.unary_stream(path("ByteStream.Read"))
        for digest in large:
            hashed = sha256()
            request = new("ReadRequest", resource_name=f"blobs/{digest.hash}/{digest.size}")
            with (folder / "part").open("wb") as file:
                for answer in read(encoded(request)):
                    data = parsed("ReadResponse", answer).data
                    hashed.update(data)
                    file.write(data)
            assert hashed.hexdigest() == digest.hash
            (folder / "part").replace(folder / digest.hash)


def _files(folder: Path) -> dict[Digest, Path]:
    found = {}
    for number in range(LARGE):
        target = folder / str(number)
        with target.open("wb") as file:
            for _ in range(LARGE_SIZE // 1_000_000):
                file.write(os.urandom(1_000_000))
        found[digest_file(target)] = target
    return found


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
