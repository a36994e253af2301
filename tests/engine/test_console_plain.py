from __future__ import annotations

import io

import msgspec
import pytest

from strata_engine.console.plain import PlainConsole
from strata_engine.console.state import BuildView, fold
from strata_engine.console.terminal import Sink
from strata_engine.console.transcript import Detail, Transcript
from strata_engine.errors import Diagnostic
from strata_engine.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    BuildFinished,
    BuildStarted,
    Event,
    Outcome,
    Waiting,
    Warned,
)
from strata_engine.staleness import Reason, ReasonCode

PIN = Reason(ReasonCode.INPUT_CHANGED, "pylock.toml#numpy", "2.1.0", "2.2.0")
DIGEST = Reason(ReasonCode.INPUT_CHANGED, "src/report.py", "a" * 64, "b" * 64)
CONFLICT = Diagnostic("file-conflict", "`a` and `b` both have `x.py`", severity="warning")


def finished(label: str, outcome: Outcome, **more: object) -> ActionFinished:
    return ActionFinished(label=label, mnemonic="Link", outcome=outcome, seconds=0.4, **more)  # type: ignore[arg-type]  # keeps the tables short


BUILD: list[Event] = [
    Waiting(what="the workspace", holder="process 4711 (strata build)"),
    BuildStarted(run="1", total=11),
    finished("a/lock", Outcome.UP_TO_DATE),
    finished("b/lock", Outcome.CACHED, diagnostics=(CONFLICT,)),
    Warned(diagnostic=CONFLICT),
    finished("fetch/numpy.whl", Outcome.EXECUTED, bytes=16_600_000, reasons=(PIN,)),
    finished("app-x/link", Outcome.EXECUTED, reasons=(DIGEST, Reason(ReasonCode.FORCED))),
    BuildFinished(seconds=1.24, counts={"up_to_date": 1, "cached": 1, "executed": 2}),
]


def transcript(events: list[Event], detail: Detail) -> list[str]:
    stream = io.StringIO()
    console = PlainConsole(Sink(stream), detail)
    for event in events:
        console.hear(event, 1.0)
    console.close()
    return stream.getvalue().splitlines()


def test_only_what_ran_is_listed() -> None:
    assert transcript(BUILD, Detail()) == [
        "waiting for the workspace, held by process 4711 (strata build)",
        "warning[file-conflict]: `a` and `b` both have `x.py`",
        "[ 3/11] executed fetch/numpy.whl in 0.4 s (16.6 MB)  input-changed pylock.toml#numpy",
        "[ 4/11] executed app-x/link in 0.4 s  input-changed src/report.py, +1",
        "4 actions: 1 up to date, 1 cached, 2 executed in 1.2 s",
    ]


def test_explain_puts_old_and_new_beside_each_executed_action() -> None:
    assert transcript(BUILD, Detail(explain=True))[2:-1] == [
        "[ 3/11] executed fetch/numpy.whl in 0.4 s (16.6 MB)",
        "    input-changed pylock.toml#numpy: 2.1.0 → 2.2.0",
        "[ 4/11] executed app-x/link in 0.4 s",
        "    input-changed src/report.py: aaaaaaaaaaaa → bbbbbbbbbbbb",
        "    forced",
    ]


def test_a_dry_run_says_what_would_run() -> None:
    assert transcript(BUILD, Detail(dry_run=True, explain=True))[2:] == [
        "[ 3/11] would run fetch/numpy.whl (16.6 MB)",
        "    input-changed pylock.toml#numpy: 2.1.0 → 2.2.0",
        "[ 4/11] would run app-x/link",
        "    input-changed src/report.py: aaaaaaaaaaaa → bbbbbbbbbbbb",
        "    forced",
        "4 actions: 1 up to date, 1 cached, 2 would run in 1.2 s",
    ]


def test_the_last_line_stays_last() -> None:
    late = Diagnostic("state-not-writable", "history was not kept", severity="warning")
    bad = Diagnostic("disk-full", "no room at `_build`")
    stream = io.StringIO()
    console = PlainConsole(Sink(stream), Detail())
    for event in (*BUILD[-1:], Warned(diagnostic=late)):
        console.hear(event, 1.0)
    console.tell([bad, late])
    console.close()
    assert stream.getvalue().splitlines() == [
        "warning[state-not-writable]: history was not kept",
        "error[disk-full]: no room at `_build`",
        "4 actions: 1 up to date, 1 cached, 2 executed in 1.2 s",
    ]


