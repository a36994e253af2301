from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from strata_engine.console.choose import open_console
from strata_engine.console.live import LiveConsole
from strata_engine.console.plain import PlainConsole
from strata_engine.console.terminal import Paint, Sink
from strata_engine.console.transcript import Detail
from strata_engine.events import ActionFinished, ActionStarted, BuildFinished, BuildStarted, Outcome

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"

SCRIPT = """
import sys, time, os
from strata_engine.console.choose import open_console
from strata_engine.console.transcript import Detail
from strata_engine.events import *

with open_console(sys.stderr, os.environ, console="auto", color="auto", detail=Detail()) as hear:
    hear(BuildStarted(run="1", total=2))
    hear(ActionStarted(label="a/lock", mnemonic="Lock", pool="cpu", slot=0, reasons=()))
    time.sleep(1.3)
    if sys.argv[1] == "raise":
        raise SystemExit(7)
    hear(ActionFinished(label="a/lock", mnemonic="Lock", outcome=Outcome.EXECUTED, seconds=1.3))
    hear(BuildFinished(seconds=1.3, counts={"executed": 1}))
print("data")
"""


def on_a_terminal(argument: str) -> tuple[str, str, int]:
    """Run SCRIPT with a terminal as its standard error; give what it drew, its standard output and exit code."""
    ours, theirs = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "GITHUB_ACTIONS")}
    environ |= {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, argument], stdout=subprocess.PIPE, stderr=theirs, env=environ
    )
    os.close(theirs)
    drawn = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                drawn.extend(chunk)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=60)
    reader.join()
    os.close(ours)
    return drawn.decode(), out.decode(), process.returncode


def test_a_silent_action_ticks_and_the_terminal_is_given_back() -> None:
    drawn, out, code = on_a_terminal("end")
    assert (code, out) == (0, "data\n")
    timers = set(re.findall(r"(\d+\.\d) s  a/lock", drawn))
    assert len(timers) >= 3, drawn
    assert drawn.rindex(HIDE) < drawn.rindex(SHOW)
    after = drawn[drawn.rindex("[1/2]") :]
    assert "a/lock in 1.3 s" in after
    assert "1 action: 1 executed in 1.3 s" in after


def test_the_terminal_is_given_back_on_any_way_out() -> None:
    drawn, out, code = on_a_terminal("raise")
    assert (code, out) == (7, "")
    assert drawn.rindex(HIDE) < drawn.rindex(SHOW)


@pytest.fixture(autouse=True)
def _capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rich draw, wherever the tests run."""
    monkeypatch.setenv("TERM", "xterm")


def live(stream: io.StringIO) -> LiveConsole:
    return LiveConsole(Sink(stream), Detail(), Paint(), now=0.0)


def test_redraws_are_few_however_many_events() -> None:
    stream = io.StringIO()
    console = live(stream)
    console.hear(BuildStarted(run="1", total=1000), 0.0)
    console.tick(0.0)
    before = stream.getvalue()
    for n in range(1000):
        console.hear(ActionFinished(label=f"w/{n}", mnemonic="Wheel", outcome=Outcome.EXECUTED, seconds=0.1), 0.001)
        console.tick(0.001)
    assert before == stream.getvalue()
    console.tick(0.06)
    assert "w/999 in 0.1 s" in stream.getvalue()
    console.close()


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
