"""Results that wait to be written together, and the locks of their keys, which are held until they can be read.

A result that took less to make than to write waits for others; what took long is written at once. Nothing is lost by
that but work that took no time, where the process is killed.
"""

from __future__ import annotations

import contextlib
import threading

import anyio

from strata_engine.action_cache import ActionCache
from strata_engine.digest import Digest
from strata_engine.errors import HostError
from strata_engine.executor import in_thread
from strata_engine.locks import KeyLocks

QUICK_SECONDS = 0.02
"""An action that took less has its result written in a group."""

GROUP = 256
"""Results of a group, at most."""

GROUP_SECONDS = 0.05
"""How often groups are written."""


class Groups:
    """The results of one build that are in the action cache's hands, but perhaps not on disk. For any thread."""

    def __init__(self, cache: ActionCache, locks: KeyLocks) -> None:
        self._cache = cache
        self._locks = locks
        self._mutex = threading.Lock()
        self._keys: list[Digest] = []

    def add(self, key: Digest, seconds: float) -> None:
        """See to it that the result of `key`, which took `seconds`, gets written, and its lock released then."""
        with self._mutex:
            self._keys.append(key)
            full = len(self._keys) >= GROUP
        if full or seconds >= QUICK_SECONDS:
            with contextlib.suppress(HostError):
                # What could not be written now is tried again at the end, where it is an error.
                self.commit()

    def commit(self) -> None:
        """Write the results that wait, and release their locks. Raises HostError."""
        with self._mutex:
            keys, self._keys = self._keys, []
        try:
            self._cache.flush()
        finally:
            self._locks.release(keys)

    async def commit_often(self) -> None:
        """Write groups of results until cancelled, and what is left then: the end may be long in coming."""
        try:
            while True:
                await anyio.sleep(GROUP_SECONDS)
                await self._commit_group()
        finally:
            with anyio.CancelScope(shield=True):
                await self._commit_group()

    async def _commit_group(self) -> None:
        if self._keys:
            with contextlib.suppress(HostError):
                await in_thread(self.commit)
