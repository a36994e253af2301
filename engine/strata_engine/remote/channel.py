"""Calls to a gRPC server: the only door to grpcio.

It knows bytes, methods and statuses, not messages; no retries, no caches. What a status means is said in one table.

Hard part: grpcio's blocking calls hear no cancellation, and have deadlines for the whole of a call, which say nothing
of a stream of gigabytes. So an answer is waited for in short turns, with the call's `check` between them; streams are
pumped by a thread of their own; and a call that moves less than a trickle is stalled. All of it is bytes in and out:
grpcio would write down on stderr what its own decoders raise.
"""

from __future__ import annotations

import contextlib
import os
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from strata_engine.remote.backend import LARGEST_RESULT, Check, Fault, Trouble
from strata_engine.remote.credentials import Headers, HeaderSource, no_headers
from strata_engine.remote.patience import LIMITS, LONGEST_WAIT, TRICKLE, TURN, Limits
from strata_engine.remote.tls import Tls, read

with contextlib.ExitStack() as _quiet:
    # Its core writes to stderr what it says in statuses, too. It looks when it is loaded.
    if "GRPC_VERBOSITY" not in os.environ:
        os.environ["GRPC_VERBOSITY"] = "NONE"
        _quiet.callback(os.environ.pop, "GRPC_VERBOSITY", None)
    import grpc

LARGEST_MESSAGE = LARGEST_RESULT + (64 << 10)
"""Bytes of a message that is still read."""
SLOWEST = 64 << 10
"""Bytes a second with which a call of one message has not stalled: how much of it has come nobody can see."""
WIDTH = 8
"""Calls that are under way at once for one caller."""

INVALID_ARGUMENT, NOT_FOUND, OUT_OF_RANGE, UNAVAILABLE, UNAUTHENTICATED = 3, 5, 11, 14, 16

_QUEUED = 4
_RECONNECT = 0.25
"""Seconds after which another connection is tried, at the latest; a call before that fails as the last one did."""
_MEANING: dict[int, tuple[str, Trouble, bool]] = {
    1: ("CANCELLED", Trouble.FAILING, True),
    2: ("UNKNOWN", Trouble.FAILING, True),
    3: ("INVALID_ARGUMENT", Trouble.UNSUPPORTED, False),
    4: ("DEADLINE_EXCEEDED", Trouble.STALLED, False),
    5: ("NOT_FOUND", Trouble.UNSUPPORTED, False),
    6: ("ALREADY_EXISTS", Trouble.UNSUPPORTED, False),
    7: ("PERMISSION_DENIED", Trouble.REFUSED, False),
    8: ("RESOURCE_EXHAUSTED", Trouble.FULL, False),
    9: ("FAILED_PRECONDITION", Trouble.UNSUPPORTED, False),
    10: ("ABORTED", Trouble.FAILING, True),
    11: ("OUT_OF_RANGE", Trouble.UNSUPPORTED, False),
    12: ("UNIMPLEMENTED", Trouble.UNSUPPORTED, False),
    13: ("INTERNAL", Trouble.FAILING, True),
    14: ("UNAVAILABLE", Trouble.FAILING, True),
    15: ("DATA_LOSS", Trouble.BROKEN, False),
    16: ("UNAUTHENTICATED", Trouble.REFUSED, False),
}
"""What a status is called, what it means of a cache, and whether the same call may do better."""

_LOCAL: tuple[tuple[str, Trouble, str, bool], ...] = (
    ("Connection refused", Trouble.UNREACHABLE, "connection refused", True),
    ("CERTIFICATE_VERIFY_FAILED", Trouble.UNREACHABLE, "certificate verify failed", False),
    ("Hostname Verification", Trouble.UNREACHABLE, "its certificate is for another name", False),
    ("Peer name", Trouble.UNREACHABLE, "its certificate is for another name", False),
    ("WRONG_VERSION_NUMBER", Trouble.UNREACHABLE, "it does not speak TLS", False),
    ("andshake", Trouble.UNREACHABLE, "no TLS connection", False),
    ("No route to host", Trouble.UNREACHABLE, "no route to host", True),
    ("Network is unreachable", Trouble.UNREACHABLE, "network is unreachable", True),
    ("DNS resolution failed", Trouble.UNREACHABLE, "its name is not known", False),
    ("Domain name not found", Trouble.UNREACHABLE, "its name is not known", False),
    ("ailed to connect", Trouble.UNREACHABLE, "no connection", True),
    ("Socket closed", Trouble.BROKEN, "the connection was closed", True),
    ("onnection reset", Trouble.BROKEN, "the connection was closed", True),
    ("Broken pipe", Trouble.BROKEN, "the connection was closed", True),
    ("End of TCP stream", Trouble.BROKEN, "the connection was closed", True),
    ("GOAWAY", Trouble.BROKEN, "the connection was closed", True),
    ("http1", Trouble.UNSUPPORTED, "it does not speak gRPC", False),
    ("larger than max", Trouble.BROKEN, "a message that is too large", False),
)
"""What grpcio says itself, in its own words, and in ours; a server's words are never shown."""


