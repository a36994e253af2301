"""Calls of the Remote Execution API to one instance of one server, made as often as that may help.

It knows methods, groups of digests and what the server offers; what an answer means for a cache is its caller's
business. Everything is asked again only where that may do better, and goes on for as long as something comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from strata_engine.digest import Digest
from strata_engine.remote import messages
from strata_engine.remote.backend import Check, Fault, Trouble
from strata_engine.remote.channel import INVALID_ARGUMENT, NOT_FOUND, UNAUTHENTICATED, Channel, Status
from strata_engine.remote.credentials import HeaderSource, no_headers
from strata_engine.remote.messages import Message
from strata_engine.remote.offer import Offer, read_offer
from strata_engine.remote.patience import ATTEMPTS, LIMITS, PAUSE, Limits, Patience
from strata_engine.remote.tls import NO_TLS, Tls

_METADATA = "build.bazel.remote.execution.v2.requestmetadata-bin"

Answer = TypeVar("Answer")
Group: TypeAlias = Sequence[Digest]
Failed: TypeAlias = "list[tuple[Digest, Fault]]"


class Server(NamedTuple):
    """Where a server is, and which of its instances is meant."""

    target: str
    """`HOST:PORT`."""
    shown: str
    tls: bool = False
    instance: str = ""
    url: str = ""
    """What its credentials are asked for by."""


class Calls:
    """Calls to one instance. Methods may be called from any thread."""

    def __init__(
        self,
        server: Server,
        *,
        version: str = "",
        headers: HeaderSource = no_headers,
        tls: Tls = NO_TLS,
        limits: Limits = LIMITS,
        attempts: int = ATTEMPTS,
        pause: float = PAUSE,
    ) -> None:
        self.instance = server.instance
        self._patience = Patience(attempts, pause)
        self._offered: Offer | None = None
        # Who we are, and nothing of what is built.
        tool = messages.new("ToolDetails", tool_name="strata", tool_version=version)
        asking = messages.encoded(messages.new("RequestMetadata", tool_details=tool))
        self.channel = Channel(
            server.target,
            server.shown,
            tls=tls if server.tls else None,
            url=server.url,
            headers=headers,
            metadata=((_METADATA, asking),),
            wait_of=wait_of,
            limits=limits,
        )

    def offer(self, check: Check, *, anew: bool = False) -> Offer:
        """Ask once what the server offers. Raises Fault where that is not enough."""
        if self._offered is None or anew:
            request = messages.new("GetCapabilitiesRequest", instance_name=self.instance)
            try:
                answer = self.ask("Capabilities.GetCapabilities", request, check)
            except Status as status:
                if status.code in {INVALID_ARGUMENT, NOT_FOUND}:
                    raise self.fault(Trouble.UNSUPPORTED, f"it has no instance `{self.instance}`") from None
                raise
            self._offered = read_offer(self.parsed("ServerCapabilities", answer), self.channel.shown)
        return self._offered

    def new(self, kind: str, /, **fields: Any) -> Message:
        """Make a request to the instance, about SHA-256 digests: a server may have others as its usual ones."""
        return messages.new(kind, instance_name=self.instance, digest_function=messages.SHA256, **fields)

    def parsed(self, kind: str, answer: bytes) -> Message:
        """Read an answer. Raises Fault."""
        try:
            return messages.parsed(kind, answer)
        except ValueError:
            raise self.fault(Trouble.BROKEN, "an answer that makes no sense") from None

    def ask(self, method: str, request: Message, check: Check) -> bytes:
        """Make one call. Raises Fault."""
        data, path = messages.encoded(request), messages.path(method)
        return self.persist(lambda: self.channel.ask(path, data, check), check)

    def ask_groups(
        self,
        method: str,
        groups: Iterable[Group],
        asked: Callable[[Group], Message],
        taken: Callable[[Group, bytes], Failed],
        check: Check,
        *,
        brings: bool = False,
    ) -> None:
        """Make a call per group of digests, and again for those that failed, as `taken` tells of each answer.

        `brings` tells whether answers have the blobs in them.
        """
        waiting = [group for group in groups if group]

        def attempt() -> None:
            current = waiting[:]
            requests = [messages.encoded(asked(group)) for group in current]
            expected = [sum(digest.size for digest in group) if brings else 0 for group in current]
            outcomes = self.channel.ask_all(messages.path(method), requests, check, expected=expected)
            waiting.clear()
            faults: list[Fault] = []
            for group, outcome in zip(current, outcomes, strict=True):
                if isinstance(outcome, Fault):
                    waiting.append(group)
                    faults.append(outcome)
                elif failed := taken(group, outcome):
                    waiting.append([digest for digest, _ in failed])
                    faults += [fault for _, fault in failed]
            if faults:
                # What asking again cannot mend is what is to be told.
                raise min(faults, key=lambda fault: fault.again)

        self.persist(attempt, check)

    def persist(self, work: Callable[[], Answer], check: Check, moved: Callable[[], int] = lambda: 0) -> Answer:
        """Do `work` as `Patience.repeat` does; where a login had expired, once more with another. Raises Fault."""
        fresh = False

        def attempt() -> Answer:
            nonlocal fresh
            try:
                return work()
            except Status as status:
                if status.code != UNAUTHENTICATED or fresh or not self.channel.freshen():
                    raise
                fresh = True
            return work()

        return self._patience.repeat(attempt, check, moved)

    def status(self, status: Message) -> Status:
        """Make a fault of the status of a part of a call."""
        waits = [_seconds(detail) for detail in status.details]
        return Status(status.code, self.channel.shown, wait=next((wait for wait in waits if wait is not None), None))

    def fault(self, trouble: Trouble, text: str, *, again: bool = False) -> Fault:
        """Make a fault of this server's."""
        return Fault(trouble, self.channel.shown, text, again=again)


def wait_of(details: bytes) -> float | None:
    """Read when to call again from the details of a status: an encoded `Status`; None where they do not say."""
    try:
        status = messages.parsed("Status", details)
    except ValueError:
        return None
    return next((wait for wait in map(_seconds, status.details) if wait is not None), None)


def _seconds(detail: Message) -> float | None:
    if not detail.type_url.endswith("/google.rpc.RetryInfo"):
        return None
    try:
        delay = messages.parsed("RetryInfo", detail.value).retry_delay
    except ValueError:
        return None
    return float(max(0.0, delay.seconds + delay.nanos / 1e9))
