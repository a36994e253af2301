"""Where tests of remotes have blobs put."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from strata_engine.digest import Digest


def calm() -> None:
    """Check that nothing is cancelled."""


class Taken:
    """A sink that keeps what was committed, and counts what was begun."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.begun = 0

    @contextmanager
    def __call__(self) -> Iterator[_Writer]:
        self.begun += 1
        yield _Writer(self)


class _Writer:
    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._data = bytearray()

    def write(self, data: bytes | memoryview) -> int:
        self._data += data
        return len(data)

    def commit(self, expected_sha256: str | None = None) -> Digest:
        digest = Digest.of(bytes(self._data))
        if digest.hash != expected_sha256:
            raise ValueError("another")
        self._taken.blobs.append(bytes(self._data))
        return digest


class Seen:
    """What is known of a remote (`sends.Remembered`): nothing, but blobs that are spoiled."""

    def __init__(self, *spoiled: Digest) -> None:
        self.spoiled = set(spoiled)
        self.shows_packed: bool | None = None