class Status(Fault):
    """A call, or a part of one, that ended with a status other than OK."""

    def __init__(self, code: int, where: str, *, details: str = "", wait: float | None = None) -> None:
        self.code = code
        name, trouble, again = _MEANING.get(code, ("UNKNOWN", Trouble.FAILING, False))
        text = f"gRPC status {name}"
        for said, meant, words, better in _LOCAL:
            if said in details and code in {8, UNAVAILABLE}:
                trouble, text, again = meant, words, better
                if better and meant is Trouble.UNREACHABLE:
                    wait = _RECONNECT
                break
        if wait is not None:
            # Whoever says when to come back is not full, but busy.
            trouble = Trouble.FAILING if trouble is Trouble.FULL else trouble
            again = wait <= LONGEST_WAIT
        super().__init__(trouble, where, text, again=again, wait=wait)


Outcome: TypeAlias = "bytes | Fault"


class Channel:
    """A connection to one server, made when it is needed; without `tls` it is in the clear.

    Methods may be called from any thread.
    """

    def __init__(
        self,
        target: str,
        shown: str,
        *,
        tls: Tls | None = None,
        url: str = "",
        headers: HeaderSource = no_headers,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        wait_of: Callable[[bytes], float | None] = lambda _: None,
        limits: Limits = LIMITS,
    ) -> None:
        self.shown = shown
        self._url = url
        self._headers = headers
        self._used: Headers = ()
        self._metadata = metadata
        self._wait_of = wait_of
        self._limits = limits
        self._closed = False
        options = [
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            # A cache that was closed leaves nothing behind, nor does it wait because another one could not connect.
            ("grpc.use_local_subchannel_pool", 1),
            # This is what bounds an attempt to connect, and with it every call that waits for one.
            ("grpc.min_reconnect_backoff_ms", max(100, int(limits.connect * 1000))),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
            # Who waits for a name no longer than for a connection, and uses none that lay idle for as long as HTTP's:
            # what lies between may have forgotten it without a word.
            ("grpc.dns_ares_query_timeout", int(limits.connect * 1000)),
            ("grpc.client_idle_timeout_ms", 30_000),
            # A message could become as large as it likes by being decompressed: none is taken, and none sent.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.primary_user_agent", "strata"),
        ]
        if tls is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, _credentials(shown, tls), options)

    def close(self) -> None:
        """End the connection and all calls."""
        self._closed = True
        self._channel.close()

    def freshen(self) -> bool:
        """Ask for new credentials; False where they are those that were refused."""
        return self._headers(self._url, fresh=True) != self._used

    def ask(self, method: str, request: bytes, check: Check, *, expected: int = 0) -> bytes:
        """Make one call with one answer, of about `expected` bytes. Raises Fault."""
        (outcome,) = self.ask_all(method, [request], check, expected=[expected])
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def ask_all(
        self, method: str, requests: Sequence[bytes], check: Check, *, expected: Sequence[int] = ()
    ) -> list[Outcome]:
        """Make calls side by side, a few at a time, and give each one's answer or fault. Raises what `check` raises."""
        outcomes: list[Outcome] = []
        for start in range(0, len(requests), WIDTH):
            some = requests[start : start + WIDTH]
            moved = sum(map(len, some)) + sum(expected[start : start + WIDTH])
            outcomes += self._side_by_side(method, some, self._limits.stall + moved / SLOWEST, check)
        return outcomes

    def _side_by_side(self, method: str, requests: Sequence[bytes], seconds: float, check: Check) -> list[Outcome]:
        call = self._channel.unary_unary(method)
        with contextlib.ExitStack() as stack:
            try:
                metadata = self._beside(check)
            except Fault as fault:
                return [fault] * len(requests)
            futures = [call.future(request, timeout=seconds, metadata=metadata) for request in requests]
            for future in futures:
                stack.callback(future.cancel)
            return [self._outcome(future, check, None) for future in futures]

    @contextlib.contextmanager
    def stream(self, method: str, request: bytes, check: Check) -> Iterator[Iterator[bytes]]:
        """Make a call with many answers, and give them as they come. Raises Fault, from the `with` as well."""
        metadata = self._beside(check)
        pump = _Pump(self._channel.unary_stream(method)(request, metadata=metadata))
        try:
            yield self._pumped(pump, check)
        finally:
            pump.close()

    def _pumped(self, pump: _Pump, check: Check) -> Iterator[bytes]:
        progress = _Progress(self._limits.stall)
        while True:
            check()
            try:
                got = pump.got.get(timeout=TURN)
            except queue.Empty:
                got = b""
            else:
                if got is None:
                    break
                yield got
            if progress.stalled(len(got)):
                raise self._stalled()
        if pump.error is not None:
            raise self._status(pump.error)

    def send(self, method: str, pieces: Iterator[bytes], check: Check) -> bytes:
        """Make a call with many messages, taken from `pieces` on another thread, and one answer.

        Raises Fault, and what `pieces` raises.
        """
        metadata = self._beside(check)
        feed = _Feed(pieces)
        future = self._channel.stream_unary(method).future(feed, metadata=metadata)
        try:
            outcome = self._outcome(future, check, feed)
        finally:
            future.cancel()
            feed.close()
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def _outcome(self, future: Any, check: Check, feed: _Feed | None) -> Outcome:
        """Wait for the answer to a call, in turns; a call without a feed has a deadline."""
        progress, sent, handed = _Progress(self._limits.stall), 0, False
        while True:
            check()
            try:
                return bytes(future.result(timeout=TURN))
            except grpc.FutureTimeoutError:
                pass
            except grpc.FutureCancelledError:
                return Status(1, self.shown)
            except grpc.RpcError as error:
                return self._status(error)
            if feed is None:
                continue
            if feed.error is not None:
                raise feed.error
            moved, sent = feed.sent - sent, feed.sent
            if feed.handed and not handed:
                # All is sent: now it has all its time to think.
                handed, progress = True, _Progress(self._limits.stall)
            if progress.stalled(moved):
                return self._stalled()

    def _beside(self, check: Check) -> tuple[tuple[str, str | bytes], ...]:
        """Give what goes beside a call. Raises Fault."""
        check()
        if self._closed:
            # grpcio raises ValueError: somebody may have been about to ask again.
            raise Fault(Trouble.UNREACHABLE, self.shown, "it is asked no more")
        self._used = self._headers(self._url)
        return self._metadata + self._login()

    def _login(self) -> tuple[tuple[str, str], ...]:
        """Give credentials as gRPC can send them. Raises Fault, which shows none."""
        login = tuple((name.lower(), value) for name, value in self._used)
        for name, value in login:
            if set(name) - _NAME or not name or name.startswith("grpc-") or name.endswith("-bin"):
                raise Fault(Trouble.UNSUPPORTED, self.shown, "a header that cannot be sent")
            if not (value.isascii() and value.isprintable()):
                raise Fault(Trouble.UNSUPPORTED, self.shown, "a header that cannot be sent")
        return login

    def _status(self, error: Any) -> Fault:
        code = error.code().value[0]
        trailing = dict(error.trailing_metadata() or ())
        wait = self._wait_of(trailing.get("grpc-status-details-bin", b""))
        return Status(code, self.shown, details=error.details() or "", wait=wait)

    def _stalled(self) -> Fault:
        text = f"less than {TRICKLE >> 10} KiB in {self._limits.stall:g} s"
        return Fault(Trouble.STALLED, self.shown, text)


