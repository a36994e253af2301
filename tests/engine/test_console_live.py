"""The live console on a terminal of its own: what a person sees, whatever happens to the terminal or the process."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminals import Screen, Terminal, on_a_terminal

from strata_engine.console.choose import open_console
from strata_engine.console.live import BURST, LiveConsole
from strata_engine.console.plain import PlainConsole
from strata_engine.console.terminal import Paint, Sink
from strata_engine.console.transcript import Detail
from strata_engine.events import ActionFinished, ActionStarted, BuildFinished, BuildStarted, Event, Outcome
from strata_engine.words import ESCAPE_SEQUENCE, cells

SCRIPT = """
import os, sys
from strata_engine.console.choose import open_console
from strata_engine.console.transcript import Detail
from strata_engine.events import *

LABEL = "fetch/numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
with open_console(sys.stderr, os.environ, console="auto", color="auto", detail=Detail()) as hear:
    hear(BuildStarted(run="1", total=2))
    hear(ActionStarted(label=LABEL, mnemonic="Fetch", pool="network", slot=0, reasons=()))
    hear(ActionProgress(label=LABEL, done=0, total=48_100_000))
    for line in sys.stdin:
        if line == "raise\\n":
            raise SystemExit(7)
        if line == "lasting\\n":
            hear(Warned(Diagnostic("note", "something", severity="warning")))
        if line == "end\\n":
            break
    hear(ActionFinished(label=LABEL, mnemonic="Fetch", outcome=Outcome.EXECUTED, seconds=1.3))
    hear(BuildFinished(seconds=1.3, counts={"executed": 1}))
"""

TIMER = r"(\d+\.\d) s\S*  fetch/numpy"


@contextmanager
def drawing(columns: int = 80, rows: int = 24, **environ: str) -> Iterator[Terminal]:
    """Run SCRIPT, which a line that is typed makes go on."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "COLUMNS")
    }
    command = ["sh", "-c", 'stty -echo; exec "$0" "$@"', sys.executable, "-c", SCRIPT]
    with on_a_terminal(command, {**kept, "PYTHONUTF8": "1", **environ}, columns=columns, rows=rows) as terminal:
        yield terminal


def test_a_silent_action_ticks_and_the_terminal_is_given_back() -> None:
    with drawing() as it:
        at = it.wait_for(TIMER)
        for _ in range(3):
            at = it.wait_for(TIMER, at)
        assert len(set(re.findall(TIMER, it.drawn))) >= 3, it.drawn
        # Nothing is hidden or set, so nothing has to be given back, however the process ends.
        assert "\x1b[?" not in it.drawn
        assert it.shown()[0].startswith("0/2 actions · 1 running · ")
        it.type(b"end\n")
        assert it.end() == 0
        assert it.shown() == [
            "[1/2] executed fetch/numpy-2.4.6-cp311-cp311-manylin…ux_2_28_x86_64.whl in 1.3 s",
            "1 action: 1 executed in 1.3 s",
        ]


@pytest.mark.parametrize("way", ["raise", "interrupt"])
def test_only_what_lasts_is_left_on_any_way_out(way: str) -> None:
    with drawing() as it:
        it.type(b"lasting\n")
        it.wait_for("warning.*something")
        it.wait_for(TIMER)
        if way == "raise":
            it.type(b"raise\n")
        else:
            it.type(b"\x03")
        assert it.end() == (7 if way == "raise" else -signal.SIGINT)
        shown = it.shown(200)
        assert shown[0] == "warning[note]: something"
        assert not any("running" in line for line in shown)


def test_a_terminal_may_become_narrow_and_wide_again() -> None:
    with drawing() as it:
        it.wait_for(TIMER)
        for columns, first in ((20, r"0/2 · \d+\.\d s"), (100, "0/2 actions · 1 running")):
            start = len(it.drawn)
            it.resize(columns)
            at = it.wait_for(first, start)
            it.wait_for("\n", it.wait_for("fetch/", at))
            for line in ESCAPE_SEQUENCE.sub("", it.drawn[start:]).split("\n")[-8:]:
                assert cells(line.rpartition("\r")[2]) < max(columns, 80)
        narrow = Screen(20)
        narrow.write(it.drawn[:start])
        assert all(len(line) < 20 for line in narrow.lines[-2:])
        it.type(b"end\n")
        assert it.end() == 0


def test_no_more_rows_than_there_are() -> None:
    with drawing(rows=2) as it:
        it.wait_for(r"0/2 actions · 1 running · \d")
        it.type(b"end\n")
        assert it.end() == 0
        assert "  fetch/" not in it.drawn


def test_a_stopped_process_goes_on_below_what_others_wrote() -> None:
    with drawing() as it:
        it.wait_for(TIMER)
        os.kill(it.process.pid, signal.SIGSTOP)
        os.waitpid(it.process.pid, os.WUNTRACED)
        it.settle()
        # Long enough to be noticed.
        time.sleep(0.3)
        written = len(it.drawn)
        os.kill(it.process.pid, signal.SIGCONT)
        it.wait_for(TIMER, written)
        # Not a row up: that would be where the shell's words are by now.
        assert ESCAPE_SEQUENCE.sub("", it.drawn[written:]).startswith("0/2 actions")
        assert not it.drawn[written:].startswith("\r")
        it.type(b"end\n")
        assert it.end() == 0


