"""What remote caches cost, beside plain clients that fetch and send the same bytes and check nothing.

Servers run on loopback, so what is measured is work and not waiting; both sides run in this process. A plain client is
one that anybody would write in ten lines: requests one after another, or on sixteen threads.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpcore2
from measuring import ROOT, Compared, medians

from strata_engine.cas import Cas
from strata_engine.digest import CHUNK, Digest
from strata_engine.index import Index
from strata_engine.remote.address import parse
from strata_engine.remote.backend import BATCH, Backend
from strata_engine.remote.objects import ObjectCache
from strata_engine.remote.opened import opened
from strata_engine.remote.packing import fetch_packed, send_packed

# Tests know how servers are started.
sys.path.append(str(ROOT / "tests"))
from caches import nginx
from object_servers import FULL, ceph, moto

SMALL = (2_000, 10_000)
LARGE = (4, 200_000_000)
WIDTH = 16
TIMES = 3
TREE = Digest.of(b"tree")


def calm() -> None:
    """Check that nothing is cancelled."""


class Plain(NamedTuple):
    """A plain client: `get` gives an object's bytes as they come, `put` takes all of them."""

    what: str
    get: Callable[[str], Iterable[bytes]]
    put: Callable[[str, Iterable[bytes], int], object]


def remote_http(folder: Path, repeat: int) -> Iterator[Compared]:
    """Compare with httpcore2, with which ours sends, too."""
    with nginx(folder / "nginx") as server, httpcore2.ConnectionPool(max_connections=WIDTH) as pool:

        def get(path: str) -> Iterable[bytes]:
            with pool.stream("GET", f"{server.url}/{path}") as reply:
                yield from reply.iter_stream()

        def put(path: str, data: Iterable[bytes], size: int) -> None:
            reply = pool.request("PUT", f"{server.url}/{path}", headers={"Content-Length": str(size)}, content=data)
            if reply.status not in {201, 204}:
                sys.exit(f"PUT is answered with {reply.status}")

        remote = opened(parse(server.url), environ={})
        yield from _compared("http", remote, Plain("httpcore2", get, put), folder, min(repeat, TIMES))
        remote.close()


def remote_objects(folder: Path, repeat: int) -> Iterator[Compared]:
    """Compare with obstore; the store is moto, or Ceph with `STRATA_FULL=1`."""
    started = ceph(folder / "ceph", 8 << 30) if FULL else moto(folder / "moto")
    with started as server:
        remote = opened(parse(server.url), environ=server.environ)
        assert isinstance(remote, ObjectCache)
        bucket = remote._bucket  # noqa: SLF001 - a client that is made as ours is

        def get(path: str) -> Iterable[bytes]:
            yield from bucket.get(path).stream(CHUNK)

        def put(path: str, data: Iterable[bytes], size: int) -> None:
            bucket.put(path, data if size > BATCH else b"".join(data))

        yield from _compared("objects", remote, Plain("obstore", get, put), folder, min(repeat, TIMES))
        remote.close()


def _compared(name: str, remote: Backend, plain: Plain, folder: Path, times: int) -> Iterator[Compared]:
    made = random.Random(1)
    blobs = {Digest.of(data): data for data in (made.randbytes(SMALL[1]) for _ in range(SMALL[0]))}
    yield from _small(name, remote, plain, blobs, times)
    yield from _packed(name, remote, plain, blobs, times)
    yield from _large(name, remote, plain, folder, min(times, 2))


