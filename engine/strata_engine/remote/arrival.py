"""A blob on its way into a sink: only its digest gets it there."""

from __future__ import annotations

import contextlib

from strata_engine.digest import Digest
from strata_engine.remote.backend import Sink
from strata_engine.tree import BlobWriter


class Arrival:
    """What has come of one blob; it can go on after a cut, or begin anew. To be used in a `with`."""

    def __init__(self, digest: Digest, sink: Sink) -> None:
        self.digest = digest
        self.received = 0
        self._sink = sink
        self._stack = contextlib.ExitStack()
        self._blob: BlobWriter | None = None

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take(self, chunk: bytes) -> bool:
        """Take the next bytes; False where they are more than there should be."""
        if self.received + len(chunk) > self.digest.size:
            return False
        self._begun().write(chunk)
        self.received += len(chunk)
        return True

    def commit(self) -> bool:
        """Give the blob on; False, having given nothing, where it is another."""
        try:
            return self._begun().commit(self.digest.hash) == self.digest
        except ValueError:
            return False

    def restart(self) -> None:
        """Forget what came."""
        self._stack.close()
        self._blob, self.received = None, 0

    def _begun(self) -> BlobWriter:
        if self._blob is None:
            self._blob = self._stack.enter_context(self._sink())
        return self._blob