def test_verbose_lists_all_and_quiet_nothing() -> None:
    assert transcript(BUILD, Detail(verbose=True))[1:3] == ["[ 1/11] up to date a/lock", "[ 2/11] cached b/lock"]
    assert transcript(BUILD, Detail(quiet=True)) == []


def test_a_reason_about_the_action_itself_does_not_name_it_twice() -> None:
    first = Reason(ReasonCode.FIRST_BUILD, "a/lock")
    events = [BuildStarted(run="1", total=1), finished("a/lock", Outcome.EXECUTED, reasons=(first, PIN))]
    assert transcript(events, Detail(explain=True))[1:3] == [
        "    first-build",
        "    input-changed pylock.toml#numpy: 2.1.0 → 2.2.0",
    ]


def failing(**more: object) -> list[Event]:
    output = "\n".join(f"line {n}" for n in range(1, 26)) + "\n::error::owned\n\x1b[2Jlast\n"
    bad = Diagnostic("exit-code", "`app-x/link` ended with exit code 1")
    return [
        BuildStarted(run="1", total=3),
        finished("app-x/link", Outcome.FAILED, output=output, diagnostics=(bad,), reasons=(PIN,)),
        finished("app-y/link", Outcome.FAILED, output=output),
        finished("app-x/archive", Outcome.SKIPPED, because="app-x/link"),
        BuildFinished(seconds=1.0, counts={"failed": 2, "skipped": 1}, interrupted=True),
    ]


def test_the_first_failure_is_shown_with_its_output() -> None:
    first = [
        "error[exit-code]: `app-x/link` ended with exit code 1",
        "  | … 7 lines before these",
        *(f"  | line {n}" for n in range(8, 26)),
        "  | ::error::owned",
        "  | last",
        "note: `app-x/link` ran because of input-changed pylock.toml#numpy: 2.1.0 → 2.2.0",
    ]
    second = [
        "error[action-failed]: `app-y/link` failed",
        "hint: `strata build app-y/link` tries it again",
        "  | … 22 lines before these",
        "  | line 23",
        "  | line 24",
        "  | line 25",
        "  | ::error::owned",
        "  | last",
    ]
    assert [
        "[1/3] failed app-x/link in 0.4 s",
        *first,
        "[2/3] failed app-y/link in 0.4 s",
        *second,
        "interrupted",
        "3 actions: 2 failed, 1 skipped in 1.0 s",
    ] == transcript(failing(), Detail())
    # Nothing may hide why a build failed.
    assert first + second == transcript(failing(), Detail(quiet=True))
    assert "[3/3] skipped app-x/archive because of app-x/link" in transcript(failing(), Detail(verbose=True))


def test_github_gets_annotations_and_all_output_folded() -> None:
    lines = transcript(failing(), Detail(github=True))
    assert [line for line in lines if line.lstrip().startswith("::")] == [
        "::error title=exit-code::`app-x/link` ended with exit code 1",
        "::group::all that app-x/link printed",
        "::endgroup::",
        "::error title=action-failed::`app-y/link` failed%0A`strata build app-y/link` tries it again",
        "::group::all that app-y/link printed",
        "::endgroup::",
    ]
    first, end = lines.index("::group::all that app-x/link printed"), lines.index("::endgroup::")
    assert lines[first + 1 : end] == [f"  | line {n}" for n in range(1, 26)] + ["  | ::error::owned", "  | last"]


def test_github_reads_no_command_that_is_not_ours() -> None:
    hostile = "##[error]owned"
    told = Diagnostic("x", hostile, notes=(hostile,))
    events = [
        Waiting(what="the workspace", holder=hostile),
        BuildStarted(run="1", total=2),
        finished(hostile, Outcome.EXECUTED, reasons=(Reason(ReasonCode.INPUT_CHANGED, hostile),)),
        finished(hostile, Outcome.FAILED, diagnostics=(told,), output=f"{hostile}\n" * 30),
        Warned(told),
    ]
    lines = transcript(events, Detail(github=True))
    assert sum("owned" in line for line in lines) > 50
    assert not any("##[" in line for line in lines)


