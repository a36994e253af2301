"""Why actions ran, read from run records after the fact: the way from labels to their causes, and what each cost.

Pure functions of records. Nothing is recorded for this but what every build records: an action's reasons, which come
from comparing keys, and through which other actions a change reached it. A reason is a *root cause* where no other
action explains it, which is for `causes` to say.

How far causes reach is kept as a number per action whose bits are the causes: in a first build of ten thousand actions
thousands of causes reach most of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from strata_engine.causes import LOCAL, MOVED, At, Causes, Deciders, Point, label_of
from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

_RAN = (Outcome.EXECUTED, Outcome.FAILED)


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


class Explained(NamedTuple):
    """An action's reasons, divided."""

    own: tuple[Reason, ...]
    above: tuple[Point, ...]
    """The actions that explain the others."""


class _Reach(NamedTuple):
    """How far the causes of a build reach."""

    reasons: tuple[Reason, ...]
    """All root causes; what is reached by the one at n has bit n."""
    bits: Mapping[Reason, int]
    masks: Mapping[At, int]
    """By action, those that explain others first."""
    owners: Mapping[At, tuple[Reason, ...]]
    """The actions that have causes of their own."""


def ran(record: RunRecord) -> list[ActionReport]:
    """List what was executed, failures included."""
    return [report for report in record.actions if report.outcome in _RAN]


def moved(record: RunRecord) -> list[ActionReport]:
    """List what was executed or taken from a cache, failures included."""
    return [report for report in record.actions if report.outcome in MOVED]


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
        self._causes = Causes(records, self._build, deciders)
        self.record = records[build]
        self._reached: _Reach | None = None

    @property
    def reports(self) -> Mapping[str, ActionReport]:
        """What was not up to date in this build, by label."""
        return self._causes.reports

    def chain(self, *labels: str) -> list[Cause]:
        """Walk from labels to their root causes: each action once, nearest first. Raises KeyError."""
        return [self._cause(at, depth) for at, (depth, _) in self._walk(labels).items()]

    def way(self, labels: Iterable[str], reason: Reason) -> list[Cause]:
        """Give the shortest way on which a root cause reached one of the labels, the cause's action first."""
        walked = self._walk(labels)
        at = next((at for at in walked if reason in self._causes.explained(at)[0]), None)
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
            Root(reach.reasons[bit], tuple(sorted({label_of(at) for at in first[bit]})), actions, round(seconds, 6))
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
                        tuple(sorted((reach.reasons[bit] for bit in together), key=str)),
                        tuple(self._cause(at, 0) for at in sorted(places, key=label_of)),
                        sum(actions for actions, _ in reached),
                        round(sum(seconds for _, seconds in reached), 6),
                    )
                )
        return sorted(groups, key=lambda group: (-group.seconds, -group.actions, str(group.reasons[0])))

    def tops(self, labels: Collection[str]) -> list[str]:
        """List those labels that explain no other of them: where all of them lead to."""
        below: set[At] = set()
        waiting = [above for label in labels for above in self._causes.explained(label)[1]]
        while waiting:
            at = waiting.pop()
            if at not in below:
                below.add(at)
                waiting += self._causes.explained(at)[1]
        return sorted(label for label in labels if label not in below)

    def explained(self) -> Iterator[tuple[Point, ActionReport, Explained]]:
        """Give all chains at once: each action that was not up to date, and those of earlier builds that explain one.

        What explains an action comes before it.
        """
        for at in self._reach().masks:
            own, above = self._causes.explained(at)
            yield self._causes.point(at), self._causes.report(at), Explained(own, tuple(map(self._causes.point, above)))

    def reached(self, *labels: str) -> set[str]:
        """List the actions of this build that the causes of labels reached, or all for none."""
        if not labels:
            return set(self.reports)
        masks, wanted = self._reach().masks, self._mask(labels)
        return {label for label in self.reports if masks[label] & wanted}

    def cutoffs(self, *labels: str) -> list[str]:
        """List the actions that were done again and came out as before: there the wave stopped.

        With labels, only those that the causes of these labels had reached.
        """
        reached = self.reached(*labels)
        same = (r.label for r in self.reports.values() if r.output and r.output == r.former and r.key != r.previous)
        return sorted(label for label in same if label in reached)

    # -- the way down -------------------------------------------------------------------------------------------------

    def _cause(self, at: At, depth: int) -> Cause:
        causes = self._causes
        run = self._records[causes.point(at).build].run
        return Cause(causes.report(at), causes.explained(at)[0], depth, run)

    def _walk(self, labels: Iterable[str]) -> dict[At, tuple[int, At | None]]:
        """Walk down from labels, nearest first: each action with its depth and where it was come from."""
        walked: dict[At, tuple[int, At | None]] = dict.fromkeys(labels, (0, None))
        front = list(walked)
        for at in front:
            depth = walked[at][0] + 1
            for each in self._causes.explained(at)[1]:
                if each not in walked:
                    walked[each] = (depth, at)
                    front.append(each)
        return walked

    # -- how far causes reach -----------------------------------------------------------------------------------------

    def _reach(self) -> _Reach:
        """Give each action the root causes that reached it; what only makes one run again goes no further than that."""
        if self._reached is None:
            bits: dict[Reason, int] = {}
            masks: dict[At, int] = {}
            passed: dict[At, int] = {}
            owners: dict[At, tuple[Reason, ...]] = {}
            local = 0
            explained, straight = self._causes.explained, self._causes.straight
            opened: set[At] = set()
            for label in self.reports:
                if label in opened:
                    continue
                opened.add(label)
                if label in straight and len(straight[label]) == 1 and straight[label][0] in passed:
                    masks[label] = passed[label] = passed[straight[label][0]]
                    continue
                # No recursion: ways may be long. An action is looked at again after each that explains it.
                waiting: list[At] = [label]
                while waiting:
                    at = waiting[-1]
                    own, above = ((), straight[at]) if isinstance(at, str) and at in straight else explained(at)
                    mask = 0
                    for each in above:
                        if each in passed:
                            mask |= passed[each]
                        elif each not in opened:
                            opened.add(each)
                            waiting.append(each)
                            break
                    else:
                        waiting.pop()
                        if own:
                            owners[at] = own
                        for reason in own:
                            bit = 1 << bits.setdefault(reason, len(bits))
                            mask |= bit
                            local |= bit if reason.reason in LOCAL else 0
                        masks[at] = mask
                        passed[at] = mask & ~local or mask
            self._reached = _Reach(tuple(bits), bits, masks, owners)
        return self._reached

    def _mask(self, labels: Collection[str]) -> int:
        """Give the causes of labels, or of all of the build. Raises KeyError."""
        masks, mask = self._reach().masks, 0
        for label in labels or self.reports:
            mask |= masks[label]
        return mask

    def _first(self, wanted: int) -> Mapping[int, list[At]]:
        """Give the actions that each of the wanted causes reached first."""
        reach = self._reach()
        first: dict[int, list[At]] = {}
        for at, own in reach.owners.items():
            if reach.masks[at] & wanted:
                for reason in own:
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


def _bits(mask: int) -> Iterator[int]:
    """List the positions of the bits that are set."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
