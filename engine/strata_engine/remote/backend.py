"""What every remote cache can do, and what can go wrong with one.

It knows digests and bytes, not actions, stores or protocols. All calls block, come from worker threads, and may come
from many at once. Each is given a `Check`, which is called at least every fraction of a second while bytes come and go,
and raises where the build was cancelled.

Nothing a remote gives is believed: a blob is given on only with the bytes that its digest names. A result cannot prove
itself, so what is given of it is bytes, for `results` to take apart. Whatever goes wrong is a `Fault`, which must never
fail a build; what is merely not there is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, HostError
from strata_engine.tree import BlobWriter

Check: TypeAlias = Callable[[], None]
"""Raises where the call is no longer wanted."""

Sink: TypeAlias = Callable[[], AbstractContextManager[BlobWriter]]
"""Begins a blob (`Store.writer`); it is called anew where what came was wrong, and commits what was right alone."""

Source: TypeAlias = Callable[[], BinaryIO]
"""Opens a blob at its start; it is called anew where sending it failed."""

BATCH = 8 << 20
"""Bytes that one `read_many` or `write_many` may be about: they are held in memory."""

MOST_IN_BATCH = 250
"""Blobs of a batch."""

LARGEST_RESULT = 16 << 20
"""Bytes of a result that is still read."""


class Trouble(StrEnum):
    """What is wrong with a remote."""

    UNREACHABLE = "unreachable"
    """Nobody answers there."""
    STALLED = "stalled"
    """It answers, too slowly to be of use."""
    REFUSED = "refused"
    """It does not let us in, or not do that."""
    BROKEN = "broken"
    """It gave wrong bytes, too few, or something that makes no sense."""
    FULL = "full"
    """It has no room, or none for something as large."""
    FAILING = "failing"
    """It says itself that something is wrong with it."""
    UNSUPPORTED = "unsupported"
    """It is not, or does not do, what is needed."""


_SAID = {
    Trouble.UNREACHABLE: ("cannot reach the remote cache", "check the network, `HTTPS_PROXY` and `SSL_CERT_FILE`"),
    Trouble.STALLED: ("no progress with the remote cache", "check the network and the load of the server"),
    Trouble.REFUSED: ("not let in by the remote cache", "check the credentials, and whether they may write"),
    Trouble.BROKEN: ("a wrong answer of the remote cache", "check the server and what lies between here and there"),
    Trouble.FULL: ("no room in the remote cache", "give it more space, or let it forget what is old"),
    Trouble.FAILING: ("an error of the remote cache", "see the log of the server"),
    Trouble.UNSUPPORTED: ("not a cache for this", "check the address and the settings of the server"),
}


class Fault(HostError):  # noqa: N818 - named for whose it is; a build goes on without the remote
    """Something is wrong with a remote. What it says may be shown: nothing in it comes from the server or a login.

    `again` tells whether the same call may do better at once, `wait` how many seconds the server asked for before;
    `hint` says what to do where more is known than the trouble tells.
    """

    def __init__(
        self,
        trouble: Trouble,
        where: str,
        text: str,
        *,
        again: bool = False,
        wait: float | None = None,
        hint: str | None = None,
    ) -> None:
        self.trouble = trouble
        self.where = where
        self.text = text
        self.again = again
        self.wait = wait
        said, usual = _SAID[trouble]
        super().__init__(
            Diagnostic(f"remote-{trouble}", f"{said} `{where}`: {text}", hint=hint or usual, severity="warning"),
        )


class Capabilities(NamedTuple):
    """What a remote offers."""

    batch: int = BATCH
    """Bytes of small blobs that go in one request; a call may be about more."""
    largest: int | None = None
    """Bytes of the largest blob that it takes, where it says so."""
    writable: bool | None = None
    """Whether it takes results from us, where it says so."""
    server_time: float | None = None
    """What its clock said when it answered, in seconds since 1970, where it says so."""
    facts: tuple[tuple[str, str], ...] = ()
    """What else a person may want to know, as (name, words of ours): `("API", "2.1 to 2.12")`."""


class Brought(NamedTuple):
    """What a batch of reads gave; what is in neither is not there."""

    blobs: Mapping[Digest, bytes]
    wrong: frozenset[Digest] = frozenset()
    """In whose place there are other bytes: writing them again, unasked, heals the remote."""


class Backend(Protocol):
    """One remote cache. Every call may raise Fault, and whatever its `check` raises."""

    @property
    def shown(self) -> str:
        """Where it is, as a person may see it."""

    @property
    def has_batches(self) -> bool:
        """Whether many small blobs go in one request: else those of a folder travel better in packs."""

    @property
    def wants_directories(self) -> bool:
        """Whether each folder of a result must be a blob of its own, too: such servers look before they give one."""

    def capabilities(self, check: Check) -> Capabilities:
        """Ask what it offers, which also shows that it is there and lets us in."""

    def get_result(self, address: Digest, check: Check) -> bytes | None:
        """Give the encoded ActionResult at `address`, unproved, or None where there is none."""

    def put_result(self, address: Digest, data: bytes, check: Check) -> None:
        """Keep an encoded ActionResult, all of whose blobs are there."""

    def missing(self, digests: Iterable[Digest], check: Check) -> set[Digest]:
        """Tell which blobs are not there; those of another size than their digest says are not."""

    def read(self, digest: Digest, sink: Sink, check: Check) -> bool:
        """Commit a blob to `sink`; False where it is not there."""

    def write(self, digest: Digest, source: Source, check: Check) -> None:
        """Send a blob."""

    def read_many(self, digests: Iterable[Digest], check: Check) -> Brought:
        """Give small blobs, of at most a batch together."""

    def write_many(self, blobs: Mapping[Digest, bytes], check: Check) -> None:
        """Send small blobs, of at most a batch together."""

    def close(self) -> None:
        """Let go of connections; nothing may be asked afterwards."""


def within_batch(digests: Iterable[Digest], batch: int = BATCH) -> list[Digest]:
    """List the distinct digests of a batch. Raises ValueError where they are more than a batch may be."""
    listed = list(dict.fromkeys(digests))
    if sum(digest.size for digest in listed) > batch:
        raise ValueError(f"more than {batch} bytes in a batch")
    return listed


def batches(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    """Divide small blobs into what one call may be about."""
    batch: list[Digest] = []
    size = 0
    for digest in digests:
        if batch and (size + digest.size > BATCH or len(batch) >= MOST_IN_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(digest)
        size += digest.size
    if batch:
        yield batch
