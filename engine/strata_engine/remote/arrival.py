"""A blob on its way from a remote into a sink: it goes on where it was cut, and its digest alone gets it there.

It knows no protocol: a backend says how the bytes from some place on are asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from strata_engine.digest import EMPTY, Digest
from strata_engine.remote.backend import Check, Fault, Sink, Trouble
from strata_engine.remote.patience import Repeat
from strata_engine.tree import BlobWriter


class Arrival:
    """A blob on its way; nothing is begun before the first byte."""

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


def arrive(
    digest: Digest, sink: Sink, fill: Callable[[Arrival], bool], repeat: Repeat, where: str, check: Check
) -> bool:
    """Commit a blob to `sink`; False where it is not there. Raises Fault.

    `fill` makes one request for what is still to come: it takes all of it and returns True, or returns False where
    there is no such blob, or raises Fault, `again` where another request may do better.
    """
    with Arrival(digest, sink) as arrival:
        if digest == EMPTY:
            return arrival.commit()

        def attempt() -> bool:
            resumed = arrival.received > 0
            if not fill(arrival):
                return False
            if arrival.commit():
                return True
            # The beginning may have come from another blob: once more, from the start.
            arrival.restart()
            raise Fault(Trouble.BROKEN, where, f"other bytes than those of `{digest}`", again=resumed)

        return repeat(attempt, check, lambda: arrival.received)
