"""Causes and roots, from records alone."""

from __future__ import annotations

from strata_engine import why
from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

EDIT = Reason(ReasonCode.INPUT_CHANGED, "app.py", "aa", "bb")
PIN = Reason(ReasonCode.PARAMETER_CHANGED, "requirements", "a", "b")


def upstream(label: str) -> Reason:
    return Reason(ReasonCode.UPSTREAM_CHANGED, label, "1", "2")


def report(label: str, *reasons: Reason, seconds: float = 1.0, outcome: Outcome = Outcome.EXECUTED) -> ActionReport:
    return ActionReport(label=label, mnemonic="M", key="", outcome=outcome, reasons=reasons, seconds=seconds)


def record(*reports: ActionReport, run: str = "r") -> RunRecord:
    return RunRecord(run=run, started="", seconds=1.0, command=(), exit_code=0, counts={}, actions=reports)


BUILD = record(
    report("lock", PIN, seconds=4.0),
    report("install", upstream("lock"), seconds=2.0),
    report("link", upstream("install"), EDIT, seconds=1.0),
    report("archive", upstream("link"), seconds=8.0),
    report("other", outcome=Outcome.UP_TO_DATE),
)


def test_a_chain_leads_to_every_cause_nearest_first() -> None:
    found = why.chain(BUILD, "archive")
    assert [(c.report.label, c.depth, c.own) for c in found] == [
        ("archive", 0, ()),
        ("link", 1, (EDIT,)),
        ("install", 2, ()),
        ("lock", 3, (PIN,)),
    ]


def test_roots_say_what_each_cause_cost() -> None:
    found = why.roots(BUILD)
    assert [(r.report.label, r.reasons, r.actions, r.seconds) for r in found] == [
        ("lock", (PIN,), 4, 15.0),
        ("link", (EDIT,), 2, 9.0),
    ]


def test_an_upstream_that_did_not_run_in_this_build_is_a_cause_of_its_own() -> None:
    [root] = why.roots(record(report("link", upstream("install"))))
    assert root.reasons == (upstream("install"),)


def test_the_last_run_of_a_label_is_found_behind_builds_that_did_not_run_it() -> None:
    older, newer = record(report("a", EDIT), run="1"), record(report("b", EDIT), run="2")
    quiet = record(report("a", outcome=Outcome.UP_TO_DATE), run="3")
    records = [older, newer, quiet]
    assert why.last_run_of(records, "a") == older
    assert why.last_run_of(records, None) == newer
    assert why.last_run_of(records, "c") is None
