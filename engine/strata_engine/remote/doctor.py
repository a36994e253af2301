"""What one remote cache can do, tried out: what a person who sets one up wants to know before a build relies on it.

It asks a `Backend` as a build does, and prints nothing. What it writes has names made by chance, which nothing else
uses, and stays there: caches let nobody remove anything. What it says has no words of a server in it.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TypeVar

import msgspec

from strata_engine.codec import OUTPUT, ActionResult, OutputFile, encode_action_result
from strata_engine.digest import Digest, DigestWriter
from strata_engine.remote.backend import Backend, Capabilities, Check, Fault, Trouble
from strata_engine.remote.results import incoming
from strata_engine.words import duration, size

ROUNDS = 7
"""Round trips of which the median counts."""
PROBE = 1 << 20
"""Bytes of the blob that a transfer is timed with first."""
PROBE_MORE = 8 << 20
"""Bytes of a second one, where the first was there too soon to tell."""

_TOO_SOON = 0.3
_SLOW_ROUND = 0.25
"""Seconds of a round trip from which on many builds are faster without the cache."""
_SLOW_BYTES = 1_000_000
"""Bytes per second below which the same is true."""
_SKEW = 60.0
"""Seconds by which clocks may differ: tokens and signatures of requests live for some minutes."""

T = TypeVar("T")


class State(StrEnum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    """True, and worth knowing."""
    WARN = "warn"
    """It works, and should be looked at."""
    FAIL = "fail"
    """So it cannot be used."""
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was tried."""

    check: str
    """Its stable name."""
    state: State
    text: str
    hint: str = ""


class Examined(msgspec.Struct, frozen=True):
    """What was found out about one cache."""

    url: str
    """As it may be shown."""
    usable: bool
    """Whether builds can read from it."""
    writable: bool | None
    """Whether it takes what we make; None where that was not tried."""
    findings: tuple[Finding, ...]
    latency: float | None = None
    """Seconds of a round trip."""
    read_speed: float | None = None
    """Bytes per second of one transfer."""
    write_speed: float | None = None
    left: int = 0
    """Bytes that stay there."""


class Setting(msgspec.Struct, frozen=True):
    """What is known of a cache before it is asked."""

    kind: str
    """How it is spoken to, in words: `over HTTP`."""
    zones: bool
    """Whether each zone has a place of its own."""
    zone: str
    credential: str = ""
    """What lets us in, in words that hold no secret; empty where nothing does."""
    open_to_all: bool = True
    """Whether whoever reaches it is let in where it wants no credential: not so with a folder, which has owners."""
    in_clear: bool = False
    """Whether a credential would travel so that everybody on the way can read it."""


def examine(remote: Backend, setting: Setting, check: Check, *, write: bool = True) -> Examined:
    """Try a cache out. Faults are findings; whatever `check` raises is raised."""
    examination = _Examination(remote, setting, check)
    with contextlib.suppress(_StopError):
        examination.reach()
        examination.read()
        if write:
            examination.write()
        else:
            examination.find("write", State.SKIPPED, "not tried")
        examination.facts()
    return examination.examined()


def failed(url: str, fault: Fault) -> Examined:
    """Give what is to say of a cache that could not even be opened."""
    return Examined(url, usable=False, writable=None, findings=(_finding("reach", State.FAIL, fault),))


class _StopError(Exception):
    """Nothing more can be found out."""


