"""A remote cache in a bucket: `s3://`, `gs://`, `az://`. The only door to obstore.

The keys of objects are those of the Bazel HTTP protocol, `PREFIX/ac/HASH` and `PREFIX/cas/HASH`, so that whatever
serves the bucket over HTTP serves the same cache. What the environment says of a cloud is `clouds`' business.

Hard part: obstore blocks where nothing hears a cancellation. Its asynchronous half does hear one, but its own threads
then touch Python's objects at a time of their choosing, which ends a process that is about to end with an abort: seen
in one of ten. So blocking calls are made `aside`, and what is given up there ends when its server or a time-out says
so. obstore tells what went wrong in a text that quotes URLs and the server. It is read, and never shown.

Out of reach: obstore follows redirects of a GET, ten at most, and may take credentials along that are in headers. It
goes where a server sends it that has been given them already; with what comes back it is as with everything else.
"""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from strata_engine.digest import EMPTY, Digest
from strata_engine.remote.arrival import Arrival, arrive
from strata_engine.remote.aside import Abandoned, Hands, Work, aside
from strata_engine.remote.backend import (
    LARGEST_RESULT,
    Brought,
    Capabilities,
    Check,
    Fault,
    Sink,
    Source,
    Trouble,
    within_batch,
)
from strata_engine.remote.clouds import Settings
from strata_engine.remote.object_errors import Absent, OtherPart, told
from strata_engine.remote.patience import ATTEMPTS, LIMITS, PAUSE, TRICKLE, Limits, Patience

WIDTH = 16
"""Requests of one call for small blobs that are under way at once."""
PART = 8 << 20
"""Bytes of a part of a large blob; S3 takes no fewer than 5 MiB."""
PARTS = 4
"""Parts of one blob that are under way at once, and in memory."""

_MOST_PARTS = 9_000
"""S3 takes 10,000."""
_SENT = 4 << 20
"""Bytes for which a server has the time of one more stall: how much of a request has gone out nobody can see."""
_IDLE = timedelta(seconds=30)
_NEVER = timedelta(days=365)

_Hands: TypeAlias = "Hands[Any]"
Bucket: TypeAlias = S3Store | GCSStore | AzureStore

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")


