"""Whether a remote is asked at all: a circuit breaker that is remembered across runs.

::

    Closed ──(LIMIT faults within WINDOW, or one that no repetition mends)──> Open
    Open ──(REST seconds later, the first who asks)──> HalfOpen ──(it worked)──> Closed
                                                          ├──────(it did not)──> Open
                                                          └──(it was given up)─> Open, and has rested

The states are values, and `allowed`, `failed`, `succeeded` and `abandoned` give the next one; `Circuit` keeps the
current one for the threads of a build, and in a small sealed file for the next. A remote that is down costs a build a
few time-outs, and the builds of the next minute nothing. What our own login or a full disk there brings is remembered
for this run alone: it may be mended before the next. Times are of the wall clock, as another process reads them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from strata_engine.digest import Digest
from strata_engine.files import write_new
from strata_engine.remote.backend import Fault, Trouble
from strata_engine.seal import seal

LIMIT = 3
WINDOW = 30.0
REST = 60.0
PROBE = 30.0
"""Seconds after which a probe that nobody heard of again is taken for failed."""

_LASTING = {Trouble.REFUSED, Trouble.UNSUPPORTED, Trouble.FULL}
"""What asking again does not mend."""
_SEAL = 16
_LARGEST = 4096


class Closed(NamedTuple):
    """It is asked; the times of the last faults."""

    faults: tuple[float, ...] = ()


class Open(NamedTuple):
    """It is left alone."""

    since: float
    trouble: Trouble


class HalfOpen(NamedTuple):
    """One call tries it, and the others wait what comes of it."""

    since: float
    trouble: Trouble


State: TypeAlias = Closed | Open | HalfOpen


def allowed(state: State, now: float) -> tuple[bool, State]:
    """Tell whether a call may be made, and what comes after having asked."""
    match state:
        case Closed():
            return True, state
        case Open(since, trouble):
            # A clock that was set back opens nothing for longer than it should be.
            rested = not 0 <= now - since < REST
            return rested, HalfOpen(now, trouble) if rested else state
        case HalfOpen(since, trouble):
            forgotten = not 0 <= now - since < PROBE
            return forgotten, HalfOpen(now, trouble) if forgotten else state


def failed(state: State, trouble: Trouble, now: float) -> State:
    """Give what comes after a fault."""
    match state:
        case Closed(faults):
            recent = (*(at for at in faults if 0 <= now - at < WINDOW), now)
            return Open(now, trouble) if trouble in _LASTING or len(recent) >= LIMIT else Closed(recent)
        case Open():
            # A call that was under way when the others failed.
            return state
        case HalfOpen():
            return Open(now, trouble)


def succeeded(state: State) -> State:
    """Give what comes after a call that worked: one that was under way when others failed opens nothing."""
    return state if isinstance(state, Open) else Closed()


def abandoned(state: State) -> State:
    """Give what comes after a call of which nobody knows whether it would have worked: the next one tries it."""
    return Open(state.since - REST, state.trouble) if isinstance(state, HalfOpen) else state


class _Kept(msgspec.Struct):
    since: float
    trouble: Trouble


class Circuit:
    """The breaker of one remote; may be asked from any thread.

    Nothing that happens to its file is an error: at worst a remote is asked that is down.
    """

    def __init__(self, folder: Path, shown: str, *, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / f"{Digest.of(shown.encode()).hash[:32]}.breaker"
        self._clock = clock
        self._lock = threading.Lock()
        self._state = self._load()

    @property
    def state(self) -> State:
        """The state as it is."""
        return self._state

    def allows(self) -> bool:
        """Ask whether a call may be made; whoever is told so must say how it went."""
        with self._lock:
            may, state = allowed(self._state, self._clock())
            self._state = state
            return may

    def failed(self, fault: Fault) -> State:
        """Say that a call did not work."""
        with self._lock:
            before, self._state = self._state, failed(self._state, fault.trouble, self._clock())
            if isinstance(self._state, Open) and self._state != before and self._state.trouble not in _LASTING:
                self._save(self._state)
            return self._state

    def succeeded(self) -> None:
        """Say that a call worked."""
        with self._lock:
            before, self._state = self._state, succeeded(self._state)
            if isinstance(before, HalfOpen):
                with contextlib.suppress(OSError):
                    self._path.unlink()

    def abandoned(self) -> None:
        """Say that a call was given up."""
        with self._lock:
            self._state = abandoned(self._state)

    def _load(self) -> State:
        try:
            with self._path.open("rb") as stream:
                data = stream.read(_LARGEST)
            body = data[_SEAL:]
            if data[:_SEAL] != self._seal(body):
                return Closed()
            kept = msgspec.msgpack.decode(body, type=_Kept)
        except (OSError, msgspec.DecodeError):
            return Closed()
        return Open(kept.since, kept.trouble) if kept.trouble not in _LASTING else Closed()

    def _save(self, state: Open) -> None:
        body = msgspec.msgpack.encode(_Kept(state.since, state.trouble))
        temporary = self._path.with_name(f"{os.getpid()}-{os.urandom(4).hex()}.tmp")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_new(temporary, self._seal(body) + body, 0o644)
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)

    def _seal(self, body: bytes) -> bytes:
        # Its name too: a file under another remote's name is none.
        return seal(self._path.name.encode() + body)
