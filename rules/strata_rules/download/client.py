"""Bring bytes of a known SHA-256 from wherever they are into the store; the only door to the network.

It knows nothing of runtimes, wheels or indexes: it is given candidate URLs and a hash. Credentials go to the server
that they were given for and nowhere else: not into a message, a record, or to the host that a redirect names.

The hard part is to lose nothing: what arrives is hashed into the store and also kept in a `.part` file named by the
SHA-256, so that a cut connection, a killed build or another mirror goes on where the last one stopped. Bytes are only
ever believed because of their hash; a resumed body that turns out wrong is fetched once more from its start.
"""

from __future__ import annotations

import base64
import errno
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote
from urllib.request import url2pathname

import anyio
import anyio.to_thread

from strata_engine.digest import CHUNK, Digest, DigestWriter, is_sha256
from strata_engine.errors import Diagnostic, HostError, Place
from strata_engine.logins import is_url, public_url, redirected, split_url, without_userinfo
from strata_engine.tree import Store
from strata_rules.download.credentials import Credentials
from strata_rules.download.part import Body

if TYPE_CHECKING:
    import httpx2

Progress = Callable[[int, "int | None"], None]
"""Told the bytes that are there and how many there will be."""

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
ATTEMPTS = 5
LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more through Retry-After is tried again after this long."""


class Network:
    """One build's way to the network: one connection pool, made on first use, and what requests are allowed.

    httpx2 is imported with the first request, because most builds download nothing.
    """

    def __init__(
        self,
        *,
        offline: bool = False,
        credentials: Credentials | None = None,
        stall: float = 30.0,
        attempts: int | None = None,
        pause: float = 0.5,
    ) -> None:
        self.offline = offline
        self.attempts = attempts or _attempts(os.environ)
        self.pause = pause
        self._stall = stall
        self._credentials = credentials or Credentials()
        self._client: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """Ask for `url`, following redirects, each hop with the credentials of its own host and no other."""
        import httpx2  # noqa: PLC0415  (most builds download nothing)

        if self._client is None:
            # A proxy and certificates come from the environment and the system's store (httpx2's default).
            timeout = httpx2.Timeout(self._stall, pool=None)
            self._client = httpx2.AsyncClient(timeout=timeout, follow_redirects=False)
        for hop in range(10):
            request = self._client.build_request("GET", without_userinfo(url), headers=dict(headers))
            request.headers["Accept-Encoding"] = "identity"
            if (pair := self._credentials.find(url, first=hop == 0)) is not None:
                token = base64.b64encode(":".join(pair).encode()).decode("ascii")
                request.headers["Authorization"] = f"Basic {token}"
            response = await self._client.send(request, stream=True)
            try:
                target = response.headers.get("Location") if response.is_redirect else None
                if target is None:
                    yield response
                    return
            finally:
                await response.aclose()
            try:
                url = redirected(url, target)
            except ValueError:
                raise httpx2.UnsupportedProtocol("redirected to what is no URL") from None
            if split_url(url).scheme not in {"http", "https"}:
                raise httpx2.UnsupportedProtocol("redirected to something that is not HTTP")
        raise httpx2.TooManyRedirects("redirected more than 10 times")


def _attempts(environ: Mapping[str, str]) -> int:
    """Give how often a request is made before it has failed: uv's variable for retries holds for us as well."""
    retries = environ.get("UV_HTTP_RETRIES", "")
    return 1 + int(retries) if retries.isascii() and retries.isdigit() and len(retries) < 4 else ATTEMPTS


class _Wanted(NamedTuple):
    """What one download is about."""

    store: Store
    sha256: str
    size: int | None
    network: Network
    progress: Progress
    folder: Path


class _Failure(NamedTuple):
    """Why a candidate did not give the bytes; `again` where the same request may do better."""

    url: str
    id: str
    text: str
    again: bool
    wait: float | None = None


