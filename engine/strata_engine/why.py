"""Why actions ran, read from run records after the fact: the way from a label to its causes, and what each cause cost.

Pure functions of records. Nothing is recorded for this but what every build records: an action's reasons, which come
from comparing keys, and through which other actions a change reached it. The hard part is telling a cause from its
consequences: a reason is a *root cause* where no other action of the build explains it.

* An input that another action made is explained by that action.
* An action that is there because of an output (a lock selects a wheel) is explained by who made that output: that it
  is new, and which inputs come and go.
* A first build is explained by the first builds below it, for the same definition brought all of them.
* An input whose maker was brought up to date by an earlier build is explained by that build's record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

_RAN = (Outcome.EXECUTED, Outcome.FAILED)
_MOVED = (*_RAN, Outcome.CACHED, Outcome.REMOTE)

_FROM_OUTPUTS = (ReasonCode.UPSTREAM_CHANGED, ReasonCode.INPUT_ADDED, ReasonCode.INPUT_REMOVED)
_DECIDED = (ReasonCode.FIRST_BUILD, ReasonCode.INPUT_ADDED, ReasonCode.INPUT_REMOVED)
"""What an action's deciders explain: that it is there, and what it is made of."""


class Cause(NamedTuple):
    """One action on the way from a label to a root cause."""

    report: ActionReport
    own: tuple[Reason, ...]
    """Its reasons that no other action explains."""
    depth: int
    """How many actions are between it and the label that was asked about."""
    run: str
    """The build in which it ran."""


class Root(NamedTuple):
    """A root cause, and what followed from it."""

    reason: Reason
    labels: tuple[str, ...]
    """The actions that it reached first."""
    actions: int
    """How many actions ran because of it."""
    seconds: float
    """How long those took together."""


def ran(record: RunRecord) -> list[ActionReport]:
    """List what was executed, failures included."""
    return [report for report in record.actions if report.outcome in _RAN]


def last_run_of(records: Sequence[RunRecord], label: str | None) -> RunRecord | None:
    """Give the newest build that executed `label`, or anything at all for None."""
    for record in reversed(records):
        if any(label in (None, report.label) for report in ran(record)):
            return record
    return None


def last_move_of(records: Sequence[RunRecord], label: str | None) -> RunRecord | None:
    """Give the newest build in which `label`, or anything at all for None, was not up to date."""
    for record in reversed(records):
        if any(label in (None, report.label) and report.outcome in _MOVED for report in record.actions):
            return record
    return None


class Point(NamedTuple):
    """An action in one of the recorded builds."""

    build: int
    """The build's position among the records."""
    label: str


class Explained(NamedTuple):
    """An action's reasons, divided."""

    own: tuple[Reason, ...]
    above: tuple[Point, ...]
    """The actions that explain the others."""


