"""How long is waited for a remote, how often what went wrong there is done again, and how long after."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from strata_engine.digest import CHUNK
from strata_engine.remote.backend import Check, Fault, Trouble

ATTEMPTS = 3
PAUSE = 0.1
"""Seconds before the second attempt, at most; each further one may take twice as long."""
LONGEST_WAIT = 2.0
"""Seconds; a server that asks for more is not waited for."""
MOST_RESUMED = 20
"""How often something goes on where it stopped."""

TURN = 0.1
"""Seconds that something is waited for before the check is made again."""
TRICKLE = 16 << 10
"""Bytes that must move in the time of a stall."""

Answer = TypeVar("Answer")


class Limits(NamedTuple):
    """How long is waited, in seconds."""

    connect: float = 2.0
    stall: float = 5.0
    """With so little coming or going for so long, a call has stalled; also how long a server may think."""


LIMITS = Limits()
"""What builds use."""


class Repeat(Protocol):
    """Does something as often as that may help, as `Patience.repeat`."""

    def __call__(self, call: Callable[[], Answer], check: Check, moved: Callable[[], int] = ..., /) -> Answer:
        """Give the answer. Raises Fault."""


class Patience(NamedTuple):
    """What a backend is given of it."""

    attempts: int = ATTEMPTS
    pause: float = PAUSE

    def repeat(self, call: Callable[[], Answer], check: Check, moved: Callable[[], int] = lambda: 0) -> Answer:
        """Make a call as often as that may help. Raises Fault, that of the last attempt.

        `moved` counts the bytes that the calls have moved for good: an attempt with which enough came or went was not
        in vain.
        """
        in_vain, resumed = 0, 0
        while True:
            before = moved()
            try:
                return call()
            except Fault as fault:
                in_vain = 0 if moved() - before >= CHUNK else in_vain + 1
                if not self.goes_on(in_vain, fault):
                    raise
                resumed += 1
                if resumed >= max(self.attempts, MOST_RESUMED):
                    text = "a blob that comes, or goes, in too many pieces"
                    raise Fault(Trouble.BROKEN, fault.where, text) from None
                self.wait(in_vain, fault, check)

    def goes_on(self, attempt: int, fault: Fault) -> bool:
        """Tell whether there is another attempt after this one, counted from 1."""
        return fault.again and attempt < self.attempts

    def wait(self, attempt: int, fault: Fault, check: Check) -> None:
        """Wait on this thread before the next attempt."""
        end = time.monotonic() + self.seconds(attempt, fault)
        while (left := end - time.monotonic()) > 0:
            check()
            time.sleep(min(left, TURN))
        check()

    def seconds(self, attempt: int, fault: Fault) -> float:
        """Say how long to wait before the next attempt."""
        # Jitter keeps builds that one server turned away from coming back together.
        pause = fault.wait if fault.wait is not None else random.uniform(0, self.pause * 2**attempt)  # noqa: S311 - no secret
        return min(LONGEST_WAIT, pause)
