"""How an action's reasons divide: its own, which nothing else explains, and those that follow from other actions.

Pure functions of run records; what is told of causes, and what they cost, is `why`'s business. The hard part is time: a
change counts from when an action was last looked at (`ActionReport.since`), and what it needs may have changed in
several builds since, of which some were of other actions alone, and some failed.

* An input that another action made is explained by the builds that gave another output of that one.
* An action that is there because of an output (a lock selects a wheel) is explained by who made that output: that it
  is new, and which inputs come and go. Where that output is an old one, somebody has just begun to want it.
* A first build is explained by the first builds below it, for the same definition brought all of them.
* A list that goes on where a layer's below ends is explained by what changed below.
* What runs again because it failed runs for what it had run for then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

from strata_engine.events import Outcome
from strata_engine.records import Records
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

LOCAL = frozenset(
    {
        *(ReasonCode.FORCED, ReasonCode.OUTPUT_MISSING, ReasonCode.OUTPUT_TAMPERED),
        *(ReasonCode.CACHE_ENTRY_MISSING, ReasonCode.CACHE_ENTRY_CORRUPT, ReasonCode.CACHE_BLOB_LOST),
    }
)
"""What makes an action run and gives no other output: where another reason does, others run for that one."""

MOVED = (Outcome.EXECUTED, Outcome.FAILED, Outcome.CACHED, Outcome.REMOTE)
"""How what was not up to date may have ended, where it was tried at all."""

_UPSTREAM, _FIRST = ReasonCode.UPSTREAM_CHANGED, ReasonCode.FIRST_BUILD


class Point(NamedTuple):
    """An action in one of the recorded builds."""

    build: int
    """The build's position among the records."""
    label: str


At: TypeAlias = str | Point
"""Where an action is: its label where it is in the build that is told, for most are and labels are cheap."""

Deciders: TypeAlias = Callable[[], Mapping[str, Collection[str]]]
"""Gives, for each label, those whose outputs decide that it is there, as far as that was recorded."""


def label_of(at: At) -> str:
    """Give the label of an action."""
    return at if isinstance(at, str) else at.label