class _Examination:
    """The findings so far."""

    def __init__(self, remote: Backend, setting: Setting, check: Check) -> None:
        self._remote = remote
        self._setting = setting
        self._check = check
        self._findings: list[Finding] = []
        self._offers = Capabilities()
        self._skew: float | None = None
        self._latency: float | None = None
        self._speeds: tuple[float | None, float | None] = (None, None)
        self._writable: bool | None = None
        self._left = 0

    def examined(self) -> Examined:
        """Give what was found."""
        usable = all(finding.state is not State.FAIL for finding in self._findings)
        read_speed, write_speed = self._speeds
        return Examined(
            self._remote.shown,
            usable,
            self._writable,
            tuple(self._findings),
            self._latency,
            read_speed,
            write_speed,
            self._left,
        )

    def find(self, check: str, state: State, text: str, hint: str = "") -> None:
        """Take note of something."""
        self._findings.append(Finding(check, state, text, hint))

    def reach(self) -> None:
        """Ask what it offers."""
        setting = self._setting
        asked = time.time()
        try:
            self._offers = self._remote.capabilities(self._check)
        except Fault as fault:
            if fault.trouble is Trouble.REFUSED:
                self.find("reach", State.OK, f"it answers, {setting.kind}")
                self._stop("auth", fault)
            self._stop("reach", fault)
        self.find("reach", State.OK, f"it answers, {setting.kind}")
        if self._offers.server_time is not None:
            # A server says whole seconds.
            self._skew = _apart(self._offers.server_time, asked - 1, time.time())
        if not setting.credential:
            self.find("auth", State.OK, "reads need no credential, and none was given")
        elif setting.in_clear:
            hint = "use `https://` or `grpcs://`"
            self.find("auth", State.WARN, f"{setting.credential}, which everybody on the way can read", hint)
        else:
            self.find("auth", State.OK, f"let in with {setting.credential}")
        if setting.zones:
            self.find("zones", State.OK, f"each has a place of its own; this is `{setting.zone}`")
        else:
            hint = "`{zone}` in the URL gives each zone a place that the server can guard"
            self.find("zones", State.NOTE, "one place for all: whoever may write can write for every zone", hint)

    def read(self) -> None:
        """Ask for what cannot be there, and time it."""
        absent = Digest.of(secrets.token_bytes(32))
        rounds: list[float] = []
        with self._stopping("read"):
            lies = self._has(absent, rounds)
        if lies:
            hint = "check the address: this looks like a server for something else"
            self._fail("read", "it has an answer for what nobody wrote", hint)
        self.find("read", State.OK, "what is not there is a miss")
        self._latency = statistics.median(rounds)
        state = State.WARN if self._latency > _SLOW_ROUND else State.OK
        hint = "a cache that is closer helps more: small results cost a round trip each" if state is State.WARN else ""
        self.find("latency", state, f"{self._latency * 1000:.1f} ms, the median of {ROUNDS} round trips", hint)

    def write(self) -> None:
        """Write a blob and a result that names it, read both back, and see what else it takes."""
        if self._offers.writable is False:
            self._writable = False
            self.find("write", State.NOTE, "it says that it takes nothing from us", _READ_ONLY)
            return
        small = secrets.token_bytes(64)
        digest, address = Digest.of(small), Digest.of(secrets.token_bytes(32))
        result = _result(digest)
        try:
            self._remote.write_many({digest: small}, self._check)
            self._left += len(small)
            self._remote.put_result(address, result, self._check)
            self._left += len(result)
        except Fault as fault:
            self._writable = False
            hint = _READ_ONLY if fault.trouble is Trouble.REFUSED else ""
            state = State.NOTE if fault.trouble is Trouble.REFUSED else State.WARN
            self._findings.append(_finding("write", state, fault, hint))
            return
        with self._stopping("write"):
            back = self._remote.read_many([digest], self._check).blobs.get(digest)
            found = self._remote.get_result(address, self._check)
            missing = self._remote.missing([digest], self._check)
        if back != small or missing:
            self._fail("write", "it took a blob, and does not have it", "see the log of the server")
        if found is None or not _names(found, digest):
            self._fail("write", "it took a result, and does not have it", "see the log of the server")
        self._writable = True
        self.find("write", State.OK, "a blob and a result were written, and are there")
        self._trust()
        self._throughput()
        self._validates()

    def facts(self) -> None:
        """Tell what it says of itself."""
        offers = self._offers
        told = dict(offers.facts)
        self.find("digests", State.OK, told.pop("digests", "SHA-256"))
        largest = "of any size" if offers.largest is None else f"up to {size(offers.largest)}"
        self.find("limits", State.OK, f"blobs {largest}; batches of {size(offers.batch)}")
        self.find("compression", State.OK, told.pop("compression", "none"))
        for name, text in told.items():
            self.find(name, State.OK, text)
        if self._skew is None:
            self.find("clock", State.SKIPPED, "it does not say what time it is")
        elif self._skew > _SKEW:
            hint = "set the clocks: tokens would seem expired, or not yet valid"
            self.find("clock", State.WARN, f"{duration(self._skew)} away from ours", hint)
        else:
            self.find("clock", State.OK, "the same as ours")

    def _has(self, absent: Digest, rounds: list[float]) -> bool:
        """Tell whether it claims, in any way that one can ask, to have something."""
        for _ in range(ROUNDS):
            started = time.perf_counter()
            if self._remote.get_result(absent, self._check) is not None:
                return True
            rounds.append(time.perf_counter() - started)
        if absent not in self._remote.missing([absent], self._check):
            return True
        came = self._remote.read_many([absent], self._check)
        return bool(came.blobs or came.wrong) or self._remote.read(absent, _nowhere, self._check)

    def _trust(self) -> None:
        if not self._setting.credential and self._setting.open_to_all:
            hint = "let only CI's credential write: see docs/remote-cache.md, or sign results"
            self.find("trust", State.WARN, "whoever reaches it may write what others will use", hint)

    def _throughput(self) -> None:
        """Time one blob each way."""
        most = self._offers.largest
        for count in (PROBE, PROBE_MORE):
            if most is not None and count > most:
                break
            data = secrets.token_bytes(count)
            digest = Digest.of(data)
            with self._stopping("throughput"):
                wrote = _timed(lambda d=digest, b=data: self._remote.write(d, lambda: io.BytesIO(b), self._check))  # type: ignore[misc] # defaults bind the loop's variables
                self._left += count
                read = _timed(lambda d=digest: self._remote.read(d, _nowhere, self._check))  # type: ignore[misc] # the same
            self._speeds = count / read, count / wrote
            if min(read, wrote) > _TOO_SOON:
                break
        read_speed, write_speed = self._speeds
        if read_speed is None or write_speed is None:
            self.find("throughput", State.SKIPPED, "it takes no blob that is large enough to tell")
            return
        slow = min(read_speed, write_speed) < _SLOW_BYTES
        hint = "large layers may be built sooner than they come from there" if slow else ""
        text = f"{size(int(read_speed))}/s read, {size(int(write_speed))}/s written, by one transfer"
        self.find("throughput", State.WARN if slow else State.OK, text, hint)

    def _validates(self) -> None:
        """See whether it takes a blob that is not what its name says, and a result whose blob is not there."""
        right = secrets.token_bytes(64)
        wrong, digest = secrets.token_bytes(64), Digest.of(right)
        try:
            self._remote.write(digest, lambda: io.BytesIO(wrong), self._check)
            taken = digest not in self._remote.missing([digest], self._check)
        except Fault as fault:
            if fault.trouble is Trouble.UNREACHABLE:
                self._stop("blobs", fault)
            taken = False
        if taken:
            with self._stopping("blobs"):
                self._remote.write(digest, lambda: io.BytesIO(right), self._check)
            self._left += len(right)
        said = "the server refuses wrong bytes" if not taken else "the server takes any bytes: they are checked here"
        self.find("blobs", State.NOTE if taken else State.OK, said)
        address, result = Digest.of(secrets.token_bytes(32)), _result(Digest.of(secrets.token_bytes(32)))
        try:
            self._remote.put_result(address, result, self._check)
            self._left += len(result)
            taken = self._remote.get_result(address, self._check) is not None
        except Fault as fault:
            if fault.trouble is Trouble.UNREACHABLE:
                self._stop("results", fault)
            taken = False
        said = "kept though their blobs are gone: such a result is a miss here" if taken else "only with their blobs"
        self.find("results", State.NOTE if taken else State.OK, said)

    @contextlib.contextmanager
    def _stopping(self, check: str) -> Iterator[None]:
        try:
            yield
        except Fault as fault:
            self._stop(check, fault)

    def _stop(self, check: str, fault: Fault) -> None:
        self._findings.append(_finding(check, State.FAIL, fault))
        raise _StopError

    def _fail(self, check: str, text: str, hint: str) -> None:
        self.find(check, State.FAIL, text, hint)
        raise _StopError


