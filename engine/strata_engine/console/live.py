"""The live console: a few lines at the bottom of a terminal that are drawn again, the lasting ones scrolling above.

The only door to rich. Knows nothing of what is worth a line (`transcript`) or how a build looks (`state`). Nothing is
drawn when an event is heard, however many there are: the ticker draws, ten times a second, silent build or not.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterable
from typing import TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from strata_engine.console.state import BuildView, fold, render
from strata_engine.console.terminal import Paint, Sink
from strata_engine.console.transcript import Detail, Transcript
from strata_engine.errors import Diagnostic
from strata_engine.events import Event

MIN_REDRAW = 0.05
"""Seconds between two redraws, at least: more than twenty a second only cost."""


class LiveConsole:
    """Draws a view. The terminal is given back by `close`, which the process's end calls too."""

    def __init__(self, sink: Sink, detail: Detail, paint: Paint, *, now: float = 0.0) -> None:
        self.view = BuildView(now)
        self._paint = paint
        self._transcript = Transcript(detail, paint)
        self._pending: list[str] = []
        self._drawn = now - MIN_REDRAW
        self._now = now
        self._lock = threading.RLock()
        self._console = Console(
            file=cast("TextIO", sink),
            force_terminal=True,
            color_system="standard" if paint.on else None,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )
        # Standard output carries data: rich must not take it over.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._open = False
        self._over = False

    def hear(self, event: Event, now: float) -> None:
        """Take an event at `now`; it is drawn with the next tick."""
        with self._lock:
            self.view = fold(self.view, event, now)
            self._pending += self._transcript.lines(event, self.view)

    def tick(self, now: float) -> None:
        """Draw what is new, unless that was done just now."""
        with self._lock:
            if self._over or now - self._drawn < MIN_REDRAW:
                return
            self._drawn = self._now = now
            if not self._open:
                # Only now: a build that is done before the first tick never touches the cursor.
                self._open = True
                atexit.register(self.close)
                self._live.start()
            self._live.update(self._picture())
            self._scroll()
            self._live.refresh()

    def tell(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Say what no event has said."""
        with self._lock:
            self._pending += self._transcript.unsaid(diagnostics)

    def close(self) -> None:
        """Write what is pending and give the terminal back. Twice is once."""
        with self._lock:
            if self._over:
                return
            self._over = True
            if self._open:
                self._live.update(Text(""))
                self._live.stop()
                atexit.unregister(self.close)
            self._pending += self._transcript.last()
            self._scroll()

    def _scroll(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self._console.print(Text.from_ansi("\n".join(pending)), soft_wrap=True)

    def _picture(self) -> Group:
        width, height = self._console.size
        # One column is left free: some terminals wrap a full line.
        lines = render(self.view, self._now, max(20, width - 1), rows=max(2, min(16, height - 2)))
        bold = Text(lines[0], style="bold" if self._paint.on else "")
        return Group(bold, *(Text(line, no_wrap=True, overflow="crop") for line in lines[1:]))