class Story:
    """The causes of one recorded build; of what an earlier one had brought up to date, as that one tells them."""

    def __init__(self, records: Sequence[RunRecord], build: int = -1) -> None:
        self._records = records
        self._build = build % len(records)
        self.record = records[build]
        self._by_label: dict[int, Mapping[str, ActionReport]] = {}
        self._known: dict[Point, Explained] = {}
        self._reached: dict[Point, frozenset[Reason]] | None = None

    def chain(self, label: str) -> list[Cause]:
        """Walk from a label to its root causes: each action once, nearest first. Raises KeyError."""
        causes: list[Cause] = []
        start = Point(self._build, label)
        seen = {start}
        front = [(start, 0)]
        for point, depth in front:
            explained = self._explained(point)
            report = self._reports(point.build)[point.label]
            causes.append(Cause(report, explained.own, depth, self._records[point.build].run))
            fresh = [each for each in explained.above if each not in seen]
            seen.update(fresh)
            front += [(each, depth + 1) for each in fresh]
        return causes

    def roots(self, label: str | None = None) -> list[Root]:
        """List the root causes of a label, or of the whole build, the most expensive first. Raises KeyError.

        A change that reached several actions at once is one root cause. What an action cost counts for each of its
        causes.
        """
        reached = self._reach()
        here = {point: causes for point, causes in reached.items() if point.build == self._build}
        wanted = here[Point(self._build, label)] if label is not None else frozenset[Reason]().union(*here.values())
        first: dict[Reason, list[str]] = {reason: [] for reason in wanted}
        for point in reached:
            for reason in self._explained(point).own:
                if reason in first:
                    first[reason].append(point.label)
        reports = self._reports(self._build)
        caused: dict[Reason, list[float]] = {reason: [] for reason in wanted}
        for point, causes in here.items():
            if reports[point.label].outcome in _RAN:
                for reason in causes & wanted:
                    caused[reason].append(reports[point.label].seconds)
        roots = [
            Root(reason, tuple(sorted(set(first[reason]))), len(costs), round(sum(costs), 6))
            for reason, costs in caused.items()
        ]
        return sorted(roots, key=lambda root: (-root.seconds, -root.actions, str(root.reason)))

    def explained(self) -> Iterator[tuple[Point, ActionReport, Explained]]:
        """Give all chains at once: each action that was not up to date, and those of earlier builds that explain one.

        What explains an action comes before it.
        """
        for point in self._order():
            yield point, self._reports(point.build)[point.label], self._explained(point)

    def cutoffs(self) -> list[str]:
        """List the actions that were done again and came out as before: there the wave stopped."""
        reports = self._reports(self._build).values()
        return sorted(r.label for r in reports if r.output and r.output == r.former and r.key != r.previous)

    def _reports(self, build: int) -> Mapping[str, ActionReport]:
        """Give what was not up to date in a build, by label."""
        if build not in self._by_label:
            moved = (report for report in self._records[build].actions if report.outcome in _MOVED)
            self._by_label[build] = {report.label: report for report in moved}
        return self._by_label[build]

    # -- how reasons divide -------------------------------------------------------------------------------------------

    def _explained(self, point: Point) -> Explained:
        """Divide an action's reasons into its own and the actions that explain the others."""
        if point not in self._known:
            own: list[Reason] = []
            above: dict[Point, None] = {}
            report = self._reports(point.build)[point.label]
            for reason in report.reasons:
                explaining = list(self._explaining(point.build, report, reason))
                above |= dict.fromkeys(explaining)
                own += [] if explaining else [reason]
            self._known[point] = Explained(tuple(own), tuple(above))
        return self._known[point]

    def _explaining(self, build: int, report: ActionReport, reason: Reason) -> Iterator[Point]:
        """Name the actions that a reason follows from."""
        reports = self._reports(build)
        if reason.reason in _FROM_OUTPUTS and reason.subject != report.label:
            if reason.subject in reports:
                yield Point(build, reason.subject)
                return
            before = self._before(build, report, reason.subject)
            if before is not None and reason.reason is ReasonCode.UPSTREAM_CHANGED:
                yield before
                return
        if reason.reason in _DECIDED:
            yield from (Point(build, name) for name in report.deciders if name in reports)
        if reason.reason is ReasonCode.FIRST_BUILD:
            for name in report.upstream:
                there = reports.get(name)
                if there is not None and any(each.reason is ReasonCode.FIRST_BUILD for each in there.reasons):
                    yield Point(build, name)

    def _before(self, build: int, report: ActionReport, subject: str) -> Point | None:
        """Find the build that changed an input after this action had been looked at, where it was not this one."""
        for earlier in range(build - 1, -1, -1):
            reports = self._reports(earlier)
            if report.label in reports and reports[report.label].key == report.previous:
                return None
            if subject in reports:
                return Point(earlier, subject)
        return None

    # -- how far causes reach -----------------------------------------------------------------------------------------

    def _reach(self) -> Mapping[Point, frozenset[Reason]]:
        """Give each action the root causes that reached it."""
        if self._reached is None:
            self._reached = {}
            for point in self._order():
                explained = self._explained(point)
                above = (self._reached.get(each, frozenset()) for each in explained.above)
                self._reached[point] = frozenset(explained.own).union(*above)
        return self._reached

    def _order(self) -> Iterable[Point]:
        """List the actions of this build and those that explain them, these before those that they explain."""
        order: dict[Point, None] = {}
        opened: set[Point] = set()
        waiting = [Point(self._build, label) for label in self._reports(self._build)]
        while waiting:
            point = waiting[-1]
            fresh = [each for each in self._explained(point).above if each not in opened] if point not in opened else []
            opened.add(point)
            if fresh:
                waiting += fresh
            else:
                order[waiting.pop()] = None
        return order
