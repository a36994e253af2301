"""News: what worker threads tell the event loop, many at a time.

Waking the loop for each of a thousand things costs more than the things. So a post waits a moment for more; who needs
it sooner comes to the loop and takes what there is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")

WAIT_SECONDS = 0.002
"""How long a post waits for more."""


class News(Generic[T]):
    """A queue that any thread fills, and one event loop empties."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._posted: deque[T] = deque()
        self._nudged = False
        self._arrived = anyio.Event()

    def open(self) -> None:
        """Belong to the event loop that runs."""
        self._loop = asyncio.get_running_loop()

    def post(self, news: T) -> None:
        """Tell the event loop, from any thread."""
        self._posted.append(news)
        if not self._nudged and self._loop is not None:
            self._nudged = True
            self._loop.call_soon_threadsafe(self._nudge)

    def take(self) -> Iterator[T]:
        """Give what was posted and is not taken."""
        while self._posted:
            yield self._posted.popleft()

    async def wait(self) -> None:
        """Wait until something was posted."""
        await self._arrived.wait()
        self._arrived = anyio.Event()
        # Cleared before anything is taken: who finds it set may rely on being heard.
        self._nudged = False

    def _nudge(self) -> None:
        assert self._loop is not None
        self._loop.call_later(WAIT_SECONDS, self._arrive)

    def _arrive(self) -> None:
        self._arrived.set()
