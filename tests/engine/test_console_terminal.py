from __future__ import annotations

import contextlib
import io
import os

import pytest

from strata_engine.console.terminal import Kind, Paint, Sink, console_kind, show_diagnostics, wants_color
from strata_engine.errors import Diagnostic, Place
from strata_engine.words import ESCAPE_SEQUENCE


@pytest.mark.parametrize(
    ("wish", "environ", "tty", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": "", "FORCE_COLOR": "1"}, False, True),
        ("auto", {"FORCE_COLOR": "0"}, False, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_color(wish: str, environ: dict[str, str], tty: bool, expected: bool) -> None:
    assert expected is wants_color(wish, environ, tty=tty)


@pytest.mark.parametrize(
    ("wish", "environ", "tty", "expected"),
    [
        ("auto", {"TERM": "xterm"}, True, Kind.LIVE),
        ("auto", {"TERM": "xterm"}, False, Kind.PLAIN),
        ("auto", {"TERM": "dumb"}, True, Kind.PLAIN),
        ("auto", {"CI": "true"}, True, Kind.PLAIN),
        ("auto", {"CI": "false"}, True, Kind.LIVE),
        ("live", {"CI": "true"}, True, Kind.LIVE),
        ("plain", {}, True, Kind.PLAIN),
        ("none", {}, True, Kind.NONE),
    ],
)
def test_console(wish: str, environ: dict[str, str], tty: bool, expected: Kind) -> None:
    assert expected is console_kind(wish, environ, tty=tty)


def test_a_console_that_cannot_say_it_says_it_otherwise() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Sink(stream).lines(["numpy 2.1 → 2.2 …", "名"])
    assert raw.getvalue() == b"numpy 2.1 -> 2.2 ...\n\\u540d\n"


def test_nobody_reads_any_more() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", encoding="utf-8")
    sink = Sink(stream)
    for _ in range(3):
        sink.lines(["x" * 10_000])
    assert sink.dead
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    closed = io.StringIO()
    closed.close()
    for gone in (closed, None):
        quiet = Sink(gone)
        quiet.lines(["x"])
        quiet.flush()
        assert not quiet.isatty()


def test_diagnostics_for_a_person_and_for_github() -> None:
    stream = io.StringIO()
    bad = Diagnostic("bad", "no `x`\x1b[2J", Place("a.toml", 3, 5, 2, "q =\txy"), hint="use `y`")
    show_diagnostics([bad], stream, color="auto", environ={"GITHUB_ACTIONS": "true"})
    assert stream.getvalue() == (
        "error[bad]: no `x`\n"
        "  --> a.toml:3:5\n"
        "   |\n"
        " 3 | q = xy\n"
        "   |     ^^\n"
        "hint: use `y`\n"
        "::error title=bad,file=a.toml,line=3,col=5,endColumn=7::no `x`%0Ause `y`\n"
    )


def test_colour_adds_nothing_but_colour() -> None:
    bad = Diagnostic("bad", "no `x`", Place("a.toml", 3, 5, 2, "q = xy"), notes=("n",), hint="use `y`")
    painted = "\n".join(Paint(on=True).diagnostic(bad))
    assert "\x1b[1;31merror[bad]\x1b[0m: " in painted
    assert ESCAPE_SEQUENCE.sub("", painted) == "\n".join(Paint().diagnostic(bad))
