"""What is told of causes, as lines of text: the root causes first, then how they travelled, on one screen.

Pure but for `Details`, which looks into the files that have changed. Cuts what is long, folds what is many, and says so
in its last line; with `full` it does neither.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from strata_engine.console.transcript import reason_line
from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.why import Cause, Group, Story
from strata_engine.words import duration, fit, outcome_word, printable
from strata_rules.cli.graph.asked import short_run
from strata_rules.cli.graph.cutoff import Cutoff

WIDTH = 80
LINES = 22
"""Lines on a screen, one left for the prompt and one for what was left out."""

SHOWN = 4
"""Root causes, names in a list, and details of one cause that are shown."""

HOPS = 6
"""Actions of one way that are shown."""

_FOLDED = re.compile(r"(?:and|…) \d+ more\b")
"""What stands where names, hops or lines were left out."""

Details: TypeAlias = Callable[[ActionReport, Reason], Sequence[str]]
"""Gives what a reason means in the words of the file that has changed."""

Stopped: TypeAlias = Callable[[Story, Sequence[str]], Cutoff]
"""Gives where the causes of labels stopped."""


class Kind(StrEnum):
    """What kind of answer is given."""

    RAN = "ran"
    """Why something ran."""
    WOULD = "would"
    """Why it would run now."""
    DIFFERS = "differs"
    """Why another build's result could not be used."""
    AFAR = "afar"
    """Why a remote cache's could not, or would not."""


class Answer(NamedTuple):
    """What is to be told."""

    story: Story
    labels: tuple[str, ...]
    """What was asked about; empty for all of it."""
    word: str = ""
    """The same as it was asked."""
    kind: Kind = Kind.RAN
    against: str = ""
    """The other build, where two are compared, in words."""
    against_run: str = ""
    here: str = "here"
    """What it is compared with, in words."""
    later: int = 0
    """How many builds there were since, which did nothing of it."""
    there: Mapping[str, str] = {}
    """How results are there that a remote cache has, in words, by label."""
    total: int = 0
    """How many results a remote cache was, or would be, asked for."""
    unknown: int = 0
    """For how many of them it cannot be asked before something is executed."""
    nearest: Mapping[str, str] = {}
    """What those were compared with that it has not, in words, by label."""


class View(NamedTuple):
    """How it is told."""

    details: Details
    stopped: Stopped
    full: bool = False
    now: float = 0.0


def ago(started: str, now: float) -> str:
    """Say how long ago a build was: `2 min ago`."""
    try:
        then = dt.datetime.fromisoformat(started).timestamp()
    except ValueError:
        return started
    seconds = max(0, int(now - then))
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name} ago"
    return f"{seconds} s ago"


def listed(names: Iterable[str], *, full: bool = False, room: int = WIDTH) -> str:
    """Give names in a line, as many of them as there is room for."""
    found = [printable(name) for name in names]
    text = ", ".join(found)
    if full or (len(text) <= room and len(found) <= SHOWN):
        return text
    for shown in range(min(SHOWN, len(found) - 1), 0, -1):
        text = f"{', '.join(found[:shown])} and {len(found) - shown} more"
        if len(text) <= room:
            return text
    return text


