"""Why actions ran, read from run records after the fact: the way from labels to their causes, and what each cost.

Pure functions of records. Nothing is recorded for this but what every build records: an action's reasons, which come
from comparing keys, and through which other actions a change reached it. The hard part is telling a cause from its
consequences: a reason is a *root cause* where no other action of the build explains it.

* An input that another action made is explained by that action.
* An action that is there because of an output (a lock selects a wheel) is explained by who made that output: that it
  is new, and which inputs come and go.
* A first build is explained by the first builds below it, for the same definition brought all of them.
* What another action of an earlier build had brought about is explained by that build's record.

How far causes reach is kept as a number per action whose bits are the causes: in a first build of ten thousand actions
thousands of causes reach most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from strata_engine.events import Outcome
from strata_engine.records import Records
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

_RAN = (Outcome.EXECUTED, Outcome.FAILED)
_MOVED = (*_RAN, Outcome.CACHED, Outcome.REMOTE)

_UPSTREAM = ReasonCode.UPSTREAM_CHANGED
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


class Group(NamedTuple):
    """Root causes that are told as one: all the same, or many of one kind."""

    reasons: tuple[Reason, ...]
    first: tuple[Cause, ...]
    """The actions that they reached first."""
    actions: int
    """How many actions ran because of any of them."""
    seconds: float


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


_At: TypeAlias = str | Point
"""Where an action is: its label where it is in the build that is told, for most are and labels are cheap."""


class _Reach(NamedTuple):
    """How far the causes of a build reach."""

    reasons: tuple[Reason, ...]
    """All root causes; what is reached by the one at n has bit n."""
    bits: Mapping[Reason, int]
    masks: Mapping[_At, int]
    """By action, those that explain others first."""


Deciders: TypeAlias = Callable[[], Mapping[str, Collection[str]]]
"""Gives, for each label, those whose outputs decide that it is there, as far as that was recorded."""


def ran(record: RunRecord) -> list[ActionReport]:
    """List what was executed, failures included."""
    return [report for report in record.actions if report.outcome in _RAN]


def moved(record: RunRecord) -> list[ActionReport]:
    """List what was executed or taken from a cache, failures included."""
    return [report for report in record.actions if report.outcome in _MOVED]


def last_run_of(records: Sequence[RunRecord], label: str | None) -> RunRecord | None:
    """Give the newest build that executed `label`, or anything at all for None."""
    for record in reversed(records):
        if any(label in (None, report.label) for report in ran(record)):
            return record
    return None


def last_move_of(records: Sequence[RunRecord], label: str | None) -> RunRecord | None:
    """Give the newest build in which `label`, or anything at all for None, was not up to date."""
    for record in reversed(records):
        if any(label in (None, report.label) for report in moved(record)):
            return record
    return None


def _unknown() -> Mapping[str, Collection[str]]:
    return {}


class Story:
    """The causes of one recorded build; of what an earlier one had brought up to date, as that one tells them."""

    def __init__(self, records: Sequence[RunRecord], build: int = -1, deciders: Deciders = _unknown) -> None:
        self._records = records
        self._build = build % len(records)
        self._deciders = deciders
        self.record = records[build]
        self.reports = _by_label(self.record)
        """What was not up to date in this build, by label."""
        self._earlier: dict[int, Mapping[str, ActionReport]] = {}
        self._known: dict[_At, tuple[tuple[Reason, ...], tuple[_At, ...]]] = {}
        self._moves: dict[str, list[int]] = {}
        self._reached: _Reach | None = None

    def chain(self, *labels: str) -> list[Cause]:
        """Walk from labels to their root causes: each action once, nearest first. Raises KeyError."""
        return [self._cause(at, depth) for at, (depth, _) in self._walk(labels).items()]

    def way(self, labels: Iterable[str], reason: Reason) -> list[Cause]:
        """Give the shortest way on which a root cause reached one of the labels, the cause's action first."""
        walked = self._walk(labels)
        at = next((at for at in walked if reason in self._explained(at)[0]), None)
        way: list[Cause] = []
        while at is not None:
            way.append(self._cause(at, walked[at][0]))
            at = walked[at][1]
        return way

    def roots(self, *labels: str) -> list[Root]:
        """List the root causes of labels, of the whole build for none, the most expensive first. Raises KeyError.

        A change that reached several actions at once is one root cause. What an action cost counts for each of its
        causes.
        """
        reach = self._reach()
        wanted = self._mask(labels)
        costs: dict[int, tuple[int, float]] = {}
        for mask, (actions, seconds) in self._costs(wanted).items():
            for bit in _bits(mask):
                before = costs.get(bit, (0, 0.0))
                costs[bit] = (before[0] + actions, before[1] + seconds)
        first = self._first(wanted)
        roots = [
            Root(reach.reasons[bit], tuple(sorted({_label(at) for at in first[bit]})), actions, round(seconds, 6))
            for bit in _bits(wanted)
            for actions, seconds in (costs.get(bit, (0, 0.0)),)
        ]
        return sorted(roots, key=lambda root: (-root.seconds, -root.actions, str(root.reason)))

    def groups(self, *labels: str, most: int = 3) -> list[Group]:
        """List the root causes as a person is told them: more than `most` of one kind together. Raises KeyError."""
        reach = self._reach()
        wanted = self._mask(labels)
        first = self._first(wanted)
        by_kind: dict[ReasonCode, list[int]] = {}
        for bit in _bits(wanted):
            by_kind.setdefault(reach.reasons[bit].reason, []).append(bit)
        costs = self._costs(wanted)
        groups = []
        for bits in by_kind.values():
            for together in [bits] if len(bits) > most else [[bit] for bit in bits]:
                mask = sum(1 << bit for bit in together)
                reached = [cost for each, cost in costs.items() if each & mask]
                places = dict.fromkeys(at for bit in together for at in first[bit])
                groups.append(
                    Group(
                        tuple(reach.reasons[bit] for bit in together),
                        tuple(self._cause(at, 0) for at in sorted(places, key=_label)),
                        sum(actions for actions, _ in reached),
                        round(sum(seconds for _, seconds in reached), 6),
                    )
                )
        return sorted(groups, key=lambda group: (-group.seconds, -group.actions, str(group.reasons[0])))

    def tops(self, labels: Collection[str]) -> list[str]:
        """List those labels that explain no other of them: where all of them lead to."""
        below: set[_At] = set()
        waiting = [above for label in labels for above in self._explained(label)[1]]
        while waiting:
            at = waiting.pop()
            if at not in below:
                below.add(at)
                waiting += self._explained(at)[1]
        return sorted(label for label in labels if label not in below)

    def explained(self) -> Iterator[tuple[Point, ActionReport, Explained]]:
        """Give all chains at once: each action that was not up to date, and those of earlier builds that explain one.

        What explains an action comes before it.
        """
        for at in self._reach().masks:
            own, above = self._explained(at)
            yield self._point(at), self._report(at), Explained(own, tuple(map(self._point, above)))

    def cutoffs(self, *labels: str) -> list[str]:
        """List the actions that were done again and came out as before: there the wave stopped.

        With labels, only those that the causes of these labels had reached.
        """
        same = [r.label for r in self.reports.values() if r.output and r.output == r.former and r.key != r.previous]
        if labels:
            masks, wanted = self._reach().masks, self._mask(labels)
            same = [label for label in same if masks[label] & wanted]
        return sorted(same)

    # -- how reasons divide -------------------------------------------------------------------------------------------

    def _explained(self, at: _At) -> tuple[tuple[Reason, ...], tuple[_At, ...]]:
        """Divide an action's reasons into its own and the actions that explain the others."""
        known = self._known.get(at)
        if known is None:
            build, label = self._point(at)
            report, reports = self._report(at), self._reports(build)
            here = build == self._build
            own: list[Reason] = []
            above: dict[_At, None] = {}
            for reason in report.reasons:
                subject = reason.subject
                # Most reasons of a large build are of this kind.
                if reason.reason is _UPSTREAM and subject in reports and subject != label:
                    above[subject if here else Point(build, subject)] = None
                    continue
                explaining = self._explaining(build, report, reason)
                above |= dict.fromkeys(explaining)
                if not explaining:
                    own.append(reason)
            known = self._known[at] = (tuple(own), tuple(above))
        return known

    def _explaining(self, build: int, report: ActionReport, reason: Reason) -> list[_At]:
        """Name the actions that a reason follows from."""
        reports = self._reports(build)
        code, subject = reason.reason, reason.subject
        found: list[_At] = []
        if code in _FROM_OUTPUTS and subject != report.label:
            if subject in reports:
                return [self._at(build, subject)]
            before = self._before(build, report, subject) if code is _UPSTREAM else None
            if before is not None:
                return [before]
        if code in _DECIDED:
            found += [self._at(build, name) for name in report.deciders if name in reports]
            found = found or list(self._decided_before(build, report))
        if code is ReasonCode.FIRST_BUILD:
            for name in report.upstream:
                there = reports.get(name)
                if there is not None and any(each.reason is ReasonCode.FIRST_BUILD for each in there.reasons):
                    found.append(self._at(build, name))
        return found

    def _before(self, build: int, report: ActionReport, subject: str) -> Point | None:
        """Find the build that changed an input after this action had been looked at, where it was not this one."""
        last = next((at for at in reversed(self._moved_in(subject)) if at < build), None)
        if last is None:
            return None
        for at in reversed(self._moved_in(report.label)):
            if last <= at < build and self._reports(at)[report.label].key == report.previous:
                return None
        return Point(last, subject)

    def _decided_before(self, build: int, report: ActionReport) -> Iterator[Point]:
        """Find the earlier builds whose outputs first show in this one: a lock alone, and then what it selects."""
        deciders = self._deciders()
        for name in deciders.get(report.label, ()) if not report.deciders else ():
            before = self._before(build, report, name)
            if before is None:
                continue
            decided = [label for label, names in deciders.items() if name in names]
            between = [self._reports(at) for at in range(before.build, build)]
            # Where something that it decides was built since, this is new for another reason: it was not asked for.
            if not any(label in reports for reports in between for label in decided):
                yield before

    def _moved_in(self, label: str) -> Sequence[int]:
        """List the builds up to this one in which an action was not up to date."""
        found = self._moves.get(label)
        if found is None:
            known = self._records
            builds = [at for at in range(self._build + 1) if not isinstance(known, Records) or known.names(at, label)]
            found = self._moves[label] = [at for at in builds if label in self._reports(at)]
        return found

    # -- where actions are --------------------------------------------------------------------------------------------

    def _reports(self, build: int) -> Mapping[str, ActionReport]:
        """Give what was not up to date in a build, by label."""
        if build == self._build:
            return self.reports
        if build not in self._earlier:
            self._earlier[build] = _by_label(self._records[build])
        return self._earlier[build]

    def _point(self, at: _At) -> Point:
        return at if isinstance(at, Point) else Point(self._build, at)

    def _at(self, build: int, label: str) -> _At:
        return label if build == self._build else Point(build, label)

    def _report(self, at: _At) -> ActionReport:
        return self.reports[at] if isinstance(at, str) else self._reports(at.build)[at.label]

    def _cause(self, at: _At, depth: int) -> Cause:
        return Cause(self._report(at), self._explained(at)[0], depth, self._records[self._point(at).build].run)

    def _walk(self, labels: Iterable[str]) -> dict[_At, tuple[int, _At | None]]:
        """Walk down from labels, nearest first: each action with its depth and where it was come from."""
        walked: dict[_At, tuple[int, _At | None]] = dict.fromkeys(labels, (0, None))
        front = list(walked)
        for at in front:
            depth = walked[at][0] + 1
            for each in self._explained(at)[1]:
                if each not in walked:
                    walked[each] = (depth, at)
                    front.append(each)
        return walked

    # -- how far causes reach -----------------------------------------------------------------------------------------

    def _reach(self) -> _Reach:
        """Give each action the root causes that reached it."""
        if self._reached is None:
            bits: dict[Reason, int] = {}
            masks: dict[_At, int] = {}
            opened: set[_At] = set()
            waiting: list[_At] = list(self.reports)
            while waiting:
                at = waiting[-1]
                own, above = self._explained(at)
                if at not in opened:
                    opened.add(at)
                    fresh = [each for each in above if each not in opened]
                    if fresh:
                        waiting += fresh
                        continue
                waiting.pop()
                if at not in masks:
                    mask = 0
                    for reason in own:
                        mask |= 1 << bits.setdefault(reason, len(bits))
                    for each in above:
                        mask |= masks.get(each, 0)
                    masks[at] = mask
            self._reached = _Reach(tuple(bits), bits, masks)
        return self._reached

    def _mask(self, labels: Collection[str]) -> int:
        """Give the causes of labels, or of all of the build. Raises KeyError."""
        masks, mask = self._reach().masks, 0
        for label in labels or self.reports:
            mask |= masks[label]
        return mask

    def _first(self, wanted: int) -> Mapping[int, list[_At]]:
        """Give the actions that each of the wanted causes reached first."""
        reach = self._reach()
        first: dict[int, list[_At]] = {}
        for at, mask in reach.masks.items():
            if mask & wanted:
                for reason in self._explained(at)[0]:
                    first.setdefault(reach.bits[reason], []).append(at)
        return first

    def _costs(self, wanted: int) -> Mapping[int, tuple[int, float]]:
        """Add up what ran in this build, by those of the wanted causes that reached it."""
        costs: dict[int, tuple[int, float]] = {}
        masks = self._reach().masks
        for label, report in self.reports.items():
            mask = masks[label] & wanted
            if mask and report.outcome in _RAN:
                actions, seconds = costs.get(mask, (0, 0.0))
                costs[mask] = (actions + 1, seconds + report.seconds)
        return costs


def _by_label(record: RunRecord) -> Mapping[str, ActionReport]:
    return {report.label: report for report in moved(record)}


def _label(at: _At) -> str:
    return at if isinstance(at, str) else at.label


def _bits(mask: int) -> Iterator[int]:
    """List the positions of the bits that are set."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
