"""What records give cause to doubt."""

from __future__ import annotations

from typing import Any

from strata_engine.doubts import Diverged, Made, Unheeded, diverged, unheeded
from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

EDIT = Reason(ReasonCode.INPUT_CHANGED, "notes.txt", "1", "2")
OTHER = Reason(ReasonCode.PARAMETER_CHANGED, "stack.toml#x", "1", "2")


def report(label: str, key: str, output: str, *reasons: Reason, **more: Any) -> ActionReport:
    fields = {"outcome": Outcome.EXECUTED, "previous": "k0", "former": "o0"} | more
    return ActionReport(label=label, mnemonic="M", key=key, output=output, reasons=reasons, **fields)


def record(run: str, *reports: ActionReport) -> RunRecord:
    return RunRecord(run=run, started="", seconds=1.0, command=(), exit_code=0, counts={}, actions=reports)


def test_one_key_with_two_outputs_whoever_made_them() -> None:
    records = [
        record("r1", report("a", "k1", "o1"), report("b", "k2", "o2")),
        record("r2", report("c", "k1", "o9"), report("b", "k2", "o2")),
        record("r3", report("a", "k1", "o1"), report("b", "k3", "", outcome=Outcome.FAILED)),
        record("r4", report("d", "k4", "new", previous="k4", former="old")),
    ]
    assert diverged(records) == [
        Diverged("k1", "M", (Made("o1", "a", "r1"), Made("o9", "c", "r2"))),
        Diverged("k4", "M", (Made("new", "d", "r4"), Made("old", "d", ""))),
    ]
    assert diverged(records[:1]) == []


def test_inputs_that_changed_often_and_never_mattered() -> None:
    def same(*reasons: Reason) -> ActionReport:
        return report("a", "k1", "o0", *reasons)

    assert unheeded([record("1", same(EDIT))]) == [], "once is nothing"
    assert unheeded([record("1", same(EDIT)), record("2", same(EDIT, OTHER))]) == [Unheeded("a", "notes.txt", 2)]
    mattered = record("3", report("a", "k2", "o5", EDIT))
    assert unheeded([record("1", same(EDIT)), record("2", same(EDIT)), mattered]) == []
    forced = Reason(ReasonCode.FORCED, "a")
    again = report("a", "k0", "o0", forced)
    assert unheeded([record("1", again), record("2", again)]) == [], "its key was the same"
