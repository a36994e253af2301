"""The state of a build as its events tell it, and its picture as lines.

Knows no terminal, no clock and no colour: `fold` takes the time at which an event was heard, `render` the time at which
it is looked at, so that both are tested as transcripts. A view is replaced, never changed: whoever draws on another
thread always sees a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from strata_engine.events import (
    ActionFinished,
    ActionOutput,
    ActionProgress,
    ActionStarted,
    BuildFinished,
    BuildStarted,
    Event,
    GraphGrew,
    Outcome,
    Waiting,
)
from strata_engine.words import duration, fit, printable, size, size_of

HITS = (Outcome.UP_TO_DATE, Outcome.CACHED, Outcome.REMOTE)
"""The outcomes for which nothing had to run."""

SHORTEST_LABEL = 16
"""Characters of a label that are shown however narrow the terminal is."""


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
        case ActionProgress(label=label, done=done, total=total) if label in view.running:
            running = view.running[label]
            heard = running._replace(done=done, total=total, rate_from=running.rate_from or (now, done))
            return view._replace(running={**view.running, label: heard})
        case ActionOutput(label=label, line=line) if label in view.running:
            return view._replace(running={**view.running, label: view.running[label]._replace(line=line)})
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


def header(view: BuildView, now: float) -> str:
    """Give the line that says how far the build is."""
    hits = sum(view.counts.get(name, 0) for name in HITS)
    total = max(view.total, view.done)
    parts = [f"{view.done}/{total} actions" if total else "getting ready"]
    parts += [f"{count} {word}" for count, word in ((hits, "hit" if hits == 1 else "hits"),) if count]
    parts += [f"{view.counts[name]} {name}" for name in (Outcome.EXECUTED, Outcome.FAILED) if view.counts.get(name)]
    parts += [f"{len(view.running)} running"] if view.running else []
    return " · ".join([*parts, duration(now - view.started)])


def running_line(running: Running, now: float, width: int) -> str:
    """Give an action's own line: its timer, its label, its bytes, what it said last.

    Where there is not room for all, bytes stay whole and the label is cut: wheels have long names.
    """
    timer = f"{duration(now - running.started):>10}"
    bytes_ = []
    if running.done or running.total:
        bytes_.append(size_of(running.done, running.total))
        rate = running.rate(now)
        if rate is not None:
            bytes_.append(f"{size(rate)}/s")
    taken = sum(len(part) + 2 for part in (timer, *bytes_))
    label = fit(printable(running.label), max(SHORTEST_LABEL, width - taken))
    said = [printable(running.line).strip()] if running.line else []
    return "  ".join([timer, label, *bytes_, *said])


def render(view: BuildView, now: float, width: int, rows: int = 12) -> list[str]:
    """Give the live part of the screen: at most `rows` lines, none longer than `width`."""
    lines = [header(view, now)]
    if view.waiting is not None:
        lines.append(f"  waiting for {view.waiting.what}, held by {printable(view.waiting.holder)}")
    # The oldest first: a new action never moves the line that the eye rests on.
    actions = list(view.running.values())
    room = max(1, rows - len(lines))
    if len(actions) > room:
        hidden = len(actions) - (room - 1)
        lines += [running_line(action, now, width) for action in actions[: room - 1]]
        lines.append(f"{'':>10}  … and {hidden} more")
    else:
        lines += [running_line(action, now, width) for action in actions]
    return [fit(line, width) for line in lines]