def test_every_executed_action_has_its_reason_beside_it() -> None:
    events = [
        BuildStarted(run="1", total=2),
        finished("a/lock", Outcome.EXECUTED, reasons=(Reason(ReasonCode.FIRST_BUILD, "a/lock"),)),
        finished("b/lock", Outcome.EXECUTED, reasons=(Reason(ReasonCode.FORCED),)),
    ]
    assert transcript(events, Detail()) == [
        "[1/2] executed a/lock in 0.4 s  first-build",
        "[2/2] executed b/lock in 0.4 s  forced",
    ]


def test_a_long_build_says_what_it_waited_for() -> None:
    path = (("python/capture", 6.0), ("python/link", 2.1), ("app-x/link", 0.3))
    done = BuildFinished(seconds=9.0, counts={"executed": 7}, critical=path)
    assert transcript([done], Detail()) == [
        "critical path 8.4 s, slowest in it: python/capture, 6.0 s",
        "7 actions: 7 executed in 9.0 s",
    ]
    for less in (msgspec.structs.replace(done, seconds=4.9), msgspec.structs.replace(done, critical=path[:1])):
        assert len(transcript([less], Detail())) == 1
    assert len(transcript([done], Detail(dry_run=True))) == 1


WHEEL = "fetch/contourpy-1.3.3-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"


@pytest.mark.parametrize(
    ("label", "subject", "width", "line"),
    [
        ("app-x/link", "src/report.py", 80, "[1/1] executed app-x/link in 0.4 s  input-changed src/report.py"),
        ("app-x/link", "src/report.py", 60, "[1/1] executed app-x/link in 0.4 s  input-changed src/repor…"),
        ("app-x/link", "src/report.py", 40, "[1/1] executed app-x/link in 0.4 s"),
        (WHEEL, "a.py", 80, "[1/1] executed fetch/contourpy-1.3.3-cp…_x86_64.whl in 0.4 s  input-changed a.py"),
        (WHEEL, "s" * 60, 80, "[1/1] executed fetch/contourpy-1.3.3-cp…_x86_64.whl in 0.4 s  input-changed sss…"),
        (WHEEL, "s" * 60, 60, "[1/1] executed fetch/contourpy-1.3.3-cp…_x86_64.whl in 0.4 s"),
        (WHEEL, "s" * 60, 20, "[1/1] executed fetch/cont…4.whl in 0.4 s"),
    ],
)
def test_a_line_fits_the_terminal_as_long_as_it_says_something(label: str, subject: str, width: int, line: str) -> None:
    event = finished(label, Outcome.EXECUTED, reasons=(Reason(ReasonCode.INPUT_CHANGED, subject, "a", "b"),))
    view = fold(BuildView(0.0), event, 1.0)
    assert Transcript(Detail()).lines(event, view, width=width) == [line]
    # Where nobody knows the width, labels are whole.
    [whole] = Transcript(Detail()).lines(event, view)
    assert label in whole


def test_a_silent_action_is_mentioned_every_thirty_seconds() -> None:
    stream = io.StringIO()
    console = PlainConsole(Sink(stream), Detail())
    for label, now in (("a/lock", 0.0), ("fetch/numpy.whl", 10.0)):
        console.hear(ActionStarted(label=label, mnemonic="Lock", pool="cpu", slot=0, reasons=()), now)
    console.hear(ActionProgress(label="fetch/numpy.whl", done=12_300_000, total=48_100_000), 11.0)
    for now in (29.0, 31.0, 35.0, 41.0, 62.0):
        console.tick(now)
    console.hear(finished("a/lock", Outcome.EXECUTED), 63.0)
    console.tick(125.0)
    assert stream.getvalue().splitlines() == [
        "still running: a/lock (31.0 s)",
        "still running: fetch/numpy.whl (31.0 s, 12.3/48.1 MB)",
        "still running: a/lock (1 min 02 s)",
        "[1/1] executed a/lock in 0.4 s",
        "still running: fetch/numpy.whl (1 min 55 s, 12.3/48.1 MB)",
    ]
