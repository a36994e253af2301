"""A pool: slots of one kind, and the work that waits for one, most critical first.

It knows no actions, only labels, how much hangs on them, and how quickly slots get done. Slots are coroutines; but a
slot that works on a thread takes its next work there, because going through the event loop costs more than a small
action does.

Hard part: threads that do a thousand small things side by side spend most of their time handing Python's lock to each
other. So nothing keeps slots from beginning; but while one gets done with things in no time, others that find
themselves doing the same stand back, until something takes long::

    idle ──(work waits, and nobody is quick)──> busy ──(done quickly while another one is quick, or no work)──> idle
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")

QUICK_SECONDS = 0.002
"""What took less was quick; and how long a slot counts as quick after it got something done."""


class Pool(Generic[T]):
    """What waits, the greatest priority first, then by label. Where nothing else is said: for the event loop only."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        self._heap: list[tuple[float, str, T]] = []
        self._idle: list[anyio.Event] = []
        self._busy = 0
        self._quick_slot = -1
        self._quick_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def push(self, priority: float, label: str, item: T) -> None:
        """Add what waits for a slot. A label waits once."""
        with self._lock:
            heapq.heappush(self._heap, (-priority, label, item))
        self._admit()

    def top(self) -> float:
        """Give the greatest priority of what waits; from any thread."""
        with self._lock:
            return -self._heap[0][0] if self._heap else float("-inf")

    def take(self) -> tuple[str, T] | None:
        """Take what is first, if anything waits; from any thread, for a slot that is busy."""
        with self._lock:
            if not self._heap:
                return None
            _, label, item = heapq.heappop(self._heap)
            return label, item

    async def pop(self) -> tuple[str, T]:
        """Wait for what is first; the slot is busy until it calls `free`."""
        while self._is_quick() or (first := self.take()) is None:
            idle = anyio.Event()
            self._idle.append(idle)
            self._admit()
            await idle.wait()
        self._busy += 1
        return first

    def free(self) -> None:
        """Say that a slot is busy no more."""
        self._busy -= 1

    def stands_back(self, slot: int, seconds: float) -> bool:
        """Tell a slot that got something done in `seconds` whether to leave the rest to others; from any thread."""
        if seconds >= QUICK_SECONDS:
            return False
        now = time.monotonic()
        if self._quick_slot not in (slot, -1) and now - self._quick_at < QUICK_SECONDS:
            return True
        self._quick_slot, self._quick_at = slot, now
        return False

    def _is_quick(self) -> bool:
        return self._busy > 0 and time.monotonic() - self._quick_at < QUICK_SECONDS

    def _admit(self) -> None:
        """Let idle slots begin, as many as there is work for; while another one is quick, look again in a moment."""
        for _ in range(min(len(self._heap), len(self._idle))):
            if self._is_quick():
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(QUICK_SECONDS, self._again)
                return
            self._idle.pop().set()

    def _again(self) -> None:
        self._timer = None
        self._admit()
