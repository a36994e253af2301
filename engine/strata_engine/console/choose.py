"""Open the console that fits: the one place that looks at the clock, the environment's stream and threads.

A console is heard through `Shown`, a Listener; a ticker thread of its own keeps timers going while the build is silent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol, Self, TextIO

from strata_engine.console import github
from strata_engine.console.live import LiveConsole
from strata_engine.console.plain import PlainConsole
from strata_engine.console.terminal import (
    Kind,
    Paint,
    Sink,
    console_kind,
    is_terminal,
    speaks_unicode,
    wants_color,
)
from strata_engine.console.transcript import Detail
from strata_engine.errors import Diagnostic
from strata_engine.events import Aborted, Event

TICK = 0.1
"""Seconds between two ticks."""

LONG = 1.0
"""Seconds without a tick after which the process may have been stopped meanwhile."""


class Console(Protocol):
    """What shows a build."""

    def hear(self, event: Event, now: float) -> None:
        """Take an event."""

    def tick(self, now: float) -> None:
        """Let time pass."""

    def tell(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Say what no event has said."""

    def resumed(self) -> None:
        """Go on after having been stopped (Ctrl-Z); called in the middle of anything."""

    def close(self) -> None:
        """Say the last line and give the terminal back."""


class Shown:
    """A console that runs: a Listener, from `with` to its end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="strata-console", daemon=True)
        self._former: object = None

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self.console.hear(event, time.monotonic())
        if isinstance(event, Aborted):
            # Nobody leaves the `with` any more.
            self._stop.set()
            self.console.close()

    def tell(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Say what no event has said."""
        self.console.tell(diagnostics)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGCONT, lambda _number, _frame: self.console.resumed())
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._ticker.join()
        self.console.close()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCONT, self._former or signal.SIG_DFL)  # type: ignore[arg-type]  # what it gave

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(TICK):
            now = time.monotonic()
            # After a stop this thread may be awake before the other has heard of it: one tick is left out.
            if now - last < LONG:
                self.console.tick(now)
            last = now


def open_console(
    stream: TextIO | None, environ: Mapping[str, str], *, console: str, color: str, detail: Detail
) -> Shown:
    """Open the console that was asked for (`auto`, `live`, `plain`, `none`) on `stream`."""
    tty = is_terminal(stream)
    kind = console_kind(console, environ, tty=tty, unicode=speaks_unicode(stream))
    paint = Paint(wants_color(color, environ, tty=tty))
    sink = Sink(stream)
    now = time.monotonic()
    detail = detail._replace(github=github.reads(environ))
    if kind is Kind.LIVE and not detail.quiet and not sink.dead:
        return Shown(LiveConsole(sink, detail, paint, now=now, environ=environ))
    return Shown(PlainConsole(sink, detail._replace(quiet=detail.quiet or kind is Kind.NONE), paint, now=now))


def plain_console(*, explain: bool = False) -> Shown:
    """Open a plain console on standard error; with `explain` it says why each action ran."""
    return open_console(sys.stderr, os.environ, console="plain", color="auto", detail=Detail(explain=explain))
