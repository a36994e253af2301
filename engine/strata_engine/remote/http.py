"""A remote cache over the Bazel HTTP protocol: `/ac/HASH` has encoded ActionResults, `/cas/HASH` the bytes of blobs.

nginx, bazel-remote, and any WebDAV or bucket front speak it. It knows requests and statuses; connections are `wire`'s.

The protocol has no batches, no checks and no capabilities, so this is where they are made up for: small blobs go side
by side, what comes is committed by its digest alone, a body that was cut goes on where it stopped, and what a status
means for a cache is said in one table. A cache that redirects is none: nothing is followed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import BinaryIO, TypeVar

from strata_engine.digest import EMPTY, Digest
from strata_engine.logins import without_userinfo
from strata_engine.remote.abreast import abreast
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
from strata_engine.remote.credentials import Headers, HeaderSource, no_headers
from strata_engine.remote.patience import ATTEMPTS, LIMITS, LONGEST_WAIT, PAUSE, Limits, Patience
from strata_engine.remote.tls import NO_TLS, Tls
from strata_engine.remote.wire import Reply, Wire

_SENT = 256 << 10
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {401, 403, 407}
_FULL = {413, 507}
_NOT_THERE = {404, 410}
_DONE = {200, 201, 202, 204}

Answer = TypeVar("Answer")


class HttpCache:
    """One cache (`backend.Backend`). Methods may be called from any thread."""

    def __init__(
        self,
        url: str,
        *,
        headers: HeaderSource = no_headers,
        tls: Tls = NO_TLS,
        limits: Limits = LIMITS,
        attempts: int = ATTEMPTS,
        pause: float = PAUSE,
    ) -> None:
        self._url = without_userinfo(url).rstrip("/")
        self._headers = headers
        self._patience = Patience(attempts, pause)
        self._wire = Wire(self._url, limits=limits, tls=tls)
        self._head_works = True

    @property
    def shown(self) -> str:
        """Where it is, as a person may see it."""
        return self._wire.shown

    @property
    def has_batches(self) -> bool:
        """Each blob is asked for by itself."""
        return False

    @property
    def wants_directories(self) -> bool:
        """Nothing looks into what is put there."""
        return False

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def capabilities(self, check: Check) -> Capabilities:
        """Look for the empty blob, of which all that matters is that we may."""
        said = self._ask("HEAD", _blob(EMPTY), lambda reply: reply.headers.get("date", ""), check, allowed=(405, 501))
        return Capabilities(server_time=_time(said))

    def get_result(self, address: Digest, check: Check) -> bytes | None:
        """Give what lies under `/ac/`; nothing proves it but that it is whole."""

        def taken(reply: Reply) -> bytes | None:
            if reply.status in _NOT_THERE:
                return None
            if not reply.ends:
                raise self._fault(Trouble.BROKEN, "an answer of which one cannot tell whether it is whole")
            return self._body(reply, LARGEST_RESULT)

        return self._ask("GET", f"/ac/{address.hash}", taken, check)

    def put_result(self, address: Digest, data: bytes, check: Check) -> None:
        """Put it under `/ac/`."""
        self._put(f"/ac/{address.hash}", len(data), lambda: _pieces(data), check)

    def missing(self, digests: Iterable[Digest], check: Check) -> set[Digest]:
        """Ask for each one's size."""
        wanted = list(dict.fromkeys(digest for digest in digests if digest != EMPTY))
        there = abreast(wanted, self._is_there, check)
        return {digest for digest, found in zip(wanted, there, strict=True) if not found}

    def read(self, digest: Digest, sink: Sink, check: Check) -> bool:
        """Commit a blob to `sink`, going on where a cut body stopped; False where it is not there."""
        return arrive(digest, sink, partial(self._fill, check=check), self._patience.repeat, self.shown, check)

    def write(self, digest: Digest, source: Source, check: Check) -> None:
        """Put a blob under `/cas/`."""
        if digest != EMPTY:
            self._put(_blob(digest), digest.size, lambda: _sent(source, digest), check)

    def read_many(self, digests: Iterable[Digest], check: Check) -> Brought:
        """Get small blobs side by side."""
        wanted = within_batch(digests)
        found = abreast(wanted, self._small, check)
        right = {digest: data for digest, data in zip(wanted, found, strict=True) if data is not None}
        wrong = frozenset(digest for digest, data in right.items() if Digest.of(data) != digest)
        return Brought({digest: data for digest, data in right.items() if digest not in wrong}, wrong)

    def write_many(self, blobs: Mapping[Digest, bytes], check: Check) -> None:
        """Put small blobs side by side."""

        def put(digest: Digest, check: Check) -> None:
            self._put(_blob(digest), digest.size, lambda: _pieces(blobs[digest]), check)

        abreast([digest for digest in within_batch(blobs) if digest != EMPTY], put, check)

    def _is_there(self, digest: Digest, check: Check) -> bool:
        def looked(reply: Reply) -> bool | None:
            if reply.status in {405, 501}:
                return None
            # Without a length it is taken for there: reading it will tell.
            return reply.status not in _NOT_THERE and reply.length in {None, digest.size}

        if self._head_works:
            found = self._ask("HEAD", _blob(digest), looked, check, allowed=(405, 501))
            if found is not None:
                return found
            self._head_works = False
        # What is in it is not read: the connection is worth less than the bytes.
        return bool(self._ask("GET", _blob(digest), looked, check))

    def _small(self, digest: Digest, check: Check) -> bytes | None:
        """Give what lies in the place of a small blob, of which one byte too many is enough to know."""
        if digest == EMPTY:
            return b""

        def taken(reply: Reply) -> bytes | None:
            return None if reply.status in _NOT_THERE else self._body(reply, digest.size, more=True)

        return self._ask("GET", _blob(digest), taken, check)

    def _body(self, reply: Reply, most: int, *, more: bool = False) -> bytes:
        body = bytearray()
        for chunk in reply.chunks():
            body += chunk
            if len(body) > most:
                if more:
                    return bytes(body[: most + 1])
                raise self._fault(Trouble.BROKEN, f"an answer of more than {most} bytes")
        return bytes(body)

    def _fill(self, arrival: Arrival, check: Check) -> bool:
        """Make one request for what is still to come of a blob; False where it is not there."""
        start = arrival.received
        extra = (("Range", f"bytes={start}-"),) if start else ()
        with self._request("GET", _blob(arrival.digest), extra, check) as reply:
            if reply.status in _NOT_THERE:
                return False
            if reply.status == 416 and start:
                arrival.restart()
                raise self._fault(Trouble.BROKEN, f"less of `{arrival.digest}` than before", again=True)
            if start and reply.status == 206:
                if _range_start(reply) != start:
                    arrival.restart()
                    raise self._fault(Trouble.BROKEN, "another part than was asked for", again=True)
            else:
                self._judge(reply)
                arrival.restart()
            for chunk in reply.chunks():
                if not arrival.take(chunk):
                    raise self._fault(Trouble.BROKEN, f"more bytes than `{arrival.digest}` has")
        if arrival.received < arrival.digest.size:
            text = f"{arrival.received} bytes of `{arrival.digest}`"
            # A server that says that this is all has another blob; one that was cut may do better.
            raise self._fault(Trouble.BROKEN, text, again=not reply.ends)
        return True

    def _put(self, path: str, size: int, body: Callable[[], Iterator[bytes]], check: Check) -> None:
        # The length always: bazel-remote and a strict nginx take nothing without.
        headers = (("Content-Length", str(size)), ("Content-Type", "application/octet-stream"))

        def judged(reply: Reply) -> None:
            if reply.status not in _DONE:
                raise self._fault(Trouble.UNSUPPORTED, f"{reply.said} to a PUT")

        self._ask("PUT", path, judged, check, headers=headers, body=body)

    def _ask(
        self,
        method: str,
        path: str,
        use: Callable[[Reply], Answer],
        check: Check,
        *,
        headers: Headers = (),
        body: Callable[[], Iterator[bytes]] | None = None,
        allowed: tuple[int, ...] = (),
    ) -> Answer:
        """Make a request as often as that may help, and give what `use` makes of the answer."""

        def once() -> Answer:
            with self._request(method, path, headers, check, body) as reply:
                if reply.status not in allowed:
                    self._judge(reply)
                return use(reply)

        return self._patience.repeat(once, check)

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        path: str,
        headers: Headers,
        check: Check,
        body: Callable[[], Iterator[bytes]] | None = None,
    ) -> Iterator[Reply]:
        """Send one request, and once more where a login had expired."""
        url = self._url + path
        login = self._headers(url)
        plain = (("Accept-Encoding", "identity"), ("User-Agent", "strata"), *headers)
        for fresh in (False, True):
            with self._wire.ask(method, url, (*plain, *login), check, body() if body else ()) as reply:
                if reply.status == 401 and not fresh and (newer := self._headers(url, fresh=True)) != login:
                    login = newer
                    continue
                yield reply
                return

    def _judge(self, reply: Reply) -> None:
        """Raise Fault for a status that is one."""
        status, said = reply.status, reply.said
        if status in _DONE or status in _NOT_THERE:
            return
        if status in _REFUSED:
            raise self._fault(Trouble.REFUSED, said)
        if status in _FULL:
            raise self._fault(Trouble.FULL, said)
        if status in _AGAIN:
            wait = reply.headers.get("retry-after", "")
            seconds = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 9 else None
            again = seconds is None or seconds <= LONGEST_WAIT
            raise Fault(Trouble.FAILING, self.shown, said, again=again, wait=seconds)
        if status >= 500 and status not in {501, 505}:
            raise self._fault(Trouble.FAILING, said)
        text = f"{said}: redirects are not followed" if 300 <= status < 400 else said
        raise self._fault(Trouble.UNSUPPORTED, text)

    def _fault(self, trouble: Trouble, text: str, *, again: bool = False) -> Fault:
        return Fault(trouble, self.shown, text, again=again)


def _time(date: str) -> float | None:
    """Read a `Date`; None where it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _blob(digest: Digest) -> str:
    return f"/cas/{digest.hash}"


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), _SENT):
        yield data[at : at + _SENT]


def _sent(source: Source, digest: Digest) -> Iterator[bytes]:
    """Read a blob to be sent. Raises ValueError where it is not as long as its digest says."""
    stream: BinaryIO
    with source() as stream:
        left = digest.size
        while left and (chunk := stream.read(min(_SENT, left))):
            left -= len(chunk)
            yield chunk
        if left:
            raise ValueError(f"a source that is shorter than {digest}")


def _range_start(reply: Reply) -> int:
    """Read `Content-Range: bytes START-…`; -1 where it says nothing clear."""
    unit, _, rest = reply.headers.get("content-range", "").partition(" ")
    start = rest.partition("-")[0].strip()
    return int(start) if unit == "bytes" and start.isascii() and start.isdigit() and len(start) < 20 else -1
