"""A pool: slots of one kind, and the work that waits for one, most critical first.

It knows no actions, only labels and how much hangs on them. Slots are coroutines; but a slot that works on a thread
takes its next work there, because going through the event loop costs more than a small action does.
"""

from __future__ import annotations

import heapq
import threading
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Pool(Generic[T]):
    """What waits, the greatest priority first, then by label. `push` and `pop` belong to the event loop."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        self._heap: list[tuple[float, str, T]] = []
        self._idle: list[anyio.Event] = []

    def push(self, priority: float, label: str, item: T) -> None:
        """Add what waits for a slot. A label waits once."""
        with self._lock:
            heapq.heappush(self._heap, (-priority, label, item))
        if self._idle:
            self._idle.pop().set()

    def top(self) -> float:
        """Give the greatest priority of what waits; from any thread."""
        with self._lock:
            return -self._heap[0][0] if self._heap else float("-inf")

    def take(self) -> tuple[str, T] | None:
        """Take what is first, if anything waits; from any thread."""
        with self._lock:
            if not self._heap:
                return None
            _, label, item = heapq.heappop(self._heap)
            return label, item

    async def pop(self) -> tuple[str, T]:
        """Wait for what is first."""
        while (first := self.take()) is None:
            idle = anyio.Event()
            self._idle.append(idle)
            await idle.wait()
        return first
