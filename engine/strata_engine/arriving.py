"""How much of an output has come from remote caches, as events: many threads bring it, and a person looks on."""

from __future__ import annotations

import threading
import time

from strata_engine.events import Fetched, Fetching, Listener

INTERVAL = 0.1
"""Seconds between two events of one output."""


class Arriving:
    """One output that comes; for any thread."""

    def __init__(self, label: str, total: int, emit: Listener) -> None:
        self._label = label
        self._total = total
        self._emit = emit
        self._lock = threading.Lock()
        self._begun = self._told = time.monotonic()
        self._done = 0
        emit(Fetching(label, 0, total))

    def add(self, size: int) -> None:
        """Count bytes that came."""
        now = time.monotonic()
        with self._lock:
            self._done += size
            done, told = self._done, now - self._told >= INTERVAL
            self._told = now if told else self._told
        if told:
            self._emit(Fetching(self._label, done, self._total))

    def end(self) -> None:
        """Say that no more comes."""
        self._emit(Fetched(self._label, self._done, time.monotonic() - self._begun))
