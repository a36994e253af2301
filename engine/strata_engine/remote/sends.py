"""Sends one result of the store to a remote: every blob that it lacks, then the result.

What may not leave the machine is found here: a symlink that says where things are, or bytes that do. Blobs are sent as
they lie in the store, so that what was edited meanwhile is not among them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from strata_engine.cas import Cas
from strata_engine.codec import ActionResult
from strata_engine.digest import CHUNK, Digest
from strata_engine.remote.abreast import abreast
from strata_engine.remote.backend import Backend, Check, batches
from strata_engine.remote.reads import ABREAST, ALONE
from strata_engine.remote.results import outgoing


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
    spoiled: set[Digest],
    secrets: Sequence[bytes] = (),
    finish: Callable[[ActionResult], ActionResult] | None = None,
) -> Sent:
    """Send a result; `finish` is given it as it goes and may sign it.

    `there` are blobs that need not be asked for; those that are there afterwards are added. `spoiled` are blobs that
    are sent though something is in their place; those that are right afterwards are taken off.

    Raises Fault, BlobLost, and `Private` where one of `secrets` is in what would be sent: a path of this machine, or
    what lets somebody in somewhere.
    """
    try:
        out = outgoing(result, store, directories=backend.wants_directories, finish=finish)
    except ValueError as error:
        raise Private(str(error)) from error
    if _has(io.BytesIO(out.result), secrets):
        raise Private("it names a place of this machine")
    named = {*out.stored, *out.made}
    wrong = named & spoiled
    named -= there - wrong
    missing = backend.missing(sorted(named - wrong), check) | wrong
    _check(store, (digest for digest in missing if digest not in out.made), secrets, check)
    _check_made(out.made, secrets)
    small = sorted(digest for digest in missing if digest.size < ALONE)
    for batch in batches(small):
        backend.write_many({digest: out.made.get(digest) or store.get(digest) for digest in batch}, check)
    large = sorted(missing - set(small), reverse=True, key=lambda digest: digest.size)

    def write(digest: Digest, check: Check) -> None:
        backend.write(digest, _source(store, out.made, digest), check)

    abreast(large, write, check, width=ABREAST)
    there |= named
    spoiled -= wrong
    backend.put_result(address, out.result, check)
    return Sent(len(missing), sum(digest.size for digest in missing))


def _source(store: Cas, made: Mapping[Digest, bytes], digest: Digest) -> Callable[[], BinaryIO]:
    data = made.get(digest)
    return (lambda: store.open(digest)) if data is None else (lambda: io.BytesIO(data))


def _check(store: Cas, digests: Iterable[Digest], secrets: Sequence[bytes], check: Check) -> None:
    for digest in digests if secrets else ():
        check()
        with store.open(digest) as stream:
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
