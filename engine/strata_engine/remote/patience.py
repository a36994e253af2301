"""How long is waited for a remote, how often a call that failed is made again, and how long after."""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from strata_engine.remote.backend import Check, Fault

ATTEMPTS = 3
PAUSE = 0.1
"""Seconds before the second attempt, at most; each further one may take twice as long."""
LONGEST_WAIT = 2.0
"""Seconds; a server that asks for more is not waited for."""
MOST_RESUMED = 20
"""How often one blob goes on where it stopped."""

TURN = 0.1
"""Seconds that something is waited for before the check is made again."""
TRICKLE = 16 << 10
"""Bytes that must move in the time of a stall."""


class Limits(NamedTuple):
    """How long is waited, in seconds."""

    connect: float = 2.0
    stall: float = 10.0
    """With so little coming or going for so long, a call has stalled; also how long a server may think."""


LIMITS = Limits()
"""What builds use."""


def wait_after(attempt: int, fault: Fault, check: Check, pause: float = PAUSE) -> None:
    """Wait after an attempt that failed, for as long as the server asked for where it did; attempts count from 1."""
    # Jitter keeps builds that one server turned away from coming back together.
    seconds = fault.wait if fault.wait is not None else random.uniform(0, pause * 2**attempt)  # noqa: S311 - no secret
    end = time.monotonic() + min(LONGEST_WAIT, seconds)
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(left, TURN))
    check()
