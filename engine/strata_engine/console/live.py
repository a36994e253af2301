"""The live console: a few lines at the bottom of a terminal that are drawn again, the lasting ones scrolling above.

Knows nothing of what is worth a line (`transcript`), how a build looks (`state`) or what makes lines change (`frame`).
Nothing is drawn when an event is heard, however many there are: the ticker draws, ten times a second, silent build or
not. Where more is executed than a person can read, lines are counted instead of written.

Hard part: the process may be stopped (Ctrl-Z) and go on at another place of the screen, or in the background, where the
terminal belongs to someone else.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterable, Mapping

from strata_engine.console.frame import Frame, frame, rewraps
from strata_engine.console.state import BuildView, fold, render
from strata_engine.console.terminal import Paint, Sink
from strata_engine.console.transcript import Detail, Transcript
from strata_engine.errors import Diagnostic
from strata_engine.events import ActionFinished, Event, Outcome

MIN_REDRAW = 0.05
"""Seconds between two redraws, at least: more than twenty a second only cost."""

MOST_ROWS = 16
"""Live lines, at most: a screen belongs to more than one build."""

BURST = 100
"""Lines about executed actions that are written however fast they come."""

RATE = 20
"""Such lines per second after these."""


class LiveConsole:
    """Draws a view. The terminal is given back by `close`, which the process's end calls too."""

    def __init__(
        self,
        sink: Sink,
        detail: Detail,
        paint: Paint,
        *,
        now: float = 0.0,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.view = BuildView(now)
        self._sink = sink
        self._paint = paint
        self._environ = environ
        self._rewraps = rewraps(environ)
        self._transcript = Transcript(detail, paint)
        self._sparing = not detail.explain and not detail.verbose
        self._pending: list[str] = []
        self._allowed = float(BURST)
        self._unsaid = 0
        self._drawn = now - MIN_REDRAW
        self._frame = Frame()
        self._live: list[str] = []
        self._lock = threading.RLock()
        self._open = False
        self._over = False
        self._before: signal.Handlers | None = None

    def hear(self, event: Event, now: float) -> None:
        """Take an event at `now`; it is drawn with the next tick."""
        with self._lock:
            self.view = fold(self.view, event, now)
            lines = self._transcript.lines(event, self.view, width=self._size()[0])
            if self._sparing and len(lines) == 1 and _is_routine(event):
                self._spare(lines[0])
            elif lines:
                self._count_unsaid()
                self._pending += lines

    def tick(self, now: float) -> None:
        """Draw what is new, unless that was done just now."""
        with self._lock:
            since = now - self._drawn
            if self._over or since < MIN_REDRAW:
                return
            self._allowed = min(BURST, self._allowed + RATE * since)
            self._drawn = now
            if not self._open:
                # Only now: a build that is done before the first tick never moves the cursor.
                self._open = True
                atexit.register(self.close)
            width, height = self._size()
            live = self._picture(now, width, height) if self._in_front() else []
            if self._allowed >= 1:
                self._count_unsaid()
            self._draw(live, width)

    def tell(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Say what no event has said."""
        with self._lock:
            self._pending += self._transcript.unsaid(diagnostics)

    def resumed(self) -> None:
        """Go on after having been stopped: what stands on the screen now is not ours to write over."""
        self._frame = Frame()
        self._live = []

    def close(self) -> None:
        """Write what is pending and give the terminal back. Twice is once."""
        with self._lock:
            if self._over:
                return
            self._over = True
            atexit.unregister(self.close)
            self._count_unsaid()
            self._pending += self._transcript.last()
            self._draw([], self._size()[0])

    def _spare(self, line: str) -> None:
        if self._unsaid == 0 and self._allowed >= 1:
            self._allowed -= 1
            self._pending.append(line)
        else:
            self._unsaid += 1

    def _count_unsaid(self) -> None:
        if self._unsaid:
            self._pending.append(self._paint(f"… and {self._unsaid} more executed", "faint"))
            self._allowed -= 1
            self._unsaid = 0

    def _draw(self, live: list[str], width: int) -> None:
        pending, self._pending = self._pending, []
        if pending or live != self._live:
            self._live = live
            self._frame, text = frame(self._frame, pending, live, width, rewraps=self._rewraps)
            self._sink.write(text)
            self._sink.flush()

    def _picture(self, now: float, width: int, height: int) -> list[str]:
        # One column is left free, as some terminals wrap a full line, and one row for the cursor.
        return render(self.view, now, max(1, width - 1), max(1, min(MOST_ROWS, height - 1)), self._paint)

    def _size(self) -> tuple[int, int]:
        """Give columns and rows: they change at any time."""
        try:
            columns, rows = os.get_terminal_size(self._sink.fileno())
        except (OSError, ValueError):
            columns = rows = 0
        return columns or _number(self._environ, "COLUMNS", 80), rows or _number(self._environ, "LINES", 24)

    def _in_front(self) -> bool:
        """Tell whether the terminal is ours: in the background, nothing is drawn over what others write."""
        try:
            return os.tcgetpgrp(self._sink.fileno()) == os.getpgrp()
        except (OSError, ValueError):
            return True


def _is_routine(event: Event) -> bool:
    return isinstance(event, ActionFinished) and event.outcome is Outcome.EXECUTED and not event.diagnostics


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, "")
    return int(value) if value.isdecimal() and 0 < int(value) < 10_000 else default
