"""HTTP requests on connections that are kept and used again: the only door to httpcore2, with which httpx2 sends.

It knows HTTP, not caches: no status but what it is, no retries, no redirects, no login.

Hard part: a socket's time-out is about one read. A server that drips a byte a second, in headers or body, would hold a
build for ever, and a thread that waits in a read hears no cancellation. So sockets are asked in short turns; between
them the call's `check` is made, and a call that moves less than a trickle is stalled.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2

from strata_engine.digest import CHUNK
from strata_engine.logins import origin, public_url, userinfo, without_userinfo
from strata_engine.remote.backend import Check, Fault, Trouble
from strata_engine.remote.patience import LIMITS, TRICKLE, TURN, Limits
from strata_engine.remote.tls import NO_TLS, Tls, configure, context

CONNECTIONS = 16
"""Connections at most; more make no server faster that one machine asks."""

_LARGEST_HEAD = 256 << 10
"""Bytes of status and headers, those of interim answers too."""
_DRAINED = 64 << 10
"""Bytes of an answer that nobody wants which are read, so that the connection can be used again."""
_IDLE = 30.0
"""Seconds after which a connection that nobody used is not used again: servers close theirs after 60 or 75."""


class Reply:
    """The answer to one request: its body may be read once, within the request's `with`."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response
        self.status = response.status
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}

    @property
    def length(self) -> int | None:
        """How long the body is said to be."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def ends(self) -> bool:
        """Whether one can tell a whole body from one that was cut."""
        return self.length is not None or "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def said(self) -> str:
        """The status in words of our own: a server's may hold anything."""
        try:
            return f"HTTP {self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return f"HTTP {self.status}"

    def chunks(self) -> Iterator[bytes]:
        """Give the body as it comes."""
        return self._response.iter_stream()

    def drain(self) -> None:
        """Read what is left of a small body."""
        left = _DRAINED
        with contextlib.suppress(RuntimeError):  # it was read
            for chunk in self._response.iter_stream():
                left -= len(chunk)
                if left < 0:
                    return


class Wire:
    """Connections to one server. Methods may be called from any thread."""

    def __init__(self, url: str, *, limits: Limits = LIMITS, connections: int = CONNECTIONS, tls: Tls = NO_TLS) -> None:
        self.shown = public_url(url)
        self._limits = limits
        self._slots = threading.BoundedSemaphore(connections)
        self._watching = _Watching()
        self._pool = _pool(url, self._watching, connections, self.shown, tls)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @contextlib.contextmanager
    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | Iterable[tuple[str, str]],
        check: Check,
        body: Iterable[bytes] = (),
    ) -> Iterator[Reply]:
        """Send one request and give the answer. Raises Fault, from the `with` as well."""
        parts = urlsplit(url)
        given = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        host = parts.netloc.encode("ascii")
        try:
            sent = [(b"Host", host)] + [(name.encode("ascii"), value.encode("ascii")) for name, value in given]
            request = httpcore2.Request(
                method.encode("ascii"),
                httpcore2.URL(url),
                headers=sent,
                content=body,
                extensions={"timeout": {"connect": self._limits.connect, "pool": None}},
            )
        except (UnicodeError, TypeError, ValueError):
            # Not quoted: a header may be a login.
            raise self._fault(Trouble.UNSUPPORTED, "an address or a header that cannot be sent") from None
        watch = _Watch(check, self._limits.stall)
        check()
        while not self._slots.acquire(timeout=TURN):
            check()
        try:
            with self._watching.by(watch), self._faults(watch), contextlib.ExitStack() as stack:
                watch.begin()
                response = self._pool.handle_request(request)
                stack.callback(response.close)
                watch.in_body = True
                reply = Reply(response)
                yield reply
                reply.drain()
        finally:
            self._slots.release()

    @contextlib.contextmanager
    def _faults(self, watch: _Watch) -> Iterator[None]:
        """Turn what httpcore2 raises into faults."""
        try:
            yield
        except httpcore2.ConnectTimeout:
            text = f"no connection within {self._limits.connect:g} s"
            raise self._fault(Trouble.UNREACHABLE, text) from None
        except httpcore2.ProxyError:
            raise self._fault(Trouble.UNREACHABLE, "the proxy does not let us through") from None
        except httpcore2.ConnectError as error:
            if _wants_certificate(error):
                raise self._fault(Trouble.REFUSED, "it wants a client certificate that it accepts") from None
            raise self._fault(Trouble.UNREACHABLE, _plain(error), again=True) from None
        except httpcore2.TimeoutException:
            text = f"less than {TRICKLE >> 10} KiB in {self._limits.stall:g} s"
            raise self._fault(Trouble.STALLED, text) from None
        except (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError) as error:
            if _wants_certificate(error):
                raise self._fault(Trouble.REFUSED, "it wants a client certificate that it accepts") from None
            # h11 quotes what the server sent.
            what = "an answer" if watch.in_body else "the connection"
            text = f"{what} that was cut or makes no sense" if watch.heard else "the connection was closed"
            raise self._fault(Trouble.BROKEN, text, again=True) from None
        except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol):
            # An illegal header, which may be a login: h11 quotes that, too.
            raise self._fault(Trouble.UNSUPPORTED, "a request that cannot be sent") from None

    def _fault(self, trouble: Trouble, text: str, *, again: bool = False) -> Fault:
        return Fault(trouble, self.shown, text, again=again)


