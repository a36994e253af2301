"""The plain console: lines that stay, for CI, pipes and everyone who does not watch.

Knows nothing of redrawing. A long silence in a log looks like a hang, so actions that have run for 30 seconds are
mentioned again every 30 seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from strata_engine.console.state import BuildView, Running, fold
from strata_engine.console.terminal import PLAIN, Paint, Sink
from strata_engine.console.transcript import Detail, Transcript
from strata_engine.errors import Diagnostic
from strata_engine.events import Event
from strata_engine.words import duration, printable, size_of

HEARTBEAT = 30.0
"""Seconds after which a running action is mentioned again."""


class PlainConsole:
    """Writes lines. Events and ticks may come from different threads."""

    def __init__(self, sink: Sink, detail: Detail, paint: Paint = PLAIN, *, now: float = 0.0) -> None:
        self.view = BuildView(now)
        self._sink = sink
        self._transcript = Transcript(detail, paint)
        self._quiet = detail.quiet
        self._mentioned: dict[str, float] = {}
        self._lock = threading.Lock()

    def hear(self, event: Event, now: float) -> None:
        """Take an event at `now` and write what it is worth."""
        with self._lock:
            self.view = fold(self.view, event, now)
            self._sink.lines(self._transcript.lines(event, self.view))

    def tick(self, now: float) -> None:
        """Mention the actions that have been silent for too long."""
        if self._quiet:
            return
        with self._lock:
            running = self.view.running
            self._mentioned = {label: when for label, when in self._mentioned.items() if label in running}
            due = [r for r in running.values() if now - self._mentioned.get(r.label, r.started) >= HEARTBEAT]
            if due:
                self._mentioned |= {r.label: now for r in due}
                self._sink.lines(["still running: " + ", ".join(_mention(r, now) for r in due)])

    def tell(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Say what no event has said."""
        with self._lock:
            self._sink.lines(self._transcript.unsaid(diagnostics))

    def resumed(self) -> None:
        """Go on: what was written stays."""

    def close(self) -> None:
        """Say the last line."""
        with self._lock:
            self._sink.lines(self._transcript.last())


def _mention(running: Running, now: float) -> str:
    bytes_ = f", {size_of(running.done, running.total)}" if running.done or running.total else ""
    return f"{printable(running.label)} ({duration(now - running.started)}{bytes_})"