_READ_ONLY = "it is for reading only; to write, give a credential that may"


class _Nowhere:
    """A blob on its way to nowhere (`tree.BlobWriter`), which only its digest gets there."""

    def __init__(self) -> None:
        self._seen = DigestWriter()

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes."""
        self._seen.update(data)
        return len(data)

    def commit(self, expected_sha256: str | None = None) -> Digest:
        """Name what came. Raises ValueError where it is something else."""
        found = self._seen.digest()
        if expected_sha256 not in {None, found.hash}:
            raise ValueError("another blob")
        return found


@contextlib.contextmanager
def _nowhere() -> Iterator[_Nowhere]:
    yield _Nowhere()


def _result(digest: Digest) -> bytes:
    return encode_action_result(ActionResult((OutputFile(OUTPUT, digest),)))


def _names(data: bytes, digest: Digest) -> bool:
    """Tell whether a result that came back, maybe written anew by the server, is the one that was sent."""
    try:
        (file,) = incoming(data).result.output_files
    except ValueError:
        return False
    return file.digest == digest


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return max(time.perf_counter() - started, 1e-9)


def _apart(moment: float, earliest: float, latest: float) -> float:
    """Give how many seconds a moment lies outside of a time."""
    return max(0.0, earliest - moment, moment - latest)


def _finding(check: str, state: State, fault: Fault, hint: str = "") -> Finding:
    (diagnostic,) = fault.diagnostics
    return Finding(check, state, f"{_WORDS[fault.trouble]}: {fault.text}", hint or diagnostic.hint or "")


_WORDS = {
    Trouble.UNREACHABLE: "not reachable",
    Trouble.STALLED: "too slow",
    Trouble.REFUSED: "refused",
    Trouble.BROKEN: "a wrong answer",
    Trouble.FULL: "no room",
    Trouble.FAILING: "an error of the server",
    Trouble.UNSUPPORTED: "not a cache for this",
}
