"""Open the console that fits: the one place that looks at the clock, the environment's stream and threads.

A console is heard through `Shown`, a Listener; a ticker thread of its own keeps timers going while the build is silent.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol, Self, TextIO

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


class Console(Protocol):
    """What shows a build."""

    def hear(self, event: Event, now: float) -> None:
        """Take an event."""

    def tick(self, now: float) -> None:
        """Let time pass."""

    def tell(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Say what no event has said."""

    def close(self) -> None:
        """Say the last line and give the terminal back."""


class Shown:
    """A console that runs: a Listener, from `with` to its end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="strata-console", daemon=True)

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
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._ticker.join()
        self.console.close()

    def _tick(self) -> None:
        while not self._stop.wait(TICK):
            self.console.tick(time.monotonic())


def open_console(
    stream: TextIO | None, environ: Mapping[str, str], *, console: str, color: str, detail: Detail
) -> Shown:
    """Open the console that was asked for (`auto`, `live`, `plain`, `none`) on `stream`."""
    tty = is_terminal(stream)
    kind = console_kind(console, environ, tty=tty, unicode=speaks_unicode(stream))
    paint = Paint(wants_color(color, environ, tty=tty))
    sink = Sink(stream)
    now = time.monotonic()
    detail = detail._replace(github=environ.get("GITHUB_ACTIONS") == "true")
    if kind is Kind.LIVE and not detail.quiet and not sink.dead:
        from strata_engine.console.live import LiveConsole  # noqa: PLC0415 - rich costs more than a small build

        return Shown(LiveConsole(sink, detail, paint, now=now))
    return Shown(PlainConsole(sink, detail._replace(quiet=detail.quiet or kind is Kind.NONE), paint, now=now))


def plain_console(*, explain: bool = False) -> Shown:
    """Open a plain console on standard error; with `explain` it says why each action ran."""
    return open_console(sys.stderr, os.environ, console="plain", color="auto", detail=Detail(explain=explain))
