"""What lets us into a remote cache: headers that were given, a login of its URL, a credential helper, netrc.

It sends nothing and shows nothing: no `repr`, no message has a header's value. What is found is given out for the
scheme, host and port of the one cache that it is for. The helper speaks Bazel's protocol: `HELPER get` is given
`{"uri": …}` and prints `{"headers": {NAME: [VALUE, …]}, "expires": RFC 3339}`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from strata_engine.errors import HostError, SpecError
from strata_engine.logins import Pair, origin, public_url, read_netrc
from strata_engine.remote.backend import Fault, Trouble

Headers = tuple[tuple[str, str], ...]


class HeaderSource(Protocol):
    """Gives what lets a request in."""

    def __call__(self, url: str, *, fresh: bool = False) -> Headers:
        """Give the headers for `url`; `fresh` where what was given before was refused. Raises Fault."""


def no_headers(url: str, *, fresh: bool = False) -> Headers:  # noqa: ARG001 - what a HeaderSource is given
    """Give none: everybody is let in."""
    return ()


HELPER_SECONDS = 10.0
"""How long a helper may take, as in Bazel."""

_KEPT = 1800.0
"""Seconds for which headers are used that say nothing of when they expire, as in Bazel."""
_EARLY = 30.0
"""Seconds before they expire at which new ones are asked for."""
_LARGEST = 1 << 20


class _Answer(msgspec.Struct):
    headers: dict[str, list[str]] = {}
    expires: str = ""


class Credentials:
    """The headers for one cache (a `HeaderSource`); may be asked from any thread."""

    def __init__(
        self,
        url: str,
        *,
        given: Headers = (),
        login: Pair | None = None,
        helper: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._origin = origin(url)
        self._shown = public_url(url)
        self._given = given
        self._login = login
        self._helper = helper
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._helped: Headers | None = None
        self._until = 0.0

    def __repr__(self) -> str:
        return f"Credentials({self._shown!r})"

    def __call__(self, url: str, *, fresh: bool = False) -> Headers:
        """Give the headers for `url`; `fresh` where those given before were refused. Raises Fault."""
        if origin(url) != self._origin:
            return ()
        if self._given:
            return self._given
        if self._login is not None:
            return _basic(self._login)
        with self._lock:
            if self._helped is None or fresh or time.monotonic() >= self._until:
                self._helped = self._ask(url) if self._helper else self._of_netrc()
            return self._helped

    def _of_netrc(self) -> Headers:
        self._until = float("inf")
        try:
            entry = read_netrc(self._environ).hosts.get(self._origin[1])
        except HostError as error:
            fault = Fault(Trouble.REFUSED, self._shown, str(error))
            fault.diagnostics = tuple(each._replace(severity="warning") for each in error.diagnostics)
            raise fault from None
        return _basic((entry[0], entry[2] or "")) if entry else ()

    def _ask(self, url: str) -> Headers:
        """Run the helper."""
        answer = self._answer(self._run(url))
        self._until = time.monotonic() + self._lasts(answer.expires)
        headers = tuple((name, value) for name, values in answer.headers.items() for value in values)
        if not all(is_header(name, value) for name, value in headers):
            raise self._fault("gave a header that cannot be sent")
        return headers

    def _run(self, url: str) -> bytes:
        try:
            process = subprocess.Popen(
                [self._helper, "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # may be a secret
                env=dict(self._environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a program"
            raise self._fault(f"cannot be started: {reason}") from None
        try:
            output, _ = process.communicate(msgspec.json.encode({"uri": url}), HELPER_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._fault(f"took more than {HELPER_SECONDS:g} s") from None
        finally:
            # Whatever it has left running ends with it; it is not waited for yet, or its group has its number still.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if process.returncode:
            raise self._fault(f"ended with {process.returncode}")
        return bytes(output)

    def _answer(self, output: bytes) -> _Answer:
        try:
            if len(output) <= _LARGEST:
                return msgspec.json.decode(output, type=_Answer)
        except msgspec.DecodeError:  # quotes what it read
            pass
        raise self._fault("printed something that is not of Bazel's protocol")

    def _lasts(self, expires: str) -> float:
        """Give for how many seconds an answer holds."""
        if not expires:
            return _KEPT
        try:
            return datetime.fromisoformat(expires).timestamp() - time.time() - _EARLY
        except (ValueError, OverflowError, OSError):
            raise self._fault("printed a time that is none") from None

    def _fault(self, what: str) -> Fault:
        name = os.path.basename(self._helper)  # noqa: PTH119 - a word of the command line, maybe not a path
        return Fault(Trouble.REFUSED, self._shown, f"the credential helper `{name}` {what}")


def header_of(text: str) -> Headers:
    """Read `NAME: VALUE`. Raises SpecError, which does not show it."""
    name, colon, value = text.partition(":")
    if not colon or not is_header(name.strip(), value.strip()):
        raise SpecError.of("bad-remote-header", "not a header, which is written `NAME: VALUE`")
    return ((name.strip(), value.strip()),)


def headers_of(text: str) -> Headers:
    """Read headers, one `NAME: VALUE` per line. Raises SpecError, which shows none."""
    return tuple(header for line in text.splitlines() if line.strip() for header in header_of(line))


def is_header(name: str, value: str) -> bool:
    """Tell whether a header can be sent: it cannot end early or begin another one."""
    if not (name.isascii() and value.isascii() and value.isprintable()):
        return False
    return bool(name) and not set(name) - _TOKEN


_TOKEN = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _basic(login: Pair) -> Headers:
    return (("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode("ascii")),)
