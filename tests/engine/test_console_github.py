"""What GitHub Actions reads: our commands, and nobody else's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.console.github import annotation, defused, group
from strata_engine.console.terminal import Paint, diagnostic_lines
from strata_engine.errors import Diagnostic, Place

FULL = Diagnostic(
    "unknown-field",
    "`runtimes[0]` has no field `nmae`",
    Place("stacks/a.toml", 12, 3, 4, "  nmae = 1"),
    ("fields are `name`, `requirements`",),
    "did you mean `name`?",
)


def test_an_annotation_has_all_that_is_known() -> None:
    assert annotation(FULL) == (
        "::error title=unknown-field,file=stacks/a.toml,line=12,col=3,endColumn=7::"
        "`runtimes[0]` has no field `nmae`%0Afields are `name`, `requirements`%0Adid you mean `name`?"
    )
    assert annotation(Diagnostic("x", "m", Place("a", 0), severity="warning")) == "::warning title=x,file=a::m"
    assert annotation(Diagnostic("x", "m")) == "::error title=x::m"


def test_an_annotation_cannot_be_broken_out_of() -> None:
    hostile = Diagnostic("x", "50%\r\n::error::injected", Place("a:b,c", 1))
    assert annotation(hostile) == (
        "::error title=x,file=a%3Ab%2Cc,line=1,col=1,endColumn=2::50%25%0D%0A::error::injected"
    )


def test_paths_are_told_from_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stacks" / "web").mkdir(parents=True)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path / "stacks" / "web")
    assert "file=stacks/web/a.toml," in annotation(Diagnostic("x", "m", Place("a.toml", 1)))
    assert f"file={tmp_path}/a.toml," not in annotation(Diagnostic("x", "m", Place(f"{tmp_path}/a.toml", 1)))
    # What is not in the checkout is told as it was.
    assert "file=/elsewhere/a.toml," in annotation(Diagnostic("x", "m", Place("/elsewhere/a.toml", 1)))


def test_groups_fold_lines_under_a_title() -> None:
    assert group("what `a` said", ["  | 1"]) == ["::group::what `a` said", "  | 1", "::endgroup::"]


@given(st.text(alphabet="#[]:e% \r\n\x1b", max_size=30))
def test_no_other_command_can_be_read_from_a_diagnostic(hostile: str) -> None:
    told = Diagnostic("x", hostile, Place(hostile or "f", 1, 1, 1, hostile), (hostile,), hostile)
    *lines, command = diagnostic_lines(told, Paint(), github=True)
    assert command.startswith("::error title=x,")
    assert not re.search(r"[\r\n]", command)
    for line in [*lines, command]:
        assert "##[" not in line
        assert line is command or not line.lstrip().startswith("::")
    assert "##[" not in defused(hostile)
