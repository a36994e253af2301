"""A remote cache in a bucket: `s3://`, `gs://`, `az://`. The only door to obstore.

The keys of objects are those of the Bazel HTTP protocol, `PREFIX/ac/HASH` and `PREFIX/cas/HASH`, so that whatever
serves the bucket over HTTP serves the same cache. What the environment says of a cloud is `clouds`' business.

Hard part: obstore blocks where nothing hears a cancellation, or it is asynchronous. So each call runs a small event
loop of asyncio on the thread that made it; in turns its check is made and its progress looked at, and what is given up
is cancelled. obstore tells what went wrong in a text that quotes URLs and the server. It is read, and never shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from strata_engine.digest import EMPTY, Digest
from strata_engine.remote.arrival import Arrival, arrive
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
from strata_engine.remote.patience import ATTEMPTS, PAUSE, Patience
from strata_engine.remote.wire import LIMITS, Limits

WIDTH = 16
"""Requests of one call for small blobs that are under way at once."""
PART = 8 << 20
"""Bytes of a part of a large blob; S3 takes no fewer than 5 MiB."""
PARTS = 4
"""Parts of one blob that are under way at once, and in memory."""

_MOST_PARTS = 9_000
"""S3 takes 10,000."""
_TURN = 0.1
_TRICKLE = 16 << 10
"""Bytes that must come in the time of a stall."""
_SENT = 2 << 20
"""Bytes for which a server has the time of one more stall: how much of a request has gone out nobody can see."""
_IDLE = timedelta(seconds=30)
_NEVER = timedelta(days=365)

Bucket: TypeAlias = S3Store | GCSStore | AzureStore

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def bucket_of(scheme: str, name: str, prefix: str, settings: Settings, limits: Limits = LIMITS) -> Bucket:
    """Make the client of a bucket. Raises Fault where the settings make no sense."""
    client: dict[str, Any] = {
        "allow_http": settings.plain_http,
        # obstore's own 30 s are for all of a transfer.
        "timeout": _NEVER,
        "connect_timeout": timedelta(seconds=limits.connect),
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
    """One cache (`backend.Backend`). Methods may be called from any thread without an event loop of its own."""

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

    def close(self) -> None:
        """Connections close themselves when they are idle."""

    def capabilities(self, check: Check) -> Capabilities:
        """Look for the empty blob: of a bucket that is not there, a GET alone is told."""
        self._run(lambda progress: self._whole(_blob(EMPTY), 0, progress), check)
        return Capabilities()

    def get_result(self, address: Digest, check: Check) -> bytes | None:
        """Give what lies under `ac/`; nothing proves it but that it is whole."""
        data = self._run(lambda progress: self._whole(f"ac/{address.hash}", LARGEST_RESULT, progress), check)
        if data is not None and len(data) > LARGEST_RESULT:
            raise self._fault(Trouble.BROKEN, f"an answer of more than {LARGEST_RESULT} bytes")
        return data

    def put_result(self, address: Digest, data: bytes, check: Check) -> None:
        """Put it under `ac/`."""
        self._run(lambda progress: self._put(f"ac/{address.hash}", data, progress), check)

    def missing(self, digests: Iterable[Digest], check: Check) -> set[Digest]:
        """Ask for each one's size, side by side."""
        wanted = list(dict.fromkeys(digest for digest in digests if digest != EMPTY))
        there = self._run(lambda progress: _abreast(wanted, lambda digest: self._is_there(digest, progress)), check)
        return {digest for digest, found in zip(wanted, there, strict=True) if not found}

    def read(self, digest: Digest, sink: Sink, check: Check) -> bool:
        """Commit a blob to `sink`, going on where a cut body stopped; False where it is not there."""

        def fill(arrival: Arrival) -> bool:
            return self._run(lambda progress: self._fill(arrival, progress), check)

        return arrive(digest, sink, fill, self._patience, self._shown, check)

    def write(self, digest: Digest, source: Source, check: Check) -> None:
        """Put a blob under `cas/`, in parts where it is large."""
        if digest == EMPTY:
            return
        if digest.size > self._part:
            self._run(lambda progress: self._put_parts(digest, source, progress), check)
            return
        with source() as stream:
            data = _read(stream, digest.size)
        if len(data) != digest.size:
            raise ValueError(f"a source that is shorter than {digest}")
        self._run(lambda progress: self._put(_blob(digest), data, progress), check)

    def read_many(self, digests: Iterable[Digest], check: Check) -> Brought:
        """Get small blobs side by side."""
        wanted = within_batch(digests)

        def read(progress: _Progress) -> Coroutine[Any, Any, list[bytes | None]]:
            return _abreast(wanted, lambda digest: self._small(digest, progress))

        found = self._run(read, check)
        right = {digest: data for digest, data in zip(wanted, found, strict=True) if data is not None}
        wrong = frozenset(digest for digest, data in right.items() if Digest.of(data) != digest)
        return Brought({digest: data for digest, data in right.items() if digest not in wrong}, wrong)

    def write_many(self, blobs: Mapping[Digest, bytes], check: Check) -> None:
        """Put small blobs side by side."""
        wanted = [digest for digest in within_batch(blobs) if digest != EMPTY]

        def write(progress: _Progress) -> Coroutine[Any, Any, list[None]]:
            return _abreast(wanted, lambda digest: self._put(_blob(digest), blobs[digest], progress))

        self._run(write, check)

    async def _is_there(self, digest: Digest, progress: _Progress) -> bool:
        async def once() -> bool:
            try:
                found = await self._asked(self._bucket.head_async(_blob(digest)))
            except Absent:
                return False
            finally:
                progress.moved()
            return found["size"] == digest.size

        return await self._repeated(once, progress)

    async def _small(self, digest: Digest, progress: _Progress) -> bytes | None:
        return b"" if digest == EMPTY else await self._whole(_blob(digest), digest.size, progress)

    async def _whole(self, path: str, most: int, progress: _Progress) -> bytes | None:
        """Give an object that is held in memory; where it has more than `most` bytes, that many and one."""

        async def once() -> bytes | None:
            try:
                reply = await self._asked(self._bucket.get_async(path))
            except Absent:
                progress.moved()
                return None
            body = bytearray()
            size = reply.meta["size"]
            if size <= most:
                async for chunk in self._chunks(reply.stream(_TRICKLE)):
                    progress.moved()
                    body += chunk
                if len(body) != size:
                    raise self._fault(Trouble.BROKEN, f"{len(body)} bytes in place of {size}", again=True)
                return bytes(body)
            progress.moved()
            return bytes(most + 1)

        return await self._repeated(once, progress)

    async def _fill(self, arrival: Arrival, progress: _Progress) -> bool:
        """Make one request for what is still to come of a blob; False where it is not there."""
        start, digest = arrival.received, arrival.digest
        try:
            reply = await self._asked(
                self._bucket.get_async(_blob(digest), options={"range": {"offset": start}} if start else None)
            )
        except Absent:
            return False
        except OtherPart as fault:
            arrival.restart()
            raise self._fault(fault.trouble, fault.text, again=start > 0) from None
        if reply.meta["size"] != digest.size:
            arrival.restart()
            text = f"{reply.meta['size']} bytes in the place of `{digest}`"
            raise self._fault(Trouble.BROKEN, text, again=start > 0)
        async for chunk in self._chunks(reply.stream(_TRICKLE)):
            if not arrival.take(chunk):
                raise self._fault(Trouble.BROKEN, f"more bytes than `{digest}` has")
            progress.moved()
        if arrival.received < digest.size:
            raise self._fault(Trouble.BROKEN, f"{arrival.received} bytes of `{digest}`", again=True)
        return True

    async def _put(self, path: str, data: bytes, progress: _Progress) -> None:
        async def once() -> None:
            with progress.sending(len(data)):
                await self._asked(self._bucket.put_async(path, data, use_multipart=False))

        await self._repeated(once, progress)

    async def _put_parts(self, digest: Digest, source: Source, progress: _Progress) -> None:
        """Send a blob in parts. obstore takes back a begun upload, but for one that is given up on the way."""
        part = max(self._part, -(-digest.size // _MOST_PARTS))

        async def parts() -> AsyncIterator[bytes]:
            left = digest.size
            with source() as stream:
                while left and (data := _read(stream, min(part, left))):
                    left -= len(data)
                    # That it is wanted says that an earlier one has arrived.
                    progress.moved()
                    yield data
            if left:
                raise ValueError(f"a source that is shorter than {digest}")

        async def once() -> None:
            with progress.sending(PARTS * part):
                sending = self._bucket.put_async(_blob(digest), parts(), chunk_size=part, max_concurrency=PARTS)
                await self._asked(sending)

        await self._repeated(once, progress)

    def _run(self, work: Callable[[_Progress], Coroutine[Any, Any, Answer]], check: Check) -> Answer:
        """Run asynchronous work on this thread until it is done, unwanted or stalled."""

        async def watched() -> Answer:
            progress = _Progress(self._stall)
            running = asyncio.ensure_future(work(progress))
            try:
                while not (await asyncio.wait({running}, timeout=_TURN))[0]:
                    check()
                    if progress.has_stalled():
                        text = f"less than {_TRICKLE >> 10} KiB in {self._stall:g} s"
                        raise self._fault(Trouble.STALLED, text)
                return running.result()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

        check()
        with asyncio.Runner() as runner:
            return runner.run(watched())

    async def _repeated(self, once: Callable[[], Awaitable[Answer]], progress: _Progress) -> Answer:
        """Ask as often as that may help."""
        attempt = 1
        while True:
            try:
                return await once()
            except Fault as fault:
                if not self._patience.goes_on(attempt, fault):
                    raise
                await asyncio.sleep(self._patience.seconds(attempt, fault))
                progress.moved()
            attempt += 1

    async def _chunks(self, stream: Any) -> AsyncIterator[bytes]:
        """Give the bytes of a body; the next ones are on their way while those before are used."""
        coming = stream.__anext__()
        try:
            while True:
                try:
                    chunk = await self._asked(coming)
                except StopAsyncIteration:
                    return
                coming = stream.__anext__()
                yield chunk
        finally:
            coming.cancel()

    async def _asked(self, call: Awaitable[Answer]) -> Answer:
        """Await what obstore does, and turn what it raises into faults, or into `Absent`."""
        try:
            return await call
        except (BaseError, FileNotFoundError, PermissionError) as error:
            raise told(str(error), self._shown, self._connect) from None

    def _fault(self, trouble: Trouble, text: str, *, again: bool = False) -> Fault:
        return Fault(trouble, self._shown, text, again=again)


class _Progress:
    """What moves in one call."""

    def __init__(self, stall: float) -> None:
        self._stall = stall
        self._since = time.monotonic()
        self._under_way = 0

    def moved(self) -> None:
        """Take note that something came or went."""
        self._since = time.monotonic()

    @contextlib.contextmanager
    def sending(self, size: int) -> Iterator[None]:
        """Give the server more time for what is being sent to it."""
        self._under_way += size
        try:
            yield
        finally:
            self._under_way -= size
            self.moved()

    def has_stalled(self) -> bool:
        """Tell whether nothing has moved for too long."""
        return time.monotonic() - self._since > self._stall * (1 + self._under_way / _SENT)


async def _abreast(items: Sequence[Item], work: Callable[[Item], Awaitable[Answer]]) -> list[Answer]:
    """Do `work` on every item, some at a time, and give the answers in order; the first error ends all."""
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(items))

    async def through() -> None:
        for index, item in waiting:
            answers[index] = await work(item)

    running = [asyncio.ensure_future(through()) for _ in range(min(WIDTH, len(items)))]
    try:
        await asyncio.gather(*running)
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return [answers[index] for index in range(len(items))]


def _blob(digest: Digest) -> str:
    return f"cas/{digest.hash}"


def _read(stream: Any, size: int) -> bytes:
    """Read `size` bytes, fewer at the end alone."""
    data = stream.read(size)
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return bytes(data)
