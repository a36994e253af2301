"""Records that are decoded when they are looked at."""

from __future__ import annotations

from pathlib import Path

from strata_engine.events import Outcome
from strata_engine.records import Records
from strata_engine.run_record import ActionReport, RunRecord, append


def record(run: str, *labels: str) -> RunRecord:
    reports = tuple(
        ActionReport(label=label, mnemonic="M", key="", outcome=Outcome.EXECUTED, because="other") for label in labels
    )
    return RunRecord(run=run, started="", seconds=1.0, command=("build",), exit_code=0, counts={}, actions=reports)


def test_records_are_what_was_appended_and_say_what_they_name_undecoded(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    written = [record("one", "a/lock", 'odd"\\label'), record("two"), record("three", "b/link", "ü/link")]
    for each in written:
        append(path, each)
    found = Records.read(path)
    assert list(found) == written
    assert found[-1] == written[2]
    assert found[1:] == written[1:]
    assert [found.run(at) for at in range(3)] == ["one", "two", "three"]
    assert [found.idle(at) for at in range(3)] == [False, True, False]
    assert found.labels(0) == ["a/lock", 'odd"\\label']
    assert [found.names(at, "ü/link") for at in range(3)] == [False, False, True]
    assert not found.names(0, "lock"), "a part of a label is none"
    assert not found.names(0, "other"), "what is in another field is no label"
    report = found.report(0, 'odd"\\label')
    assert report == written[0].actions[1]


def test_what_a_crash_cut_off_names_no_build(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    append(path, record("whole", "a/lock"))
    with path.open("ab") as stream:
        stream.write(b'{"run":"torn","actions":[{"label":"a/lo\n\n{"started"')
    append(path, record("after", "a/lock"))
    found = Records.read(path)
    assert [each.run for each in found] == ["whole", "", "after"]
    assert found.report(1, "a/lock") is None
    assert len(Records.read(tmp_path / "none")) == 0