def test_colour_is_left_out_where_it_is_not_wanted() -> None:
    for environ, painted in (({"NO_COLOR": "1"}, False), ({}, True)):
        with drawing(**environ) as it:
            it.wait_for(r"fetch/numpy.*\n")
            it.type(b"end\n")
            assert it.end() == 0
            assert painted is bool(re.search(r"\x1b\[[0-9;]*m", it.drawn))
            assert "\x1b[2A" in it.drawn, "it is redrawn all the same"


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"CI": "true"}])
def test_where_nobody_redraws_there_are_lines_alone(environ: dict[str, str]) -> None:
    with drawing(**environ) as it:
        it.type(b"end\n")
        assert it.end() == 0
        plain = ESCAPE_SEQUENCE.sub("", it.drawn).splitlines()
        assert plain[-1] == "1 action: 1 executed in 1.3 s"
        assert len(plain) == 2
        assert "\r" not in it.drawn.replace("\r\n", "\n")


def test_in_the_background_nothing_is_drawn_over_what_others_write() -> None:
    ours, theirs = os.openpty()
    try:
        # Not the controlling terminal of this process: it is not for us to say who is in front.
        stream = os.fdopen(os.dup(theirs), "w")
        console = LiveConsole(Sink(stream), Detail(), Paint(), now=0.0)
        console._in_front = lambda: False  # type: ignore[method-assign]  # there is no shell here that could say so
        console.hear(BuildStarted(run="1", total=2), 0.0)
        console.hear(finished(1), 0.1)
        console.tick(0.2)
        console.tick(0.4)
        console.close()
        stream.close()
        assert os.read(ours, 65536) == b"[1/2] executed w/1 in 0.1 s\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture(autouse=True)
def _capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing about where the tests run decide."""
    for name in ("COLUMNS", "LINES", "XTERM_VERSION", "STY"):
        monkeypatch.delenv(name, raising=False)


def live(stream: io.StringIO, detail: Detail = Detail()) -> LiveConsole:  # noqa: B008 - a frozen value
    return LiveConsole(Sink(stream), detail, Paint(), now=0.0)


def finished(number: int) -> Event:
    return ActionFinished(label=f"w/{number}", mnemonic="Wheel", outcome=Outcome.EXECUTED, seconds=0.1)


def test_redraws_are_few_however_many_events() -> None:
    stream = io.StringIO()
    console = live(stream)
    console.hear(BuildStarted(run="1", total=50), 0.0)
    console.tick(0.0)
    before = stream.getvalue()
    for number in range(50):
        console.hear(finished(number), 0.001)
        console.tick(0.001)
    assert before == stream.getvalue()
    console.tick(0.06)
    assert "w/49 in 0.1 s" in stream.getvalue()
    console.close()


def test_ten_thousand_actions_are_counted_rather_than_listed() -> None:
    stream = io.StringIO()
    console = live(stream)
    console.hear(BuildStarted(run="1", total=10_000), 0.0)
    failed = ActionFinished(label="w/bad", mnemonic="Wheel", outcome=Outcome.FAILED, seconds=0.1)
    for number in range(10_000):
        console.hear(failed if number == 7000 else finished(number), number / 4000)
        if number % 400 == 0:
            console.tick(number / 4000)
    console.hear(BuildFinished(seconds=2.5, counts={"executed": 9999, "failed": 1}), 2.5)
    console.close()
    screen = Screen()
    screen.write(stream.getvalue())
    assert len(screen.lines) < BURST + 100
    counted = sum(int(found) for found in re.findall(r"… and (\d+) more executed", "\n".join(screen.lines)))
    said = sum(" executed w/" in line for line in screen.lines)
    assert counted + said == 9999
    # What matters is never among those.
    assert "[ 7001/10000] failed w/bad in 0.1 s" in screen.lines
    assert screen.lines[-1] == "10000 actions: 9999 executed, 1 failed in 2.5 s"


def test_who_asks_for_all_gets_all() -> None:
    for detail in (Detail(verbose=True), Detail(explain=True)):
        stream = io.StringIO()
        console = live(stream, detail)
        for number in range(3 * BURST):
            console.hear(finished(number), 0.0)
        console.close()
        assert stream.getvalue().count(" executed w/") == 3 * BURST


def test_a_quick_build_never_touches_the_cursor() -> None:
    stream = io.StringIO()
    console = live(stream)
    console.hear(BuildFinished(seconds=0.01, counts={"up_to_date": 3}), 0.01)
    console.close()
    console.close()
    console.tick(1.0)
    assert stream.getvalue() == "3 actions: 3 up to date in 0.0 s\n"


def test_hostile_output_does_not_reach_the_terminal() -> None:
    stream = io.StringIO()
    console = live(stream)
    console.hear(ActionStarted(label="a/\x1b]0;owned\x07lock[bold]", mnemonic="L", pool="cpu", slot=0, reasons=()), 0.0)
    console.tick(0.1)
    console.close()
    assert "a/lock[bold]" in stream.getvalue()
    assert "owned" not in stream.getvalue()


def test_a_pipe_gets_lines_and_a_closed_stream_gets_nothing(tmp_path: Path) -> None:
    for wish in ("auto", "plain", "live", "none"):
        with open_console(None, {}, console=wish, color="always", detail=Detail()) as hear:
            hear(BuildFinished(seconds=0.0, counts={}))
    with (
        (tmp_path / "log").open("w") as stream,
        open_console(stream, {"TERM": "xterm"}, console="auto", color="auto", detail=Detail()) as hear,
    ):
        assert isinstance(hear.console, PlainConsole)
        hear(BuildFinished(seconds=0.0, counts={}))
    assert "0 actions: " in (tmp_path / "log").read_text()
