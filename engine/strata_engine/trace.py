"""Traces: when each action of a build ran, on which worker slot, and what was said, as tracing tools read it.

It listens to events and writes one file; nothing reads traces to decide anything. The form is Chrome's trace event
format (JSON), which Perfetto opens: complete events (`X`) on one track must not overlap, so a track is a worker slot,
on which one action runs at a time. Warnings and failures are instants (`i`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from strata_engine.errors import Diagnostic, render
from strata_engine.events import ActionFinished, ActionStarted, Event, Fetched, Outcome, Placed, Warned
from strata_engine.workspace import write_atomically

FOLDER = "traces"
KEPT = 20
"""Traces kept per workspace."""

KEPT_OUTPUT = 1 << 16
"""Characters kept of what a failed action's subprocess printed: the last ones."""

CRITICAL, PLACING, FETCHING = "critical path", "placing", "from remote"
_MESSAGE = "message"


class Span(NamedTuple):
    """A stretch of time on a track, in seconds since the build began."""

    track: str
    """`cpu 0`, `network 3`, `placing`."""
    label: str
    mnemonic: str
    start: float
    seconds: float
    outcome: str
    why: str
    """The first reason, in words."""


class Message(NamedTuple):
    """A warning, or a failure."""

    at: float
    """Seconds since the build began."""
    severity: str
    id: str
    label: str
    """The action that it is about, if any."""
    text: str
    """All of it, as consoles show it."""
    output: str = ""
    """What a failed action's subprocess printed."""


class Traced(NamedTuple):
    """What a trace tells."""

    spans: tuple[Span, ...] = ()
    messages: tuple[Message, ...] = ()