def _pool(url: str, watching: _Watching, connections: int, shown: str, tls: Tls) -> httpcore2.ConnectionPool:
    """Make the pool, through the proxy that the environment names for this server. Raises Fault, SpecError."""
    scheme, host, _ = origin(url)
    common: dict[str, Any] = {
        "max_connections": connections,
        "max_keepalive_connections": connections,
        "keepalive_expiry": _IDLE,
        "network_backend": _Network(watching),
    }
    if scheme == "https":
        common["ssl_context"] = _ssl_context(tls)
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return httpcore2.ConnectionPool(**common)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    login = userinfo(proxy)
    if urlsplit(proxy).scheme not in {"http", "https"}:
        raise Fault(Trouble.UNSUPPORTED, shown, f"the proxy `{public_url(proxy)}` does not speak HTTP")
    return httpcore2.HTTPProxy(without_userinfo(proxy), proxy_auth=login, **common)


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    if tls.authority:
        return context(tls)
    made = httpcore2.default_ssl_context()
    configure(made, tls)
    return made


_ALERTS = {"CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN"}
"""What a server says in TLS of a client's certificate that it lacks or does not like."""


def _wants_certificate(error: BaseException) -> bool:
    """Tell whether that ended the connection; in TLS 1.3 it ends when the first answer is read."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and any(f"ALERT_{alert}" in (seen.reason or "") for alert in _ALERTS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class _Watch:
    """The progress of one call."""

    def __init__(self, check: Check, stall: float) -> None:
        self.heard = 0
        self.in_body = False
        self._check = check
        self._stall = stall
        self._since = time.monotonic()
        self._moved = 0
        self._reading = False

    def begin(self) -> None:
        """Start the clock."""
        self._since, self._moved = time.monotonic(), 0

    def turn(self, *, reading: bool) -> None:
        """Give a server that has been sent all its time to think."""
        if reading != self._reading:
            self._reading = reading
            self.begin()

    def moved(self, count: int) -> None:
        """Take note of bytes that came or went."""
        self._moved += count
        if self._reading:
            self.heard += count
            if not self.in_body and self.heard > _LARGEST_HEAD:
                raise httpcore2.RemoteProtocolError("headers without end")
        self.waited()
        if self._moved >= TRICKLE:
            self.begin()

    def waited(self) -> None:
        """Make the check; raise where the call has stalled."""
        self._check()
        if self._moved < TRICKLE and time.monotonic() - self._since > self._stall:
            raise httpcore2.ReadTimeout("stalled")


class _Watching(threading.local):
    """The call that this thread is in: connections outlive calls, and a call stays in its thread."""

    watch: _Watch | None = None

    @contextlib.contextmanager
    def by(self, watch: _Watch) -> Iterator[None]:
        """Have everything on the wire watched."""
        self.watch = watch
        try:
            yield
        finally:
            self.watch = None


class _Network(httpcore2.NetworkBackend):
    """httpcore2's network, whose streams are watched."""

    def __init__(self, watching: _Watching) -> None:
        self._watching = watching
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._watching)


class _Stream(httpcore2.NetworkStream):
    """A connection that is read and written in short turns."""

    def __init__(self, inner: httpcore2.NetworkStream, watching: _Watching) -> None:
        self._inner = inner
        self._watching = watching

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        watch = self._watching.watch
        if watch is None:
            return self._inner.read(max_bytes, timeout)
        watch.turn(reading=True)
        while True:
            try:
                data = self._inner.read(max_bytes, TURN)
            except httpcore2.ReadTimeout:
                watch.waited()
                continue
            watch.moved(len(data))
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        watch = self._watching.watch
        if watch is None:
            self._inner.write(buffer, timeout)
            return
        watch.turn(reading=False)
        socket = self._inner.get_extra_info("socket")
        view = memoryview(buffer)
        while view:
            try:
                socket.settimeout(TURN)
                sent = socket.send(view[:CHUNK])
            except TimeoutError:
                watch.waited()
                continue
            except OSError as error:
                raise httpcore2.WriteError("cut") from error
            view = view[sent:]
            watch.moved(sent)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._watching)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _plain(error: Exception) -> str:
    """Say what the system said of a connection that could not be made."""
    cause = error.args[0] if error.args else error
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
    return "".join(c if c.isprintable() else " " for c in text)[:200].strip().rstrip(".") or "no connection"
