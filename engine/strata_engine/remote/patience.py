"""How often what went wrong at a remote is done again, and how long is waited before."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from strata_engine.remote.backend import Check, Fault

ATTEMPTS = 3
PAUSE = 0.1
"""Seconds before the second attempt, at most; each further one may take twice as long."""
LONGEST_WAIT = 2.0
"""Seconds; a server that asks for more is not waited for."""

_TURN = 0.1

Answer = TypeVar("Answer")


class Patience(NamedTuple):
    """What a backend is given of it."""

    attempts: int = ATTEMPTS
    pause: float = PAUSE

    def repeat(self, call: Callable[[], Answer], check: Check) -> Answer:
        """Make a call as often as that may help. Raises Fault, that of the last attempt."""
        attempt = 1
        while True:
            try:
                return call()
            except Fault as fault:
                if not self.goes_on(attempt, fault):
                    raise
                self.wait(attempt, fault, check)
            attempt += 1

    def goes_on(self, attempt: int, fault: Fault) -> bool:
        """Tell whether there is another attempt after this one, counted from 1."""
        return fault.again and attempt < self.attempts

    def wait(self, attempt: int, fault: Fault, check: Check) -> None:
        """Wait on this thread before the next attempt."""
        end = time.monotonic() + self.seconds(attempt, fault)
        while (left := end - time.monotonic()) > 0:
            check()
            time.sleep(min(left, _TURN))
        check()

    def seconds(self, attempt: int, fault: Fault) -> float:
        """Say how long to wait before the next attempt."""
        # Jitter keeps builds that one server turned away from coming back together.
        pause = fault.wait if fault.wait is not None else random.uniform(0, self.pause * 2**attempt)  # noqa: S311 - no secret
        return min(LONGEST_WAIT, pause)
