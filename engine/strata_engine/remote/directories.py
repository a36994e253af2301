"""Directories of a tree from a remote, for `results.gathered`: at once where the remote can, else level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from strata_engine.digest import Digest
from strata_engine.remote.backend import BATCH, Backend, Check, batches

Small: TypeAlias = Callable[[list[Digest]], Mapping[Digest, bytes]]
"""Gives small blobs; what is not there it leaves out."""


@runtime_checkable
class Trees(Protocol):
    """What a backend has that can give all of a tree."""

    def tree(self, root: Digest, check: Check) -> Mapping[Digest, bytes]:
        """Give the encoded Directories of a tree, the root's too, as far as they are there."""


def at_once(remote: Backend, root: Digest, check: Check) -> Mapping[Digest, bytes]:
    """Give as many Directories of a tree as a remote gives without being asked for each. Raises Fault."""
    return remote.tree(root, check) if isinstance(remote, Trees) else {}


def directories(told: Mapping[Digest, bytes], small: Small) -> Small:
    """Give what fetches the Directories of a tree of which some were `told`; others are asked for by batches."""

    def fetch(digests: list[Digest]) -> Mapping[Digest, bytes]:
        found = {digest: told[digest] for digest in digests if digest in told}
        # None that is larger than a batch is asked for: then it is a tree that we do not have.
        for batch in batches(digest for digest in digests if digest not in found and digest.size <= BATCH):
            found.update(small(batch))
        return found

    return fetch
