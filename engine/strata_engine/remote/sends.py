"""Sends one result of the store to a remote: every blob that it lacks, then the result.

What may not leave the machine is found here: a symlink that says where things are, or bytes that do. Blobs are sent as
they lie in the store, so that what was edited meanwhile is not among them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Protocol

from strata_engine.cas import Cas
from strata_engine.codec import ActionResult
from strata_engine.digest import CHUNK, Digest
from strata_engine.remote.abreast import abreast
from strata_engine.remote.backend import Backend, Check, batches
from strata_engine.remote.packing import SentPacks, send_packed
from strata_engine.remote.reads import ABREAST, ALONE
from strata_engine.remote.results import Folder, outgoing


class Private(Exception):  # noqa: N818 - nothing went wrong: it stays here
    """A result that says something of this machine, and what."""


class Sent(NamedTuple):
    """What went."""

    blobs: int
    size: int
    """Bytes."""


def send(
    backend: Backend,
    store: Cas,
    result: ActionResult,
    address: Digest,
    check: Check,
    *,
    there: set[Digest],
    remembered: Remembered,
    secrets: Sequence[bytes] = (),
    finish: Callable[[ActionResult], ActionResult] | None = None,
) -> Sent:
    """Send a result; `finish` is given it as it goes and may sign it.

    `there` are blobs that need not be asked for; those that are there afterwards are added. Where each blob would be a
    request of its own, the small files of a folder go in packs, as long as the remote shows such results.

    Raises Fault, BlobLost, and `Private` where one of `secrets` is in what would be sent: a path of this machine, or
    what lets somebody in somewhere.
    """
    try:
        out = outgoing(result, store, directories=backend.wants_directories, finish=finish)
    except ValueError as error:
        raise Private(str(error)) from error
    if _has(io.BytesIO(out.result), secrets):
        raise Private("it names a place of this machine")
    _check_made(out.made, secrets)
    sending = _Sending(backend, store, out.made, check, remembered, there, secrets)
    packed = SentPacks()
    if out.folder is not None and not backend.has_batches and remembered.shows_packed is not False:
        packed = sending.packs(out.folder)
    apart = packed.members - out.folder.top if out.folder is not None else packed.members
    sent = sending.blobs({*out.stored, *out.made} - apart)
    backend.put_result(address, out.result, check)
    if apart and remembered.shows_packed is None:
        # Some servers hide results of which they lack blobs: bazel-remote does.
        remembered.shows_packed = backend.get_result(address, check) is not None
        if not remembered.shows_packed:
            more = sending.blobs(set(apart))
            backend.put_result(address, out.result, check)
            sent = Sent(sent.blobs + more.blobs, sent.size + more.size)
    return Sent(sent.blobs + packed.blobs, sent.size + packed.size)


class Remembered(Protocol):
    """What is known of a remote from what was sent and read before (`Endpoint`)."""

    spoiled: set[Digest]
    """Blobs that are sent though something is in their place."""
    shows_packed: bool | None
    """Whether it shows results of which small files are in packs alone."""


class _Sending:
    """Blobs of one result on their way."""

    def __init__(
        self,
        backend: Backend,
        store: Cas,
        made: Mapping[Digest, bytes],
        check: Check,
        remembered: Remembered,
        there: set[Digest],
        secrets: Sequence[bytes],
    ) -> None:
        self._backend = backend
        self._store = store
        self._made = made
        self._check = check
        self._remembered = remembered
        self._there = there
        self._secrets = secrets

    def packs(self, folder: Folder) -> SentPacks:
        """Send small files of a folder together."""
        spoiled = self._remembered.spoiled

        def read(digest: Digest) -> bytes:
            data = self._store.get(digest)
            _check_file(io.BytesIO(data), self._secrets)
            return data

        return send_packed(self._backend, folder.message, folder.files, read, self._check, wrong=spoiled)

    def blobs(self, named: set[Digest]) -> Sent:
        """Send each of some blobs that is not there, or not right."""
        wrong = named & self._remembered.spoiled
        named = named - (self._there - wrong)
        missing = self._backend.missing(sorted(named - wrong), self._check) | wrong
        stored = [digest for digest in missing if digest not in self._made]
        _check(self._store, stored, self._secrets, self._check)
        small = sorted(digest for digest in missing if digest.size < ALONE)
        for batch in batches(small):
            blobs = {digest: self._made.get(digest) or self._store.get(digest) for digest in batch}
            self._backend.write_many(blobs, self._check)

        def write(digest: Digest, check: Check) -> None:
            self._backend.write(digest, _source(self._store, self._made, digest), check)

        large = sorted(missing - set(small), reverse=True, key=lambda digest: digest.size)
        abreast(large, write, self._check, width=ABREAST)
        self._there |= named
        self._remembered.spoiled -= wrong
        return Sent(len(missing), sum(digest.size for digest in missing))


def _source(store: Cas, made: Mapping[Digest, bytes], digest: Digest) -> Callable[[], BinaryIO]:
    data = made.get(digest)
    return (lambda: store.open(digest)) if data is None else (lambda: io.BytesIO(data))


def _check(store: Cas, digests: Iterable[Digest], secrets: Sequence[bytes], check: Check) -> None:
    for digest in digests if secrets else ():
        check()
        with store.open(digest) as stream:
            _check_file(stream, secrets)


def _check_file(stream: BinaryIO, secrets: Sequence[bytes]) -> None:
    if _has(stream, secrets):
        raise Private("a file of it names a place of this machine")


def _check_made(made: Mapping[Digest, bytes], secrets: Sequence[bytes]) -> None:
    if any(_has(io.BytesIO(data), secrets) for data in made.values()):
        raise Private("a name or a message of it names a place of this machine")


def _has(stream: BinaryIO, secrets: Sequence[bytes]) -> bool:
    """Tell whether any of some texts is in a stream, across its pieces too."""
    longest = max(map(len, secrets), default=0)
    before = b""
    while longest and (chunk := stream.read(CHUNK)):
        piece = before + chunk
        if any(secret in piece for secret in secrets):
            return True
        before = piece[-longest + 1 :] if longest > 1 else b""
    return False
