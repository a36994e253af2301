"""What real builds look like: on a terminal, interrupted there, and to GitHub Actions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from space import Space
from terminals import Terminal, on_a_terminal

from strata_engine.words import ESCAPE_SEQUENCE

LONG = ("--force", "python/capture")
"""What takes long enough to be drawn."""


@contextmanager
def building(space: Space, *arguments: str, columns: int = 80, **environ: str) -> Iterator[Terminal]:
    command = [*space.command(), "build", *arguments]
    with on_a_terminal(command, space.variables(environ), columns=columns, cwd=space.root) as terminal:
        yield terminal


def test_a_build_is_drawn_while_it_runs_and_leaves_its_lines(built: Space) -> None:
    with building(built, *LONG) as it:
        at = it.wait_for(r"\d+/\d+ actions · \d+ hits · 1 running · ")
        it.wait_for(r"\d\.\d s\S*  python/capture", at)
        assert it.end() == 0
    shown = it.shown()
    assert re.fullmatch(r"\[\d+/\d+\] executed python/capture in \d+\.\d s \(\S+ MB\)  forced", shown[0]), shown
    assert re.fullmatch(r"\d+ actions: \d+ up to date, 1 executed in \d+\.\d s", shown[-1])
    assert not any(" running " in line for line in shown)
    # Nothing is hidden, nothing set: there is nothing that a killed process could leave behind.
    assert "\x1b[?" not in it.drawn


def test_an_interrupted_build_leaves_a_terminal_that_can_be_used(built: Space) -> None:
    with building(built, *LONG) as it:
        it.wait_for("python/capture")
        it.type(b"\x03")
        assert it.end() == 130
    shown = it.shown()
    assert shown[-2] == "interrupted"
    assert re.search(r"^\d+ actions: .*skipped in \d+\.\d s$", shown[-1])
    assert not any(" running " in line for line in shown)
    assert built.ok("build").stderr.endswith(" s\n")


def test_a_terminal_of_twenty_columns(built: Space) -> None:
    with building(built, *LONG, columns=20, NO_COLOR="1") as it:
        it.wait_for("python/capture")
        assert it.end() == 0
    live = [line for part in it.drawn.split("\r")[1:-1] for line in ESCAPE_SEQUENCE.sub("", part).split("\n")]
    assert live
    assert all(len(line) < 20 for line in live if not line.startswith("["))
    assert "\x1b[0m" not in it.drawn


def test_a_dumb_terminal_and_a_quiet_build_get_lines(built: Space) -> None:
    for arguments, environ in ((LONG, {"TERM": "dumb"}), ((*LONG, "-q"), {}), ((*LONG, "--console", "none"), {})):
        with building(built, *arguments, **environ) as it:
            assert it.end() == 0
        assert "\x1b" not in it.drawn
        assert "\r" not in it.drawn
        assert ("executed python/capture" in it.drawn) is ("TERM" in environ)


def test_a_reason_stands_beside_each_action_that_ran(space: Space) -> None:
    shutil.rmtree(space.store)
    first = space.ok("build", "--force", "app-hello/link").stderr
    beside = dict(re.findall(r"executed (\S+) in \S+ s(?: \(\S+ \S+\))?  (.+)", first))
    assert len(beside) == first.count("] executed ") > 10, first
    assert (beside.pop("app-hello/link"), set(beside.values())) == ("forced, +1", {"first-build"})
    space.replace("venvstacks.toml", 'name = "world"', 'name = "globe"')
    assert re.search(r"executed app-globe/link in .*  first-build$", space.ok("build").stderr, re.MULTILINE)


def test_what_is_forced_in_vain_is_said(built: Space) -> None:
    said = built.ok("build", "--force", "app-hello", "--force", "*/lnik").stderr
    assert "executed app-hello/link" in said
    assert "warning[unmatched-pattern]: no action of this build matches `--force */lnik`\n" in said


def test_github_gets_places_from_the_checkout_and_no_command_of_others(built: Space) -> None:
    job = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(built.root.parent)}
    folder = built.root.name
    built.replace("venvstacks.toml", '["gamma"]', '["gamma", "nothing-of-the-kind"]')
    failed = built.strata("build", env=job)
    assert failed.code == 2
    line = built.read("venvstacks.toml").splitlines().index('requirements = ["gamma", "nothing-of-the-kind"]') + 1
    assert f"::error title=no-solution,file={folder}/venvstacks.toml,line={line},col=" in failed.stderr
    built.replace("venvstacks.toml", '"nothing-of-the-kind"', '"beta"')
    built.replace("venvstacks.toml", '"hello.py"', '"##[error]::error::x.py"')
    hostile = built.strata("build", env=job)
    assert hostile.code == 2
    assert "::error::x.py" in hostile.stderr
    assert "##[" not in hostile.stderr
    commands = [line for line in hostile.stderr.splitlines() if line.lstrip().startswith("::")]
    assert len(commands) == 1
    assert commands[0].startswith("::error title=")