def _small(name: str, remote: Backend, plain: Plain, blobs: Mapping[Digest, bytes], times: int) -> Iterator[Compared]:
    batches = list(_batches(blobs))

    def write() -> None:
        for batch in batches:
            remote.write_many({digest: blobs[digest] for digest in batch}, calm)

    def read() -> None:
        for batch in batches:
            if len(remote.read_many(batch, calm).blobs) < len(batch):
                sys.exit("blobs are missing")

    def put(digest: Digest) -> None:
        plain.put(f"cas/{digest.hash}", [blobs[digest]], digest.size)

    def get(digest: Digest) -> None:
        b"".join(plain.get(f"cas/{digest.hash}"))

    for way, ours, theirs in (("put", write, put), ("get", read, get)):
        for width in (1, WIDTH):
            seconds = medians(ours, lambda width=width, theirs=theirs: _on_threads(theirs, blobs, width), times)
            yield Compared(f"{name} {way} small", *seconds, _against(plain.what, width))


def _packed(name: str, remote: Backend, plain: Plain, blobs: Mapping[Digest, bytes], times: int) -> Iterator[Compared]:
    """Measure the same blobs as a tree's files, in packs: each time another tree, whose packs are not there yet."""
    turns = itertools.count(1)
    files = list(blobs)

    def send() -> None:
        some = files[: -next(turns)]
        random.Random(len(some)).shuffle(some)
        send_packed(remote, TREE, some, blobs.__getitem__, calm)

    def put(digest: Digest) -> None:
        plain.put(f"cas/{digest.hash}", [blobs[digest]], digest.size)

    def get(digest: Digest) -> None:
        b"".join(plain.get(f"cas/{digest.hash}"))

    def fetch() -> None:
        kept: dict[Digest, bytes] = {}
        if len(fetch_packed(remote, TREE, files, files, kept.__setitem__, calm).came) < len(files) - 100:
            sys.exit("files are missing")

    seconds = medians(send, lambda: _on_threads(put, blobs, 1), times)
    yield Compared(f"{name} put packed", *seconds, _against(plain.what, 1))
    send_packed(remote, TREE, files, blobs.__getitem__, calm)
    for width in (1, WIDTH):
        seconds = medians(fetch, lambda width=width: _on_threads(get, blobs, width), times)
        yield Compared(f"{name} get packed", *seconds, _against(plain.what, width))


def _large(name: str, remote: Backend, plain: Plain, folder: Path, times: int) -> Iterator[Compared]:
    """Measure large blobs from a file and into one; ours comes into a store, checked."""
    store = Cas(folder / f"{name}-store", Index(folder / f"{name}-store"))
    paths: dict[Digest, Path] = {}
    for index in range(LARGE[0]):
        path = folder / f"large{index}"
        path.write_bytes(random.Random(index).randbytes(CHUNK) * (LARGE[1] // CHUNK) + bytes([index]))
        with path.open("rb") as stream:
            digest = Digest.of(stream.read())
        paths[digest] = path

    def write() -> None:
        for digest, path in paths.items():
            remote.write(digest, lambda path=path: path.open("rb"), calm)

    def put() -> None:
        for digest, path in paths.items():
            with path.open("rb") as stream:
                plain.put(f"cas/{digest.hash}", iter(lambda: stream.read(CHUNK), b""), digest.size)

    def read() -> None:
        for digest in paths:
            if not remote.read(digest, store.writer, calm):
                sys.exit("a blob is missing")

    def get() -> None:
        for digest in paths:
            with (folder / "plain").open("wb") as out:
                for chunk in plain.get(f"cas/{digest.hash}"):
                    out.write(chunk)

    yield Compared(f"{name} put large", *medians(write, put, times), _against(plain.what, 1))
    yield Compared(f"{name} get large", *medians(read, get, times), _against(plain.what, 1) + ", unchecked")


def _batches(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    some: list[Digest] = []
    for digest in digests:
        if sum(each.size for each in some) + digest.size > BATCH:
            yield some
            some = []
        some.append(digest)
    yield some


def _on_threads(work: Callable[[Digest], None], digests: Iterable[Digest], width: int) -> None:
    if width == 1:
        for digest in digests:
            work(digest)
        return
    with ThreadPoolExecutor(width) as pool:
        list(pool.map(work, digests))


def _against(what: str, width: int) -> str:
    return f"{what}, one after another" if width == 1 else f"{what}, {width} threads"