class Recorder:
    """Hears the events of one build. Events come one at a time."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._running: dict[str, tuple[float, ActionStarted]] = {}
        self._said: set[Diagnostic] = set()
        self._lanes: list[float] = []
        """When each track of fetched outputs is free."""
        self.failed = False
        """Whether any action failed."""
        self.spans: list[Span] = []
        self.messages: list[Message] = []

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        now = time.monotonic() - self._begun
        match event:
            case ActionFinished(label=label, diagnostics=diagnostics):
                self.failed |= event.outcome is Outcome.FAILED
                self._say(now, diagnostics, label, event.output[-KEPT_OUTPUT:])
            case Warned(diagnostic=diagnostic, label=label):
                self._say(now, (diagnostic,), label)
            case _:
                pass
        match event:
            case ActionStarted(label=label):
                self._running[label] = now, event
            case ActionFinished(label=label) if label in self._running:
                start, begun = self._running.pop(label)
                # Its end is heard of late, when the loop gets to it; what it took is known from itself.
                seconds = min(event.seconds, now - start) if event.outcome is not Outcome.SKIPPED else now - start
                why = str(begun.reasons[0]) if begun.reasons else ""
                track = f"{begun.pool} {begun.slot}"
                self.spans.append(Span(track, label, begun.mnemonic, start, seconds, event.outcome.value, why))
            case Fetched(label=label, seconds=seconds, done=done):
                why = f"{done} bytes"
                self.spans.append(
                    Span(self._lane(now - seconds, now), label, "Remote", now - seconds, seconds, "fetched", why)
                )
            case Placed(label=label, seconds=seconds, path=path):
                self.spans.append(Span(PLACING, label, "Place", now - seconds, seconds, "placed", path))
            case _:
                pass

    def _lane(self, start: float, end: float) -> str:
        """Give a track on which nothing else is drawn at that time: outputs come side by side."""
        free = next((n for n, busy in enumerate(self._lanes) if busy <= start), len(self._lanes))
        self._lanes[free:] = [end, *self._lanes[free + 1 :]]
        return f"{FETCHING} {free}"

    def _say(self, now: float, diagnostics: Iterable[Diagnostic], label: str, output: str = "") -> None:
        # A cached warning is told more than once; what was printed is told with the first of a failure's messages.
        for diagnostic in diagnostics:
            if diagnostic not in self._said:
                self._said.add(diagnostic)
                text = render(diagnostic)
                self.messages.append(Message(now, diagnostic.severity, diagnostic.id, label, text, output))
                output = ""


def runs(span: Span) -> bool:
    """Tell whether a span is of an action that was executed."""
    return span.track != PLACING and not span.track.startswith(FETCHING)


def document(run: str, spans: Sequence[Span], critical: Sequence[str], messages: Sequence[Message] = ()) -> bytes:
    """Give the trace of a build as JSON; the actions on its critical path are drawn once more on a row of their own."""
    spans = _apart(spans)
    on_path = set(critical)
    rows = [span._replace(track=CRITICAL) for span in spans if span.label in on_path and runs(span)]
    tracks = {CRITICAL: 0} | {name: n for n, name in enumerate(sorted({s.track for s in spans}, key=_order), start=1)}
    events: list[dict[str, Any]] = [_named("process_name", 0, f"strata {run}")]
    for name, number in tracks.items():
        events += [_named("thread_name", number, name), _sorted(number)]
    for span in (*rows, *spans):
        events.append(
            {
                "ph": "X",
                "pid": 1,
                "tid": tracks[span.track],
                "name": span.label,
                "cat": span.mnemonic,
                "ts": _micro(span.start),
                "dur": _micro(span.start + span.seconds) - _micro(span.start),
                "args": {"outcome": span.outcome, "why": span.why},
            }
        )
    events += map(_instant, messages)
    events += _running(spans)
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"run": run}}) + b"\n"


class _Event(msgspec.Struct):
    """An event as far as it is read back."""

    ph: str
    name: str = ""
    cat: str = ""
    tid: int = 0
    ts: float = 0
    dur: float = 0
    args: dict[str, Any] = {}


class _File(msgspec.Struct):
    traceEvents: list[_Event]  # noqa: N815 - the format's name


def read(data: bytes) -> Traced:
    """Read back what `document` wrote. Raises ValueError."""
    events = msgspec.json.decode(data, type=_File).traceEvents
    tracks = {event.tid: str(event.args.get("name", "")) for event in events if event.name == "thread_name"}

    def said(event: _Event, name: str) -> str:
        return str(event.args.get(name, ""))

    spans = (
        Span(
            *(tracks.get(event.tid, ""), event.name, event.cat, event.ts / 1e6, event.dur / 1e6),
            *(said(event, "outcome"), said(event, "why")),
        )
        for event in events
        if event.ph == "X"
    )
    messages = (
        Message(
            *(event.ts / 1e6, said(event, "severity"), said(event, "id")),
            *(said(event, "label"), said(event, "text"), said(event, "output")),
        )
        for event in events
        if event.ph == "i" and event.cat == _MESSAGE
    )
    return Traced(tuple(span for span in spans if span.track != CRITICAL), tuple(messages))


def keep(state: Path, run: str, data: bytes) -> None:
    """Write a trace, dropping the oldest beyond `KEPT`. Raises OSError."""
    folder = state / FOLDER
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{run}.json", data)
    for path in traces(state)[KEPT:]:
        path.unlink(missing_ok=True)


def traces(state: Path) -> list[Path]:
    """List the traces that are kept, the newest first. Raises OSError."""
    # The name begins with the time of the build.
    folder = state / FOLDER
    return sorted(folder.glob("*.json"), reverse=True) if folder.is_dir() else []


def _apart(spans: Sequence[Span]) -> list[Span]:
    """Let no span of a track last beyond the start of the next one, which is heard of sooner than the end before it."""
    last: dict[str, Span] = {}
    found: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start, reverse=True):
        after = last.get(span.track)
        seconds = span.seconds if after is None else min(span.seconds, after.start - span.start)
        last[span.track] = span
        found.append(span._replace(seconds=seconds))
    return found[::-1]


def _order(track: str) -> tuple[str, int]:
    name, _, number = track.rpartition(" ")
    return (name, int(number)) if number.isdigit() else (track, 0)


def _named(what: str, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": 1, "tid": track, "name": what, "args": {"name": name}}


def _sorted(track: int) -> dict[str, Any]:
    return {"ph": "M", "pid": 1, "tid": track, "name": "thread_sort_index", "args": {"sort_index": track}}


def _instant(message: Message) -> dict[str, Any]:
    args = {"severity": message.severity, "id": message.id, "label": message.label, "text": message.text}
    if message.output:
        args["output"] = message.output
    name = f"{message.severity}[{message.id}]"
    return {
        "ph": "i",
        "s": "g",
        "pid": 1,
        "tid": 0,
        "name": name,
        "cat": _MESSAGE,
        "ts": _micro(message.at),
        "args": args,
    }


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)


def _running(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Count what runs at once, as a row of its own."""
    changes: dict[int, int] = {}
    for span in spans:
        if runs(span):
            start = _micro(span.start)
            changes[start] = changes.get(start, 0) + 1
            end = _micro(span.start + span.seconds)
            changes[end] = changes.get(end, 0) - 1
    count, found = 0, []
    for moment in sorted(changes):
        count += changes[moment]
        found.append({"ph": "C", "pid": 1, "name": "running", "ts": moment, "args": {"actions": count}})
    return found
