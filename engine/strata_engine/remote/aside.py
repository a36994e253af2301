"""Calls that block where nothing hears a cancellation, on threads of their own: whoever asked may stop waiting.

What they find is handed over as it comes, a few things at a time. The threads of a call that was given up end with what
they are in, and keep no process from ending.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from strata_engine.remote.patience import TURN

_HELD = 4
"""Things that are handed over and not taken yet."""
_PARTING = 0.3
"""Seconds for which the threads of a call that is given up are waited for. Most end in them; a thread that came back
from machine code while Python itself ends would take the process with it."""

Thing = TypeVar("Thing")


class Abandoned(Exception):  # noqa: N818 - no error: nobody waits for this any more
    """The call that this thread is part of was given up."""


class _Ended(NamedTuple):
    """What a thread hands over last."""

    error: BaseException | None


class _Nothing(NamedTuple):
    """What is taken where nothing came in a turn of waiting."""


class Hands(Generic[Thing]):
    """Where the threads of one call hand over what they find. They may use all of it, from anywhere."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        """When something last moved."""
        self.ended = threading.Event()
        self._queue: queue.Queue[Thing | _Ended] = queue.Queue(_HELD)

    def moved(self) -> None:
        """Take note that something came or went."""
        self.since = time.monotonic()

    def check(self) -> None:
        """Raise Abandoned where nobody waits any more."""
        if self.ended.is_set():
            raise Abandoned

    def give(self, thing: Thing | _Ended) -> None:
        """Hand something over. Raises Abandoned."""
        self.moved()
        while True:
            self.check()
            try:
                self._queue.put(thing, timeout=TURN)
            except queue.Full:
                continue
            return

    def taken(self) -> Thing | _Ended | _Nothing:
        """Take what was handed over."""
        try:
            return self._queue.get(timeout=TURN)
        except queue.Empty:
            return _Nothing()


Work: TypeAlias = Callable[[Hands[Thing]], None]
Watch: TypeAlias = Callable[[float], None]
"""Is told for how many seconds nothing has moved, at least every fraction of one; what it raises ends the call."""


def aside(works: Sequence[Work[Thing]], watch: Watch) -> Generator[Thing]:
    """Run each of `works` on a thread and give what they hand over; the first error of one ends all and is raised.

    To be closed (`contextlib.closing`): whatever ends it, the threads are told.
    """
    hands = Hands[Thing]()

    def run(work: Work[Thing]) -> None:
        error: BaseException | None = None
        try:
            work(hands)
        except Abandoned:
            return
        except BaseException as raised:
            error = raised
        try:
            hands.give(_Ended(error))
        except Abandoned:
            return

    threads = [threading.Thread(target=run, args=(work,), name="remote", daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            watch(time.monotonic() - hands.since)
            match hands.taken():
                case _Nothing():
                    pass
                case _Ended(error):
                    left -= 1
                    if error is not None:
                        raise error
                case thing:
                    yield thing
                    hands.moved()
    finally:
        hands.ended.set()
        end = time.monotonic() + _PARTING
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
