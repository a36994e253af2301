"""Directories of a tree from a remote, for `results.gathered`: at once where the remote can, else level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from strata_engine.digest import Digest
from strata_engine.remote.backend import BATCH, Backend, Check


@runtime_checkable
class Trees(Protocol):
    """What a backend has that can give all of a tree."""

    def tree(self, root: Digest, check: Check) -> Mapping[Digest, bytes]:
        """Give the encoded Directories of a tree, the root's too, as far as they are there."""


def directories(remote: Backend, root: Digest, check: Check) -> Callable[[list[Digest]], Mapping[Digest, bytes]]:
    """Give what fetches the Directories of one tree. It raises Fault; what is not there it leaves out."""
    told: dict[Digest, bytes] | None = None

    def fetch(digests: list[Digest]) -> Mapping[Digest, bytes]:
        nonlocal told
        if told is None:
            told = dict(remote.tree(root, check)) if isinstance(remote, Trees) else {}
        found = {digest: told[digest] for digest in digests if digest in told}
        # None that is larger than a batch is asked for: then it is a tree that we do not have.
        left = [digest for digest in digests if digest not in found and digest.size <= BATCH]
        for batch in _batches(left):
            found.update(remote.read_many(batch, check).blobs)
        return found

    return fetch


def _batches(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    batch: list[Digest] = []
    room = BATCH
    for digest in digests:
        if digest.size > room:
            yield batch
            batch, room = [], BATCH
        batch.append(digest)
        room -= digest.size
    if batch:
        yield batch