class Causes:
    """What explains the actions of one recorded build, and those of earlier ones that explain these."""

    def __init__(self, records: Sequence[RunRecord], build: int, deciders: Deciders) -> None:
        self._records = records
        self._build = build
        self._deciders = deciders
        self.reports = _by_label(records[build])
        """What was not up to date in this build, by label."""
        self._earlier: dict[int, Mapping[str, ActionReport]] = {}
        self._known: dict[At, tuple[tuple[Reason, ...], tuple[At, ...]]] = {}
        self._gaps: dict[tuple[str, int], Sequence[int]] = {}
        self._users: dict[int, Mapping[str, Sequence[ActionReport]]] = {}

    def explained(self, at: At) -> tuple[tuple[Reason, ...], tuple[At, ...]]:
        """Divide an action's reasons into its own and the actions that explain the others."""
        known = self._known.get(at)
        if known is None and isinstance(at, str) and at in self.straight:
            return (), self.straight[at]
        if known is None:
            build, label = self.point(at)
            report, reports = self.report(at), self._reports(build)
            # Most reasons of a large build are that what was made just before is another one than in the last build.
            direct = not self._between(report.since, build)
            new = _is_new(report)
            own: list[Reason] = []
            above: dict[At, None] = {}
            for reason in report.reasons:
                subject = reason.subject
                if direct and reason.reason is _UPSTREAM and subject in reports and subject != label:
                    above[self._at(build, subject)] = None
                    continue
                explaining = self._explaining(build, report, reason)
                above |= dict.fromkeys(explaining)
                # What was never built here is in no place here either.
                if not explaining and not (new and reason.reason is ReasonCode.OUTPUT_MISSING):
                    own.append(reason)
            known = self._known[at] = (tuple(own), tuple(above))
        return known

    @cached_property
    def straight(self) -> Mapping[str, tuple[str, ...]]:
        """Most of a large build, with the actions that explain it: what ran only for outputs made just before it.

        Or, of a first build, what is new as they are, and is there whatever they came to.
        """
        reports, found = self.reports, {}
        missed: dict[str, bool] = {}
        # All at once, and most of them first: a call for each of ten thousand would cost more than what is done in it.
        for label, report in reports.items():
            reasons, since = report.reasons, report.since
            if len(reasons) == 1 and reasons[0].reason is _FIRST:
                # Where an output decides that it is there, what that was says more.
                if not (report.deciders or self._decided_by.get(label)):
                    upstream = report.upstream
                    # Most need one action, or all that they need is new.
                    above = (
                        upstream if self._new.issuperset(upstream) else tuple(filter(self._new.__contains__, upstream))
                    )
                    if above:
                        found[label] = above
                continue
            if len(reasons) == 1:
                if reasons[0].reason is not _UPSTREAM or reasons[0].subject not in reports:
                    continue
                above = (reasons[0].subject,)
            else:
                above = tuple(each.subject for each in reasons if each.reason is _UPSTREAM and each.subject in reports)
                if not above or len(above) < len(reasons):
                    continue
            if since not in missed:
                missed[since] = bool(self._between(since, self._build))
            if not missed[since] and label not in above:
                found[label] = above
        return found

    @cached_property
    def _new(self) -> frozenset[str]:
        """What was looked at for the first time in this build."""
        return frozenset([label for label, report in self.reports.items() if _is_new(report)])

    def _explaining(self, build: int, report: ActionReport, reason: Reason) -> list[At]:
        """Name the actions that a reason follows from."""
        match reason.reason:
            case ReasonCode.UPSTREAM_CHANGED if reason.subject != report.label:
                return self._changed_since(build, report, reason.subject)
            case ReasonCode.INPUT_ADDED | ReasonCode.INPUT_REMOVED | ReasonCode.INPUT_CHANGED if "#" in reason.subject:
                return self._listed_below(build, report, reason)
            case ReasonCode.INPUT_ADDED | ReasonCode.INPUT_REMOVED:
                return self._changed_since(build, report, reason.subject) or self._decided_since(build, report)
            case ReasonCode.PREVIOUS_FAILED:
                return self._failed_then(build, report)
            case ReasonCode.CACHE_BLOB_LOST:
                return self._lost_below(build, report, reason)
            case ReasonCode.FIRST_BUILD:
                return self._new_with(build, report)
            case _:
                return []

    def _changed_since(self, build: int, report: ActionReport, label: str) -> list[At]:
        """List the builds that gave another output of `label` than the one that an action had last seen."""
        changed: list[At] = []
        seen: str | None = None
        now = ""
        for at in (*self._between(report.since, build), build):
            there = self._reports(at).get(label) if self._names(at, label) else None
            if there is None:
                continue
            if seen is None:
                seen = now = there.former
            if there.outcome is Outcome.FAILED:
                continue
            if there.output and there.output == seen:
                # What was changed and then taken back changed nothing.
                changed.clear()
            elif not there.output or there.output != now:
                # What a dry run would make is not known.
                changed.append(self._at(at, label))
            now = there.output
        return changed

    def _decided_since(self, build: int, report: ActionReport) -> list[At]:
        """List the builds that changed what an action is made of: deciders that it has now, of whichever build."""
        return [at for name in self._deciders_of(report) for at in self._changed_since(build, report, name)]

    def _new_with(self, build: int, report: ActionReport) -> list[At]:
        """Name what made an action new: what selected it, who wanted it, and what was new below it."""
        reports, mine = self._reports(build), self._deciders_of(report)
        found = self._wanted_by(build, report, mine) if mine else []
        if mine and not found:
            # What is there whatever is selected is new only together with what decides: else somebody has asked for it.
            found = [self._at(build, name) for name in mine if name in reports and _is_new(reports[name])]
            found = found or self._first_then(build, mine)
        for name in report.upstream:
            there = reports.get(name)
            # What one output decided on together is not new because of each other.
            if there is not None and _is_new(there) and mine.isdisjoint(self._deciders_of(there)):
                found.append(self._at(build, name))
        return found

    def _wanted_by(self, build: int, report: ActionReport, deciders: frozenset[str]) -> list[At]:
        """Name why something new is selected: who it is for is new as well, or made of other things than before."""
        users = self._users_in(build)
        seen, waiting = {report.label}, [report]
        found: dict[At, None] = {}
        for each in waiting:
            beside = [user for user in users.get(each.label, ()) if deciders & self._deciders_of(user)]
            for user in beside:
                if not _is_new(user):
                    found |= dict.fromkeys(self._decided_since(build, user))
                elif user.label not in seen:
                    seen.add(user.label)
                    waiting.append(user)
            if not beside and each is not report and each.outcome in MOVED:
                found[self._at(build, each.label)] = None
        return list(found)

    @cached_property
    def _decided_by(self) -> Mapping[str, Collection[str]]:
        return self._deciders()

    def _deciders_of(self, report: ActionReport) -> frozenset[str]:
        return frozenset((*report.deciders, *self._decided_by.get(report.label, ())))

    def _first_then(self, build: int, deciders: frozenset[str]) -> list[At]:
        """Name the first builds in earlier records of what decides on a new action: a lock alone, and then the rest."""
        known = self._decided_by
        decided = {label for label, names in known.items() if not deciders.isdisjoint(names)}
        for at in range(build - 1, -1, -1):
            reports = self._reports(at)
            new = [name for name in deciders if name in reports and _is_new(reports[name])]
            # Where something that it decides was built since, this is new for another reason: it was not asked for.
            if not decided.isdisjoint(reports):
                return []
            if new:
                return [self._at(at, name) for name in new]
        return []

    def _listed_below(self, build: int, report: ActionReport, reason: Reason) -> list[At]:
        """Name the actions below that have the same for an input now: a list that goes on where another one ends."""
        reports = self._reports(build)
        field = reason.subject.rpartition(".")[2]
        found: dict[At, None] = {}
        for name in report.upstream:
            for each in reports[name].reasons if name in reports else ():
                same = (each.reason, each.old, each.new) == (reason.reason, reason.old, reason.new)
                if same and each.subject != reason.subject and each.subject.rpartition(".")[2] == field:
                    found[self._at(build, name)] = None
        return list(found)

    def _lost_below(self, build: int, report: ActionReport, reason: Reason) -> list[At]:
        """Name the actions below whose outputs have lost the same blob: it is theirs."""
        reports = self._reports(build)
        below = [name for name in report.upstream if name in reports]
        return [
            self._at(build, name)
            for name in below
            if any(
                (each.reason, each.old) == (reason.reason, reason.old) and each.old for each in reports[name].reasons
            )
        ]

    def _failed_then(self, build: int, report: ActionReport) -> list[At]:
        """Find the build that failed."""
        at = self._position(report.since, build)
        return [self._at(at, report.label)] if at is not None and report.label in self._reports(at) else []

    # -- where actions are --------------------------------------------------------------------------------------------

    def report(self, at: At) -> ActionReport:
        """Say how an action ended."""
        return self.reports[at] if isinstance(at, str) else self._reports(at.build)[at.label]

    def point(self, at: At) -> Point:
        """Say in which build an action is."""
        return at if isinstance(at, Point) else Point(self._build, at)

    def _at(self, build: int, label: str) -> At:
        return label if build == self._build else Point(build, label)

    def _reports(self, build: int) -> Mapping[str, ActionReport]:
        """Give what was not up to date in a build, by label."""
        if build == self._build:
            return self.reports
        if build not in self._earlier:
            self._earlier[build] = _by_label(self._records[build])
        return self._earlier[build]

    def _users_in(self, build: int) -> Mapping[str, Sequence[ActionReport]]:
        """Give for each action of a build those that read its output, or would have."""
        found = self._users.get(build)
        if found is None:
            users: dict[str, list[ActionReport]] = {}
            for report in self._records[build].actions:
                for name in report.upstream:
                    users.setdefault(name, []).append(report)
            found = self._users[build] = users
        return found

    def _names(self, build: int, label: str) -> bool:
        """Tell whether a build can have had an action of this label that was not up to date."""
        known = self._records
        return build == self._build or not isinstance(known, Records) or known.names(build, label)

    def _position(self, run: str, before: int) -> int | None:
        """Find the build of this name before another one."""
        known = self._records
        builds: Iterable[int] = range(before - 1, -1, -1) if run else ()
        return next(
            (at for at in builds if (known.run(at) if isinstance(known, Records) else known[at].run) == run), None
        )

    def _between(self, run: str, build: int) -> Sequence[int]:
        """List the builds between the one of this name and another one in which anything was to be done."""
        found = self._gaps.get((run, build))
        if found is None:
            known = self._records
            start = self._position(run, build)
            # What was never looked at has missed nothing.
            later = range(0 if start is None else start + 1, build) if run else range(0)
            idle = [known.idle(at) if isinstance(known, Records) else not known[at].actions for at in later]
            found = self._gaps[run, build] = [at for at, nothing in zip(later, idle, strict=True) if not nothing]
        return found


def _is_new(report: ActionReport) -> bool:
    """Tell whether an action was looked at for the first time; one that was skipped has no reasons, but a past."""
    reasons = report.reasons
    if not reasons:
        return not report.previous
    return reasons[0].reason is _FIRST or any(reason.reason is _FIRST for reason in reasons)


def _by_label(record: RunRecord) -> Mapping[str, ActionReport]:
    return {report.label: report for report in record.actions if report.outcome in MOVED}
