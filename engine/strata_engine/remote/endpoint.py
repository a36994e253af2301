"""One remote cache in the hands of one build: its zones, its breakers, and what is said of it.

Whatever goes wrong with a remote ends here: it is said once, counted, and the caller goes on without an answer. Reading
and writing have a breaker each, because a cache that lets us read is worth asking though it refuses to be written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, HostError
from strata_engine.remote.address import result_address
from strata_engine.remote.backend import Backend, Fault
from strata_engine.remote.breaker import Circuit, HalfOpen, Open
from strata_engine.remote.patience import LIMITS
from strata_engine.remote.settings import Access
from strata_engine.remote.tally import Tally

T = TypeVar("T")

CIRCUITS = "remote"
"""The folder of a store that remembers which remotes are down."""

USUAL_SECONDS = 0.05
"""How long an answer is thought to take before there was one."""


class Endpoint:
    """One remote; for any thread."""

    def __init__(
        self,
        access: Access,
        store: Path,
        tally: Tally,
        warn: Callable[[Diagnostic], None],
        *,
        required: bool = False,
        timeout: float = 0.0,
    ) -> None:
        self.access = access
        self.address = access.address
        self.shown = self.address.shown
        self.required = required
        self._timeout = timeout
        self._tally = tally
        self._warn = warn
        self._lock = threading.Lock()
        self._backends: dict[str, Backend] = {}
        self._reading = Circuit(store / CIRCUITS, self.shown)
        self._writing = Circuit(store / CIRCUITS, f"{self.shown} (write)")
        self._has_warned = False
        self.spoiled: set[Digest] = set()
        """Blobs in whose place it has others: what is written again, unasked, heals it."""
        self.shows_packed: bool | None = None
        """Whether it shows results of which small files are in packs alone; None where that is not known."""
        self.latency = USUAL_SECONDS
        """Seconds that an answer to a question of a few bytes takes, as far as is known."""

    def places(self, zones: tuple[str, ...]) -> tuple[str, ...]:
        """List the zones in which content is looked for: one where all zones share theirs."""
        return zones if self.address.has_zones else ("",)

    def address_of(self, action: bytes, zone: str) -> Digest:
        """Give the address of the result of an encoded Action in a zone; `zone` is empty where it needs none."""
        return result_address(action, "" if self.address.has_zones else zone)

    def read(self, zone: str, use: Callable[[Backend], T], otherwise: T) -> T:
        """Ask something; `otherwise` where it is left alone or does not answer. Raises HostError where it must."""
        return self._use(zone, use, otherwise, self._reading, writes=False)

    def write(self, zone: str, use: Callable[[Backend], T], otherwise: T) -> T:
        """Send something, likewise."""
        return self._use(zone, use, otherwise, self._writing, writes=True)

    def broken(self, fault: Fault) -> None:
        """Note a fault that showed only in what was made of an answer."""
        self._note(fault, self._reading, writes=False)

    def timed(self, seconds: float) -> None:
        """Note how long an answer took."""
        self.latency += 0.25 * (seconds - self.latency)

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            backends, self._backends = list(self._backends.values()), {}
        for backend in backends:
            backend.close()

    def _use(self, zone: str, use: Callable[[Backend], T], otherwise: T, circuit: Circuit, *, writes: bool) -> T:
        if not circuit.allows():
            state = circuit.state
            if isinstance(state, Open | HalfOpen):
                if not writes:
                    self._tally.degraded(state.trouble)
                if self.required:
                    raise _error(Fault(state.trouble, self.shown, "it was left alone after what went wrong before"))
            return otherwise
        try:
            answer = use(self._backend(zone))
        except Fault as fault:
            self._note(fault, circuit, writes=writes)
            return otherwise
        except BaseException:
            # Not wanted any more: whether it would have worked, is not known.
            circuit.abandoned()
            raise
        circuit.succeeded()
        return answer

    def _note(self, fault: Fault, circuit: Circuit, *, writes: bool) -> None:
        if self.required:
            raise _error(fault) from fault
        self._tally.fault(fault.trouble)
        state = circuit.failed(fault)
        if isinstance(state, Open) and not writes:
            self._tally.degraded(state.trouble)
        with self._lock:
            new, self._has_warned = not self._has_warned, True
        if new:
            [diagnostic] = fault.diagnostics
            self._warn(diagnostic)

    def _backend(self, zone: str) -> Backend:
        place = zone if self.address.has_zones else ""
        with self._lock:
            if place not in self._backends:
                # Here and not above: clients of the network are imported where there is something to be asked.
                from strata_engine.remote.opened import opened  # noqa: PLC0415 - see the comment above

                access, timeout = self.access, self._timeout
                limits = LIMITS._replace(stall=timeout) if timeout else LIMITS
                self._backends[place] = opened(
                    self.address, place, given=access.headers, helper=access.helper, tls=access.tls, limits=limits
                )
            return self._backends[place]


def _error(fault: Fault) -> HostError:
    [diagnostic] = fault.diagnostics
    return HostError(diagnostic._replace(severity="error"))