class _Progress:
    """What has moved of one call."""

    def __init__(self, stall: float) -> None:
        self._stall = stall
        self._since = time.monotonic()
        self._moved = 0

    def stalled(self, moved: int) -> bool:
        """Take note of bytes that came or went, and tell whether they are too few."""
        self._moved += moved
        now = time.monotonic()
        if self._moved >= TRICKLE:
            self._since, self._moved = now, 0
        return now - self._since > self._stall


class _Pump:
    """Takes the messages of a call on a thread of its own; a few of them wait to be used."""

    def __init__(self, call: Any) -> None:
        self.got: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self.error: Any = None
        self._call = call
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remote-stream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the call and the thread."""
        self._closed.set()
        self._call.cancel()
        self._thread.join()

    def _run(self) -> None:
        try:
            for message in self._call:
                self._put(message)
        except grpc.RpcError as error:
            self.error = error
        self._put(None)

    def _put(self, message: bytes | None) -> None:
        while not self._closed.is_set():
            try:
                self.got.put(message, timeout=TURN)
            except queue.Full:
                continue
            return


class _Feed:
    """Gives grpcio's thread what is to be sent; it may end at any time, from outside."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.sent = 0
        self.handed = False
        self.error: BaseException | None = None
        self._pieces = pieces
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> bytes:
        with self._lock:
            if self._closed.is_set():
                raise StopIteration
            try:
                piece = next(self._pieces)
            except StopIteration:
                self.handed = True
                raise
            except BaseException as error:  # it is raised where the call was made
                self.error = error
            else:
                self.sent += len(piece)
                return piece
        # An end would say that this was all: the call is cancelled first.
        self._closed.wait()
        raise StopIteration

    def close(self) -> None:
        """Give no more, and let go of what was open."""
        self._closed.set()
        with self._lock:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()


_NAME = set("0123456789abcdefghijklmnopqrstuvwxyz-_.")
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def _credentials(shown: str, tls: Tls) -> Any:
    """Make what opens connections. Raises Fault, SpecError: grpcio takes anything, and then never connects."""
    pem = read(tls)
    try:
        roots = pem.authority or _roots()
    except OSError as error:
        raise Fault(Trouble.UNREACHABLE, shown, f"cannot read `{error.filename}`: {error.strerror}") from None
    return grpc.ssl_channel_credentials(roots, pem.key, pem.certificate)


def _roots() -> bytes | None:
    """Give the certificates that the system trusts; None, which means grpcio's own, where there are none."""
    named = os.environ.get("SSL_CERT_FILE")
    if named:
        return Path(named).read_bytes()
    for path in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None