def counted(number: int, what: str) -> str:
    """Give a number of things."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def command_of(record: RunRecord) -> str:
    """Give the command of a build, without options."""
    return printable(next((word for word in record.command if not word.startswith("-")), "build"))


def page(lines: Sequence[str], *, full: bool, more: str = "--full") -> list[str]:
    """Cut lines to what fits a screen, and say so."""
    if full:
        return [printable(line) for line in lines]
    shown = [fit(printable(line), WIDTH) for line in lines[:LINES]]
    cut = len(lines) > LINES or any(line.endswith("…") or _FOLDED.search(line) for line in shown)
    return [*shown, f"more     {more} shows all of it"] if cut else shown


def told(answer: Answer, view: View) -> list[str]:
    """Give the answer."""
    story = answer.story
    here = tuple(label for label in answer.labels if label in story.reports)
    lines = _heads(answer, here, view) if answer.labels else _summary(answer, view)
    if answer.labels and not here:
        lines += _skipped(answer, view)
        return page(lines, full=view.full)
    if not story.reports:
        return page(lines, full=view.full)
    if answer.kind is Kind.AFAR and _is_new_there(story):
        return page([*lines, "", "nothing of it was ever sent there"], full=view.full)
    groups = story.groups(*here)
    ends = story.tops(here) if here else []
    if answer.labels:
        # The shortest way first: what is nearest is what a person has most likely just done.
        ways = [_way(story, ends, group) for group in groups]
        groups = [group for _, group in sorted(zip(ways, groups, strict=True), key=lambda pair: len(pair[0]))]
    shown = groups if view.full else groups[:SHOWN]
    for group in shown:
        lines += ["", *_cause(answer, ends, group, view)]
    if len(groups) > len(shown):
        rest = groups[len(shown) :]
        lines.append(f"and {counted(len(rest), 'more cause')}: {listed(str(each.reasons[0].reason) for each in rest)}")
    lines += _cutoff(answer, here, view)
    if view.full and here:
        lines += [
            "",
            "all      " + counted(len(story.chain(*here)), "action") + " on the way, the nearest first",
            *_chain(answer, here),
        ]
    return page(lines, full=view.full)


# -- what is told of ---------------------------------------------------------------------------------------------------


def _heads(answer: Answer, here: Sequence[str], view: View) -> list[str]:
    """Say of each label that was asked about and leads to no other what became of it."""
    story, record = answer.story, answer.story.record
    heads = story.tops(here) if here else list(answer.labels)
    skipped = {report.label: report for report in record.actions if report.outcome is Outcome.SKIPPED}
    lines = []
    for label in heads if view.full else heads[:SHOWN]:
        report = story.reports.get(label) or skipped.get(label)
        lines += [f"{label}  {_became(answer, report)}"] if report is not None else []
    if not here and not skipped.keys() & set(heads):
        lines = _nothing(answer)
    elif len(heads) > len(lines):
        lines.append(f"and {len(heads) - len(lines)} more")
    if answer.kind is Kind.AFAR:
        return [*lines, f"asked    {answer.against}"]
    return [f"{lines[0]}  ({_when(answer, view)})", *lines[1:]]


def _is_new_there(story: Story) -> bool:
    """Tell whether there is nothing in a remote cache to compare anything with."""
    new = {ReasonCode.FIRST_BUILD, ReasonCode.UPSTREAM_CHANGED}
    return all(reason.reason in new for report in story.reports.values() for reason in report.reasons)


def _nothing(answer: Answer) -> list[str]:
    """Say that nothing of what was asked about did anything."""
    if answer.kind is Kind.DIFFERS:
        return [f"{answer.word}  has the same key", "what that build made can be used here"]
    if answer.kind is Kind.AFAR:
        return [
            f"{label}  {answer.there.get(label, 'is asked as others have asked')}" for label in answer.labels[:SHOWN]
        ]
    return [f"{answer.word}  {'is' if answer.kind is Kind.WOULD else 'was'} up to date"]


def _became(answer: Answer, report: ActionReport) -> str:
    match answer.kind, report.outcome:
        case Kind.DIFFERS, _:
            return "has another key" if report.previous else "is new"
        case Kind.AFAR, _:
            # What nobody asked about explains something else.
            return answer.there.get(report.label, "is not there" if report.label in answer.labels else "is another one")
        case Kind.WOULD, Outcome.EXECUTED:
            # What has no key yet waits for an output that may come out as before.
            return "would run" if report.key else "may run, as far as can be known"
        case Kind.WOULD, Outcome.CACHED | Outcome.REMOTE:
            return "would come from the store"
        case Kind.WOULD, outcome:
            return f"would have {outcome_word(outcome)}"
        case _, Outcome.SKIPPED:
            return f"skipped because of {report.because}" if report.because else "skipped"
        case _, Outcome.EXECUTED | Outcome.FAILED as outcome:
            return f"{outcome} in {duration(report.seconds)}"
        case _, outcome:
            return f"{outcome_word(outcome)}, not executed"


def _when(answer: Answer, view: View) -> str:
    if answer.kind is Kind.WOULD:
        return "if it were built now"
    record = answer.story.record
    if answer.kind is Kind.DIFFERS:
        return f"{answer.against} → {answer.here}"
    return f"run {short_run(record)}, {ago(record.started, view.now)}"


def _summary(answer: Answer, view: View) -> list[str]:
    """Say what a whole build did."""
    story, record = answer.story, answer.story.record
    if answer.kind is Kind.AFAR:
        said = f"{len(answer.there)} of {counted(answer.total, 'result')} would be taken"
        said += f", {answer.unknown} wait for what would be executed" if answer.unknown else ""
        return [said, f"asked    {answer.against}"]
    if answer.kind is Kind.DIFFERS:
        return [f"{counted(len(story.reports), 'action')} with another key  ({_when(answer, view)})"]
    counts = dict.fromkeys(Outcome, 0)
    for report in record.actions:
        counts[report.outcome] += 1
    total = sum(record.counts.values())
    if answer.kind is Kind.WOULD:
        if not record.actions:
            return [f"nothing would run: {counted(total, 'action')} up to date"]
        unknown = sum(not report.key for report in record.actions)
        parts = [f"{counts[Outcome.EXECUTED] - unknown} of {counted(total, 'action')} would run"]
        parts += [f"{unknown} may, as far as can be known"] if unknown else []
        parts += [f"{counts[Outcome.CACHED]} would come from the store"] if counts[Outcome.CACHED] else []
        return [", ".join(parts)]
    done = [
        f"{count} {outcome_word(outcome)}"
        for outcome, count in counts.items()
        if count and outcome is not Outcome.UP_TO_DATE
    ]
    did = f"{', '.join(done)} of {counted(total, 'action')}" if done else "nothing was to do"
    line = f"run {short_run(record)}, {command_of(record)}, {ago(record.started, view.now)}: {did}"
    since = [f"{counted(answer.later, 'build')} since had nothing to do"] if answer.later else []
    return [f"{line} in {duration(record.seconds)}", *since]


def _skipped(answer: Answer, view: View) -> list[str]:
    """Tell why something was not tried: what failed, and why that had run."""
    story, record = answer.story, answer.story.record
    because = {r.because for r in record.actions if r.label in answer.labels and r.because in story.reports}
    lines: list[str] = []
    for label in sorted(because):
        lines += ["", f"{label}  {_became(answer, story.reports[label])}"]
        inner = answer._replace(labels=(label,))
        for group in story.groups(label)[:SHOWN]:
            lines += ["", *_cause(inner, (label,), group, view)]
    return lines


# -- causes ------------------------------------------------------------------------------------------------------------


def _way(story: Story, ends: Sequence[str], group: Group) -> list[Cause]:
    ways = [story.way(ends, reason) for reason in group.reasons[:SHOWN]]
    return min((way for way in ways if way), key=len, default=[])


def _cause(answer: Answer, ends: Sequence[str], group: Group, view: View) -> list[str]:
    """Tell of a root cause: what it is, what that means in its file, what it cost, and how it came to its ends."""
    lines = _what(group, view)
    if len(group.reasons) == 1:
        lines += _some(view.details(group.first[0].report, group.reasons[0]), view)
    elif view.full:
        lines += [f"           {reason_line(reason)}" for reason in group.reasons]
    lines.append(f"         {_cost(answer, group, ends, view)}")
    compared = dict.fromkeys(
        answer.nearest[cause.report.label] for cause in group.first if cause.report.label in answer.nearest
    )
    lines += [f"nearest  {line}" for line in compared]
    way = _way(answer.story, ends, group) if ends else []
    return lines + (_hops(answer, way, view) if len(way) > 1 else [])


def _some(lines: Sequence[str], view: View) -> list[str]:
    """Give the lines below a cause, the first of many."""
    most = len(lines) if view.full else SHOWN
    cut = [f"           … {len(lines) - most} more"] if len(lines) > most else []
    return [*(f"           {line}" for line in lines[:most]), *cut]


def _what(group: Group, view: View) -> list[str]:
    """Name a cause; what was and what is stand below where they are long."""
    code, room = str(group.reasons[0].reason), WIDTH - 9
    if len(group.reasons) > 1:
        subjects = dict.fromkeys(reason.subject for reason in group.reasons)
        if len(subjects) == 1:
            pairs = [f"{reason.old or '(none)'} → {reason.new or '(none)'}" for reason in group.reasons]
            return [f"because  {code} {group.reasons[0].subject}", *_some(pairs, view)]
        head = f"{code} ({len(group.reasons)}): "
        return [f"because  {head}{listed(subjects, full=view.full, room=room - len(head))}"]
    line = reason_line(group.reasons[0])
    if len(line) <= room or view.full:
        return [f"because  {line}"]
    reason = group.reasons[0]
    return [f"because  {code} {reason.subject}", f"           {line.partition(f'{reason.subject}: ')[2]}"]


def _cost(answer: Answer, group: Group, ends: Sequence[str], view: View) -> str:
    number = counted(group.actions, "action")
    text = {
        Kind.RAN: f"{number}, {duration(group.seconds)}" if group.actions else "nothing ran for it: the store had it",
        Kind.WOULD: number if group.actions else "nothing would run for it: the store has it",
        Kind.DIFFERS: number,
        Kind.AFAR: number,
    }[answer.kind]
    if ends or len(group.first) > SHOWN:
        return text
    names = (cause.report.label for cause in group.first)
    return f"{text}, from {listed(names, full=view.full, room=WIDTH - len(text) - 16)}"


def _hops(answer: Answer, way: Sequence[Cause], view: View) -> list[str]:
    """Show a way, each action with what its output was and came to be."""
    shown: list[Cause | int] = list(way)
    if len(way) > HOPS and not view.full:
        shown = [*way[:2], len(way) - HOPS + 1, *way[len(way) - HOPS + 3 :]]
    wide = max(len(cause.report.label) for cause in shown if isinstance(cause, Cause))
    lines: list[str] = []
    for each in shown:
        start = "way      " if not lines else "         "
        if isinstance(each, int):
            lines.append(f"{start}… {each} more")
            continue
        report = each.report
        run = f"  (run {each.run.rpartition('-')[2]})" if each.run != answer.story.record.run else ""
        lines.append(f"{start}{report.label:<{wide}}  {_digests(report)}{run}")
    return lines


def _digests(report: ActionReport) -> str:
    """Say what an output was and is."""
    old, new = report.former[:8] or "(none)", report.output[:8]
    if not new:
        return f"{old} → (nothing)" if report.outcome is Outcome.FAILED else f"{old} → (not known yet)"
    return f"{new} as before" if report.former == report.output else f"{old} → {new}"


def _chain(answer: Answer, here: Sequence[str]) -> list[str]:
    """List every action on the way from labels to their causes."""
    lines = []
    for cause in answer.story.chain(*here):
        report = cause.report
        became = _became(answer, report) if answer.kind is Kind.AFAR else outcome_word(report.outcome)
        lines.append(f"  {'  ' * min(cause.depth, 20)}{report.label}  {became}  {_digests(report)}")
        lines += [f"  {'  ' * min(cause.depth, 20)}    {reason_line(reason)}" for reason in report.reasons]
    return lines


def _cutoff(answer: Answer, here: Sequence[str], view: View) -> list[str]:
    """Say where the wave stopped, and how many it spared."""
    labels, spared = view.stopped(answer.story, here) if answer.kind is Kind.RAN else ((), ())
    if not labels:
        return []
    it = "it" if len(labels) == 1 else "them"
    said = f"what is taken of {it} is as before"
    if spared:
        said += f": {counted(len(spared), 'action')} had nothing to do"
    return ["", f"cutoff   {listed(labels, full=view.full, room=WIDTH - 9)}", f"         {said}"]
