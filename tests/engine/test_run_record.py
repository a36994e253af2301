from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest

from strata_engine import run_record
from strata_engine.events import Outcome
from strata_engine.run_record import KEPT, ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode

REPORT = ActionReport(
    label="app/link",
    mnemonic="Link",
    key="k/1",
    outcome=Outcome.EXECUTED,
    reasons=(Reason(ReasonCode.INPUT_CHANGED, "src/app.py", "1", "2"), Reason(ReasonCode.FORCED, "app/link")),
    seconds=0.25,
    bytes=7,
)


def record(run: str, *actions: ActionReport) -> RunRecord:
    return RunRecord(
        run=run, started="2026-11-22T08:00:00Z", seconds=1.0, command=("build", "é"), exit_code=0,
        counts={"executed": len(actions)}, actions=actions,
    )  # fmt: skip


def test_records_come_back_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert run_record.read(path) == []
    for number in range(3):
        run_record.append(path, record(str(number), REPORT))
    assert run_record.read(path) == [record(str(number), REPORT) for number in range(3)]
    first = msgspec.json.decode(path.read_bytes().splitlines()[0])
    assert first["actions"][0]["reasons"][0] == {
        "reason": "input-changed", "subject": "src/app.py", "old": "1", "new": "2",
    }  # fmt: skip


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for number in range(KEPT + 3):
        run_record.append(path, record(str(number)))
    assert [each.run for each in run_record.read(path)] == [str(number) for number in range(3, KEPT + 3)]


def test_large_builds_take_only_so_much_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "KEPT_BYTES", 20_000)
    path = tmp_path / "runs.jsonl"
    for number in range(60):
        run_record.append(path, record(str(number), *[REPORT] * 5))
        assert path.stat().st_size <= 20_000
    runs = [int(each.run) for each in run_record.read(path)]
    assert runs[-1] == 59
    assert len(runs) > 5
    assert all(second == first + 1 for first, second in itertools.pairwise(runs))
    run_record.append(path, record("huge", *[REPORT] * 500))
    assert [each.run for each in run_record.read(path)] == ["huge"]


def test_a_line_that_was_cut_off_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for name in ("one", "two"):
        run_record.append(path, record(name))
    path.write_bytes(path.read_bytes()[:-20])
    assert [each.run for each in run_record.read(path)] == ["one"]
    run_record.append(path, record("three"))
    assert [each.run for each in run_record.read(path)] == ["one", "three"]


def test_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b'{"run": 1}\nnull\n\xff\xfe\n\n[1]\n')
    run_record.append(path, record("one"))
    assert [each.run for each in run_record.read(path)] == ["one"]