async def download(
    store: Store,
    urls: Sequence[str],
    sha256: str,
    *,
    network: Network,
    progress: Progress,
    folder_for_parts: Path,
    size: int | None = None,
    place: Place | None = None,
) -> Digest:
    """Put the bytes of `sha256` into the store from the first of `urls` that has them: HTTP(S), `file://` or a path.

    `place` is where the stack file asks for them. Raises HostError: `wrong-sha256`, `missing-file`,
    `download-refused`, `offline`, `unreachable`.
    """
    if not is_sha256(sha256):  # it becomes a file name
        raise ValueError(f"not a sha256: {sha256!r}")
    wanted = _Wanted(store, sha256, size, network, progress, folder_for_parts)
    failures: list[_Failure] = []
    for url in urls:
        local = local_path(url)
        if local is not None:
            found = await anyio.to_thread.run_sync(_copy, wanted, local, url)
        elif not is_url(url):
            found = _Failure(url, "unreachable", "not a URL", again=False)
        elif network.offline:
            found = _Failure(url, "offline", "not asked: this build is offline", again=False)
        else:
            found = await _fetch(wanted, url)
        if isinstance(found, Digest):
            return found
        failures.append(found)
    raise HostError(_explain(failures, sha256)._replace(place=place))


async def _fetch(wanted: _Wanted, url: str) -> Digest | _Failure:
    """Try one HTTP URL until it gives the bytes or has failed too often in a row without bringing any."""
    network = wanted.network
    body = await anyio.to_thread.run_sync(Body, wanted.store, wanted.sha256, wanted.folder)
    try:
        failure = _Failure(url, "unreachable", "not tried", again=True)
        in_vain = 0
        for _ in range(20 * network.attempts):
            before, resumed = body.received, body.received > 0
            found = await _attempt(wanted, body, url)
            if not isinstance(found, _Failure):
                return found
            failure = found
            if failure.id == "wrong-sha256":
                await anyio.to_thread.run_sync(body.restart)
                if not resumed:
                    return failure
                continue  # the beginning may have come from somewhere else: once more, from the start
            in_vain = 0 if body.received - before >= CHUNK else in_vain + 1
            if not failure.again or in_vain >= network.attempts:
                return failure
            # Jitter keeps many builds that one server turned away from coming back together.
            backoff = network.pause * 2**in_vain * random.uniform(0.5, 1.0)  # noqa: S311 (not a secret)
            await anyio.sleep(min(LONGEST_WAIT, failure.wait if failure.wait is not None else backoff))
        return failure
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(body.close)