def bucket_of(scheme: str, name: str, prefix: str, settings: Settings, limits: Limits = LIMITS) -> Bucket:
    """Make the client of a bucket. Raises Fault where the settings make no sense."""
    client: dict[str, Any] = {
        "allow_http": settings.plain_http,
        # obstore's own 30 s are for all of a transfer.
        "timeout": _NEVER,
        "connect_timeout": timedelta(seconds=limits.connect),
        # What was given up ends some time, too.
        "read_timeout": timedelta(seconds=2 * limits.stall * (1 + PARTS * PART / _SENT)),
        "pool_idle_timeout": _IDLE,
        "user_agent": "strata",
    }
    shown = f"{scheme}://{name}"
    if settings.authorities:
        try:
            client["root_certificate"] = Path(settings.authorities).read_bytes()
        except OSError as error:
            text = f"`{settings.authorities}`, with certificates, cannot be read: {error.strerror}"
            raise Fault(Trouble.UNREACHABLE, shown, text) from None
    given: dict[str, Any] = {
        "prefix": prefix or None,
        "config": dict(settings.config),
        "client_options": client,
        # Retries are ours: nobody could stop those of obstore.
        "retry_config": {"max_retries": 0},
    }
    kinds: dict[str, type[Bucket]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    try:
        return kinds[scheme](name, **given)
    except (BaseError, OSError, ValueError):
        # The text may quote a key.
        text = "the settings for it in the environment make no sense together"
        raise Fault(Trouble.REFUSED, shown, text) from None


class ObjectCache:
    """One cache (`backend.Backend`). Methods may be called from any thread."""

    def __init__(
        self,
        bucket: Bucket,
        shown: str,
        *,
        limits: Limits = LIMITS,
        attempts: int = ATTEMPTS,
        pause: float = PAUSE,
        part: int = PART,
    ) -> None:
        self._bucket = bucket
        self._shown = shown
        self._stall = limits.stall
        self._connect = limits.connect
        self._patience = Patience(attempts, pause)
        self._part = part

    @property
    def shown(self) -> str:
        """Where it is, as a person may see it."""
        return self._shown

    @property
    def has_batches(self) -> bool:
        """Each blob is asked for by itself."""
        return False

    @property
    def wants_directories(self) -> bool:
        """Nothing looks into what is put there."""
        return False

    def close(self) -> None:
        """Connections close themselves when they are idle."""

    def capabilities(self, check: Check) -> Capabilities:
        """Look for the empty blob: of a bucket that is not there, a GET alone is told."""
        self._whole(_blob(EMPTY), 0, check)
        return Capabilities()

    def get_result(self, address: Digest, check: Check) -> bytes | None:
        """Give what lies under `ac/`; nothing proves it but that it is whole."""
        data = self._whole(f"ac/{address.hash}", LARGEST_RESULT, check)
        if data is not None and len(data) > LARGEST_RESULT:
            raise self._fault(Trouble.BROKEN, f"an answer of more than {LARGEST_RESULT} bytes")
        return data

    def put_result(self, address: Digest, data: bytes, check: Check) -> None:
        """Put it under `ac/`."""
        self._each([f"ac/{address.hash}"], lambda path, hands: self._put(path, data, hands), check, sent=len(data))

    def missing(self, digests: Iterable[Digest], check: Check) -> set[Digest]:
        """Ask for each one's size, side by side."""
        wanted = list(dict.fromkeys(digest for digest in digests if digest != EMPTY))
        there = self._each(wanted, lambda digest, _: self._is_there(digest), check)
        return {digest for digest in wanted if not there[digest]}

    def read(self, digest: Digest, sink: Sink, check: Check) -> bool:
        """Commit a blob to `sink`, going on where a cut body stopped; False where it is not there."""
        return arrive(digest, sink, partial(self._fill, check=check), self._patience.repeat, self._shown, check)

    def write(self, digest: Digest, source: Source, check: Check) -> None:
        """Put a blob under `cas/`, in parts where it is large."""
        if digest == EMPTY:
            return
        if digest.size > self._part:
            self._patience.repeat(lambda: self._put_parts(digest, source, check), check)
            return
        with source() as stream:
            data = _read(stream, digest.size)
        if len(data) != digest.size:
            raise ValueError(f"a source that is shorter than {digest}")
        self._each([_blob(digest)], lambda path, hands: self._put(path, data, hands), check, sent=len(data))

    def read_many(self, digests: Iterable[Digest], check: Check) -> Brought:
        """Get small blobs side by side."""
        wanted = within_batch(digests)

        def small(digest: Digest, hands: _Hands) -> bytes | None:
            return b"" if digest == EMPTY else self._body(_blob(digest), digest.size, hands)

        found = self._each(wanted, small, check)
        came = {digest: data for digest in wanted if (data := found[digest]) is not None}
        wrong = frozenset(digest for digest, data in came.items() if Digest.of(data) != digest)
        return Brought({digest: data for digest, data in came.items() if digest not in wrong}, wrong)

    def write_many(self, blobs: Mapping[Digest, bytes], check: Check) -> None:
        """Put small blobs side by side."""
        wanted = [digest for digest in within_batch(blobs) if digest != EMPTY]

        def put(digest: Digest, hands: _Hands) -> None:
            self._put(_blob(digest), blobs[digest], hands)

        self._each(wanted, put, check, sent=sum(digest.size for digest in wanted))

    def _is_there(self, digest: Digest) -> bool:
        try:
            return self._asked(lambda: self._bucket.head(_blob(digest)))["size"] == digest.size
        except Absent:
            return False

    def _whole(self, path: str, most: int, check: Check) -> bytes | None:
        return self._each([path], lambda path, hands: self._body(path, most, hands), check)[path]

    def _body(self, path: str, most: int, hands: _Hands) -> bytes | None:
        """Give an object that is held in memory; where it has more than `most` bytes, others, one more than that."""
        try:
            reply = self._asked(lambda: self._bucket.get(path))
        except Absent:
            return None
        size = reply.meta["size"]
        if size > most:
            return bytes(most + 1)
        body = bytearray()
        for chunk in self._chunks(reply.stream(TRICKLE)):
            hands.check()
            hands.moved()
            body += chunk
        if len(body) != size:
            raise self._fault(Trouble.BROKEN, f"{len(body)} bytes in place of {size}", again=True)
        return bytes(body)

    def _put(self, path: str, data: bytes, hands: _Hands) -> None:
        hands.moved()
        self._asked(lambda: self._bucket.put(path, data, use_multipart=False))

    def _fill(self, arrival: Arrival, check: Check) -> bool:
        """Make one request for what is still to come of a blob; False where it is not there."""
        start, digest = arrival.received, arrival.digest

        def fetch(hands: Hands[bytes]) -> None:
            reply = self._asked(
                lambda: self._bucket.get(_blob(digest), options={"range": {"offset": start}} if start else None)
            )
            size = reply.meta["size"]
            if size != digest.size:
                raise OtherPart(Trouble.BROKEN, self._shown, f"{size} bytes in the place of `{digest}`")
            for chunk in self._chunks(reply.stream(TRICKLE)):
                hands.give(chunk)

        try:
            with contextlib.closing(self._watched([fetch], check)) as chunks:
                for chunk in chunks:
                    if not arrival.take(chunk):
                        raise self._fault(Trouble.BROKEN, f"more bytes than `{digest}` has")
        except Absent:
            return False
        except OtherPart as fault:
            arrival.restart()
            raise self._fault(fault.trouble, fault.text, again=start > 0) from None
        if arrival.received < digest.size:
            raise self._fault(Trouble.BROKEN, f"{arrival.received} bytes of `{digest}`", again=True)
        return True

    def _put_parts(self, digest: Digest, source: Source, check: Check) -> None:
        """Send a blob in parts. obstore takes back a begun upload where it fails, and where the parts end early."""
        size = max(self._part, -(-digest.size // _MOST_PARTS))
        feed: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

        def parts(hands: Hands[None]) -> Iterator[bytes]:
            left = digest.size
            while left > 0:
                # That another part is wanted says that an earlier one has arrived. It is read where the call was made.
                hands.give(None)
                part = feed.get()
                if part is None:
                    raise Abandoned
                left -= len(part)
                yield part

        def send(hands: Hands[None]) -> None:
            self._asked(lambda: self._bucket.put(_blob(digest), parts(hands), chunk_size=size, max_concurrency=PARTS))

        with source() as stream, contextlib.closing(self._watched([send], check, sent=PARTS * size)) as wanted:
            left = digest.size
            try:
                for _ in wanted:
                    part = _read(stream, min(size, left))
                    if len(part) < min(size, left):
                        raise ValueError(f"a source that is shorter than {digest}")
                    left -= len(part)
                    feed.put(part)
            finally:
                # Before the thread is waited for.
                feed.put(None)

    def _each(
        self, items: Sequence[Item], work: Callable[[Item, _Hands], Answer], check: Check, *, sent: int = 0
    ) -> dict[Item, Answer]:
        """Do `work` on every item, some side by side, each as often as that may help."""
        waiting = deque(items)

        def through(hands: Hands[tuple[Item, Answer]]) -> None:
            while True:
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                hands.give((item, self._patience.repeat(partial(work, item, hands), hands.check)))

        with contextlib.closing(self._watched([through] * min(WIDTH, len(items)), check, sent=sent)) as found:
            return dict(found)

    def _watched(self, works: Sequence[Work[Answer]], check: Check, *, sent: int = 0) -> Generator[Answer]:
        """Run `works` aside until they are done, unwanted or stalled."""
        allowed = self._stall * (1 + sent / _SENT)

        def watch(idle: float) -> None:
            check()
            if idle > allowed:
                raise self._fault(Trouble.STALLED, f"less than {TRICKLE >> 10} KiB in {allowed:g} s")

        check()
        return aside(works, watch)

    def _chunks(self, stream: Iterable[bytes]) -> Iterator[bytes]:
        coming = iter(stream)
        while (chunk := self._asked(lambda: next(coming, None))) is not None:
            yield chunk

    def _asked(self, call: Callable[[], Answer]) -> Answer:
        """Do what obstore does, and turn what it raises into faults, or into `Absent`."""
        try:
            return call()
        except (BaseError, FileNotFoundError, PermissionError) as error:
            raise told(str(error), self._shown, self._connect) from None

    def _fault(self, trouble: Trouble, text: str, *, again: bool = False) -> Fault:
        return Fault(trouble, self._shown, text, again=again)


def _blob(digest: Digest) -> str:
    return f"cas/{digest.hash}"


def _read(stream: Any, size: int) -> bytes:
    """Read `size` bytes, fewer at the end alone."""
    data = stream.read(size)
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return bytes(data)
