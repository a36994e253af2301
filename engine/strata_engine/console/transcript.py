"""What of a build is worth a line that stays: one per executed action, each failure in full, the last line.

Turns events into lines and knows neither terminal nor clock. Both consoles write these lines; the live one above what
it redraws. Text from outside (what a subprocess printed, names in wheels) is made harmless here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from strata_engine.console import github
from strata_engine.console.state import BuildView
from strata_engine.console.terminal import PLAIN, Paint, diagnostic_lines
from strata_engine.errors import Diagnostic
from strata_engine.events import (
    ActionFinished,
    BuildFinished,
    Event,
    Outcome,
    Placed,
    Uploading,
    Waiting,
    Warned,
)
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.words import cells, duration, fit, fit_middle, outcome_word, printable, short, size, summary

STYLES = {Outcome.EXECUTED: "good", Outcome.FAILED: "bad", Outcome.SKIPPED: "warn"}
DONE_SOMETHING = (Outcome.REMOTE, Outcome.EXECUTED, Outcome.FAILED, Outcome.SKIPPED)
FIRST_OUTPUT = 20
"""How many of the last lines of the first failed action's output are shown."""
LATER_OUTPUT = 5
"""The same for those after it: with `--keep-going` the first is most often the cause."""

GROUPED_OUTPUT = 2000
"""How many of them GitHub Actions gets besides, folded."""

INLINE = 60
"""Columns of a reason beside the action that ran for it."""

LABEL = 36
"""Columns of a label that come before its reason, where there is not room for both."""

SHORTEST_LABEL = 16
"""Columns of a label that stay, however narrow the terminal is: the line then takes two rows."""

SHORTEST_REASON = 14
"""Columns below which no reason is shown: it would tell nothing."""

LONG_BUILD = 5.0
"""Seconds from which on a build tells what took them."""

TELLING = (ReasonCode.PARAMETER_CHANGED, ReasonCode.TOOL_CHANGED, ReasonCode.ENV_CHANGED, ReasonCode.PLATFORM_CHANGED)
"""The reasons of which old and new say something: not digests."""


class Detail(NamedTuple):
    """How much is wanted."""

    explain: bool = False
    """Each reason beside the action that ran for it."""
    verbose: bool = False
    """Actions that had nothing to do, and places, too."""
    quiet: bool = False
    """Failures only."""
    brief: bool = False
    """No last line where nothing had to be done."""
    dry_run: bool = False
    """What ran only would have."""
    github: bool = False
    """Annotations for GitHub Actions, too."""


def reason_line(reason: Reason) -> str:
    """Give a reason for a person: old and new beside each other, digests cut short."""
    return printable(short(str(reason)))


def inline_reason(reasons: Sequence[Reason], label: str) -> str:
    """Give the reason that tells most, on what is left of a line, and how many there are besides; empty for none."""
    if not reasons:
        return ""
    # What came from above is told beside the action above.
    first = next((each for each in reasons if each.reason is not ReasonCode.UPSTREAM_CHANGED), reasons[0])
    said = first if first.reason in TELLING else msgspec.structs.replace(first, old=None, new=None)
    text = fit(reason_line(_without_subject(said, label)), INLINE)
    return f"{text}, +{len(reasons) - 1}" if len(reasons) > 1 else text


def _without_subject(reason: Reason, label: str) -> Reason:
    """Leave out what the line names already."""
    return msgspec.structs.replace(reason, subject="") if reason.subject == label else reason


