"""The state of a build as its events tell it, and its picture as lines.

Knows no terminal and no clock: `fold` takes the time at which an event was heard, `render` the time at which
it is looked at, so that both are tested as transcripts. A view is replaced, never changed: whoever draws on another
thread always sees a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from strata_engine.console.terminal import PLAIN, Paint
from strata_engine.events import (
    ActionFinished,
    ActionOutput,
    ActionProgress,
    ActionStarted,
    BuildFinished,
    BuildStarted,
    Event,
    Fetched,
    Fetching,
    GraphGrew,
    Outcome,
    Waiting,
)
from strata_engine.words import cells, duration, fit, fit_middle, printable, size, size_of

HITS = (Outcome.UP_TO_DATE, Outcome.CACHED, Outcome.REMOTE)
"""The outcomes for which nothing had to run."""

SHORTEST_LABEL = 16
"""Columns of a label that come before its bytes, however narrow the terminal is."""

SHORTEST_SAID = 12
"""Columns below which nothing of what an action printed is shown: it would tell nothing."""

NARROW = 20
"""Columns below which a timer and a label is all."""

ROOMY = 50
"""Columns from which on timers stand right-aligned in a column of their own."""


class Running(NamedTuple):
    """An action that executes now."""

    label: str
    started: float
    done: int = 0
    total: int | None = None
    line: str = ""
    """The last line that it printed."""
    rate_from: tuple[float, int] | None = None
    """When and at how many bytes the first progress was heard: a resumed download starts above zero."""

    def rate(self, now: float) -> int | None:
        """Give the mean bytes per second, once they mean something."""
        if self.rate_from is None or now - self.rate_from[0] < 0.5:
            return None
        return int((self.done - self.rate_from[1]) / (now - self.rate_from[0]))


class BuildView(NamedTuple):
    """All that a console shows of a build."""

    started: float
    total: int = 0
    counts: Mapping[str, int] = {}
    running: Mapping[str, Running] = {}
    """By label, in the order in which they started."""
    waiting: Waiting | None = None
    finished: BuildFinished | None = None

    @property
    def done(self) -> int:
        """How many actions have their outcome."""
        return sum(self.counts.values())


def fold(view: BuildView, event: Event, now: float) -> BuildView:
    """Give the view after `event`, which was heard at `now`."""
    match event:
        case BuildStarted(total=total):
            return view._replace(total=total, waiting=None)
        case GraphGrew(total=total):
            return view._replace(total=total)
        case ActionStarted(label=label):
            return view._replace(running={**view.running, label: Running(label, now)}, waiting=None)
        case ActionProgress() | ActionOutput() | Fetching() | Fetched():
            return view._replace(running=_going_on(view.running, event, now))
        case ActionFinished(label=label, outcome=outcome):
            counts = {**view.counts, outcome: view.counts.get(outcome, 0) + 1}
            if label not in view.running:
                return view._replace(counts=counts)
            running_still = {name: value for name, value in view.running.items() if name != label}
            return view._replace(counts=counts, running=running_still)
        case Waiting():
            return view._replace(waiting=event)
        case BuildFinished():
            return view._replace(finished=event, running={}, waiting=None)
        case _:
            return view


def _going_on(
    running: Mapping[str, Running], event: ActionProgress | ActionOutput | Fetching | Fetched, now: float
) -> Mapping[str, Running]:
    """Give what goes on after something was told of it."""
    # Beside the action of that name, which may run again where no remote has all of its output.
    name = f"{event.label} from remote" if isinstance(event, Fetching | Fetched) else event.label
    at = running.get(name)
    match event:
        case Fetched():
            return {label: value for label, value in running.items() if label != name}
        case Fetching() if at is None:
            at = Running(name, now)
        case _:
            pass
    if at is None:
        return running
    if isinstance(event, ActionOutput):
        return {**running, name: at._replace(line=event.line)}
    heard = at._replace(done=event.done, total=event.total, rate_from=at.rate_from or (now, event.done))
    return {**running, name: heard}


def header(view: BuildView, now: float, width: int = 1000) -> str:
    """Give the line that says how far the build is: all of it, or where there is little room what matters most."""
    hits = sum(view.counts.get(name, 0) for name in HITS)
    total = max(view.total, view.done)
    done = f"{view.done}/{total}"
    found = [f"{hits} {'hit' if hits == 1 else 'hits'}"] if hits else []
    failed = [f"{view.counts[Outcome.FAILED]} failed"] if view.counts.get(Outcome.FAILED) else []
    ran = [f"{view.counts[Outcome.EXECUTED]} executed"] if view.counts.get(Outcome.EXECUTED) else []
    running = [f"{len(view.running)} running"] if view.running else []
    elapsed = duration(now - view.started)
    forms = (
        [f"{done} actions" if total else "getting ready", *found, *ran, *failed, *running],
        [done if total else "getting ready", *failed, *running],
        [done] if total else [],
    )
    said = [" · ".join([*form, elapsed]) for form in forms]
    return next((line for line in said if cells(line) <= width), said[-1])


def running_line(running: Running, now: float, width: int, paint: Paint = PLAIN) -> str:
    """Give an action's own line: its timer, its label, its bytes, what it said last.

    Where there is not room for all, bytes stay whole and the label is cut: wheels have long names.
    """
    timer = duration(now - running.started)
    if width < NARROW:
        return fit(f"{timer} {printable(running.label)}", width)
    timer = f"{timer:>10}" if width >= ROOMY else timer
    bytes_ = []
    if running.done or running.total:
        bytes_.append(size_of(running.done, running.total))
        rate = running.rate(now)
        if rate is not None:
            bytes_.append(f"{size(rate)}/s")
    while bytes_ and sum(len(part) + 2 for part in (timer, *bytes_)) + SHORTEST_LABEL > width:
        bytes_.pop()
    taken = sum(len(part) + 2 for part in (timer, *bytes_))
    label = fit_middle(printable(running.label), width - taken)
    parts = [paint(timer, "faint"), label, *(paint(part, "hint") for part in bytes_)]
    room = width - taken - cells(label) - 2
    if running.line and room >= SHORTEST_SAID:
        parts.append(paint(fit(printable(running.line).strip(), room), "faint"))
    return "  ".join(parts)


def render(view: BuildView, now: float, width: int, rows: int = 12, paint: Paint = PLAIN) -> list[str]:
    """Give the live part of the screen: at most `rows` lines, none wider than `width` columns."""
    lines = [paint(fit(header(view, now, width), width), "bold")]
    if view.waiting is not None and rows > 1:
        held = f"  waiting for {view.waiting.what}, held by {printable(view.waiting.holder)}"
        lines.append(paint(fit(held, width), "warn"))
    # The oldest first: a new action never moves the line that the eye rests on.
    actions = list(view.running.values())
    room = max(0, rows - len(lines))
    if len(actions) > room:
        shown = actions[: max(0, room - 1)]
        lines += [running_line(action, now, width, paint) for action in shown]
        lines += [paint(fit(f"{'':>10}  … and {len(actions) - len(shown)} more", width), "faint")] if room else []
    else:
        lines += [running_line(action, now, width, paint) for action in actions]
    return lines