async def _attempt(wanted: _Wanted, body: Body, url: str) -> Digest | _Failure:
    """Send one request and take what comes."""
    import httpx2  # noqa: PLC0415  (most builds download nothing)

    size = wanted.size
    headers = {"Range": f"bytes={body.received}-"} if body.received else {}
    if body.received and body.etag:
        headers["If-Range"] = body.etag
    try:
        async with wanted.network.get(url, headers) as response:
            status = response.status_code
            if status == 416 and body.received:  # what is kept is the whole file, or more than it
                if size in {None, body.received}:
                    return await _commit(body, url)
                return _Failure(url, "wrong-sha256", f"got {body.received} bytes, expected {size}", again=False)
            if status not in {200, 206}:
                return _refusal(url, response, retried=status in RETRIED)
            start = _range_start(response) if status == 206 else 0
            if start != body.received:
                await anyio.to_thread.run_sync(body.restart)
            if start not in {0, body.received}:
                return _Failure(url, "unreachable", "the server sent another part than asked", again=True)
            announced = response.headers.get("Content-Length", "")
            total = body.received + int(announced) if announced.isascii() and announced.isdigit() else size
            body.etag = _strong_etag(response)
            async for chunk in response.aiter_raw():  # as it comes: a cut loses nothing
                await anyio.to_thread.run_sync(body.write, chunk)
                wanted.progress(body.received, total)
                if size is not None and body.received > size:
                    return _Failure(url, "wrong-sha256", f"got more than the expected {size} bytes", again=False)
            if total is not None and body.received < total:
                text = f"the connection ended after {body.received} of {total} bytes"
                return _Failure(url, "unreachable", text, again=True)
            return await _commit(body, url)
    except httpx2.InvalidURL:
        return _Failure(url, "unreachable", "not a valid URL", again=False)
    except (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
        return _Failure(url, "unreachable", str(error), again=False)
    except (httpx2.TransportError, OSError) as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise HostError.of("cannot-write", f"cannot write a download: {error.strerror}") from error
        text = str(error).strip().rstrip(".") or type(error).__name__
        return _Failure(url, "unreachable", text, again=True)


async def _commit(body: Body, url: str) -> Digest | _Failure:
    try:
        return await anyio.to_thread.run_sync(body.commit)
    except ValueError:
        return _Failure(url, "wrong-sha256", f"got sha256 {body.hash}", again=False)


def _refusal(url: str, response: httpx2.Response, *, retried: bool) -> _Failure:
    text = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
    wait = _retry_after(response.headers.get("Retry-After", "")) if retried else None
    refused = "download-gone" if response.status_code in {404, 410} else "download-refused"
    return _Failure(url, "unreachable" if retried else refused, text, retried, wait)


def _explain(failures: Sequence[_Failure], sha256: str) -> Diagnostic:
    """Say the worst of the failures, with each candidate as a note."""
    notes = tuple(f"{public_url(f.url)}: {f.text}" for f in failures)
    if len(failures) == 1:
        notes = (f"from {public_url(failures[0].url)}",)
    worst = {f.id: f for f in reversed(failures)}
    if (failure := worst.get("wrong-sha256")) is not None:
        message = f"`{_file_name(failure.url)}` is not the expected file: expected sha256 {sha256}, {failure.text}"
        return Diagnostic("wrong-sha256", message, None, notes, _HINTS["wrong-sha256"])
    for id_ in ("download-refused", "download-gone", "unreachable", "missing-file", "offline"):
        if (failure := worst.get(id_)) is not None:
            name, host = _file_name(failure.url), split_url(failure.url).hostname or public_url(failure.url)
            message = {
                "missing-file": f"cannot read `{public_url(failure.url)}`: {failure.text}",
                "download-gone": f"`{host}` does not have `{name}`: {failure.text}",
                "download-refused": f"`{host}` refuses `{name}`: {failure.text}",
                "unreachable": f"cannot download `{name}` from `{host}`: {failure.text}",
                "offline": f"`{name}` is not in the store and may not be downloaded in an offline build",
            }[id_]
            shown = () if id_ == "missing-file" and len(failures) == 1 else notes
            return Diagnostic(id_, message, None, shown, _HINTS[id_])
    return Diagnostic("unreachable", f"no address is known for the file with sha256 {sha256}")


_HINTS = {
    "wrong-sha256": "something between here and the server changed the file, or the lock is wrong: compare both hashes",
    "missing-file": "put the file where it was, or change what names it",
    "download-gone": "if it was taken from the index since it was locked, lock anew: `strata lock --upgrade`",
    "download-refused": "check the address, and the credentials in netrc or `UV_INDEX_<NAME>_USERNAME`/`_PASSWORD`",
    "unreachable": "check the network, `HTTPS_PROXY` and `SSL_CERT_FILE`; what has arrived is kept for the next build",
    "offline": "build once without `--offline`",
}


def local_path(url: str) -> Path | None:
    """Give the file that a `file://` URL or a plain path names; None for any other URL."""
    parts = split_url(url)
    if parts.scheme == "file":
        return Path(url2pathname(unquote(parts.path) if os.name != "nt" else parts.path))
    return Path(url) if len(parts.scheme) < 2 else None  # one letter is a drive


def _copy(wanted: _Wanted, path: Path, url: str) -> Digest | _Failure:
    """Take a file of this machine, checked as a download is."""
    writer = DigestWriter()
    try:
        with path.open("rb") as stream, wanted.store.writer() as blob:
            total = os.fstat(stream.fileno()).st_size
            while chunk := stream.read(CHUNK):
                writer.update(chunk)
                blob.write(chunk)
                wanted.progress(writer.size, total)
            return blob.commit(wanted.sha256)
    except OSError as error:
        return _Failure(url, "missing-file", error.strerror or type(error).__name__, again=False)
    except ValueError:
        return _Failure(url, "wrong-sha256", f"got sha256 {writer.digest().hash}", again=False)


def _file_name(url: str) -> str:
    return unquote(split_url(url).path.rstrip("/").rpartition("/")[2]) or public_url(url)


def _range_start(response: httpx2.Response) -> int:
    """Read `Content-Range: bytes START-…`; -1 where it says nothing clear."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0].strip()
    return int(start) if unit == "bytes" and start.isascii() and start.isdigit() else -1


def _strong_etag(response: httpx2.Response) -> str:
    """Give what If-Range may compare: a weak ETag says nothing about bytes."""
    etag = str(response.headers.get("ETag", ""))
    return "" if etag.startswith("W/") else etag


def _retry_after(value: str) -> float | None:
    """Read Retry-After, in seconds or as a date."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
