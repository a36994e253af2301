"""Why actions ran, read from run records after the fact: the causes behind a label, and the roots of a whole build.

Pure functions of records. Nothing is recorded for this but what every build records: an action's reasons, which come
from comparing keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

_RAN = (Outcome.EXECUTED, Outcome.FAILED)


class Cause(NamedTuple):
    """One action on the way from a label to a cause, with the reasons that are its own."""

    report: ActionReport
    own: tuple[Reason, ...]
    depth: int
    """How many actions are between it and the label that was asked about."""


class Root(NamedTuple):
    """A cause that no other action of the build explains, and what followed from it."""

    report: ActionReport
    reasons: tuple[Reason, ...]
    actions: int
    """How many actions ran because of it, itself included."""
    seconds: float


def ran(record: RunRecord) -> list[ActionReport]:
    """List what was executed, failures included."""
    return [report for report in record.actions if report.outcome in _RAN]


def last_run_of(records: Sequence[RunRecord], label: str | None) -> RunRecord | None:
    """Give the newest build that executed `label`, or anything at all for None."""
    for record in reversed(records):
        if any(label in (None, report.label) for report in ran(record)):
            return record
    return None


def chain(record: RunRecord, label: str) -> list[Cause]:
    """Walk from a label to its causes: each action that ran, once, nearest first."""
    reports = {report.label: report for report in ran(record)}
    causes: list[Cause] = []
    seen = {label}
    front = [(label, 0)]
    while front:
        name, depth = front.pop(0)
        report = reports[name]
        above = [upstream for upstream in _upstreams(report) if upstream in reports]
        causes.append(Cause(report, tuple(r for r in report.reasons if r.subject not in above), depth))
        fresh = [upstream for upstream in dict.fromkeys(above) if upstream not in seen]
        seen.update(fresh)
        front += [(upstream, depth + 1) for upstream in fresh]
    return causes


def roots(record: RunRecord) -> list[Root]:
    """List the causes of a build, the most expensive first; an action with several causes counts for each."""
    reports = {report.label: report for report in ran(record)}
    caused: dict[str, set[str]] = {}
    for label in reports:
        for cause in chain(record, label):
            if cause.own:
                caused.setdefault(cause.report.label, set()).add(label)
    found = [
        Root(
            reports[label],
            tuple(r for r in reports[label].reasons if r.subject not in reports or r.subject == label),
            len(labels),
            sum(reports[name].seconds for name in labels),
        )
        for label, labels in caused.items()
    ]
    return sorted(found, key=lambda root: (-root.seconds, root.report.label))


def _upstreams(report: ActionReport) -> list[str]:
    """List the labels whose change is among an action's reasons."""
    codes = (ReasonCode.UPSTREAM_CHANGED, ReasonCode.INPUT_ADDED)
    return [reason.subject for reason in report.reasons if reason.reason in codes]