class Transcript:
    """The lines of one build. It remembers what was said, because a cached warning is told more than once."""

    def __init__(self, detail: Detail, paint: Paint = PLAIN) -> None:
        self.detail = detail
        self.paint = paint
        self._said: set[Diagnostic] = set()
        self._failures = 0
        self._finish: BuildFinished | None = None

    def lines(self, event: Event, view: BuildView, *, width: int | None = None) -> list[str]:
        """Give the lines for `event`; `view` has it already. With `width`, what matters least is cut to fit."""
        lines = self._lines(event, view, width)
        # Annotations are commands, and have nothing in them that is another.
        return list(map(github.defused, lines)) if self.detail.github else lines

    def _lines(self, event: Event, view: BuildView, width: int | None) -> list[str]:
        match event:
            case ActionFinished():
                return self._finished(event, view, width)
            case Warned(diagnostic=diagnostic):
                return [] if self.detail.quiet else self._diagnostic(diagnostic)
            case Waiting(what=what, holder=holder) if not self.detail.quiet:
                return [self.paint(f"waiting for {what}, held by {printable(holder)}", "warn")]
            case Uploading(left=left) if not self.detail.quiet:
                return [f"sending {left} result{'' if left == 1 else 's'} to the remote cache"]
            case Placed(path=path, label=label) if self.detail.verbose:
                return [f"placed {printable(label)} at {printable(path)}"]
            case BuildFinished():
                self._finish = event
                return []
            case _:
                return []

    def unsaid(self, diagnostics: Iterable[Diagnostic]) -> list[str]:
        """Give those diagnostics that no event brought: they matter however quiet it is to be."""
        return [line for diagnostic in diagnostics for line in self._diagnostic(diagnostic)]

    def last(self) -> list[str]:
        """Give the build's last line; it is kept until the console closes, because warnings may follow the end."""
        event, self._finish = self._finish, None
        if event is None or self.detail.quiet:
            return []
        idle = not event.interrupted and not any(event.counts.get(name, 0) for name in DONE_SOMETHING)
        if idle and self.detail.brief:
            return []
        line = summary(event.counts, event.seconds, dry_run=self.detail.dry_run)
        bad = event.interrupted or any(event.counts.get(name, 0) for name in (Outcome.FAILED, Outcome.SKIPPED))
        said = [] if self.detail.dry_run else [self.paint(text, "faint") for text in _what_took_long(event)]
        said += [self.paint(event.remote, "faint")] if event.remote else []
        said += [self.paint("interrupted", "warn")] if event.interrupted else []
        return [*said, self.paint(line, "bad" if bad else "good")]

    def _finished(self, event: ActionFinished, view: BuildView, width: int | None) -> list[str]:
        lines = []
        failed = event.outcome is Outcome.FAILED
        ran = failed or event.outcome is Outcome.EXECUTED
        if not self.detail.quiet:
            if ran or self.detail.verbose:
                lines.append(self._headline(event, view, width))
            if ran and self.detail.explain:
                lines += [f"    {reason_line(_without_subject(reason, event.label))}" for reason in event.reasons]
        if failed:
            return lines + self._failure(event)
        return lines if self.detail.quiet else lines + [x for d in event.diagnostics for x in self._diagnostic(d)]

    def _headline(self, event: ActionFinished, view: BuildView, width: int | None) -> str:
        total = str(max(view.total, view.done))
        word = outcome_word(event.outcome, dry_run=self.detail.dry_run)
        place, label = f"[{view.done:>{len(total)}}/{total}]", printable(event.label)
        rest = self._rest(event)
        told = event.outcome is Outcome.EXECUTED and not self.detail.explain
        why = inline_reason(event.reasons, event.label) if told else ""
        if width is not None and event.outcome is not Outcome.FAILED:
            label, why = _fitted(label, why, width - cells(f"{place} {word} {rest}"))
        text = f"{place} {self.paint(word, STYLES.get(event.outcome, 'faint'))} {label}{rest}"
        return f"{text}  {self.paint(why, 'faint')}" if why else text

    def _rest(self, event: ActionFinished) -> str:
        """Give what is said after the label."""
        if event.outcome is Outcome.SKIPPED:
            return f" because of {printable(event.because)}" if event.because else ""
        ran = event.outcome in (Outcome.EXECUTED, Outcome.FAILED) and not self.detail.dry_run
        taken = f" in {duration(event.seconds)}" if ran else ""
        return taken + (f" ({size(event.bytes)})" if event.bytes else "")

    def _failure(self, event: ActionFinished) -> list[str]:
        self._failures += 1
        told = event.diagnostics or (
            Diagnostic("action-failed", f"`{event.label}` failed", hint=f"`strata build {event.label}` tries it again"),
        )
        lines = [line for diagnostic in told for line in self._diagnostic(diagnostic)]
        output = [line for line in map(printable, event.output.splitlines()) if line.strip()]
        wanted = FIRST_OUTPUT if self._failures == 1 else LATER_OUTPUT
        if len(output) > wanted:
            lines.append(self.paint(f"  | … {len(output) - wanted} lines before these", "faint"))
        # The prefix also keeps a hostile `::error::` from being read as a workflow command.
        quoted = [f"  | {line}" for line in output[-GROUPED_OUTPUT:]]
        lines += quoted[-wanted:]
        if self.detail.github and len(output) > wanted:
            lines += github.group(f"all that {printable(event.label)} printed", quoted)
        if not self.detail.explain:
            because = [_without_subject(reason, event.label) for reason in event.reasons[:3]]
            lines += [f"note: `{event.label}` ran because of {reason_line(reason)}" for reason in because]
        return lines

    def _diagnostic(self, diagnostic: Diagnostic) -> list[str]:
        if diagnostic in self._said:
            return []
        self._said.add(diagnostic)
        return diagnostic_lines(diagnostic, self.paint, github=self.detail.github)


def _fitted(label: str, why: str, room: int) -> tuple[str, str]:
    """Cut a label and the reason beside it to what a line has room for; never the label to nothing."""
    if not why or cells(label) + 2 + cells(why) <= room:
        return fit_middle(label, max(SHORTEST_LABEL, room)), why
    kept = min(cells(label), max(LABEL, room - 2 - cells(why)))
    if room - kept - 2 < SHORTEST_REASON:
        return fit_middle(label, max(SHORTEST_LABEL, room)), ""
    return fit_middle(label, kept), fit(why, room - kept - 2)


def _what_took_long(event: BuildFinished) -> list[str]:
    """Say what a long build waited for."""
    slowest = max(event.critical, key=lambda each: each[1], default=None)
    if slowest is None or event.seconds < LONG_BUILD or len(event.critical) < 2:
        return []
    label, seconds = slowest
    label = fit_middle(printable(label), LABEL)
    path = sum(each for _, each in event.critical)
    return [f"critical path {duration(path)}, slowest in it: {label}, {duration(seconds)}"]
