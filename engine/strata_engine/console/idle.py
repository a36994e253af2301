"""What a build says that has nothing to do, without there being one: the null build prints it from a snapshot.

Knows the lines of `transcript` and the rules of `terminal`, and no stream is written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TextIO

from strata_engine.console import github
from strata_engine.console.state import BuildView
from strata_engine.console.terminal import ASCII, Kind, Paint, console_kind, is_terminal, speaks_unicode, wants_color
from strata_engine.console.transcript import Detail, Transcript
from strata_engine.errors import Diagnostic
from strata_engine.events import BuildFinished, Outcome, Warned


def idle_text(
    stream: TextIO | None,
    environ: Mapping[str, str],
    *,
    console: str,
    color: str,
    detail: Detail,
    warnings: Iterable[Diagnostic],
    actions: int,
) -> str:
    """Give what such a build writes to `stream`: its warnings, and the last line with the number of its actions."""
    tty, unicode = is_terminal(stream), speaks_unicode(stream)
    quiet = detail.quiet or console_kind(console, environ, tty=tty, unicode=unicode) is Kind.NONE
    detail = detail._replace(quiet=quiet, github=github.reads(environ))
    transcript = Transcript(detail, Paint(wants_color(color, environ, tty=tty)))
    events = [*map(Warned, warnings), BuildFinished(0.0, {Outcome.UP_TO_DATE.value: actions})]
    view = BuildView(0.0)
    lines = [line for event in events for line in transcript.lines(event, view)]
    text = "".join(f"{line}\n" for line in [*lines, *transcript.last()])
    return text if unicode else text.translate(ASCII)
